// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package sqlite keeps the cluster's state in one SQLite file that only its
// owner may read. It is the backend of a cluster with one auth server:
//
//	store, err := sqlite.Open(ctx, sqlite.Config{Dir: "/var/lib/teleport"})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	defer store.Close()
//	err = store.Create(ctx, backend.Item{Key: "/cluster_name", Value: []byte("example.com")})
//
// Several processes may have the same store open, and watch what the others
// write. Each call is one transaction.
//
// # Who may read it
//
// The store holds the private keys of certificate authorities. Its folder is
// made 0700 and its files 0600, whatever the umask. A folder or file that is
// found otherwise, or that belongs to another user, is refused and never
// repaired: whoever could read it may have read it, which is for the operator
// to judge.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"teleport-auditd/lib/backend"
)

const (
	// FileName is the store's file in Config.Dir. SQLite puts FileName-wal and
	// FileName-shm beside it while the store is open.
	FileName = "backend.db"

	// busyTimeout is how long a call waits for another process that writes.
	// Writes take milliseconds: a longer wait means that something is stuck.
	busyTimeout = "5000"

	// maxConns lets logins read while a write of this process waits, and the
	// watch have a connection of its own.
	maxConns = 5

	// keptChanges and keptSize bound what is kept for watchers, in changes and
	// in bytes. A watcher looks several times a second.
	keptChanges = 8192
	keptSize    = 32 << 20
)

// migrations bring a file from the schema of their index to the next one. The
// number of the last is kept in the file's user_version.
func migrations() []string {
	return []string{
		`
CREATE TABLE items (
	key     TEXT PRIMARY KEY NOT NULL,
	value   BLOB NOT NULL,
	expires INTEGER NOT NULL -- nanoseconds since 1970
) STRICT, WITHOUT ROWID;
`, `
ALTER TABLE items ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX items_by_expiry ON items (expires);

-- The last revision that was given to a change of this store: one row.
CREATE TABLE counter (revision INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (0);

-- What watchers are told, without gaps. The oldest are deleted.
CREATE TABLE changes (
	revision INTEGER PRIMARY KEY NOT NULL,
	deleted  INTEGER NOT NULL,
	key      TEXT NOT NULL,
	value    BLOB NOT NULL,
	expires  INTEGER NOT NULL,
	size     INTEGER NOT NULL -- of this change and all before it, in bytes
) STRICT;
`}
}

// never is the expiry of what does not expire.
const never = math.MaxInt64

// Config says where the store is.
type Config struct {
	// Dir is the folder of the store. It is made, with the folders above it,
	// where it is not there.
	Dir string
	// MustExist makes Open fail with trace.NotFound, and leave nothing behind,
	// where there is no store yet.
	MustExist bool
	// Clock decides what has expired; the real one by default.
	Clock clockwork.Clock
}

// CheckAndSetDefaults refuses a Config without Dir.
func (c *Config) CheckAndSetDefaults() error {
	if c.Dir == "" {
		return trace.BadParameter("no folder was given for the store: set teleport.data_dir")
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	return nil
}

// Store is an open store: a backend.Backend. Its errors, where the file cannot
// be used, are trace.AccessDenied where it cannot be written, and
// trace.LimitExceeded where the disk is full or another process has kept it
// busy for too long.
type Store struct {
	path  string
	db    *sql.DB
	clock clockwork.Clock
	watch *watch
}

var _ backend.Backend = (*Store)(nil)

// Open opens the store in cfg.Dir and makes it where it is not there. Processes
// that do so at the same moment all get the same store.
//
// The error is trace.NotFound where MustExist is set and there is none, and
// trace.AccessDenied where the folder or a file may not be used or others may
// read it. A file that is damaged, or was written by a newer version, is refused
// and left as it is.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	unlock, path, err := prepare(ctx, cfg.Dir, cfg.MustExist)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	// Two processes cannot both bring a new file into WAL mode, and SQLite does
	// not wait there: the lock does.
	defer unlock()

	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, describe(err, "opening", path)
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	s := &Store{path: path, db: db, clock: cfg.Clock}
	s.watch = newWatch(s)
	if err := s.migrate(ctx); err != nil {
		_ = db.Close() // err is what the caller needs
		return nil, trace.Wrap(err)
	}
	return s, nil
}

// dsn is what the driver takes. The file is there already, with its mode, and
// mode=rw keeps SQLite from ever making one of its own. FULL makes a returned
// write survive a power cut.
func dsn(path string) string {
	query := url.Values{
		"mode":    {"rw"},
		"_txlock": {"immediate"},
		"_pragma": {
			"busy_timeout(" + busyTimeout + ")",
			"journal_mode(WAL)",
			"synchronous(FULL)",
			"trusted_schema(OFF)",
		},
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

// migrate brings the file to the newest schema, and looks for damage in one that
// is not empty: better now than in the middle of a login.
func (s *Store) migrate(ctx context.Context) error {
	var version int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return describe(err, "opening", s.path)
	}
	steps := migrations()
	switch {
	case version > len(steps):
		return trace.BadParameter("%s was written by a newer version of teleport (its schema is %d, this program knows %d): run that version, or restore the copy made before the upgrade",
			s.path, version, len(steps))
	case version > 0:
		var report string
		if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&report); err != nil {
			return describe(err, "checking", s.path)
		}
		if report != "ok" {
			return damaged(s.path, report)
		}
		if version == len(steps) {
			return nil
		}
	default:
		var tables int
		if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
			return describe(err, "opening", s.path)
		}
		if tables != 0 {
			return trace.BadParameter("%s is a database of another program: move it away, or use another data_dir", s.path)
		}
	}
	return s.transaction(ctx, "creating", func(tx *sql.Tx) error {
		for _, step := range steps[version:] {
			if _, err := tx.ExecContext(ctx, step); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(len(steps)))
		return err
	})
}

