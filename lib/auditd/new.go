// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
)

// Mode says how much a login depends on its record.
type Mode string

const (
	// ModeAuto writes records where the kernel takes them, and a login goes on
	// where it does not. It is the default.
	ModeAuto Mode = "auto"
	// ModeRequired lets nobody in whose record cannot be written.
	ModeRequired Mode = "required"
	// ModeOff writes nothing.
	ModeOff Mode = "off"
)

// ParseMode reads a mode as it stands in a configuration; empty is ModeAuto.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return ModeAuto, nil
	case ModeAuto, ModeRequired, ModeOff:
		return m, nil
	}
	return "", fmt.Errorf("%q is no auditd mode: use %s, %s or %s", s, ModeAuto, ModeRequired, ModeOff)
}

// Config is what New needs. The zero value works.
type Config struct {
	// Mode is ModeAuto where it is empty.
	Mode Mode
	// Executable is the path that records carry in exe, that of the running
	// program where it is empty.
	Executable string
	// Poll is how often the kernel's status is read, so that a switch of
	// auditing is logged soon after it was made. Zero reads it only when New
	// runs and at events, which is enough for the records to be right.
	Poll time.Duration
	// Dial opens a socket to the kernel. Tests put another kernel here; nil is
	// the real one.
	Dial func() (Socket, error)
	// Log takes one line for what was picked and one for each change. Nil logs
	// nothing.
	Log logrus.FieldLogger
	// Clock drives Poll. Nil is the real clock.
	Clock clockwork.Clock

	// permitted says why this process may not write to the kernel behind Dial.
	permitted func() error
}

// CheckAndSetDefaults fills in what was left out.
func (c *Config) CheckAndSetDefaults() error {
	mode, err := ParseMode(string(c.Mode))
	if err != nil {
		return err
	}
	c.Mode = mode
	if c.Executable == "" {
		if c.Executable, err = os.Executable(); err != nil {
			return fmt.Errorf("finding the path of this program for its audit records: %w", err)
		}
	}
	if c.Poll < 0 {
		return fmt.Errorf("auditd poll interval %v is negative", c.Poll)
	}
	if c.Dial == nil {
		c.Dial, c.permitted = dialKernel, canWrite
	}
	if c.permitted == nil {
		// Capabilities speak for the real kernel; another one is asked.
		c.permitted = func() error { return nil }
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	return nil
}

// New returns the Emitter that this kernel and this process allow: the one that
// sends each record over netlink, or the no-op where the kernel has no
// auditing, has it switched off, or does not take records from this process.
// Which one, and why, is one line in the log.
//
// What was picked follows the kernel: switched on or off later, the next event
// is written or dropped accordingly.
//
// The errors are those of a wrong Config; a kernel without auditing is none.
func New(cfg Config) (Emitter, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, err
	}
	if cfg.Mode == ModeOff {
		if cfg.Log != nil {
			cfg.Log.Info("Audit records are off: teleport.auditd.mode is off.")
		}
		return Discard{}, nil
	}
	f := &follower{cfg: cfg, netlink: newNetlink(cfg.Dial, cfg.Executable), stop: make(chan struct{})}
	var why error
	// Where nobody hears what was picked, the first event finds out. That spares
	// a process that writes a few records and ends a wait for the kernel.
	if cfg.Log != nil || cfg.Poll > 0 {
		why, _ = f.look()
		f.logPick(why)
	}
	f.why.Store(&why)
	if cfg.Poll > 0 {
		go f.poll(cfg.Clock.NewTicker(cfg.Poll))
	}
	return f, nil
}

// Discard is the no-op Emitter: it drops every event.
type Discard struct{}

// Emit drops the event.
func (Discard) Emit(context.Context, Event) error { return nil }

// Close does nothing.
func (Discard) Close() error { return nil }

