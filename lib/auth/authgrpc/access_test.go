// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/authgrpc"
	"teleport-auditd/lib/auth/login"
)

func notAfter(t *testing.T, text []byte) time.Time {
	t.Helper()
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert.NotAfter
}

func TestWhoGetsIn(t *testing.T) {
	f := newFixture(t)
	foreign := newFixture(t)
	// Signed two hours ago, for one.
	past := f.open(t, clockwork.NewFakeClockAt(time.Now().Add(-2*time.Hour)))
	good := user(t, f.auth, "alice", time.Hour, "access")
	_, err := f.connect(t, good).Ping(t.Context())
	require.NoError(t, err)

	object, err := f.auth.GetUser(t.Context(), "alice", false)
	require.NoError(t, err)
	k := newKeys(t)
	expired, err := past.GenerateUserCerts(t.Context(), proto.UserCertsRequest{
		Username: object.GetName(), TLSPublicKey: k.tls, SSHPublicKey: k.ssh, Expires: time.Now().Add(-time.Hour),
	})
	require.NoError(t, err)
	require.True(t, notAfter(t, expired.TLS).Before(time.Now()))
	require.ErrorContains(t, f.handshake(t, k.credentials(t, expired)), "expired certificate")

	// Of another cluster of the same name, to whoever trusts this one.
	stranger := newKeys(t)
	_ = user(t, foreign.auth, "alice", time.Hour, "access")
	certs, err := foreign.auth.GenerateUserCerts(t.Context(), proto.UserCertsRequest{Username: "alice", TLSPublicKey: stranger.tls, SSHPublicKey: stranger.ssh})
	require.NoError(t, err)
	certs.TLSCACerts = expired.TLSCACerts
	require.ErrorContains(t, f.handshake(t, stranger.credentials(t, certs)), "unknown certificate authority")
	require.NoError(t, f.handshake(t, good))
}

// handshake returns what the server says to the certificate. With TLS 1.3 that
// comes after the handshake.
func (f *fixture) handshake(t *testing.T, credentials client.Credentials) error {
	t.Helper()
	config, err := credentials.TLSConfig()
	require.NoError(t, err)
	conn, err := tls.Dial("tcp", f.addr, config)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it has said what it had to
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Read(make([]byte, 1)) // the server's settings frame
	return err
}