// Close releases the store and ends its watchers. The Store must not be used
// after it.
func (s *Store) Close() error {
	s.watch.close()
	if err := s.db.Close(); err != nil {
		return describe(err, "closing", s.path)
	}
	return nil
}

// Get returns the item under key, or trace.NotFound.
func (s *Store) Get(ctx context.Context, key string) (backend.Item, error) {
	item := backend.Item{Key: key}
	var expires, revision int64
	err := s.db.QueryRowContext(ctx,
		"SELECT value, expires, revision FROM items WHERE key = ? AND expires > ?", key, s.now(),
	).Scan(&item.Value, &expires, &revision)
	if errors.Is(err, sql.ErrNoRows) {
		return backend.Item{}, trace.NotFound("%s has no %q", s.path, key)
	}
	if err != nil {
		return backend.Item{}, describe(err, "reading", s.path)
	}
	item.Expires, item.Revision = fromNanos(expires), formatRevision(revision)
	return item, nil
}

// Range returns the items whose keys begin with prefix and come after after.
func (s *Store) Range(ctx context.Context, prefix, after string, limit int) ([]backend.Item, error) {
	if limit <= 0 {
		limit = -1 // SQLite's word for all
	}
	query := "SELECT key, value, expires, revision FROM items WHERE expires > ? AND key >= ? AND key > ?"
	args := []any{s.now(), prefix, after}
	if end := backend.PrefixEnd(prefix); end != "" {
		query += " AND key < ?"
		args = append(args, end)
	}
	rows, err := s.db.QueryContext(ctx, query+" ORDER BY key LIMIT ?", append(args, limit)...)
	if err != nil {
		return nil, describe(err, "reading", s.path)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var items []backend.Item
	for rows.Next() {
		var item backend.Item
		var expires, revision int64
		if err := rows.Scan(&item.Key, &item.Value, &expires, &revision); err != nil {
			return nil, describe(err, "reading", s.path)
		}
		item.Expires, item.Revision = fromNanos(expires), formatRevision(revision)
		items = append(items, item)
	}
	if err := rows.Err(); err != nil {
		return nil, describe(err, "reading", s.path)
	}
	return items, nil
}

// Create writes all items, or none where one of the keys is taken.
func (s *Store) Create(ctx context.Context, items ...backend.Item) error {
	if err := backend.CheckItems(items...); err != nil {
		return trace.Wrap(err)
	}
	return s.write(ctx, func(w *writer) error {
		for _, item := range items {
			_, found, err := w.stored(item.Key)
			if err != nil {
				return err
			}
			if found {
				return trace.AlreadyExists("%s has %q already", s.path, item.Key)
			}
			if _, err := w.put(item); err != nil {
				return err
			}
		}
		return nil
	})
}

// Put writes the item, whether or not the key is taken.
func (s *Store) Put(ctx context.Context, item backend.Item) (revision string, err error) {
	if err := backend.CheckItems(item); err != nil {
		return "", trace.Wrap(err)
	}
	err = s.write(ctx, func(w *writer) error {
		revision, err = w.put(item)
		return err
	})
	return revision, trace.Wrap(err)
}

// CompareAndSwap writes the item where the stored one has item.Revision.
func (s *Store) CompareAndSwap(ctx context.Context, item backend.Item) (revision string, err error) {
	if err := backend.CheckItems(item); err != nil {
		return "", trace.Wrap(err)
	}
	err = s.write(ctx, func(w *writer) error {
		if err := w.compare(item.Key, item.Revision); err != nil {
			return err
		}
		revision, err = w.put(item)
		return err
	})
	return revision, trace.Wrap(err)
}

// CompareAndDelete deletes the item where it has the revision.
func (s *Store) CompareAndDelete(ctx context.Context, key, revision string) error {
	return s.write(ctx, func(w *writer) error {
		if err := w.compare(key, revision); err != nil {
			return err
		}
		return w.remove(key)
	})
}

// Delete deletes the item under key, or returns trace.NotFound.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.write(ctx, func(w *writer) error {
		_, found, err := w.stored(key)
		if err != nil {
			return err
		}
		if !found {
			return trace.NotFound("%s has no %q", s.path, key)
		}
		return w.remove(key)
	})
}

// DeleteRange deletes the items whose keys begin with prefix.
func (s *Store) DeleteRange(ctx context.Context, prefix string) error {
	return s.write(ctx, func(w *writer) error {
		query, args := "SELECT key FROM items WHERE key >= ?", []any{prefix}
		if end := backend.PrefixEnd(prefix); end != "" {
			query, args = query+" AND key < ?", append(args, end)
		}
		return w.removeAll(query+" ORDER BY key", args...)
	})
}

// Watch tells of what any process writes from when it returns.
func (s *Store) Watch(ctx context.Context, prefixes ...string) (backend.Watcher, error) {
	return s.watch.add(ctx, prefixes)
}

func (s *Store) transaction(ctx context.Context, doing string, work func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return describe(err, doing, s.path)
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after Commit, and else work's error is the one to report
	if err := work(tx); err != nil {
		return describe(err, doing, s.path)
	}
	if err := tx.Commit(); err != nil {
		return describe(err, doing, s.path)
	}
	return nil
}

func (s *Store) now() int64 {
	return nanos(s.clock.Now())
}

func formatRevision(n int64) string {
	return strconv.FormatInt(n, 10)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == never {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
