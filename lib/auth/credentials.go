// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What people log in with, and the parts of the auth server that it leans on.

package auth

import (
	"context"
	"errors"
	"runtime"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/limits"
)

// Cluster is what Credentials asks of the auth server around it.
type Cluster interface {
	ClusterName() string
	// GetUser returns trace.NotFound for a user who is not there.
	GetUser(ctx context.Context, name string, withSecrets bool) (types.User, error)
	GetAuthPreference(ctx context.Context) (types.AuthPreference, error)
	GetCertAuthorities(ctx context.Context, kind types.CertAuthType, loadKeys bool) ([]types.CertAuthority, error)
	// GenerateUserCerts signs the keys that are given, for as long as asked
	// and as the user's roles allow. A zero Expires is as long as they allow.
	// The error is trace.AccessDenied, and begins with login.LockedPrefix,
	// where the user or one of the user's roles is locked.
	GenerateUserCerts(ctx context.Context, req proto.UserCertsRequest) (*proto.Certs, error)
	EmitAuditEvent(ctx context.Context, event apievents.AuditEvent) error
	// EmitStrangersEvent keeps an event about somebody whom nobody knows, and not
	// for as long as others.
	EmitStrangersEvent(ctx context.Context, event apievents.AuditEvent) error
}

// CredentialsConfig is what Credentials needs.
type CredentialsConfig struct {
	Backend backend.Backend
	Sealer  Sealer
	Cluster Cluster
	// ProxyAddr returns host:port of a proxy's web address, for links to it,
	// and an empty string where none is known. Links then name the host
	// PlaceholderProxy.
	ProxyAddr func(context.Context) string
	// Clock is the real one by default.
	Clock clockwork.Clock
	// Log is logrus's standard logger by default.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults refuses a config without Backend, Sealer or Cluster.
func (c *CredentialsConfig) CheckAndSetDefaults() error {
	switch {
	case c.Backend == nil:
		return trace.BadParameter("the credentials have no backend")
	case c.Sealer == nil:
		return trace.BadParameter("the credentials have no sealer")
	case c.Cluster == nil:
		return trace.BadParameter("the credentials have no cluster")
	}
	if c.ProxyAddr == nil {
		c.ProxyAddr = func(context.Context) string { return "" }
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Credentials are the passwords, one-time codes and invitations of a cluster's
// users. Its methods may be called from several goroutines, and several auth
// servers may share the store.
type Credentials struct {
	backend   backend.Backend
	sealer    Sealer
	cluster   Cluster
	proxyAddr func(context.Context) string
	clock     clockwork.Clock
	log       logrus.FieldLogger
	// hashers has room for as many as may compute a hash at the same time.
	hashers chan struct{}
	// hashQueue are those who wait for room there.
	hashQueue *limits.Crowd
}

// NewCredentials checks cfg. There is nothing to close.
func NewCredentials(cfg CredentialsConfig) (*Credentials, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	return &Credentials{
		backend:   cfg.Backend,
		sealer:    cfg.Sealer,
		cluster:   cfg.Cluster,
		proxyAddr: cfg.ProxyAddr,
		clock:     cfg.Clock,
		log:       cfg.Log,
		hashers:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		hashQueue: limits.NewCrowd(maxHashQueue, maxHashQueue),
	}, nil
}

// DeleteUserSecrets deletes all that the user logs in with, open links and
// failed logins: for a user who is deleted. It is no error where there is none.
func (c *Credentials) DeleteUserSecrets(ctx context.Context, name string) error {
	return trace.NewAggregate(
		c.deleteUserToken(ctx, name),
		c.deleteLogin(ctx, name),
		c.ClearLoginFailures(ctx, name),
	)
}

// deleteLogin deletes the password, the second factor, and what is remembered
// of its codes, which say nothing about the next one's.
func (c *Credentials) deleteLogin(ctx context.Context, name string) error {
	for _, prefix := range []string{passwordsPrefix, otpPrefix} {
		if err := c.backend.Delete(ctx, prefix+escapeKey(name)); err != nil && !trace.IsNotFound(err) {
			return trace.Wrap(err)
		}
	}
	return trace.Wrap(c.backend.DeleteRange(ctx, otpUsedPrefix+escapeKey(name)+"/"))
}

// refusal is an error that is an answer: its text is for whoever asked. All
// others say something about the store, in the words and kinds of the store.
type refusal struct {
	// reason is for the audit log alone.
	reason string
	err    error
}

func refuse(reason string, err error) error { return &refusal{reason: reason, err: err} }

func (r *refusal) Error() string { return r.reason + ": " + r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }

// answer is what a proxy, and behind it anybody, is told of err.
func (c *Credentials) answer(err error) error {
	var refused *refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return trace.Wrap(refused.err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return trace.Wrap(err)
	}
	c.log.WithError(err).Warn("A login or a link could not be looked into.")
	return trace.ConnectionProblem(nil, "the auth service cannot look into it now: try again in a moment")
}

// needsOTP tells whether the cluster asks for a code.
func (c *Credentials) needsOTP(ctx context.Context) (bool, error) {
	preference, err := c.cluster.GetAuthPreference(ctx)
	if err != nil {
		return false, trace.Wrap(err)
	}
	return preference.IsSecondFactorEnabled(), nil
}

func (c *Credentials) eventMetadata(kind, code string) apievents.Metadata {
	return apievents.Metadata{
		Type:        kind,
		Code:        code,
		ID:          uuid.NewString(),
		Time:        c.clock.Now().UTC(),
		ClusterName: c.cluster.ClusterName(),
	}
}
