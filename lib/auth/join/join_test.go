// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package join_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/authgrpc"
	"teleport-auditd/lib/auth/join"
)

// cluster is an auth server that listens.
type cluster struct {
	*auth.Server
	addr  string
	clock *clockwork.FakeClock
	grpc  *authgrpc.Server
}

func quiet() logrus.FieldLogger {
	log, _ := logrustest.NewNullLogger()
	return log
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	clock := clockwork.NewFakeClockAt(time.Now())
	server, err := auth.Open(t.Context(), auth.Config{DataDir: filepath.Join(t.TempDir(), "data"), ClusterName: "example.com", Clock: clock, Log: quiet()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	c := &cluster{Server: server, clock: clock}
	c.listen(t, "127.0.0.1:0")
	return c
}

func (c *cluster) listen(t *testing.T, addr string) {
	t.Helper()
	grpc, err := authgrpc.New(authgrpc.Config{
		Auth: c.Server, People: c.Server, Certificate: c.ServerCertificate(nil), Version: "1.2.3", Clock: c.clock, Log: quiet(),
	})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	c.addr, c.grpc = listener.Addr().String(), grpc
	ended := make(chan error, 1)
	go func() { ended <- grpc.Serve(listener) }()
	t.Cleanup(func() {
		grpc.Close()
		require.NoError(t, <-ended)
	})
}

func (c *cluster) pins(t *testing.T) []string {
	t.Helper()
	pins, err := c.CAPins(t.Context())
	require.NoError(t, err)
	return pins
}

// params are those of a new host that joins with a new token.
func (c *cluster) params(t *testing.T, dir string) join.Params {
	t.Helper()
	name := strings.ReplaceAll(uuid.NewString(), "-", "")
	token, err := types.NewProvisionToken(name, types.SystemRoles{types.RoleNode}, c.clock.Now().Add(time.Hour))
	require.NoError(t, err)
	require.NoError(t, c.CreateToken(t.Context(), token))
	keys, err := join.OpenKeys(dir, types.RoleNode)
	require.NoError(t, err)
	return join.Params{
		Servers: []string{c.addr}, Token: name, Pins: c.pins(t), HostID: uuid.NewString(), NodeName: "web-1",
		Role: types.RoleNode, Principals: []string{"192.0.2.7"}, Keys: keys, Clock: c.clock,
	}
}

func TestRegister(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	p := c.params(t, dir)
	// Any of the pins may match, and any of the servers answer.
	p.Pins = append([]string{"sha256:" + strings.Repeat("00", 32)}, p.Pins...)
	p.Servers = append([]string{"127.0.0.1:1"}, p.Servers...)
	certs, err := join.Register(t.Context(), p)
	require.NoError(t, err)
	require.Zero(t, join.Skew(certs, c.clock.Now()))

	// An answer that was lost is given again.
	_, err = join.Register(t.Context(), p)
	require.NoError(t, err)

	identity, err := join.New(dir, types.RoleNode, p.Keys, certs, p.Principals, c.clock)
	require.NoError(t, err)
	require.Equal(t, "example.com", identity.ClusterName())
	require.Equal(t, p.HostID, identity.HostID())
	require.NoError(t, identity.Valid())
	signers := identity.Signers()
	require.Contains(t, signers[0].PublicKey().(*ssh.Certificate).ValidPrincipals, "192.0.2.7")
	require.Equal(t, p.Keys.SSH.PublicKey(), signers[1].PublicKey(), "clients that know the bare key must find it")

	// It is all there after a restart.
	keys, err := join.OpenKeys(dir, types.RoleNode)
	require.NoError(t, err)
	again, err := join.Open(dir, types.RoleNode, keys, c.clock)
	require.NoError(t, err)
	require.Equal(t, identity.TLSCertificate().Certificate, again.TLSCertificate().Certificate)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 3)
	for _, file := range files {
		info, err := file.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), file.Name())
	}

	client, err := again.Connect(t.Context(), []string{"127.0.0.1:1", c.addr})
	require.NoError(t, err)
	defer client.Close()
	pong, err := client.Ping(t.Context())
	require.NoError(t, err)
	require.Equal(t, "example.com", pong.ClusterName)
}

