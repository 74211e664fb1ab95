// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/tlsca"
)

func TestAuthServerTLS(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	cert, err := s.AuthServerTLS(ctx, []string{"auth1", "192.0.2.1", "2001:db8::1"})
	require.NoError(t, err)
	hosts, err := s.trustedTLS(ctx, types.HostCA)
	require.NoError(t, err)
	for _, name := range []string{
		constants.APIDomain, "6578616d706c652e636f6d.teleport.cluster.local",
		"localhost", "127.0.0.1", "::1", "auth1", "192.0.2.1", "2001:db8::1",
	} {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: poolOf(hosts), CurrentTime: today()})
		require.NoError(t, err, name)
	}
	require.Error(t, cert.Leaf.VerifyHostname("auth2"))

	// By the end of the chain a host that joins knows the pin.
	require.Len(t, cert.Certificate, 2)
	authority, err := x509.ParseCertificate(cert.Certificate[1])
	require.NoError(t, err)
	pins, err := s.CAPins(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{tlsca.Pin(authority)}, pins)
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", pins[0])
	require.Equal(t, "example.com", authority.Subject.CommonName)
	require.Equal(t, []string{"example.com"}, authority.Subject.Organization)
	require.True(t, authority.NotAfter.After(today().Add(9*365*24*time.Hour)))

	_, err = s.AuthServerTLS(ctx, []string{"*"})
	require.True(t, trace.IsBadParameter(err), "%v", err)
}

// tctl and the auth server meet over TLS, each with what it is given here.
func TestAdminTLS(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	admin, err := s.AdminTLS(ctx)
	require.NoError(t, err)
	config, err := client.LoadTLS(admin).TLSConfig()
	require.NoError(t, err)
	certificate := s.ServerCertificate([]string{"auth1"})
	hosts, err := s.trustedTLS(ctx, types.HostCA)
	require.NoError(t, err)

	here, there := net.Pipe()
	server := tls.Server(here, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(hello.Context()) },
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      poolOf(hosts),
		Time:           s.clock.Now,
	})
	defer here.Close() //nolint:errcheck // a pipe
	handshake := make(chan error, 1)
	go func() { handshake <- server.HandshakeContext(ctx) }()
	require.NoError(t, tls.Client(there, config).HandshakeContext(ctx))
	require.NoError(t, <-handshake)
	leaf := server.ConnectionState().PeerCertificates[0]
	identity, err := tlsca.FromSubject(leaf.Subject)
	require.NoError(t, err)
	require.Equal(t, []string{"Admin"}, identity.Groups)
	require.Equal(t, today().Add(time.Hour), leaf.NotAfter)
	require.Empty(t, leaf.DNSNames, "tctl can stand in for a server")
	require.NotContains(t, leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
}

// unreadable is a store that is away.
type unreadable struct{ backend.Backend }

func (unreadable) Get(context.Context, string) (backend.Item, error) {
	return backend.Item{}, trace.ConnectionProblem(nil, "the store is away")
}

func TestServerCertificateIsRenewed(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	certificate := s.ServerCertificate([]string{"auth1"})
	get := func() *tls.Certificate {
		t.Helper()
		cert, err := certificate(ctx)
		require.NoError(t, err)
		return cert
	}
	first := get()
	clock.Advance(time.Hour)
	require.Same(t, first, get(), "a new key for each handshake")

	t.Run("when the authority changes", func(t *testing.T) {
		authority := func() []byte { return get().Certificate[1] }
		old := authority()
		for _, step := range []struct {
			phase string
			old   bool
		}{
			{types.RotationPhaseInit, true},
			{types.RotationPhaseUpdateClients, true},
			{types.RotationPhaseUpdateServers, false},
			{types.RotationPhaseRollback, true},
			{types.RotationPhaseStandby, true},
		} {
			rotate(t, s, step.phase)
			clock.Advance(certCacheTTL)
			require.Equal(t, step.old, string(authority()) == string(old), step.phase)
		}
	})
	second := get()
	clock.Advance(HostCertTTL/2 + time.Second)
	third := get()
	require.NotSame(t, second, third, "at half of its time")
	require.Equal(t, clock.Now().Add(HostCertTTL), third.Leaf.NotAfter)

	store := s.store
	s.store = unreadable{store}
	clock.Advance(HostCertTTL / 2)
	require.Same(t, third, get(), "no connections while the store is away")
	clock.Advance(HostCertTTL)
	_, err := certificate(ctx)
	require.ErrorContains(t, err, "the store is away")
	s.store = store
	require.NotSame(t, third, get())
}
