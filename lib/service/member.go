// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// What a role has of its cluster: who it is, how it reaches the auth service, and
// what it knows while that is away.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auth/join"
	"teleport-auditd/lib/cache"
	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/events/spool"
)

const (
	// firstJoin and lastJoin bound the time between two tries to join, which
	// doubles.
	firstJoin = time.Second
	lastJoin  = 30 * time.Second
	// callTimeout is how long the auth service may take over what is done again
	// and again.
	callTimeout = 15 * time.Second
	// maxTokenFile is far above what a token needs.
	maxTokenFile = 4096
)

// member is one role's membership in the cluster.
type member struct {
	identity *join.Identity
	client   *client.Client
	known    *cache.Cache

	p          *Process
	log        logrus.FieldLogger
	principals func() []string
}

// memberConfig is what differs between the roles.
type memberConfig struct {
	role types.SystemRole
	// listeners are what others reach the role at, publicAddrs what the
	// configuration says about that.
	listeners   []net.Listener
	publicAddrs []string
	// nodes asks for the cluster's nodes as well, and proxies for its proxies: the
	// role then finds the auth service through any of them.
	nodes, proxies bool
	// onLocks and onConnected are cache.Config's.
	onLocks     func(context.Context, []types.Lock)
	onConnected func(context.Context)
}

