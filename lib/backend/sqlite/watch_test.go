// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
)

func next(t *testing.T, watcher backend.Watcher) backend.Event {
	t.Helper()
	select {
	case event, ok := <-watcher.Events():
		require.True(t, ok, "the watcher has ended: %v", watcher.Err())
		return event
	case <-time.After(30 * time.Second):
		require.Fail(t, "nothing is told")
		return backend.Event{}
	}
}

// Who does not look for so long that changes were forgotten is told so. Its
// clock, which decides when it looks, stands still.
func TestFallingBehind(t *testing.T) {
	ctx := t.Context()
	for _, tc := range []struct {
		name   string
		writes int
		size   int
	}{
		{"large", keptSize/backend.MaxValueSize + 2, backend.MaxValueSize},
		{"many", keptChanges/backend.MaxItems + 2, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			clock := clockwork.NewFakeClock()
			reader, err := Open(ctx, Config{Dir: dir, Clock: clock})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, reader.Close()) })
			watcher, err := reader.Watch(ctx)
			require.NoError(t, err)
			require.NoError(t, clock.BlockUntilContext(ctx, 1))
			put(t, reader, backend.Item{Key: "/own"}) // looks at once
			require.Equal(t, "/own", next(t, watcher).Item.Key)

			writer := open(t, dir)
			for i := range tc.writes {
				if tc.size > 1 {
					put(t, writer, backend.Item{Key: "/a", Value: make([]byte, tc.size)})
					continue
				}
				var items []backend.Item
				for j := range backend.MaxItems {
					items = append(items, backend.Item{Key: fmt.Sprintf("/%d/%d", i, j), Value: []byte("x")})
				}
				require.NoError(t, writer.Create(ctx, items...))
			}
			var kept, size int
			require.NoError(t, writer.db.QueryRow("SELECT count(*), sum(length(value)) FROM changes").Scan(&kept, &size))
			require.LessOrEqual(t, kept, keptChanges)
			require.LessOrEqual(t, size, keptSize)

			clock.Advance(pollPeriod)
			select {
			case event, told := <-watcher.Events():
				require.False(t, told, "%v", event)
			case <-time.After(30 * time.Second):
				require.Fail(t, "the watcher does not end")
			}
			require.True(t, trace.IsLimitExceeded(watcher.Err()), "%v", watcher.Err())
			require.ErrorContains(t, watcher.Err(), "watch again")

			watcher, err = reader.Watch(ctx)
			require.NoError(t, err)
			put(t, reader, backend.Item{Key: "/again"})
			require.Equal(t, "/again", next(t, watcher).Item.Key)
		})
	}
}

// An expiry is told by the watcher's own clock, without a write.
func TestExpiryIsSwept(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClock()
	store, err := Open(ctx, Config{Dir: filepath.Join(t.TempDir(), "data"), Clock: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	watcher, err := store.Watch(ctx)
	require.NoError(t, err)
	put(t, store, backend.Item{Key: "/b", Expires: clock.Now().Add(2 * time.Minute)})
	put(t, store, backend.Item{Key: "/a", Expires: clock.Now().Add(3 * time.Minute)})
	require.Equal(t, backend.Put, next(t, watcher).Type)
	require.Equal(t, backend.Put, next(t, watcher).Type)
	require.NoError(t, clock.BlockUntilContext(ctx, 1))
	clock.Advance(time.Hour)
	require.Equal(t, backend.Event{Type: backend.Delete, Item: backend.Item{Key: "/b"}}, next(t, watcher))
	require.Equal(t, backend.Event{Type: backend.Delete, Item: backend.Item{Key: "/a"}}, next(t, watcher))
	var rows int
	require.NoError(t, store.db.QueryRow("SELECT count(*) FROM items").Scan(&rows))
	require.Zero(t, rows)
}

// Nobody watches: nothing runs, and the next watcher finds it running again.
func TestWatchStopsWithTheLastWatcher(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "data"))
	for range 3 {
		watcher, err := store.Watch(t.Context())
		require.NoError(t, err)
		put(t, store, backend.Item{Key: "/a"})
		require.Equal(t, "/a", next(t, watcher).Item.Key)
		require.NoError(t, watcher.Close())
		require.Eventually(t, func() bool {
			store.watch.mu.Lock()
			defer store.watch.mu.Unlock()
			return store.watch.running == nil
		}, 30*time.Second, time.Millisecond)
	}
}

// A file of the first schema, as earlier versions wrote it, keeps what it has.
func TestMigration(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	unlock, path, err := prepare(ctx, dir, false)
	require.NoError(t, err)
	unlock()
	db, err := sql.Open("sqlite", dsn(path))
	require.NoError(t, err)
	_, err = db.Exec(`
CREATE TABLE items (
	key     TEXT PRIMARY KEY NOT NULL,
	value   BLOB NOT NULL,
	expires INTEGER NOT NULL -- nanoseconds since 1970
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
INSERT INTO items VALUES ('/a', x'6f6e65', 9223372036854775807), ('/b', x'', 4102444800000000000), ('/old', x'', 1);
`)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	for range 2 { // the second opens what was migrated
		store := open(t, dir)
		items, err := store.Range(ctx, "", "", 0)
		require.NoError(t, err)
		require.Equal(t, []backend.Item{
			{Key: "/a", Value: []byte("one"), Revision: "0"},
			{Key: "/b", Expires: time.Unix(4102444800, 0).UTC(), Revision: "0"},
		}, items)
	}
	store := open(t, dir)
	watcher, err := store.Watch(ctx)
	require.NoError(t, err)
	revision, err := store.CompareAndSwap(ctx, backend.Item{Key: "/a", Value: []byte("two"), Revision: "0"})
	require.NoError(t, err)
	require.NotEqual(t, "0", revision)
	for event := next(t, watcher); event.Item.Key != "/a"; event = next(t, watcher) {
		require.Equal(t, "/old", event.Item.Key)
	}
	var version int
	require.NoError(t, store.db.QueryRow("PRAGMA user_version").Scan(&version))
	require.Equal(t, 2, version)
}
