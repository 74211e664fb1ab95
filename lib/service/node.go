// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The node role: the SSH server of this host, what it needs to be true of the
// host, and its registration.

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/join"
	"teleport-auditd/lib/cache"
	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/events/sessions"
	"teleport-auditd/lib/pam"
	"teleport-auditd/lib/pam/pamenv"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/clientaddr"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/srv/tunnel"
	"teleport-auditd/lib/version"
)

// maxFindAnswer is far above what a proxy has to say of itself.
const maxFindAnswer = 64 << 10

// What a node needs beside the daemon's own program.
const (
	sessionProgramName = "teleport-session"
	userProgramName    = "teleport-user"
)

// checkNode looks at what a node needs of this host.
func (p *Process) checkNode() error {
	if p.sessionProgram == "" {
		self, err := executable()
		if err != nil {
			return trace.Wrap(err)
		}
		p.sessionProgram = filepath.Join(filepath.Dir(self), sessionProgramName)
	}
	if p.userProgram == "" {
		p.userProgram = filepath.Join(filepath.Dir(p.sessionProgram), userProgramName)
	}
	for _, program := range []string{p.sessionProgram, p.userProgram} {
		if err := checkProgram(program); err != nil {
			return trace.Wrap(err)
		}
	}
	if p.settings.SSH.PAM.Enabled {
		if err := pam.Available(); err != nil {
			return trace.NotImplemented("ssh_service.pam is enabled, which this build cannot do: %v. Or set ssh_service.pam.enabled to no", err)
		}
		warnings, err := pam.Check(p.settings.SSH.PAM.ServiceName)
		for _, w := range warnings {
			p.log.WithField("component", "node").Warnf("PAM: %s.", w)
		}
		if err != nil {
			return trace.BadParameter("ssh_service.pam.service_name: nobody could log in: %v", err)
		}
	}
	return nil
}

// warnOfLimits says what the operator would otherwise find missing in the audit
// log. loginUID reads the process's own.
func (p *Process) warnOfLimits(euid int, loginUID func() (uint32, error)) {
	log := p.log.WithField("component", "node")
	if euid != 0 {
		log.Warnf("Auditing and switching users are off: teleport runs as uid %d, and both need root. Only this user can log in. Start it as root, best as a systemd service.", euid)
	}
	switch uid, err := loginUID(); {
	case err != nil:
		log.Debugf("The login uid of this process cannot be read: %v.", err)
	case uid != auditd.UnsetLoginUID:
		log.Warnf("The login uid of this process is set, to %d: teleport was started from a login, and its records of refused users will name that login and its session. Where login uids are immutable, every login will. Start it as a systemd service; cat /proc/%d/loginuid must say %d.", uid, os.Getpid(), uint32(auditd.UnsetLoginUID))
	}
}

// warnOfProgram says what users would otherwise find missing.
func (p *Process) warnOfProgram() {
	if closed := closedToUsers(p.userProgram); closed != "" {
		p.log.WithField("component", "node").Warnf("Users cannot run %s, so they have no sftp and no forwarding: %s is closed to them. Install it where all may go, as make install does.", p.userProgram, closed)
	}
}

func checkProgram(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return trace.NotFound("%s is missing, which ssh_service needs for logins: install it beside teleport (make install does), or set ssh_service.enabled to no", path)
	case err != nil:
		return trace.AccessDenied("%s cannot be used (%v): make it executable for teleport", path, cause.System(err))
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return trace.BadParameter("%s is no executable program: install it again (make install does)", path)
	}
	return nil
}

// closedToUsers returns the program, or the folder above it, that others than its
// owner may not run or enter; empty where all may.
func closedToUsers(program string) string {
	for path := program; ; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o001 == 0 {
			return path
		}
		if path == filepath.Dir(path) {
			return ""
		}
	}
}

