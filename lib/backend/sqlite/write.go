// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One write: each change gets the next revision of the store, and is kept for a
// while for the watchers of all processes.

package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

// writer is a transaction that writes.
type writer struct {
	ctx   context.Context
	tx    *sql.Tx
	store *Store
	// revision is the last that was given, size that of all changes up to it.
	revision, size int64
	changed        bool
}

// write does work in one transaction. It also deletes what has expired, as an
// expired item must not hold its key, and forgets old changes.
func (s *Store) write(ctx context.Context, work func(*writer) error) error {
	err := s.transaction(ctx, "writing", func(tx *sql.Tx) error {
		w := &writer{ctx: ctx, tx: tx, store: s}
		if err := w.begin(); err != nil {
			return err
		}
		if err := w.removeAll("SELECT key FROM items WHERE expires <= ? ORDER BY expires, key", s.now()); err != nil {
			return err
		}
		if err := work(w); err != nil {
			return err
		}
		return w.end()
	})
	if err == nil {
		s.watch.wake()
	}
	return err
}

func (w *writer) begin() error {
	err := w.tx.QueryRowContext(w.ctx,
		"SELECT counter.revision, ifnull((SELECT size FROM changes WHERE changes.revision = counter.revision), 0) FROM counter",
	).Scan(&w.revision, &w.size)
	if errors.Is(err, sql.ErrNoRows) {
		return damaged(w.store.path, "the table counter is empty")
	}
	return err
}

func (w *writer) end() error {
	if !w.changed {
		return nil
	}
	if _, err := w.tx.ExecContext(w.ctx, "UPDATE counter SET revision = ?", w.revision); err != nil {
		return err
	}
	if _, err := w.tx.ExecContext(w.ctx, "DELETE FROM changes WHERE revision <= ?", w.revision-keptChanges); err != nil {
		return err
	}
	// One after the other: a write is to cost the same, however many changes
	// there are. The last one stays, as it is never below its own size.
	for {
		var oldest, size int64
		if err := w.tx.QueryRowContext(w.ctx, "SELECT revision, size FROM changes ORDER BY revision LIMIT 1").Scan(&oldest, &size); err != nil {
			return err
		}
		if size > w.size-keptSize {
			return nil
		}
		if _, err := w.tx.ExecContext(w.ctx, "DELETE FROM changes WHERE revision = ?", oldest); err != nil {
			return err
		}
	}
}

// stored returns the revision of the item under key.
func (w *writer) stored(key string) (revision string, found bool, err error) {
	var n int64
	err = w.tx.QueryRowContext(w.ctx, "SELECT revision FROM items WHERE key = ?", key).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return formatRevision(n), err == nil, err
}

func (w *writer) compare(key, revision string) error {
	stored, found, err := w.stored(key)
	if err != nil {
		return err
	}
	if !found {
		return trace.CompareFailed("%s has no %q any more", w.store.path, key)
	}
	if stored != revision {
		return trace.CompareFailed("%q has been changed in the meantime", key)
	}
	return nil
}

func (w *writer) put(item backend.Item) (revision string, err error) {
	value := item.Value
	if value == nil {
		value = []byte{} // nil would be SQL's NULL
	}
	if err := w.change(false, item.Key, value, nanos(item.Expires)); err != nil {
		return "", err
	}
	_, err = w.tx.ExecContext(w.ctx, "INSERT INTO items (key, value, expires, revision) VALUES (?, ?, ?, ?)"+
		" ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires, revision = excluded.revision",
		item.Key, value, nanos(item.Expires), w.revision)
	return formatRevision(w.revision), err
}

func (w *writer) remove(key string) error {
	if err := w.change(true, key, []byte{}, never); err != nil {
		return err
	}
	_, err := w.tx.ExecContext(w.ctx, "DELETE FROM items WHERE key = ?", key)
	return err
}

// removeAll removes the items whose keys the query returns.
func (w *writer) removeAll(query string, args ...any) error {
	rows, err := w.tx.QueryContext(w.ctx, query, args...)
	if err != nil {
		return err
	}
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return errors.Join(err, rows.Close())
		}
		keys = append(keys, key)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, key := range keys {
		if err := w.remove(key); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) change(deleted bool, key string, value []byte, expires int64) error {
	w.changed = true
	w.revision++
	w.size += int64(len(key) + len(value))
	_, err := w.tx.ExecContext(w.ctx, "INSERT INTO changes (revision, deleted, key, value, expires, size) VALUES (?, ?, ?, ?, ?, ?)",
		w.revision, deleted, key, value, expires, w.size)
	return err
}
