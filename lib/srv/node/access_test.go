// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/node"
)

// cache is a source of roles and locks that tests change.
type cache struct {
	mu    sync.Mutex
	roles map[string]types.Role
	locks []types.Lock
}

func (c *cache) Roles(context.Context, []string) (map[string]types.Role, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roles == nil {
		return nil, errors.New("the cache is empty")
	}
	return c.roles, nil
}

func (c *cache) Locks(context.Context) ([]types.Lock, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locks, nil
}

func (c *cache) lock(t *testing.T, target types.LockTarget) types.Lock {
	lock, err := types.NewLock("lock", types.LockSpecV2{Target: target, Message: "the laptop is lost"})
	require.NoError(t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.locks = append(c.locks, lock)
	return lock
}

func (c *cache) role(t *testing.T, name, spec string) {
	role, err := access.Parse([]byte(`{"kind":"role","version":"v7","metadata":{"name":"` + name + `"},"spec":` + spec + `}`))
	require.NoError(t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roles == nil {
		c.roles = make(map[string]types.Role)
	}
	c.roles[name] = role
}

// decides makes a node decide by roles and locks.
func decides(t *testing.T, c *cache) (*access.Decider, func(*node.Config)) {
	decider, err := access.NewDecider(access.DeciderConfig{
		Source: c, ServerID: "f00f", Labels: func() map[string]string { return map[string]string{"env": "prod"} },
	})
	require.NoError(t, err)
	return decider, func(cfg *node.Config) {
		cfg.Access = func(ctx context.Context, identity srv.Identity) (access.Options, error) {
			return decider.Decide(ctx, node.Person(identity))
		}
	}
}

// withRoles puts roles into a certificate.
func withRoles(names ...string) func(*ssh.Certificate) {
	list := `"` + strings.Join(names, `","`) + `"`
	if len(names) == 0 {
		list = ""
	}
	return func(c *ssh.Certificate) {
		c.Extensions["teleport-roles"] = `{"version":"v1","roles":[` + list + `]}`
		c.Extensions["teleport-traits"] = `{"logins":["` + c.ValidPrincipals[0] + `"]}`
	}
}

const anyLogin = `"logins":["{{internal.logins}}"]`

func TestAccessRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change  func(*ssh.Certificate)
		prepare func(t *testing.T, h *host, c *cache)
		reason  string
	}{
		"login":     {withRoles("others"), nil, "login-not-allowed-by-role"},
		"no roles":  {withRoles(), nil, "login-not-allowed-by-role"},
		"labels":    {withRoles("test"), nil, "node-not-allowed-by-role"},
		"denied":    {withRoles("prod", "deny"), nil, "login-not-allowed-by-role"},
		"gone":      {withRoles("gone"), nil, "role-not-found"},
		"malformed": {func(c *ssh.Certificate) { c.Extensions["teleport-roles"] = "x" }, nil, "roles-cannot-be-read"},
		"user locked": {withRoles("prod"), func(t *testing.T, _ *host, c *cache) {
			c.lock(t, types.LockTarget{User: "alice"})
		}, "user-is-locked"},
		"user locked, principals alone": {func(*ssh.Certificate) {}, func(t *testing.T, _ *host, c *cache) {
			c.lock(t, types.LockTarget{User: "alice"})
		}, "user-is-locked"},
		"login locked": {withRoles("prod"), func(t *testing.T, h *host, c *cache) {
			c.lock(t, types.LockTarget{Login: h.user.Name})
		}, "login-is-locked"},
		"role locked": {withRoles("prod"), func(t *testing.T, _ *host, c *cache) {
			c.lock(t, types.LockTarget{Role: "prod"})
		}, "role-is-locked"},
		"node locked": {withRoles("prod"), func(t *testing.T, _ *host, c *cache) {
			c.lock(t, types.LockTarget{ServerID: "f00f"})
		}, "node-is-locked"},
		"undecided": {withRoles("prod"), func(_ *testing.T, _ *host, c *cache) { c.roles = nil }, "access-could-not-be-decided"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cache{}
			c.role(t, "prod", `{"allow":{`+anyLogin+`,"node_labels":{"env":"prod"}}}`)
			c.role(t, "test", `{"allow":{`+anyLogin+`,"node_labels":{"env":"test"}}}`)
			c.role(t, "others", `{"allow":{"logins":["nobody-else"],"node_labels":{"*":"*"}}}`)
			c.role(t, "deny", `{"deny":{"logins":["*"]}}`)
			_, change := decides(t, c)
			var told atomic.Pointer[apievents.AuthAttempt]
			h := newHost(t, change, func(cfg *node.Config) {
				cfg.Events = func(e apievents.AuditEvent) {
					attempt, ok := e.(*apievents.AuthAttempt)
					if !ok || !told.CompareAndSwap(nil, attempt) {
						t.Errorf("told of %T", e)
					}
				}
			})
			if test.prepare != nil {
				test.prepare(t, h, c)
			}
			_, err := h.tryLogin(test.change)
			require.Error(t, err)
			require.NotContains(t, err.Error(), test.reason)
			require.NoError(t, h.server.Close())
			events := h.events.Events()
			require.Len(t, events, 2)
			for i, eventType := range []auditd.EventType{auditd.AuditUserLogin, auditd.AuditUserErr} {
				require.Equal(t, eventType, events[i].Type)
				require.Equal(t, test.reason, events[i].Reason)
				require.Equal(t, "alice", events[i].TeleportUser)
			}
			attempt := told.Load()
			require.NotNil(t, attempt)
			require.Equal(t, test.reason, attempt.Error)
			require.False(t, attempt.Success)
			require.Equal(t, "alice", attempt.User)
			require.Equal(t, h.user.Name, attempt.Login)
			require.Equal(t, "auth", attempt.Type)
			require.Equal(t, "T3007W", attempt.Code)
		})
	}
}

