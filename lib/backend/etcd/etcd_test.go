// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/backendtest"
	"teleport-auditd/lib/backend/etcd/etcdtest"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) {
	suite(nil).Main(m)
}

// Each test of the suite has a prefix of its own in one etcd, and one that is
// the beginning of another's.
func TestBackend(t *testing.T) {
	suite(etcdtest.Start(t, 1).Peers()).Run(t)
}

func suite(peers []string) backendtest.Suite {
	return backendtest.Suite{
		New: func(t testing.TB) string { return strings.Join(peers, ",") + " /" + uuid.NewString() },
		Open: func(ctx context.Context, where string, clock clockwork.Clock) (backend.Backend, error) {
			peers, prefix, _ := strings.Cut(where, " ")
			return Open(ctx, Config{Peers: strings.Split(peers, ","), Prefix: prefix, Clock: clock, Log: discard()})
		},
	}
}

func discard() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

func open(t *testing.T, peers ...string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Peers: peers, Log: discard()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no peers", Config{}, "storage.peers"},
		{"no port", Config{Peers: []string{"http://etcd1"}}, `"http://etcd1"`},
		{"another scheme", Config{Peers: []string{"ftp://etcd1:2379"}}, "ftp"},
		{"a path", Config{Peers: []string{"http://etcd1:2379/v2"}}, "v2"},
		{"a password", Config{Peers: []string{"http://me:secret@etcd1:2379"}}, "storage.peers"},
		{"both schemes", Config{Peers: []string{"http://etcd1:2379", "https://etcd2:2379"}}, "mixes"},
		{"half a pair", Config{Peers: []string{"https://etcd1:2379"}, TLSCertFile: "c"}, "storage.tls_key_file"},
		{"files that would not be used", Config{Peers: []string{"http://etcd1:2379"}, TLSCAFile: "c"}, "storage.tls_"},
		{"relative prefix", Config{Peers: []string{"etcd1:2379"}, Prefix: "teleport"}, "storage.prefix"},
		{"no prefix", Config{Peers: []string{"etcd1:2379"}, Prefix: "/."}, "storage.prefix"},
		{"no such file", Config{Peers: []string{"https://etcd1:2379"}, TLSCAFile: "/none"}, "storage.tls_ca_file"},
		{"no such pair", Config{Peers: []string{"https://etcd1:2379"}, TLSCertFile: "/none", TLSKeyFile: "/none"}, "storage.tls_cert_file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(t.Context(), tc.cfg)
			require.True(t, trace.IsBadParameter(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "secret@")
		})
	}
	cfg := Config{Peers: []string{"etcd1:2379", "http://[::1]:2379/"}, Prefix: "/a//b/"}
	require.NoError(t, cfg.CheckAndSetDefaults())
	require.Equal(t, []string{"http://etcd1:2379", "http://[::1]:2379"}, cfg.Peers)
	require.Equal(t, "/a/b", cfg.Prefix)
}

func TestDeadCluster(t *testing.T) {
	ctx := t.Context()
	cluster := etcdtest.Start(t, 1)
	s := open(t, cluster.Peers()...)
	watcher, err := s.Watch(ctx)
	require.NoError(t, err)
	cluster.Kill(0)

	start := time.Now()
	var group sync.WaitGroup
	errs := make(chan error, 3)
	group.Go(func() { _, err := s.Get(ctx, "/a"); errs <- err })
	group.Go(func() { errs <- s.Create(ctx, backend.Item{Key: "/a"}) })
	group.Go(func() {
		_, err := Open(ctx, Config{Peers: cluster.Peers(), Log: discard()})
		errs <- err
	})
	for range 3 {
		err := <-errs
		require.True(t, trace.IsConnectionProblem(err), "%v", err)
		require.ErrorContains(t, err, cluster.Peers()[0])
		require.ErrorContains(t, err, "does not answer")
		require.NotContains(t, err.Error(), "\n")
	}
	require.Less(t, time.Since(start), refusedTimeout+2*tryTimeout, "a cluster that refuses connections is waited for")
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = s.Get(short, "/a")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	// When it is back all goes on, the watch too.
	cluster.Restart(0)
	_, err = s.Put(ctx, backend.Item{Key: "/back"})
	require.NoError(t, err)
	require.Equal(t, "/back", next(t, watcher).Item.Key)
}

