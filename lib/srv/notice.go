// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
)

// noticeInterval is the least time between two lines of a notice.
const noticeInterval = time.Minute

// notice says in the log what strangers can make happen as often as they like:
// the first time at once, and then at most once a minute how often since.
type notice struct {
	clock clockwork.Clock
	say   func(times int, last error)

	mu     sync.Mutex
	times  int
	last   error
	timer  clockwork.Timer // nil where nothing was said within the interval
	closed bool
}

func newNotice(clock clockwork.Clock, say func(times int, last error)) *notice {
	return &notice{clock: clock, say: say}
}

// happened counts it once more, and says so if it is time to.
func (n *notice) happened(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.times++
	n.last = err
	if n.timer == nil || n.closed {
		n.tell()
	}
}

// tell writes the line and starts the interval. The caller holds the lock.
func (n *notice) tell() {
	n.say(n.times, n.last)
	n.times = 0
	if !n.closed {
		n.timer = n.clock.AfterFunc(noticeInterval, n.elapsed)
	}
}

func (n *notice) elapsed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = nil
	if n.times > 0 && !n.closed {
		n.tell()
	}
}

// close says what was counted and not yet said.
func (n *notice) close() {
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
