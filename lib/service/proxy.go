// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The proxy role: the jump host, HTTPS, and the port of the nodes that dial out.

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/join"
	"teleport-auditd/lib/cache"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/balancer"
	"teleport-auditd/lib/srv/clientaddr"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/srv/proxy"
	"teleport-auditd/lib/srv/refusals"
	"teleport-auditd/lib/srv/tunnel"
	"teleport-auditd/lib/version"
	"teleport-auditd/lib/web"
	"teleport-auditd/lib/web/mux"
)

func (p *Process) initProxy(ctx context.Context, listeners *listeners) error {
	s := &p.settings.Proxy
	var (
		m       *member
		tunnels *tunnel.Server
	)
	web, dialIn := listeners.web.Addr(), listeners.tunnel.Addr()
	registered := newRegistration(p, func(ctx context.Context) error { return p.announceProxy(ctx, m.client, web, dialIn) })
	m, err := p.newMember(ctx, memberConfig{
		role:        types.RoleProxy,
		listeners:   []net.Listener{listeners.proxy, listeners.tunnel},
		publicAddrs: []string{s.PublicAddr, s.SSHPublicAddr, s.TunnelPublicAddr},
		nodes:       true,
		// It is called by services, which start when all is made.
		onLocks: func(ctx context.Context, _ []types.Lock) {
			tunnels.EndWhere(func(nodeID string) bool {
				denied, ok := errors.AsType[*access.Denied](checkNodeLocks(ctx, m.known, nodeID, p.clock))
				return ok && denied != nil
			})
		},
		onConnected: registered.connected,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	var cas srv.CAs = m.known
	if path := p.settings.SSH.TrustedUserCAKeys; p.settings.SSH.Enabled && path != "" {
		// Who may log in at the node must be able to get there.
		file, err := srv.NewCAFile(path)
		if err != nil {
			return trace.Wrap(err)
		}
		cas = eitherCAs{m.known, file}
	}
	for _, listener := range []*net.Listener{&listeners.proxy, &listeners.tunnel, &listeners.web} {
		*listener, err = balancer.NewListener(*listener, balancer.Config{
			Headers: s.ProxyProtocol,
			Clock:   p.clock,
			Log:     p.log.WithField("component", "proxy"),
		})
		if err != nil {
			return trace.Wrap(err)
		}
	}
	decider, err := access.NewDecider(access.DeciderConfig{Source: m.known, ServerID: p.hostUUID, Clock: p.clock})
	if err != nil {
		return trace.Wrap(err)
	}
	// Who is locked out gets no further than here.
	authorize := func(ctx context.Context, identity srv.Identity) error {
		return node.Refusal(decider.CheckLocks(ctx, node.Person(identity)))
	}
	events, err := m.openEvents("proxy")
	if err != nil {
		return trace.Wrap(err)
	}
	refusedTunnel, err := m.tellRefused(events.Emit, "tunnel.refused", "the tunnel port of the proxy "+p.settings.NodeName)
	if err != nil {
		return trace.Wrap(err)
	}
	refused, err := m.tellRefused(events.Emit, "proxy.refused", "the proxy "+p.settings.NodeName)
	if err != nil {
		return trace.Wrap(err)
	}
	tunnels, err = tunnel.NewServer(tunnel.ServerConfig{
		CAs:            cas,
		Refused:        refusedTunnel,
		Authorize:      authorizeTunnels(m.known, authorize, p.clock),
		HostSigners:    m.identity.Signers,
		Emitter:        p.emitter,
		HostCAs:        m.known.HostCAs,
		ClusterName:    m.identity.ClusterName(),
		DialAuth:       join.Dialer(p.authAddrs),
		MaxStartups:    s.MaxStartups,
		LoginGraceTime: s.LoginGraceTime,
		Clock:          p.clock,
		Log:            p.log.WithField("component", "tunnel"),
	})
	if err != nil {
		return trace.Wrap(err)
	}
	p.serveSSH(sshRole{name: "tunnel", ready: ProxyReverseTunnelReady, server: tunnels, listener: listeners.tunnel, begin: m.untilKnown})
	if err := p.initWeb(m, listeners); err != nil {
		return trace.Wrap(err)
	}
	server, err := proxy.New(proxy.Config{
		CAs:            cas,
		HostSigners:    m.identity.Signers,
		Nodes:          m.known,
		Tunnels:        tunnels,
		CheckNode:      checkNode(m.known, p.clock),
		Headers:        clientaddr.NewSigner(m.identity.Signers),
		Authorize:      authorize,
		Refused:        refused,
		ClusterName:    m.identity.ClusterName(),
		Emitter:        p.emitter,
		MaxStartups:    s.MaxStartups,
		LoginGraceTime: s.LoginGraceTime,
		Clock:          p.clock,
		Log:            p.log.WithField("component", "proxy"),
	})
	if err != nil {
		return trace.Wrap(err)
	}
	m.keepCurrent("proxy", registered.again(m))
	p.serveSSH(sshRole{
		name: "proxy", ready: ProxySSHReady, server: server, listener: listeners.proxy, begin: m.untilKnown,
		settle: registered.wait,
	})
	return nil
}

// tellRefused returns what tells the cluster's audit log of those whom a port of the
// proxy refuses, as a node tells of its own.
func (m *member) tellRefused(emit func(apievents.AuditEvent), name, by string) (func(srv.Refused), error) {
	teller, err := refusals.New(refusals.Config{Emit: emit, ClusterName: m.identity.ClusterName(), By: by, Clock: m.p.clock})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	m.p.register(service{name: name, close: func() error {
		teller.Close()
		return nil
	}})
	return teller.Tell, nil
}

// authorizeTunnels asks users about people, and keeps nodes out that are locked:
// whoever has taken a node over would go on to have its users led there.
func authorizeTunnels(locks access.Source, users func(context.Context, srv.Identity) error, clock clockwork.Clock) func(context.Context, srv.Identity) error {
	return func(ctx context.Context, identity srv.Identity) error {
		if identity.HostID == "" {
			return users(ctx, identity)
		}
		return node.Refusal(checkNodeLocks(ctx, locks, identity.HostID, clock))
	}
}

// checkNodeLocks refuses a node that is locked, with an *access.Denied.
func checkNodeLocks(ctx context.Context, locks access.Source, nodeID string, clock clockwork.Clock) error {
	decider, err := access.NewDecider(access.DeciderConfig{Source: locks, ServerID: nodeID, Clock: clock})
	if err != nil {
		return trace.Wrap(err)
	}
	return trace.Wrap(decider.CheckLocks(ctx, access.Person{}))
}

// checkNode keeps users from nodes that are locked, also from one that was taken
// over and would let them in. What is not the node's to say is for the proxy's log.
func checkNode(locks access.Source, clock clockwork.Clock) func(context.Context, string) error {
	return func(ctx context.Context, nodeID string) error {
		err := checkNodeLocks(ctx, locks, nodeID, clock)
		if denied, ok := errors.AsType[*access.Denied](err); ok {
			return trace.AccessDenied("%s", denied.Message)
		}
		return trace.Wrap(err)
	}
}

// announceProxy registers the proxy, or renews its registration, for announceTTL:
// links for people lead to a proxy that is registered, and nodes dial out to all.
func (p *Process) announceProxy(ctx context.Context, registry registry, web, dialIn net.Addr) error {
	server, err := types.NewServerWithLabels(p.hostUUID, types.KindProxy, types.ServerSpecV2{
		Addr:     p.publicAddr(p.settings.Proxy.PublicAddr, web),
		Hostname: p.settings.NodeName,
		Version:  version.Version,
	}, map[string]string{auth.TunnelAddrLabel: p.tunnelPublicAddr(dialIn)})
	if err != nil {
		return trace.Wrap(err, "describing the proxy")
	}
	server.SetExpiry(p.clock.Now().Add(announceTTL))
	_, err = registry.UpsertNode(ctx, server)
	return trace.Wrap(err, "registering the proxy")
}

// tunnelPublicAddr is where nodes dial in: what the configuration says, or the port
// at the host where people find the proxy.
func (p *Process) tunnelPublicAddr(listener net.Addr) string {
	s := &p.settings.Proxy
	if s.TunnelPublicAddr == "" && s.PublicAddr != "" {
		host, _, err := net.SplitHostPort(s.PublicAddr)
		_, port, portErr := net.SplitHostPort(listener.String())
		if err == nil && portErr == nil {
			return net.JoinHostPort(host, port)
		}
	}
	return p.publicAddr(s.TunnelPublicAddr, listener)
}

// initWeb makes HTTPS ready to be served.
func (p *Process) initWeb(m *member, listeners *listeners) error {
	log := p.log.WithField("component", "web")
	s := &p.settings.Proxy
	var files []mux.KeypairFiles
	for _, pair := range s.KeyPairs {
		files = append(files, mux.KeypairFiles{Key: pair.KeyFile, Cert: pair.CertFile})
	}
	if len(files) == 0 {
		names := append([]string{p.settings.NodeName}, principalsOf([]net.Listener{listeners.web}, []string{s.PublicAddr})...)
		own, err := mux.SelfSigned(p.dataDir.path, names, p.clock)
		if err != nil {
			return trace.Wrap(err)
		}
		files = append(files, own)
	}
	keypairs, err := mux.NewKeypairs(files, p.clock, log)
	if err != nil {
		return trace.Wrap(err)
	}
	p.reload = append(p.reload, keypairs.Reload)
	settings := webclient.ProxySettings{SSH: webclient.SSHProxySettings{
		ListenAddr:       listeners.proxy.Addr().String(),
		TunnelListenAddr: listeners.tunnel.Addr().String(),
		WebListenAddr:    listeners.web.Addr().String(),
		PublicAddr:       p.publicAddr(s.PublicAddr, listeners.web.Addr()),
		SSHPublicAddr:    s.SSHPublicAddr,
		TunnelPublicAddr: s.TunnelPublicAddr,
	}}
	handler, err := web.New(web.Config{
		Auth:        func() web.AuthClient { return webAuth{m.client, m.known} },
		ClusterName: m.identity.ClusterName(),
		Proxy:       func() webclient.ProxySettings { return settings },
		Emitter:     p.emitter,
		Clock:       p.clock,
		Log:         log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	listener, err := mux.NewListener(listeners.web, mux.Config{
		TLS:      &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: keypairs.GetCertificate},
		DialAuth: join.Dialer(p.authAddrs),
		Clock:    p.clock,
		Log:      log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	listeners.web = listener
	server := web.Server(handler, log)
	p.register(service{
		name: "web",
		serve: func(context.Context) error {
			log.Infof("HTTPS listens on %s.", listener.Addr())
			p.BroadcastEvent(Event{Name: ProxyWebReady, Payload: listener.Addr()})
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return trace.Wrap(err)
			}
			return nil
		},
		drain: server.Shutdown,
		close: func() error { return together(server.Close(), closeListener(listener)) },
	})
	return nil
}

// webAuth is the auth service for HTTPS, which says where the proxy's ports are, and
// how users log in, also while that is away.
type webAuth struct {
	*client.Client
	known *cache.Cache
}

// GetAuthPreference implements web.AuthClient.
func (w webAuth) GetAuthPreference(ctx context.Context) (types.AuthPreference, error) {
	return w.known.AuthPreference(ctx)
}

// eitherCAs are all authorities of several sources. One that cannot be read
// refuses everybody, as it would alone.
type eitherCAs []srv.CAs

// UserCAs implements srv.CAs.
func (e eitherCAs) UserCAs(ctx context.Context) ([]ssh.PublicKey, error) {
	var all []ssh.PublicKey
	for _, cas := range e {
		keys, err := cas.UserCAs(ctx)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		all = append(all, keys...)
	}
	return all, nil
}
