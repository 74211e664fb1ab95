// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package firstbytes

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

// faulty is a listener with an error before its first connection.
type faulty struct {
	net.Listener
	err error
}

func (f *faulty) Accept() (net.Conn, error) {
	if err := f.err; err != nil {
		f.err = nil
		return nil, err
	}
	return f.Listener.Accept()
}

func listen(t *testing.T, fault error, cfg GreetConfig) net.Listener {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l, err := Listen(&faulty{tcp, fault}, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// one reads one byte and gives it back.
func one(_ context.Context, conn net.Conn, inTime func() bool) net.Conn {
	first := make([]byte, 1)
	_, err := io.ReadFull(conn, first)
	if !inTime() || err != nil {
		conn.Close()
		return nil
	}
	return Prefixed(conn, first)
}

func dial(t *testing.T, l net.Listener, first string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, first)
	require.NoError(t, err)
	return conn
}

// TestErrorsPassThrough: whoever accepts hears of what may pass, and decides.
func TestErrorsPassThrough(t *testing.T) {
	t.Parallel()
	l := listen(t, syscall.EMFILE, GreetConfig{Greet: one, Within: patience})
	_, err := l.Accept()
	require.ErrorIs(t, err, syscall.EMFILE)
	dial(t, l, "hello").Close()
	conn, err := l.Accept()
	require.NoError(t, err)
	text, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "hello", string(text))
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func requireClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := conn.Read(make([]byte, 1))
	require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
}

// TestWithin: nobody is silent for longer than one may be.
func TestWithin(t *testing.T) {
	t.Parallel()
	l := listen(t, nil, GreetConfig{Greet: one, Within: 50 * time.Millisecond})
	requireClosed(t, dial(t, l, ""))
}

// TestWaitingIsBounded: whoever comes while as many as may are silent is looked at,
// and the client who has most of them loses one.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	l := listen(t, nil, GreetConfig{Greet: one, Within: time.Hour, MaxWaiting: 20})
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	alone, err := other.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer alone.Close()
	var silent []net.Conn
	for range 600 {
		silent = append(silent, dial(t, l, ""))
	}
	requireClosed(t, silent[0])
	requireClosed(t, silent[500])
	for _, conn := range []net.Conn{dial(t, l, "x"), alone} {
		_, err = io.WriteString(conn, "x")
		require.NoError(t, err)
		accepted, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, conn.LocalAddr().String(), accepted.RemoteAddr().String())
		_, err = accepted.Read(make([]byte, 1))
		require.NoError(t, err)
	}
}

func TestGreetConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []GreetConfig{{Within: 1}, {Greet: one}, {Greet: one, Within: 1, MaxWaiting: -1}} {
		_, err := Listen(nil, cfg)
		require.Error(t, err)
	}
}