// TestAccessForwarding: both the certificate and the roles must permit it.
func TestAccessForwarding(t *testing.T) {
	t.Parallel()
	c := &cache{}
	c.role(t, "all", `{"options":{"forward_agent":true},"allow":{`+anyLogin+`,"node_labels":{"*":"*"}}}`)
	c.role(t, "none", `{"options":{"port_forwarding":false},"allow":{`+anyLogin+`,"node_labels":{"*":"*"}}}`)
	_, change := decides(t, c)
	h := newFastHost(t, change)
	addr := echo(t, "tcp", "127.0.0.1:0").Addr().String()
	for name, test := range map[string]struct {
		change  []func(*ssh.Certificate)
		permits bool
	}{
		"no roles":      {nil, true},
		"permitted":     {[]func(*ssh.Certificate){withRoles("all")}, true},
		"the strictest": {[]func(*ssh.Certificate){withRoles("all", "none")}, false},
		"not by the certificate": {[]func(*ssh.Certificate){withRoles("all"), func(c *ssh.Certificate) {
			delete(c.Extensions, "permit-port-forwarding")
			delete(c.Extensions, "permit-agent-forwarding")
		}}, false},
	} {
		client := h.login(test.change...)
		conn, err := client.Dial("tcp", addr)
		require.Equal(t, test.permits, err == nil, "%s: %v", name, err)
		if err == nil {
			conn.Close()
		}
		err = agent.RequestAgentForwarding(newSession(t, client))
		require.Equal(t, test.permits, err == nil, "%s: %v", name, err)
		require.Equal(t, "ok\n", run(t, client, "echo ok").stdout)
		client.Close()
	}
}

// TestAccessLimits: of the role and the configuration the stricter holds.
func TestAccessLimits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		configured time.Duration
		want       string
	}{
		"the role":   {0, "10m"},
		"both":       {time.Hour, "10m"},
		"the config": {5 * time.Minute, "5m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cache{}
			c.role(t, "idle", `{"options":{"client_idle_timeout":"10m"},"allow":{`+anyLogin+`,"node_labels":{"*":"*"}}}`)
			_, change := decides(t, c)
			h, clock := fakeHost(t, func(cfg *node.Config) { change(cfg); cfg.IdleTimeout = test.configured })
			said := waits(t, h.login(withRoles("idle")), false)
			limit, err := time.ParseDuration(test.want)
			require.NoError(t, err)
			clock.Advance(limit)
			require.Equal(t, "This connection was idle for "+test.want+" and ends.\n", said())
		})
	}
	t.Run("an expired certificate", func(t *testing.T) {
		t.Parallel()
		c := &cache{}
		c.role(t, "expires", `{"options":{"disconnect_expired_cert":true},"allow":{`+anyLogin+`,"node_labels":{"*":"*"}}}`)
		_, change := decides(t, c)
		h, clock := fakeHost(t, change)
		said := waits(t, h.login(withRoles("expires"), func(c *ssh.Certificate) { c.ValidBefore = uint64(clock.Now().Add(time.Hour).Unix()) }), false)
		clock.Advance(2 * time.Hour)
		require.Contains(t, said(), "has expired")
	})
}

func TestLockEndsLogins(t *testing.T) {
	t.Parallel()
	c := &cache{}
	decider, change := decides(t, c)
	h := newHost(t, change)
	alice, bob := h.login(), h.login(func(c *ssh.Certificate) { c.KeyId = "bob" })
	pipes, terminal := waits(t, alice, false), waits(t, alice, true)
	lock := c.lock(t, types.LockTarget{User: "alice"})
	ended := h.server.EndWhere(func(identity srv.Identity) string {
		if denied := decider.Locked(lock, node.Person(identity)); denied != nil {
			return "This login ends: " + denied.Message + "."
		}
		return ""
	})
	require.Equal(t, 1, ended)
	const line = `This login ends: the user "alice" is locked: the laptop is lost.`
	require.Equal(t, line+"\n", pipes())
	require.Equal(t, "\r\n"+line+"\r\n", terminal())
	closes(t, alice)
	require.Equal(t, "ok\n", run(t, bob, "echo ok").stdout, "nobody else is ended")
	require.Empty(t, h.events.Events(), "teleport-session has recorded the end")
	_, err := h.tryLogin()
	require.Error(t, err)
}

