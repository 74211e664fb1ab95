// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv"
)

// closer tells of its closing.
type closer struct{ closed chan struct{} }

func (c closer) Close() error {
	close(c.closed)
	return nil
}

// answering returns a client's answers to all questions.
func answering(answer string) ssh.AuthMethod {
	return ssh.RetryableAuthMethod(ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) (answers []string, err error) {
		for range questions {
			answers = append(answers, answer)
		}
		return answers, nil
	}), 10)
}

// asks is a second factor whose question has one answer.
func asks(want string, second io.Closer) func(*srv.Config) {
	return func(c *srv.Config) {
		c.SecondFactor = func(_ context.Context, a srv.Attempt) (io.Closer, error) {
			answers, err := a.Ask("", "Hello, "+a.Identity.TeleportUser, []string{"Code: "}, []bool{false})
			if err != nil {
				return nil, err
			}
			if answers[0] != want {
				return nil, fmt.Errorf("wrapped: %w", &srv.Refusal{Reason: "wrong-code", Err: errors.New("wrong")})
			}
			return second, nil
		}
	}
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	t.Run("given", func(t *testing.T) {
		t.Parallel()
		second := closer{make(chan struct{})}
		got := make(chan io.Closer, 1)
		h := newHost(t, asks("1234", second), func(c *srv.Config) {
			handle := c.Handle
			c.Handle = func(ctx context.Context, conn *srv.Conn) {
				got <- conn.SecondFactor
				handle(ctx, conn)
			}
		})
		client, err := h.login("bob", ssh.PublicKeys(h.person()), answering("1234"))
		require.NoError(t, err)
		require.Equal(t, second, <-got)
		client.Close()
		require.Empty(t, h.refusals(0))
		select {
		case <-second.closed:
			t.Fatal("closing it is up to Handle")
		default:
		}
	})
	for name, test := range map[string]struct {
		auth   func(h *host) []ssh.AuthMethod
		person string
		reason string
	}{
		"wrong":             {func(h *host) []ssh.AuthMethod { return []ssh.AuthMethod{ssh.PublicKeys(h.person()), answering("0")} }, "alice", "wrong-code"},
		"not given":         {func(h *host) []ssh.AuthMethod { return []ssh.AuthMethod{ssh.PublicKeys(h.person())} }, "alice", "second-factor-was-not-given"},
		"without the first": {func(*host) []ssh.AuthMethod { return []ssh.AuthMethod{answering("1234")} }, "", "no-certificate-was-offered"},
		"first is not enough": {func(h *host) []ssh.AuthMethod {
			return []ssh.AuthMethod{ssh.PublicKeys(h.person(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"mallory"} })), answering("1234")}
		}, "alice", "login-is-not-among-the-principals"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, asks("1234", closer{}))
			_, err := h.login("bob", test.auth(h)...)
			require.Error(t, err)
			require.Equal(t, refusal("bob", test.person, test.reason), h.refusals(2))
		})
	}
	t.Run("panic", func(t *testing.T) {
		t.Parallel()
		h := newHost(t, func(c *srv.Config) {
			c.SecondFactor = func(context.Context, srv.Attempt) (io.Closer, error) { panic("oh") }
		})
		_, err := h.login("bob", ssh.PublicKeys(h.person()), answering(""))
		require.Error(t, err)
		require.Equal(t, refusal("bob", "alice", "internal-error"), h.refusals(2))
	})
	t.Run("wrong, and then not given", func(t *testing.T) {
		t.Parallel()
		h := newHost(t, asks("1234", closer{}))
		tries := 0
		_, err := h.login("bob", ssh.PublicKeys(h.person()), ssh.RetryableAuthMethod(ssh.KeyboardInteractive(
			func(_, _ string, questions []string, _ []bool) ([]string, error) {
				if tries++; tries > 1 {
					return nil, errors.New("enough")
				}
				return make([]string, len(questions)), nil
			}), 2))
		require.ErrorContains(t, err, "enough")
		require.Equal(t, refusal("bob", "alice", "wrong-code"), h.refusals(2))
	})
	t.Run("tries are bounded", func(t *testing.T) {
		t.Parallel()
		h := newHost(t, asks("1234", closer{}))
		tries := 0
		_, err := h.login("bob", ssh.PublicKeys(h.person()), ssh.RetryableAuthMethod(ssh.KeyboardInteractive(
			func(_, _ string, questions []string, _ []bool) ([]string, error) {
				tries++
				return make([]string, len(questions)), nil
			}), 100))
		require.Error(t, err)
		require.LessOrEqual(t, tries, 6)
		require.Equal(t, refusal("bob", "alice", "wrong-code"), h.refusals(2), "one pair a connection")
	})
}

