// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/seqpacket"
)

const (
	// sendTimeout bounds how long a request may take to be sent. The process
	// reads at once: only one that was stopped needs any time.
	sendTimeout = 5 * time.Second
	// maxPending bounds the requests without an answer, those included that
	// nobody waits for any more.
	maxPending = 2048
)

// ErrGone comes from a Client whose process has ended, or was given up.
var ErrGone = errors.New("the process that forwards has ended")

// errTimeout is for the client.
var errTimeout = &Error{text: "The process that forwards does not answer"}

// Error is why a connection or a listener was not made, in words for the client.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// Config is what NewClient needs.
type Config struct {
	// Socket is the socket to the process, which the Client takes over.
	Socket *os.File
	// Gate is shared by the Clients of one user. The caller holds it until
	// NewClient returns.
	Gate *Gate
	// Buffers may be shared by all.
	Buffers *Buffers
	// Warn writes a line to the log.
	Warn func(format string, args ...any)
	// Spawn runs a function on a goroutine of its own.
	Spawn func(func())
}

// Client is the daemon's end of one process that forwards.
type Client struct {
	cfg    Config
	socket *net.UnixConn
	done   chan struct{}

	sending sync.Mutex

	mu     sync.Mutex
	lastID uint32
	// requests wait for an answer, whether anybody waits for them or not.
	requests  map[uint32]*request
	listeners map[uint32]*Listener
	// err is why it is over.
	err error
	// hostile says that the process has sent what no honest one would.
	hostile bool
	// strange says that an answer to nothing was told of.
	strange bool
}

// request is a Dial or Listen without its answer.
type request struct {
	// listener is nil for a Dial.
	listener *Listener
	port     uint32
	// answer takes one result, and needs nobody to wait for it.
	answer chan result
	// abandoned says that nobody does.
	abandoned bool
}

type result struct {
	conn *Conn
	err  error
}

// Listener is a socket that listens, or several at one port.
type Listener struct {
	// Port is where a TCP listener listens, Path where an Agent's does.
	Port uint32
	Path string

	client *Client
	id     uint32
	accept Accept
	closed chan struct{}
}

// Accept takes a connection that somebody has made to a listener, and must not
// block. address and port are whose it is, empty where that is not known.
type Accept func(l *Listener, conn *Conn, address string, port uint32)

// NewClient returns a Client that talks to the process at the other end of
// cfg.Socket, until Close.
func NewClient(cfg Config) (*Client, error) {
	defer cfg.Socket.Close()
	conn, err := net.FileConn(cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("using the socket of the process that forwards: %w", err)
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("the process that forwards came without a socket")
	}
	c := &Client{
		cfg:       cfg,
		socket:    socket,
		done:      make(chan struct{}),
		requests:  make(map[uint32]*request),
		listeners: make(map[uint32]*Listener),
	}
	cfg.Gate.Hold()
	cfg.Spawn(c.receive)
	return c, nil
}

// Close ends the process, and what waits for it. It does not block: what the
// user's process has sent is closed later.
func (c *Client) Close() error {
	c.end(ErrGone)
	return nil
}

// Done is closed when the process is gone, and with it its listeners.
func (c *Client) Done() <-chan struct{} { return c.done }

// Hostile tells whether the process has sent what no honest one would.
func (c *Client) Hostile() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hostile
}

// end fails everything that waits. Closing the socket would close what is queued
// there, and wait for a thread that receives; the process, which is not to be
// trusted with either, hears of the end without.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	c.shutdown()
	for id, r := range c.requests {
		delete(c.requests, id)
		r.answer <- result{err: err}
	}
	for id, l := range c.listeners {
		delete(c.listeners, id)
		close(l.closed)
	}
	close(c.done)
}

func (c *Client) shutdown() {
	_ = c.socket.CloseWrite()
	_ = c.socket.CloseRead()
}

// distrust ends a process that has sent what no honest one would.
func (c *Client) distrust(why error) {
	c.mu.Lock()
	over := c.err != nil
	c.hostile = c.hostile || !over
	c.mu.Unlock()
	if !over {
		c.cfg.Warn("The user's process that forwards has misbehaved, so this connection forwards nothing any more: %v.", why)
	}
	c.end(ErrGone)
}

