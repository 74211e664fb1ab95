// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/srv/session/sessiontest"
)

// event is what the node itself records of its user.
func (h *host) event(client *ssh.Client, e auditd.Event) auditd.Event {
	uid := h.user.UID
	e.SystemUser, e.UID, e.TeleportUser, e.ConnAddress = h.user.Name, &uid, "alice", client.LocalAddr().String()
	return e
}

// refusal is what the node records of a login that was not made.
func (h *host) refusal(client *ssh.Client, reason string) []auditd.Event {
	return []auditd.Event{
		h.event(client, auditd.Event{Type: auditd.AuditUserLogin, Reason: reason}),
		h.event(client, auditd.Event{Type: auditd.AuditUserErr, Reason: reason}),
	}
}

// closes waits until the node has closed the connection.
func closes(t *testing.T, client *ssh.Client) {
	t.Helper()
	within(t, "the connection is closed", func() { _ = client.Wait() })
}

// family starts processes that end with their login only, one of them in a
// session of its own, and returns their pids and that of teleport-session.
func family(t *testing.T, client *ssh.Client) (s *ssh.Session, teleportSession string, pids []string) {
	t.Helper()
	s = newSession(t, client)
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("echo $PPID; echo $$; nohup sleep 1000 & echo $!; setsid sh -c 'trap \"\" HUP; echo $$; exec sleep 1000'; :"))
	fields := strings.Fields(read(t, stdout, "\n") + read(t, stdout, "\n") + read(t, stdout, "\n") + read(t, stdout, "\n"))
	require.Len(t, fields, 4)
	for _, pid := range fields {
		require.True(t, alive(pid), pid)
	}
	return s, fields[0], fields[1:]
}

func TestDisconnect(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	_, teleportSession, pids := family(t, client)
	busy := newSession(t, client)
	stdout, err := busy.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, busy.Start("echo $$; exec yes"))
	pids = append(pids, strings.TrimSpace(read(t, stdout, "\n")))
	start := time.Now()
	require.NoError(t, client.Close())
	gone(t, append(pids, teleportSession)...)
	require.Less(t, time.Since(start), 5*time.Second)
	require.Empty(t, h.events.Events())
	require.Empty(t, h.lines())
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var pids []string
	for range 3 {
		_, teleportSession, family := family(t, h.login())
		pids = append(append(pids, family...), teleportSession)
	}
	idle := h.login()
	_, _, err := idle.SendRequest("ping", true, nil)
	require.NoError(t, err, "the node has let it in as well")
	start := time.Now()
	require.NoError(t, h.server.Close())
	require.Less(t, time.Since(start), 8*time.Second)
	for _, pid := range pids {
		require.False(t, alive(pid), "Close waits for the end of %s", pid)
	}
	closes(t, idle)
	require.NoError(t, <-h.served)
	require.Empty(t, h.events.Events(), "each teleport-session has recorded its own end")
	require.Empty(t, h.lines())
}

func TestShutdownDrains(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout)
	drained := make(chan error, 1)
	go func() { drained <- h.server.Shutdown(t.Context()) }()
	require.NoError(t, <-h.served)
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout, "who is in stays")
	require.NoError(t, client.Close())
	within(t, "the last login ends", func() { require.NoError(t, <-drained) })
}

// TestSessionKilled: whoever kills teleport-session has not left in secret.
func TestSessionKilled(t *testing.T) {
	t.Parallel()
	h := newUserHost(t)
	client := h.login()
	s, teleportSession, pids := family(t, client)
	require.NoError(t, syscall.Kill(atoi(t, teleportSession), syscall.SIGKILL))
	within(t, "the session ends", func() { require.Equal(t, ended{signal: "KILL"}, how(t, s.Wait())) })
	closes(t, client)
	gone(t, pids...)
	events, err := h.events.Wait(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, []auditd.Event{h.event(client, auditd.Event{Type: auditd.AuditUserEnd, Result: auditd.Success})}, events)
	require.Len(t, h.lines(), 1)
	require.Contains(t, h.lines()[0], "teleport-session was killed by SIGKILL without ending its login")
}

func TestSessionKilledKeepsDetached(t *testing.T) {
	t.Parallel()
	h := newUserHost(t, func(c *node.Config) { c.KeepDetached = true })
	client := h.login()
	_, teleportSession, pids := family(t, client)
	detached := pids[2]
	t.Cleanup(func() { _ = syscall.Kill(atoi(t, detached), syscall.SIGKILL) })
	require.NoError(t, syscall.Kill(atoi(t, teleportSession), syscall.SIGKILL))
	closes(t, client)
	gone(t, pids[:2]...)
	require.True(t, alive(detached))
}

