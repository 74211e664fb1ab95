// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apiclient "github.com/gravitational/teleport/api/client"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/client"
	"teleport-auditd/lib/client/clienttest"
)

func newCluster(t *testing.T, cfg clienttest.Config) *clienttest.Cluster {
	t.Helper()
	cluster, err := clienttest.New(cfg)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster
}

func login(t *testing.T, cluster *clienttest.Cluster) *client.Login {
	t.Helper()
	web := client.WebClient{Addr: cluster.WebAddr, Insecure: true}
	info, err := web.Ping(context.Background())
	require.NoError(t, err)
	got, err := web.Login(context.Background(), info, client.Request{User: "alice", Password: clienttest.Password, TTL: time.Hour})
	require.NoError(t, err)
	return got
}

func newStore(t *testing.T, clock clockwork.Clock) *client.Store {
	t.Helper()
	store, err := client.NewStore(filepath.Join(t.TempDir(), "tsh"), clock)
	require.NoError(t, err)
	return store
}

func TestStoreOfSeveralClusters(t *testing.T) {
	clock := clockwork.NewFakeClockAt(time.Now())
	store := newStore(t, clock)
	_, err := store.Load("")
	require.True(t, trace.IsNotFound(err))
	require.EqualError(t, err, "not logged in: tsh login --proxy=HOST")

	first := login(t, newCluster(t, clienttest.Config{Name: "one.example.com"}))
	second := login(t, newCluster(t, clienttest.Config{Name: "two.example.com"}))
	// Both are at 127.0.0.1, and a profile is a host's.
	second.WebAddr = strings.Replace(second.WebAddr, "127.0.0.1", "localhost", 1)
	one, err := store.Save(first)
	require.NoError(t, err)
	_, err = store.Save(second)
	require.NoError(t, err)

	current, err := store.LoadValid("")
	require.NoError(t, err)
	require.Equal(t, "two.example.com", current.SiteName)
	byCluster, err := store.LoadCluster("one.example.com")
	require.NoError(t, err)
	require.Equal(t, one.WebProxyAddr, byCluster.WebProxyAddr)
	byProxy, err := store.LoadValid("127.0.0.1")
	require.NoError(t, err)
	require.Equal(t, "one.example.com", byProxy.SiteName)
	_, err = store.LoadCluster("three.example.com")
	require.True(t, trace.IsNotFound(err))

	// Each cluster's hosts are believed for that cluster alone.
	for _, p := range []*client.Profile{byProxy, current} {
		authorities, err := p.HostCAs()
		require.NoError(t, err)
		require.Len(t, authorities, 1)
	}
	profiles, hasCurrent, err := store.List()
	require.NoError(t, err)
	require.True(t, hasCurrent)
	require.Len(t, profiles, 2)
	require.Equal(t, "two.example.com", profiles[0].SiteName)

	// A proxy that has become another cluster's no longer vouches for the old.
	third := login(t, newCluster(t, clienttest.Config{Name: "three.example.com"}))
	_, err = store.Save(third)
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(store.Dir(), "known_hosts"))
	require.NoError(t, err)
	require.NotContains(t, string(text), "one.example.com")
	require.Contains(t, string(text), "@cert-authority localhost,two.example.com,*.two.example.com ssh-ed25519 ")

	require.NoError(t, store.Remove(current))
	text, err = os.ReadFile(filepath.Join(store.Dir(), "known_hosts"))
	require.NoError(t, err)
	require.NotContains(t, string(text), "two.example.com")
	require.Contains(t, string(text), "three.example.com")

	clock.Advance(2 * time.Hour)
	_, err = store.LoadValid("127.0.0.1")
	require.True(t, trace.IsNotFound(err))
	require.Contains(t, err.Error(), "not logged in: tsh login --proxy=127.0.0.1:")
}

