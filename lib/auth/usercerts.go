// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates for a user of the cluster, as the user's roles and the locks
// decide.

package auth

import (
	"context"
	"slices"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	apidefaults "github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auth/login"
)

// GenerateUserCerts signs the SSH key, the TLS key or both that are given for the
// user req.Username, with the user's roles, traits and logins, until req.Expires
// or as long as the roles allow: the shorter of the two. A zero Expires is as
// long as they allow. Beside the certificates it returns all authorities of hosts
// that are trusted.
//
// Whoever calls it has decided that the caller may have the user's certificates.
//
// The error is trace.NotFound where there is no such user, trace.AccessDenied
// where the user or one of the roles is locked, and trace.BadParameter for what
// is not signed. Without an event in the audit log there are no certificates.
func (s *Server) GenerateUserCerts(ctx context.Context, req proto.UserCertsRequest) (*proto.Certs, error) {
	if err := s.checkUserCerts(req); err != nil {
		return nil, trace.Wrap(err)
	}
	user, err := s.GetUser(ctx, req.Username, false)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.checkUserLocks(ctx, user); err != nil {
		return nil, trace.Wrap(err)
	}
	signed := UserCertRequest{User: user.GetName(), Roles: user.GetRoles(), Traits: user.GetTraits()}
	if err := signed.readKeys(req); err != nil {
		return nil, trace.Wrap(err)
	}
	roles := make([]types.Role, 0, len(signed.Roles))
	for _, name := range signed.Roles {
		role, err := s.GetRole(ctx, name)
		if trace.IsNotFound(err) {
			return nil, trace.AccessDenied("the user %q has the role %q, which is gone: take it from the user, or create it again", user.GetName(), name)
		}
		if err != nil {
			return nil, trace.Wrap(err)
		}
		roles = append(roles, role)
	}
	checker := access.NewChecker(roles, signed.Traits)
	options := checker.Options("", nil)
	signed.Logins = checker.Logins()
	signed.Permits = &Permits{PortForwarding: options.PortForwarding, AgentForwarding: options.ForwardAgent}
	signed.TTL = s.userTTL(req.Expires, options.MaxSessionTTL)
	if err := signed.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	return s.signUserCerts(ctx, signed)
}

// checkUserCerts refuses what certificates here cannot carry: one that is asked
// to be narrower must not come out as wide as any other.
func (s *Server) checkUserCerts(req proto.UserCertsRequest) error {
	for what, asked := range map[string]bool{
		"access requests":       len(req.AccessRequests) > 0,
		"roles of another user": len(req.RoleRequests) > 0 || req.UseRoleRequests,
		"Kubernetes":            req.KubernetesCluster != "" || req.Usage == proto.UserCertsRequest_Kubernetes,
		"databases":             req.RouteToDatabase.ServiceName != "" || req.Usage == proto.UserCertsRequest_Database,
		"applications":          req.RouteToApp.Name != "" || req.Usage == proto.UserCertsRequest_App,
		"Windows desktops":      req.RouteToWindowsDesktop.WindowsDesktop != "" || req.Usage == proto.UserCertsRequest_WindowsDesktop,
		"a single node":         req.NodeName != "",
	} {
		if asked {
			return trace.BadParameter("certificates for %s are not signed here: ask for one without", what)
		}
	}
	if req.RouteToCluster != "" && req.RouteToCluster != s.clusterName {
		return trace.BadParameter("certificates for the cluster %q are not signed here: this cluster is %q", cutTo(req.RouteToCluster, MaxNameLength), s.clusterName)
	}
	return nil
}

// readKeys takes the keys to sign. Older clients give one for both certificates.
func (r *UserCertRequest) readKeys(req proto.UserCertsRequest) error {
	sshText, tlsText := req.SSHPublicKey, req.TLSPublicKey
	//lint:ignore SA1019 clients that know no other still send it
	older := req.PublicKey //nolint:staticcheck // as above
	var err error
	switch {
	case len(sshText) == 0 && len(tlsText) == 0 && len(older) == 0:
		return trace.BadParameter("there is no public key to sign")
	case len(sshText) == 0 && len(tlsText) == 0:
		if r.PublicKey, err = parseSSHKey(older); err != nil {
			return trace.Wrap(err)
		}
		r.TLSPublicKey = cryptoKey(r.PublicKey)
		return nil
	}
	if len(sshText) > 0 {
		if r.PublicKey, err = parseSSHKey(sshText); err != nil {
			return trace.Wrap(err)
		}
	}
	if len(tlsText) > 0 {
		if r.TLSPublicKey, err = parseTLSKey(tlsText); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// userTTL is the shorter of what was asked for and what is allowed.
func (s *Server) userTTL(expires time.Time, allowed time.Duration) time.Duration {
	if allowed <= 0 {
		allowed = apidefaults.MaxCertDuration
	}
	allowed = min(allowed, MaxTTL)
	if expires.IsZero() {
		return allowed
	}
	return min(allowed, expires.Sub(s.clock.Now()))
}

// checkUserLocks refuses a user whom a lock in force shuts out: by name, or by a
// role. Locks that also name a login or a node hold there.
func (s *Server) checkUserLocks(ctx context.Context, user types.User) error {
	locks, err := s.GetLocks(ctx, true)
	if err != nil {
		return trace.Wrap(err)
	}
	for _, lock := range locks {
		target := lock.Target()
		rest := target
		rest.User, rest.Role = "", ""
		if !rest.IsEmpty() ||
			target.User != "" && target.User != user.GetName() ||
			target.Role != "" && !slices.Contains(user.GetRoles(), target.Role) {
			continue
		}
		if message := lock.Message(); message != "" {
			return trace.AccessDenied("%s: %s", login.LockedPrefix, message)
		}
		return trace.AccessDenied("%s", login.LockedPrefix)
	}
	return nil
}

func (s *Server) signUserCerts(ctx context.Context, req UserCertRequest) (*proto.Certs, error) {
	req.principals = req.logins()
	certs := &proto.Certs{}
	if req.PublicKey != nil {
		cert, err := s.signUserSSH(ctx, req)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		certs.SSH = ssh.MarshalAuthorizedKey(cert)
	}
	if req.TLSPublicKey != nil {
		cert, err := s.signUserTLS(ctx, req)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		certs.TLS = encodeCert(cert)
	}
	var err error
	certs.SSHCACerts, certs.TLSCACerts, err = s.hostAuthorities(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.certCreated(ctx, req); err != nil {
		return nil, trace.Wrap(err)
	}
	return certs, nil
}
