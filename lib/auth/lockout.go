// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The lockout: after a few failed logins as a user, further ones are refused
// for a while. Names that no user has are counted like others, so that the
// lockout does not tell who exists.

package auth

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/backend"
)

const (
	// MaxLoginFailures is how many logins may fail within LoginFailureWindow
	// before the user is locked out for LockoutPeriod.
	MaxLoginFailures   = 5
	LoginFailureWindow = 20 * time.Minute
	LockoutPeriod      = 20 * time.Minute

	loginAttemptsPrefix = "/login_attempts/"

	// attemptTimeout is when an attempt of which no end was heard counts as
	// failed: its auth server died.
	attemptTimeout = time.Minute
	// attemptWait is how long one waits for others that have not ended yet,
	// looking again every attemptRetry.
	attemptWait  = 10 * time.Second
	attemptRetry = 50 * time.Millisecond

	// maxSwaps bounds the tries to change an item that others change, too.
	maxSwaps = 100
)

// loginAttempts is the item under /login_attempts/<user>. An attempt is written
// down before the password is looked at: who tries a thousand at once gets no
// more than MaxLoginFailures of them looked at.
type loginAttempts struct {
	Failures    []time.Time          `json:"failures,omitempty"`
	Pending     map[string]time.Time `json:"pending,omitempty"`
	LockedUntil time.Time            `json:"locked_until"`
}

// settle forgets what is long past, counts attempts without an end as failed,
// and locks where that makes too many.
func (a *loginAttempts) settle(now time.Time) {
	for id, began := range a.Pending {
		if now.Sub(began) >= attemptTimeout {
			delete(a.Pending, id)
			a.Failures = append(a.Failures, began)
		}
	}
	a.Failures = slices.DeleteFunc(a.Failures, func(at time.Time) bool { return now.Sub(at) >= LoginFailureWindow })
	if len(a.Failures) >= MaxLoginFailures {
		a.Failures = nil
		a.LockedUntil = now.Add(LockoutPeriod)
	}
}

func (a *loginAttempts) locked(now time.Time) bool { return now.Before(a.LockedUntil) }

// changeAttempts applies change to the user's attempts, whoever else changes
// them at the same moment. Where change returns an error nothing is written.
func (c *Credentials) changeAttempts(ctx context.Context, user string, change func(now time.Time, attempts *loginAttempts) error) error {
	key := loginAttemptsPrefix + escapeKey(user)
	for try := range maxSwaps {
		if try > 0 {
			// Real time: it only keeps the competitors apart.
			select {
			case <-time.After(rand.N(10 * time.Millisecond)):
			case <-ctx.Done():
				return trace.Wrap(ctx.Err())
			}
		}
		now := c.clock.Now().UTC()
		var attempts loginAttempts
		item, err := c.backend.Get(ctx, key)
		switch {
		case trace.IsNotFound(err):
			item = backend.Item{Key: key}
		case err != nil:
			return trace.Wrap(err)
		default:
			if err := json.Unmarshal(item.Value, &attempts); err != nil {
				return trace.Wrap(err, "reading the failed logins of %q: clear them with tctl users reset", user)
			}
		}
		if attempts.Pending == nil {
			attempts.Pending = make(map[string]time.Time)
		}
		attempts.settle(now)
		if err := change(now, &attempts); err != nil {
			return trace.Wrap(err)
		}
		attempts.settle(now)
		if item.Value, err = json.Marshal(attempts); err != nil {
			return trace.Wrap(err)
		}
		// By then nothing in it counts any more. The clocks of two auth
		// servers may differ a little.
		item.Expires = now.Add(max(LoginFailureWindow, LockoutPeriod) + time.Minute)
		switch {
		case item.Revision == "":
			err = c.backend.Create(ctx, item)
		case len(attempts.Failures) == 0 && len(attempts.Pending) == 0 && !attempts.locked(now):
			err = c.backend.CompareAndDelete(ctx, key, item.Revision)
		default:
			_, err = c.backend.CompareAndSwap(ctx, item)
		}
		if !trace.IsCompareFailed(err) && !trace.IsAlreadyExists(err) {
			return trace.Wrap(err)
		}
	}
	return refuse("too-many-logins-at-once", trace.LimitExceeded(login.TooManyAtOnce))
}

// beginAttempt writes down that somebody tries to log in as user. The id is for
// endAttempt. The error is a refusal where the user is locked out.
func (c *Credentials) beginAttempt(ctx context.Context, user string) (id string, err error) {
	id = uuid.NewString()
	deadline := c.clock.Now().Add(attemptWait)
	for {
		full := false
		err := c.changeAttempts(ctx, user, func(now time.Time, attempts *loginAttempts) error {
			full = false
			if attempts.locked(now) {
				minutes := (attempts.LockedUntil.Sub(now) + time.Minute - 1) / time.Minute
				return refuse("user-is-locked-out", trace.LimitExceeded("too many failed logins: try again in %d min, or ask an administrator for a reset", minutes))
			}
			if full = len(attempts.Failures)+len(attempts.Pending) >= MaxLoginFailures; full {
				return refuse("too-many-logins-at-once", trace.LimitExceeded(login.TooManyAtOnce))
			}
			attempts.Pending[id] = now
			return nil
		})
		if !full || err == nil {
			return id, trace.Wrap(err)
		}
		if !c.clock.Now().Before(deadline) {
			return "", trace.Wrap(err)
		}
		select {
		case <-c.clock.After(attemptRetry):
		case <-ctx.Done():
			return "", trace.Wrap(ctx.Err())
		}
	}
}

// outcome is how an attempt ended.
type outcome int

const (
	// attemptUndecided is for one that did not come so far: it does not count.
	attemptUndecided outcome = iota
	attemptFailed
	attemptSucceeded
)

// endAttempt writes down how the attempt ended. It does so also where the
// client has gone away.
func (c *Credentials) endAttempt(ctx context.Context, user, id string, how outcome) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptWait)
	defer cancel()
	return trace.Wrap(c.changeAttempts(ctx, user, func(now time.Time, attempts *loginAttempts) error {
		delete(attempts.Pending, id)
		switch how {
		case attemptFailed:
			attempts.Failures = append(attempts.Failures, now)
		case attemptSucceeded:
			attempts.Failures = nil
		}
		return nil
	}))
}

// ClearLoginFailures ends a lockout, and forgets failed logins as user.
func (c *Credentials) ClearLoginFailures(ctx context.Context, user string) error {
	err := c.backend.Delete(ctx, loginAttemptsPrefix+escapeKey(user))
	if trace.IsNotFound(err) {
		return nil
	}
	return trace.Wrap(err)
}
