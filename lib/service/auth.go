// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The auth role: the certificate authorities, for the other roles of this
// process.

import (
	"context"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth"
)

func (p *Process) initAuth(ctx context.Context) error {
	server, err := auth.Open(ctx, auth.Config{
		DataDir:     p.settings.DataDir,
		ClusterName: p.settings.Auth.ClusterName,
		Clock:       p.clock,
		Log:         p.log.WithField("component", "auth"),
	})
	if err != nil {
		return trace.Wrap(err)
	}
	// Close ends it after the roles that use it.
	p.auth = server
	p.register(service{name: "auth", serve: func(ctx context.Context) error {
		p.log.WithField("component", "auth").Infof("The authorities of the cluster %q are open.", server.ClusterName())
		p.BroadcastEvent(Event{Name: AuthReady})
		<-ctx.Done()
		return nil
	}})
	return nil
}
