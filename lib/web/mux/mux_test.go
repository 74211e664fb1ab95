// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package mux_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/web/mux"
)

const (
	patience = 20 * time.Second
	authALPN = "teleport-auth@6578616d706c652e636f6d.teleport.cluster.local"
)

// keypair makes a certificate for names in a folder of its own.
func keypair(t *testing.T, clock clockwork.Clock, names ...string) mux.KeypairFiles {
	t.Helper()
	pair, err := mux.SelfSigned(t.TempDir(), names, clock)
	require.NoError(t, err)
	return pair
}

type port struct {
	addr string
	auth net.Listener
	web  *tls.Config // to reach HTTPS
	log  *logtest.Hook
	stop func()
}

func newPort(t *testing.T, change ...func(*mux.Config)) *port {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	clock := clockwork.NewRealClock()
	pair := keypair(t, clock, "proxy.example.com")
	keypairs, err := mux.NewKeypairs([]mux.KeypairFiles{pair}, clock, log)
	require.NoError(t, err)
	p := &port{log: hook, web: &tls.Config{ServerName: "proxy.example.com", RootCAs: pool(t, pair)}}
	p.auth, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { p.auth.Close() })
	cfg := mux.Config{
		TLS: &tls.Config{GetCertificate: keypairs.GetCertificate},
		DialAuth: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", p.auth.Addr().String())
		},
		Log: log,
	}
	for _, f := range change {
		f(&cfg)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.addr = tcp.Addr().String()
	listener, err := mux.NewListener(tcp, cfg)
	require.NoError(t, err)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s", r.Proto, r.RemoteAddr, r.TLS.NegotiatedProtocol)
		}),
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	served := make(chan struct{})
	go func() {
		_ = server.Serve(listener)
		close(served)
	}()
	p.stop = func() {
		listener.Close()
		server.Close()
		<-served
	}
	t.Cleanup(p.stop)
	return p
}

func pool(t *testing.T, pair mux.KeypairFiles) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(pair.Cert)
	require.NoError(t, err)
	certs := x509.NewCertPool()
	require.True(t, certs.AppendCertsFromPEM(text))
	return certs
}

func (p *port) get(t *testing.T, http2 bool) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: p.web.Clone(), ForceAttemptHTTP2: http2}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + p.addr)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

func TestWeb(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	require.Regexp(t, `^HTTP/2.0 127.0.0.1:\d+ h2$`, p.get(t, true))
	require.Regexp(t, `^HTTP/1.1 127.0.0.1:\d+ (http/1.1)?$`, p.get(t, false))

	// A program that forgot the s is told.
	response, err := http.Get("http://" + p.addr)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	response.Body.Close()
	require.Contains(t, string(body), "HTTPS server")
	// What is neither gets nothing, and nobody else suffers.
	for _, garbage := range []string{"SSH-2.0-x\r\n", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x05hello", strings.Repeat("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"+strings.Repeat("x", 16379), 2)} {
		conn, err := net.Dial("tcp", p.addr)
		require.NoError(t, err)
		_, _ = io.WriteString(conn, garbage)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, err = io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		conn.Close()
	}
	require.NotEmpty(t, p.get(t, true))
}

// TestAuth: the auth server itself shakes hands with the client.
func TestAuth(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	pair := keypair(t, clockwork.NewRealClock(), "teleport.cluster.local")
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	require.NoError(t, err)
	go func() {
		for {
			conn, err := p.auth.Accept()
			if err != nil {
				return
			}
			go func() {
				server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", authALPN}})
				_, _ = io.Copy(server, server)
				server.Close()
			}()
		}
	}()
	client, err := tls.Dial("tcp", p.addr, &tls.Config{ServerName: "teleport.cluster.local", RootCAs: pool(t, pair), NextProtos: []string{authALPN, "h2"}})
	require.NoError(t, err)
	defer client.Close()
	sent := bytes.Repeat([]byte("question"), 1<<17)
	go func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
	require.NotEmpty(t, p.get(t, true), "and the web is still there")
}

// hello asks for an auth server, from 127.0.0.N, and says no more.
func (p *port) hello(t *testing.T, from byte) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
	conn, err := dialer.Dial("tcp", p.addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	var hello bytes.Buffer
	_ = tls.Client(&recorded{written: &hello}, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{authALPN}}).Handshake()
	_, err = conn.Write(hello.Bytes())
	require.NoError(t, err)
	return conn
}

