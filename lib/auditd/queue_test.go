// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
)

// patience bounds the wait for another goroutine.
const patience = 10 * time.Second

// stuck is an Emitter that the kernel holds back until release is closed.
type stuck struct {
	auditdtest.Recorder
	entered chan struct{}
	release chan struct{}
}

func newStuck() *stuck {
	return &stuck{entered: make(chan struct{}, 100), release: make(chan struct{})}
}

func (s *stuck) Emit(ctx context.Context, event auditd.Event) error {
	s.entered <- struct{}{}
	<-s.release
	return s.Recorder.Emit(ctx, event)
}

func event(i int) auditd.Event {
	return auditd.Event{Type: auditd.AuditUserErr, SystemUser: fmt.Sprint(i)}
}

func names(events []auditd.Event) (all []string) {
	for _, e := range events {
		all = append(all, e.SystemUser)
	}
	return all
}

func TestQueueKeepsTheOrder(t *testing.T) {
	emitter := new(auditdtest.Recorder)
	q, err := auditd.NewQueue(auditd.QueueConfig{Emitter: emitter})
	require.NoError(t, err)
	var want []string
	for i := range 500 {
		require.NoError(t, q.Emit(t.Context(), event(i)))
		want = append(want, fmt.Sprint(i))
	}
	require.NoError(t, q.Close())
	require.Equal(t, want, names(emitter.Events()))
}

func TestQueue(t *testing.T) {
	const size, sent = 2, 5
	log, hook := logtest.NewNullLogger()
	emitter := newStuck()
	q, err := auditd.NewQueue(auditd.QueueConfig{Emitter: emitter, Size: size, Log: log, Clock: clockwork.NewFakeClock()})
	require.NoError(t, err)

	// Nothing but Emit runs here while the kernel holds the first one back:
	// that it returns shows that it does not wait.
	for i := range sent {
		err := q.Emit(t.Context(), event(i))
		if i > size {
			require.ErrorIs(t, err, auditd.ErrQueueFull)
			continue
		}
		require.NoError(t, err)
		if i == 0 {
			<-emitter.entered
		}
	}
	require.Equal(t, auditd.Counts{Dropped: sent - size - 1}, q.Tally().Counts())
	require.Len(t, hook.AllEntries(), 1, "the first at once, the next after a minute")

	close(emitter.release)
	require.NoError(t, q.Close())
	require.NoError(t, q.Close(), "closing twice does no harm")
	require.Equal(t, []string{"0", "1", "2"}, names(emitter.Events()), "Close drains, in order")
	require.True(t, emitter.Closed())
	require.Equal(t, uint64(1), hook.LastEntry().Data["dropped"], "Close says the rest")
}

func TestQueueCloseWithAStuckKernel(t *testing.T) {
	clock, emitter := clockwork.NewFakeClock(), newStuck()
	q, err := auditd.NewQueue(auditd.QueueConfig{Emitter: emitter, CloseTimeout: 3 * time.Second, Clock: clock})
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, q.Emit(t.Context(), event(i)))
	}
	<-emitter.entered
	closed := make(chan error, 1)
	go func() { closed <- q.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, clock.BlockUntilContext(ctx, 1))
	clock.Advance(3*time.Second - 1)
	require.Empty(t, closed)
	clock.Advance(1)
	require.ErrorContains(t, <-closed, "3 audit records")
	close(emitter.release)
}

func TestQueueCountsWhatTheKernelSays(t *testing.T) {
	for _, c := range []struct {
		err  error
		want auditd.Counts
	}{
		{nil, auditd.Counts{}},
		{fmt.Errorf("%w: ENOBUFS", auditd.ErrUnknownOutcome), auditd.Counts{Unknown: 3}},
		{auditd.ErrDisabled, auditd.Counts{Refused: 3}},
		{errors.New("no memory"), auditd.Counts{Refused: 3}},
	} {
		log, hook := logtest.NewNullLogger()
		emitter := new(auditdtest.Recorder)
		emitter.Fail(c.err)
		q, err := auditd.NewQueue(auditd.QueueConfig{Emitter: emitter, Log: log})
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, q.Emit(t.Context(), event(i)))
		}
		require.NoError(t, q.Close())
		require.Equal(t, c.want, q.Tally().Counts())
		if c.err != nil {
			require.Len(t, hook.AllEntries(), 2)
			require.Contains(t, hook.LastEntry().Message, c.err.Error())
		}
	}
}

func TestQueueConfig(t *testing.T) {
	for _, cfg := range []auditd.QueueConfig{
		{},
		{Emitter: auditd.Discard{}, Size: -1},
		{Emitter: auditd.Discard{}, CloseTimeout: -1},
	} {
		_, err := auditd.NewQueue(cfg)
		require.Error(t, err)
	}
}

func TestTally(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	clock := clockwork.NewFakeClock()
	tally := auditd.NewTally(log, clock)
	said := func(n int, dropped, unknown, refused uint64) {
		t.Helper()
		require.Eventually(t, func() bool { return len(hook.AllEntries()) == n }, patience, time.Millisecond)
		require.Equal(t, logrus.Fields{"dropped": dropped, "unknown": unknown, "refused": refused}, hook.LastEntry().Data)
	}

	tally.Count(auditd.ErrQueueFull)
	said(1, 1, 0, 0)
	for range 1000 {
		tally.Count(auditd.ErrQueueFull)
	}
	tally.Count(auditd.ErrUnknownOutcome)
	tally.Count(errors.New("no memory"))
	clock.Advance(time.Minute - 1)
	said(1, 1, 0, 0)
	clock.Advance(1)
	said(2, 1000, 1, 1)
	require.Contains(t, hook.LastEntry().Message, "no memory")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, clock.BlockUntilContext(ctx, 1), "the next minute has begun")
	clock.Advance(time.Minute) // nothing new: nothing said
	tally.Count(auditd.ErrUnknownOutcome)
	said(3, 0, 1, 0)

	tally.Count(auditd.ErrQueueFull)
	tally.Close()
	said(4, 1, 0, 0)
	tally.Close()
	tally.Count(auditd.ErrQueueFull)
	clock.Advance(time.Hour)
	said(4, 1, 0, 0)
	require.Equal(t, auditd.Counts{Dropped: 1003, Unknown: 2, Refused: 1}, tally.Counts())
}
