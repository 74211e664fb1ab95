// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
)

func quiet() (*logrus.Logger, *logtest.Hook) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetLevel(logrus.DebugLevel)
	return log, logtest.NewLocal(log)
}

// messages are the lines of one level.
func messages(hook *logtest.Hook, level logrus.Level) []string {
	var lines []string
	for _, entry := range hook.AllEntries() {
		if entry.Level == level {
			lines = append(lines, entry.Message)
		}
	}
	return lines
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestEvents(t *testing.T) {
	ctx := testContext(t)
	log, _ := quiet()
	s := newSupervisor(log, clockwork.NewRealClock())

	// Who waits before the event and who waits after it get the same.
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			event, err := s.WaitForEvent(ctx, AuthReady)
			require.NoError(t, err)
			require.Equal(t, Event{Name: AuthReady, Payload: 1}, event)
		})
	}
	s.BroadcastEvent(Event{Name: AuthReady, Payload: 1})
	wait.Wait()

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.WaitForEvent(cancelled, NodeSSHReady)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, s.waiting[NodeSSHReady], "who has stopped waiting must be forgotten")

	s.mapEvents(TeleportReadyEvent, AuthReady, NodeSSHReady)
	s.start()
	require.NotContains(t, s.events, TeleportReadyEvent)
	s.BroadcastEvent(Event{Name: NodeSSHReady})
	_, err = s.WaitForEvent(ctx, TeleportReadyEvent)
	require.NoError(t, err)
	require.NoError(t, s.close(time.Minute))
}

func TestServiceThatFails(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(context.Context) error
		want  string
	}{
		"error": {func(context.Context) error { return trace.Wrap(trace.BadParameter("inner"), "outer") }, "the node service failed: outer: inner"},
		"panic": {func(context.Context) error { panic("out of\ncheese") }, "the node service failed: panic: out of: cheese"},
		"end":   {func(context.Context) error { return nil }, "the node service has ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			log, hook := quiet()
			s := newSupervisor(log, clockwork.NewRealClock())
			otherEnded := false
			s.register(service{name: "auth", serve: func(ctx context.Context) error {
				<-ctx.Done()
				otherEnded = true
				return nil
			}})
			s.register(service{name: "node", serve: test.serve})
			s.start()
			err := s.Wait(testContext(t))
			require.EqualError(t, err, test.want)
			require.NoError(t, s.close(time.Minute))
			require.True(t, otherEnded)

			// One line for everybody; a stack only for who debugs.
			require.Len(t, messages(hook, logrus.ErrorLevel), 1)
			if name == "panic" {
				require.Contains(t, messages(hook, logrus.DebugLevel)[0], "supervisor_test.go")
			}
		})
	}
}

func TestCloseInReverseOrder(t *testing.T) {
	log, _ := quiet()
	s := newSupervisor(log, clockwork.NewRealClock())
	var order []string
	for _, name := range []string{"auth", "proxy", "node"} {
		done := make(chan struct{})
		s.register(service{
			name:  name,
			serve: func(context.Context) error { <-done; return nil },
			close: func() error {
				order = append(order, name)
				close(done)
				return errors.New("complaint of the " + name)
			},
		})
	}
	s.start()
	err := s.close(time.Minute)
	require.Equal(t, []string{"node", "proxy", "auth"}, order)
	for _, name := range order {
		require.ErrorContains(t, err, "complaint of the "+name)
	}
}

// TestCloseInTime holds that a service that hangs is named, and keeps nobody.
func TestCloseInTime(t *testing.T) {
	log, _ := quiet()
	clock := clockwork.NewFakeClock()
	s := newSupervisor(log, clock)
	released := make(chan struct{})
	t.Cleanup(func() { close(released) })
	proxyClosed := make(chan struct{})
	s.register(service{name: "proxy", close: func() error { close(proxyClosed); return nil }})
	s.register(service{name: "node", serve: func(context.Context) error { <-released; return nil }})
	s.start()

	closed := make(chan error)
	go func() { closed <- s.close(closeTimeout) }()
	require.NoError(t, clock.BlockUntilContext(testContext(t), 1))
	clock.Advance(closeTimeout)
	require.EqualError(t, <-closed, "the node had not ended after 7s")
	<-proxyClosed
}

// steered is a process that only has a service of the test's.
func steered(svc service) (*Process, *logtest.Hook) {
	log, hook := quiet()
	clock := clockwork.NewRealClock()
	p := &Process{supervisor: newSupervisor(log, clock), log: log, clock: clock}
	p.register(svc)
	p.Start()
	return p, hook
}

func TestSignals(t *testing.T) {
	server := func(drain func(context.Context) error) service {
		done := make(chan struct{})
		return service{
			name:  "node",
			serve: func(context.Context) error { <-done; return nil },
			drain: drain,
			close: func() error { close(done); return nil },
		}
	}
	follow := func(p *Process, signals ...os.Signal) (chan error, chan<- os.Signal) {
		in := make(chan os.Signal)
		out := make(chan error, 1)
		go func() { out <- p.follow(t.Context(), in) }()
		for _, sig := range signals {
			in <- sig
		}
		return out, in
	}

	t.Run("SIGTERM ends in order", func(t *testing.T) {
		p, _ := steered(server(nil))
		ended, _ := follow(p, syscall.SIGTERM)
		require.NoError(t, <-ended)
	})
	t.Run("SIGPIPE does nothing, SIGHUP opens the log", func(t *testing.T) {
		p, hook := steered(server(nil))
		reopened := 0
		p.reopenLog = func() error {
			if reopened++; reopened == 2 {
				return trace.NotFound("the folder is gone")
			}
			return nil
		}
		ended, _ := follow(p, syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGHUP, syscall.SIGINT)
		require.NoError(t, <-ended)
		require.Equal(t, 2, reopened)
		require.Equal(t, []string{"The folder is gone."}, messages(hook, logrus.ErrorLevel))
	})
	t.Run("SIGQUIT waits for the sessions", func(t *testing.T) {
		sessions := make(chan struct{})
		p, hook := steered(server(func(context.Context) error { <-sessions; return nil }))
		ended, _ := follow(p, syscall.SIGQUIT, syscall.SIGQUIT)
		require.Empty(t, ended)
		close(sessions)
		require.NoError(t, <-ended)
		require.Contains(t, messages(hook, logrus.InfoLevel), "Drained.")
	})
	t.Run("SIGTERM ends a drain", func(t *testing.T) {
		p, _ := steered(server(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }))
		ended, _ := follow(p, syscall.SIGQUIT, syscall.SIGTERM)
		require.NoError(t, <-ended)
	})
	t.Run("the second SIGTERM ends at once", func(t *testing.T) {
		hang := make(chan struct{})
		t.Cleanup(func() { close(hang) })
		p, _ := steered(service{name: "node", close: func() error { <-hang; return nil }})
		ended, in := follow(p, syscall.SIGTERM)
		in <- syscall.SIGINT
		require.ErrorContains(t, <-ended, "ended at once by a second signal")
	})
	t.Run("a service that fails ends the rest", func(t *testing.T) {
		p, _ := steered(service{name: "node", serve: func(context.Context) error { panic("oops") }})
		ended, _ := follow(p)
		require.EqualError(t, <-ended, "the node service failed: panic: oops")
	})
}
