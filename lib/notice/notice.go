// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package notice says in the log what strangers can make happen as often as they
// like: at once, and then at most once a minute with how often since.
package notice

import (
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
)

// interval is the least time between two lines of a Notice.
const interval = time.Minute

// Notice is one thing that may happen, and its line. It may be used by several
// goroutines at once.
type Notice struct {
	clock clockwork.Clock
	say   func(times int, last error)

	mu     sync.Mutex
	times  int
	last   error
	timer  clockwork.Timer // nil where nothing was said within the interval
	closed bool
}

// New returns a Notice that calls say with how often it happened since the last
// line, and with the error that came last.
func New(clock clockwork.Clock, say func(times int, last error)) *Notice {
	return &Notice{clock: clock, say: say}
}

// Happened counts it once more, and says so if it is time to.
func (n *Notice) Happened(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.times++
	n.last = err
	if n.timer == nil || n.closed {
		n.tell()
	}
}

// tell writes the line and starts the interval. The caller holds the lock.
func (n *Notice) tell() {
	n.say(n.times, n.last)
	n.times = 0
	if !n.closed {
		n.timer = n.clock.AfterFunc(interval, n.elapsed)
	}
}

func (n *Notice) elapsed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = nil
	if n.times > 0 && !n.closed {
		n.tell()
	}
}

// Close says what was counted and not yet said.
func (n *Notice) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
		n.timer = nil
	}
	n.closed = true
	if n.times > 0 {
		n.tell()
	}
}
