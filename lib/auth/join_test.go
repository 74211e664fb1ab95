// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/tlsca"
)

func addToken(t *testing.T, s *Server, name string, ttl time.Duration, roles ...types.SystemRole) {
	t.Helper()
	token, err := types.NewProvisionToken(name, roles, s.clock.Now().Add(ttl))
	require.NoError(t, err)
	require.NoError(t, s.CreateToken(t.Context(), token))
}

func joinRequest(t *testing.T, token string) *types.RegisterUsingTokenRequest {
	t.Helper()
	key := newKeyPair(t)
	return &types.RegisterUsingTokenRequest{
		HostID:               uuid.NewString(),
		NodeName:             "web1",
		Role:                 types.RoleNode,
		Token:                token,
		AdditionalPrincipals: []string{"0.0.0.0", "10.0.0.7"},
		DNSNames:             []string{"web1.internal"},
		PublicSSHKey:         key.ssh,
		PublicTLSKey:         key.tls,
		RemoteAddr:           "192.0.2.7:40000",
	}
}

func TestJoin(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	req := joinRequest(t, "a-token-of-an-hour")
	certs, err := s.RegisterUsingToken(ctx, req)
	require.NoError(t, err)

	sshCert := parseSSHCert(t, certs.SSH)
	require.Equal(t, req.HostID+".example.com", sshCert.KeyId)
	require.Equal(t, []string{"web1", "web1.example.com", req.HostID, req.HostID + ".example.com", "192.0.2.7", "10.0.0.7"}, sshCert.ValidPrincipals)
	require.Equal(t, "Node", sshCert.Extensions[ExtensionRole])
	require.EqualValues(t, today().Add(-time.Minute).Unix(), sshCert.ValidAfter)
	require.EqualValues(t, today().Add(HostCertTTL).Unix(), sshCert.ValidBefore)
	hosts, err := s.HostCAs(ctx)
	require.NoError(t, err)
	require.NoError(t, checker(hosts, today()).CheckHostKey("192.0.2.7:3022", &net.TCPAddr{}, sshCert))

	tlsCert := parseTLSCert(t, certs.TLS)
	require.Len(t, certs.TLSCACerts, 1)
	pool := poolOf([]*x509.Certificate{parseTLSCert(t, certs.TLSCACerts[0])})
	for _, name := range []string{"web1", "web1.internal", req.HostID, "10.0.0.7", "192.0.2.7"} {
		_, err = tlsCert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: today()})
		require.NoError(t, err, name)
	}
	identity, err := tlsca.FromSubject(tlsCert.Subject)
	require.NoError(t, err)
	require.Equal(t, tlsca.Identity{Username: req.HostID + ".example.com", Groups: []string{"Node"}, Cluster: "example.com"}, identity)

	clock.Advance(time.Second) // events sort by time
	_, err = s.RegisterUsingToken(ctx, req)
	require.NoError(t, err, "an answer that was lost is not given again")

	other := joinRequest(t, "a-token-of-an-hour")
	_, err = s.RegisterUsingToken(ctx, other)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.EqualError(t, err, "the token was used already, by another host: make a new one with tctl tokens add")
	other.HostID = req.HostID
	_, err = s.RegisterUsingToken(ctx, other)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "has joined before, with other keys")

	joins := eventsOf[*apievents.InstanceJoin](t, s)
	require.Len(t, joins, 4)
	require.True(t, joins[0].Success)
	require.Equal(t, "TJ002I", joins[0].Code)
	require.Equal(t, req.HostID, joins[0].HostID)
	require.Equal(t, "192.0.2.7:40000", joins[0].RemoteAddr)
	require.Empty(t, joins[0].TokenName, "the token is a secret")
	failed := 0
	for _, join := range joins {
		if !join.Success {
			failed++
			require.Regexp(t, "was used already|with other keys", join.Error)
			require.Equal(t, "TJ002E", join.Code)
		}
	}
	require.Equal(t, 2, failed)
}

