// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package backendtest holds every store to the contracts of package backend. The
// tests of a store call Main from TestMain, which makes the test program one of
// several processes where that is asked for, and Run.
package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
)

// whereEnv makes a test program one of several processes that use the store that
// it names.
const whereEnv = "BACKENDTEST_WHERE"

// patience is how long a test waits for what is to come.
const patience = 30 * time.Second

// Suite says how to get at a store.
type Suite struct {
	// New makes room for a store of one test, which is empty, and returns what
	// Open takes, also in another process.
	New func(t testing.TB) (where string)
	// Open opens the store as one more client.
	Open func(ctx context.Context, where string, clock clockwork.Clock) (backend.Backend, error)
}

// Main runs the tests, or in a process that Run has started, its part of them.
func (s Suite) Main(m *testing.M) {
	where := os.Getenv(whereEnv)
	if where == "" {
		os.Exit(m.Run())
	}
	if err := s.process(where); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Run runs the tests.
func (s Suite) Run(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *store)
	}{
		{"items", testItems},
		{"bounds", testBounds},
		{"create all or none", testCreate},
		{"range", testRange},
		{"long values", testLongValues},
		{"expiry", testExpiry},
		{"expiry is told", testExpiryEvents},
		{"races", testRaces},
		{"processes", testProcesses},
		{"watch", testWatch},
		{"watch under load", testWatchUnderLoad},
		{"watchers end", testWatchersEnd},
		{"cancelled", testCancelled},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, &store{suite: s, where: s.New(t)})
		})
	}
}

// store is that of one test.
type store struct {
	suite Suite
	where string
}

func (s *store) open(t *testing.T, clock clockwork.Clock) backend.Backend {
	t.Helper()
	b, err := s.suite.Open(t.Context(), s.where, clock)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func (s *store) openReal(t *testing.T) backend.Backend {
	t.Helper()
	return s.open(t, clockwork.NewRealClock())
}

func put(t *testing.T, b backend.Backend, key, value string) (revision string) {
	t.Helper()
	revision, err := b.Put(t.Context(), backend.Item{Key: key, Value: []byte(value)})
	require.NoError(t, err)
	return revision
}

func keys(items []backend.Item) []string {
	keys := []string{}
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	return keys
}

func testItems(t *testing.T, s *store) {
	ctx := t.Context()
	b, other := s.openReal(t), s.openReal(t)

	_, err := b.Get(ctx, "/a")
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, `"/a"`)
	require.True(t, trace.IsNotFound(b.Delete(ctx, "/a")))
	require.NoError(t, b.DeleteRange(ctx, "/a"))

	first := put(t, b, "/a", "one")
	got, err := other.Get(ctx, "/a")
	require.NoError(t, err)
	require.Equal(t, backend.Item{Key: "/a", Value: []byte("one"), Revision: first}, got)

	second := put(t, other, "/a", "one")
	require.NotEqual(t, first, second, "a write of the same value is a write")
	_, err = b.CompareAndSwap(ctx, backend.Item{Key: "/a", Value: []byte("two"), Revision: first})
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	third, err := b.CompareAndSwap(ctx, backend.Item{Key: "/a", Value: []byte("two"), Revision: second})
	require.NoError(t, err)
	got, err = other.Get(ctx, "/a")
	require.NoError(t, err)
	require.Equal(t, backend.Item{Key: "/a", Value: []byte("two"), Revision: third}, got)

	err = b.CompareAndDelete(ctx, "/a", second)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	require.NoError(t, b.CompareAndDelete(ctx, "/a", third))
	_, err = b.Get(ctx, "/a")
	require.True(t, trace.IsNotFound(err), "%v", err)

	// What is gone compares as changed, with any revision.
	for _, revision := range []string{third, "", "0", "-1", "nonsense", "9999999999999999999999"} {
		_, err = b.CompareAndSwap(ctx, backend.Item{Key: "/a", Revision: revision})
		require.True(t, trace.IsCompareFailed(err), "%q: %v", revision, err)
		err = b.CompareAndDelete(ctx, "/a", revision)
		require.True(t, trace.IsCompareFailed(err), "%q: %v", revision, err)
	}
	fourth := put(t, b, "/a", "two")
	require.NotEqual(t, third, fourth, "an item that was deleted and made again has its old revision")
	_, err = b.CompareAndSwap(ctx, backend.Item{Key: "/a", Revision: third})
	require.True(t, trace.IsCompareFailed(err), "%v", err)

	// An empty value is a value.
	for _, empty := range [][]byte{nil, {}} {
		_, err = b.Put(ctx, backend.Item{Key: "/empty", Value: empty})
		require.NoError(t, err)
		got, err = b.Get(ctx, "/empty")
		require.NoError(t, err)
		require.Nil(t, got.Value)
	}
	require.NoError(t, b.Delete(ctx, "/empty"))
	require.True(t, trace.IsNotFound(b.Delete(ctx, "/empty")))
}

