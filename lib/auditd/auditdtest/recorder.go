// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package auditdtest gives tests an Emitter that remembers (Recorder) and, on
// Linux, a kernel that answers as it is told (Kernel), so that what a kernel
// cannot be made to say safely, such as auditing locked until reboot, is said
// at the socket.
package auditdtest

import (
	"context"
	"sync"

	"teleport-auditd/lib/auditd"
)

// Recorder is an Emitter that keeps every event. The zero value works, from
// several goroutines at once.
type Recorder struct {
	mu      sync.Mutex
	events  []auditd.Event
	err     error
	closed  bool
	changed chan struct{}
}

// Emit keeps the event, and returns what Fail was given.
func (r *Recorder) Emit(_ context.Context, event auditd.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	return r.err
}

// Close remembers that it was called.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// Fail makes each Emit from now on return err, nil for success.
func (r *Recorder) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Events returns a copy of what was emitted so far, in order.
func (r *Recorder) Events() []auditd.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]auditd.Event(nil), r.events...)
}

// Closed tells whether Close was called.
func (r *Recorder) Closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Wait returns the events as soon as there are at least n, or those that there
// are when ctx ends, with its error.
func (r *Recorder) Wait(ctx context.Context, n int) ([]auditd.Event, error) {
	for {
		r.mu.Lock()
		if len(r.events) >= n {
			events := append([]auditd.Event(nil), r.events...)
			r.mu.Unlock()
			return events, nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return r.Events(), ctx.Err()
		}
	}
}
