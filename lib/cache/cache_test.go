// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/authgrpc"
	"teleport-auditd/lib/auth/join"
	"teleport-auditd/lib/cache"
)

// cluster is an auth server that can be ended and started again, and the client
// that a proxy has of it.
type cluster struct {
	*auth.Server
	addr   string
	client *client.Client
	stop   func()
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	log, _ := logrustest.NewNullLogger()
	server, err := auth.Open(t.Context(), auth.Config{DataDir: filepath.Join(t.TempDir(), "data"), ClusterName: "example.com", Log: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	c := &cluster{Server: server, addr: "127.0.0.1:0"}
	c.start(t)
	dir := t.TempDir()
	keys, err := join.OpenKeys(dir, types.RoleProxy)
	require.NoError(t, err)
	identity, err := join.Sign(t.Context(), server, dir, uuid.NewString(), "proxy-1", types.RoleProxy, keys, nil, clockwork.NewRealClock())
	require.NoError(t, err)
	c.client, err = identity.Connect(t.Context(), []string{c.addr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.client.Close()) })
	return c
}

func (c *cluster) start(t *testing.T) {
	t.Helper()
	log, _ := logrustest.NewNullLogger()
	grpc, err := authgrpc.New(authgrpc.Config{Auth: c.Server, People: c.Server, Certificate: c.ServerCertificate(nil), Version: "1.2.3", Log: log})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", c.addr)
	require.NoError(t, err)
	c.addr = listener.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- grpc.Serve(listener) }()
	var once sync.Once
	c.stop = func() {
		once.Do(func() {
			grpc.Close()
			require.NoError(t, <-ended)
		})
	}
	t.Cleanup(c.stop)
}

func run(t *testing.T, cfg cache.Config) (known *cache.Cache, stop func()) {
	t.Helper()
	known, err := cache.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		known.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return known, stop
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 10*time.Millisecond, what)
}

func newNode(t *testing.T, name string) types.Server {
	t.Helper()
	node, err := types.NewServer(uuid.NewString(), types.KindNode, types.ServerSpecV2{Addr: "192.0.2.7:3022", Hostname: name, Version: "1"})
	require.NoError(t, err)
	node.SetExpiry(time.Now().Add(10 * time.Minute))
	return node
}

func newLock(t *testing.T, user string) types.Lock {
	t.Helper()
	lock, err := types.NewLock(uuid.NewString(), types.LockSpecV2{Target: types.LockTarget{User: user}, Message: "away"})
	require.NoError(t, err)
	return lock
}

func messages(hook *logrustest.Hook) (texts []string) {
	for _, entry := range hook.AllEntries() {
		if entry.Level <= logrus.InfoLevel {
			texts = append(texts, entry.Message)
		}
	}
	return texts
}

