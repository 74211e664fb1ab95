// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
)

// QueueConfig is what NewQueue needs.
type QueueConfig struct {
	// Emitter writes the records. The Queue closes it.
	Emitter Emitter
	// Size is how many events may wait; 1,024 where it is zero.
	Size int
	// CloseTimeout is how long Close lets the events that wait go out; 5 s
	// where it is zero.
	CloseTimeout time.Duration
	// Log takes at most one line a minute about records that were not written;
	// logrus's standard logger where it is nil.
	Log logrus.FieldLogger
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
}

// CheckAndSetDefaults fills in what was left out.
func (c *QueueConfig) CheckAndSetDefaults() error {
	if c.Emitter == nil {
		return errors.New("auditd.QueueConfig has no Emitter")
	}
	if c.Size < 0 || c.CloseTimeout < 0 {
		return fmt.Errorf("auditd.QueueConfig has a negative Size %d or CloseTimeout %v", c.Size, c.CloseTimeout)
	}
	if c.Size == 0 {
		c.Size = 1024
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	return nil
}

// Queue is an Emitter for whoever must not wait: Emit returns at once, and one
// goroutine writes the records in the order in which they came.
//
// The records carry the ids of whatever thread writes them, so a login's own
// records do not go through a Queue.
type Queue struct {
	cfg    QueueConfig
	events chan Event
	// pending counts the events that were put in and not yet written.
	pending   atomic.Int64
	tally     *Tally
	closeOnce sync.Once
	closed    chan struct{}
	done      chan struct{}
}

// NewQueue starts a Queue. It owns cfg.Emitter from here on.
func NewQueue(cfg QueueConfig) (*Queue, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, err
	}
	q := &Queue{
		cfg:    cfg,
		events: make(chan Event, cfg.Size),
		tally:  NewTally(cfg.Log, cfg.Clock),
		closed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	go q.send()
	return q, nil
}

// Emit puts the event into the queue. It never waits. The error is ErrQueueFull;
// what the kernel answers later is counted in the Tally.
func (q *Queue) Emit(_ context.Context, event Event) error {
	q.pending.Add(1)
	select {
	case q.events <- event:
		return nil
	default:
		q.pending.Add(-1)
		q.tally.Count(ErrQueueFull)
		return ErrQueueFull
	}
}

// Tally is where this queue counts what was not written.
func (q *Queue) Tally() *Tally { return q.tally }

func (q *Queue) send() {
	defer close(q.done)
	write := func(event Event) {
		defer q.pending.Add(-1)
		if err := q.cfg.Emitter.Emit(context.Background(), event); err != nil {
			q.tally.Count(err)
		}
	}
	for {
		select {
		case event := <-q.events:
			write(event)
			continue
		case <-q.closed:
		}
		// What was put in before Close goes out as well.
		for {
			select {
			case event := <-q.events:
				write(event)
			default:
				return
			}
		}
	}
}

// Close lets the events that wait go out, for at most CloseTimeout, and closes
// the Emitter. What the kernel holds back for longer is lost, and said.
func (q *Queue) Close() error {
	q.closeOnce.Do(func() { close(q.closed) })
	defer q.tally.Close()
	select {
	case <-q.done:
		return q.cfg.Emitter.Close()
	case <-q.cfg.Clock.After(q.cfg.CloseTimeout):
		// The sender may be inside sendto(2), which nothing ends; it keeps
		// the socket that it uses.
		return fmt.Errorf("the kernel still held back %d audit records when the program ended (is auditd stuck?)", q.pending.Load())
	}
}
