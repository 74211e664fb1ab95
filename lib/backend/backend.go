// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package backend keeps the cluster's state: items under keys such as
// /nodes/<uuid>, in one SQLite file that only its owner may read.
//
// Open finds or makes the file; Create, Put, Get and Range are all there is to
// do with it; Close ends it:
//
//	store, err := backend.Open(ctx, backend.Config{Dir: "/var/lib/teleport"})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	defer store.Close()
//	err = store.Create(ctx, backend.Item{Key: "/cluster_name", Value: []byte("example.com")})
//
// Several processes may have the same store open, and several goroutines may
// share one Store. Each call is one transaction, and what it wrote has reached
// the disk when it returns.
//
// # Who may read it
//
// The store holds the private keys of certificate authorities. Its folder is
// made 0700 and its files 0600, whatever the umask. A folder or file that is
// found otherwise, or that belongs to another user, is refused and never
// repaired: whoever could read it may have read it, which is for the operator
// to judge.
package backend

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"net/url"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

const (
	// FileName is the store's file in Config.Dir. SQLite puts FileName-wal and
	// FileName-shm beside it while the store is open.
	FileName = "backend.db"

	// busyTimeout is how long a call waits for another process that writes.
	// Writes take milliseconds: a longer wait means that something is stuck.
	busyTimeout = "5000"

	// maxConns lets logins read while a write of this process waits.
	maxConns = 4

	// schemaVersion is kept in the file's user_version.
	schemaVersion = 1
)

const schema = `
CREATE TABLE items (
	key     TEXT PRIMARY KEY NOT NULL,
	value   BLOB NOT NULL,
	expires INTEGER NOT NULL -- nanoseconds since 1970
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
`

// never is the expiry of what does not expire.
const never = math.MaxInt64

// Item is one value under its key.
type Item struct {
	// Key is a path such as /nodes/<uuid>.
	Key string
	// Value is the item's content. An empty one is read back as nil.
	Value []byte
	// Expires is when the item ceases to be found. Zero means never.
	Expires time.Time
}

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

// Store is an open store.
type Store struct {
	path  string
	db    *sql.DB
	clock clockwork.Clock
}

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

// migrate brings an empty file to the schema, and looks for damage in one that
// has it: better now than in the middle of a login.
func (s *Store) migrate(ctx context.Context) error {
	var version int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return describe(err, "opening", s.path)
	}
	switch {
	case version > schemaVersion:
		return trace.BadParameter("%s was written by a newer version of teleport (its schema is %d, this program knows %d): run that version, or restore the copy made before the upgrade",
			s.path, version, schemaVersion)
	case version == schemaVersion:
		var report string
		if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&report); err != nil {
			return describe(err, "checking", s.path)
		}
		if report != "ok" {
			return damaged(s.path, report)
		}
		return nil
	}

	var tables int
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return describe(err, "opening", s.path)
	}
	if tables != 0 {
		return trace.BadParameter("%s is a database of another program: move it away, or use another data_dir", s.path)
	}
	return s.transaction(ctx, "creating", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, schema)
		return err
	})
}

// Close releases the store. The Store must not be used after it.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return describe(err, "closing", s.path)
	}
	return nil
}

// Get returns the item under key, or trace.NotFound.
func (s *Store) Get(ctx context.Context, key string) (Item, error) {
	item := Item{Key: key}
	var expires int64
	err := s.db.QueryRowContext(ctx,
		"SELECT value, expires FROM items WHERE key = ? AND expires > ?", key, s.now(),
	).Scan(&item.Value, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return Item{}, trace.NotFound("%s has no %q", s.path, key)
	}
	if err != nil {
		return Item{}, describe(err, "reading", s.path)
	}
	item.Expires = fromNanos(expires)
	return item, nil
}

// Range returns the items whose keys begin with prefix, in the order of their
// keys.
func (s *Store) Range(ctx context.Context, prefix string) ([]Item, error) {
	rows, err := s.db.QueryContext(ctx,
		"SELECT key, value, expires FROM items WHERE substr(key, 1, length(?1)) = ?1 AND key >= ?1 AND expires > ?2 ORDER BY key",
		prefix, s.now())
	if err != nil {
		return nil, describe(err, "reading", s.path)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var items []Item
	for rows.Next() {
		var item Item
		var expires int64
		if err := rows.Scan(&item.Key, &item.Value, &expires); err != nil {
			return nil, describe(err, "reading", s.path)
		}
		item.Expires = fromNanos(expires)
		items = append(items, item)
	}
	if err := rows.Err(); err != nil {
		return nil, describe(err, "reading", s.path)
	}
	return items, nil
}

// Create writes all items, or none where one of the keys is taken: the error is
// then trace.AlreadyExists. Of two processes that create the same key, one
// succeeds.
func (s *Store) Create(ctx context.Context, items ...Item) error {
	return s.write(ctx, items, "INSERT INTO items (key, value, expires) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING")
}

// Put writes the item, whether or not the key is taken.
func (s *Store) Put(ctx context.Context, item Item) error {
	return s.write(ctx, []Item{item}, "INSERT INTO items (key, value, expires) VALUES (?, ?, ?)"+
		" ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires")
}

// write also removes what has expired: an expired item must not hold its key,
// and nothing else ever removes it.
func (s *Store) write(ctx context.Context, items []Item, statement string) error {
	return s.transaction(ctx, "writing", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM items WHERE expires <= ?", s.now()); err != nil {
			return err
		}
		for _, item := range items {
			value := item.Value
			if value == nil {
				value = []byte{} // nil would be SQL's NULL
			}
			result, err := tx.ExecContext(ctx, statement, item.Key, value, nanos(item.Expires))
			if err != nil {
				return err
			}
			written, err := result.RowsAffected()
			if err != nil {
				return err
			}
			if written == 0 {
				return trace.AlreadyExists("%s has %q already", s.path, item.Key)
			}
		}
		return nil
	})
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
