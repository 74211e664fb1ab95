// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates of hosts.

package auth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"
)

const (
	// ExtensionRole is the extension of a host's certificate that says what the
	// host is: "Node" or "Proxy". Teleport's own certificates have it, but its
	// api module does not declare it.
	ExtensionRole = "x-teleport-role"
	// ExtensionAuthority is the extension of a host's certificate that names
	// the cluster, as Teleport's do.
	ExtensionAuthority = "x-teleport-authority"
)

// HostCertRequest asks for a host's certificate.
type HostCertRequest struct {
	// PublicKey is the host's, of a kind that UserCertRequest.PublicKey allows.
	PublicKey ssh.PublicKey
	// HostID is the host's unique id, as a rule a UUID.
	HostID string
	// NodeName is the name under which users know the host.
	NodeName string
	// Role is types.RoleNode or types.RoleProxy.
	Role types.SystemRole
	// Principals are other names and IP addresses that clients connect to, with
	// neither port nor brackets.
	Principals []string
	// TTL is how long the certificate is valid from now: from one second to
	// MaxTTL.
	TTL time.Duration
}

// CheckAndSetDefaults refuses, with trace.BadParameter, what SignHost would.
// There are no defaults.
func (r *HostCertRequest) CheckAndSetDefaults() error {
	if err := checkPublicKey(r.PublicKey); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("host id", r.HostID); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("node name", r.NodeName); err != nil {
		return trace.Wrap(err)
	}
	switch r.Role {
	case types.RoleNode, types.RoleProxy:
	default:
		return trace.BadParameter("a host certificate is for the role %q or %q, not for %q", types.RoleNode, types.RoleProxy, r.Role)
	}
	for _, principal := range r.Principals {
		if err := checkHostName("host principal", principal); err != nil {
			return trace.Wrap(err)
		}
	}
	return checkTTL(r.TTL)
}

// SignHost signs a certificate with which the host shows itself as req.NodeName
// and req.HostID, alone and followed by the cluster's name, and as each of
// req.Principals. The key id is "<HostID>.<cluster>". Names with capitals stand
// there in small letters too, which is how ssh asks for them.
//
// The error is trace.BadParameter for a request that cannot be granted, and
// trace.NotFound where the cluster has lost its host authority.
func (s *Server) SignHost(ctx context.Context, req HostCertRequest) (*ssh.Certificate, error) {
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	principals := s.hostPrincipals(req)
	if len(principals) > MaxPrincipals {
		return nil, trace.BadParameter("the host %q has %d names and addresses, and a certificate holds at most %d", req.NodeName, len(principals), MaxPrincipals)
	}
	cert := &ssh.Certificate{
		Key:             req.PublicKey,
		CertType:        ssh.HostCert,
		KeyId:           s.inCluster(req.HostID),
		ValidPrincipals: principals,
		Permissions: ssh.Permissions{Extensions: map[string]string{
			ExtensionRole:      string(req.Role),
			ExtensionAuthority: s.clusterName,
		}},
	}
	if err := s.sign(ctx, types.HostCA, cert, req.TTL); err != nil {
		return nil, trace.Wrap(err)
	}
	s.log.WithFields(logrus.Fields{
		"serial": cert.Serial,
		"key":    ssh.FingerprintSHA256(req.PublicKey),
	}).Infof("Signed a certificate for the %s %q, valid for %v.", strings.ToLower(string(req.Role)), req.NodeName, req.TTL)
	return cert, nil
}

func (s *Server) hostPrincipals(req HostCertRequest) []string {
	names := append([]string{req.NodeName, s.inCluster(req.NodeName), req.HostID, s.inCluster(req.HostID)}, req.Principals...)
	var principals []string
	for _, name := range names {
		for _, spelt := range []string{name, strings.ToLower(name)} {
			if !slices.Contains(principals, spelt) {
				principals = append(principals, spelt)
			}
		}
	}
	return principals
}

func (s *Server) inCluster(name string) string {
	return name + "." + s.clusterName
}