// TestFollows holds that what changes at the auth service is known at once, and
// that what was known is known while the auth service is away and after a restart.
func TestFollows(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t)
	log, hook := logrustest.NewNullLogger()
	var mu sync.Mutex
	told := map[string]int{}
	tell := func(what string, n int) {
		mu.Lock()
		defer mu.Unlock()
		told[what] = n
	}
	was := func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return told[what]
	}
	connections := 0
	cfg := cache.Config{
		Client: c.client, Path: filepath.Join(t.TempDir(), "cache.json"), Nodes: true, Log: log,
		OnHostCAs:   func(_ context.Context, cas []types.CertAuthority) { tell("keys", len(cas[0].GetTrustedSSHKeyPairs())) },
		OnLocks:     func(_ context.Context, locks []types.Lock) { tell("locks", len(locks)) },
		OnConnected: func(context.Context) { connections++; tell("connections", connections) },
	}
	node := newNode(t, "web")
	require.NoError(t, c.UpsertNode(ctx, node))
	known, stop := run(t, cfg)
	require.NoError(t, known.Wait(ctx))
	eventually(t, "connected", func() bool { return was("connections") == 1 })
	require.True(t, known.Current())

	keys, err := known.UserCAs(ctx)
	require.NoError(t, err)
	want, err := c.UserCAs(ctx)
	require.NoError(t, err)
	require.Equal(t, want, keys)
	roles, err := known.Roles(ctx, []string{"access", "nosuchrole"})
	require.NoError(t, err)
	require.Len(t, roles, 1)
	preference, err := known.AuthPreference(ctx)
	require.NoError(t, err)
	require.True(t, preference.IsSecondFactorEnabled())
	names := func() (names []string) {
		nodes, err := known.Nodes(ctx)
		require.NoError(t, err)
		for _, node := range nodes {
			names = append(names, node.GetHostname())
		}
		return names
	}
	require.Equal(t, []string{"web"}, names())

	// Changes.
	for _, kind := range []types.CertAuthType{types.UserCA, types.HostCA} {
		require.NoError(t, c.RotateCertAuthority(ctx, types.RotateRequest{Type: kind, TargetPhase: types.RotationPhaseInit, Mode: types.RotationModeManual}))
	}
	eventually(t, "the rotation is known", func() bool {
		users, err := known.UserCAs(ctx)
		require.NoError(t, err)
		hosts, err := known.HostCAs(ctx)
		require.NoError(t, err)
		return len(users) == 2 && len(hosts) == 2 && was("keys") == 2
	})
	lock := newLock(t, "alice")
	require.NoError(t, c.UpsertLock(ctx, lock))
	eventually(t, "the lock is known", func() bool { return was("locks") == 1 })
	second := newNode(t, "db")
	require.NoError(t, c.UpsertNode(ctx, second))
	eventually(t, "the node is known", func() bool { return len(names()) == 2 })
	require.NoError(t, c.DeleteNode(ctx, second.GetName()))
	eventually(t, "the node is gone", func() bool { return len(names()) == 1 })
	require.NoError(t, c.DeleteRole(ctx, "auditor"))
	eventually(t, "the role is gone", func() bool {
		roles, err := known.Roles(ctx, []string{"auditor"})
		require.NoError(t, err)
		return len(roles) == 0
	})
	require.Empty(t, messages(hook))

	// Away, and changed in the meantime.
	c.stop()
	eventually(t, "it is said that the auth service is away", func() bool { return len(messages(hook)) == 1 })
	require.Contains(t, messages(hook)[0], "The auth service cannot be followed: ")
	require.False(t, known.Current())
	require.Equal(t, []string{"web"}, names())
	require.NoError(t, c.DeleteLock(ctx, lock.GetName()))
	require.NoError(t, c.DeleteNode(ctx, node.GetName()))
	c.start(t)
	eventually(t, "the auth service is followed again", func() bool { return was("connections") == 2 })
	require.Equal(t, 0, was("locks"))
	require.Equal(t, "The auth service is followed again.", messages(hook)[1])
	require.Equal(t, []string{"web"}, names(), "a node that was there has time to register again")
	stop()

	// After a restart without the auth service.
	c.stop()
	info, err := os.Stat(cfg.Path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	again, err := cache.New(cfg)
	require.NoError(t, err)
	require.NoError(t, again.Wait(ctx))
	keys, err = again.UserCAs(ctx)
	require.NoError(t, err)
	require.Len(t, keys, 2)
	locks, err := again.Locks(ctx)
	require.NoError(t, err)
	require.Empty(t, locks)
}

