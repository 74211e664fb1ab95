// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"path/filepath"
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
)

// hostRequestOf asks for what joinRequest asks for, without a token.
func hostRequestOf(req *types.RegisterUsingTokenRequest) *proto.HostCertsRequest {
	return &proto.HostCertsRequest{
		HostID: req.HostID, NodeName: req.NodeName, Role: req.Role, AdditionalPrincipals: req.AdditionalPrincipals,
		DNSNames: req.DNSNames, PublicSSHKey: req.PublicSSHKey, PublicTLSKey: req.PublicTLSKey, RemoteAddr: req.RemoteAddr,
	}
}

// A token is no way to become a host that is there already.
func TestJoinAsAnotherHost(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	for _, name := range []string{"token-of-the-host", "token-of-the-thief", "token-for-later", "token-for-the-new"} {
		addToken(t, s, name, 1000*time.Hour, types.RoleNode)
	}
	host := joinRequest(t, "token-of-the-host")
	_, err := s.RegisterUsingToken(ctx, host)
	require.NoError(t, err)

	clock.Advance(time.Second)
	thief := joinRequest(t, "token-of-the-thief")
	thief.HostID = host.HostID
	for _, spelt := range []string{host.HostID, strings.ToUpper(host.HostID)} {
		thief.HostID = spelt
		_, err = s.RegisterUsingToken(ctx, thief)
		require.True(t, trace.IsAccessDenied(err), "%v", err)
		require.ErrorContains(t, err, "has joined before, with other keys")
		require.ErrorContains(t, err, "tctl rm node/"+spelt)
		require.NotContains(t, err.Error(), "\n")
	}
	thief.HostID = host.HostID
	_, err = s.GenerateHostCerts(ctx, hostRequestOf(thief))
	require.ErrorContains(t, err, "has joined before, with other keys")
	joins := eventsOf[*apievents.InstanceJoin](t, s)
	require.Len(t, joins, 4)
	for _, join := range joins[1:] {
		require.False(t, join.Success)
		require.Equal(t, "TJ002E", join.Code)
		require.Contains(t, join.Error, "with other keys")
	}

	// The host itself: while its certificates hold, and after.
	_, err = s.GenerateHostCerts(ctx, hostRequestOf(host))
	require.NoError(t, err)
	clock.Advance(2 * HostCertTTL)
	host.Token = "token-for-later"
	_, err = s.RegisterUsingToken(ctx, host)
	require.NoError(t, err)

	// An operator decides; none of the refusals has cost a token.
	require.NoError(t, s.DeleteNode(ctx, host.HostID))
	_, err = s.RegisterUsingToken(ctx, thief)
	require.NoError(t, err)
	require.NoError(t, s.DeleteNode(ctx, host.HostID))
	require.True(t, trace.IsNotFound(s.DeleteNode(ctx, host.HostID)))
}

// Hosts that the auth server of the same process signs have keys of their own, too.
func TestJoinAsAHostThatNeededNoToken(t *testing.T) {
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	host := joinRequest(t, "")
	_, err := s.GenerateHostCerts(t.Context(), hostRequestOf(host))
	require.NoError(t, err)
	thief := joinRequest(t, "a-token-of-an-hour")
	thief.HostID = host.HostID
	_, err = s.RegisterUsingToken(t.Context(), thief)
	require.ErrorContains(t, err, "has joined before, with other keys")
}

// Two tokens, two auth servers, one host id: the store decides.
func TestManyJoinAsOneHost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	servers := []*Server{open(t, Config{DataDir: dir}), open(t, Config{DataDir: dir})}
	const hosts = 6
	id, errs := uuid.NewString(), make([]error, hosts)
	var requests []*types.RegisterUsingTokenRequest
	for i := range hosts {
		name := "token-" + strings.Repeat("x", 8+i)
		addToken(t, servers[0], name, time.Hour, types.RoleNode)
		req := joinRequest(t, name)
		req.HostID = id
		requests = append(requests, req)
	}
	var group sync.WaitGroup
	for i := range hosts {
		group.Go(func() { _, errs[i] = servers[i%2].RegisterUsingToken(t.Context(), requests[i]) })
	}
	group.Wait()
	joined := 0
	for _, err := range errs {
		if err == nil {
			joined++
			continue
		}
		require.ErrorContains(t, err, "has joined before, with other keys")
	}
	require.Equal(t, 1, joined)
}

