// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv"
)

func TestAuthorize(t *testing.T) {
	t.Parallel()
	locked := fmt.Errorf("wrapped: %w", &srv.Refusal{Reason: "user-is-locked", Err: errors.New("locked")})
	for _, test := range []struct {
		name   string
		err    error
		change func(*ssh.Certificate)
		reason string // empty where the client gets in
		calls  int
	}{
		{"allowed", nil, nil, "", 1},
		{"refused", locked, nil, "user-is-locked", 1},
		{"undecided", errors.New("the cache is empty"), nil, "access-could-not-be-decided", 1},
		{"a bad certificate", nil, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"mallory"} }, "login-is-not-among-the-principals", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seen, told := make(chan srv.Identity, 10), make(chan srv.Refused, 10)
			h := newHost(t, func(c *srv.Config) {
				c.Authorize = func(_ context.Context, identity srv.Identity) error {
					seen <- identity
					return test.err
				}
				c.Refused = func(r srv.Refused) { told <- r }
			})
			var change []func(*ssh.Certificate)
			if test.change != nil {
				change = append(change, test.change)
			}
			client, err := h.login("bob", ssh.PublicKeys(h.person(change...)))
			if test.reason == "" {
				require.NoError(t, err)
				// Serving it begins after the client knows that it is in.
				require.Equal(t, "alice", (<-h.conns).TeleportUser)
				client.Close()
				require.Empty(t, h.refusals(0))
				require.Empty(t, told)
			} else {
				require.Error(t, err)
				require.Equal(t, refusal("bob", "alice", test.reason), h.refusals(2))
				require.Empty(t, h.conns)
				r := <-told
				require.NotNil(t, r.RemoteAddr)
				require.NotNil(t, r.LocalAddr)
				r.RemoteAddr, r.LocalAddr = nil, nil
				require.Equal(t, srv.Refused{Login: "bob", TeleportUser: "alice", Reason: test.reason}, r)
				require.Empty(t, told, "one connection is one refusal")
			}
			require.Len(t, seen, test.calls)
			if test.calls > 0 {
				require.Equal(t, "alice", (<-seen).TeleportUser)
			}
		})
	}
}

// TestAuthorizeComesFirst lets nobody be asked for a second factor who may not
// log in anyway.
func TestAuthorizeComesFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(c *srv.Config) {
		c.Authorize = func(context.Context, srv.Identity) error {
			return &srv.Refusal{Reason: "role-not-found", Err: errors.New("gone")}
		}
		c.SecondFactor = func(context.Context, srv.Attempt) (io.Closer, error) {
			t.Error("the second factor was asked for")
			return nil, errors.New("no")
		}
	})
	_, err := h.login("bob", ssh.PublicKeys(h.person()), answering("1"))
	require.Error(t, err)
	require.Equal(t, refusal("bob", "alice", "role-not-found"), h.refusals(2))
}

// TestAuthorizeEndsWithTheClient asks a source that does not answer.
func TestAuthorizeEndsWithTheClient(t *testing.T) {
	t.Parallel()
	asked, ended := make(chan struct{}), make(chan struct{})
	h := newHost(t, func(c *srv.Config) {
		c.Authorize = func(ctx context.Context, _ srv.Identity) error {
			close(asked)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}
	})
	go func() { _, _ = h.login("bob", ssh.PublicKeys(h.person())) }()
	for _, step := range []struct {
		what string
		done chan struct{}
	}{{"asked", asked}, {"told that its client has gone", ended}} {
		select {
		case <-step.done:
			// The grace time is over.
			h.clock.Advance(3 * time.Minute)
		case <-time.After(patience):
			t.Fatalf("Authorize was not %s", step.what)
		}
	}
	require.Len(t, h.refusals(2), 2)
}