func TestJoinWithSeveralRoles(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	addToken(t, s, "node-and-proxy", time.Hour, types.RoleNode, types.RoleProxy)
	node := joinRequest(t, "node-and-proxy")
	_, err := s.RegisterUsingToken(ctx, node)
	require.NoError(t, err)
	proxy := joinRequest(t, "node-and-proxy")
	proxy.HostID, proxy.Role = node.HostID, types.RoleProxy
	certs, err := s.RegisterUsingToken(ctx, proxy)
	require.NoError(t, err)
	require.Equal(t, "Proxy", parseSSHCert(t, certs.SSH).Extensions[ExtensionRole])
	stranger := joinRequest(t, "node-and-proxy")
	stranger.Role = types.RoleProxy
	_, err = s.RegisterUsingToken(ctx, stranger)
	require.ErrorContains(t, err, "by another host")
}

func TestJoinRefused(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	addToken(t, s, "a-token-of-a-minute", time.Minute, types.RoleNode)
	clock.Advance(2 * time.Minute)
	for _, tc := range []struct {
		name   string
		change func(*types.RegisterUsingTokenRequest)
		is     func(error) bool
		want   string
	}{
		{"no token", func(r *types.RegisterUsingTokenRequest) { r.Token = "" }, trace.IsAccessDenied, "not one of this cluster"},
		{"unknown token", func(r *types.RegisterUsingTokenRequest) { r.Token = "none-of-yours" }, trace.IsAccessDenied, "the token is not one of this cluster: make a new one with tctl tokens add"},
		{"another resource", func(r *types.RegisterUsingTokenRequest) { r.Token = "../roles/access" }, trace.IsAccessDenied, "not one of this cluster"},
		{"expired token", func(r *types.RegisterUsingTokenRequest) { r.Token = "a-token-of-a-minute" }, trace.IsAccessDenied, "the token expired at 2026-11-22T11:36:00Z"},
		{"token of another type", func(r *types.RegisterUsingTokenRequest) { r.Role = types.RoleProxy }, trace.IsAccessDenied, `of another type, for the role Node and not for "Proxy"`},
		{"admin", func(r *types.RegisterUsingTokenRequest) { r.Role = types.RoleAdmin }, trace.IsAccessDenied, "another type"},
		{"no UUID", func(r *types.RegisterUsingTokenRequest) { r.HostID = "web1" }, trace.IsBadParameter, "no UUID"},
		{"no node name", func(r *types.RegisterUsingTokenRequest) { r.NodeName = "" }, trace.IsBadParameter, "node name is empty"},
		{"the auth server's name", func(r *types.RegisterUsingTokenRequest) { r.DNSNames = []string{"Teleport.cluster.local"} }, trace.IsBadParameter, "is the auth server's"},
		{"the auth server's name in the cluster", func(r *types.RegisterUsingTokenRequest) {
			r.AdditionalPrincipals = []string{"6578616d706c65.teleport.cluster.local"}
		}, trace.IsBadParameter, "is the auth server's"},
		{"any host", func(r *types.RegisterUsingTokenRequest) { r.DNSNames = []string{"*.example.com"} }, trace.IsBadParameter, `'*'`},
		{"no SSH key", func(r *types.RegisterUsingTokenRequest) { r.PublicSSHKey = nil }, trace.IsBadParameter, "SSH public key"},
		{"no TLS key", func(r *types.RegisterUsingTokenRequest) { r.PublicTLSKey = nil }, trace.IsBadParameter, "TLS public key"},
		{"a thousand names", func(r *types.RegisterUsingTokenRequest) { r.AdditionalPrincipals = make([]string, 1000) }, trace.IsBadParameter, "at most 256"},
		{"another method", func(r *types.RegisterUsingTokenRequest) { r.IDToken = "x" }, trace.IsBadParameter, "secret of a token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := joinRequest(t, "a-token-of-an-hour")
			tc.change(req)
			clock.Advance(time.Second) // events sort by time
			before := len(eventsOf[*apievents.InstanceJoin](t, s))
			certs, err := s.RegisterUsingToken(ctx, req)
			require.True(t, tc.is(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
			require.Nil(t, certs)
			joins := eventsOf[*apievents.InstanceJoin](t, s)
			require.Len(t, joins, before+1)
			require.False(t, joins[before].Success)
			require.Equal(t, trace.UserMessage(err), joins[before].Error)
		})
	}
	t.Run("what a stranger writes into the log", func(t *testing.T) {
		clock.Advance(time.Second)
		req := joinRequest(t, "none-of-yours")
		req.NodeName, req.HostID, req.RemoteAddr = "\x1b[2Jweb\n1", strings.Repeat("\xff", 1000), "@"
		_, err := s.RegisterUsingToken(ctx, req)
		require.True(t, trace.IsAccessDenied(err), "%v", err)
		joins := eventsOf[*apievents.InstanceJoin](t, s)
		last := joins[len(joins)-1]
		require.Equal(t, `"\x1b[2Jweb\n1"`, last.NodeName)
		require.Less(t, len(last.HostID), 300)
		require.Equal(t, "@", last.RemoteAddr)
	})
	// None of them has cost the token.
	_, err := s.RegisterUsingToken(ctx, joinRequest(t, "a-token-of-an-hour"))
	require.NoError(t, err)
}

// TestRefusedJoinsAreBounded: what one address causes does not grow with how often
// it tries, joins that succeed cost nothing, and what was left out is summed up.
func TestRefusedJoinsAreBounded(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	good := joinRequest(t, "a-token-of-an-hour")
	for range 2 * maxRefusedJoins {
		_, err := s.RegisterUsingToken(ctx, good)
		require.NoError(t, err)
	}
	bad := joinRequest(t, "none-of-yours")
	for range maxRefusedJoins {
		_, err := s.RegisterUsingToken(ctx, bad)
		require.True(t, trace.IsAccessDenied(err), "%v", err)
	}
	before := len(eventsOf[*apievents.InstanceJoin](t, s))
	for range 1000 {
		_, err := s.RegisterUsingToken(ctx, bad)
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
	}
	require.Len(t, eventsOf[*apievents.InstanceJoin](t, s), before+1)
	clock.Advance(time.Minute)
	require.Eventually(t, func() bool { return len(eventsOf[*apievents.InstanceJoin](t, s)) == before+2 }, 10*time.Second, time.Millisecond)
	joins := eventsOf[*apievents.InstanceJoin](t, s)
	require.Contains(t, joins[len(joins)-1].Error, "999")

	elsewhere := joinRequest(t, "none-of-yours")
	elsewhere.RemoteAddr = "198.51.100.1"
	_, err := s.RegisterUsingToken(ctx, elsewhere)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	_, err = s.RegisterUsingToken(ctx, bad)
	require.True(t, trace.IsAccessDenied(err), "a minute has passed: %v", err)

	// Those about tokens that nobody knows are soon forgotten.
	clock.Advance(strangersEventsKept)
	joins = eventsOf[*apievents.InstanceJoin](t, s)
	require.Len(t, joins, 2*maxRefusedJoins)
	for _, join := range joins {
		require.True(t, join.Success)
	}
}

// TestStrangersHoldNobodyUp: hosts that join through a proxy have its address, and
// so has whoever else comes through it.
func TestStrangersHoldNobodyUp(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	long, short := strings.Repeat("0f", longToken/2), "could-be-guessed"
	addToken(t, s, long, time.Hour, types.RoleNode)
	addToken(t, s, short, time.Hour, types.RoleNode)
	for i := range 2 * maxRefusedJoins {
		_, err := s.RegisterUsingToken(ctx, joinRequest(t, fmt.Sprintf("%0*d", longToken, i)))
		require.Equal(t, i < maxRefusedJoins, trace.IsAccessDenied(err), "%v", err)
		require.Equal(t, i >= maxRefusedJoins, trace.IsLimitExceeded(err), "%v", err)
	}
	_, err := s.RegisterUsingToken(ctx, joinRequest(t, short))
	require.True(t, trace.IsLimitExceeded(err), "a guess that is right is told from one that is wrong: %v", err)
	_, err = s.RegisterUsingToken(ctx, joinRequest(t, long))
	require.NoError(t, err)

	// Whoever has a token is bounded, too.
	for i := range 2 * maxRefusedJoins {
		_, err := s.RegisterUsingToken(ctx, joinRequest(t, long))
		require.Equal(t, i < maxRefusedJoins, trace.IsAccessDenied(err), "%v", err)
		require.Equal(t, i >= maxRefusedJoins, trace.IsLimitExceeded(err), "%v", err)
	}
}

// TestStrangersHideNobody: that a used token comes again is an event of its own,
// however much else there is.
func TestStrangersHideNobody(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	_, err := s.RegisterUsingToken(ctx, joinRequest(t, "a-token-of-an-hour"))
	require.NoError(t, err)
	for i := range 2 * maxRecordedJoins {
		bad := joinRequest(t, "none-of-yours")
		bad.RemoteAddr = fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		_, err := s.RegisterUsingToken(ctx, bad)
		require.True(t, trace.IsAccessDenied(err), "%v", err)
	}
	thief := joinRequest(t, "a-token-of-an-hour")
	_, err = s.RegisterUsingToken(ctx, thief)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.True(t, slices.ContainsFunc(eventsOf[*apievents.InstanceJoin](t, s), func(join *apievents.InstanceJoin) bool {
		return join.HostID == thief.HostID
	}))
}

// TestRecordedJoinsAreBounded: so it is with many addresses.
func TestRecordedJoinsAreBounded(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	for i := range 3 * maxRecordedJoins {
		bad := joinRequest(t, "none-of-yours")
		bad.RemoteAddr = fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		_, err := s.RegisterUsingToken(ctx, bad)
		require.True(t, trace.IsAccessDenied(err), "%v", err)
	}
	require.Len(t, eventsOf[*apievents.InstanceJoin](t, s), maxRecordedJoins+1)
}

// What is known of a token's use outlives what an operator does to the token.
func TestUsedTokenStaysUsed(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	_, err := s.RegisterUsingToken(ctx, joinRequest(t, "a-token-of-an-hour"))
	require.NoError(t, err)
	longer, err := types.NewProvisionToken("a-token-of-an-hour", types.SystemRoles{types.RoleNode}, clock.Now().Add(1000*time.Hour))
	require.NoError(t, err)
	require.NoError(t, s.UpsertToken(ctx, longer))
	clock.Advance(999 * time.Hour)
	_, err = s.RegisterUsingToken(ctx, joinRequest(t, "a-token-of-an-hour"))
	require.ErrorContains(t, err, "was used already")

	// Expired, it makes room for a new one of the name.
	clock.Advance(2 * time.Hour)
	_, err = s.GetToken(ctx, "a-token-of-an-hour")
	require.True(t, trace.IsNotFound(err), "%v", err)
	tokens, err := s.GetTokens(ctx)
	require.NoError(t, err)
	require.Empty(t, tokens)
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	_, err = s.RegisterUsingToken(ctx, joinRequest(t, "a-token-of-an-hour"))
	require.NoError(t, err)
}

// Two auth servers on one store, and many hosts with the same token at once.
func TestManyJoinWithOneToken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	servers := []*Server{open(t, Config{DataDir: dir}), open(t, Config{DataDir: dir})}
	addToken(t, servers[0], "a-token-of-an-hour", time.Hour, types.RoleNode)
	const hosts = 8
	requests, errs := make([]*types.RegisterUsingTokenRequest, hosts), make([]error, hosts)
	for i := range hosts {
		requests[i] = joinRequest(t, "a-token-of-an-hour")
	}
	var group sync.WaitGroup
	for i := range hosts {
		group.Go(func() {
			_, errs[i] = servers[i%len(servers)].RegisterUsingToken(t.Context(), requests[i])
		})
	}
	group.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil {
			require.Equal(t, -1, winner, "two hosts joined with one token")
			winner = i
			continue
		}
		require.True(t, trace.IsAccessDenied(err), "%v", err)
		require.ErrorContains(t, err, "was used already, by another host")
	}
	require.NotEqual(t, -1, winner)
	// Its answer was lost, and it asks the other server.
	_, err := servers[(winner+1)%len(servers)].RegisterUsingToken(t.Context(), requests[winner])
	require.NoError(t, err)
}