func testBounds(t *testing.T, s *store) {
	ctx := t.Context()
	b := s.openReal(t)
	var tooMany []backend.Item
	for i := range backend.MaxItems + 1 {
		tooMany = append(tooMany, backend.Item{Key: fmt.Sprintf("/%d", i)})
	}
	for _, tc := range []struct {
		name  string
		items []backend.Item
		is    func(error) bool
	}{
		{"no items", nil, trace.IsBadParameter},
		{"no key", []backend.Item{{Key: ""}}, trace.IsBadParameter},
		{"a key twice", []backend.Item{{Key: "/a"}, {Key: "/a"}}, trace.IsBadParameter},
		{"too many items", tooMany, trace.IsLimitExceeded},
		{"a long key", []backend.Item{{Key: strings.Repeat("k", backend.MaxKeySize+1)}}, trace.IsLimitExceeded},
		{"a long value", []backend.Item{{Key: "/a", Value: make([]byte, backend.MaxValueSize+1)}}, trace.IsLimitExceeded},
		{"long values together", []backend.Item{{Key: "/a", Value: make([]byte, backend.MaxValueSize)}, {Key: "/b", Value: []byte("x")}}, trace.IsLimitExceeded},
	} {
		err := b.Create(ctx, tc.items...)
		require.True(t, tc.is(err), "%s: %v", tc.name, err)
		if len(tc.items) == 1 {
			_, err = b.Put(ctx, tc.items[0])
			require.True(t, tc.is(err), "%s: %v", tc.name, err)
			_, err = b.CompareAndSwap(ctx, tc.items[0])
			require.True(t, tc.is(err), "%s: %v", tc.name, err)
		}
	}
	items, err := b.Range(ctx, "", "", 0)
	require.NoError(t, err)
	require.Empty(t, items)
	require.NoError(t, b.Create(ctx, tooMany[1:]...))
}

