// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package mux shares the proxy's HTTPS port between the web and the auth server: a
// client that asks for an auth server in its first message (ALPN "teleport-auth@",
// as Teleport's API client does) is connected to one, and the proxy sees none of
// what the two say. Everybody else gets HTTPS.
//
//	listener, err := mux.NewListener(tcp, mux.Config{TLS: tlsConfig, DialAuth: dial})
//	err = httpServer.Serve(listener)
//
// Keypairs are the certificates that HTTPS shows: those of the configuration, read
// again when they change, or one that the proxy signs itself (SelfSigned).
package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/firstbytes"
	"teleport-auditd/lib/limits"
	"teleport-auditd/lib/notice"
	"teleport-auditd/lib/srv/relay"
)

const (
	// DefaultMaxAuth is how many clients may be connected to auth servers for long at
	// once, and DefaultMaxWeb to HTTPS.
	DefaultMaxAuth = 1024
	DefaultMaxWeb  = 2048
	// maxHello bounds a client's first message.
	maxHello = 16 << 10
	// helloTime is how long it may take.
	helloTime = 10 * time.Second
	// dialTime is how long an auth server may take to answer.
	dialTime = 10 * time.Second
	// strangersTime is longer than an auth server keeps a connection without a
	// certificate. Who is there longer is known to it.
	strangersTime = 2 * time.Minute
)

// Config is what NewListener needs.
type Config struct {
	// TLS is for HTTPS. Without NextProtos it gets those of HTTP/2 and HTTP/1.1.
	TLS *tls.Config
	// DialAuth opens a connection to an auth server.
	DialAuth func(ctx context.Context) (net.Conn, error)
	// MaxAuth bounds the clients that have been connected to auth servers for more
	// than two minutes, when they have shown a certificate there. As many others may
	// be connected: for each that comes then, another is closed, that which came
	// first of the client with most of them, as limits.Crowd does. DefaultMaxAuth
	// where it is zero.
	MaxAuth int
	// MaxAuthPerClient bounds either of one IPv4 address, or IPv6 /64, so that
	// nobody keeps all others out. Half of MaxAuth where it is zero: hosts behind
	// a NAT have one address.
	MaxAuthPerClient int
	// MaxWeb bounds the connections of HTTPS, and half of it those of one address,
	// as the others of MaxAuth. DefaultMaxWeb where it is zero.
	MaxWeb int
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.TLS == nil:
		return trace.BadParameter("mux.Config has no TLS")
	case c.DialAuth == nil:
		return trace.BadParameter("mux.Config has no DialAuth")
	case c.MaxAuth < 0:
		return trace.BadParameter("mux.Config has a negative MaxAuth %d", c.MaxAuth)
	case c.MaxAuthPerClient < 0:
		return trace.BadParameter("mux.Config has a negative MaxAuthPerClient %d", c.MaxAuthPerClient)
	case c.MaxWeb < 0:
		return trace.BadParameter("mux.Config has a negative MaxWeb %d", c.MaxWeb)
	}
	if c.MaxWeb == 0 {
		c.MaxWeb = DefaultMaxWeb
	}
	if c.MaxAuth == 0 {
		c.MaxAuth = DefaultMaxAuth
	}
	if c.MaxAuthPerClient == 0 {
		c.MaxAuthPerClient = max(c.MaxAuth/2, 1)
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// listener hands out the connections of HTTPS.
type listener struct {
	net.Listener
	cfg Config
	tls *tls.Config
	// auth are the connections to auth servers that are known there, and strangers
	// those that may not be.
	auth      *limits.Count[netip.Prefix]
	strangers *limits.Crowd
	// web are the connections of HTTPS.
	web *limits.Crowd

	// running are the connections to auth servers.
	running sync.WaitGroup

	crowded, unreachable *notice.Notice
}

// NewListener returns l with connections that are *tls.Conn, on which the
// handshake has not begun. Closing it closes l and the connections to auth servers,
// and waits for these.
func NewListener(l net.Listener, cfg Config) (net.Listener, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	m := &listener{
		cfg:       cfg,
		tls:       cfg.TLS.Clone(),
		auth:      limits.NewCount[netip.Prefix](cfg.MaxAuth),
		strangers: limits.NewCrowd(cfg.MaxAuth, cfg.MaxAuthPerClient),
		web:       limits.NewCrowd(cfg.MaxWeb, max(cfg.MaxWeb/2, 1)),
	}
	if len(m.tls.NextProtos) == 0 {
		m.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	m.crowded = notice.New(cfg.Clock, func(times int, _ error) {
		cfg.Log.Warnf("Connections to the auth server closed: %d. More than may have come within two minutes (%d, and %d of one address).", times, cfg.MaxAuth, cfg.MaxAuthPerClient)
	})
	m.unreachable = notice.New(cfg.Clock, func(times int, last error) {
		cfg.Log.Errorf("Connections closed: %d, because the auth server cannot be reached: %v.", times, last)
	})
	var err error
	m.Listener, err = firstbytes.Listen(l, firstbytes.GreetConfig{Greet: m.greet, Within: helloTime, Clock: cfg.Clock})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return m, nil
}

func (m *listener) Close() error {
	err := m.Listener.Close()
	m.running.Wait()
	m.crowded.Close()
	m.unreachable.Close()
	return err
}

// greet reads a client's first message, and connects it to an auth server itself
// where it asks for one.
func (m *listener) greet(ctx context.Context, conn net.Conn, inTime func() bool) net.Conn {
	protocols, first, err := readHello(conn)
	if !inTime() || err != nil {
		conn.Close()
		return nil
	}
	again := firstbytes.Prefixed(conn, first)
	if !slices.ContainsFunc(protocols, func(p string) bool { return strings.HasPrefix(p, constants.ALPNSNIAuthProtocol) }) {
		counted := &webConn{Conn: again}
		counted.leave = m.web.Enter(conn.RemoteAddr().String(), func() { conn.Close() })
		return tls.Server(counted, m.tls)
	}
	client := &authClient{listener: m, addr: conn.RemoteAddr().String()}
	piping, evicted := context.WithCancel(ctx)
	client.leave = m.strangers.Enter(client.addr, evicted)
	timer := m.cfg.Clock.AfterFunc(strangersTime, client.known)
	m.running.Go(func() {
		defer evicted()
		defer client.ended()
		defer timer.Stop()
		m.pipe(piping, again)
		if piping.Err() != nil && ctx.Err() == nil {
			m.crowded.Happened(nil)
		}
	})
	return nil
}

// webConn is a connection of HTTPS, until it is closed.
type webConn struct {
	*firstbytes.Conn
	leave func()
}

func (c *webConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// authClient is the place of a connection to an auth server.
type authClient struct {
	listener *listener
	addr     string
	leave    func()

	mu           sync.Mutex
	isKnown, end bool
}

// known has the connection stay, however many come. Where there are as many of
// those as may be, it goes on as it was.
func (c *authClient) known() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.end && c.listener.auth.Enter(limits.Client(c.addr), c.listener.cfg.MaxAuthPerClient) {
		c.isKnown = true
		c.leave()
	}
}

func (c *authClient) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = true
	c.leave()
	if c.isKnown {
		c.listener.auth.Leave(limits.Client(c.addr))
	}
}

// pipe connects a client to an auth server until both have ended.
func (m *listener) pipe(ctx context.Context, client net.Conn) {
	defer client.Close()
	dialing, cancel := context.WithTimeout(ctx, dialTime)
	target, err := m.cfg.DialAuth(dialing)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			m.unreachable.Happened(err)
		}
		return
	}
	relay.Conns(ctx, client, target)
}

