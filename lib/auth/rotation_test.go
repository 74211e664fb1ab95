// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// issued is one certificate of each kind, as of one phase.
type issued struct {
	user, host *ssh.Certificate
	server     *x509.Certificate
}

func issue(t *testing.T, s *Server) issued {
	t.Helper()
	user, err := s.SignUser(t.Context(), userRequest(t))
	require.NoError(t, err)
	host, err := s.SignHost(t.Context(), hostRequest(t))
	require.NoError(t, err)
	server, err := s.AuthServerTLS(t.Context(), nil)
	require.NoError(t, err)
	return issued{user: user, host: host, server: server.Leaf}
}

// trustNow is whom somebody trusts who has just read the authorities.
type trustNow struct {
	users, hosts []ssh.PublicKey
	tls          []*x509.Certificate
}

func trustOf(t *testing.T, s *Server) trustNow {
	t.Helper()
	users, err := s.UserCAs(t.Context())
	require.NoError(t, err)
	hosts, err := s.HostCAs(t.Context())
	require.NoError(t, err)
	certs, err := s.trustedTLS(t.Context(), types.HostCA)
	require.NoError(t, err)
	return trustNow{users: users, hosts: hosts, tls: certs}
}

// takes returns why somebody with this trust refuses one of the certificates.
func (n trustNow) takes(i issued) error {
	_, errUser := checker(n.users, today()).Authenticate(conn{user: "bob"}, i.user)
	return errors.Join(errUser, n.takesHosts(i))
}

func (n trustNow) takesHosts(i issued) error {
	errHost := checker(n.hosts, today()).CheckHostKey("web1:3022", &net.TCPAddr{}, i.host)
	_, errServer := i.server.Verify(x509.VerifyOptions{DNSName: constants.APIDomain, Roots: poolOf(n.tls), CurrentTime: today()})
	return errors.Join(errHost, errServer)
}

func rotate(t *testing.T, s *Server, phase string) {
	t.Helper()
	require.NoError(t, s.RotateCertAuthority(WithCaller(t.Context(), Caller{User: "alice"}), types.RotateRequest{TargetPhase: phase, Mode: types.RotationModeManual}))
}

func TestRotation(t *testing.T) {
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	oldCerts, oldTrust := issue(t, s), trustOf(t, s)
	pins, err := s.CAPins(t.Context())
	require.NoError(t, err)
	require.Len(t, pins, 1)
	signedBy := func(key ssh.PublicKey, cert *ssh.Certificate) bool {
		return string(cert.SignatureKey.Marshal()) == string(key.Marshal())
	}

	rotate(t, s, types.RotationPhaseInit)
	initCerts, initTrust := issue(t, s), trustOf(t, s)
	require.Len(t, initTrust.users, 2)
	require.Len(t, initTrust.hosts, 2)
	require.Len(t, initTrust.tls, 2)
	require.NoError(t, oldTrust.takes(initCerts), "nothing new is shown to those who know nothing new")
	require.NoError(t, initTrust.takes(oldCerts))
	both, err := s.CAPins(t.Context())
	require.NoError(t, err)
	require.Len(t, both, 2)
	require.Equal(t, pins[0], both[0])
	rotation := withKeys(t, s, types.HostCA).GetRotation()
	require.Equal(t, types.RotationStateInProgress, rotation.State)
	require.Equal(t, types.RotationPhaseInit, rotation.Phase)
	require.NotEmpty(t, rotation.CurrentID)
	require.Equal(t, today(), rotation.Started)

	rotate(t, s, types.RotationPhaseUpdateClients)
	clientCerts := issue(t, s)
	require.False(t, signedBy(oldTrust.users[0], clientCerts.user))
	require.True(t, signedBy(oldTrust.hosts[0], clientCerts.host), "a host shows what clients do not know yet")
	require.NoError(t, oldTrust.takesHosts(clientCerts))
	require.NoError(t, initTrust.takes(clientCerts))
	require.NoError(t, trustOf(t, s).takes(oldCerts))

	rotate(t, s, types.RotationPhaseUpdateServers)
	serverCerts := issue(t, s)
	require.False(t, signedBy(oldTrust.hosts[0], serverCerts.host))
	require.NoError(t, initTrust.takes(serverCerts))
	require.NoError(t, trustOf(t, s).takes(oldCerts))
	require.Error(t, oldTrust.takesHosts(serverCerts))

	clock.Advance(time.Second)
	rotate(t, s, types.RotationPhaseStandby)
	newTrust := trustOf(t, s)
	require.Len(t, newTrust.users, 1)
	require.Len(t, newTrust.hosts, 1)
	require.Len(t, newTrust.tls, 1)
	require.NoError(t, newTrust.takes(serverCerts))
	require.NoError(t, newTrust.takes(issue(t, s)))
	require.Error(t, newTrust.takesHosts(oldCerts))
	_, err = checker(newTrust.users, today()).Authenticate(conn{user: "bob"}, oldCerts.user)
	require.Error(t, err)
	after, err := s.CAPins(t.Context())
	require.NoError(t, err)
	require.Equal(t, both[1:], after)
	rotation = withKeys(t, s, types.HostCA).GetRotation()
	require.Equal(t, types.RotationStateStandby, rotation.State)
	require.Equal(t, today().Add(time.Second), rotation.LastRotated)

	// What changes whom the cluster believes is in its audit log, step by step.
	var want []string
	for _, phase := range []string{"init", "update_clients", "update_servers", "standby"} {
		for _, kind := range authorityKinds() {
			want = append(want, fmt.Sprintf(`TCAR00I {"user":"alice","name":%q,"phase":%q}`, kind, phase))
		}
	}
	require.ElementsMatch(t, want, ownEvents(t, s, AuthorityRotatedEvent))
}

