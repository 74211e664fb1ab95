// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/srvtest"
)

// greets tells whether a new connection is answered, rather than closed at once.
func greets(t *testing.T, addr string) (net.Conn, bool) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.ReadFull(conn, make([]byte, len("SSH-2.0-Teleport\r\n")))
	return conn, err == nil
}

// messages returns the log's messages from a level that operators see.
func (h *host) messages() []string {
	var messages []string
	for _, entry := range h.log.AllEntries() {
		if entry.Level <= logrus.WarnLevel {
			messages = append(messages, entry.Message)
		}
	}
	return messages
}

func TestMaxStartups(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *srv.Config) { cfg.MaxStartups = 2 })

	// Who has logged in does not count.
	client, err := h.login("bob", ssh.PublicKeys(h.person()))
	require.NoError(t, err)
	defer client.Close()
	<-h.conns

	first, ok := greets(t, h.addr)
	require.True(t, ok)
	_, ok = greets(t, h.addr)
	require.True(t, ok)
	for range 5 {
		_, ok = greets(t, h.addr)
		require.False(t, ok, "a third one must be closed at once")
	}
	const line = "Connections closed: %s. As many as may (max_startups: 2) have not authenticated yet."
	require.Eventually(t, func() bool { return len(h.messages()) == 1 }, patience, time.Millisecond)
	require.Equal(t, []string{strings.Replace(line, "%s", "1", 1)}, h.messages(), "a flood must not fill the log")
	h.clock.Advance(time.Minute)
	require.Eventually(t, func() bool { return len(h.messages()) == 2 }, patience, time.Millisecond)
	require.Equal(t, strings.Replace(line, "%s", "4", 1), h.messages()[1], "what was kept back is counted")

	// A place that is free again is used again.
	first.Close()
	require.Eventually(t, func() bool {
		client, err := h.login("bob", ssh.PublicKeys(h.person()))
		if err == nil {
			<-h.conns
			client.Close()
		}
		return err == nil
	}, patience, time.Millisecond)
	require.Empty(t, h.refusals(0))
}

// TestMaxStartupsOfOneAddress: whoever has many connections keeps nobody out who has
// few.
func TestMaxStartupsOfOneAddress(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *srv.Config) { cfg.MaxStartups = 3 })
	from := func(n byte) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}}
		conn, err := dialer.Dial("tcp", h.addr)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		_, err = io.ReadFull(conn, make([]byte, len("SSH-2.0-Teleport\r\n")))
		require.NoError(t, err)
		return conn
	}
	named := newWire(t, h.addr)
	named.ask("bob", "none", nil)
	silent := from(1)
	from(2) // who has one goes for nobody
	first := from(3)
	// What was cut off after it has given a name is recorded.
	require.Equal(t, refusal("bob", "", "too-many-have-not-authenticated"), h.recorded(2))
	require.NoError(t, silent.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err := io.Copy(io.Discard, silent)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Eventually(t, func() bool { return len(h.messages()) == 1 }, patience, time.Millisecond)
	require.Contains(t, h.messages()[0], "Connections closed: 1. As many")
	_, ok := greets(t, h.addr)
	require.False(t, ok, "each address has one")
	first.Close()
	require.Eventually(t, func() bool {
		_, ok := greets(t, h.addr)
		return ok
	}, patience, time.Millisecond)
}

func TestPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	t.Run("in Handle", func(t *testing.T) {
		t.Parallel()
		var first atomic.Bool
		h := newHost(t, func(cfg *srv.Config) {
			handle := cfg.Handle
			cfg.Handle = func(ctx context.Context, conn *srv.Conn) {
				if first.CompareAndSwap(false, true) {
					panic("one of ours")
				}
				handle(ctx, conn)
			}
		})
		client, err := h.login("bob", ssh.PublicKeys(h.person()))
		require.NoError(t, err)
		require.Error(t, client.Wait(), "the connection must end")
		require.Eventually(t, func() bool { return len(h.messages()) == 1 }, patience, time.Millisecond)
		require.Contains(t, h.messages()[0], "one of ours")
		client, err = h.login("bob", ssh.PublicKeys(h.person()))
		require.NoError(t, err, "the server must go on")
		<-h.conns
		client.Close()
		require.Empty(t, h.refusals(0))
	})
	t.Run("in the user database", func(t *testing.T) {
		t.Parallel()
		var first atomic.Bool
		h := newHost(t, func(cfg *srv.Config) {
			cfg.LookupUID = func(login string) (uint32, bool, error) {
				if first.CompareAndSwap(false, true) {
					panic("one of ours")
				}
				return lookup(login)
			}
		})
		_, err := h.login("bob", ssh.PublicKeys(h.person()))
		require.Error(t, err)
		require.Equal(t, refusal("bob", "", "internal-error"), h.refusals(2))
	})
}

func TestShutdownDrains(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client, err := h.login("bob", ssh.PublicKeys(h.person()))
	require.NoError(t, err)
	<-h.conns
	waiting := newWire(t, h.addr)
	waiting.ask("bob", "none", nil)

	short, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.server.Shutdown(short), context.Canceled)
	require.NoError(t, <-h.served)
	waiting.end()
	_, err = net.Dial("tcp", h.addr)
	require.Error(t, err, "nothing new is accepted")
	_, _, err = client.SendRequest("keepalive@openssh.com", true, nil)
	require.NoError(t, err, "who has logged in stays")

	ended := make(chan error)
	go func() { ended <- h.server.Shutdown(t.Context()) }()
	client.Close()
	require.NoError(t, <-ended)
	require.Equal(t, refusal("bob", "", "server-is-shutting-down"), h.refusals(2))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, h.server.Serve(listener), "a stopped server serves nothing")
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	started, handled := make(chan struct{}), make(chan struct{})
	h := newHost(t, func(cfg *srv.Config) {
		cfg.Handle = func(ctx context.Context, conn *srv.Conn) {
			close(started)
			// It reads nothing, until Close tells it to end.
			<-ctx.Done()
			close(handled)
		}
	})
	client, err := h.login("bob", ssh.PublicKeys(h.person()))
	require.NoError(t, err)
	<-started
	for range 40 {
		go func() {
			_, _, err := client.OpenChannel("session", nil)
			assert.Error(t, err)
		}()
		_, _, err := client.SendRequest("noise", false, nil)
		require.NoError(t, err)
	}
	newWire(t, h.addr)
	_, ok := greets(t, h.addr)
	require.True(t, ok)

	require.NoError(t, h.server.Close())
	select {
	case <-handled:
	default:
		t.Fatal("Close must wait for Handle")
	}
	require.NoError(t, <-h.served)
	require.Error(t, client.Wait())
	require.NoError(t, h.server.Close(), "again is no error")
	// The condition has a goroutine of its own.
	require.Eventually(t, func() bool { return runtime.NumGoroutine()-1 <= before }, patience, time.Millisecond,
		"goroutines are left over")
}

// faulty is a listener whose Accept returns these errors first.
type faulty struct {
	net.Listener
	errs []error
}

func (f *faulty) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: err}
	}
	return f.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return listener
	}
	t.Run("that pass", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		listener := &faulty{Listener: listen(), errs: []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED}}
		served := make(chan error)
		go func() { served <- h.server.Serve(listener) }()
		for _, delay := range []time.Duration{5, 10, 20} {
			// One timer is the log's, which keeps the second line back.
			require.NoError(t, h.clock.BlockUntilContext(t.Context(), 2))
			h.clock.Advance(delay * time.Millisecond)
		}
		_, ok := greets(t, listener.Addr().String())
		require.True(t, ok)
		require.Len(t, h.messages(), 1)
		require.Contains(t, h.messages()[0], "too many open files")
		require.NoError(t, h.server.Close())
		require.NoError(t, <-served)
	})
	t.Run("while stopping", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		served := make(chan error)
		go func() { served <- h.server.Serve(&faulty{Listener: listen(), errs: []error{syscall.EMFILE}}) }()
		require.NoError(t, h.clock.BlockUntilContext(t.Context(), 2))
		require.NoError(t, h.server.Close())
		require.NoError(t, <-served)
	})
	t.Run("that stay", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		err := h.server.Serve(&faulty{Listener: listen(), errs: []error{syscall.EBADF}})
		require.ErrorIs(t, err, syscall.EBADF)
		require.Contains(t, err.Error(), "accepting connections on 127.0.0.1:")
	})
}