// TestSessionTerminated: one that is asked to end does so in order.
func TestSessionTerminated(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	_, teleportSession, pids := family(t, client)
	require.NoError(t, syscall.Kill(atoi(t, teleportSession), syscall.SIGTERM))
	closes(t, client)
	gone(t, pids...)
	require.Empty(t, h.events.Events())
	require.Empty(t, h.lines())
}

// TestSessionStopped: whoever stops teleport-session does not stay for ever.
func TestSessionStopped(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	_, teleportSession, pids := family(t, client)
	require.NoError(t, syscall.Kill(atoi(t, teleportSession), syscall.SIGSTOP))
	require.NoError(t, client.Close())
	gone(t, append(pids, teleportSession)...)
	require.Empty(t, h.events.Events())
}

// TestSessionMisbehaves: the daemon takes nothing for granted.
func TestSessionMisbehaves(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	const hostsFault = "This host could not start the session; its log says why.\n"
	for _, test := range []struct {
		how    string
		want   ended
		closes bool
		// refused and ended are what the node must record in its place.
		refused, ended bool
	}{
		{how: "die before the login", want: ended{status: 255, stderr: "The login has ended.\n"}, closes: true, refused: true},
		{how: "die after the login", want: ended{status: 255, stderr: "The login has ended.\n"}, closes: true, ended: true},
		{how: "no descriptors", want: ended{status: 255, stderr: hostsFault}},
		{how: "garbage", want: ended{status: 255, stderr: "The login has ended.\n"}, closes: true},
		{how: "chatter", want: ended{status: 255, stderr: "The login has ended.\n"}, closes: true},
		{how: "answers to nobody", want: ended{status: 126, stderr: "but this is for you\n"}},
		{how: "stop", want: ended{status: 126, stderr: "stopped\n"}},
	} {
		t.Run(test.how, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, func(c *node.Config) { c.SessionProgram = self })
			client := h.login()
			require.Equal(t, test.want, run(t, client, test.how))
			if test.closes {
				closes(t, client)
			}
			require.NoError(t, h.server.Close())
			var want []auditd.Event
			if test.refused {
				want = h.refusal(client, "session-process-died")
			}
			if test.ended {
				want = []auditd.Event{h.event(client, auditd.Event{Type: auditd.AuditUserEnd, Result: auditd.Success, TTYName: "/dev/pts/77"})}
			}
			require.Equal(t, want, h.events.Events())
		})
	}
}

// TestSessionNeverEnds: the daemon's own end does not wait for ever.
func TestSessionNeverEnds(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	h := newHost(t, func(c *node.Config) { c.SessionProgram = self })
	client := h.login()
	pid := atoi(t, run(t, client, "never end").stderr)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	within(t, "Close returns", func() { require.NoError(t, h.server.Close()) })
	require.Contains(t, strings.Join(h.lines(), ""), "teleport-session has not ended its login yet")
}

// TestSessionMissing: a login that this host cannot make is told and recorded
// once, whatever the number of channels that try.
func TestSessionMissing(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(c *node.Config) { c.SessionProgram = "/nowhere/teleport-session" })
	client := h.login()
	for range 3 {
		require.Equal(t, ended{status: 255, stderr: "This host could not start the session; its log says why.\n"}, run(t, client, "id"))
	}
	require.Equal(t, h.refusal(client, "session-process-not-started"), h.events.Events())
	require.Contains(t, h.lines()[0], "/nowhere/teleport-session")
}

// TestPAMRefuses: the client hears why before the connection is closed.
func TestPAMRefuses(t *testing.T) {
	service := sessiontest.NewPAMService(t,
		"account required pam_echo.so The host is closed for today.",
		"account required pam_deny.so",
	)
	h := newUserHost(t, func(c *node.Config) { c.PAM = node.PAM{Enabled: true, ServiceName: service} })
	for i := range 50 {
		client := h.login()
		s := newSession(t, client)
		want := "The host is closed for today.\nThis host refused the login.\n"
		if i%2 == 1 {
			require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
			want = strings.ReplaceAll(want, "\n", "\r\n")
		}
		require.Equal(t, ended{status: 255, stderr: want}, finish(t, s, func(s *ssh.Session) error { return s.Start("id") }))
		closes(t, client)
	}
	require.Empty(t, h.events.Events(), "teleport-session has recorded it")
	require.Contains(t, h.lines()[0], "The host refused the login.")
}

