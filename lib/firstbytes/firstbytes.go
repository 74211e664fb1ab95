// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package firstbytes lets somebody look at what a client sends first, when the
// reader gets to it and no earlier: a server that speaks first is not held up,
// and accepting waits for nobody.
//
//	conn := firstbytes.New(accepted, firstbytes.Config{Decide: decide, Within: 5 * time.Second})
//
// Where it depends on the first bytes who is to have the connection, Listen looks
// at them before it is accepted, which keeps no other from being accepted.
package firstbytes

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
)

// chunk is how much is read at once until the decision.
const chunk = 4096

// Config is what New needs.
type Config struct {
	// Decide is called with all bytes that have come so far, at least one, until
	// it asks for no more. Then the first skip of them are taken away, and the
	// reader gets the rest. An error closes the connection, and is what reading
	// returns from then on. Decide bounds how much comes by its error.
	Decide func(first []byte) (skip int, more bool, err error)
	// Within is how long a client may take from its first byte to the decision.
	// The connection is closed then.
	Within time.Duration
	// Clock measures it; the real one where it is nil.
	Clock clockwork.Clock
}

// Conn is a connection whose first bytes are looked at by its reader. Everything
// else passes through.
type Conn struct {
	net.Conn
	cfg Config

	// plain says that nothing is left of the first bytes.
	plain atomic.Bool

	mu      sync.Mutex
	first   []byte
	decided bool
	err     error
	timer   clockwork.Timer
}

// New returns conn with its first bytes still to be decided about.
func New(conn net.Conn, cfg Config) *Conn {
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	return &Conn{Conn: conn, cfg: cfg}
}

// Prefixed returns conn with bytes that were read from it already, to be read
// again.
func Prefixed(conn net.Conn, first []byte) *Conn {
	return &Conn{Conn: conn, first: first, decided: true}
}

// NetConn returns the connection beneath.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read reads what follows the bytes that were taken away. A deadline that passes
// before the decision spoils nothing: what has come is kept.
func (c *Conn) Read(b []byte) (int, error) {
	if c.plain.Load() {
		return c.Conn.Read(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.decided {
		if err := c.decide(); err != nil {
			return 0, err
		}
	}
	if len(c.first) == 0 {
		c.plain.Store(true)
		return c.Conn.Read(b)
	}
	n := copy(b, c.first)
	if c.first = c.first[n:]; len(c.first) == 0 {
		c.first = nil
		c.plain.Store(true)
	}
	return n, nil
}

// decide reads once and asks. The caller holds the lock.
func (c *Conn) decide() error {
	if c.err != nil {
		return c.err
	}
	buf := make([]byte, chunk)
	n, readErr := c.Conn.Read(buf)
	if n == 0 {
		return readErr
	}
	c.first = append(c.first, buf[:n]...)
	skip, more, err := c.cfg.Decide(c.first)
	if err != nil {
		c.stopTimer()
		c.err, c.first = err, nil
		c.Conn.Close()
		return err
	}
	if more {
		if c.timer == nil {
			c.timer = c.cfg.Clock.AfterFunc(c.cfg.Within, func() { c.Conn.Close() })
		}
		return readErr
	}
	c.stopTimer()
	c.first, c.decided = c.first[skip:], true
	// An error after the bytes comes again when they have been read.
	return nil
}

func (c *Conn) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// CloseWrite tells the client that nothing more will come, where the connection
// beneath can.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	if !c.plain.Load() {
		// A reader that holds the lock is on its way out.
		c.mu.Lock()
		c.stopTimer()
		c.mu.Unlock()
	}
	return err
}