// newMember makes the host a member in a role: by the auth server of this process,
// by what an earlier start has left, or by joining, for which it waits until an
// auth server answers or ctx ends.
func (p *Process) newMember(ctx context.Context, cfg memberConfig) (*member, error) {
	name := strings.ToLower(string(cfg.role))
	m := &member{p: p, log: p.log.WithField("component", name), principals: func() []string {
		return principalsOf(cfg.listeners, cfg.publicAddrs)
	}}
	keys, err := join.OpenKeys(p.dataDir.path, cfg.role)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if p.auth != nil {
		m.identity, err = join.Sign(ctx, p.auth, p.dataDir.path, p.hostUUID, p.settings.NodeName, cfg.role, keys, m.principals(), p.clock)
	} else {
		m.identity, err = p.joined(ctx, cfg.role, keys, m.principals(), m.log)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	// The client is there before what it tells of.
	var known atomic.Pointer[cache.Cache]
	if m.client, err = m.identity.ConnectAny(ctx, func() []string { return p.waysToAuth(known.Load()) }); err != nil {
		return nil, trace.Wrap(err)
	}
	p.register(service{name: name + ".client", close: m.client.Close})
	m.known, err = cache.New(cache.Config{
		Client:  m.client,
		Path:    filepath.Join(p.dataDir.path, "cache_"+name+".json"),
		Nodes:   cfg.nodes,
		Proxies: cfg.proxies,
		OnHostCAs: func(ctx context.Context, cas []types.CertAuthority) {
			if err := m.follow(ctx, cas); err != nil && ctx.Err() == nil {
				m.log.Warnf("The host's certificates do not follow the cluster's authority yet: %s. The next try is in %v.", OneLine(err), heartbeat)
			}
		},
		OnLocks:     cfg.onLocks,
		OnConnected: cfg.onConnected,
		Clock:       p.clock,
		Log:         m.log,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	known.Store(m.known)
	p.register(service{name: name + ".cache", serve: func(ctx context.Context) error {
		m.known.Run(ctx)
		return nil
	}})
	p.members = append(p.members, m)
	return m, nil
}

// waysToAuth are the addresses of the configuration, and behind them the HTTPS of the
// proxies that are known: one of them may be there when the others are not.
func (p *Process) waysToAuth(known *cache.Cache) []string {
	ways := slices.Clone(p.authAddrs)
	if known == nil {
		return ways
	}
	proxies, err := known.Proxies()
	if err != nil {
		return ways // nothing is known yet
	}
	for _, proxy := range proxies {
		if addr := proxy.GetAddr(); !slices.Contains(ways, addr) {
			ways = append(ways, addr)
		}
	}
	return ways
}

// joined is who the host has been since it joined, or who it becomes now.
func (p *Process) joined(ctx context.Context, role types.SystemRole, keys *join.Keys, principals []string, log logrus.FieldLogger) (*join.Identity, error) {
	identity, err := join.Open(p.dataDir.path, role, keys, p.clock)
	switch {
	case trace.IsNotFound(err):
	case err != nil:
		return nil, trace.Wrap(err)
	case identity.HostID() != p.hostUUID:
		return nil, trace.BadParameter("this host has joined the cluster as %s, and %s says that it is %s: put that file back, or take %s away and join again with a new token",
			identity.HostID(), filepath.Join(p.dataDir.path, hostUUIDName), p.hostUUID, identity.Path())
	default:
		err := identity.Valid()
		if err == nil {
			return identity, nil
		}
		if p.settings.AuthToken == "" {
			return nil, trace.Wrap(err)
		}
		log.Warnf("%s.", sentence(err))
	}
	token, err := readToken(p.settings.AuthToken)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	certs, err := p.join(ctx, join.Params{
		Servers:    p.authAddrs,
		Token:      token,
		Pins:       p.settings.CAPins,
		HostID:     p.hostUUID,
		NodeName:   p.settings.NodeName,
		Role:       role,
		Principals: principals,
		Keys:       keys,
		Clock:      p.clock,
	}, log)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if skew := join.Skew(certs, p.clock.Now()); skew > 0 {
		log.Warnf("This host's clock is %v ahead of the auth server's: set the clocks (NTP), or certificates will not be valid when they should.", skew.Round(time.Second))
	} else if skew < 0 {
		log.Warnf("This host's clock is %v behind the auth server's: set the clocks (NTP), or certificates will not be valid when they should.", (-skew).Round(time.Second))
	}
	identity, err = join.New(p.dataDir.path, role, keys, certs, principals, p.clock)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	log.Infof("Joined the cluster %q as a %s. The token is not needed any more.", identity.ClusterName(), strings.ToLower(string(role)))
	return identity, nil
}

// join tries until an auth server answers.
func (p *Process) join(ctx context.Context, params join.Params, log logrus.FieldLogger) (*proto.Certs, error) {
	for wait := firstJoin; ; wait = min(2*wait, lastJoin) {
		certs, err := join.Register(ctx, params)
		if err == nil {
			return certs, nil
		}
		if ctx.Err() != nil {
			return nil, trace.Wrap(ctx.Err(), "joining the cluster was given up")
		}
		if trace.IsBadParameter(err) {
			return nil, trace.Wrap(err) // what the configuration lacks
		}
		if !trace.IsConnectionProblem(err) {
			return nil, wrapLine(err, "this host cannot join the cluster")
		}
		log.Warnf("%s. The next try to join is in %v.", sentence(err), wait)
		select {
		case <-ctx.Done():
			return nil, trace.Wrap(ctx.Err(), "joining the cluster was given up")
		case <-p.clock.After(wait):
		}
	}
}

// wrapLine puts what failed before an error of one line, which keeps its kind.
func wrapLine(err error, what string) error {
	line := fmt.Sprintf("%s: %s", what, OneLine(err))
	switch {
	case trace.IsAccessDenied(err):
		return trace.AccessDenied("%s", line)
	case trace.IsCompareFailed(err):
		return trace.CompareFailed("%s", line)
	}
	return trace.Errorf("%s", line)
}

// readToken takes a token, or the path of a file of it.
func readToken(token string) (string, error) {
	if !filepath.IsAbs(token) {
		return token, nil
	}
	text, err := os.ReadFile(token)
	if err != nil {
		return "", trace.AccessDenied("the token's file %s (teleport.auth_token) cannot be read: %v", token, cause.System(err))
	}
	word := strings.TrimSpace(string(text))
	if word == "" || len(word) > maxTokenFile || strings.ContainsAny(word, " \t\r\n\x00") {
		return "", trace.BadParameter("the token's file %s (teleport.auth_token) must hold a token, in one line, and nothing else", token)
	}
	return word, nil
}

// keepCurrent renews the certificates in time, and does the tasks, at each
// heartbeat.
func (m *member) keepCurrent(role string, tasks ...func(context.Context) error) {
	refresh := func(ctx context.Context) error {
		renewed, err := m.identity.Refresh(ctx, m.client, m.p.settings.NodeName, m.principals())
		m.tellRenewed(renewed, err)
		return trace.Wrap(err)
	}
	follow := func(ctx context.Context) error {
		cas, err := m.known.Authorities(types.HostCA)
		if err != nil || !m.known.Current() {
			return nil // the cache says so itself
		}
		return trace.Wrap(m.follow(ctx, cas))
	}
	m.p.keepCurrent(role, append([]func(context.Context) error{follow, refresh}, tasks...)...)
}

// follow has the host's certificates signed by the authority that signs now.
func (m *member) follow(ctx context.Context, cas []types.CertAuthority) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	renewed, err := m.identity.Follow(ctx, m.client, m.p.settings.NodeName, cas)
	m.tellRenewed(renewed, err)
	return trace.Wrap(err)
}

func (m *member) tellRenewed(renewed bool, err error) {
	if renewed && err == nil {
		m.log.Infof("The host's certificates were signed anew, and end at %s.", m.identity.TLSCertificate().Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

// openEvents returns what keeps events for the cluster's audit log until the auth
// service has them. It is closed after all services that are registered later.
func (m *member) openEvents(role string) (*spool.Spool, error) {
	events, err := spool.New(spool.Config{
		Dir:   filepath.Join(m.p.dataDir.path, "events_"+role),
		Send:  m.emit,
		Clock: m.p.clock,
		Log:   m.log,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	m.p.register(service{name: role + ".events", close: func() error {
		// What cannot be sent now is sent after the next start.
		ctx, cancel := context.WithTimeout(context.Background(), eventsCloseTimeout)
		defer cancel()
		_ = events.Flush(ctx)
		return events.Close()
	}})
	return events, nil
}

// emit sends an event to the cluster's audit log. A refusal is no answer about the
// event where the host has no certificate to send it with.
func (m *member) emit(ctx context.Context, event apievents.AuditEvent) error {
	err := m.client.EmitAuditEvent(ctx, event)
	if trace.IsAccessDenied(err) && m.identity.Valid() != nil {
		return trace.ConnectionProblem(err, "%s", OneLine(err))
	}
	return trace.Wrap(err)
}

// principalsOf are the names and addresses that a role is reached by, beside the
// host's own.
func principalsOf(listeners []net.Listener, publicAddrs []string) []string {
	principals := []string{"localhost", "127.0.0.1", "::1"}
	for _, listener := range listeners {
		principals = append(principals, servedAddresses(listener.Addr())...)
	}
	for _, addr := range publicAddrs {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			principals = append(principals, host)
		}
	}
	slices.Sort(principals)
	return slices.Compact(principals)
}

// untilKnown waits until something is known of the cluster. It returns false where
// ctx has ended.
func (m *member) untilKnown(ctx context.Context) bool {
	err := m.known.Wait(ctx)
	return err == nil || !errors.Is(err, context.Canceled)
}