func TestPAMText(t *testing.T) {
	service := sessiontest.NewPAMService(t,
		"auth required pam_permit.so",
		"account required pam_echo.so Be careful.",
		"account required pam_permit.so",
		"session required pam_permit.so",
	)
	h := newUserHost(t, func(c *node.Config) { c.PAM = node.PAM{Enabled: true, ServiceName: service} })
	client := h.login()
	require.Equal(t, ended{stdout: "ok\n"}, run(t, client, "echo ok"), "without a terminal nothing gets into the output")
	s := newSession(t, client)
	require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
	require.Equal(t, "ok\r\n", finish(t, s, func(s *ssh.Session) error { return s.Start("echo ok") }).stdout, "a command's output is the command's")
	s = newSession(t, client)
	s.Stdin = strings.NewReader("echo ok\n")
	require.Equal(t, "ok\n", finish(t, s, (*ssh.Session).Shell).stdout, "nor into that of a shell without a terminal")
	require.True(t, strings.HasPrefix(shellOutput(t, client), "Be careful.\r\n"))
	require.NotContains(t, shellOutput(t, client), "Be careful.", "once is enough")

	client = h.login()
	require.NoError(t, os.WriteFile(filepath.Join(h.user.Home, ".hushlogin"), nil, 0o600))
	require.NotContains(t, shellOutput(t, client), "Be careful.", "who does not want to see it")
}

// shellOutput is what a shell on a terminal shows until it ends.
func shellOutput(t *testing.T, client *ssh.Client) string {
	t.Helper()
	s := newSession(t, client)
	require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
	s.Stdin = strings.NewReader("exit\n")
	return finish(t, s, (*ssh.Session).Shell).stdout
}

// TestLeaks: a daemon lives for months.
func TestLeaks(t *testing.T) {
	h := newFastHost(t)
	once := func() {
		client, err := h.tryLogin()
		require.NoError(t, err)
		defer client.Close()
		run(t, client, "echo ok")
		s := newSession(t, client)
		require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
		require.NoError(t, s.Start("echo ready; exec sleep 1000"))
		_, _ = raw(t, client)
	}
	for range 5 {
		once()
	}
	asBefore := settle(t)
	for range 100 {
		once()
	}
	asBefore()
	require.Empty(t, children(t), "every teleport-session is reaped")
}

// settle waits until the connections of clients that are gone have ended, which
// they do on their own. What it returns wants nothing more to be left later.
func settle(t *testing.T) (asBefore func()) {
	t.Helper()
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	goroutines, files := 0, 0
	eventually(t, func() bool {
		// The number of a quiet moment: twice the same.
		g, f := runtime.NumGoroutine(), descriptors()
		quiet := g == goroutines && f == files
		goroutines, files = g, f
		time.Sleep(100 * time.Millisecond)
		return quiet
	}, "the first connections end")
	return func() {
		t.Helper()
		eventually(t, func() bool { return runtime.NumGoroutine()-1 <= goroutines && descriptors() <= files },
			"%d goroutines and %d descriptors are left, as before", goroutines, files)
	}
}

// children lists the processes whose parent is the test.
func children(t *testing.T) (pids []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		if f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])); f[1] == fmt.Sprint(os.Getpid()) {
			pids = append(pids, filepath.Base(filepath.Dir(stat)))
		}
	}
	return pids
}

// TestManyAtOnce: logins do not mix.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	results := make(chan error, 20)
	for i := range 20 {
		go func() {
			results <- func() error {
				client, err := h.tryLogin()
				if err != nil {
					return err
				}
				defer client.Close()
				for j := range 5 {
					s, err := client.NewSession()
					if err != nil {
						return err
					}
					out, err := s.Output(fmt.Sprintf("echo %d.%d", i, j))
					if err != nil {
						return err
					}
					if want := fmt.Sprintf("%d.%d\n", i, j); string(out) != want {
						return fmt.Errorf("got %q, want %q", out, want)
					}
				}
				return nil
			}()
		}()
	}
	for range 20 {
		require.NoError(t, <-results)
	}
}

// TestAbandoned: a client that is cut off without a word is no trouble.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	tcp, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	conn, channels, requests, err := ssh.NewClientConn(tcp, h.addr, &ssh.ClientConfig{
		User:            h.user.Name,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(h.ca.Login(t, time.Now(), func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} }))},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.NoError(t, err)
	client := ssh.NewClient(conn, channels, requests)
	_, teleportSession, pids := family(t, client)
	require.NoError(t, tcp.(*net.TCPConn).SetLinger(0))
	require.NoError(t, tcp.Close())
	gone(t, append(pids, teleportSession)...)
	require.Empty(t, h.events.Events())
}