// TestStrangerCannotFillTheLog covers what anybody can cause without an account.
func TestStrangerCannotFillTheLog(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.cas.Fail(errors.New("disk on fire"))
	for range 3 {
		_, err := h.login("bob", ssh.PublicKeys(h.person()))
		require.Error(t, err)
	}
	require.Equal(t, []string{
		"Certificates refused: 1, because the trusted certificate authorities could not be read: disk on fire.",
	}, h.messages())
	require.Len(t, h.refusals(6), 6)
	require.Len(t, h.messages(), 2)
	require.Contains(t, h.messages()[1], "Certificates refused: 2,")
}

// TestEmitterErrorsStayInside: what the audit system answers reaches neither the
// client nor, for each event, the log.
func TestEmitterErrorsStayInside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.recorder.Fail(errors.New("no buffer space"))
	_, err := h.login("bob")
	require.Error(t, err)
	require.Equal(t, refusal("bob", "", "no-certificate-was-offered"), h.refusals(2))
	for _, entry := range h.log.AllEntries() {
		require.NotContains(t, entry.Message, "no buffer space")
	}
}

func TestProxyKnowsNoLogins(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *srv.Config) {
		cfg.LookupUID = nil
		cfg.FailureEvents = []auditd.EventType{auditd.AuditUserErr}
	})
	client, err := h.login("nobody-here", ssh.PublicKeys(h.person(func(c *ssh.Certificate) {
		c.ValidPrincipals = []string{"nobody-here"}
	})))
	require.NoError(t, err)
	require.Equal(t, "nobody-here", (<-h.conns).Login)
	client.Close()
	_, err = h.login("bob")
	require.Error(t, err)
	require.Equal(t, []auditd.Event{{
		Type:        auditd.AuditUserErr,
		SystemUser:  "bob",
		ConnAddress: "127.0.0.1",
		Reason:      "no-certificate-was-offered",
	}}, h.refusals(1))
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := func() srv.Config {
		return srv.Config{
			Component:     "node",
			Emitter:       &auditdtest.Recorder{},
			FailureEvents: []auditd.EventType{auditd.AuditUserErr},
			CAs:           &srvtest.CAs{},
			HostSigners:   func() []ssh.Signer { return nil },
			Handle:        func(context.Context, *srv.Conn) {},
		}
	}
	cfg := good()
	require.NoError(t, cfg.CheckAndSetDefaults())
	require.Equal(t, 100, cfg.MaxStartups)
	require.Equal(t, 2*time.Minute, cfg.LoginGraceTime)
	for want, spoil := range map[string]func(*srv.Config){
		"no Component":               func(c *srv.Config) { c.Component = "" },
		"no Emitter":                 func(c *srv.Config) { c.Emitter = nil },
		"no FailureEvents":           func(c *srv.Config) { c.FailureEvents = nil },
		"no CAs":                     func(c *srv.Config) { c.CAs = nil },
		"no HostSigners":             func(c *srv.Config) { c.HostSigners = nil },
		"no Handle":                  func(c *srv.Config) { c.Handle = nil },
		"negative MaxStartups -1":    func(c *srv.Config) { c.MaxStartups = -1 },
		"negative LoginGraceTime -1": func(c *srv.Config) { c.LoginGraceTime = -1 },
	} {
		cfg := good()
		spoil(&cfg)
		_, err := srv.New(cfg)
		require.ErrorContains(t, err, want)
	}
}