// TestForeignProxy: whatever cluster a proxy says that it is of, whom the login at
// another one trusts is not its to say.
func TestForeignProxy(t *testing.T) {
	store := newStore(t, clockwork.NewRealClock())
	own := login(t, newCluster(t, clienttest.Config{Name: "one.example.com"}))
	saved, err := store.Save(own)
	require.NoError(t, err)
	trusted := func() {
		t.Helper()
		p, err := store.Load("127.0.0.1")
		require.NoError(t, err)
		authorities, err := p.HostCAs()
		require.NoError(t, err)
		require.Equal(t, own.SSHHostCAs, authorities)
	}
	for _, name := range []string{"one.example.com", saved.Name()} {
		foreign := login(t, newCluster(t, clienttest.Config{Name: name}))
		foreign.WebAddr = strings.Replace(foreign.WebAddr, "127.0.0.1", "localhost", 1)
		p, err := store.Save(foreign)
		require.NoError(t, err)
		trusted()
		authorities, err := p.HostCAs()
		require.NoError(t, err)
		require.Equal(t, foreign.SSHHostCAs, authorities)
		require.NoError(t, store.Remove(p))
		trusted()
		_, err = p.HostCAs()
		require.True(t, trace.IsNotFound(err), "%v", err)
	}
}

// TestStoreKeepsOthersLines: the file may be the user's for other hosts too.
func TestStoreKeepsOthersLines(t *testing.T) {
	store := newStore(t, clockwork.NewRealClock())
	require.NoError(t, os.MkdirAll(store.Dir(), 0o755))
	path := filepath.Join(store.Dir(), "known_hosts")
	const line = "# mine\nhost ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBadValue"
	require.NoError(t, os.WriteFile(path, []byte(line), 0o644))
	p, err := store.Save(login(t, newCluster(t, clienttest.Config{})))
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), line+"\n@cert-authority "), "%s", text)
	_, err = p.HostCAs()
	require.NoError(t, err)
	info, err := os.Stat(store.Dir())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

// TestConcurrentSaves: of several logins at once, one is kept whole.
func TestConcurrentSaves(t *testing.T) {
	cluster := newCluster(t, clienttest.Config{})
	store := newStore(t, clockwork.NewRealClock())
	_, err := store.Save(login(t, cluster))
	require.NoError(t, err)
	var writers sync.WaitGroup
	for range 4 {
		got := login(t, cluster)
		writers.Go(func() {
			for range 10 {
				if _, err := store.Save(got); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	_, err = apiclient.LoadProfile(store.Dir(), "").TLSConfig()
	require.NoError(t, err)
	p, err := store.LoadValid("")
	require.NoError(t, err)
	_, err = p.Signer()
	require.NoError(t, err)
	leftovers, err := filepath.Glob(filepath.Join(store.Dir(), "keys", ".new-*"))
	require.NoError(t, err)
	require.Empty(t, leftovers)
}

// TestHostileProfile: names lead nowhere but into the folder.
func TestHostileProfile(t *testing.T) {
	store := newStore(t, clockwork.NewRealClock())
	for _, change := range []func(*client.Login){
		func(l *client.Login) { l.User = "../../alice" },
		func(l *client.Login) { l.User = "cas" },
		func(l *client.Login) { l.User = "al\nice" },
		func(l *client.Login) { l.Cluster = "*" },
		func(l *client.Login) { l.Cluster = "a,b" },
		func(l *client.Login) { l.Cluster = "../a" },
		func(l *client.Login) { l.WebAddr = "../a:3080" },
	} {
		hostile := &client.Login{WebAddr: "proxy:3080", SSHAddr: "proxy:3023", User: "alice", Cluster: "example.com"}
		change(hostile)
		_, err := store.Save(hostile)
		require.True(t, trace.IsBadParameter(err), "%+v: %v", hostile, err)
	}
	require.NoError(t, os.MkdirAll(store.Dir(), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(store.Dir(), "proxy.yaml"), []byte("web_proxy_addr: proxy:3080\nuser: ../../x\ncluster: c\n"), 0o600))
	_, err := store.Load("proxy")
	require.True(t, trace.IsBadParameter(err), "%v", err)
}
