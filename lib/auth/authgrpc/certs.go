// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates: who gets which.

package authgrpc

import (
	"context"
	"net"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// GenerateUserCerts signs the caller's own keys anew, for no longer than the
// certificate at hand: a stolen one must not live for ever. Admin may have those
// of any user.
func (s *authService) GenerateUserCerts(ctx context.Context, req *proto.UserCertsRequest) (*proto.Certs, error) {
	c := callerOf(ctx)
	if !c.isAdmin() {
		if req.Username == "" {
			req.Username = c.name
		}
		if req.Username != c.name {
			return nil, trace.AccessDenied("%s may get certificates for itself, and not for %q", c, req.Username)
		}
		if req.Expires.IsZero() || req.Expires.After(c.expires) {
			req.Expires = c.expires
		}
	}
	if req.MFAResponse != nil || req.Purpose != proto.UserCertsRequest_CERT_PURPOSE_UNSPECIFIED {
		return nil, trace.NotImplemented("there are no certificates for one session: use the one of the login")
	}
	return s.cfg.Auth.GenerateUserCerts(ctx, *req)
}

// GenerateHostCerts renews a host's certificate: for the same host id and role
// as the one at hand.
func (s *authService) GenerateHostCerts(ctx context.Context, req *proto.HostCertsRequest) (*proto.Certs, error) {
	c := callerOf(ctx)
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	if !c.isAdmin() {
		if req.HostID != c.hostID || req.Role != c.role {
			return nil, trace.AccessDenied("%s may get certificates for itself, and not for the %s %q", c, req.Role, req.HostID)
		}
	}
	if ip, _, err := net.SplitHostPort(remoteAddr(ctx)); err == nil {
		req.RemoteAddr = ip
	}
	return s.cfg.Auth.GenerateHostCerts(ctx, req)
}

type joinService struct {
	*Server
	proto.UnimplementedJoinServiceServer
}

// RegisterUsingToken joins a host with a token. There need be no certificate:
// the token is the proof. Whatever is wrong with the request is for the cluster
// to say, which writes down who tried to join.
func (s *joinService) RegisterUsingToken(ctx context.Context, req *types.RegisterUsingTokenRequest) (*proto.Certs, error) {
	if ip, _, err := net.SplitHostPort(remoteAddr(ctx)); err == nil {
		req.RemoteAddr = ip
	}
	return s.cfg.Auth.RegisterUsingToken(ctx, req)
}
