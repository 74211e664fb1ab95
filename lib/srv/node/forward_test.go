// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// echo is a server that sends back what it gets, to the end of it.
func echo(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l
}

// closeWriter is a connection whose two directions end by themselves.
type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// roundTrip sends something, ends its direction, and wants it back.
func roundTrip(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	within(t, "what was sent comes back", func() {
		var back same
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(conn, &pattern{size: size})
			if err == nil {
				err = conn.(closeWriter).CloseWrite()
			}
			done <- err
		}()
		_, err := io.Copy(&back, conn)
		require.NoError(t, err)
		require.NoError(t, <-done)
		require.Equal(t, same{at: size}, back)
	})
}

// logins counts what the log has of logins.
func (h *host) logins() (n int) {
	for _, entry := range h.log.AllEntries() {
		if entry.Message == "Login." {
			n++
		}
	}
	return n
}

func rejected(t *testing.T, err error) *ssh.OpenChannelError {
	t.Helper()
	var refused *ssh.OpenChannelError
	require.ErrorAs(t, err, &refused)
	return refused
}

func TestDirect(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	tcp := echo(t, "tcp", "127.0.0.1:0")
	path := filepath.Join(writable(t), "socket")
	echo(t, "unix", path)
	require.NoError(t, os.Chmod(path, 0o777))
	for _, size := range []int{0, 1, 1024, 1 << 15, 5 << 20} {
		conn, err := client.Dial("tcp", tcp.Addr().String())
		require.NoError(t, err)
		roundTrip(t, conn, size)
		_ = conn.Close()
		conn, err = client.Dial("unix", path)
		require.NoError(t, err)
		roundTrip(t, conn, size)
		_ = conn.Close()
	}
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	require.NoError(t, err)
	conn, err := client.Dial("tcp", "localhost:"+port)
	require.NoError(t, err)
	roundTrip(t, conn, 100)
	require.Equal(t, 1, h.logins(), "one connection is one login")
	require.Empty(t, h.lines())
}
