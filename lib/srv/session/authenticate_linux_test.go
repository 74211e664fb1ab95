// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// A login whose person PAM asks, and one whose modules crash.

//go:build linux && cgo && !386 && !arm && !mips && !mipsle

package session

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/pam/pamtest"
	"teleport-auditd/lib/srv/session/sessiontest"
)

// asking is a login that a module's arguments decide.
func asking(t *testing.T, u sessiontest.User, arguments string) *Login {
	t.Helper()
	module := pamtest.Module(t)
	login := loginOf(u)
	login.PAM = PAM{Enabled: true, Authenticate: true, Service: sessiontest.NewPAMService(t,
		"auth required "+module+" "+arguments,
		"account required "+module+" "+arguments,
		"password required "+module+" "+arguments,
		"session required "+module+" "+arguments,
	)}
	return login
}

// prompted takes the n-th question.
func (d *daemon) prompted(n int) *Prompt {
	d.t.Helper()
	seen := 0
	return await(d, func(*Prompt) bool {
		seen++
		return seen == n
	})
}

func is[M Message](M) bool { return true }

func TestAuthenticate(t *testing.T) {
	u := sessiontest.NewUser(t)
	mark := filepath.Join(t.TempDir(), "mark")
	login := asking(t, u, "[auth:say:Hello.] [auth:ask:Code: =1234] [auth:show:Name: =alice] auth:mark:"+mark+
		" [account:say:Your password is old.] account:mark:"+mark+" cred:mark:"+mark+" open:mark:"+mark+" [open:say:Welcome.] close:mark:"+mark)
	login.PAM.Env = []string{"TEAM=db"}

	d := startProgram(t)
	d.send(login)
	require.Equal(t, &Prompt{Instruction: "Hello.\n", Text: "Code: "}, d.prompted(1))
	d.send(&Answer{OK: true, Text: "1234"})
	require.Equal(t, &Prompt{Echo: true, Text: "Name: "}, d.prompted(2))
	d.send(&Answer{OK: true, Text: "alice"})
	require.Equal(t, &Authenticated{Text: "Your password is old.\n"}, await(d, is[*Authenticated]))
	d.send(&Start{ID: 1, PTY: &PTY{Term: "xterm"}, Command: "echo $TEAM; tty"})
	tty := d.started(1).TTY
	require.NotEmpty(t, tty)
	require.Zero(t, d.end())
	require.True(t, d.isEnded())
	b, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("auth %[1]d ssh\naccount %[1]d ssh\ncred %[1]d %[2]s\nopen %[1]d %[2]s\nclose %[1]d %[2]s\n", d.cmd.Process.Pid, tty), string(b),
		"one process, one transaction, the terminal as soon as there is one")
}

func TestAuthenticateRefuses(t *testing.T) {
	u := sessiontest.NewUser(t)
	for name, test := range map[string]struct {
		arguments string
		answers   []*Answer
		word      string
		reason    string
		text      string
	}{
		"wrong answer": {
			"[auth:ask:Code: =1234] [auth:say:unreached]", []*Answer{{OK: true, Text: "4321"}},
			"pam-authenticate", "authenticate: Authentication failure", "",
		},
		"no answer": {
			"[auth:ask:Code: =1234]", []*Answer{{}},
			"pam-authenticate", "authenticate: Conversation error (the client gave no answer that PAM takes)", "",
		},
		"too long an answer": {
			"[auth:ask:Code: =1234]", []*Answer{{OK: true, Text: strings.Repeat("x", 1000)}},
			"pam-authenticate", "longer than the 512 bytes", "",
		},
		"with a reason": {
			"[auth:complain:You are blocked.] auth:return:6", nil,
			"pam-authenticate", "authenticate: Permission denied", "You are blocked.\n",
		},
		"account": {
			"[account:complain:Closed.] account:return:13", nil,
			"pam-account", "account: User account has expired", "Closed.\n",
		},
		"password, not changed": {
			"account:return:12 [password:ask:New password: =swordfish]", []*Answer{{OK: true, Text: "x"}},
			"pam-password", "password: Authentication failure", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startProgram(t)
			d.send(asking(t, u, test.arguments))
			for i, answer := range test.answers {
				d.prompted(i + 1)
				d.send(answer)
			}
			refused := await(d, is[*Refused])
			require.Contains(t, refused.Reason, test.reason)
			require.Contains(t, refused.Reason, `PAM service "`)
			refused.Reason = ""
			require.Equal(t, &Refused{Word: test.word, Text: test.text}, refused)
			require.Zero(t, d.exitCode())
		})
	}
}