// follower is the Emitter that New returns: netlink while records can be
// written, the no-op while they cannot.
type follower struct {
	cfg     Config
	netlink *netlink
	// why holds the reason for the no-op, a nil error while netlink is picked.
	why      atomic.Pointer[error]
	stop     chan struct{}
	stopOnce sync.Once
}

// look asks the kernel for the reason not to send; known is false where it did
// not say. The status only says whether auditing is switched on: a process that
// may not read it may still write, so that case ends in a look at its
// capabilities.
func (f *follower) look() (why error, known bool) {
	status, err := f.netlink.status()
	switch {
	case err == nil && !status.Enabled():
		return ErrDisabled, true
	case errors.Is(err, errOpen) && errors.Is(err, ErrNotPermitted):
		return ErrNotPermitted, true
	case err == nil, errors.Is(err, ErrNotPermitted):
		return f.cfg.permitted(), true
	case errors.Is(err, ErrAbsent):
		return absence(), true
	case errors.Is(err, ErrUserNamespace):
		return ErrUserNamespace, true
	}
	// Sending finds out more than guessing would.
	return nil, false
}

// refresh looks again and logs what changed. What could not be found out
// changes nothing but for this once.
func (f *follower) refresh() error {
	why, known := f.look()
	if known {
		f.pick(why)
	}
	return why
}

// pick takes a new reason, and logs it if it is not of the same kind as the old.
func (f *follower) pick(why error) {
	old := f.why.Swap(&why)
	if kind(*old) != kind(why) {
		f.logPick(why)
	}
}

// kind returns the exported error that a reason is of: two senders that find out
// the same thing bring two errors.
func kind(why error) error {
	for _, k := range []error{ErrDisabled, ErrAbsent, ErrUserNamespace, ErrNotPermitted} {
		if errors.Is(why, k) {
			return k
		}
	}
	return why
}

func (f *follower) logPick(why error) {
	if f.cfg.Log == nil {
		return
	}
	switch {
	case why == nil:
		f.cfg.Log.Info("Audit records go to the kernel.")
	case f.cfg.Mode == ModeRequired:
		f.cfg.Log.Errorf("Audit records are not written, and teleport.auditd.mode is required, so nobody can log in: %v.", why)
	case errors.Is(why, ErrNotPermitted):
		f.cfg.Log.Warnf("Audit records are not written: %v.", why)
	default:
		f.cfg.Log.Infof("Audit records are not written: %v.", why)
	}
}

// Emit sends the event, or drops it while there is a reason to.
func (f *follower) Emit(ctx context.Context, event Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !event.Type.known() {
		return fmt.Errorf("auditd writes no records of type %v", event.Type)
	}
	why := *f.why.Load()
	// Only this reason can go away while the process lives, and looking costs
	// less than missing the first login after auditctl -e 1. It can come while
	// the process lives, too, and the kernel acknowledges then what it drops.
	if errors.Is(why, ErrDisabled) || why == nil && f.cfg.Mode == ModeRequired {
		why = f.refresh()
	}
	if why == nil {
		err := f.netlink.emit(&event)
		switch {
		case errors.Is(err, ErrNotPermitted), errors.Is(err, ErrUserNamespace):
			why = kind(err)
			f.pick(why)
		case errors.Is(err, ErrAbsent):
			why = absence()
			f.pick(why)
		default:
			return err
		}
	}
	if f.cfg.Mode == ModeRequired {
		return why
	}
	return nil
}

func (f *follower) poll(ticker clockwork.Ticker) {
	defer ticker.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-ticker.Chan():
			why := *f.why.Load()
			if why == nil || errors.Is(why, ErrDisabled) {
				_ = f.refresh()
			}
		}
	}
}

// Close ends the polling and closes the socket. It does not wait for a poll that
// the kernel holds back: that one closes its own socket when it comes back.
func (f *follower) Close() error {
	f.stopOnce.Do(func() { close(f.stop) })
	return f.netlink.close()
}
