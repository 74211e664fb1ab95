// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"errors"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
)

// tallyInterval is the least time between two lines of a Tally.
const tallyInterval = time.Minute

// Counts says how many records were not written, by what is known of them.
type Counts struct {
	// Dropped did not fit into a queue.
	Dropped uint64
	// Unknown were not acknowledged: they may have been written.
	Unknown uint64
	// Refused were answered with an error.
	Refused uint64
}

// Tally counts records that were not written and says so in the log: the first
// at once, and then at most one line a minute with what has come since.
type Tally struct {
	log   logrus.FieldLogger
	clock clockwork.Clock

	mu      sync.Mutex
	total   Counts
	logged  Counts
	last    error
	timer   clockwork.Timer
	closed  bool
	waiting bool
}

// NewTally returns an empty Tally.
func NewTally(log logrus.FieldLogger, clock clockwork.Clock) *Tally {
	return &Tally{log: log, clock: clock}
}

// Count counts one record that was not written because of err.
func (t *Tally) Count(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case errors.Is(err, ErrQueueFull):
		t.total.Dropped++
	case errors.Is(err, ErrUnknownOutcome):
		t.total.Unknown++
	default:
		t.total.Refused++
	}
	t.last = err
	if t.waiting || t.closed {
		return
	}
	t.say()
	t.waiting = true
	t.timer = t.clock.AfterFunc(tallyInterval, t.elapsed)
}

// Counts returns what was counted so far.
func (t *Tally) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

func (t *Tally) elapsed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = false
	if t.closed || t.total == t.logged {
		return
	}
	t.say()
	t.waiting = true
	t.timer = t.clock.AfterFunc(tallyInterval, t.elapsed)
}

// say writes the line. The caller holds the lock.
func (t *Tally) say() {
	since := Counts{
		Dropped: t.total.Dropped - t.logged.Dropped,
		Unknown: t.total.Unknown - t.logged.Unknown,
		Refused: t.total.Refused - t.logged.Refused,
	}
	t.logged = t.total
	t.log.WithFields(logrus.Fields{
		"dropped": since.Dropped,
		"unknown": since.Unknown,
		"refused": since.Refused,
	}).Warnf("Audit records were not written; the last one because: %v.", t.last)
}

// Close logs what was counted and not yet said, and stops the Tally's timer.
func (t *Tally) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	if !t.closed && t.total != t.logged {
		t.say()
	}
	t.closed = true
}