// TestSecondFactorFinal: who is refused for good is asked no more.
func TestSecondFactorFinal(t *testing.T) {
	t.Parallel()
	calls := 0
	h := newHost(t, func(c *srv.Config) {
		c.SecondFactor = func(context.Context, srv.Attempt) (io.Closer, error) {
			calls++
			return nil, &srv.Refusal{Reason: "closed", Final: true, Err: errors.New("closed")}
		}
	})
	_, err := h.login("bob", ssh.PublicKeys(h.person()), answering(""))
	require.Error(t, err)
	require.Equal(t, refusal("bob", "alice", "closed"), h.refusals(2))
	require.Equal(t, 1, calls)
}

// TestSecondFactorEnds: it hears of the client's end, whatever it waits for, and
// what it has begun is ended where nobody gets it.
func TestSecondFactorEnds(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (h *host, conn net.Conn, waiting chan context.Context, finish chan error, second closer) {
		waiting, finish, second = make(chan context.Context, 1), make(chan error), closer{make(chan struct{})}
		h = newHost(t, func(c *srv.Config) {
			c.SecondFactor = func(ctx context.Context, _ srv.Attempt) (io.Closer, error) {
				waiting <- ctx
				<-ctx.Done()
				return second, <-finish
			}
		})
		conn, err := net.Dial("tcp", h.addr)
		require.NoError(t, err)
		go func() {
			_, _, _, _ = ssh.NewClientConn(conn, h.addr, &ssh.ClientConfig{
				User: "bob", Auth: []ssh.AuthMethod{ssh.PublicKeys(h.person()), answering("")}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			})
		}()
		return h, conn, waiting, finish, second
	}
	ends := func(t *testing.T, ctx context.Context) {
		t.Helper()
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Fatal("its context does not end")
		}
	}
	t.Run("the client goes", func(t *testing.T) {
		t.Parallel()
		h, conn, waiting, finish, _ := start(t)
		ctx := <-waiting
		conn.Close()
		ends(t, ctx)
		finish <- errors.New("gone")
		require.Equal(t, refusal("bob", "alice", "second-factor-was-not-given"), h.refusals(2))
	})
	t.Run("the grace time ends as it succeeds", func(t *testing.T) {
		t.Parallel()
		h, conn, waiting, finish, second := start(t)
		defer conn.Close()
		ctx := <-waiting
		h.clock.Advance(srv.DefaultLoginGraceTime)
		ends(t, ctx)
		finish <- nil
		select {
		case <-second.closed:
		case <-time.After(patience):
			t.Fatal("what was begun is not ended")
		}
		require.Equal(t, refusal("bob", "alice", "login-grace-time-is-over"), h.refusals(2))
	})
	t.Run("the server closes", func(t *testing.T) {
		t.Parallel()
		h, conn, waiting, finish, _ := start(t)
		defer conn.Close()
		ctx := <-waiting
		go h.server.Close()
		ends(t, ctx)
		finish <- errors.New("gone")
		require.Equal(t, refusal("bob", "alice", "server-is-shutting-down"), h.refusals(2))
	})
}

// patientConn is a client's connection on which nothing follows the version line
// before the server has made its offer.
type patientConn struct {
	net.Conn
	wrote, read int
	offered     chan struct{}
}

func (c *patientConn) Write(b []byte) (int, error) {
	if c.wrote++; c.wrote == 2 {
		<-c.offered
	}
	return c.Conn.Write(b)
}

func (c *patientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	before := c.read
	// More than a version line.
	if c.read += n; before < 256 && c.read >= 256 {
		close(c.offered)
	}
	return n, err
}

// TestSecondFactorOfPatientClient: a client that waits for the server's offer is
// asked like any other.
func TestSecondFactorOfPatientClient(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(c *srv.Config) {
		c.SecondFactor = func(ctx context.Context, a srv.Attempt) (io.Closer, error) {
			for range 3 {
				if _, err := a.Ask("", "", []string{"Code: "}, []bool{false}); err != nil {
					return nil, err
				}
			}
			// Nobody has told it meanwhile that the client is gone.
			return closer{make(chan struct{})}, ctx.Err()
		}
	})
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	client, channels, requests, err := ssh.NewClientConn(&patientConn{Conn: conn, offered: make(chan struct{})}, h.addr, &ssh.ClientConfig{
		User: "bob", Auth: []ssh.AuthMethod{ssh.PublicKeys(h.person()), answering("1")}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.NoError(t, err)
	go ssh.DiscardRequests(requests)
	go func() {
		for c := range channels {
			_ = c.Reject(ssh.Prohibited, "")
		}
	}()
	require.NoError(t, client.Close())
}
