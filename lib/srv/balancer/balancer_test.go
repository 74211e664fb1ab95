// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package balancer

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	proxyproto "github.com/pires/go-proxyproto"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

type port struct {
	net.Listener
	clock *clockwork.FakeClock
	log   *logtest.Hook
}

func newPort(t *testing.T, headers bool) *port {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	p := &port{clock: clockwork.NewFakeClock(), log: hook}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.Listener, err = NewListener(tcp, Config{Headers: headers, Clock: p.clock, Log: log})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func (p *port) dial(t *testing.T, first string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, first)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	return conn.(*net.TCPConn)
}

func v2(t *testing.T, source, destination string, tlvs ...proxyproto.TLV) string {
	t.Helper()
	from, err := net.ResolveTCPAddr("tcp", source)
	require.NoError(t, err)
	to, err := net.ResolveTCPAddr("tcp", destination)
	require.NoError(t, err)
	h := proxyproto.HeaderProxyFromAddrs(2, from, to)
	require.NoError(t, h.SetTLVs(tlvs))
	text, err := h.Format()
	require.NoError(t, err)
	return string(text)
}

func TestBehindBalancer(t *testing.T) {
	t.Parallel()
	p := newPort(t, true)
	local := string(proxyproto.SIGV2) + "\x20\x00\x00\x00"
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.1 192.0.2.9 50000 3023\r\n":                                          "192.0.2.1:50000",
		"PROXY TCP6 2001:db8::1 2001:db8::2 50000 3023\r\n":                                      "[2001:db8::1]:50000",
		v2(t, "192.0.2.1:5", "192.0.2.9:3023"):                                                   "192.0.2.1:5",
		v2(t, "[2001:db8::1]:5", "[2001:db8::2]:3023"):                                           "[2001:db8::1]:5",
		v2(t, "192.0.2.1:5", "[2001:db8::2]:3023"):                                               "192.0.2.1:5",
		v2(t, "192.0.2.1:6", "192.0.2.9:1", proxyproto.TLV{Type: 0xEA, Value: make([]byte, 50)}): "192.0.2.1:6",
		"PROXY UNKNOWN\r\n": "", // the load balancer looks whether the port is open
		local:               "",
	} {
		conn := p.dial(t, header+"SSH-2.0-x\r\n")
		accepted, err := p.Accept()
		require.NoError(t, err)
		if want == "" {
			want = conn.LocalAddr().String()
		}
		require.Equal(t, want, accepted.RemoteAddr().String(), "%q", header)
		require.NoError(t, conn.CloseWrite())
		got, err := io.ReadAll(accepted)
		require.NoError(t, err)
		require.Equal(t, "SSH-2.0-x\r\n", string(got))
		_, err = accepted.Write([]byte("answer"))
		require.NoError(t, err)
		require.NoError(t, accepted.Close())
		got, err = io.ReadAll(conn)
		require.NoError(t, err)
		require.Equal(t, "answer", string(got))
	}
	require.Empty(t, p.log.AllEntries())
}

func TestNoGoodHeader(t *testing.T) {
	t.Parallel()
	for header, why := range map[string]string{
		"SSH-2.0-OpenSSH_9.2\r\n":                                                "there is no header",
		"\x16\x03\x01":                                                           "there is no header",
		"PROXY TCP4 192.0.2.1 192.0.2.9 50000\r\n":                               "malformed",
		"PROXY TCP4 192.0.2.1 192.0.2.9 50000 70000\r\n":                         "malformed",
		"PROXY TCP4 name name 1 1\r\n":                                           "malformed",
		"PROXY TCP4 192.0.2.1 192.0.2.9 50000 3023\n":                            "malformed",
		"PROXY " + strings.Repeat("x", 200):                                      "longer than",
		string(proxyproto.SIGV2) + "\x21\x11\xff\xff":                            "longer than",
		string(proxyproto.SIGV2) + "\x21\x11\x00\x01x":                           "malformed",
		string(proxyproto.SIGV2) + "\x21\x12\x00\x0c" + "123456789012":           "not for TCP",
		string(proxyproto.SIGV2) + "\x31\x11\x00\x0c" + "123456789012":           "malformed",
		string(proxyproto.SIGV2) + "\x21\x31\x00\xd8" + strings.Repeat("x", 216): "not for TCP",
	} {
		p := newPort(t, true)
		conn := p.dial(t, header)
		_, err := io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "%q", header)
		require.Eventually(t, func() bool { return p.log.LastEntry() != nil }, patience, time.Millisecond)
		require.Contains(t, p.log.LastEntry().Message, why, "%q", header)
		require.Contains(t, p.log.LastEntry().Message, conn.LocalAddr().String())
		require.NotContains(t, p.log.LastEntry().Message, "\n")
	}
}

// TestSlowHeader: whoever takes long holds nobody up, and is let go.
func TestSlowHeader(t *testing.T) {
	t.Parallel()
	p := newPort(t, true)
	slow := p.dial(t, "PROXY TCP4 192.0.2.1 ")
	silent := p.dial(t, "")
	quick := p.dial(t, "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n")
	accepted, err := p.Accept()
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1:1", accepted.RemoteAddr().String())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.clock.BlockUntilContext(ctx, 2))
	p.clock.Advance(headerTime)
	for _, conn := range []net.Conn{slow, silent} {
		_, err := conn.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
	_, err = accepted.Write([]byte("x"))
	require.NoError(t, err)
	_, err = quick.Read(make([]byte, 1))
	require.NoError(t, err)

	waiting := p.dial(t, "")
	require.NoError(t, p.Close())
	_, err = io.Copy(io.Discard, waiting)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	_, err = p.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// TestNoBalancer: nobody can pass for somebody else where headers were not asked
// for.
func TestNoBalancer(t *testing.T) {
	t.Parallel()
	for _, header := range []string{
		"PROXY TCP4 192.0.2.1 192.0.2.9 50000 3023\r\n",
		"PROXY",
		v2(t, "192.0.2.1:5", "192.0.2.9:3023"),
		string(proxyproto.SIGV2),
	} {
		p := newPort(t, false)
		conn := p.dial(t, header)
		accepted, err := p.Accept()
		require.NoError(t, err)
		_, err = accepted.Read(make([]byte, 1))
		require.Error(t, err)
		_, err = io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, conn.LocalAddr().String(), accepted.RemoteAddr().String())
		require.Contains(t, p.log.LastEntry().Message, "proxy_service.proxy_protocol")
		require.Contains(t, p.log.LastEntry().Message, conn.LocalAddr().String())
	}
	p := newPort(t, false)
	for _, first := range []string{"SSH-2.0-x\r\n", "P", "PRO", "\r\n\r\nx", "\x16\x03\x01", ""} {
		conn := p.dial(t, first)
		require.NoError(t, conn.CloseWrite())
		accepted, err := p.Accept()
		require.NoError(t, err)
		// The server may speak first.
		_, err = accepted.Write([]byte("x"))
		require.NoError(t, err)
		got, err := io.ReadAll(accepted)
		require.NoError(t, err)
		if len(first) > 4 {
			require.Equal(t, first, string(got))
		}
		require.Equal(t, conn.LocalAddr().String(), accepted.RemoteAddr().String())
	}
	require.Empty(t, p.log.AllEntries())
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.9 50000 3023\r\n"))
	f.Add(append(bytes.Clone(proxyproto.SIGV2), 0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
	f.Fuzz(func(t *testing.T, b []byte) {
		length, more, err := headerLength(b)
		if err == nil && !more {
			_, _ = parse(b[:length])
		}
	})
}