func TestGenerateHostCerts(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	hostKeys := map[types.SystemRole]keyPair{}
	request := func(role types.SystemRole) *proto.HostCertsRequest {
		key, ok := hostKeys[role]
		if !ok {
			key = newKeyPair(t)
			hostKeys[role] = key
		}
		return &proto.HostCertsRequest{
			HostID: "6c1f7d3e-9a39-4d0c-8d5e-0f1e2d3c4b5a", NodeName: "Büro", Role: role,
			PublicSSHKey: key.ssh, PublicTLSKey: key.tls, RemoteAddr: "[2001:db8::7]:1234",
			AdditionalPrincipals: []string{"::", "localhost"},
		}
	}
	for _, role := range []types.SystemRole{types.RoleNode, types.RoleProxy, types.RoleAuth} {
		certs, err := s.GenerateHostCerts(ctx, request(role))
		require.NoError(t, err)
		require.Contains(t, parseSSHCert(t, certs.SSH).ValidPrincipals, "2001:db8::7")
		require.NotContains(t, parseSSHCert(t, certs.SSH).ValidPrincipals, "::")
		cert := parseTLSCert(t, certs.TLS)
		require.Equal(t, []string{string(role)}, cert.Subject.Organization)
		require.Equal(t, role == types.RoleAuth, cert.VerifyHostname("teleport.cluster.local") == nil)
		require.NoError(t, cert.VerifyHostname("localhost"))
		for _, name := range cert.DNSNames {
			require.NotContains(t, name, "ü", "no DNS name")
		}
	}

	bad := request(types.RoleAdmin)
	_, err := s.GenerateHostCerts(ctx, bad)
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.ErrorContains(t, err, `"Admin"`)
	_, err = s.GenerateHostCerts(ctx, nil)
	require.True(t, trace.IsBadParameter(err), "%v", err)

	behind := request(types.RoleNode)
	behind.Rotation = &types.Rotation{State: types.RotationStateStandby, Phase: types.RotationPhaseStandby}
	_, err = s.GenerateHostCerts(ctx, behind)
	require.NoError(t, err)
	rotate(t, s, types.RotationPhaseInit)
	_, err = s.GenerateHostCerts(ctx, behind)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	certs, err := s.GenerateHostCerts(ctx, request(types.RoleNode))
	require.NoError(t, err)
	require.Len(t, certs.SSHCACerts, 2)
	require.Len(t, certs.TLSCACerts, 2)

	lock, err := types.NewLock("stolen", types.LockSpecV2{Target: types.LockTarget{ServerID: behind.HostID}, Message: "stolen"})
	require.NoError(t, err)
	require.NoError(t, s.UpsertLock(ctx, lock))
	_, err = s.GenerateHostCerts(ctx, request(types.RoleNode))
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "locked by an administrator: stolen")
	_, err = s.GenerateHostCerts(ctx, request(types.RoleProxy))
	require.NoError(t, err)
}
