// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/pam/pamenv"
	"teleport-auditd/lib/pam/pamtest"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/srv/session/sessiontest"
)

// newAskingHost starts a node whose PAM service does as the module's arguments
// say, and authenticates.
func newAskingHost(t *testing.T, arguments string, change ...func(*node.Config)) *host {
	t.Helper()
	sessiontest.NeedRoot(t)
	module := pamtest.Module(t)
	service := sessiontest.NewPAMService(t,
		"auth required "+module+" "+arguments,
		"account required "+module+" "+arguments,
		"session required "+module+" "+arguments,
	)
	return newUserHost(t, append(change, func(c *node.Config) {
		c.PAM.Enabled, c.PAM.Authenticate, c.PAM.ServiceName = true, true, service
	})...)
}

// person answers questions, and keeps what was asked.
type person struct {
	answers []string
	// asked are the questions, with what stood before them.
	asked []string
	// before, if set, is called before each answer.
	before func()
}

func (p *person) challenge(_, instruction string, questions []string, echos []bool) (answers []string, err error) {
	asked := instruction
	for i, q := range questions {
		asked += q
		if echos[i] {
			asked += "(shown)"
		}
	}
	p.asked = append(p.asked, asked)
	for range questions {
		if p.before != nil {
			p.before()
		}
		if len(p.answers) == 0 {
			return nil, errors.New("no more answers")
		}
		answers, p.answers = append(answers, p.answers[0]), p.answers[1:]
	}
	return answers, nil
}

// dial logs in with a certificate and the person's answers, tries times at most.
func (h *host) dial(conn net.Conn, p *person, tries int) (*ssh.Client, error) {
	h.t.Helper()
	c, channels, requests, err := ssh.NewClientConn(conn, h.addr, &ssh.ClientConfig{
		User: h.user.Name,
		Auth: []ssh.AuthMethod{
			ssh.PublicKeys(h.ca.Login(h.t, h.clock.Now(), func(c *ssh.Certificate) {
				c.ValidPrincipals = []string{h.user.Name, "deploy"}
				c.Extensions["teleport-traits"] = `{"team": ["db", "web"]}`
			})),
			ssh.RetryableAuthMethod(ssh.KeyboardInteractive(p.challenge), tries),
		},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	h.t.Cleanup(func() { client.Close() })
	return client, nil
}

func (h *host) connect() net.Conn {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

// refusals waits for the pair of events of one refused connection.
func (h *host) refusedFor(conn net.Conn, reason string) {
	h.t.Helper()
	eventually(h.t, func() bool { return len(h.events.Events()) >= 2 }, "the events of a refusal")
	uid := h.user.UID
	var want []auditd.Event
	for _, kind := range []auditd.EventType{auditd.AuditUserLogin, auditd.AuditUserErr} {
		want = append(want, auditd.Event{
			Type: kind, Result: auditd.Failed, SystemUser: h.user.Name, UID: &uid,
			TeleportUser: "alice", ConnAddress: conn.LocalAddr().String(), Reason: reason,
		})
	}
	require.Equal(h.t, want, h.events.Events(), "one pair a connection")
}

// quiet waits until no teleport-session is left.
func quiet(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return len(children(t)) == 0 }, "no process is left")
}

func TestSecondFactor(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	h := newAskingHost(t, "[auth:say:Hello.] [auth:both:Name: =alice|Code: =1234] auth:mark:"+mark+
		" [account:complain:Your password expires soon.] open:mark:"+mark,
		func(c *node.Config) {
			env, err := pamenv.Parse(map[string]string{
				"TEAM": "{{external.team}}", "WHO": "{{user.metadata.name}}/{{internal.logins}}", "NOBODY": "{{external.missing}}",
			})
			require.NoError(t, err)
			c.PAM.Environment = env
		})
	p := &person{answers: []string{"alice", "1234"}}
	client, err := h.dial(h.connect(), p, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"Hello.\nName: (shown)", "Code: ", "Your password expires soon.\n"}, p.asked)
	require.Len(t, children(t), 1)
	out := run(t, client, `echo "$TEAM|$WHO|${NOBODY-none}|$TELEPORT_USERNAME"`)
	require.Equal(t, ended{stdout: "db web|alice/" + h.user.Name + " deploy|none|alice\n"}, out)
	require.Equal(t, "again\n", run(t, client, "echo again").stdout)
	require.NoError(t, client.Close())
	quiet(t)
	b, err := os.ReadFile(mark)
	require.NoError(t, err)
	lines := strings.Fields(string(b))
	require.Len(t, lines, 6)
	require.Equal(t, lines[1], lines[4], "one process from authentication to the session")
	require.Empty(t, h.events.Events())
	require.Len(t, h.lines(), 1, "once a login")
	require.Contains(t, h.lines()[0], "The variable NOBODY of ssh_service.pam.environment is left out: the certificate has no trait missing.")
}