// The leader dies, and in another run hangs, in the middle of writes by several
// clients: each write is made once, and told once.
func TestMemberFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail func(c *etcdtest.Cluster, member int)
	}{
		{"killed", (*etcdtest.Cluster).Kill},
		{"hangs", (*etcdtest.Cluster).Pause},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			cluster := etcdtest.Start(t, 3)
			clients := []*Store{open(t, cluster.Peers()...), open(t, cluster.Peers()...)}
			watcher, err := open(t, cluster.Peers()...).Watch(ctx, "/w/")
			require.NoError(t, err)
			const writers, writes = 6, 60
			var group sync.WaitGroup
			errs := make(chan error, writers)
			middle := make(chan struct{}, writers)
			for writer := range writers {
				group.Go(func() {
					errs <- writeAll(ctx, clients[writer%2], writer, writes, func() { middle <- struct{}{} })
				})
			}
			<-middle
			leader := cluster.Leader()
			start := time.Now()
			tc.fail(cluster, leader)
			group.Wait()
			t.Logf("the writes went on and ended %v after member %d failed", time.Since(start), leader)
			for range writers {
				require.NoError(t, <-errs)
			}
			checkAll(t, clients[0], watcher, writers, writes)
		})
	}
}

// writeAll creates items of one writer, and counts each up by compare-and-swap.
// half is called in the middle.
func writeAll(ctx context.Context, s *Store, writer, writes int, half func()) error {
	for i := range writes {
		if i == writes/2 {
			half()
		}
		key := fmt.Sprintf("/w/%d/%03d", writer, i)
		if err := s.Create(ctx, backend.Item{Key: key, Value: []byte("made")}); err != nil {
			return fmt.Errorf("creating %s: %w", key, err)
		}
		// Nobody else writes it: a swap that fails is one that was applied, and
		// whose answer was lost.
		item, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		item.Value = []byte("swapped")
		revision, err := s.CompareAndSwap(ctx, item)
		if err != nil {
			return fmt.Errorf("swapping %s: %w", key, err)
		}
		if i%2 == 1 {
			if err := s.CompareAndDelete(ctx, key, revision); err != nil {
				return fmt.Errorf("deleting %s: %w", key, err)
			}
		}
	}
	return nil
}

func checkAll(t *testing.T, s *Store, watcher backend.Watcher, writers, writes int) {
	t.Helper()
	items, err := s.Range(t.Context(), "/w/", "", 0)
	require.NoError(t, err)
	require.Len(t, items, writers*writes/2)
	told := map[string]string{}
	for range writers * (writes*2 + writes/2) {
		event := next(t, watcher)
		line := event.Type.String() + " " + string(event.Item.Value)
		if event.Type == backend.Delete {
			line = "delete"
		}
		told[event.Item.Key] += line + ","
	}
	for writer := range writers {
		for i := range writes {
			want := "put made,put swapped,"
			if i%2 == 1 {
				want += "delete,"
			}
			key := fmt.Sprintf("/w/%d/%03d", writer, i)
			require.Equal(t, want, told[key], key)
		}
	}
	select {
	case event := <-watcher.Events():
		require.Fail(t, "told twice", "%v %s", event.Type, event.Item.Key)
	case <-time.After(retryPause):
	}
}