func testCreate(t *testing.T, s *store) {
	ctx := t.Context()
	b := s.openReal(t)
	require.NoError(t, b.Create(ctx, backend.Item{Key: "/2"}, backend.Item{Key: "/1", Value: []byte("one")}))
	for _, items := range [][]backend.Item{
		{{Key: "/0"}, {Key: "/1"}},
		{{Key: "/1"}, {Key: "/3"}},
	} {
		err := b.Create(ctx, items...)
		require.True(t, trace.IsAlreadyExists(err), "%v", err)
		require.ErrorContains(t, err, `"/1"`)
	}
	items, err := b.Range(ctx, "/", "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"/1", "/2"}, keys(items), "a Create that failed has written a part")
	require.Equal(t, "one", string(items[0].Value))
	_, err = b.CompareAndSwap(ctx, items[0])
	require.NoError(t, err, "the revision of what was created is not that which is read")
}

func testRange(t *testing.T, s *store) {
	ctx := t.Context()
	b := s.openReal(t)
	all := []string{
		"/a", "/a/", "/a/\x00", "/a/\x00\x00", "/a/%", "/a/'; --", "/a/1", "/a/10", "/a/1\xff", "/a/2", "/a/_", "/a/é",
		"/a/\xff", "/a/\xff\xff", "/a0", "/aa", "/b", "\xff", "\xff\xff", "A",
	}
	slices.Sort(all)
	for _, key := range all {
		put(t, b, key, "value of "+key)
	}
	for _, prefix := range []string{"", "/", "/a", "/a/", "/a/\x00", "/a/1", "/a/\xff", "\xff", "\xff\xff", "/a/%", "/a/_", "/none", "\xff\xff\xff"} {
		want := []string{}
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		items, err := b.Range(ctx, prefix, "", 0)
		require.NoError(t, err)
		require.Equal(t, want, keys(items), "prefix %q", prefix)
		for _, item := range items {
			require.Equal(t, "value of "+item.Key, string(item.Value))
			require.NotEmpty(t, item.Revision)
		}
		for _, limit := range []int{1, 2, 3, len(all)} {
			got, after := []string{}, ""
			for {
				items, err := b.Range(ctx, prefix, after, limit)
				require.NoError(t, err)
				require.LessOrEqual(t, len(items), limit)
				got = append(got, keys(items)...)
				if len(items) < limit {
					break
				}
				after = items[len(items)-1].Key
			}
			require.Equal(t, want, got, "prefix %q by %d", prefix, limit)
		}
	}
	// after need not be a key, nor have the prefix.
	for _, tc := range []struct {
		after string
		want  []string
	}{
		{"/a/1", []string{"/a/10", "/a/1\xff"}},
		{"/a/1\x00", []string{"/a/10", "/a/1\xff"}},
		{"", []string{"/a/1", "/a/10", "/a/1\xff"}},
		{"/", []string{"/a/1", "/a/10", "/a/1\xff"}},
		{"/b", []string{}},
		{"\xff\xff\xff", []string{}},
	} {
		items, err := b.Range(ctx, "/a/1", tc.after, 0)
		require.NoError(t, err)
		require.Equal(t, tc.want, keys(items), "after %q", tc.after)
	}

	// More than stores send at once, and what expires in between.
	for i := 0; i < 600; i += backend.MaxItems {
		var items []backend.Item
		for j := range backend.MaxItems {
			items = append(items, backend.Item{Key: fmt.Sprintf("/many/%04d", i+j)})
		}
		require.NoError(t, b.Create(ctx, items...))
	}
	items, err := b.Range(ctx, "/many/", "", 0)
	require.NoError(t, err)
	require.Len(t, items, 640)
	require.True(t, slices.IsSorted(keys(items)))
	items, err = b.Range(ctx, "/many/", "/many/0001", 300)
	require.NoError(t, err)
	require.Len(t, items, 300)
	require.Equal(t, "/many/0301", items[299].Key)

	require.NoError(t, b.DeleteRange(ctx, "/a/1"))
	require.NoError(t, b.DeleteRange(ctx, "\xff"))
	require.NoError(t, b.DeleteRange(ctx, "/many/"))
	var want []string
	for _, key := range all {
		if !strings.HasPrefix(key, "/a/1") && !strings.HasPrefix(key, "\xff") {
			want = append(want, key)
		}
	}
	items, err = b.Range(ctx, "", "", 0)
	require.NoError(t, err)
	require.Equal(t, want, keys(items))
	require.NoError(t, b.DeleteRange(ctx, ""))
	items, err = b.Range(ctx, "", "", 0)
	require.NoError(t, err)
	require.Empty(t, items)
}

func testLongValues(t *testing.T, s *store) {
	ctx := t.Context()
	b := s.openReal(t)
	watcher, err := b.Watch(ctx)
	require.NoError(t, err)
	value := bytes.Repeat([]byte("\x00\xff0123456789abcd"), backend.MaxValueSize/16)
	key := strings.Repeat("k", backend.MaxKeySize)
	require.NoError(t, b.Create(ctx, backend.Item{Key: key, Value: value}))
	for range 4 {
		_, err := b.Put(ctx, backend.Item{Key: key, Value: value})
		require.NoError(t, err)
	}
	got, err := b.Get(ctx, key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(value, got.Value))
	for range 5 {
		event := next(t, watcher)
		require.True(t, bytes.Equal(value, event.Item.Value))
	}
	// As many as fit, with keys that are as long as they may be.
	var items []backend.Item
	for i := range backend.MaxItems {
		items = append(items, backend.Item{
			Key:   fmt.Sprintf("%0*d", backend.MaxKeySize, i),
			Value: value[:backend.MaxValueSize/backend.MaxItems],
		})
	}
	require.NoError(t, b.Create(ctx, items...))
}

func testExpiry(t *testing.T, s *store) {
	ctx := t.Context()
	// The clock is ahead of the real one, so that nothing but it decides.
	clock := clockwork.NewFakeClockAt(time.Now().Add(time.Hour))
	b := s.open(t, clock)
	expires := clock.Now().Add(time.Minute + time.Nanosecond).UTC()
	short := backend.Item{Key: "/n/short", Value: []byte("s"), Expires: expires}
	var err error
	short.Revision, err = b.Put(ctx, short)
	require.NoError(t, err)
	put(t, b, "/n/forever", "f")
	renewed, err := b.Put(ctx, backend.Item{Key: "/n/renewed", Expires: expires})
	require.NoError(t, err)
	require.NoError(t, b.Create(ctx, backend.Item{Key: "/n/created", Expires: expires}))

	clock.Advance(time.Minute)
	got, err := b.Get(ctx, "/n/short")
	require.NoError(t, err)
	require.Equal(t, short, got)
	require.True(t, trace.IsAlreadyExists(b.Create(ctx, backend.Item{Key: "/n/short"})))
	_, err = b.CompareAndSwap(ctx, backend.Item{Key: "/n/renewed", Expires: expires.Add(time.Minute), Revision: renewed})
	require.NoError(t, err)

	clock.Advance(time.Nanosecond)
	_, err = b.Get(ctx, "/n/short")
	require.True(t, trace.IsNotFound(err), "%v", err)
	items, err := b.Range(ctx, "/n/", "", 1)
	require.NoError(t, err)
	require.Equal(t, []string{"/n/forever"}, keys(items), "what has expired counts for the limit")
	items, err = b.Range(ctx, "/n/", "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"/n/forever", "/n/renewed"}, keys(items))
	_, err = b.CompareAndSwap(ctx, short)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	err = b.CompareAndDelete(ctx, short.Key, short.Revision)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	err = b.Delete(ctx, "/n/created")
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.NoError(t, b.Create(ctx, backend.Item{Key: "/n/new"}, short), "an expired item holds its key")

	// A write without an expiry takes the old one away, and one that is past
	// when it is written is as good as none.
	put(t, b, "/n/renewed", "forever")
	clock.Advance(24 * time.Hour)
	got, err = b.Get(ctx, "/n/renewed")
	require.NoError(t, err)
	require.True(t, got.Expires.IsZero())
	_, err = b.Put(ctx, backend.Item{Key: "/n/past", Expires: clock.Now().Add(-time.Hour)})
	require.NoError(t, err)
	_, err = b.Get(ctx, "/n/past")
	require.True(t, trace.IsNotFound(err), "%v", err)
}

func testExpiryEvents(t *testing.T, s *store) {
	ctx := t.Context()
	writer, reader := s.openReal(t), s.openReal(t)
	watcher, err := reader.Watch(ctx, "/n/")
	require.NoError(t, err)
	start := time.Now()
	_, err = writer.Put(ctx, backend.Item{Key: "/n/a", Expires: start.Add(time.Second)})
	require.NoError(t, err)
	require.Equal(t, backend.Put, next(t, watcher).Type)
	require.Equal(t, backend.Event{Type: backend.Delete, Item: backend.Item{Key: "/n/a"}}, next(t, watcher))
	require.GreaterOrEqual(t, time.Since(start), time.Second)
	require.Less(t, time.Since(start), 10*time.Second)
}

func testRaces(t *testing.T, s *store) {
	ctx := t.Context()
	clients := []backend.Backend{s.openReal(t), s.openReal(t), s.openReal(t)}
	const racers, rounds = 12, 10
	var mu sync.Mutex
	winners := map[int]int{}
	var group sync.WaitGroup
	errs := make(chan error, racers)
	for racer := range racers {
		group.Go(func() {
			b := clients[racer%len(clients)]
			errs <- func() error {
				for round := range rounds {
					err := b.Create(ctx,
						backend.Item{Key: fmt.Sprintf("/%d/a", round), Value: []byte(strconv.Itoa(racer))},
						backend.Item{Key: fmt.Sprintf("/%d/b", round), Value: []byte(strconv.Itoa(racer))})
					if err == nil {
						mu.Lock()
						winners[round]++
						mu.Unlock()
					} else if !trace.IsAlreadyExists(err) {
						return err
					}
					if err := increment(ctx, b, "/counter"); err != nil {
						return err
					}
				}
				return nil
			}()
		})
	}
	group.Wait()
	for range racers {
		require.NoError(t, <-errs)
	}
	for round := range rounds {
		require.Equal(t, 1, winners[round], "round %d", round)
		items, err := clients[0].Range(ctx, fmt.Sprintf("/%d/", round), "", 0)
		require.NoError(t, err)
		require.Len(t, items, 2)
		require.Equal(t, items[0].Value, items[1].Value, "two winners")
	}
	counter, err := clients[0].Get(ctx, "/counter")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(racers*rounds), string(counter.Value))
}

// increment counts one up by compare-and-swap.
func increment(ctx context.Context, b backend.Backend, key string) error {
	for {
		item, err := b.Get(ctx, key)
		if trace.IsNotFound(err) {
			err := b.Create(ctx, backend.Item{Key: key, Value: []byte("1")})
			if trace.IsAlreadyExists(err) {
				continue
			}
			return err
		}
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(item.Value))
		if err != nil {
			return err
		}
		item.Value = []byte(strconv.Itoa(n + 1))
		if _, err := b.CompareAndSwap(ctx, item); !trace.IsCompareFailed(err) {
			return err
		}
	}
}

