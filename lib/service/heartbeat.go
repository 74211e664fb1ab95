// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// What must be done again as long as a role runs: registrations, which end by
// themselves so that a host that is gone disappears, and host certificates.

import (
	"context"
	"time"
)

const (
	// announceTTL is how long a registration lasts, which is Teleport's time.
	announceTTL = 10 * time.Minute
	// heartbeat leaves several tries before a registration ends.
	heartbeat = time.Minute
	// registerTimeout is how long a node waits for its first registration before
	// it says that it is ready: without the auth service it serves all the same.
	registerTimeout = 5 * time.Second
)

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
				if err := p.try(ctx, task); err != nil && ctx.Err() == nil {
					log.Warnf("%s. The next try is in %v.", sentence(err), heartbeat)
				}
			}
		}
	}})
}

// try gives a task the time that it may take.
func (p *Process) try(ctx context.Context, task func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return task(ctx)
}