// recorded keeps what is written, and has nothing to read.
type recorded struct {
	net.Conn
	written *bytes.Buffer
}

func (r *recorded) Write(b []byte) (int, error) { return r.written.Write(b) }
func (r *recorded) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorded) Close() error                { return nil }

func requireClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

func requireOpen(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// TestAuthIsBounded: who comes is connected, however many others are, and those who
// are there in numbers make room.
func TestAuthIsBounded(t *testing.T) {
	t.Parallel()
	p := newPort(t, func(c *mux.Config) { c.MaxAuth = 4 })
	come := func(from byte) net.Conn {
		conn := p.hello(t, from)
		accepted, err := p.auth.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { accepted.Close() })
		return conn
	}
	alone := come(1)
	first, second := come(2), come(2)
	third := come(2)
	requireClosed(t, first)
	require.Eventually(t, func() bool { return p.log.LastEntry() != nil }, patience, time.Millisecond)
	require.Contains(t, p.log.LastEntry().Message, "closed: 1. More than may have come within two minutes (4, and 2 of one address)")
	fourth := come(3)
	come(4)
	requireClosed(t, second)
	for _, conn := range []net.Conn{alone, third, fourth} {
		requireOpen(t, conn)
	}
	require.NotEmpty(t, p.get(t, true))
}

// TestKnownToAuth: whom an auth server has kept goes for nobody, and its place is
// given back when it has ended.
func TestKnownToAuth(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClock()
	p := newPort(t, func(c *mux.Config) { c.MaxAuth, c.MaxAuthPerClient, c.Clock = 1, 1, clock })
	come := func() (client, server net.Conn) {
		client = p.hello(t, 1)
		server, err := p.auth.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { server.Close() })
		return client, server
	}
	isOpen := func(conn net.Conn) bool {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err := conn.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	// The clock's functions run when they do: one that others come before is gone.
	stay := func() (client, server net.Conn) {
		require.Eventually(t, func() bool {
			client, server = come()
			clock.Advance(2 * time.Minute)
			time.Sleep(time.Millisecond)
			first, _ := come()
			second, _ := come()
			requireClosed(t, first)
			second.Close()
			return isOpen(client)
		}, patience, time.Millisecond)
		return client, server
	}
	for range 3 {
		known, server := stay()
		// As many as may are known: the next stays one that can go.
		other, _ := come()
		clock.Advance(2 * time.Minute)
		time.Sleep(10 * time.Millisecond)
		come()
		requireClosed(t, other)
		require.True(t, isOpen(known))
		server.Close()
		known.Close()
	}
}

// TestWebIsBounded: HTTPS is open to who comes, and nobody has all of the proxy's
// memory and descriptors.
func TestWebIsBounded(t *testing.T) {
	t.Parallel()
	p := newPort(t, func(c *mux.Config) { c.MaxWeb = 4 })
	open := func(from byte) net.Conn {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		conn, err := tls.DialWithDialer(dialer, "tcp", p.addr, p.web)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	alone, first, second, third := open(2), open(3), open(3), open(3)
	requireClosed(t, first)
	for range 10 {
		open(4)
	}
	requireClosed(t, second)
	requireOpen(t, third)
	requireOpen(t, alone)
	// Who comes is answered.
	for range 20 {
		require.NotEmpty(t, p.get(t, false))
	}
}

func TestNoAuthServer(t *testing.T) {
	t.Parallel()
	p := newPort(t, func(c *mux.Config) {
		c.DialAuth = func(context.Context) (net.Conn, error) { return nil, errors.New("nobody is there") }
	})
	_, err := tls.Dial("tcp", p.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{authALPN}})
	require.Error(t, err)
	require.Contains(t, p.log.LastEntry().Message, "nobody is there")
}

func TestEndsWithoutLeftovers(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newPort(t)
	conn, err := net.Dial("tcp", p.addr)
	require.NoError(t, err)
	defer conn.Close()
	go func() {
		_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{authALPN}}).Handshake()
	}()
	piped, err := p.auth.Accept()
	require.NoError(t, err)
	silent, err := net.Dial("tcp", p.addr)
	require.NoError(t, err)
	defer silent.Close()
	p.stop()
	_, err = io.Copy(io.Discard, piped)
	require.NoError(t, err)
	piped.Close()
	require.Eventually(t, func() bool { return runtime.NumGoroutine()-2 <= before }, patience, time.Millisecond, "goroutines are left over")
}

