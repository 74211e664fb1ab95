// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The supervisor: named services that start, fail and end together, and the
// events by which they tell each other.

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
)

// Event says that something has happened that others wait for.
type Event struct {
	// Name is one of this package's constants, or an embedding program's own.
	Name string
	// Payload belongs to the event; the constants say what it is.
	Payload any
}

// service is one thing that runs.
type service struct {
	// name is for log lines and errors.
	name string
	// serve runs until close is called or ctx is cancelled, and then returns
	// nil. It is nil where there is only something to close.
	serve func(ctx context.Context) error
	// drain waits until the service has ended by itself. Nil has nothing that
	// could be waited for.
	drain func(ctx context.Context) error
	// close makes serve return, where the end of its ctx does not.
	close func() error
}

type supervisor struct {
	log   logrus.FieldLogger
	clock clockwork.Clock
	// ctx is every serve's. It ends when close begins.
	ctx    context.Context
	cancel context.CancelFunc
	failed chan error

	mu       sync.Mutex
	services []service
	running  map[string]chan struct{}
	ending   bool
	events   map[string]Event
	waiting  map[string][]chan Event
}

func newSupervisor(log logrus.FieldLogger, clock clockwork.Clock) *supervisor {
	ctx, cancel := context.WithCancel(context.Background())
	return &supervisor{
		log:     log,
		clock:   clock,
		ctx:     ctx,
		cancel:  cancel,
		failed:  make(chan error, 1),
		running: map[string]chan struct{}{},
		events:  map[string]Event{},
		waiting: map[string][]chan Event{},
	}
}

// register adds a service. It must be called before start.
func (s *supervisor) register(svc service) {
	s.services = append(s.services, svc)
}

func (s *supervisor) start() {
	for _, svc := range s.services {
		if svc.serve == nil {
			continue
		}
		ended := make(chan struct{})
		s.mu.Lock()
		s.running[svc.name] = ended
		s.mu.Unlock()
		go func() {
			defer close(ended)
			s.ended(svc.name, s.serve(svc))
		}()
	}
}

// serve turns a panic into an error: one service's mistake must not keep the
// others from ending their sessions in order.
func (s *supervisor) serve(svc service) (err error) {
	defer func() {
		if value := recover(); value != nil {
			s.log.WithField("component", svc.name).Debugf("Stack of the panic: %s", debug.Stack())
			err = trace.Errorf("panic: %s", fmt.Sprint(value))
		}
	}()
	return svc.serve(s.ctx)
}

// ended reports a service that was not told to end.
func (s *supervisor) ended(name string, err error) {
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	switch {
	case err != nil:
		err = trace.Errorf("the %s service failed: %s", name, OneLine(err))
	case ending:
		return
	default:
		err = trace.Errorf("the %s service has ended by itself", name)
	}
	s.log.WithField("component", name).Errorf("%s.", sentence(err))
	select {
	case s.failed <- err:
	default: // the first one is what ended the process
	}
}

// Wait returns the error of the first service that ends without being told to,
// or ctx's.
func (s *supervisor) Wait(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return trace.Wrap(err)
	case <-ctx.Done():
		return trace.Wrap(ctx.Err())
	}
}

// BroadcastEvent tells everybody who waits for the event, now or later.
func (s *supervisor) BroadcastEvent(event Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.WithField("event", event.Name).Debug("Broadcasting an event.")
	s.events[event.Name] = event
	for _, waiter := range s.waiting[event.Name] {
		waiter <- event
	}
	delete(s.waiting, event.Name)
}

// WaitForEvent returns the last event of that name, at once where there was
// one. The error is ctx's.
func (s *supervisor) WaitForEvent(ctx context.Context, name string) (Event, error) {
	s.mu.Lock()
	event, ok := s.events[name]
	waiter := make(chan Event, 1)
	if !ok {
		s.waiting[name] = append(s.waiting[name], waiter)
	}
	s.mu.Unlock()
	if ok {
		return event, nil
	}
	select {
	case event := <-waiter:
		return event, nil
	case <-ctx.Done():
		s.forget(name, waiter)
		return Event{}, trace.Wrap(ctx.Err(), "waiting for the event %s", name)
	}
}

func (s *supervisor) forget(name string, waiter chan Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.waiting[name] {
		if w == waiter {
			s.waiting[name] = append(s.waiting[name][:i:i], s.waiting[name][i+1:]...)
			return
		}
	}
}

// mapEvents registers a service that broadcasts out once all of in have come.
func (s *supervisor) mapEvents(out string, in ...string) {
	s.register(service{name: out, serve: func(ctx context.Context) error {
		for _, name := range in {
			if _, err := s.WaitForEvent(ctx, name); err != nil {
				return nil // the process ends before it was ready
			}
		}
		s.BroadcastEvent(Event{Name: out})
		s.log.Info("Teleport is ready.")
		<-ctx.Done()
		return nil
	}})
}

// drain lets the services end that can, all at once: one of them may be waiting
// for what another has open.
func (s *supervisor) drain(ctx context.Context) error {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, svc := range s.services {
		if svc.drain == nil {
			continue
		}
		wait.Go(func() {
			if err := svc.drain(ctx); err != nil {
				mu.Lock()
				errs = append(errs, trace.Wrap(err, "draining the %s", svc.name))
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return together(errs...)
}

// close ends the services in the reverse of their order. Those that have not
// ended in time are named and left: they end with the process.
func (s *supervisor) close(timeout time.Duration) error {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()

	s.cancel()

	deadline := s.clock.After(timeout)
	late := false
	var errs []error
	for i := len(s.services) - 1; i >= 0; i-- {
		svc := s.services[i]
		done := make(chan error, 1)
		go func() {
			var err error
			if svc.close != nil {
				err = svc.close()
			}
			s.mu.Lock()
			ended := s.running[svc.name]
			s.mu.Unlock()
			if ended != nil {
				<-ended
			}
			done <- err
		}()
		if late {
			continue
		}
		select {
		case err := <-done:
			if err != nil {
				errs = append(errs, trace.Wrap(err, "ending the %s", svc.name))
			}
		case <-deadline:
			late = true
			errs = append(errs, trace.LimitExceeded("the %s had not ended after %v", svc.name, timeout))
		}
	}
	return together(errs...)
}