// send sends a message.
func (c *Client) send(m message) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	err = c.socket.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err == nil {
		_, err = c.socket.Write(b)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.cfg.Warn("The user's process that forwards does not read, and was given up.")
	}
	c.end(ErrGone)
	return ErrGone
}

// ask sends a request with a new ID, and returns its answer.
func (c *Client) ask(ctx context.Context, r *request, build func(id uint32) message) (*Conn, error) {
	r.answer = make(chan result, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	if len(c.requests) >= maxPending {
		c.mu.Unlock()
		return nil, errTimeout
	}
	c.lastID++
	id := c.lastID
	c.requests[id] = r
	if r.listener != nil {
		r.listener.id = id
	}
	c.mu.Unlock()
	if err := c.send(build(id)); err != nil {
		return nil, err
	}
	select {
	case got := <-r.answer:
		return got.conn, got.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, waiting := c.requests[id]
	r.abandoned = waiting
	c.mu.Unlock()
	if waiting {
		_ = c.send(&cancel{ID: id})
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, errTimeout
		}
		return nil, ctx.Err()
	}
	// The answer came meanwhile.
	got := <-r.answer
	return got.conn, got.err
}

// Dial connects to a host's port or to a socket's path. The error is an *Error
// where the client may hear of it, ErrGone, ctx's, or says that the address is
// malformed.
func (c *Client) Dial(ctx context.Context, network Network, address string, port uint32) (*Conn, error) {
	return c.ask(ctx, new(request), func(id uint32) message {
		return &dial{ID: id, Network: network, Address: address, Port: port}
	})
}

// Listen listens on all of the addresses, at one port, or on a socket's path.
// The error is as Dial's.
func (c *Client) Listen(ctx context.Context, network Network, addresses []string, port uint32, accept Accept) (*Listener, error) {
	l := &Listener{client: c, accept: accept, closed: make(chan struct{})}
	_, err := c.ask(ctx, &request{listener: l, port: port}, func(id uint32) message {
		return &listen{ID: id, Network: network, Addresses: addresses, Port: port}
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Close closes the listener, and returns when that is done, or ctx is.
func (l *Listener) Close(ctx context.Context) error {
	if err := l.client.send(&cancel{ID: l.id}); err != nil {
		return err
	}
	select {
	case <-l.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes what the process says until it is gone.
func (c *Client) receive() {
	defer c.closeSocket()
	for {
		body, fds, err := seqpacket.ReceiveHostile(c.socket, maxMessage+1, c.cfg.Gate.pass)
		if err == nil && body == nil {
			c.end(ErrGone)
			return
		}
		var m message
		// An error is also a descriptor that cannot be used at all (O_PATH).
		if err == nil {
			m, err = decode(body)
		}
		if err == nil {
			err = c.take(m, fds)
		}
		if err != nil {
			// Whoever waits does not wait for what closing them may take.
			c.distrust(err)
			c.closeAll(fds)
			return
		}
	}
}

// closeSocket closes the socket, with what is queued there. It may take as long
// as the user likes.
func (c *Client) closeSocket() {
	defer c.cfg.Gate.Release()
	c.shutdown()
	_ = seqpacket.Drain(c.socket, c.cfg.Gate.pass, c.closeAll)
	c.cfg.Gate.pass(func() { _ = c.socket.Close() })
}

func (c *Client) closeAll(fds []int) {
	for _, fd := range fds {
		c.cfg.Gate.close(fd)
	}
}

// take carries out one message. The error says that no honest process sends it;
// its descriptors are the caller's then.
func (c *Client) take(m message, fds []int) error {
	most := 0
	switch m.(type) {
	case *connected, *accepted:
		most = 1
	}
	if len(fds) > most {
		return errors.New("it sent a descriptor too many")
	}
	var conn *Conn
	if len(fds) == 1 {
		var err error
		if conn, err = newConn(fds[0], c.cfg.Gate, c.cfg.Buffers); err != nil {
			return err
		}
	}
	switch m := m.(type) {
	case *connected:
		r := c.answered(m.ID, false)
		switch {
		case r == nil:
			c.drop(conn)
		case conn == nil:
			// The kernel keeps back what this process has no room for.
			c.cfg.Warn("A forwarded connection was lost: the daemon has too many open files; raise their limit (ulimit -n, LimitNOFILE).")
			r.answer <- result{err: &Error{text: "This host has too many open files"}}
		default:
			if !r.deliver(c, result{conn: conn}) {
				c.drop(conn)
			}
		}
	case *failed:
		if r := c.answered(m.ID, true); r != nil {
			r.answer <- result{err: &Error{text: m.words()}}
		}
	case *listening:
		return c.takeListening(m)
	case *accepted:
		c.mu.Lock()
		l := c.listeners[m.ID]
		c.mu.Unlock()
		if l == nil {
			c.odd(m.ID)
		}
		if l == nil || conn == nil {
			c.drop(conn)
			return nil
		}
		address, port := m.origin()
		l.accept(l, conn, address, port)
	case *closed:
		c.mu.Lock()
		l, ok := c.listeners[m.ID]
		delete(c.listeners, m.ID)
		c.mu.Unlock()
		if ok {
			close(l.closed)
		} else {
			c.odd(m.ID)
		}
	default:
		return fmt.Errorf("it sent a message that is the daemon's to send (%T)", m)
	}
	return nil
}

// drop closes a connection that nobody wants.
func (c *Client) drop(conn *Conn) {
	if conn != nil {
		_ = conn.Close()
	}
}

// answered returns the request that a message answers, which is then done, or nil.
func (c *Client) answered(id uint32, mayListen bool) *request {
	c.mu.Lock()
	r := c.requests[id]
	if r != nil && (r.listener == nil || mayListen) {
		delete(c.requests, id)
	} else {
		r = nil
	}
	c.mu.Unlock()
	if r == nil {
		c.odd(id)
	}
	return r
}

// deliver hands a result to whoever waits. It is false where nobody does.
func (r *request) deliver(c *Client, got result) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.abandoned {
		return false
	}
	r.answer <- got
	return true
}

func (c *Client) takeListening(m *listening) error {
	c.mu.Lock()
	r := c.requests[m.ID]
	if r == nil || r.listener == nil {
		c.mu.Unlock()
		c.odd(m.ID)
		return nil
	}
	delete(c.requests, m.ID)
	l := r.listener
	l.Port, l.Path = m.Port, m.Path
	bad := m.Port > 65535 || r.port != 0 && m.Port != r.port || len(m.Path) > MaxPath ||
		strings.ContainsFunc(m.Path, func(r rune) bool { return !unicode.IsPrint(r) })
	if r.abandoned {
		// It was cancelled when this was under way, and is about to be closed.
		l.accept = func(_ *Listener, conn *Conn, _ string, _ uint32) { c.drop(conn) }
	}
	if !bad {
		c.listeners[m.ID] = l
	}
	r.answer <- result{}
	c.mu.Unlock()
	if bad {
		return errors.New("it listens where it was not asked to")
	}
	return nil
}

// odd tells, once, of an answer to nothing.
func (c *Client) odd(id uint32) {
	c.mu.Lock()
	// What it said before it heard of its end is not odd.
	told := c.strange || c.err != nil
	c.strange = true
	c.mu.Unlock()
	if !told {
		c.cfg.Warn("The user's process that forwards answers what nobody has asked (request %d); further such answers are not told of.", id)
	}
}

// origin returns whose connection it is, where that can be read.
func (m *accepted) origin() (address string, port uint32) {
	addr, err := netip.ParseAddr(m.Address)
	if err != nil || m.Port > 65535 {
		return "", 0
	}
	return addr.WithZone("").String(), m.Port
}

// words are for the client, and as OpenSSH's server says it.
func (m *failed) words() string {
	switch m.Reason {
	case reasonErrno:
		if m.Errno > 0 && m.Errno < 4096 {
			text := syscall.Errno(m.Errno).Error()
			return strings.ToUpper(text[:1]) + text[1:]
		}
	case reasonNoName:
		return "Name or service not known"
	case reasonLookup:
		return "Temporary failure in name resolution"
	case reasonTimeout:
		text := unix.ETIMEDOUT.Error()
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return "It failed"
}