// What hosts may and may not, by their role.
func TestHosts(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	_ = user(t, f.auth, "alice", time.Hour, "access")
	k := newKeys(t)
	nodeCredentials, id := host(t, f.auth, types.RoleNode)
	node := f.connect(t, nodeCredentials)
	proxyCredentials, _ := host(t, f.auth, types.RoleProxy)
	proxy := f.connect(t, proxyCredentials)
	caID := types.CertAuthID{Type: types.UserCA, DomainName: testCluster}

	_, err := node.UpsertNode(ctx, newNode(t, id, "web", nil))
	require.NoError(t, err)
	kept, err := f.auth.GetNode(ctx, id)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(defaults.ServerAnnounceTTL), kept.Expiry(), time.Minute, "a registration lives for ever")

	calls := []struct {
		name        string
		call        func(*client.Client) error
		node, proxy bool
	}{
		{"ping", func(c *client.Client) error { _, err := c.Ping(ctx); return err }, true, true},
		{"authorities", func(c *client.Client) error { _, err := c.GetCertAuthority(ctx, caID, false); return err }, true, true},
		{"private keys", func(c *client.Client) error { _, err := c.GetCertAuthority(ctx, caID, true); return err }, false, false},
		{"private keys, listed", func(c *client.Client) error { _, err := c.GetCertAuthorities(ctx, types.HostCA, true); return err }, false, false},
		{"roles", func(c *client.Client) error { _, err := c.GetRoles(ctx); return err }, true, true},
		{"role", func(c *client.Client) error { _, err := c.GetRole(ctx, "access"); return err }, true, true},
		{"locks", func(c *client.Client) error { _, err := c.GetLocks(ctx, true); return err }, true, true},
		{"settings", func(c *client.Client) error { _, err := c.GetAuthPreference(ctx); return err }, true, true},
		{"nodes", func(c *client.Client) error { _, err := c.GetNodes(ctx, defaults.Namespace); return err }, false, true},
		{"proxies", func(c *client.Client) error { _, err := listProxies(ctx, c); return err }, true, true},
		{"register another node", func(c *client.Client) error {
			_, err := c.UpsertNode(ctx, newNode(t, "other", "web", nil))
			return err
		}, false, false},
		{"users", func(c *client.Client) error { _, err := c.GetUsers(ctx, false); return err }, false, false},
		{"a user", func(c *client.Client) error { _, err := c.GetUser(ctx, "alice", false); return err }, false, false},
		{"tokens", func(c *client.Client) error { _, err := c.GetTokens(ctx); return err }, false, false},
		{"sign a user", func(c *client.Client) error {
			_, err := c.GenerateUserCerts(ctx, proto.UserCertsRequest{Username: "alice", TLSPublicKey: k.tls, SSHPublicKey: k.ssh})
			return err
		}, false, false},
		{"invite", func(c *client.Client) error {
			_, err := c.CreateResetPasswordToken(ctx, &proto.CreateResetPasswordTokenRequest{Name: "alice"})
			return err
		}, false, false},
		{"change a role", func(c *client.Client) error { return c.DeleteRole(ctx, "access") }, false, false},
		{"events", func(c *client.Client) error {
			_, _, err := c.SearchEvents(ctx, time.Now(), time.Now(), "", nil, 1, 0, "")
			return err
		}, false, false},
		{"watch locks", func(c *client.Client) error { _, err := watchOnce(t, c, types.KindLock); return err }, true, true},
		{"watch authorities", func(c *client.Client) error { _, err := watchOnce(t, c, types.KindCertAuthority); return err }, true, true},
		{"watch nodes", func(c *client.Client) error { _, err := watchOnce(t, c, types.KindNode); return err }, false, true},
		{"watch proxies", func(c *client.Client) error { _, err := watchOnce(t, c, types.KindProxy); return err }, true, true},
		{"watch users", func(c *client.Client) error { _, err := watchOnce(t, c, types.KindUser); return err }, false, false},
		{"watch tokens", func(c *client.Client) error { _, err := watchOnce(t, c, types.KindToken); return err }, false, false},
	}
	for _, tc := range calls {
		for _, each := range []struct {
			who string
			c   *client.Client
			may bool
		}{{"node", node, tc.node}, {"proxy", proxy, tc.proxy}} {
			t.Run(tc.name+" as "+each.who, func(t *testing.T) {
				err := tc.call(each.c)
				if each.may {
					require.NoError(t, err)
					return
				}
				require.True(t, trace.IsAccessDenied(err), "%v", err)
			})
		}
	}

	// The login and the invitation are the proxy's; what it says then is about
	// what was typed.
	_, err = login.Authenticate(ctx, proxy.GetConnection(), login.Request{User: "alice", Password: "wrong", TLSPublicKey: k.tls})
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, login.WrongCredentials)
	_, err = login.Authenticate(ctx, node.GetConnection(), login.Request{User: "alice", Password: "wrong", TLSPublicKey: k.tls})
	require.ErrorContains(t, err, "may not call")
	_, err = proxy.GetResetPasswordToken(ctx, "nonsense")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "may not call")
	_, err = node.GetResetPasswordToken(ctx, "nonsense")
	require.ErrorContains(t, err, "may not call")
}

// listProxies asks as nodes do.
func listProxies(ctx context.Context, c *client.Client) ([]*types.ServerV2, error) {
	page, err := proto.NewAuthServiceClient(c.GetConnection()).ListResources(ctx, &proto.ListResourcesRequest{ResourceType: types.KindProxy, Namespace: defaults.Namespace, Limit: 100})
	if err != nil {
		return nil, err
	}
	var proxies []*types.ServerV2
	for _, each := range page.Resources {
		proxies = append(proxies, each.GetNode())
	}
	return proxies, nil
}

