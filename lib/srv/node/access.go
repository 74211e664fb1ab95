// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What roles and locks say: who is let in, what a connection may do, and whose
// connections end.

package node

import (
	"context"
	"errors"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/srv"
)

// Person returns who a certificate names, as lib/access decides about it.
func Person(identity srv.Identity) access.Person {
	return access.Person{Name: identity.TeleportUser, Login: identity.Login, Roles: identity.Roles, Traits: identity.Traits}
}

// Refusal gives an error of Config.Access the reason that the records have.
func Refusal(err error) error {
	if err == nil {
		return nil
	}
	if denied, ok := errors.AsType[*access.Denied](err); ok {
		return &srv.Refusal{Reason: denied.Reason, Err: err}
	}
	return &srv.Refusal{Reason: access.ReasonUndecided, Err: err}
}

// enter makes the connection one that EndWhere finds, and returns what takes it
// away again.
func (s *Server) enter(c *connection) (leave func()) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.open[c] = struct{}{}
	return func() {
		s.openMu.Lock()
		defer s.openMu.Unlock()
		delete(s.open, c)
	}
}

// authorize finds out what the client may do. It comes after enter: a lock that
// arrives is seen either here or by EndWhere, also where it came while the client
// was authenticating.
func (c *connection) authorize(ctx context.Context) error {
	cfg := &c.server.cfg
	options := access.Options{ForwardAgent: true, PortForwarding: true}
	if cfg.Access != nil {
		var err error
		if options, err = cfg.Access(ctx, c.Identity); err != nil {
			return trace.Wrap(err)
		}
	}
	if cfg.IdleTimeout > 0 && (options.ClientIdleTimeout <= 0 || cfg.IdleTimeout < options.ClientIdleTimeout) {
		options.ClientIdleTimeout = cfg.IdleTimeout
	}
	options.DisconnectExpiredCert = options.DisconnectExpiredCert || cfg.DisconnectExpired
	c.may = options
	return nil
}

// turnAway ends a connection whose client might log in when it authenticated,
// and may not any more.
func (c *connection) turnAway(err error) {
	var why *srv.Refusal
	_ = errors.As(Refusal(err), &why)
	c.log.WithField("reason", why.Reason).Warnf("The login is refused after the client has authenticated: %v.", err)
	c.login.mu.Lock()
	c.login.recordRefusal(why.Reason)
	c.login.mu.Unlock()
	_ = c.Close()
	if err := c.login.Close(); err != nil {
		c.log.WithError(err).Error("What PAM has begun for the login is left.")
	}
}

// EndWhere ends the connections for whose identity match returns a text: it is
// written on their terminals, as a line of its own, and each login ends with its
// record. An empty text leaves a connection alone. EndWhere returns how many it
// ends, and does not wait for them. match must return a line without control
// characters.
//
// Whoever refuses people in Config.Access calls it when that changes, after the
// change is in force there: so no connection is missed.
func (s *Server) EndWhere(match func(srv.Identity) string) (ended int) {
	s.openMu.Lock()
	open := make([]*connection, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.openMu.Unlock()
	for _, c := range open {
		line := match(c.Identity)
		if line == "" {
			continue
		}
		ended++
		c.log.Infof("Closing the connection: %s", line)
		c.spawn(func() { c.farewell(line) })
	}
	return ended
}
