// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How long a connection may last: as long as it is used, and as its certificate.

package node

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"
)

const (
	// expiryCheck is the longest time between two looks at the clock: one that
	// is set, or a host that slept, moves the end of a certificate.
	expiryCheck = time.Minute
	// farewellTimeout bounds how long a client may take to hear why its
	// connection ends, and to end it.
	farewellTimeout = 2 * time.Second
)

// active notes that something is sent on a channel, either way. Whatever carries a
// channel's data calls it, or takes the channel as noted returns it.
func (c *connection) active() {
	if c.may.ClientIdleTimeout > 0 {
		c.lastActive.Store(c.server.cfg.Clock.Now().UnixNano())
	}
}

// noted is a channel whose data is noted as activity.
type noted struct {
	ssh.Channel
	conn *connection
}

// noted returns the channel, with its data noted.
func (c *connection) noted(ch ssh.Channel) ssh.Channel {
	if c.may.ClientIdleTimeout <= 0 {
		return ch
	}
	return noted{Channel: ch, conn: c}
}

func (n noted) Read(b []byte) (int, error) {
	read, err := n.Channel.Read(b)
	if read > 0 {
		n.conn.active()
	}
	return read, err
}

func (n noted) Write(b []byte) (int, error) {
	n.conn.active()
	return n.Channel.Write(b)
}

// endIdle ends the connection when nothing was sent for as long as may be. It
// returns what stops it. Keepalives and windows do not count, which nobody notes.
func (c *connection) endIdle() (stop func()) {
	timeout := c.may.ClientIdleTimeout
	if timeout <= 0 {
		return func() {}
	}
	c.active()
	return c.watch(timeout, func() time.Duration {
		idle := c.server.cfg.Clock.Now().Sub(time.Unix(0, c.lastActive.Load()))
		// A clock that was set back starts the time again.
		if idle < 0 {
			c.active()
			idle = 0
		}
		if idle < timeout {
			return timeout - idle
		}
		c.log.Infof("Nothing was sent on the connection for %v: closing it.", timeout)
		c.farewell(fmt.Sprintf("This connection was idle for %s and ends.", shortly(timeout)))
		return 0
	})
}

// endExpired ends the connection when its certificate ends. It returns what stops
// it.
func (c *connection) endExpired() (stop func()) {
	end := c.Identity.ValidBefore
	if !c.may.DisconnectExpiredCert || end.IsZero() {
		return func() {}
	}
	left := func() time.Duration { return end.Sub(c.server.cfg.Clock.Now()) }
	return c.watch(min(max(left(), 1), expiryCheck), func() time.Duration {
		if left := left(); left > 0 {
			return min(left, expiryCheck)
		}
		c.log.Info("The certificate has expired: closing the connection.")
		c.farewell("The certificate of this login has expired, and the login ends.")
		return 0
	})
}

// watch calls look after a time, and again after each time that look returns,
// until that is 0 or stop is called. It costs a timer.
func (c *connection) watch(after time.Duration, look func() time.Duration) (stop func()) {
	var mu sync.Mutex
	var timer clockwork.Timer
	stopped := false
	again := func() {
		defer c.survive()
		wait := look()
		mu.Lock()
		defer mu.Unlock()
		if wait > 0 && !stopped {
			timer.Reset(wait)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = c.server.cfg.Clock.AfterFunc(after, again)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// farewell puts a line on every open session channel, ends them, and closes the
// connection when the client has done so itself: PuTTY shows nothing of what came
// just before it was cut off. A client that takes its time delays that no longer
// than farewellTimeout.
func (c *connection) farewell(line string) {
	defer c.Close()
	c.channelsMu.Lock()
	open := slices.Collect(maps.Keys(c.channels))
	c.channelsMu.Unlock()
	if len(open) == 0 {
		return
	}
	for _, s := range open {
		c.spawn(func() {
			_, _ = io.WriteString(s.Stderr(), s.line(line))
			s.exitStatus(exitRefused)
			_ = s.Close()
		})
	}
	gone := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(gone)
	}()
	timer := c.server.cfg.Clock.NewTimer(farewellTimeout)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.Chan():
	}
}

// shortly writes 10m0s as 10m.
func shortly(d time.Duration) string {
	text := d.String()
	if n := len(text); n > 3 && text[n-3:] == "m0s" {
		text = text[:n-2]
	}
	if n := len(text); n > 3 && text[n-3:] == "h0m" {
		text = text[:n-2]
	}
	return text
}
