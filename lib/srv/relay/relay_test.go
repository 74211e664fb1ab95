// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	for _, c := range []net.Conn{conn, accepted} {
		t.Cleanup(func() { c.Close() })
		require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	}
	return conn.(*net.TCPConn), accepted.(*net.TCPConn)
}

func TestConns(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, client, server *net.TCPConn, cancel func()){
		"each way by itself": func(t *testing.T, client, server *net.TCPConn, _ func()) {
			_, err := io.WriteString(client, "question")
			require.NoError(t, err)
			require.NoError(t, client.CloseWrite())
			question, err := io.ReadAll(server)
			require.NoError(t, err)
			require.Equal(t, "question", string(question))
			_, err = io.WriteString(server, "answer")
			require.NoError(t, err)
			require.NoError(t, server.Close())
			answer, err := io.ReadAll(client)
			require.NoError(t, err)
			require.Equal(t, "answer", string(answer))
		},
		"one breaks off": func(t *testing.T, client, server *net.TCPConn, _ func()) {
			require.NoError(t, client.SetLinger(0))
			require.NoError(t, client.Close())
			_, _ = io.Copy(io.Discard, server)
		},
		"the client stays": func(t *testing.T, client, server *net.TCPConn, _ func()) {
			_, err := io.WriteString(server, "no")
			require.NoError(t, err)
			require.NoError(t, server.Close())
			answer, err := io.ReadAll(client)
			require.NoError(t, err)
			require.Equal(t, "no", string(answer))
		},
		"the context ends": func(t *testing.T, client, server *net.TCPConn, cancel func()) {
			cancel()
			_, _ = io.Copy(io.Discard, client)
			_, _ = io.Copy(io.Discard, server)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, a := pair(t)
			server, b := pair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan struct{})
			go func() {
				Conns(ctx, a, b)
				close(done)
			}()
			end(t, client, server, cancel)
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("it has not ended")
			}
		})
	}
}
