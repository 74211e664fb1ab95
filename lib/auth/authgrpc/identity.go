// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Who calls: what the certificate of a connection says, checked for each call.

package authgrpc

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/tlsca"
)

// caller is who makes a call.
type caller struct {
	// name is a user's, or "<host id>.<cluster>" of a host.
	name string
	// role is that of a host in the system, and empty for users.
	role types.SystemRole
	// hostID is a host's.
	hostID string
	// checker decides for users what their roles allow.
	checker *access.Checker
	// expires is when the certificate does.
	expires time.Time
	// addr is ip:port of the other end.
	addr string
}

func (c *caller) isAdmin() bool { return c.role == types.RoleAdmin }
func (c *caller) isUser() bool  { return c.role == "" }

// String is how errors name the caller.
func (c *caller) String() string {
	if c.isUser() {
		return "the user " + c.name
	}
	return strings.ToLower(string(c.role)) + " " + c.name
}

type callerKey struct{}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns nil for a connection without a certificate.
func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// remoteAddr is ip:port of the other end, where it has one.
func remoteAddr(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	if _, ok := p.Addr.(*net.TCPAddr); !ok {
		return ""
	}
	return p.Addr.String()
}

// identify returns who calls, or nil where the connection has no certificate.
// The error is trace.AccessDenied for one that is no longer good.
func (s *Server) identify(ctx context.Context) (*caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, trace.AccessDenied("the connection is unknown")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, trace.AccessDenied("the connection is without TLS")
	}
	if len(info.State.PeerCertificates) == 0 {
		return nil, nil //nolint:nilnil // nobody is an answer here
	}
	cert := info.State.PeerCertificates[0]
	now := s.cfg.Clock.Now()
	if now.After(cert.NotAfter) {
		return nil, trace.AccessDenied("the certificate of %s expired at %s: get a new one", cert.Subject.CommonName, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	trusted, err := s.trust.current(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	kind, ok := signedBy(info.State.VerifiedChains, trusted)
	if !ok {
		return nil, trace.AccessDenied("the authority that signed the certificate of %s is no longer trusted: get a new one", cert.Subject.CommonName)
	}
	identity, err := tlsca.FromSubject(cert.Subject)
	if err != nil {
		return nil, trace.AccessDenied("%v", err)
	}
	cluster := s.cfg.Auth.ClusterName()
	if identity.Cluster != cluster {
		return nil, trace.AccessDenied("the certificate of %s is of the cluster %q, and this is %q", identity.Username, identity.Cluster, cluster)
	}
	c := &caller{name: identity.Username, expires: cert.NotAfter, addr: remoteAddr(ctx)}
	switch kind {
	case types.HostCA:
		err = s.identifyHost(c, identity)
	case types.UserCA:
		err = s.identifyUser(ctx, c, identity, cert.NotBefore)
	default:
		err = trace.AccessDenied("the certificate of %s is of no user and no host", identity.Username)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return c, nil
}

// signedBy tells which authority is at the end of a verified chain. The subject
// does not: a user's role may have the name of a role of the system.
func signedBy(chains [][]*x509.Certificate, trusted *authorities) (types.CertAuthType, bool) {
	for _, chain := range chains {
		if len(chain) != 2 {
			continue // nothing is signed by way of another
		}
		if kind, ok := trusted.kinds[sha256.Sum256(chain[1].Raw)]; ok {
			return kind, true
		}
	}
	return "", false
}

func (s *Server) identifyHost(c *caller, identity tlsca.Identity) error {
	hostID, ok := strings.CutSuffix(identity.Username, "."+identity.Cluster)
	if !ok || hostID == "" || len(identity.Groups) != 1 {
		return trace.AccessDenied("the certificate of the host %s names no host id and one role", identity.Username)
	}
	role := types.SystemRole(identity.Groups[0])
	if !slices.Contains([]types.SystemRole{types.RoleAdmin, types.RoleAuth, types.RoleProxy, types.RoleNode}, role) {
		return trace.AccessDenied("the certificate of the host %s has the unknown role %q", identity.Username, role)
	}
	c.hostID, c.role = hostID, role
	if role == types.RoleAdmin && s.cfg.Admin != "" {
		c.name = s.cfg.Admin
	}
	return nil
}

// identifyUser takes the roles that the certificate names and the user still
// has: what was taken away is gone at once, and what was given comes with the
// next certificate.
//
// A certificate from before the user was made is that of another, who was removed
// and had the same name.
func (s *Server) identifyUser(ctx context.Context, c *caller, identity tlsca.Identity, notBefore time.Time) error {
	user, err := s.cfg.Auth.GetUser(ctx, identity.Username, false)
	if trace.IsNotFound(err) {
		return trace.AccessDenied("the user %s of the certificate does not exist", identity.Username)
	}
	if err != nil {
		return trace.Wrap(err)
	}
	// Certificates have whole seconds.
	if created := user.GetCreatedBy().Time.Truncate(time.Second); notBefore.Add(auth.ClockSkew).Before(created) {
		return trace.AccessDenied("the certificate of %s is older than the user of this name, who was created at %s: log in again", identity.Username, created.UTC().Format(time.RFC3339))
	}
	var roles []types.Role
	var names []string
	for _, name := range identity.Groups {
		if !slices.Contains(user.GetRoles(), name) {
			continue
		}
		role, err := s.cfg.Auth.GetRole(ctx, name)
		if trace.IsNotFound(err) {
			continue
		}
		if err != nil {
			return trace.Wrap(err)
		}
		roles = append(roles, role)
		names = append(names, name)
	}
	if err := s.checkLocks(ctx, identity.Username, names); err != nil {
		return trace.Wrap(err)
	}
	c.checker = access.NewChecker(roles, identity.Traits)
	return nil
}

// checkLocks refuses a user whom a lock in force shuts out from the cluster: by
// name, or by a role. Locks that also name a login or a node hold there.
func (s *Server) checkLocks(ctx context.Context, user string, roles []string) error {
	locks, err := s.cfg.Auth.GetLocks(ctx, true)
	if err != nil {
		return trace.Wrap(err)
	}
	for _, lock := range locks {
		target := lock.Target()
		if target.Login != "" || target.ServerID != "" {
			continue
		}
		if target.User != "" && target.User != user || target.Role != "" && !slices.Contains(roles, target.Role) {
			continue
		}
		if message := lock.Message(); message != "" {
			return trace.AccessDenied("the user %s is locked: %s", user, message)
		}
		return trace.AccessDenied("the user %s is locked", user)
	}
	return nil
}

// checkNodeLock refuses a node that is locked whatever would let it take part in
// the cluster. It may still send what it has to record, and hear that the lock has
// ended. Proxies and auth servers go on: a lock on their host's id keeps people
// from getting through, which the proxy itself sees to.
func (s *Server) checkNodeLock(ctx context.Context, c *caller, method string) error {
	if c == nil || c.role != types.RoleNode {
		return nil
	}
	switch method {
	case authMethods + "Ping", authMethods + "EmitAuditEvent", authMethods + "WatchEvents",
		authMethods + "GetLock", authMethods + "GetLocks":
		return nil
	}
	locks, err := s.cfg.Auth.GetLocks(ctx, true)
	if err != nil {
		return trace.Wrap(err)
	}
	for _, lock := range locks {
		if !lock.Target().Equals(types.LockTarget{ServerID: c.hostID}) {
			continue
		}
		if message := lock.Message(); message != "" {
			return trace.AccessDenied("%s is locked by an administrator: %s", c, message)
		}
		return trace.AccessDenied("%s is locked by an administrator", c)
	}
	return nil
}