// TestProxiesAreListed: nodes hear where each proxy takes them, and of a proxy that
// comes; of people those whose roles say so.
func TestProxiesAreListed(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	nodeCredentials, _ := host(t, f.auth, types.RoleNode)
	node := f.connect(t, nodeCredentials)
	proxyCredentials, id := host(t, f.auth, types.RoleProxy)
	proxy := f.connect(t, proxyCredentials)
	watcher, err := node.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{{Kind: types.KindProxy}}})
	require.NoError(t, err)
	defer watcher.Close() //nolint:errcheck // the test has what it wants
	require.Equal(t, types.OpInit, nextEvent(t, watcher).Type)

	own, err := types.NewServerWithLabels(id, types.KindProxy, types.ServerSpecV2{Addr: "proxy.example.com:3080", Hostname: "proxy"}, map[string]string{auth.TunnelAddrLabel: "proxy.example.com:3024"})
	require.NoError(t, err)
	_, err = proxy.UpsertNode(ctx, own)
	require.NoError(t, err)
	event := nextEvent(t, watcher)
	require.Equal(t, types.OpPut, event.Type)
	require.Equal(t, []string{types.KindProxy, id}, []string{event.Resource.GetKind(), event.Resource.GetName()})
	listed, err := listProxies(ctx, node)
	require.NoError(t, err)
	require.Len(t, listed, 1)
	addr, _ := listed[0].GetLabel(auth.TunnelAddrLabel)
	require.Equal(t, "proxy.example.com:3024", addr)
	nodes, err := proxy.GetNodes(ctx, defaults.Namespace)
	require.NoError(t, err)
	require.Empty(t, nodes, "a proxy is no node")

	for addr, want := range map[string]string{"proxy.example.com": "is not host:port", "proxy.example.com:0": "has no port", "a b:3024": ""} {
		own.SetStaticLabels(map[string]string{auth.TunnelAddrLabel: addr})
		_, err := proxy.UpsertNode(ctx, own)
		require.True(t, trace.IsBadParameter(err), "%v", err)
		require.ErrorContains(t, err, want)
	}
	_, err = listProxies(ctx, f.connect(t, user(t, f.auth, "alice", time.Hour, "access")))
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	_, err = listProxies(ctx, f.connect(t, user(t, f.auth, "erin", time.Hour, "editor")))
	require.NoError(t, err)
}

