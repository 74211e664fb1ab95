// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package balancer puts the proxy's ports behind a load balancer that says, in a
// PROXY protocol header (version 1 or 2), who its client is:
//
//	listener, err = balancer.NewListener(listener, balancer.Config{Headers: true})
//
// With Headers, each connection must begin with such a header, and its RemoteAddr
// is the client's. Who can reach the port past the load balancer can give any
// address, so that only the load balancer may. Without Headers, a connection that
// begins with one is closed, and the log says what to set: it is either a load
// balancer that was not announced, or somebody who wants to be taken for somebody
// else.
package balancer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	proxyproto "github.com/pires/go-proxyproto"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/firstbytes"
	"teleport-auditd/lib/notice"
)

const (
	// headerTime is how long a header may take. Load balancers send it at once.
	headerTime = 5 * time.Second
	// maxV1 and maxV2 are the longest headers: the first is the protocol's own.
	// Load balancers add some hundred bytes to the second.
	maxV1 = 107
	maxV2 = 4096
)

// Config is what NewListener needs.
type Config struct {
	// Headers says that there is a load balancer that sends headers:
	// proxy_service.proxy_protocol.
	Headers bool
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil. It hears of connections
	// that are closed, at most once a minute.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out.
func (c *Config) CheckAndSetDefaults() error {
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// NewListener returns l as Config says. Closing it closes l.
func NewListener(l net.Listener, cfg Config) (net.Listener, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	if cfg.Headers {
		return newBehind(l, cfg)
	}
	return &alone{Listener: l, cfg: cfg, refused: notice.New(cfg.Clock, func(times int, last error) {
		cfg.Log.Warnf("Connections closed at once: %d, because they began with a PROXY header. The last was from %v. If a load balancer is there, set proxy_service.proxy_protocol to yes.", times, last)
	})}, nil
}

// alone is a port that clients reach themselves.
type alone struct {
	net.Listener
	cfg     Config
	refused *notice.Notice
}

func (l *alone) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return firstbytes.New(conn, firstbytes.Config{
		Decide: func(first []byte) (int, bool, error) {
			_, more, err := headerLength(first)
			if errors.Is(err, errNone) {
				return 0, false, nil
			}
			if more && len(first) < len(proxyproto.SIGV2) && !isWhole(first, proxyproto.SIGV1) {
				return 0, true, nil
			}
			l.refused.Happened(errors.New(conn.RemoteAddr().String()))
			return 0, false, trace.AccessDenied("a connection from %v began with a PROXY header", conn.RemoteAddr())
		},
		Within: headerTime,
		Clock:  l.cfg.Clock,
	}), nil
}

func (l *alone) Close() error {
	err := l.Listener.Close()
	l.refused.Close()
	return err
}

// behind is a port that only a load balancer reaches. Headers are read before a
// connection is accepted: there is nothing to be done with it before.
type behind struct {
	net.Listener
	refused *notice.Notice
}

func newBehind(l net.Listener, cfg Config) (net.Listener, error) {
	b := &behind{refused: notice.New(cfg.Clock, func(times int, last error) {
		cfg.Log.Warnf("Connections closed at once: %d, because proxy_service.proxy_protocol is on and they began with no good PROXY header. The last: %v.", times, last)
	})}
	var err error
	b.Listener, err = firstbytes.Listen(l, firstbytes.GreetConfig{Greet: b.greet, Within: headerTime, Clock: cfg.Clock})
	return b, trace.Wrap(err)
}

// greet reads the header.
func (b *behind) greet(ctx context.Context, conn net.Conn, inTime func() bool) net.Conn {
	client, rest, err := readHeader(conn)
	if !inTime() && err == nil {
		err = trace.LimitExceeded("its header took too long")
	}
	if err != nil {
		conn.Close()
		if ctx.Err() == nil {
			b.refused.Happened(trace.BadParameter("from %v: %v", conn.RemoteAddr(), err))
		}
		return nil
	}
	return &greeted{Conn: firstbytes.Prefixed(conn, rest), client: client}
}

func (b *behind) Close() error {
	err := b.Listener.Close()
	b.refused.Close()
	return err
}

// readHeader reads a connection's header. rest is what came after it.
func readHeader(conn net.Conn) (client net.Addr, rest []byte, err error) {
	var first []byte
	buf := make([]byte, 512)
	for {
		n, readErr := conn.Read(buf)
		first = append(first, buf[:n]...)
		if n > 0 {
			length, more, err := headerLength(first)
			if err != nil {
				return nil, nil, err
			}
			if !more {
				client, err := parse(first[:length])
				return client, first[length:], err
			}
		}
		if readErr != nil {
			return nil, nil, trace.BadParameter("the connection ended before its header did")
		}
	}
}

// errNone is what begins with no header.
var errNone = errors.New("there is no header")

// headerLength tells from the first bytes how long the header is. more says that
// they do not tell yet, or that not all of it is there.
func headerLength(first []byte) (length int, more bool, err error) {
	switch {
	case begins(first, proxyproto.SIGV1):
		end := bytes.IndexByte(first, '\n')
		if end < 0 && len(first) < maxV1 {
			return 0, true, nil
		}
		if end < 0 || end >= maxV1 {
			return 0, false, trace.BadParameter("its header is longer than %d bytes", maxV1)
		}
		return end + 1, false, nil
	case begins(first, proxyproto.SIGV2):
		const prefix = 16
		if len(first) < prefix {
			return 0, true, nil
		}
		length = prefix + int(binary.BigEndian.Uint16(first[prefix-2:]))
		if length > maxV2 {
			return 0, false, trace.BadParameter("its header is longer than %d bytes", maxV2)
		}
		return length, len(first) < length, nil
	}
	return 0, false, errNone
}

// begins tells whether b and signature are the same as far as both go.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// isWhole tells whether b begins with all of signature.
func isWhole(b, signature []byte) bool {
	return len(b) >= len(signature) && begins(b, signature)
}

// parse returns the client of a header, nil where it is the load balancer itself,
// which looks whether the port is open.
func parse(header []byte) (net.Addr, error) {
	parsed, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), maxV2))
	if err != nil {
		return nil, trace.BadParameter("its header is malformed: %v", err)
	}
	if parsed.Command == proxyproto.LOCAL {
		return nil, nil
	}
	source, ok := parsed.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil, trace.BadParameter("its header is not for TCP")
	}
	addr := source.AddrPort()
	return &net.TCPAddr{IP: addr.Addr().Unmap().AsSlice(), Port: source.Port}, nil
}

// greeted is a connection after its header.
type greeted struct {
	*firstbytes.Conn
	client net.Addr
}

// RemoteAddr is the client's.
func (g *greeted) RemoteAddr() net.Addr {
	if g.client != nil {
		return g.client
	}
	return g.Conn.RemoteAddr()
}
