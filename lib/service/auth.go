// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The auth role: the cluster and its storage, and the gRPC server by which
// everybody reaches it, the other roles of this process included.

import (
	"context"
	"net"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/authgrpc"
	"teleport-auditd/lib/config"
	"teleport-auditd/lib/version"
)

func (p *Process) initAuth(ctx context.Context, listeners *listeners) error {
	log := p.log.WithField("component", "auth")
	server, err := auth.OpenSettings(ctx, p.settings, auth.Config{
		ClusterName: p.settings.Auth.ClusterName,
		Clock:       p.clock,
		Log:         log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	// Close ends it after the roles that use it.
	p.auth = server
	if err := p.setSecondFactor(ctx); err != nil {
		return trace.Wrap(err)
	}
	names := append(principalsOf([]net.Listener{listeners.auth}, []string{p.settings.Auth.PublicAddr}), p.settings.NodeName)
	grpc, err := authgrpc.New(authgrpc.Config{
		Auth:        server,
		People:      server,
		Certificate: server.ServerCertificate(names),
		Version:     version.Version,
		Clock:       p.clock,
		Log:         log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	p.authAddrs = []string{advertised(listeners.auth.Addr(), true)}
	p.register(service{
		name: "auth",
		serve: func(context.Context) error {
			log.Infof("The cluster %q is open, and the auth service listens on %s.", server.ClusterName(), listeners.auth.Addr())
			p.BroadcastEvent(Event{Name: AuthReady})
			p.BroadcastEvent(Event{Name: AuthTLSReady, Payload: listeners.auth.Addr()})
			return grpc.Serve(listeners.auth)
		},
		close: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), authCloseTimeout)
			defer cancel()
			grpc.Shutdown(ctx)
			return closeListener(listeners.auth)
		},
	})
	return nil
}

// setSecondFactor brings the cluster to what the configuration says of it.
func (p *Process) setSecondFactor(ctx context.Context) error {
	if !p.settings.SetsSecondFactor() {
		return nil
	}
	preference, err := p.auth.GetAuthPreference(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	want := constants.SecondFactorOTP
	if p.settings.Auth.SecondFactor == config.SecondFactorOff {
		want = constants.SecondFactorOff
	}
	if preference.IsSecondFactorEnabled() == (want != constants.SecondFactorOff) {
		return nil
	}
	wanted, err := types.NewAuthPreferenceFromConfigFile(types.AuthPreferenceSpecV2{Type: constants.Local, SecondFactor: want})
	if err != nil {
		return trace.Wrap(err)
	}
	return trace.Wrap(p.auth.SetAuthPreference(ctx, wanted))
}

// publicAddr is where others reach a listener of the proxy: where the
// configuration says, or at the address that it is bound to, or by the host's
// name.
func (p *Process) publicAddr(configured string, listener net.Addr) string {
	if configured != "" {
		return configured
	}
	_, port, err := net.SplitHostPort(listener.String())
	if bound := addrOf(listener); err != nil || bound.IsValid() && !bound.IsUnspecified() {
		return listener.String()
	}
	return net.JoinHostPort(p.settings.NodeName, port)
}
