// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The proxy role: the jump host, with a certificate for this host.

import (
	"context"
	"net"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/srv/proxy"
)

func (p *Process) initProxy(ctx context.Context, listener net.Listener) error {
	host, err := p.certifiedIdentity(ctx, types.RoleProxy, listener)
	if err != nil {
		return trace.Wrap(err)
	}
	server, err := proxy.New(proxy.Config{
		CAs:            p.auth,
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