// TestRegisterHasToWait: where others have had too many joins refused to the same
// address, a host with a good token that could be guessed is told so in one line, and
// tries again.
func TestRegisterHasToWait(t *testing.T) {
	c := newCluster(t)
	p := c.params(t, t.TempDir())
	p.Token = "could-be-guessed"
	token, err := types.NewProvisionToken(p.Token, types.SystemRoles{types.RoleNode}, c.clock.Now().Add(time.Hour))
	require.NoError(t, err)
	require.NoError(t, c.CreateToken(t.Context(), token))
	for {
		_, err := c.RegisterUsingToken(t.Context(), &types.RegisterUsingTokenRequest{Token: "none-of-yours", RemoteAddr: "127.0.0.1"})
		if trace.IsLimitExceeded(err) {
			break
		}
		require.True(t, trace.IsAccessDenied(err), "%v", err)
	}
	_, err = join.Register(t.Context(), c.params(t, t.TempDir()))
	require.NoError(t, err, "strangers hold up a host with a token as tctl makes it")
	_, err = join.Register(t.Context(), p)
	require.True(t, trace.IsConnectionProblem(err), "%v", err)
	require.Equal(t, "the auth server "+c.addr+" has this host wait: too many joins were refused to this address: try again in a minute", trace.UserMessage(err))
	c.clock.Advance(time.Minute)
	_, err = join.Register(t.Context(), p)
	require.NoError(t, err)
}

func TestRegisterRefused(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	is := func(kinds ...func(error) bool) func(error) bool {
		return func(err error) bool {
			for _, kind := range kinds {
				if !kind(err) {
					return false
				}
			}
			return !trace.IsConnectionProblem(err)
		}
	}
	for name, test := range map[string]struct {
		change func(*join.Params)
		kind   func(error) bool
		want   string
	}{
		"no token":        {func(p *join.Params) { p.Token = "" }, is(trace.IsBadParameter), "which needs a token: have one made on the auth server with tctl tokens add"},
		"no pin":          {func(p *join.Params) { p.Pins = nil }, is(trace.IsBadParameter), "nothing says which authority it may believe: set teleport.ca_pin"},
		"no server":       {func(p *join.Params) { p.Servers = nil }, is(trace.IsBadParameter), "set teleport.auth_server"},
		"pin of another":  {func(p *join.Params) { p.Pins = other.pins(t) }, is(trace.IsAccessDenied), "the pin does not match: the server's authority is " + c.pins(t)[0]},
		"another cluster": {func(p *join.Params) { p.Servers = []string{other.addr} }, is(trace.IsAccessDenied), "the pin does not match"},
		"unknown token":   {func(p *join.Params) { p.Token = "nosuchtoken" }, is(trace.IsAccessDenied), "the token is not one of this cluster"},
		"another type":    {func(p *join.Params) { p.Role = types.RoleProxy }, is(trace.IsAccessDenied), "the token is of another type"},
		"expired token": {func(p *join.Params) {
			c.clock.Advance(2 * time.Hour)
		}, is(trace.IsAccessDenied), "the token expired at "},
		"clock ahead": {func(p *join.Params) {
			p.Clock = clockwork.NewFakeClockAt(c.clock.Now().Add(20 * 365 * 24 * time.Hour))
		}, is(trace.IsCompareFailed), "it is at least .* ahead"},
		"clock behind": {func(p *join.Params) {
			p.Clock = clockwork.NewFakeClockAt(c.clock.Now().Add(-time.Hour))
		}, is(trace.IsCompareFailed), "it is (at least )?[0-9hms]+ behind.* Set the clocks?"},
		"nobody answers": {func(p *join.Params) { p.Servers = []string{"127.0.0.1:1", "127.0.0.1:2"} }, trace.IsConnectionProblem,
			"the auth server 127.0.0.1:1 cannot be reached: .*refused; the auth server 127.0.0.1:2 cannot be reached: .*refused"},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.params(t, t.TempDir())
			test.change(&p)
			_, err := join.Register(t.Context(), p)
			require.Error(t, err)
			require.True(t, test.kind(err), "%v", err)
			require.Regexp(t, test.want, trace.UserMessage(err))
			require.NotContains(t, trace.UserMessage(err), "\n")
		})
	}

	t.Run("another host", func(t *testing.T) {
		p := c.params(t, t.TempDir())
		_, err := join.Register(t.Context(), p)
		require.NoError(t, err)
		p.HostID = uuid.NewString()
		_, err = join.Register(t.Context(), p)
		require.True(t, trace.IsAccessDenied(err), "%v", err)
		require.ErrorContains(t, err, "used already")
	})
	t.Run("no TLS", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("SSH-2.0-OpenSSH\r\n"))
				_ = conn.Close()
			}
		}()
		p := c.params(t, t.TempDir())
		p.Servers = []string{listener.Addr().String()}
		_, err = join.Register(t.Context(), p)
		require.True(t, trace.IsConnectionProblem(err), "%v", err)
		require.NotContains(t, trace.UserMessage(err), "\n")
	})
}