// What users may is what their roles say.
func TestUsersByTheirRoles(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	prod, err := types.NewRole("prod", types.RoleSpecV6{Allow: types.RoleConditions{
		Logins: []string{"{{internal.logins}}"}, NodeLabels: types.Labels{"env": []string{"prod"}},
	}})
	require.NoError(t, err)
	_, err = admin.CreateRole(ctx, prod)
	require.NoError(t, err)
	// A role with the name of a role of the system is a role.
	fake, err := types.NewRole("Admin", types.RoleSpecV6{})
	require.NoError(t, err)
	_, err = admin.CreateRole(ctx, fake)
	require.NoError(t, err)
	for id, env := range map[string]string{"a": "prod", "b": "dev"} {
		_, err := admin.UpsertNode(ctx, newNode(t, id, "web-"+id, map[string]string{"env": env}))
		require.NoError(t, err)
	}

	alice := f.connect(t, user(t, f.auth, "alice", time.Hour, "prod", "Admin"))
	nodes, err := alice.GetNodes(ctx, defaults.Namespace)
	require.NoError(t, err)
	require.Len(t, nodes, 1)
	require.Equal(t, "web-a", nodes[0].GetHostname())
	_, err = alice.GetNode(ctx, defaults.Namespace, "b")
	require.True(t, trace.IsNotFound(err), "%v", err)
	page, err := alice.GetResources(ctx, &proto.ListResourcesRequest{ResourceType: types.KindNode, IncludeLogins: true})
	require.NoError(t, err)
	require.Equal(t, []string{"root"}, page.Resources[0].Logins)
	_, err = alice.GetRole(ctx, "prod")
	require.NoError(t, err, "one's own role")
	_, err = alice.GetUser(ctx, "alice", false)
	require.NoError(t, err, "oneself")
	for name, call := range map[string]func() error{
		"another role": func() error { _, err := alice.GetRole(ctx, "editor"); return err },
		"users":        func() error { _, err := alice.GetUsers(ctx, false); return err },
		"tokens":       func() error { _, err := alice.GetTokens(ctx); return err },
		"lock":         func() error { _, err := alice.GetLocks(ctx, false); return err },
		"upsert node":  func() error { _, err := alice.UpsertNode(ctx, newNode(t, "c", "c", nil)); return err },
		"events": func() error {
			_, _, err := alice.SearchEvents(ctx, time.Now(), time.Now(), "", nil, 1, 0, "")
			return err
		},
		"watch users": func() error { _, err := watchOnce(t, alice, types.KindUser); return err },
		"keys": func() error {
			_, err := alice.GetCertAuthorities(ctx, types.UserCA, true)
			return err
		},
	} {
		err := call()
		require.True(t, trace.IsAccessDenied(err), "%s: %v", name, err)
	}
	_, err = watchOnce(t, alice, types.KindNode)
	require.NoError(t, err)

	editor := f.connect(t, user(t, f.auth, "erin", time.Hour, "access", "editor"))
	_, err = editor.GetUsers(ctx, false)
	require.NoError(t, err)
	_, err = editor.GetCertAuthorities(ctx, types.UserCA, false)
	require.NoError(t, err)
	_, err = editor.GetCertAuthorities(ctx, types.UserCA, true)
	require.True(t, trace.IsAccessDenied(err), "no role gives private keys: %v", err)
	require.NoError(t, editor.DeleteAllNodes(ctx, defaults.Namespace))
}

// A connection is worth what its certificate is worth now.
func TestOpenConnections(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	alice := f.connect(t, user(t, f.auth, "alice", time.Hour, "access"))
	w, err := alice.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{{Kind: types.KindNode}}})
	require.NoError(t, err)
	require.Equal(t, types.OpInit, nextEvent(t, w).Type)

	lock, err := types.NewLock("l", types.LockSpecV2{Target: types.LockTarget{Role: "access"}, Message: "all hands"})
	require.NoError(t, err)
	require.NoError(t, admin.UpsertLock(ctx, lock))
	_, err = alice.GetCurrentUser(ctx)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "all hands")
	select {
	case <-w.Done():
		require.True(t, trace.IsAccessDenied(w.Error()), "%v", w.Error())
	case <-time.After(30 * time.Second):
		require.Fail(t, "a locked user goes on watching")
	}
	require.NoError(t, admin.DeleteLock(ctx, "l"))
	_, err = alice.GetCurrentUser(ctx)
	require.NoError(t, err)

	// A lock on a login holds at nodes.
	lock.SetTarget(types.LockTarget{User: "alice", Login: "root"})
	require.NoError(t, admin.UpsertLock(ctx, lock))
	_, err = alice.GetCurrentUser(ctx)
	require.NoError(t, err)

	brief := f.connect(t, user(t, f.auth, "bob", 3*time.Second, "access"))
	_, err = brief.GetCurrentUser(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := brief.GetCurrentUser(ctx)
		return trace.IsAccessDenied(err)
	}, 20*time.Second, 100*time.Millisecond, "an expired certificate goes on")

	require.NoError(t, admin.DeleteUser(ctx, "alice"))
	_, err = alice.GetNodes(ctx, defaults.Namespace)
	require.True(t, trace.IsAccessDenied(err), "%v", err)

	// Shutdown does not wait for watchers.
	w, err = admin.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{{Kind: types.KindNode}}})
	require.NoError(t, err)
	require.Equal(t, types.OpInit, nextEvent(t, w).Type)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.server.Shutdown(ctx)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		require.Fail(t, "the shutdown waits for a watcher")
	}
	<-w.Done()
	require.True(t, trace.IsConnectionProblem(w.Error()), "%v", w.Error())
}

