// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv/srvtest"
)

// TestRekey holds that a new version of x/crypto/ssh still has what rekey reaches
// for: the server asks for a new key at each interval, and not before.
func TestRekey(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClockAt(time.Now())
	log, hook := logtest.NewNullLogger()
	ca, hostKey := srvtest.NewAuthority(t), srvtest.NewKey(t)
	cas := &srvtest.CAs{}
	cas.Trust(ca)
	handled := make(chan struct{})
	server, err := New(Config{
		Component: "node", Emitter: &auditdtest.Recorder{}, FailureEvents: []auditd.EventType{auditd.AuditUserErr},
		CAs: cas, HostSigners: func() []ssh.Signer { return []ssh.Signer{hostKey} },
		Handle: func(_ context.Context, conn *Conn) {
			close(handled)
			go ssh.DiscardRequests(conn.Requests)
			for channel := range conn.Channels {
				_ = channel.Reject(ssh.Prohibited, "")
			}
		},
		Clock: clock, Log: log,
	})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })

	var exchanges atomic.Int32
	client, err := ssh.Dial("tcp", listener.Addr().String(), &ssh.ClientConfig{
		User: "bob",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(ca.Login(t, clock.Now()))},
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error {
			exchanges.Add(1)
			return nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	// Until then the clock has the timer of the grace time.
	<-handled
	ask := func() {
		t.Helper()
		_, _, err := client.SendRequest("ping", true, nil)
		require.NoError(t, err)
	}
	for want := int32(2); want < 5; want++ {
		require.NoError(t, clock.BlockUntilContext(t.Context(), 1))
		clock.Advance(DefaultRekeyInterval - time.Second)
		ask()
		require.Equal(t, want-1, exchanges.Load())
		clock.Advance(time.Second)
		require.Eventually(t, func() bool { return exchanges.Load() == want }, 30*time.Second, time.Millisecond)
		ask()
	}
	for _, entry := range hook.AllEntries() {
		require.NotEqual(t, logrus.WarnLevel, entry.Level, entry.Message)
	}

	// The clock keeps nothing of a connection that has ended.
	require.NoError(t, client.Close())
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return clock.BlockUntilContext(ctx, 1) != nil
	}, 30*time.Second, time.Millisecond)
}

// stranger is a connection of another make than x/crypto/ssh's.
type stranger struct {
	ssh.Conn
	transport any
}

// TestRekeyOfOtherMake: what is not as it is known is left alone, and said once.
func TestRekeyOfOtherMake(t *testing.T) {
	t.Parallel()
	log, hook := logtest.NewNullLogger()
	server := &Server{cfg: Config{Clock: clockwork.NewFakeClock(), RekeyInterval: time.Hour}, log: log}
	for _, conn := range []ssh.Conn{
		nil,
		(*stranger)(nil),
		stranger{},
		&stranger{},
		&stranger{transport: &struct{ other int }{}},
		&stranger{transport: &struct{ requestKex chan int }{make(chan int, 1)}},
		&stranger{transport: &struct{ requestKex chan struct{} }{}},
		&stranger{transport: &struct{ requestKex chan struct{} }{make(chan struct{})}},
		stranger{transport: struct{ requestKex chan struct{} }{make(chan struct{}, 1)}},
	} {
		server.rekey(&Conn{ServerConn: &ssh.ServerConn{Conn: conn}})()
	}
	require.Len(t, hook.AllEntries(), 1)
}