// Connections break on the way back, when etcd has done what it was asked for.
func TestLostAnswers(t *testing.T) {
	ctx := t.Context()
	cluster := etcdtest.Start(t, 1)
	way := newUnreliable(t, strings.TrimPrefix(cluster.Peers()[0], "http://"))
	s := open(t, way.url)
	watcher, err := open(t, cluster.Peers()...).Watch(ctx, "/w/")
	require.NoError(t, err)
	const writers, writes = 4, 40
	way.loseOneOf(10)
	var group sync.WaitGroup
	errs := make(chan error, writers)
	for writer := range writers {
		group.Go(func() { errs <- writeAll(ctx, s, writer, writes, func() {}) })
	}
	group.Wait()
	way.loseOneOf(0)
	for range writers {
		require.NoError(t, <-errs)
	}
	checkAll(t, s, watcher, writers, writes)
	require.Greater(t, way.count(), 10)
	t.Logf("%d answers were lost", way.count())
}

// A write whose answer was lost says what it was at that time, whatever was
// written since.
func TestResent(t *testing.T) {
	ctx := t.Context()
	cluster := etcdtest.Start(t, 1)
	way := newUnreliable(t, strings.TrimPrefix(cluster.Peers()[0], "http://"))
	s, other := open(t, way.url), open(t, cluster.Peers()...)
	put := func(key string) string {
		revision, err := other.Put(ctx, backend.Item{Key: key, Value: []byte("other")})
		require.NoError(t, err)
		return revision
	}
	_, err := s.Put(ctx, backend.Item{Key: "/first"}) // a lease and a slot are there
	require.NoError(t, err)

	for _, tc := range []struct {
		name  string
		write func(key string) error
		setUp bool
	}{
		{name: "create", write: func(key string) error { return s.Create(ctx, backend.Item{Key: key}) }},
		{name: "put", write: func(key string) error { _, err := s.Put(ctx, backend.Item{Key: key}); return err }},
		{name: "delete", setUp: true, write: func(key string) error { return s.Delete(ctx, key) }},
		{name: "delete range", setUp: true, write: func(key string) error { return s.DeleteRange(ctx, key) }},
		{name: "expiring", write: func(key string) error {
			return s.Create(ctx, backend.Item{Key: key, Expires: time.Now().Add(time.Hour)})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key := "/" + tc.name
			if tc.setUp {
				put(key)
			}
			watcher, err := other.Watch(ctx, key)
			require.NoError(t, err)
			// The answer is held back until another client has written the key.
			held := way.hold()
			done := make(chan error, 1)
			go func() { done <- tc.write(key) }()
			if tc.name == "expiring" {
				// The lease's answer is the first, and only it is held.
				<-held
				way.drop()
			} else {
				first := next(t, watcher)
				require.Equal(t, tc.setUp, first.Type == backend.Delete)
				<-held
				put(key)
				require.Equal(t, "other", string(next(t, watcher).Item.Value))
				way.drop()
			}
			require.NoError(t, <-done)
			item, err := other.Get(ctx, key)
			require.NoError(t, err)
			if tc.name != "expiring" {
				require.Equal(t, "other", string(item.Value), "the write was made twice")
				select {
				case event := <-watcher.Events():
					require.Fail(t, "the write was made twice", "%v", event)
				case <-time.After(retryPause):
				}
			}
		})
	}

	t.Run("refused", func(t *testing.T) {
		put("/taken")
		held := way.hold()
		done := make(chan error, 1)
		go func() { done <- s.Create(ctx, backend.Item{Key: "/taken"}) }()
		<-held
		way.drop()
		err := <-done
		require.True(t, trace.IsAlreadyExists(err), "%v", err)
	})
}

// Slots outlive no lease, and a lease that somebody revoked is made up for.
func TestSlotsEnd(t *testing.T) {
	ctx := t.Context()
	s := open(t, etcdtest.Start(t, 1).Peers()...)
	revision, err := s.Put(ctx, backend.Item{Key: "/a"})
	require.NoError(t, err)
	for range 2 {
		_, err = s.client.Revoke(ctx, s.slots.lease)
		require.NoError(t, err)
		item := backend.Item{Key: "/a", Revision: revision}
		revision, err = s.CompareAndSwap(ctx, item)
		require.NoError(t, err)
	}
	answer, err := s.client.Get(ctx, s.slots.prefix, clientv3.WithPrefix())
	require.NoError(t, err)
	for _, kv := range answer.Kvs {
		require.NotZero(t, kv.Lease, "%s stays for ever", kv.Key)
	}
	// As when the lease is replaced in time.
	s.slots.renewed = s.slots.renewed.Add(-slotTTL / 2)
	before := s.slots.lease
	_, err = s.Put(ctx, backend.Item{Key: "/a"})
	require.NoError(t, err)
	require.NotEqual(t, before, s.slots.lease)
}