// TestRenewal goes through the life of a host's certificates.
func TestRenewal(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t)
	dir := t.TempDir()
	p := c.params(t, dir)
	certs, err := join.Register(ctx, p)
	require.NoError(t, err)
	identity, err := join.New(dir, types.RoleNode, p.Keys, certs, p.Principals, c.clock)
	require.NoError(t, err)
	client, err := identity.Connect(ctx, []string{c.addr})
	require.NoError(t, err)
	defer client.Close()

	refresh := func(principals ...string) bool {
		t.Helper()
		renewed, err := identity.Refresh(ctx, client, p.NodeName, principals)
		require.NoError(t, err)
		return renewed
	}
	require.False(t, refresh(p.Principals...), "nothing has changed")
	require.True(t, refresh("192.0.2.7", "192.0.2.8"), "the host has got another address")
	require.Contains(t, identity.Signers()[0].PublicKey().(*ssh.Certificate).ValidPrincipals, "192.0.2.8")
	for range 4 {
		c.clock.Advance(auth.HostCertTTL/2 - 2*time.Minute)
		require.False(t, refresh("192.0.2.7", "192.0.2.8"))
		c.clock.Advance(5 * time.Minute)
		before := identity.TLSCertificate().Leaf
		require.True(t, refresh("192.0.2.7", "192.0.2.8"), "half of its time is over")
		require.True(t, identity.TLSCertificate().Leaf.NotAfter.After(before.NotAfter))
		// The connection goes by the new one, or the third round would fail.
		_, err := client.GetDomainName(ctx)
		require.NoError(t, err)
	}

	// A failure leaves what is there.
	c.clock.Advance(auth.HostCertTTL/2 + time.Minute)
	before := identity.TLSCertificate().Leaf
	_, err = identity.Refresh(ctx, refuses{}, p.NodeName, nil)
	require.True(t, trace.IsAccessDenied(err))
	require.Equal(t, before, identity.TLSCertificate().Leaf)
	require.True(t, refresh())

	// A rotation is followed, and what is signed by then is on disk.
	rotate := func(phase string) {
		t.Helper()
		require.NoError(t, c.RotateCertAuthority(ctx, types.RotateRequest{Type: types.HostCA, TargetPhase: phase, Mode: types.RotationModeManual}))
	}
	follow := func() bool {
		t.Helper()
		cas, err := client.GetCertAuthorities(ctx, types.HostCA, false)
		require.NoError(t, err)
		renewed, err := identity.Follow(ctx, client, p.NodeName, cas)
		require.NoError(t, err)
		return renewed
	}
	require.False(t, follow())
	for _, step := range []struct {
		phase   string
		renewed bool
	}{
		{types.RotationPhaseInit, false},
		{types.RotationPhaseUpdateClients, false},
		{types.RotationPhaseUpdateServers, true},
		{types.RotationPhaseStandby, false},
	} {
		rotate(step.phase)
		require.Equal(t, step.renewed, follow(), step.phase)
		c.clock.Advance(5 * time.Second) // what the server remembers is forgotten
	}
	keys, err := join.OpenKeys(dir, types.RoleNode)
	require.NoError(t, err)
	again, err := join.Open(dir, types.RoleNode, keys, c.clock)
	require.NoError(t, err)
	second, err := again.Connect(ctx, []string{c.addr})
	require.NoError(t, err)
	defer second.Close()
	_, err = second.GetDomainName(ctx)
	require.NoError(t, err)

	// Away for too long, it says so.
	c.clock.Advance(2 * auth.HostCertTTL)
	require.ErrorContains(t, again.Valid(), "the certificate of this host expired at ")
	require.ErrorContains(t, again.Valid(), "join again with a new token")
	_, err = second.GetDomainName(ctx)
	require.Error(t, err)
}

type refuses struct{}

func (refuses) GenerateHostCerts(context.Context, *proto.HostCertsRequest) (*proto.Certs, error) {
	return nil, trace.AccessDenied("no")
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	p := c.params(t, dir)
	_, err := join.Open(dir, types.RoleNode, p.Keys, c.clock)
	require.True(t, trace.IsNotFound(err))
	certs, err := join.Register(t.Context(), p)
	require.NoError(t, err)

	other, err := join.OpenKeys(t.TempDir(), types.RoleNode)
	require.NoError(t, err)
	_, err = join.New(dir, types.RoleNode, other, certs, nil, c.clock)
	require.ErrorContains(t, err, "is not for its key")

	path := filepath.Join(dir, "host_identity_node.json")
	for _, text := range []string{"", "{}", "x"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := join.Open(dir, types.RoleNode, p.Keys, c.clock)
		require.True(t, trace.IsBadParameter(err), "%q: %v", text, err)
		require.ErrorContains(t, err, path)
	}
	_, err = join.New(dir, types.RoleNode, p.Keys, certs, nil, c.clock)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, json.Valid(text))
	require.NotContains(t, string(text), "PRIVATE")

	for file, test := range map[string]struct {
		mode os.FileMode
		want string
	}{
		"host_key_node":     {0o644, "is open to other users (mode 0644)"},
		"host_tls_key_node": {0o600, "cannot be used"},
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte("x"), test.mode))
		_, err := join.OpenKeys(dir, types.RoleNode)
		require.ErrorContains(t, err, test.want)
	}
}