func (p *Process) initNode(ctx context.Context, listener net.Listener) error {
	log := p.log.WithField("component", "node")
	environment, err := pamenv.Parse(p.settings.SSH.PAM.Environment)
	if err != nil {
		return trace.BadParameter("ssh_service.pam.environment: %v", err)
	}
	cfg := node.Config{
		Emitter:        p.emitter,
		Unrecorded:     p.emitter.Tally(),
		AuditMode:      p.settings.AuditMode,
		HostUUID:       p.hostUUID,
		ClusterName:    p.settings.Auth.ClusterName,
		SessionProgram: p.sessionProgram,
		UserProgram:    p.userProgram,
		PAM: node.PAM{
			Enabled:      p.settings.SSH.PAM.Enabled,
			ServiceName:  p.settings.SSH.PAM.ServiceName,
			Authenticate: p.settings.SSH.PAM.UseAuth,
			Environment:  environment,
		},
		Hostname:          p.settings.NodeName,
		Labels:            p.settings.SSH.Labels,
		RefuseFileCopy:    p.settings.SSH.RefuseFileCopy,
		RefuseForwarding:  p.settings.SSH.RefuseForwarding,
		GatewayPorts:      node.GatewayPorts(p.settings.SSH.GatewayPorts),
		PermitUserEnv:     p.settings.SSH.PermitUserEnv,
		IdleTimeout:       p.settings.SSH.ClientIdleTimeout,
		DisconnectExpired: p.settings.SSH.DisconnectExpiredCert,
		KeepDetached:      p.settings.SSH.KeepDetached,
		MaxSessions:       p.settings.SSH.MaxSessions,
		MaxStartups:       p.settings.SSH.MaxStartups,
		LoginGraceTime:    p.settings.SSH.LoginGraceTime,
		KeepAliveInterval: p.settings.SSH.KeepAliveInterval,
		Clock:             p.clock,
		Log:               log,
	}
	if path := p.settings.SSH.Banner; path != "" {
		file, err := srv.NewBannerFile(path, p.clock, log)
		if err != nil {
			return trace.Wrap(err)
		}
		cfg.Banner = file.Text
	}
	if path := p.settings.SSH.TrustedUserCAKeys; path != "" {
		if cfg.CAs, err = srv.NewCAFile(path); err != nil {
			return trace.Wrap(err)
		}
		log.Infof("Users are trusted whose certificates come from an authority in %s, and no others.", path)
	}
	if p.auth != nil || p.settings.Joins() {
		return trace.Wrap(p.initMemberNode(ctx, listener, cfg))
	}
	key, err := join.HostKey(p.dataDir.path, types.RoleNode)
	if err != nil {
		return trace.Wrap(err)
	}
	log.Infof("Without auth_service there is no host certificate: the host key is %s.", ssh.FingerprintSHA256(key.PublicKey()))
	signers := []ssh.Signer{key}
	cfg.HostSigners = func() []ssh.Signer { return signers }
	server, err := node.New(cfg)
	if err != nil {
		return trace.Wrap(err)
	}
	p.serveSSH(sshRole{name: "node", ready: NodeSSHReady, server: server, listener: listener})
	return nil
}

