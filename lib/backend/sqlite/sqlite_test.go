// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/backendtest"
	"teleport-auditd/lib/testhost"
)

func TestMain(m *testing.M) {
	suite().Main(m)
}

func TestBackend(t *testing.T) {
	suite().Run(t)
}

func suite() backendtest.Suite {
	return backendtest.Suite{
		New: func(t testing.TB) string { return filepath.Join(t.TempDir(), "data") },
		Open: func(ctx context.Context, dir string, clock clockwork.Clock) (backend.Backend, error) {
			return Open(ctx, Config{Dir: dir, Clock: clock})
		},
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	store, err := Open(t.Context(), Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

func put(t *testing.T, store *Store, item backend.Item) {
	t.Helper()
	_, err := store.Put(t.Context(), item)
	require.NoError(t, err)
}

func TestExpiredItemsDoNotPileUp(t *testing.T) {
	clock := clockwork.NewFakeClock()
	store, err := Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "data"), Clock: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	put(t, store, backend.Item{Key: "/n/old", Expires: clock.Now()})
	put(t, store, backend.Item{Key: "/n/forever"})
	var rows int
	require.NoError(t, store.db.QueryRow("SELECT count(*) FROM items").Scan(&rows))
	require.Equal(t, 1, rows)
}

// Nothing else says so as plainly: with no umask to help, and while the store
// is open, nobody but the owner may read any of it.
func TestOnlyTheOwnerMayRead(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "some", "where")
	store := open(t, dir)
	put(t, store, backend.Item{Key: "/a"})

	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
		info, err := file.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), file.Name())
	}
	require.Equal(t, []string{"backend.db", "backend.db-shm", "backend.db-wal", "backend.lock"}, names)
}

// A umask that takes even the owner's bits leaves a store that its owner can
// open again.
func TestStrictUmask(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	old := syscall.Umask(0o777)
	store, err := Open(t.Context(), Config{Dir: dir})
	syscall.Umask(old)
	require.NoError(t, err)
	put(t, store, backend.Item{Key: "/a"})
	require.NoError(t, store.Close())
	open(t, dir)
}

func TestRefused(t *testing.T) {
	notOwner := os.Geteuid() + 1
	for _, tc := range []struct {
		name    string
		root    bool // needs root to arrange
		arrange func(t *testing.T, dir string)
		is      func(error) bool
		want    []string
	}{
		{
			name:    "folder that others may list",
			arrange: func(t *testing.T, dir string) { require.NoError(t, os.Chmod(dir, 0o750)) },
			is:      trace.IsAccessDenied,
			want:    []string{"0750", "chmod 0700 "},
		},
		{
			name: "file that others may read",
			arrange: func(t *testing.T, dir string) {
				require.NoError(t, os.Chmod(filepath.Join(dir, FileName), 0o604))
			},
			is:   trace.IsAccessDenied,
			want: []string{FileName, "0604", "chmod 0600 "},
		},
		{
			name: "write-ahead log that others may read",
			arrange: func(t *testing.T, dir string) {
				path := filepath.Join(dir, FileName+"-wal")
				require.NoError(t, os.WriteFile(path, nil, 0o600))
				require.NoError(t, os.Chmod(path, 0o640))
			},
			is:   trace.IsAccessDenied,
			want: []string{FileName + "-wal", "chmod 0600 "},
		},
		{
			name:    "folder of another user",
			root:    true,
			arrange: func(t *testing.T, dir string) { require.NoError(t, os.Chown(dir, notOwner, -1)) },
			is:      trace.IsAccessDenied,
			want:    []string{"belongs to", "runs as root", "chown -R 0 "},
		},
		{
			name: "file of another user",
			root: true,
			arrange: func(t *testing.T, dir string) {
				require.NoError(t, os.Chown(filepath.Join(dir, FileName), notOwner, -1))
			},
			is:   trace.IsAccessDenied,
			want: []string{FileName, "belongs to"},
		},
		{
			name: "symbolic link in place of the file",
			arrange: func(t *testing.T, dir string) {
				path := filepath.Join(dir, FileName)
				require.NoError(t, os.Rename(path, path+".real"))
				require.NoError(t, os.Symlink(path+".real", path))
			},
			is:   trace.IsAccessDenied,
			want: []string{FileName, "not a regular file"},
		},
		{
			name: "symbolic link in place of the lock",
			arrange: func(t *testing.T, dir string) {
				path := filepath.Join(dir, lockName)
				require.NoError(t, os.Remove(path))
				require.NoError(t, os.Symlink("/dev/null", path))
			},
			is:   trace.IsAccessDenied,
			want: []string{lockName, "not a regular file"},
		},
		{
			name: "text in place of the database",
			arrange: func(t *testing.T, dir string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, FileName), bytes.Repeat([]byte("no database\n"), 1000), 0o600))
			},
			want: []string{"is damaged", "restore"},
		},
		{
			name: "cut short",
			arrange: func(t *testing.T, dir string) {
				path := filepath.Join(dir, FileName)
				info, err := os.Stat(path)
				require.NoError(t, err)
				require.NoError(t, os.Truncate(path, info.Size()-4096))
			},
			want: []string{"is damaged", "restore"},
		},
		{
			name: "a page overwritten",
			arrange: func(t *testing.T, dir string) {
				path := filepath.Join(dir, FileName)
				content, err := os.ReadFile(path)
				require.NoError(t, err)
				copy(content[4096:], bytes.Repeat([]byte{0xa5}, 4096))
				require.NoError(t, os.WriteFile(path, content, 0o600))
			},
			want: []string{"is damaged", "restore"},
		},
		{
			name: "written by a newer version",
			arrange: func(t *testing.T, dir string) {
				store := open(t, dir)
				_, err := store.db.Exec("PRAGMA user_version = 7")
				require.NoError(t, err)
			},
			is:   trace.IsBadParameter,
			want: []string{"newer version", "schema is 7"},
		},
		{
			name: "another program's database",
			arrange: func(t *testing.T, dir string) {
				store := open(t, dir)
				_, err := store.db.Exec("PRAGMA user_version = 0")
				require.NoError(t, err)
			},
			is:   trace.IsBadParameter,
			want: []string{"another program"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.root && os.Geteuid() != 0 {
				testhost.Skip(t, "needs root, to give a file to another user")
			}
			dir := filepath.Join(t.TempDir(), "data")
			store, err := Open(t.Context(), Config{Dir: dir})
			require.NoError(t, err)
			put(t, store, backend.Item{Key: "/a", Value: bytes.Repeat([]byte("x"), 20000)})
			require.NoError(t, store.Close())
			tc.arrange(t, dir)

			for _, mustExist := range []bool{false, true} {
				_, err = Open(t.Context(), Config{Dir: dir, MustExist: mustExist})
				require.Error(t, err)
				if tc.is != nil {
					require.True(t, tc.is(err), "%v", err)
				}
				for _, want := range tc.want {
					require.ErrorContains(t, err, want)
				}
				require.ErrorContains(t, err, dir)
				require.NotContains(t, err.Error(), "\n")
			}
		})
	}
}

func TestNoStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, tc := range []struct {
		name string
		dir  string
		is   func(error) bool
		want string
	}{
		{"no such folder", filepath.Join(dir, "none"), trace.IsNotFound, filepath.Join(dir, "none")},
		{"empty folder", dir, trace.IsNotFound, FileName},
		{"a file", file, trace.IsBadParameter, "not a folder"},
		{"below a file", filepath.Join(file, "data"), trace.IsBadParameter, "not a folder"},
		{"no folder given", "", trace.IsBadParameter, "data_dir"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(t.Context(), Config{Dir: tc.dir, MustExist: true})
			require.True(t, tc.is(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
		})
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "looking for a store has left something behind")
}

// A data_dir's name is the operator's, and the driver takes a URI.
func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space", "q?mode=memory", "100%41", "a#b", "été & 東京", "x;y=z"} {
		dir := filepath.Join(t.TempDir(), name)
		put(t, open(t, dir), backend.Item{Key: "/a"})
		info, err := os.Stat(filepath.Join(dir, FileName))
		require.NoError(t, err, name)
		require.NotZero(t, info.Size(), name)
	}
}

func TestWhatTheDiskSays(t *testing.T) {
	ctx := t.Context()

	t.Run("full", func(t *testing.T) {
		store := open(t, filepath.Join(t.TempDir(), "data"))
		store.db.SetMaxOpenConns(1) // the pragma is the connection's
		var pages int
		require.NoError(t, store.db.QueryRow("PRAGMA page_count").Scan(&pages))
		_, err := store.db.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+2))
		require.NoError(t, err)
		_, err = store.Put(ctx, backend.Item{Key: "/a", Value: make([]byte, 100_000)})
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
		require.ErrorContains(t, err, "disk is full")
		_, err = store.Get(ctx, "/a")
		require.True(t, trace.IsNotFound(err), "%v", err)
		put(t, store, backend.Item{Key: "/b"})
	})

	t.Run("read-only", func(t *testing.T) {
		store := open(t, filepath.Join(t.TempDir(), "data"))
		store.db.SetMaxOpenConns(1)
		_, err := store.db.Exec("PRAGMA query_only = 1")
		require.NoError(t, err)
		_, err = store.Put(ctx, backend.Item{Key: "/a"})
		require.True(t, trace.IsAccessDenied(err), "%v", err)
		require.ErrorContains(t, err, "cannot be written")
	})

	t.Run("kept by another process", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		keeper, store := open(t, dir), open(t, dir)
		store.db.SetMaxOpenConns(1)
		_, err := store.db.Exec("PRAGMA busy_timeout = 1")
		require.NoError(t, err)
		tx, err := keeper.db.BeginTx(ctx, nil)
		require.NoError(t, err)
		defer tx.Rollback() //nolint:errcheck // a test's end
		_, err = store.Put(ctx, backend.Item{Key: "/a"})
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
		require.ErrorContains(t, err, "another process")
		_, err = store.Range(ctx, "/", "", 0)
		require.NoError(t, err, "readers wait for a writer")
	})

	t.Run("cancelled", func(t *testing.T) {
		store := open(t, filepath.Join(t.TempDir(), "data"))
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		_, err := store.Put(cancelled, backend.Item{Key: "/a"})
		require.ErrorIs(t, err, context.Canceled)
		_, err = store.Get(cancelled, "/a")
		require.ErrorIs(t, err, context.Canceled)
	})

	t.Run("opening waits for the lock no longer than its context", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		unlock, _, err := prepare(ctx, dir, false)
		require.NoError(t, err)
		defer unlock()
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		_, err = Open(short, Config{Dir: dir})
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
		require.ErrorContains(t, err, lockName)
	})
}
