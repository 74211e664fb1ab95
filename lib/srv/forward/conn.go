// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// drainTime bounds how long a connection that is ending may take nothing of what
// is left to send.
const drainTime = 10 * time.Second

// chunk is how much is received at once: as much as a packet of a channel carries.
const chunk = 32 << 10

// Buffers lends buffers to connections that have received something. Its zero
// value works, and may serve any number of connections.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[chunk]byte {
	if buf, ok := b.pool.Get().(*[chunk]byte); ok {
		return buf
	}
	return new([chunk]byte)
}

func (b *Buffers) put(buf *[chunk]byte) { b.pool.Put(buf) }

// Conn is a connection that the user's process has made. The user may still have
// the socket, too, and change it: whether it blocks is not left to it.
type Conn struct {
	file    *os.File
	gate    *Gate
	buffers *Buffers
	// draining says that what is left to send must go on, aborted that nothing is
	// sent any more.
	draining, aborted atomic.Bool

	mu      sync.Mutex
	users   int
	closing bool
}

var errNoSocket = errors.New("the process has passed a descriptor that is no connection")

// newConn takes a descriptor over, unless it is not the socket of a connection.
// Nothing is asked of it before that is known.
func newConn(fd int, gate *Gate, buffers *Buffers) (*Conn, error) {
	ok := false
	gate.pass(func() { ok = isStream(fd) })
	if !ok {
		return nil, errNoSocket
	}
	gate.Hold()
	return &Conn{file: os.NewFile(uintptr(fd), "forwarded connection"), gate: gate, buffers: buffers}, nil
}

func isStream(fd int) bool {
	// On a descriptor that is no socket this fails at once, which fstat(2) may
	// not.
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return false
	}
	switch domain {
	case unix.AF_INET, unix.AF_INET6, unix.AF_UNIX:
		return true
	}
	return false
}

// use keeps the descriptor open until leave. It is false where it is closed.
func (c *Conn) use() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.users++
	return true
}

func (c *Conn) leave() {
	c.mu.Lock()
	c.users--
	last := c.closing && c.users == 0
	c.mu.Unlock()
	if last {
		c.closeFile()
	}
}

// Close ends both directions. Whoever is in one of the other methods returns.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return nil
	}
	c.closing = true
	last := c.users == 0
	c.mu.Unlock()
	if last {
		c.closeFile()
	} else {
		c.Abort()
	}
	return nil
}

func (c *Conn) closeFile() {
	defer c.gate.Release()
	c.gate.pass(func() {
		if raw, err := c.file.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { unlinger(int(fd)) })
		}
		_ = c.file.Close()
	})
}

// past is a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

// Abort ends what waits in the other methods, and never waits itself.
func (c *Conn) Abort() {
	c.aborted.Store(true)
	_ = c.file.SetDeadline(past())
}

// StopReceiving ends WriteTo. What is being sent must be taken, a piece at least
// from time to time, or it is given up.
func (c *Conn) StopReceiving() {
	c.draining.Store(true)
	_ = c.file.SetWriteDeadline(time.Now().Add(drainTime))
	_ = c.file.SetReadDeadline(past())
}

// WriteTo sends what arrives to w until the end of it, when it returns nil.
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	if !c.use() {
		return 0, os.ErrClosed
	}
	defer c.leave()
	raw, err := c.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		var b *[chunk]byte
		var n int
		var inner error
		// A buffer is held only while there is something: most connections are
		// silent most of the time.
		err := raw.Read(func(fd uintptr) bool {
			b = c.buffers.get()
			c.gate.pass(func() {
				for {
					n, _, inner = unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT)
					if !errors.Is(inner, unix.EINTR) {
						return
					}
				}
			})
			if errors.Is(inner, unix.EAGAIN) {
				c.buffers.put(b)
				b = nil
				return false
			}
			return true
		})
		if err == nil {
			err = inner
		}
		ended := err == nil && n == 0
		if err == nil && n > 0 {
			n, err = w.Write(b[:n])
			total += int64(n)
		}
		if b != nil {
			c.buffers.put(b)
		}
		if ended || err != nil {
			return total, err
		}
	}
}

// smallBuffer is for what is typed.
const smallBuffer = 1024

// ReadFrom sends what it reads from r until r ends, when it returns nil; the
// error is that of sending.
func (c *Conn) ReadFrom(r io.Reader) (total int64, err error) {
	small := make([]byte, smallBuffer)
	var large *[chunk]byte
	defer func() {
		if large != nil {
			c.buffers.put(large)
		}
	}()
	for {
		b := small
		if large != nil {
			b = large[:]
		}
		n, readErr := r.Read(b)
		if n > 0 {
			sent, err := c.Write(b[:n])
			total += int64(sent)
			if err != nil {
				return total, err
			}
		}
		if readErr != nil {
			return total, nil
		}
		// A channel's Read cannot tell that there is something without a place
		// to put it. What comes in bulk gets a large one while it comes so.
		switch {
		case large == nil && n == len(small):
			large = c.buffers.get()
		case large != nil && n < smallBuffer:
			c.buffers.put(large)
			large = nil
		}
	}
}

// Write sends all of b.
func (c *Conn) Write(b []byte) (total int, err error) {
	if !c.use() {
		return 0, os.ErrClosed
	}
	defer c.leave()
	raw, err := c.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	for total < len(b) {
		var n int
		var inner error
		err := raw.Write(func(fd uintptr) bool {
			c.gate.pass(func() {
				for {
					n, inner = unix.SendmsgN(int(fd), b[total:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
					if !errors.Is(inner, unix.EINTR) {
						return
					}
				}
			})
			return !errors.Is(inner, unix.EAGAIN)
		})
		if err == nil {
			err = inner
		}
		if err != nil {
			return total, err
		}
		total += n
		if c.draining.Load() {
			_ = c.file.SetWriteDeadline(time.Now().Add(drainTime))
			if c.aborted.Load() {
				return total, os.ErrDeadlineExceeded
			}
		}
	}
	return total, nil
}

// CloseWrite tells the other side that nothing more is sent.
func (c *Conn) CloseWrite() error {
	if !c.use() {
		return os.ErrClosed
	}
	defer c.leave()
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	c.gate.pass(func() {
		err = raw.Control(func(fd uintptr) { inner = unix.Shutdown(int(fd), unix.SHUT_WR) })
	})
	return errors.Join(err, inner)
}
