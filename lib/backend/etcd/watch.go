// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The watch: one stream from etcd for all watchers of a Store, which goes on
// where it was when the member that sent it fails.

package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"teleport-auditd/lib/backend"
)

// watchRetry is between two tries to go on with a stream that broke.
const watchRetry = time.Second

type watch struct {
	store  *Store
	closed context.Context // ends with the store
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu    sync.Mutex
	feeds map[*backend.Feed]int64 // after which revision each is told
	last  int64                   // the revision that the feeds were told of
	stop  context.CancelFunc      // ends the stream; nil where there is none
}

func newWatch(s *Store) *watch {
	w := &watch{store: s, feeds: map[*backend.Feed]int64{}}
	w.closed, w.cancel = context.WithCancel(context.Background())
	return w
}

func (w *watch) add(ctx context.Context, prefixes []string) (backend.Watcher, error) {
	answer, err := w.store.read(ctx, clientv3.OpGet(w.store.items, clientv3.WithCountOnly()))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	now := answer.Get().Header.Revision
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed.Err() != nil {
		return nil, w.store.closedError()
	}
	if w.stop == nil {
		var stream context.Context
		stream, w.stop = context.WithCancel(w.closed)
		w.last = now
		w.group.Go(func() { w.run(stream) })
	}
	feed := backend.NewFeed(ctx, w.remove, prefixes...)
	w.feeds[feed] = now
	return feed, nil
}

func (w *watch) remove(feed *backend.Feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.feeds, feed)
	if len(w.feeds) == 0 && w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func (w *watch) close() {
	w.cancel()
	w.group.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for feed := range w.feeds {
		feed.End(w.store.closedError())
	}
}

// run reads streams until it is stopped, or one cannot be gone on with.
func (w *watch) run(ctx context.Context) {
	for {
		err := w.stream(ctx)
		if ctx.Err() != nil {
			return // close ends the feeds, or there are none
		}
		if !transient(err) {
			w.fail(ctx, err)
			return
		}
		w.store.log.Warnf("The watch of etcd broke (%s), and goes on where it was.", oneLine(err))
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return
		}
	}
}

// stream tells the feeds of all that follows on what they were told, until it
// breaks.
func (w *watch) stream(ctx context.Context) error {
	// Without a leader a member hears nothing, and would say nothing.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	w.mu.Lock()
	last := w.last
	w.mu.Unlock()
	answers := w.store.client.Watch(ctx, w.store.items,
		clientv3.WithRange(backend.PrefixEnd(w.store.items)), clientv3.WithRev(last+1))
	for answer := range answers {
		if err := answer.Err(); err != nil {
			return err
		}
		if err := w.tell(ctx, answer.Events); err != nil {
			return err
		}
	}
	return rpctypes.ErrNoLeader // the stream just ended: try again
}

// tell passes on what one answer has. All changes of one transaction have the
// same revision, and come in one answer.
func (w *watch) tell(ctx context.Context, changes []*clientv3.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil {
		return nil // another stream may have been started for other feeds
	}
	for _, change := range changes {
		event := backend.Event{Type: backend.Delete, Item: backend.Item{Key: strings.TrimPrefix(string(change.Kv.Key), w.store.items)}}
		if change.Type == clientv3.EventTypePut {
			item, err := w.store.item(change.Kv)
			if err != nil {
				return err
			}
			event = backend.Event{Type: backend.Put, Item: item}
		}
		for feed, from := range w.feeds {
			if change.Kv.ModRevision > from {
				feed.Push(event)
			}
		}
		w.last = max(w.last, change.Kv.ModRevision)
	}
	return nil
}

// fail ends all watchers.
func (w *watch) fail(ctx context.Context, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, rpctypes.ErrCompacted) {
		err = trace.LimitExceeded("the watch of etcd at %s fell so far behind that etcd has forgotten what followed: watch again and read everything anew", w.store.peers)
	} else if !trace.IsBadParameter(err) {
		err = w.store.describe(err)
	}
	for feed := range w.feeds {
		feed.End(err)
	}
	clear(w.feeds)
	w.stop()
	w.stop = nil
}