func TestSecondFactorRefused(t *testing.T) {
	t.Run("a wrong answer, and then a right one", func(t *testing.T) {
		h := newAskingHost(t, "[auth:ask:Code: =1234]")
		p := &person{answers: []string{"1", "2", "1234"}}
		client, err := h.dial(h.connect(), p, 3)
		require.NoError(t, err)
		require.Len(t, children(t), 1, "each attempt's process ends with it")
		require.Equal(t, "in\n", run(t, client, "echo in").stdout)
		require.Empty(t, h.events.Events(), "who gets in was not refused")
		require.Contains(t, h.lines()[0], "authenticate: Authentication failure")
	})
	for name, test := range map[string]struct {
		arguments string
		answers   []string
		tries     int
		asked     []string
		reason    string
		log       string
	}{
		"wrong": {
			"[auth:ask:Code: =1234] [auth:complain:unreached]", []string{"1", "2"}, 2,
			[]string{"Code: ", "Code: "}, "pam-authenticate", "authenticate: Authentication failure",
		},
		"with a text": {
			"[auth:complain:You are blocked.] auth:return:6", nil, 1,
			[]string{"You are blocked.\n"}, "pam-authenticate", "authenticate: Permission denied",
		},
		"account": {"account:return:13", nil, 1, nil, "pam-account", "account: User account has expired"},
		"huge answer": {
			"[auth:ask:Code: =1234]", []string{strings.Repeat("x", 200<<10)}, 1,
			[]string{"Code: "}, "pam-authenticate", "the client gave no answer that PAM takes",
		},
		"NUL": {
			"[auth:ask:Code: =1234]", []string{"1234\x00"}, 1,
			[]string{"Code: "}, "pam-authenticate", "has a NUL in it",
		},
		"crash":               {"auth:abort", nil, 1, nil, "session-process-died", "teleport-session was killed by SIGABRT while PAM authenticated the user, which a module of the PAM service"},
		"crash after a while": {"[auth:ask:Code: =1234] account:segv", []string{"1234"}, 1, []string{"Code: "}, "session-process-died", "teleport-session was killed by SIGSEGV"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newAskingHost(t, test.arguments)
			p := &person{answers: test.answers}
			conn := h.connect()
			_, err := h.dial(conn, p, test.tries)
			require.Error(t, err)
			require.Equal(t, test.asked, p.asked)
			h.refusedFor(conn, test.reason)
			require.NotEmpty(t, h.lines())
			require.Contains(t, h.lines()[0], test.log)
			quiet(t)
		})
	}
	t.Run("no answer to the question", func(t *testing.T) {
		h := newAskingHost(t, "[auth:ask:Code: =1234]")
		conn := h.connect()
		_, err := h.dial(conn, &person{}, 1)
		require.Error(t, err)
		h.refusedFor(conn, "second-factor-was-not-given")
		require.Empty(t, h.lines(), "who goes is no event of the host's")
		quiet(t)
	})
	t.Run("a client that has only the certificate", func(t *testing.T) {
		h := newAskingHost(t, "[auth:ask:Code: =1234]")
		_, err := h.tryLogin()
		require.Error(t, err)
		eventually(t, func() bool { return len(h.events.Events()) >= 2 }, "the events")
		require.Equal(t, "second-factor-was-not-given", h.events.Events()[0].Reason)
		require.Equal(t, "alice", h.events.Events()[0].TeleportUser)
		require.Empty(t, children(t), "nothing was started")
	})
	t.Run("answers without a certificate", func(t *testing.T) {
		h := newAskingHost(t, "auth:say:hello")
		p := &person{}
		conn := h.connect()
		_, _, _, err := ssh.NewClientConn(conn, h.addr, &ssh.ClientConfig{
			User: h.user.Name, Auth: []ssh.AuthMethod{ssh.KeyboardInteractive(p.challenge)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		require.Error(t, err)
		require.Empty(t, p.asked)
		eventually(t, func() bool { return len(h.events.Events()) >= 2 }, "the events")
		require.Empty(t, h.events.Events()[0].TeleportUser)
	})
	t.Run("no program", func(t *testing.T) {
		h := newAskingHost(t, "auth:say:hello", func(c *node.Config) { c.SessionProgram = "/nowhere/teleport-session" })
		conn := h.connect()
		_, err := h.dial(conn, &person{}, 1)
		require.Error(t, err)
		h.refusedFor(conn, "session-process-not-started")
	})
}

// TestSecondFactorAlone: who authenticates and starts nothing has not logged in.
func TestSecondFactorAlone(t *testing.T) {
	h := newAskingHost(t, "[auth:ask:Code: =1234]")
	client, err := h.dial(h.connect(), &person{answers: []string{"1234"}}, 1)
	require.NoError(t, err)
	require.Len(t, children(t), 1)
	require.NoError(t, client.Close())
	quiet(t)
	require.Empty(t, h.events.Events())
	require.Empty(t, h.lines())

	// One whose process is killed meanwhile is disconnected, and was refused.
	conn := h.connect()
	client, err = h.dial(conn, &person{answers: []string{"1234"}}, 1)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(atoi(t, children(t)[0]), syscall.SIGKILL))
	closes(t, client)
	h.refusedFor(conn, "session-process-died")
	require.Contains(t, h.lines()[0], "teleport-session was killed by SIGKILL without ending its login")
}

// TestSecondFactorCutShort: whoever ends an attempt in the middle, nothing is left.
func TestSecondFactorCutShort(t *testing.T) {
	for name, arguments := range map[string]string{
		"while it asks":        "[auth:mark:MARK] [auth:ask:Code: =1234]",
		"while it sleeps":      "[auth:mark:MARK] auth:sleep:1000",
		"in the account":       "[account:mark:MARK] account:sleep:1000",
		"while it runs a tool": "",
	} {
		for who, end := range map[string]struct {
			end    func(h *host, conn net.Conn)
			reason string
		}{
			"the client goes": {func(_ *host, conn net.Conn) { conn.Close() }, "second-factor-was-not-given"},
			"the node closes": {func(h *host, _ net.Conn) { h.server.Close() }, "server-is-shutting-down"},
		} {
			t.Run(name+", "+who, func(t *testing.T) {
				t.Parallel()
				mark := filepath.Join(writable(t), "mark")
				h := newAskingHost(t, strings.ReplaceAll(arguments, "MARK", mark))
				if arguments == "" {
					service := sessiontest.NewPAMService(t,
						"auth required pam_exec.so /bin/sh -c [echo $$ >"+mark+"; exec sleep 1000]",
						"account required pam_permit.so",
					)
					h = newUserHost(t, func(c *node.Config) {
						c.PAM = node.PAM{Enabled: true, Authenticate: true, ServiceName: service}
					})
				}
				conn := h.connect()
				dialed := make(chan error, 1)
				release := make(chan struct{})
				defer close(release)
				go func() {
					_, err := h.dial(conn, &person{before: func() { <-release }}, 1)
					dialed <- err
				}()
				var pid string
				eventually(t, func() bool {
					b, err := os.ReadFile(mark)
					if err != nil || !strings.HasSuffix(string(b), "\n") {
						return false
					}
					words := strings.Fields(string(b))
					pid = words[min(1, len(words)-1)]
					return true
				}, "PAM is at work")
				end.end(h, conn)
				h.refusedFor(conn, end.reason)
				gone(t, pid)
			})
		}
	}
}

// TestSecondFactorBounds: MaxStartups and the grace time hold while PAM asks.
func TestSecondFactorBounds(t *testing.T) {
	clock := clockwork.NewFakeClockAt(time.Now())
	h := newAskingHost(t, "[auth:ask:Code: =1234]", func(c *node.Config) {
		c.MaxStartups, c.LoginGraceTime, c.Clock = 1, time.Minute, clock
	})
	conn := h.connect()
	asked, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	go func() {
		_, _ = h.dial(conn, &person{before: func() {
			close(asked)
			<-release
		}}, 1)
	}()
	within(t, "the question", func() { <-asked })
	pid := children(t)[0]
	other := h.connect()
	require.NoError(t, other.SetReadDeadline(time.Now().Add(sessiontest.Patience)))
	n, err := other.Read(make([]byte, 1))
	require.Zero(t, n)
	require.Error(t, err, "one more is closed at once")
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
	clock.Advance(time.Minute)
	h.refusedFor(conn, "login-grace-time-is-over")
	gone(t, pid)
	eventually(t, func() bool {
		third := h.connect()
		defer third.Close()
		b := make([]byte, 4)
		_ = third.SetReadDeadline(time.Now().Add(time.Second))
		n, _ := third.Read(b)
		return string(b[:n]) == "SSH-"
	}, "the place is free")
	_, err = strconv.Atoi(pid)
	require.NoError(t, err)
}
