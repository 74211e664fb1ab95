// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What the node serves: the connections of all its tunnels, as one listener.

package tunnel

import (
	"net"
	"sync"
)

// listener hands out what comes through the tunnels.
type listener struct {
	queue  chan net.Conn
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{
		queue:  make(chan net.Conn, backlog),
		slots:  make(chan struct{}, backlog),
		closed: make(chan struct{}),
	}
}

// acquire takes a place in the queue, which Accept gives back.
func (l *listener) acquire() bool {
	if isClosed(l.closed) {
		return false
	}
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *listener) release() { <-l.slots }

// deliver never waits: the place is there.
func (l *listener) deliver(c net.Conn) {
	l.queue <- c
	if isClosed(l.closed) {
		l.drain()
	}
}

// drain closes what nobody accepts.
func (l *listener) drain() {
	for {
		select {
		case c := <-l.queue:
			l.release()
			c.Close()
		default:
			return
		}
	}
}

// Accept waits for the next connection. The error is net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	if isClosed(l.closed) {
		return nil, net.ErrClosed
	}
	select {
	case c := <-l.queue:
		l.release()
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.drain()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr{} }

// addr is where a tunnel listens: nowhere.
type addr struct{}

func (addr) Network() string { return "tunnel" }
func (addr) String() string  { return "the tunnel to the proxy" }