const (
	processes    = 4
	perProcess   = 20
	processCount = "/counter"
)

// process is what each of several processes does: it says who was the first to
// claim the store, counts, and writes items of its own among those of the others.
func (s Suite) process(where string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	b, err := s.Open(ctx, where, clockwork.NewRealClock())
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // the process ends
	pid := strconv.Itoa(os.Getpid())
	err = b.Create(ctx, backend.Item{Key: "/first/a", Value: []byte(pid)}, backend.Item{Key: "/first/b", Value: []byte(pid)})
	if err != nil && !trace.IsAlreadyExists(err) {
		return err
	}
	for i := range perProcess {
		if _, err := b.Put(ctx, backend.Item{Key: fmt.Sprintf("/items/%s/%d", pid, i), Value: []byte(pid)}); err != nil {
			return err
		}
		if err := increment(ctx, b, processCount); err != nil {
			return err
		}
	}
	item, err := b.Get(ctx, "/first/a")
	if err != nil {
		return err
	}
	fmt.Println(string(item.Value))
	return nil
}

func testProcesses(t *testing.T, s *store) {
	b := s.openReal(t)
	watcher, err := b.Watch(t.Context(), "/items/")
	require.NoError(t, err)
	outputs := make([]bytes.Buffer, processes)
	var started []*exec.Cmd
	for i := range processes {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), whereEnv+"="+s.where)
		cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
		require.NoError(t, cmd.Start())
		started = append(started, cmd)
	}
	for i, cmd := range started {
		require.NoError(t, cmd.Wait(), outputs[i].String())
	}
	for i := range outputs {
		require.Equal(t, outputs[0].String(), outputs[i].String(), "the processes disagree on who was first")
	}
	first, err := b.Range(t.Context(), "/first/", "", 0)
	require.NoError(t, err)
	require.Len(t, first, 2)
	require.Equal(t, first[0].Value, first[1].Value)
	require.Equal(t, strings.TrimSpace(outputs[0].String()), string(first[0].Value))
	counter, err := b.Get(t.Context(), processCount)
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(processes*perProcess), string(counter.Value))
	items, err := b.Range(t.Context(), "/items/", "", 0)
	require.NoError(t, err)
	require.Len(t, items, processes*perProcess)

	// What other processes write is told, each one's in its order.
	told := map[string]int{}
	for range items {
		event := next(t, watcher)
		pid := string(event.Item.Value)
		require.Equal(t, fmt.Sprintf("/items/%s/%d", pid, told[pid]), event.Item.Key)
		told[pid]++
	}
}

