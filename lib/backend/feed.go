// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What stands between a store, which must not wait, and the reader of a
// Watcher, who may.

package backend

import (
	"context"
	"strings"
	"sync"

	"github.com/gravitational/trace"
)

const (
	// maxWaiting bounds the events that wait for a slow reader.
	maxWaiting = 8192
	// maxWaitingSize bounds their values, in bytes.
	maxWaitingSize = 64 << 20
)

// Feed is the Watcher of a store that pushes what happened. Its reader has a
// queue, which is bounded: who lets it run full is told so at the end.
type Feed struct {
	prefixes []string
	events   chan Event
	closed   chan struct{} // by Close: the reader does not want the rest
	release  func(*Feed)

	mu      sync.Mutex
	waiting []Event
	size    int
	ended   bool
	err     error
	more    chan struct{} // has room for one: there is more, or it has ended

	closeOnce sync.Once
}

// NewFeed returns a Feed of the keys with one of the prefixes, all where there
// is none. It ends when ctx does. release is called once, when the Feed has
// ended: the store is to push no more.
func NewFeed(ctx context.Context, release func(*Feed), prefixes ...string) *Feed {
	f := &Feed{
		prefixes: prefixes,
		events:   make(chan Event),
		closed:   make(chan struct{}),
		release:  release,
		more:     make(chan struct{}, 1),
	}
	go f.run(ctx)
	return f
}

// Push queues the event where it is one of the Feed's, and never waits. It does
// nothing once the Feed has ended.
func (f *Feed) Push(event Event) {
	if !f.wants(event.Item.Key) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return
	}
	if len(f.waiting) >= maxWaiting || f.size+len(event.Item.Value) > maxWaitingSize {
		// What waits is dropped with it: the reader has to start again
		// anyway, and had better know soon.
		f.waiting = nil
		f.end(trace.LimitExceeded("a watcher of %s fell %d changes behind: watch again and read everything anew",
			f.name(), maxWaiting))
		return
	}
	f.waiting = append(f.waiting, event)
	f.size += len(event.Item.Value)
	f.signal()
}

// End ends the Feed, after what is in the queue, for the reason err.
func (f *Feed) End(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.end(err)
	}
}

// Events is Watcher's.
func (f *Feed) Events() <-chan Event {
	return f.events
}

// Err is Watcher's.
func (f *Feed) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Close is Watcher's.
func (f *Feed) Close() error {
	f.End(nil)
	f.closeOnce.Do(func() { close(f.closed) })
	return nil
}

func (f *Feed) end(err error) {
	f.ended, f.err = true, err
	f.signal()
}

func (f *Feed) signal() {
	select {
	case f.more <- struct{}{}:
	default:
	}
}

func (f *Feed) run(ctx context.Context) {
	defer f.release(f)
	defer close(f.events)
	for {
		batch, ended := f.take()
		for _, event := range batch {
			select {
			case f.events <- event:
			case <-f.closed:
				return
			case <-ctx.Done():
				f.End(trace.Wrap(ctx.Err()))
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-f.more:
		case <-ctx.Done():
			f.End(trace.Wrap(ctx.Err()))
			return
		}
	}
}

// take returns what waits, and whether nothing will follow.
func (f *Feed) take() (batch []Event, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	batch, f.waiting, f.size = f.waiting, nil, 0
	return batch, f.ended
}

func (f *Feed) wants(key string) bool {
	if len(f.prefixes) == 0 {
		return true
	}
	for _, prefix := range f.prefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func (f *Feed) name() string {
	if len(f.prefixes) == 0 {
		return "all keys"
	}
	return strings.Join(f.prefixes, ", ")
}
