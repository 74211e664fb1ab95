// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The daemon's life as signals steer it.

import (
	"context"
	"os"
	"syscall"

	"github.com/gravitational/trace"
)

// Signals lists what Run wants to be told of.
//
// SIGPIPE is among them so that a log reader that goes away costs log lines and
// not the sessions. It must not be ignored instead: users' processes would
// inherit that.
func Signals() []os.Signal {
	return []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGPIPE}
}

// Run starts a Process and stays until it has ended.
//
//   - SIGTERM, SIGINT and the end of ctx end the sessions in order, within
//     10 s. Another SIGTERM or SIGINT then ends Run at once.
//   - SIGQUIT stops listening, waits for the sessions, and ends.
//   - SIGHUP opens the log file again, and reads the certificates of HTTPS again.
//
// The error is New's, that of a service that has failed, or says what could not
// be ended in order.
func Run(ctx context.Context, cfg Config, signals <-chan os.Signal) error {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		p   *Process
		err error
	}
	// A host that joins may wait long for an auth server.
	made := make(chan outcome, 1)
	go func() {
		p, err := New(ctx, cfg)
		made <- outcome{p, err}
	}()
	ending := false
	for {
		select {
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				if err := cfg.ReopenLog(); err != nil {
					cfg.Log.Errorf("%s.", sentence(err))
				}
			case sig == syscall.SIGPIPE:
			case ending:
				return trace.Errorf("ended at once by a second signal, before teleport had started")
			default:
				cfg.Log.Infof("Ending before everything has started: got %v.", sig)
				ending = true
				cancel()
			}
		case got := <-made:
			switch {
			case ending && got.err != nil:
				return nil // whatever it was that could not be started any more
			case ending:
				return trace.Wrap(got.p.Close())
			case got.err != nil:
				return trace.Wrap(got.err)
			}
			got.p.Start()
			return trace.Wrap(got.p.follow(ctx, signals))
		}
	}
}

func (p *Process) follow(ctx context.Context, signals <-chan os.Signal) error {
	var (
		cause    error
		draining bool
		drained  = make(chan error, 1)
		closed   = make(chan error, 1)
		ending   bool
		failed   = p.failed
		done     = ctx.Done()
	)
	drainCtx, stopDraining := context.WithCancel(context.Background())
	defer stopDraining()
	end := func() {
		ending, failed, done = true, nil, nil
		stopDraining()
		go func() { closed <- p.Close() }()
	}
	for {
		select {
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				if err := p.reopenLog(); err != nil {
					p.log.Errorf("%s.", sentence(err))
				} else {
					p.log.Info("Opened the log again.")
				}
				for _, reload := range p.reload {
					if err := reload(); err != nil {
						p.log.Errorf("%s.", sentence(err))
					}
				}
			case syscall.SIGQUIT:
				if ending || draining {
					continue
				}
				draining = true
				p.log.Info("Draining: not listening any more, and waiting for the sessions to end. SIGTERM ends them.")
				go func() { drained <- p.Drain(drainCtx) }()
			case syscall.SIGTERM, syscall.SIGINT:
				if ending {
					return together(cause, trace.Errorf("ended at once by a second signal: sessions that were still open end without waiting"))
				}
				p.log.Infof("Ending the sessions: got %v. Another one ends them at once.", sig)
				end()
			}
		case <-done:
			p.log.Info("Ending the sessions.")
			end()
		case cause = <-failed:
			p.log.Error("Ending the other services.")
			end()
		case err := <-drained:
			if ending {
				continue
			}
			if err != nil {
				cause = err
			} else {
				p.log.Info("Drained.")
			}
			end()
		case err := <-closed:
			if err := together(cause, err); err != nil {
				return trace.Wrap(err)
			}
			p.log.Info("Teleport has ended.")
			return nil
		}
	}
}
