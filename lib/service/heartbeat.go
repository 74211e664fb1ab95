// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// What must be done again as long as a role runs: registrations, which end by
// themselves so that a host that is gone disappears, and host certificates.

import (
	"context"
	"net"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth"
)

const (
	// announceTTL is how long a registration lasts, which is Teleport's time.
	announceTTL = 10 * time.Minute
	// heartbeat leaves several tries before a registration ends.
	heartbeat = time.Minute
)

// certifiedIdentity is the identity of a role with a certificate of this
// cluster. It needs the auth role.
func (p *Process) certifiedIdentity(ctx context.Context, role types.SystemRole, listener net.Listener) (*identity, error) {
	host, err := newIdentity(p.dataDir.path, role, p.clock)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	request := auth.HostCertRequest{HostID: p.hostUUID, NodeName: p.settings.NodeName, Role: role}
	addresses := func() []string { return servedAddresses(listener.Addr()) }
	if err := host.certify(ctx, p.auth, request, addresses); err != nil {
		return nil, trace.Wrap(err)
	}
	return host, nil
}

// keepCurrent registers a service that repeats every task at each heartbeat. A
// task that fails is tried again at the next.
func (p *Process) keepCurrent(role string, tasks ...func(context.Context) error) {
	name := role + ".heartbeat"
	log := p.log.WithField("component", name)
	p.register(service{name: name, serve: func(ctx context.Context) error {
		ticker := p.clock.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.Chan():
			}
			for _, task := range tasks {
				if err := task(ctx); err != nil && ctx.Err() == nil {
					log.Warnf("%s. The next try is in %v.", sentence(err), heartbeat)
				}
			}
		}
	}})
}