func TestCompaction(t *testing.T) {
	ctx := t.Context()
	s := open(t, etcdtest.Start(t, 1).Peers()...)
	var last string
	for i := range 10 {
		var err error
		last, err = s.Put(ctx, backend.Item{Key: "/a", Value: []byte(strconv.Itoa(i))})
		require.NoError(t, err)
	}
	revision, err := strconv.ParseInt(last, 10, 64)
	require.NoError(t, err)
	_, err = s.client.Compact(ctx, revision)
	require.NoError(t, err)

	// A stream that has to go on from before the compaction.
	watcher, err := s.Watch(ctx)
	require.NoError(t, err)
	s.watch.mu.Lock()
	s.watch.stop()
	stream, stop := context.WithCancel(ctx)
	s.watch.stop, s.watch.last = stop, 1
	s.watch.mu.Unlock()
	s.watch.run(stream)
	_, told := <-watcher.Events()
	require.False(t, told)
	require.True(t, trace.IsLimitExceeded(watcher.Err()), "%v", watcher.Err())
	require.ErrorContains(t, watcher.Err(), "watch again")

	// Who watches again is told of what follows.
	watcher, err = s.Watch(ctx)
	require.NoError(t, err)
	_, err = s.Put(ctx, backend.Item{Key: "/b"})
	require.NoError(t, err)
	require.Equal(t, "/b", next(t, watcher).Item.Key)
}

func TestForeignValue(t *testing.T) {
	ctx := t.Context()
	s := open(t, etcdtest.Start(t, 1).Peers()...)
	watcher, err := s.Watch(ctx)
	require.NoError(t, err)
	_, err = s.client.Put(ctx, "/teleport/items/a", "by hand")
	require.NoError(t, err)
	_, err = s.client.Put(ctx, "/teleport/itemsandmore", "") // with an empty value
	require.NoError(t, err)
	for _, key := range []string{"/a", "andmore"} {
		_, err = s.Get(ctx, key)
		require.True(t, trace.IsBadParameter(err), "%v", err)
		require.ErrorContains(t, err, "etcdctl")
	}
	_, told := <-watcher.Events()
	require.False(t, told)
	require.True(t, trace.IsBadParameter(watcher.Err()), "%v", watcher.Err())
	require.True(t, trace.IsAlreadyExists(s.Create(ctx, backend.Item{Key: "/a"})))
	require.NoError(t, s.Delete(ctx, "/a"))
}

func TestEtcdIsFull(t *testing.T) {
	ctx := t.Context()
	s := open(t, etcdtest.Start(t, 1, etcdtest.WithArgs("--quota-backend-bytes", "2000000")).Peers()...)
	var err error
	// etcd looks at its size from time to time.
	for i, deadline := 0, time.Now().Add(patience); err == nil && time.Now().Before(deadline); i++ {
		_, err = s.Put(ctx, backend.Item{Key: fmt.Sprintf("/%d", i), Value: make([]byte, 500_000)})
	}
	require.True(t, trace.IsLimitExceeded(err), "%v", err)
	require.ErrorContains(t, err, "--auto-compaction-retention")
	_, err = s.Get(ctx, "/0")
	require.NoError(t, err)
}

func next(t *testing.T, watcher backend.Watcher) backend.Event {
	t.Helper()
	select {
	case event, ok := <-watcher.Events():
		require.True(t, ok, "the watcher has ended: %v", watcher.Err())
		return event
	case <-time.After(patience):
		require.Fail(t, "nothing is told")
		return backend.Event{}
	}
}