func testWatch(t *testing.T, s *store) {
	ctx := t.Context()
	writer, reader := s.openReal(t), s.openReal(t)
	put(t, writer, "/a/before", "")
	var watchers []backend.Watcher
	for _, prefixes := range [][]string{nil, {"/a/"}, {"/a/1", "/b", "/a/"}} {
		watcher, err := reader.Watch(ctx, prefixes...)
		require.NoError(t, err)
		watchers = append(watchers, watcher)
	}
	own, err := writer.Watch(ctx, "/none/", "/c")
	require.NoError(t, err)

	expires := time.Now().Add(time.Hour).UTC()
	require.NoError(t, writer.Create(ctx,
		backend.Item{Key: "/a/1", Value: []byte("one"), Expires: expires},
		backend.Item{Key: "/b", Value: []byte("bee")}))
	_, err = writer.CompareAndSwap(ctx, backend.Item{Key: "/a/before", Revision: "1x"})
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	require.True(t, trace.IsAlreadyExists(writer.Create(ctx, backend.Item{Key: "/a/0"}, backend.Item{Key: "/b"})))
	item, err := writer.Get(ctx, "/a/1")
	require.NoError(t, err)
	item.Value = []byte("uno")
	swapped, err := writer.CompareAndSwap(ctx, item)
	require.NoError(t, err)
	put(t, writer, "/c", "")
	require.NoError(t, writer.CompareAndDelete(ctx, "/a/1", swapped))
	require.NoError(t, writer.Delete(ctx, "/b"))
	put(t, writer, "/a/2", "two")
	require.NoError(t, writer.DeleteRange(ctx, "/a/"))

	want := []string{
		"put /a/1 one", "put /b bee", "put /a/1 uno", "put /c ", "delete /a/1 ", "delete /b ", "put /a/2 two",
		"delete /a/2 ", "delete /a/before ",
	}
	for i, watcher := range watchers {
		for _, line := range want {
			if i == 1 && strings.Contains(line, " /b ") || i > 0 && strings.Contains(line, " /c ") {
				continue
			}
			event := next(t, watcher)
			require.Equal(t, line, fmt.Sprintf("%v %s %s", event.Type, event.Item.Key, event.Item.Value), "watcher %d", i)
			switch {
			case event.Type == backend.Delete:
				require.Equal(t, backend.Item{Key: event.Item.Key}, event.Item)
			case line == "put /a/1 uno":
				require.Equal(t, backend.Item{Key: "/a/1", Value: []byte("uno"), Expires: expires, Revision: swapped}, event.Item)
			}
		}
		select {
		case event := <-watcher.Events():
			t.Fatalf("watcher %d is told of %v", i, event)
		default:
		}
		require.NoError(t, watcher.Err())
	}
	require.Equal(t, "/c", next(t, own).Item.Key)

	// A watcher that comes later is told of what follows alone.
	late, err := reader.Watch(ctx)
	require.NoError(t, err)
	put(t, writer, "/late", "")
	require.Equal(t, "/late", next(t, late).Item.Key)
}

