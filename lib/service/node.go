// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The node role: the SSH server of this host, what it needs to be true of the
// host, and its registration.

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/pam"
	"teleport-auditd/lib/pam/pamenv"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/version"
)

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
		return trace.AccessDenied("%s cannot be used (%v): make it executable for teleport", path, reason(err))
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
	var (
		host *identity
		cas  srv.CAs
		err  error
	)
	if p.auth != nil {
		host, err = p.certifiedIdentity(ctx, types.RoleNode, listener)
		cas = p.auth
	} else {
		host, err = newIdentity(p.dataDir.path, types.RoleNode, p.clock)
	}
	if err != nil {
		return trace.Wrap(err)
	}
	if p.auth == nil {
		log.Infof("Without auth_service there is no host certificate: the host key is %s.", ssh.FingerprintSHA256(host.key.PublicKey()))
	}
	if path := p.settings.SSH.TrustedUserCAKeys; path != "" {
		if cas, err = srv.NewCAFile(path); err != nil {
			return trace.Wrap(err)
		}
		log.Infof("Users are trusted whose certificates come from an authority in %s, and no others.", path)
	}
	clusterName := p.settings.Auth.ClusterName
	if p.auth != nil {
		clusterName = p.auth.ClusterName()
	}
	var banner func() string
	if path := p.settings.SSH.Banner; path != "" {
		file, err := srv.NewBannerFile(path, p.clock, log)
		if err != nil {
			return trace.Wrap(err)
		}
		banner = file.Text
	}
	environment, err := pamenv.Parse(p.settings.SSH.PAM.Environment)
	if err != nil {
		return trace.BadParameter("ssh_service.pam.environment: %v", err)
	}
	server, err := node.New(node.Config{
		Emitter:        p.emitter,
		Unrecorded:     p.emitter.Tally(),
		AuditMode:      p.settings.AuditMode,
		CAs:            cas,
		HostSigners:    host.Signers,
		HostUUID:       p.hostUUID,
		ClusterName:    clusterName,
		SessionProgram: p.sessionProgram,
		UserProgram:    p.userProgram,
		PAM: node.PAM{
			Enabled:      p.settings.SSH.PAM.Enabled,
			ServiceName:  p.settings.SSH.PAM.ServiceName,
			Authenticate: p.settings.SSH.PAM.UseAuth,
			Environment:  environment,
		},
		RefuseFileCopy:    p.settings.SSH.RefuseFileCopy,
		RefuseForwarding:  p.settings.SSH.RefuseForwarding,
		GatewayPorts:      node.GatewayPorts(p.settings.SSH.GatewayPorts),
		PermitUserEnv:     p.settings.SSH.PermitUserEnv,
		IdleTimeout:       p.settings.SSH.ClientIdleTimeout,
		DisconnectExpired: p.settings.SSH.DisconnectExpiredCert,
		Banner:            banner,
		KeepDetached:      p.settings.SSH.KeepDetached,
		MaxSessions:       p.settings.SSH.MaxSessions,
		MaxStartups:       p.settings.SSH.MaxStartups,
		LoginGraceTime:    p.settings.SSH.LoginGraceTime,
		KeepAliveInterval: p.settings.SSH.KeepAliveInterval,
		Clock:             p.clock,
		Log:               log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	if p.auth != nil {
		announce := func(ctx context.Context) error {
			return trace.Wrap(p.announce(ctx, p.auth, listener.Addr()))
		}
		if err := announce(ctx); err != nil {
			return trace.Wrap(err)
		}
		p.keepCurrent("node", host.refresh, announce)
	}
	p.serveSSH("node", NodeSSHReady, server, listener)
	return nil
}

// registry is where nodes are registered: auth.Server.
type registry interface {
	UpsertNode(context.Context, types.Server) error
}

// announce registers the node, or renews its registration, for announceTTL.
func (p *Process) announce(ctx context.Context, registry registry, listener net.Addr) error {
	server, err := types.NewServerWithLabels(p.hostUUID, types.KindNode, types.ServerSpecV2{
		Addr:     advertised(listener, p.settings.Proxy.Enabled),
		Hostname: p.settings.NodeName,
		Version:  version.Version,
	}, p.settings.SSH.Labels)
	if err != nil {
		return trace.Wrap(err, "describing the node")
	}
	server.SetExpiry(p.clock.Now().Add(announceTTL))
	return trace.Wrap(registry.UpsertNode(ctx, server), "registering the node")
}
