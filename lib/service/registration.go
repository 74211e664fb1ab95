// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// That the cluster knows of a role: it registers whenever it has reached the auth
// service, and again at each heartbeat.

import (
	"context"
	"sync"

	"github.com/gravitational/trace"
)

type registration struct {
	p        *Process
	announce func(context.Context) error
	once     sync.Once
	first    chan struct{}
}

// newRegistration takes what tells the auth service, which is given callTimeout.
func newRegistration(p *Process, announce func(context.Context) error) *registration {
	return &registration{p: p, announce: announce, first: make(chan struct{})}
}

// renew registers.
func (r *registration) renew(ctx context.Context) error {
	if err := r.p.try(ctx, r.announce); err != nil {
		return trace.Wrap(err)
	}
	r.once.Do(func() { close(r.first) })
	return nil
}

// again is renew for each heartbeat. While the auth service is away, which the cache
// has said, there is nobody to tell.
func (r *registration) again(m *member) func(context.Context) error {
	return func(ctx context.Context) error {
		if !m.known.Current() {
			return nil
		}
		return r.renew(ctx)
	}
}

// connected is for cache.Config.OnConnected.
func (r *registration) connected(ctx context.Context) {
	if err := r.renew(ctx); err != nil && ctx.Err() == nil {
		r.p.log.Warnf("%s. The next try is in %v.", sentence(err), heartbeat)
	}
}

// wait waits for the first registration, for registerTimeout: without the auth
// service the role serves all the same.
func (r *registration) wait(ctx context.Context) {
	r.p.waitFor(ctx, r.first)
}

// waitFor waits until happened is closed, for registerTimeout at most.
func (p *Process) waitFor(ctx context.Context, happened <-chan struct{}) {
	select {
	case <-happened:
	case <-p.clock.After(registerTimeout):
	case <-ctx.Done():
	}
}