func testWatchUnderLoad(t *testing.T, s *store) {
	ctx := t.Context()
	clients := []backend.Backend{s.openReal(t), s.openReal(t)}
	reader := s.openReal(t)
	var watchers []backend.Watcher
	for range 3 {
		watcher, err := reader.Watch(ctx, "/load/", "/end")
		require.NoError(t, err)
		watchers = append(watchers, watcher)
	}
	const writers, writes, shared = 6, 100, 5
	var group sync.WaitGroup
	errs := make(chan error, writers)
	for writer := range writers {
		group.Go(func() {
			errs <- func() error {
				b := clients[writer%len(clients)]
				for i := range writes {
					key := fmt.Sprintf("/load/%d", i%shared) // all write the same
					if i%7 == 6 {
						if err := b.Delete(ctx, key); err != nil && !trace.IsNotFound(err) {
							return err
						}
						continue
					}
					if _, err := b.Put(ctx, backend.Item{Key: key, Value: fmt.Appendf(nil, "%d %d", writer, i)}); err != nil {
						return err
					}
				}
				return nil
			}()
		})
	}
	group.Wait()
	for range writers {
		require.NoError(t, <-errs)
	}
	put(t, clients[0], "/end", "")
	want, err := reader.Range(ctx, "/load/", "", 0)
	require.NoError(t, err)

	var first []backend.Event
	for n, watcher := range watchers {
		copied := map[string]backend.Item{}
		last := map[string]int{}
		var events []backend.Event
		for {
			event := next(t, watcher)
			if event.Item.Key == "/end" {
				break
			}
			events = append(events, event)
			if event.Type == backend.Delete {
				_, there := copied[event.Item.Key]
				require.True(t, there, "%s is deleted twice", event.Item.Key)
				delete(copied, event.Item.Key)
				continue
			}
			copied[event.Item.Key] = event.Item
			writer, i, found := strings.Cut(string(event.Item.Value), " ")
			require.True(t, found)
			at, err := strconv.Atoi(i)
			require.NoError(t, err)
			before, known := last[writer]
			if !known {
				before = -1
			}
			step := 1
			if (before+1)%7 == 6 {
				step = 2 // a deletion
			}
			require.Equal(t, before+step, at, "writer %s", writer)
			last[writer] = at
		}
		got := []backend.Item{}
		for _, key := range slices.Sorted(maps.Keys(copied)) {
			got = append(got, copied[key])
		}
		require.Equal(t, want, got, "a copy that follows the watch is not what is stored")
		if n == 0 {
			first = events
		}
		require.Equal(t, first, events, "two watchers are told different stories")
	}
}