func TestNamesOfOtherHosts(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	proxy := joinRequest(t, "")
	proxy.Role, proxy.NodeName, proxy.RemoteAddr = types.RoleProxy, "gate", "192.0.2.1:1"
	proxy.AdditionalPrincipals = []string{"proxy.example.com", "ssh.gate.test", "192.0.2.1", "localhost", "127.0.0.1"}
	proxy.DNSNames = nil
	_, err := s.GenerateHostCerts(ctx, hostRequestOf(proxy))
	require.NoError(t, err)
	registered, err := types.NewServer(uuid.NewString(), types.KindProxy, types.ServerSpecV2{Addr: "web.gate.test:3080", Hostname: "older"})
	require.NoError(t, err)
	require.NoError(t, s.UpsertProxy(ctx, registered))
	web := joinRequest(t, "")
	_, err = s.GenerateHostCerts(ctx, hostRequestOf(web))
	require.NoError(t, err)

	const proxys = "is that of a proxy"
	for _, tc := range []struct {
		name   string
		change func(*proto.HostCertsRequest)
		want   string
	}{
		{"the proxy's node name", func(r *proto.HostCertsRequest) { r.NodeName = "Gate" }, proxys},
		{"the proxy's public address", func(r *proto.HostCertsRequest) { r.AdditionalPrincipals = []string{"ssh.gate.test"} }, proxys},
		{"the same in another spelling", func(r *proto.HostCertsRequest) { r.DNSNames = []string{"SSH.gate.test."} }, proxys},
		{"the same by way of the cluster's name", func(r *proto.HostCertsRequest) { r.NodeName = "proxy" }, proxys},
		{"the proxy's id", func(r *proto.HostCertsRequest) { r.NodeName = proxy.HostID }, "is a host id"},
		{"a registered proxy", func(r *proto.HostCertsRequest) { r.NodeName = "older" }, proxys},
		{"its address", func(r *proto.HostCertsRequest) { r.DNSNames = []string{"web.gate.test"} }, proxys},
		{"another node's id", func(r *proto.HostCertsRequest) {
			r.AdditionalPrincipals = []string{strings.ToUpper(web.HostID) + ".example.com"}
		}, "is a host id"},
		{"an id of nobody", func(r *proto.HostCertsRequest) { r.DNSNames = []string{uuid.NewString()} }, "is a host id"},
		{"another node's name", func(r *proto.HostCertsRequest) { r.NodeName = "web1" }, ""},
		{"names of every host", func(r *proto.HostCertsRequest) { r.AdditionalPrincipals = []string{"localhost", "127.0.0.1"} }, ""},
		{"its own id", func(r *proto.HostCertsRequest) { r.DNSNames = []string{r.HostID} }, ""},
		{"the proxy's own node", func(r *proto.HostCertsRequest) { r.HostID, r.NodeName = proxy.HostID, "gate" }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key := newKeyPair(t)
			req := &proto.HostCertsRequest{HostID: uuid.NewString(), NodeName: "web9", Role: types.RoleNode, PublicSSHKey: key.ssh, PublicTLSKey: key.tls}
			tc.change(req)
			_, err := s.GenerateHostCerts(ctx, req)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}

	// Behind the same NAT, or through the proxy, a node comes from its address.
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	behind := joinRequest(t, "a-token-of-an-hour")
	behind.RemoteAddr, behind.AdditionalPrincipals = "192.0.2.1:999", nil
	certs, err := s.RegisterUsingToken(ctx, behind)
	require.NoError(t, err)
	require.NotContains(t, parseSSHCert(t, certs.SSH).ValidPrincipals, "192.0.2.1")

	// A proxy that is gone for long keeps no names.
	clock.Advance(HostCertTTL + time.Second)
	behind.NodeName = "gate"
	_, err = s.GenerateHostCerts(ctx, hostRequestOf(behind))
	require.NoError(t, err)
}

// One token for both roles shows that both are one host. Another does not.
func TestNodeUnderTheIDOfAProxy(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	addToken(t, s, "node-and-proxy", time.Hour, types.RoleNode, types.RoleProxy)
	addToken(t, s, "another-token", time.Hour, types.RoleNode)
	proxy := joinRequest(t, "node-and-proxy")
	proxy.Role = types.RoleProxy
	_, err := s.RegisterUsingToken(ctx, proxy)
	require.NoError(t, err)
	thief := joinRequest(t, "another-token")
	thief.HostID = proxy.HostID
	_, err = s.RegisterUsingToken(ctx, thief)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "is that of a proxy, and this token did not let it in")
	node := joinRequest(t, "node-and-proxy")
	node.HostID = proxy.HostID
	_, err = s.RegisterUsingToken(ctx, node)
	require.NoError(t, err)
}