// TestLockedMeanwhile locks somebody who has just authenticated: there is no
// login, and its refusal is recorded like any other.
func TestLockedMeanwhile(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	h := newHost(t, func(c *node.Config) {
		c.Access = func(context.Context, srv.Identity) (access.Options, error) {
			if asked.Add(1) > 1 {
				return access.Options{}, &access.Denied{Reason: access.ReasonUserLocked, Message: "locked"}
			}
			return access.Options{}, nil
		}
	})
	client := h.login()
	within(t, "the connection ends", func() { _ = client.Wait() })
	require.NoError(t, h.server.Close())
	events := h.events.Events()
	require.Len(t, events, 2)
	require.Equal(t, access.ReasonUserLocked, events[0].Reason)
	require.Equal(t, auditd.AuditUserErr, events[1].Type)
}

// hears collects events.
func hears(events *[]apievents.AuditEvent, mu *sync.Mutex) func(*node.Config) {
	return func(c *node.Config) {
		c.Hostname, c.Labels = "web-1", map[string]string{"env": "prod"}
		c.Events = func(e apievents.AuditEvent) {
			mu.Lock()
			defer mu.Unlock()
			*events = append(*events, e)
		}
	}
}

func TestSessionEvents(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		terminal    bool
		command     []string
		interactive bool
		size        string
	}{
		"a command":  {false, []string{"echo $PPID; cat /proc/self/sessionid; echo; cat /proc/self/loginuid"}, false, ""},
		"a terminal": {true, nil, true, "80:24"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var events []apievents.AuditEvent
			h := newHost(t, hears(&events, &mu))
			client := h.login(func(c *ssh.Certificate) { c.KeyId = "ali\xffce" })
			var out ended
			if test.terminal {
				s := newSession(t, client)
				require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
				s.Stdin = strings.NewReader("exit\n")
				out = finish(t, s, func(s *ssh.Session) error { return s.Shell() })
			} else {
				out = run(t, client, test.command[0])
			}
			require.Equal(t, "ok\n", run(t, client, "echo ok").stdout, "another channel is the same login")
			require.NoError(t, client.Close())
			require.NoError(t, h.server.Close())

			require.Len(t, events, 2)
			start, ok := events[0].(*apievents.SessionStart)
			require.True(t, ok)
			end, ok := events[1].(*apievents.SessionEnd)
			require.True(t, ok)
			require.Equal(t, []string{"session.start", "T2000I", "session.end", "T2004I"}, []string{start.Type, start.Code, end.Type, end.Code})
			require.NotEmpty(t, start.ID)
			require.NotEqual(t, start.ID, end.ID)
			require.NotEmpty(t, start.SessionID)
			require.Equal(t, start.SessionID, end.SessionID)
			require.Equal(t, "example.com", start.ClusterName)
			require.Equal(t, "ali\uFFFDce", start.User)
			require.Equal(t, h.user.Name, start.Login)
			require.Equal(t, "f00f", start.ServerID)
			require.Equal(t, "web-1", start.ServerHostname)
			require.Equal(t, client.LocalAddr().String(), start.RemoteAddr)
			require.Equal(t, test.command, start.InitialCommand)
			require.Equal(t, test.size, start.TerminalSize)
			require.Equal(t, test.interactive, end.Interactive)
			require.False(t, end.EndTime.Before(end.StartTime))
			require.Equal(t, start.Time, end.StartTime)
			labels := start.ServerLabels
			require.Equal(t, labels, end.ServerLabels)
			require.Equal(t, "prod", labels["env"])
			pid, err := strconv.Atoi(labels["auditd/pid"])
			require.NoError(t, err)
			require.NotEqual(t, os.Getpid(), pid)
			if !test.terminal {
				// The user's process has the ids of its login.
				said := strings.Fields(out.stdout)
				require.Len(t, said, 3)
				require.Equal(t, labels["auditd/pid"], said[0])
				for i, label := range []string{"auditd/ses", "auditd/auid"} {
					if said[i+1] == "4294967295" {
						require.NotContains(t, labels, label)
					} else {
						require.Equal(t, said[i+1], labels[label])
					}
				}
			}
		})
	}
}

// TestSessionEventsOfKilled: the end is told however it comes.
func TestSessionEventsOfKilled(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var events []apievents.AuditEvent
	h := newHost(t, hears(&events, &mu))
	client := h.login()
	stdout := run(t, client, "echo $PPID").stdout
	pid, err := strconv.Atoi(strings.TrimSpace(stdout))
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	require.NoError(t, process.Kill())
	within(t, "the connection ends", func() { _ = client.Wait() })
	require.NoError(t, h.server.Close())
	require.Len(t, events, 2)
	require.Equal(t, "session.end", events[1].GetType())
}
