// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The proxy role: the jump host, with a certificate for this host.

import (
	"context"
	"net"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/proxy"
)

func (p *Process) initProxy(ctx context.Context, listener net.Listener) error {
	host, err := p.certifiedIdentity(ctx, types.RoleProxy, listener)
	if err != nil {
		return trace.Wrap(err)
	}
	var cas srv.CAs = p.auth
	if path := p.settings.SSH.TrustedUserCAKeys; p.settings.SSH.Enabled && path != "" {
		// Who may log in at the node must be able to get there.
		file, err := srv.NewCAFile(path)
		if err != nil {
			return trace.Wrap(err)
		}
		cas = eitherCAs{p.auth, file}
	}
	server, err := proxy.New(proxy.Config{
		CAs:            cas,
		HostSigners:    host.Signers,
		Nodes:          p.auth,
		ClusterName:    p.auth.ClusterName(),
		Emitter:        p.emitter,
		MaxStartups:    p.settings.Proxy.MaxStartups,
		LoginGraceTime: p.settings.Proxy.LoginGraceTime,
		Clock:          p.clock,
		Log:            p.log.WithField("component", "proxy"),
	})
	if err != nil {
		return trace.Wrap(err)
	}
	p.keepCurrent("proxy", host.refresh)
	p.serveSSH("proxy", ProxySSHReady, server, listener)
	return nil
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