func TestKeypairs(t *testing.T) {
	t.Parallel()
	log, hook := logtest.NewNullLogger()
	clock := clockwork.NewFakeClock()
	one, two := keypair(t, clock, "one.example.com"), keypair(t, clock, "two.example.com")
	keypairs, err := mux.NewKeypairs([]mux.KeypairFiles{one, two}, clock, log)
	require.NoError(t, err)
	shown := func(name string) string {
		cert, err := keypairs.GetCertificate(&tls.ClientHelloInfo{
			ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		})
		require.NoError(t, err)
		return cert.Leaf.Subject.CommonName
	}
	require.Equal(t, "one.example.com", shown("one.example.com"))
	require.Equal(t, "two.example.com", shown("two.example.com"))
	require.Equal(t, "one.example.com", shown("other.example.com"))
	require.Equal(t, "one.example.com", shown(""))

	// The key is replaced first, and the certificate a moment later.
	three := keypair(t, clock, "three.example.com")
	move := func(from, to string) {
		require.NoError(t, os.Rename(from, to))
		future := time.Now().Add(time.Hour)
		require.NoError(t, os.Chtimes(to, future, future))
	}
	move(three.Key, two.Key)
	require.Equal(t, "two.example.com", shown("two.example.com"), "it is not looked at each handshake")
	for range 3 {
		clock.Advance(5 * time.Second)
		require.Equal(t, "two.example.com", shown("two.example.com"))
	}
	require.Len(t, hook.AllEntries(), 1)
	require.Equal(t, logrus.ErrorLevel, hook.LastEntry().Level)
	require.Contains(t, hook.LastEntry().Message, two.Cert)
	require.ErrorContains(t, keypairs.Reload(), two.Cert)
	move(three.Cert, two.Cert)
	clock.Advance(5 * time.Second)
	require.Equal(t, "three.example.com", shown("three.example.com"))
	require.Equal(t, logrus.InfoLevel, hook.LastEntry().Level)
	require.NoError(t, keypairs.Reload())
	require.NoError(t, os.Remove(one.Cert))
	clock.Advance(5 * time.Second)
	require.Equal(t, "one.example.com", shown("one.example.com"), "what was read last is shown")
}

func TestBadKeypairs(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClock()
	good, other := keypair(t, clock, "a"), keypair(t, clock, "b")
	junk := filepath.Join(t.TempDir(), "junk")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for want, files := range map[string][]mux.KeypairFiles{
		"no certificate for HTTPS":  nil,
		"no such file":              {{Key: good.Key, Cert: "/nowhere"}},
		"not a regular file":        {{Key: good.Key, Cert: "/dev/zero"}},
		"does not match public key": {{Key: other.Key, Cert: good.Cert}},
		"failed to find any PEM":    {good, {Key: good.Key, Cert: junk}},
	} {
		_, err := mux.NewKeypairs(files, clock, logrus.New())
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClock()
	dir := t.TempDir()
	make := func(names ...string) (string, *x509.Certificate) {
		pair, err := mux.SelfSigned(dir, names, clock)
		require.NoError(t, err)
		text, err := os.ReadFile(pair.Cert)
		require.NoError(t, err)
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		require.NoError(t, err)
		info, err := os.Stat(pair.Key)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		return string(text), cert.Leaf
	}
	first, cert := make("proxy.example.com", "127.0.0.1", "2001:db8::1", "not a name", "")
	for _, name := range []string{"proxy.example.com", "127.0.0.1", "2001:db8::1"} {
		require.NoError(t, cert.VerifyHostname(name))
	}
	require.False(t, cert.IsCA)
	again, _ := make("127.0.0.1", "proxy.example.com")
	require.Equal(t, first, again)
	more, _ := make("proxy.example.com", "another.example.com")
	require.NotEqual(t, first, more)
	clock.Advance(800 * 24 * time.Hour)
	late, _ := make("proxy.example.com", "another.example.com")
	require.NotEqual(t, more, late)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "web_key.pem"), []byte("junk"), 0o600))
	mended, _ := make("proxy.example.com")
	require.NotEqual(t, late, mended)

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	_, err = mux.SelfSigned(dir, []string{"not a name"}, clock)
	require.Error(t, err)
	_, err = mux.SelfSigned("/nowhere", []string{"a"}, clock)
	require.ErrorContains(t, err, "make the data directory writable")
}