// initMemberNode makes a node of a cluster: it goes by roles and locks, tells the
// cluster's audit log, and registers.
func (p *Process) initMemberNode(ctx context.Context, listener net.Listener, cfg node.Config) error {
	var (
		m       *member
		server  *node.Server
		decider *access.Decider
	)
	registered := newRegistration(p, func(ctx context.Context) error { return p.announce(ctx, m.client, listener.Addr()) })
	// What is called back is called by services, which start when all is made.
	m, err := p.newMember(ctx, memberConfig{
		role:        types.RoleNode,
		listeners:   []net.Listener{listener},
		publicAddrs: []string{p.settings.SSH.PublicAddr},
		proxies:     p.settings.ProxyServer != "",
		onLocks: func(_ context.Context, locks []types.Lock) {
			server.EndWhere(func(identity srv.Identity) string {
				for _, lock := range locks {
					if denied := decider.Locked(lock, node.Person(identity)); denied != nil {
						return denied.Message
					}
				}
				return ""
			})
		},
		onConnected: registered.connected,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	decider, err = access.NewDecider(access.DeciderConfig{
		Source:   m.known,
		ServerID: p.hostUUID,
		Labels:   func() map[string]string { return p.settings.SSH.Labels },
		Clock:    p.clock,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	events, err := m.openEvents("node")
	if err != nil {
		return trace.Wrap(err)
	}
	cfg.HostSigners = m.identity.Signers
	cfg.ClusterName = m.identity.ClusterName()
	cfg.Access = func(ctx context.Context, identity srv.Identity) (access.Options, error) {
		return decider.Decide(ctx, node.Person(identity))
	}
	ledger, err := sessions.Open(sessions.Config{
		Dir:   filepath.Join(p.dataDir.path, "sessions_node"),
		Emit:  events.Emit,
		Clock: p.clock,
		Log:   m.log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	cfg.Events = ledger.Emit
	if cfg.CAs == nil {
		cfg.CAs = m.known
	}
	if server, err = node.New(cfg); err != nil {
		return trace.Wrap(err)
	}
	seen := &clientaddr.Seen{}
	addressed := func(l net.Listener, required bool) (net.Listener, error) {
		return clientaddr.NewListener(l, clientaddr.ListenerConfig{
			NodeID: p.hostUUID, HostCAs: m.known.HostCAs, Required: required, Seen: seen, Clock: p.clock, Log: m.log,
		})
	}
	direct, err := addressed(listener, false)
	if err != nil {
		return trace.Wrap(err)
	}
	m.keepCurrent("node", registered.again(m))
	role := sshRole{
		name: "node", ready: NodeSSHReady, server: server, listener: direct, begin: m.untilKnown,
		// Without the auth service the node serves all the same.
		settle: registered.wait,
	}
	if p.settings.ProxyServer != "" {
		connected, err := p.initTunnel(m, server, addressed)
		if err != nil {
			return trace.Wrap(err)
		}
		role.settle = func(ctx context.Context) {
			registered.wait(ctx)
			p.waitFor(ctx, connected)
		}
	}
	p.serveSSH(role)
	return nil
}

// initTunnel has the node dial out to the proxies. What it returns is closed when
// there was a tunnel.
func (p *Process) initTunnel(m *member, server *node.Server, addressed func(net.Listener, bool) (net.Listener, error)) (<-chan struct{}, error) {
	agent, err := tunnel.NewAgent(tunnel.AgentConfig{
		NodeID:      p.hostUUID,
		ClusterName: m.identity.ClusterName(),
		TunnelAddr:  p.tunnelAddr,
		Proxies:     func() ([]tunnel.Proxy, error) { return tunnelProxies(m.known) },
		HostSigners: m.identity.Signers,
		HostCAs:     m.known.HostCAs,
		Clock:       p.clock,
		Log:         m.log,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	listener, err := addressed(agent.Listener(), true)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	// The tunnel ends after the logins that came through it, and not when the
	// process begins to end.
	running, stop := context.WithCancel(context.Background())
	p.register(service{
		name: "node.tunnel",
		serve: func(ctx context.Context) error {
			// Without the host authorities no proxy would be believed.
			if m.untilKnown(ctx) {
				agent.Run(running)
			}
			return nil
		},
		close: func() error {
			stop()
			return nil
		},
	})
	p.register(service{
		name:  "node.tunneled",
		serve: func(context.Context) error { return server.Serve(listener) },
		close: server.Close,
	})
	return agent.Connected(), nil
}

// tunnelProxies are the proxies that nodes may dial out to.
func tunnelProxies(known *cache.Cache) ([]tunnel.Proxy, error) {
	registered, err := known.Proxies()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var proxies []tunnel.Proxy
	for _, proxy := range registered {
		if addr, ok := proxy.GetLabel(auth.TunnelAddrLabel); ok {
			proxies = append(proxies, tunnel.Proxy{ID: proxy.GetName(), Addr: addr})
		}
	}
	return proxies, nil
}

// tunnelAddr asks the proxy where nodes dial in. Whoever answers is not believed:
// the tunnel asks for the proxy's host certificate.
func (p *Process) tunnelAddr(ctx context.Context) (string, error) {
	found, err := findProxy(ctx, p.settings.ProxyServer)
	if err != nil {
		return "", trace.ConnectionProblem(err, "the proxy %s does not say where nodes dial in: %s", p.settings.ProxyServer, OneLine(err))
	}
	if addr := found.Proxy.SSH.TunnelPublicAddr; addr != "" {
		return addr, nil
	}
	host, _, err := net.SplitHostPort(p.settings.ProxyServer)
	if err != nil {
		return "", trace.Wrap(err)
	}
	_, port, err := net.SplitHostPort(found.Proxy.SSH.TunnelListenAddr)
	if err != nil {
		return "", trace.BadParameter("the proxy %s says that nodes dial in at %q, which is no address", p.settings.ProxyServer, found.Proxy.SSH.TunnelListenAddr)
	}
	return net.JoinHostPort(host, port), nil
}

// findProxy is what webclient.Find does, which would go on without TLS where the
// proxy has none.
func findProxy(ctx context.Context, addr string) (*webclient.PingResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Scheme: "https", Host: addr, Path: "/webapi/find"}).String(), nil)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxFindAnswer))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, trace.ReadError(answer.StatusCode, text)
	}
	var found webclient.PingResponse
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, trace.BadParameter("the answer to /webapi/find cannot be read: %v", err)
	}
	return &found, nil
}

// registry is where nodes are registered: an api/client.
type registry interface {
	UpsertNode(context.Context, types.Server) (*types.KeepAlive, error)
}

// announce registers the node, or renews its registration, for announceTTL.
func (p *Process) announce(ctx context.Context, registry registry, listener net.Addr) error {
	addr := p.settings.SSH.PublicAddr
	if addr == "" {
		addr = advertised(listener, p.settings.Proxy.Enabled)
	}
	server, err := types.NewServerWithLabels(p.hostUUID, types.KindNode, types.ServerSpecV2{
		Addr:      addr,
		Hostname:  p.settings.NodeName,
		UseTunnel: p.settings.ProxyServer != "",
		Version:   version.Version,
	}, p.settings.SSH.Labels)
	if err != nil {
		return trace.Wrap(err, "describing the node")
	}
	server.SetExpiry(p.clock.Now().Add(announceTTL))
	_, err = registry.UpsertNode(ctx, server)
	return trace.Wrap(err, "registering the node")
}