// TestProxies: a node knows of the cluster's proxies as they come, go, and are known
// while the auth service is away.
func TestProxies(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t)
	register := func(name string) types.Server {
		proxy, err := types.NewServer(uuid.NewString(), types.KindProxy, types.ServerSpecV2{Addr: name + ".example.com:3080", Hostname: name})
		require.NoError(t, err)
		proxy.SetExpiry(time.Now().Add(10 * time.Minute))
		require.NoError(t, c.UpsertProxy(ctx, proxy))
		return proxy
	}
	register("one")
	require.NoError(t, c.UpsertNode(ctx, newNode(t, "web")))
	log, _ := logrustest.NewNullLogger()
	clock := clockwork.NewFakeClockAt(time.Now())
	cfg := cache.Config{Client: c.client, Path: filepath.Join(t.TempDir(), "cache.json"), Proxies: true, Log: log, Clock: clock}
	known, stop := run(t, cfg)
	require.NoError(t, known.Wait(ctx))
	names := func(known *cache.Cache) map[string]bool {
		proxies, err := known.Proxies()
		require.NoError(t, err)
		names := map[string]bool{}
		for _, proxy := range proxies {
			names[proxy.GetHostname()] = true
		}
		return names
	}
	require.Equal(t, map[string]bool{"one": true}, names(known))
	nodes, err := known.Nodes(ctx)
	require.NoError(t, err)
	require.Empty(t, nodes, "it did not ask for them")
	register("two")
	eventually(t, "the second proxy is known", func() bool { return len(names(known)) == 2 })
	clock.Advance(11 * time.Minute)
	require.Empty(t, names(known), "their registrations have ended")

	c.stop()
	eventually(t, "the auth service is away", func() bool {
		clock.Advance(time.Second)
		return !known.Current()
	})
	require.Len(t, names(known), 2)
	stop()
	again, err := cache.New(cfg)
	require.NoError(t, err)
	require.Len(t, names(again), 2, "after a restart")
}

// TestNothingKnown holds that nobody is let in by what was never read.
func TestNothingKnown(t *testing.T) {
	c := newCluster(t)
	c.stop()
	log, hook := logrustest.NewNullLogger()
	path := filepath.Join(t.TempDir(), "cache.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"authorities":[]}`), 0o600))
	known, _ := run(t, cache.Config{Client: c.client, Path: path, Log: log})
	require.Contains(t, messages(hook)[0], path+" has no authorities")
	for name, ask := range map[string]func() error{
		"user authorities": func() error { _, err := known.UserCAs(t.Context()); return err },
		"host authorities": func() error { _, err := known.HostCAs(t.Context()); return err },
		"roles":            func() error { _, err := known.Roles(t.Context(), nil); return err },
		"locks":            func() error { _, err := known.Locks(t.Context()); return err },
		"nodes":            func() error { _, err := known.Nodes(t.Context()); return err },
	} {
		require.True(t, trace.IsConnectionProblem(ask()), name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, known.Wait(ctx), context.DeadlineExceeded)
	c.start(t)
	require.NoError(t, known.Wait(t.Context()))
}

// locksAlone is what a node that is locked may read.
type locksAlone struct {
	*client.Client
	locked *atomic.Bool
}

func (l locksAlone) GetRoles(ctx context.Context) ([]types.Role, error) {
	if l.locked.Load() {
		return nil, trace.AccessDenied("the node is locked by an administrator")
	}
	return l.Client.GetRoles(ctx)
}

// TestKnowsOfItsLock holds that a node that is refused all but the locks knows
// them, and goes on with the rest as it was.
func TestKnowsOfItsLock(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t)
	log, _ := logrustest.NewNullLogger()
	locked := &atomic.Bool{}
	told := make(chan int, 100)
	cfg := cache.Config{
		Client: locksAlone{c.client, locked}, Path: filepath.Join(t.TempDir(), "cache.json"), Log: log,
		OnLocks: func(_ context.Context, locks []types.Lock) { told <- len(locks) },
	}
	known, stop := run(t, cfg)
	require.NoError(t, known.Wait(ctx))
	require.Zero(t, <-told)
	stop()

	locked.Store(true)
	require.NoError(t, c.UpsertLock(ctx, newLock(t, "alice")))
	known, _ = run(t, cfg)
	require.Equal(t, 1, <-told)
	require.False(t, known.Current())
	roles, err := known.Roles(ctx, []string{"access"})
	require.NoError(t, err)
	require.Len(t, roles, 1)
	locked.Store(false)
	eventually(t, "followed again", known.Current)
}