// readHello reads a ClientHello and returns the protocols that it asks for (ALPN),
// and all that was read. What is no TLS has none: HTTPS is to say what is wrong
// with it. The error is that of the connection, or trace.LimitExceeded.
func readHello(conn net.Conn) (protocols []string, first []byte, err error) {
	recorder := &recorder{Conn: conn}
	done := errors.New("the hello is read")
	err = tls.Server(recorder, &tls.Config{
		// Nothing is shaken hands on: what counts is in TLS of Config.
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			protocols = hello.SupportedProtos
			return nil, done
		},
	}).Handshake()
	if recorder.err != nil && !errors.Is(err, done) {
		return nil, nil, recorder.err
	}
	return protocols, recorder.read.Bytes(), nil
}

// recorder keeps what is read, and writes nothing.
type recorder struct {
	net.Conn
	read bytes.Buffer
	err  error
}

func (r *recorder) Read(b []byte) (int, error) {
	left := maxHello - r.read.Len()
	if left <= 0 {
		r.err = trace.LimitExceeded("a client's first message is longer than %d bytes", maxHello)
		return 0, r.err
	}
	n, err := r.Conn.Read(b[:min(len(b), left)])
	r.read.Write(b[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// Write leaves out the alert: the client is to hear from whoever serves it.
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }

// Close leaves the connection open.
func (r *recorder) Close() error { return nil }