// A rotation cuts nobody off before its end, and leaves nobody in after it.
func TestRotation(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	alice := f.connect(t, user(t, f.auth, "alice", time.Hour, "access"))
	for _, phase := range []string{types.RotationPhaseInit, types.RotationPhaseUpdateClients, types.RotationPhaseUpdateServers, types.RotationPhaseStandby} {
		_, err := alice.GetCurrentUser(ctx)
		require.NoError(t, err, "before the phase %s", phase)
		require.NoError(t, admin.RotateCertAuthority(ctx, types.RotateRequest{Type: types.UserCA, TargetPhase: phase, Mode: types.RotationModeManual}))
	}
	require.Eventually(t, func() bool {
		_, err := alice.GetCurrentUser(ctx)
		return trace.IsAccessDenied(err)
	}, 20*time.Second, 100*time.Millisecond, "a certificate of the old authority is good")
	renewed := f.connect(t, user(t, f.auth, "alice", time.Hour, "access"))
	_, err := renewed.GetCurrentUser(ctx)
	require.NoError(t, err)
}

func TestLocal(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c, closeAll, err := authgrpc.Local(ctx, f.auth, authgrpc.LocalConfig{Version: "1.2.3", Operator: "root@auth1", Log: discard()})
	require.NoError(t, err)
	defer closeAll()
	ping, err := c.Ping(ctx)
	require.NoError(t, err)
	require.Equal(t, testCluster, ping.ClusterName)
	lock, err := types.NewLock("l", types.LockSpecV2{Target: types.LockTarget{User: "mallory"}})
	require.NoError(t, err)
	require.NoError(t, c.UpsertLock(ctx, lock))
	kept, err := c.GetLock(ctx, "l")
	require.NoError(t, err)
	require.Equal(t, "root@auth1", kept.CreatedBy())
}

// Every method of every service is in the table, or is not implemented: what is
// added without a thought about who may call it is found here.
func TestEveryMethodHasARule(t *testing.T) {
	f := newFixture(t)
	admin := f.connect(t, f.admin(t)).GetConnection()
	rules := authgrpc.Methods(f.server)
	seen := map[string]bool{}
	for service, info := range authgrpc.Services(f.server) {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			seen[name] = true
			if rules[name] {
				continue
			}
			var err error
			if method.IsServerStream || method.IsClientStream {
				stream, opened := admin.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: method.IsClientStream}, name)
				require.NoError(t, opened)
				_ = stream.SendMsg(&emptypb.Empty{})
				_ = stream.CloseSend()
				err = stream.RecvMsg(&emptypb.Empty{})
			} else {
				err = admin.Invoke(t.Context(), name, &emptypb.Empty{}, &emptypb.Empty{})
			}
			require.True(t, trace.IsNotImplemented(err), "%s has no rule and answers %v", name, err)
		}
	}
	for name := range rules {
		require.True(t, seen[name], "the rule for %s is for no method", name)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	lock, err := types.NewLock("l", types.LockSpecV2{Target: types.LockTarget{User: "a"}, Message: strings.Repeat("x", 2<<20)})
	require.NoError(t, err)
	err = admin.UpsertLock(t.Context(), lock)
	require.True(t, trace.IsLimitExceeded(err), "%v", err)
	lock.SetMessage(strings.Repeat("x", 2<<10))
	err = admin.UpsertLock(t.Context(), lock)
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.NotContains(t, err.Error(), "xxxx")
}

// A thousand nodes come in one page that clients take, with all that a node may
// say about itself.
func TestPagesFitIntoAnswers(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	labels := map[string]string{}
	for i := range 8 {
		labels[fmt.Sprint("label", i)] = strings.Repeat("x", 245)
	}
	const count = 2100
	for i := range count {
		node := newNode(t, fmt.Sprintf("id-%04d", i), "web", labels)
		require.NoError(t, f.auth.UpsertNode(ctx, node))
	}
	nodes, err := admin.GetNodes(ctx, defaults.Namespace)
	require.NoError(t, err)
	require.Len(t, nodes, count)
}
