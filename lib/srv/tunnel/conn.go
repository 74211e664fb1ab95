// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// An SSH channel as a connection, with deadlines, which channels do not have.

package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// bufferSize is one packet of a channel.
const bufferSize = 32 << 10

// conn is a net.Conn over a channel. Reading and writing wait for goroutines that
// read and write the channel, so that a deadline or Close can end the waiting.
type conn struct {
	channel       ssh.Channel
	local, remote net.Addr

	closed    chan struct{}
	closeOnce sync.Once
	onClose   func()

	readDeadline, writeDeadline deadline

	readMu sync.Mutex
	chunks chan []byte
	spare  chan []byte
	rest   []byte
	chunk  []byte
	// readErr is set before chunks is closed.
	readErr error

	writeMu sync.Mutex
	// idle holds a token while nothing is being written.
	idle     chan struct{}
	outgoing chan []byte
	written  chan error
	buffer   []byte
	writeErr error
}

// newConn makes a connection of an accepted channel and its requests. onClose is
// called once, when the connection is closed.
func newConn(channel ssh.Channel, requests <-chan *ssh.Request, local, remote net.Addr, onClose func()) *conn {
	c := &conn{
		channel:  channel,
		local:    local,
		remote:   remote,
		closed:   make(chan struct{}),
		onClose:  onClose,
		chunks:   make(chan []byte),
		spare:    make(chan []byte, 2),
		idle:     make(chan struct{}, 1),
		outgoing: make(chan []byte),
		written:  make(chan error, 1),
		buffer:   make([]byte, bufferSize),
	}
	c.readDeadline.init()
	c.writeDeadline.init()
	c.idle <- struct{}{}
	for range cap(c.spare) {
		c.spare <- make([]byte, bufferSize)
	}
	go ssh.DiscardRequests(requests)
	go c.pumpIn()
	go c.pumpOut()
	return c
}

// pumpIn reads the channel ahead of whoever reads the connection.
func (c *conn) pumpIn() {
	defer close(c.chunks)
	for {
		var buf []byte
		select {
		case buf = <-c.spare:
		case <-c.closed:
			return
		}
		n, err := c.channel.Read(buf)
		if n > 0 {
			select {
			case c.chunks <- buf[:n]:
			case <-c.closed:
				return
			}
		}
		if err != nil {
			c.readErr = err
			return
		}
	}
}

// pumpOut writes to the channel what Write has given it.
func (c *conn) pumpOut() {
	for {
		select {
		case b := <-c.outgoing:
			_, err := c.channel.Write(b)
			c.written <- err
		case <-c.closed:
			return
		}
	}
}

func (c *conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	switch {
	case isClosed(c.closed):
		return 0, c.fail("read", net.ErrClosed)
	case isClosed(c.readDeadline.passed()):
		return 0, c.fail("read", os.ErrDeadlineExceeded)
	case len(b) == 0:
		return 0, nil
	}
	if len(c.rest) == 0 {
		select {
		case chunk, ok := <-c.chunks:
			switch {
			case isClosed(c.closed):
				return 0, c.fail("read", net.ErrClosed)
			case !ok && errors.Is(c.readErr, io.EOF):
				return 0, io.EOF
			case !ok:
				return 0, c.fail("read", c.readErr)
			}
			c.rest, c.chunk = chunk, chunk
		case <-c.closed:
			return 0, c.fail("read", net.ErrClosed)
		case <-c.readDeadline.passed():
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		}
	}
	n := copy(b, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.spare <- c.chunk[:bufferSize] // it has room: there are two
		c.chunk = nil
	}
	return n, nil
}

// Write returns when the channel has taken b. After a deadline it is not known
// whether the last packet will still arrive.
func (c *conn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	done := 0
	for {
		if err := c.waitIdle(); err != nil {
			return done, err
		}
		if done == len(b) {
			c.idle <- struct{}{}
			return done, nil
		}
		n := copy(c.buffer, b[done:])
		select {
		case c.outgoing <- c.buffer[:n]:
		case <-c.closed:
			c.idle <- struct{}{}
			return done, c.fail("write", net.ErrClosed)
		}
		// Waiting for the packet is the next turn's waiting.
		select {
		case err := <-c.written:
			c.writeErr = err
			c.idle <- struct{}{}
		case <-c.closed:
			return done, c.fail("write", net.ErrClosed)
		case <-c.writeDeadline.passed():
			go c.settle()
			return done, c.fail("write", os.ErrDeadlineExceeded)
		}
		if c.writeErr != nil {
			continue // waitIdle says so
		}
		done += n
	}
}

// settle waits for a packet whose writer has given up.
func (c *conn) settle() {
	select {
	case err := <-c.written:
		c.writeErr = err
		c.idle <- struct{}{}
	case <-c.closed:
	}
}

// waitIdle takes the token, once what was written before has been taken.
func (c *conn) waitIdle() error {
	switch {
	case isClosed(c.closed):
		return c.fail("write", net.ErrClosed)
	case isClosed(c.writeDeadline.passed()):
		return c.fail("write", os.ErrDeadlineExceeded)
	}
	select {
	case <-c.idle:
	case <-c.closed:
		return c.fail("write", net.ErrClosed)
	case <-c.writeDeadline.passed():
		return c.fail("write", os.ErrDeadlineExceeded)
	}
	if c.writeErr != nil {
		c.idle <- struct{}{}
		// The channel says EOF where the other side has closed it.
		return c.fail("write", syscall.EPIPE)
	}
	return nil
}

// CloseWrite tells the other side that nothing more will come.
func (c *conn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.waitIdle(); err != nil {
		return err
	}
	defer func() { c.idle <- struct{}{} }()
	if err := c.channel.CloseWrite(); err != nil {
		return c.fail("close", err)
	}
	return nil
}

// Close closes both ways at once. What was written before still arrives.
func (c *conn) Close() error {
	err := c.fail("close", net.ErrClosed)
	c.closeOnce.Do(func() {
		close(c.closed)
		// Closing takes as long as the tunnel does, and nobody is to wait for a
		// proxy that has stopped reading. It fails where the other side has
		// closed the channel, or is gone.
		go func() { _ = c.channel.Close() }()
		if c.onClose != nil {
			c.onClose()
		}
		err = nil
	})
	return err
}

// fail names the connection in an error.
func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tunnel", Source: c.local, Addr: c.remote, Err: err}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readDeadline, t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeDeadline, t)
}

func (c *conn) setDeadline(d *deadline, t time.Time) error {
	if isClosed(c.closed) {
		return c.fail("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

// deadline is a channel that is closed at a time that may change.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	end   chan struct{}
}

func (d *deadline) init() { d.end = make(chan struct{}) }

// passed is closed when the deadline that holds now has passed. Whoever waits for
// it hears of an earlier one that is set later as well.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end
}

// set counts from the real clock, as every net.Conn's deadlines do. The zero time
// is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.end // its function closes it, or has
	}
	d.timer = nil
	if isClosed(d.end) {
		d.end = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	end := d.end
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(end) })
		return
	}
	close(end)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