func testWatchersEnd(t *testing.T, s *store) {
	b, err := s.suite.Open(t.Context(), s.where, clockwork.NewRealClock())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancelled, err := b.Watch(ctx)
	require.NoError(t, err)
	closed, err := b.Watch(t.Context())
	require.NoError(t, err)
	last, err := b.Watch(t.Context())
	require.NoError(t, err)

	cancel()
	ended(t, cancelled)
	require.ErrorIs(t, cancelled.Err(), context.Canceled)
	require.NoError(t, cancelled.Close())
	require.NoError(t, closed.Close())
	require.NoError(t, closed.Close())
	ended(t, closed)
	require.NoError(t, closed.Err())

	// Their reader need not be there for the store to go on, or to be closed.
	unread, err := b.Watch(t.Context())
	require.NoError(t, err)
	put(t, b, "/a", "")
	require.Equal(t, "/a", next(t, last).Item.Key)
	require.NoError(t, b.Close())
	ended(t, last)
	require.Error(t, last.Err())
	require.NotContains(t, last.Err().Error(), "\n")
	ended(t, unread)

	again := s.openReal(t)
	put(t, again, "/a", "")
}

func testCancelled(t *testing.T, s *store) {
	b := s.openReal(t)
	revision := put(t, b, "/a", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Put(ctx, backend.Item{Key: "/a"})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, b.Create(ctx, backend.Item{Key: "/b"}), context.Canceled)
	_, err = b.CompareAndSwap(ctx, backend.Item{Key: "/a", Revision: revision})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, b.CompareAndDelete(ctx, "/a", revision), context.Canceled)
	_, err = b.Get(ctx, "/a")
	require.ErrorIs(t, err, context.Canceled)
	_, err = b.Range(ctx, "/", "", 0)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, b.Delete(ctx, "/a"), context.Canceled)
	require.ErrorIs(t, b.DeleteRange(ctx, "/a"), context.Canceled)
	_, err = b.Watch(ctx)
	require.ErrorIs(t, err, context.Canceled)

	items, err := b.Range(t.Context(), "/", "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"/a"}, keys(items))
	require.Equal(t, revision, items[0].Revision)
	short, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-short.Done()
	_, err = b.Get(short, "/a")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// next returns the watcher's next event.
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

// ended waits for the end of the watcher, past what it still has to tell.
func ended(t *testing.T, watcher backend.Watcher) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-watcher.Events():
			if !ok {
				return
			}
		case <-timeout:
			require.Fail(t, "the watcher does not end")
			return
		}
	}
}
