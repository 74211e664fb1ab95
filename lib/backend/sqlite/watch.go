// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The watch: one goroutine, while there are watchers, that looks for the changes
// of all processes and sees to it that what expires is deleted in time.

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

const (
	// pollPeriod is how long a change by another process may go unseen. To look
	// is one read of the page that SQLite shares between processes.
	pollPeriod = 100 * time.Millisecond
	// sweepPeriod is how long an expiry may go untold.
	sweepPeriod = time.Second
)

type watch struct {
	store  *Store
	closed context.Context // ends with the store
	cancel context.CancelFunc
	woken  chan struct{} // has room for one

	mu      sync.Mutex
	feeds   map[*backend.Feed]int64 // from which revision on each is told
	last    int64                   // the revision that the feeds were told of
	running chan struct{}           // closed at the end of the goroutine; nil where there is none
}

func newWatch(s *Store) *watch {
	w := &watch{store: s, woken: make(chan struct{}, 1), feeds: map[*backend.Feed]int64{}}
	w.closed, w.cancel = context.WithCancel(context.Background())
	return w
}

func (w *watch) add(ctx context.Context, prefixes []string) (backend.Watcher, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed.Err() != nil {
		return nil, w.closedError()
	}
	var now int64
	if err := w.store.db.QueryRowContext(ctx, "SELECT revision FROM counter").Scan(&now); err != nil {
		return nil, describe(err, "watching", w.store.path)
	}
	if w.running == nil {
		// Its connection is kept: data_version says what has changed for the
		// connection that asks.
		conn, err := w.store.db.Conn(ctx)
		if err != nil {
			return nil, describe(err, "watching", w.store.path)
		}
		w.last = now
		w.running = make(chan struct{})
		go w.run(conn, w.running)
	}
	feed := backend.NewFeed(ctx, w.remove, prefixes...)
	w.feeds[feed] = now
	return feed, nil
}

func (w *watch) remove(feed *backend.Feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.feeds, feed)
	w.wake() // the goroutine may not be needed any more
}

// wake has the goroutine look at once.
func (w *watch) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func (w *watch) close() {
	w.cancel()
	w.mu.Lock()
	running := w.running
	w.mu.Unlock()
	if running != nil {
		<-running
	}
}

func (w *watch) run(conn *sql.Conn, running chan struct{}) {
	defer close(running)
	defer conn.Close() //nolint:errcheck // nothing was written through it
	ticker := w.store.clock.NewTicker(pollPeriod)
	defer ticker.Stop()
	version := int64(-1) // none: the first look reads
	var swept time.Time
	for {
		if w.idle(running) {
			return
		}
		if now := w.store.clock.Now(); now.Sub(swept) >= sweepPeriod {
			w.sweep()
			swept = now
		}
		next, err := w.look(conn, version)
		if err != nil {
			w.fail(running, err)
			return
		}
		version = next
		select {
		case <-w.woken:
		case <-ticker.Chan():
		case <-w.closed.Done():
			w.fail(running, w.closedError())
			return
		}
	}
}

// idle says whether nobody watches: the goroutine is then to end, and the next
// watcher starts another.
func (w *watch) idle(running chan struct{}) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.feeds) > 0 {
		return false
	}
	w.stopped(running)
	return true
}

// fail ends all watchers.
func (w *watch) fail(running chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for feed := range w.feeds {
		feed.End(err)
	}
	clear(w.feeds)
	w.stopped(running)
}

func (w *watch) stopped(running chan struct{}) {
	if w.running == running {
		w.running = nil
	}
}

// sweep deletes what has expired. Where that fails it is tried again in a
// second: who writes or reads is told what is wrong with the file.
func (w *watch) sweep() {
	var expired bool
	err := w.store.db.QueryRowContext(w.closed, "SELECT EXISTS (SELECT 1 FROM items WHERE expires <= ?)", w.store.now()).Scan(&expired)
	if err == nil && expired {
		_ = w.store.write(w.closed, func(*writer) error { return nil })
	}
}

// look tells the feeds of the changes since the last look, where there are any,
// and returns the data_version of the file as it was.
func (w *watch) look(conn *sql.Conn, before int64) (version int64, err error) {
	if err := conn.QueryRowContext(w.closed, "PRAGMA data_version").Scan(&version); err != nil {
		return 0, w.describe(err)
	}
	if version == before {
		return version, nil
	}
	w.mu.Lock()
	last := w.last
	w.mu.Unlock()
	rows, err := conn.QueryContext(w.closed,
		"SELECT revision, deleted, key, value, expires FROM changes WHERE revision > ? ORDER BY revision", last)
	if err != nil {
		return 0, w.describe(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var revision, expires int64
		var deleted bool
		event := backend.Event{Type: backend.Put}
		if err := rows.Scan(&revision, &deleted, &event.Item.Key, &event.Item.Value, &expires); err != nil {
			return 0, w.describe(err)
		}
		if revision != last+1 {
			return 0, trace.LimitExceeded("the watch of %s fell too far behind (at %d, the oldest change is %d): watch again and read everything anew",
				w.store.path, last, revision)
		}
		last = revision
		if deleted {
			event = backend.Event{Type: backend.Delete, Item: backend.Item{Key: event.Item.Key}}
		} else {
			event.Item.Expires, event.Item.Revision = fromNanos(expires), formatRevision(revision)
		}
		w.tell(revision, event)
	}
	if err := rows.Err(); err != nil {
		return 0, w.describe(err)
	}
	return version, nil
}

func (w *watch) tell(revision int64, event backend.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = revision
	for feed, from := range w.feeds {
		if revision > from {
			feed.Push(event)
		}
	}
}

func (w *watch) describe(err error) error {
	if w.closed.Err() != nil {
		return w.closedError()
	}
	if errors.Is(err, sql.ErrNoRows) {
		return trace.Wrap(err)
	}
	return describe(err, "watching", w.store.path)
}

func (w *watch) closedError() error {
	return trace.ConnectionProblem(nil, "%s was closed", w.store.path)
}