func TestPasswordIsChanged(t *testing.T) {
	u := sessiontest.NewUser(t)
	arguments := "account:return:12 [password:say:It is old.] [password:ask:New password: =swordfish]"
	d := startProgram(t)
	d.send(asking(t, u, arguments))
	require.Equal(t, &Prompt{Instruction: "It is old.\n", Text: "New password: "}, d.prompted(1))
	d.send(&Answer{OK: true, Text: "swordfish"})
	await(d, is[*Authenticated])
	require.Equal(t, "in\n", d.run(1, "echo in"))
	require.Zero(t, d.end())

	d = startProgram(t)
	login := asking(t, u, arguments)
	login.PAM.Authenticate = false
	d.send(login, &Start{ID: 1, Command: "echo in"})
	refused := await(d, is[*Refused])
	require.True(t, refused.Recorded)
	require.Contains(t, refused.Reason, "account: Authentication token is no longer valid; new one required (the password must be changed")
	require.Contains(t, refused.Text, "Your password has expired and must be changed.")
	require.Contains(t, refused.Text, "use_pam_auth")
}

// TestNobodyStarts: who authenticates and leaves has not logged in.
func TestNobodyStarts(t *testing.T) {
	u := sessiontest.NewUser(t)
	mark := filepath.Join(t.TempDir(), "mark")
	d := startProgram(t)
	d.send(asking(t, u, "auth:mark:"+mark+" cred:mark:"+mark+" open:mark:"+mark))
	await(d, is[*Authenticated])
	require.Zero(t, d.end())
	require.True(t, d.isEnded())
	require.Equal(t, []string{"*session.Authenticated&{Text:}", "*session.Ended&{}"}, d.told())
	b, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(b), "\n"), "neither credentials nor a session: %s", b)
}

// TestGoneWhileAsked: without a daemon nobody answers.
func TestGoneWhileAsked(t *testing.T) {
	u := sessiontest.NewUser(t)
	for name, end := range map[string]func(*daemon){
		"daemon":     func(d *daemon) { require.NoError(t, d.conn.CloseWrite()) },
		"terminated": func(d *daemon) { require.NoError(t, d.cmd.Process.Signal(unix.SIGTERM)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := startProgram(t)
			d.send(asking(t, u, "[auth:ask:Code: =1234]"))
			d.prompted(1)
			end(d)
			refused := await(d, is[*Refused])
			require.Contains(t, refused.Reason, "the client has gone")
			require.Zero(t, d.exitCode())
		})
	}
	t.Run("nonsense", func(t *testing.T) {
		d := startProgram(t)
		d.send(asking(t, u, "[auth:ask:Code: =1234]"))
		d.prompted(1)
		d.send(&Signal{})
		require.Contains(t, await(d, is[*Refused]).Reason, "malformed message")
		require.Zero(t, d.exitCode())
	})
}

// TestModuleCrashes: a module's fault ends the process by its signal, without a
// page about goroutines.
func TestModuleCrashes(t *testing.T) {
	u := sessiontest.NewUser(t)
	for arguments, want := range map[string]syscall.Signal{
		"auth:abort": syscall.SIGABRT, "auth:segv": syscall.SIGSEGV,
		"account:abort": syscall.SIGABRT, "cred:abort": syscall.SIGABRT, "cred:segv": syscall.SIGSEGV,
		"open:abort": syscall.SIGABRT, "open:segv": syscall.SIGSEGV, "close:abort": syscall.SIGABRT, "close:segv": syscall.SIGSEGV,
	} {
		t.Run(arguments, func(t *testing.T) {
			var stderr strings.Builder
			d := startProgram(t, func(cmd *exec.Cmd) { cmd.Stderr = &stderr })
			d.send(asking(t, u, arguments))
			if !strings.HasPrefix(arguments, "auth:") && !strings.HasPrefix(arguments, "account:") {
				d.send(&Start{ID: 1, Command: "true"})
			}
			_ = d.conn.CloseWrite()
			<-d.waited
			status, ok := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
			require.True(t, ok)
			require.True(t, status.Signaled(), "%v", d.cmd.ProcessState)
			require.Equal(t, want, status.Signal())
			require.Empty(t, stderr.String())
		})
	}
	t.Run("Go's own faults", func(t *testing.T) {
		// Between the module's calls they are Go's, which tells of them.
		var stderr strings.Builder
		d := startProgram(t, func(cmd *exec.Cmd) { cmd.Stderr = &stderr })
		d.send(asking(t, u, "auth:say:hello"))
		await(d, is[*Authenticated])
		require.Eventually(t, func() bool {
			caught, err := strconv.ParseUint(status(t, d.cmd.Process.Pid, "SigCgt"), 16, 64)
			require.NoError(t, err)
			return caught&(1<<(syscall.SIGSEGV-1)) != 0
		}, sessiontest.Patience, time.Millisecond)
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGSEGV))
		select {
		case <-d.waited:
		case <-time.After(sessiontest.Patience):
			t.Fatal("it does not end")
		}
		require.Contains(t, stderr.String(), "goroutine")
	})
}