func TestRotationRolledBack(t *testing.T) {
	for _, reached := range [][]string{
		{types.RotationPhaseInit},
		{types.RotationPhaseInit, types.RotationPhaseUpdateClients},
		{types.RotationPhaseInit, types.RotationPhaseUpdateClients, types.RotationPhaseUpdateServers},
	} {
		t.Run(reached[len(reached)-1], func(t *testing.T) {
			s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
			oldCerts, oldTrust := issue(t, s), trustOf(t, s)
			for _, phase := range reached {
				rotate(t, s, phase)
			}
			meanwhile := issue(t, s)
			rotate(t, s, types.RotationPhaseRollback)
			require.NoError(t, oldTrust.takes(issue(t, s)), "not back at the old keys")
			require.NoError(t, trustOf(t, s).takes(meanwhile), "who followed is cut off before standby")
			rotate(t, s, types.RotationPhaseStandby)
			require.Equal(t, oldTrust, trustOf(t, s))
			require.NoError(t, trustOf(t, s).takes(oldCerts))
			require.Zero(t, withKeys(t, s, types.UserCA).GetRotation().LastRotated)
		})
	}
}

func TestRotationOfOneAuthority(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{})
	require.NoError(t, s.RotateCertAuthority(ctx, types.RotateRequest{Type: types.UserCA, TargetPhase: types.RotationPhaseInit}))
	trust := trustOf(t, s)
	require.Len(t, trust.users, 2)
	require.Len(t, trust.hosts, 1)
	// Both, where one is there already: the other follows.
	rotate(t, s, types.RotationPhaseInit)
	require.Len(t, trustOf(t, s).hosts, 2)
	rotate(t, s, types.RotationPhaseUpdateClients)
}

func TestRotationRefused(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{})
	negative := -time.Hour
	for _, tc := range []struct {
		name string
		req  types.RotateRequest
		want string
	}{
		{"automatic", types.RotateRequest{Mode: types.RotationModeAuto, TargetPhase: types.RotationPhaseInit}, "give the phases one by one"},
		{"no phase", types.RotateRequest{}, "the phases are init"},
		{"unknown phase", types.RotateRequest{TargetPhase: "sideways"}, `"sideways"`},
		{"another type", types.RotateRequest{Type: types.JWTSigner, TargetPhase: types.RotationPhaseInit}, "the types are user and host"},
		{"a phase left out", types.RotateRequest{Type: types.HostCA, TargetPhase: types.RotationPhaseUpdateServers}, "is in the phase standby, and update_servers cannot follow: what can is init"},
		{"back from nowhere", types.RotateRequest{TargetPhase: types.RotationPhaseRollback}, "rollback cannot follow"},
		{"nothing to end", types.RotateRequest{TargetPhase: types.RotationPhaseStandby}, "already"},
		{"negative grace period", types.RotateRequest{TargetPhase: types.RotationPhaseInit, GracePeriod: &negative}, "negative"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := s.RotateCertAuthority(ctx, tc.req)
			require.True(t, trace.IsBadParameter(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
			require.Len(t, trustOf(t, s).users, 1)
		})
	}
}

// Two operators who lead to the same phase at the same time move it once.
func TestRotationByTwoOperators(t *testing.T) {
	s := open(t, Config{})
	const operators = 8
	errs := make([]error, operators)
	var group sync.WaitGroup
	for i := range operators {
		group.Go(func() {
			errs[i] = s.RotateCertAuthority(t.Context(), types.RotateRequest{Type: types.HostCA, TargetPhase: types.RotationPhaseInit})
		})
	}
	group.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		require.True(t, trace.IsCompareFailed(err) || trace.IsBadParameter(err), "%v", err)
	}
	require.Equal(t, 1, won)
	require.Len(t, trustOf(t, s).hosts, 2)
}
