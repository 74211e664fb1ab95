// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	libaudit "github.com/elastic/go-libaudit/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/testhost"
	"teleport-auditd/tool/e2e/harness"
)

// userTTYEnv makes the test program one that records a line of input itself, as
// bash does where it is built so.
const userTTYEnv = "E2E_USER_TTY"

func sendUserTTY(line string) int {
	const auditUserTTY = 1124
	client, err := libaudit.NewNetlinkClient(syscall.NETLINK_AUDIT, 0, nil, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer client.Close()
	_, err = client.Send(syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{Type: auditUserTTY, Flags: syscall.NLM_F_REQUEST | syscall.NLM_F_ACK}, Data: []byte(line + "\x00"),
	})
	if err == nil {
		var answers []syscall.NetlinkMessage
		answers, err = client.Receive(false, func(b []byte) ([]syscall.NetlinkMessage, error) {
			return syscall.ParseNetlinkMessage(b)
		})
		if err == nil && len(answers) > 0 {
			err = libaudit.ParseNetlinkError(answers[0].Data)
		}
	}
	if err != nil {
		fmt.Println("USER_TTY:", err)
		return 1
	}
	return 0
}

// keystrokes returns what was typed, of all TTY records of one type and audit
// session, in their order.
func keystrokes(records []harness.Record, kind, ses string) string {
	var all strings.Builder
	for _, r := range harness.OfType(records, kind) {
		if r.Kernel["ses"] != ses {
			continue
		}
		data := r.Kernel["data"]
		if raw, err := hex.DecodeString(data); err == nil {
			data = string(raw)
		}
		all.WriteString(data)
	}
	return all.String()
}

// typed is one login whose user types.
type typed struct {
	ses, auid string
	records   []harness.Record
	screen    string
}

// typeLines logs in on a terminal, types lines, each when the one before has been
// answered, and returns what was recorded of it.
func typeLines(t *testing.T, w *world, user harness.User, cmd *exec.Cmd, lines ...[2]string) typed {
	t.Helper()
	mark := w.audit.Fence()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s := new(screen)
	ended := make(chan struct{})
	go func() {
		s.follow(out)
		close(ended)
	}()
	for _, line := range lines {
		enter(t, in, line[0])
		s.wait(t, line[1])
	}
	enter(t, in, "exit 0")
	<-ended
	require.NoError(t, cmd.Wait(), s.text())
	w.collect(mark, 2)
	records := w.audit.Since(mark)
	logins := harness.OfType(w.ours(records), "USER_LOGIN")
	require.Len(t, logins, 1)
	require.Equal(t, user.ID(), logins[0].Kernel["auid"])
	return typed{logins[0].Kernel["ses"], user.ID(), records, s.text()}
}

// The conversation of the test: a command, a program that reads lines, a password,
// which a program reads with echo off, and another one, read key by key. What is
// waited for is what the program prints, and not the echo of what was typed.
var conversation = [][2]string{
	{"echo first-$((40+2))", "first-42"},
	{"head -n1 | tr a-z A-Z", "-Z"},
	{"typed to a program", "TYPED TO A PROGRAM"},
	{`stty -echo; echo ask-$((1+1)); head -n1 >/dev/null; stty echo; echo thanks-$((2+2))`, "ask-2"},
	{"hunter2-password", "thanks-4"},
	{`stty -icanon -echo; echo raw-$((1+2)); head -c9 >/dev/null; stty sane; echo done-$((2+3))`, "raw-3"},
	{"raw-words", "done-5"},
}

// TestTTYAudit: with pam_tty_audit in the stack, what a user types is recorded
// under the login's session.
func TestTTYAudit(t *testing.T) {
	w := newWorld(t, worldConfig{pam: "tty-audit"})
	module := func(arguments string) {
		line := "session required pam_tty_audit.so " + arguments + "\n"
		require.NoError(t, os.WriteFile(w.pamDir+"/tty_audit", []byte(line), 0o644))
	}
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name, w.carol.Name))
	direct := func(u harness.User) *exec.Cmd { return client.Command("-tt", u.Name+"@node") }

	for _, c := range []struct {
		name, arguments string
		cmd             *exec.Cmd
		password        bool
	}{
		{"everybody", "enable=*", direct(w.bob), false},
		{"one user, through the proxy", "disable=* enable=" + w.bob.Name,
			client.Command("-J", w.bob.Name+"@proxy", "-tt", w.bob.Name+"@byname"), false},
		{"with passwords", "enable=* log_passwd", direct(w.bob), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			module(c.arguments)
			got := typeLines(t, w, w.bob, c.cmd, conversation...)
			text := keystrokes(got.records, "TTY", got.ses)
			assert.Contains(t, text, "echo first-$((40+2))\n", "typed to the shell")
			assert.Contains(t, text, "typed to a program\n")
			assert.Contains(t, text, "exit 0\n", "the shell's last line is not lost")
			assert.Equal(t, c.password, strings.Contains(text, "hunter2-password"), "%q", text)
			assert.Contains(t, text, "raw-words", "the kernel knows a password by line mode without echo")
			comms := map[string]bool{}
			for _, r := range harness.OfType(got.records, "TTY") {
				if r.Kernel["ses"] != got.ses {
					assert.NotContains(t, r.Kernel["data"], hex.EncodeToString([]byte("first")))
					continue
				}
				comms[r.Kernel["comm"]] = true
				assert.Equal(t, got.auid, r.Kernel["auid"])
				assert.Equal(t, got.auid, r.Kernel["uid"])
				assert.Equal(t, "136", r.Kernel["major"], "a pseudo terminal")
			}
			assert.Equal(t, map[string]bool{"bash": true, "head": true}, comms)

			report := w.audit.Report("--tty")
			assert.Regexp(t, fmt.Sprintf(` %s pts\d+ %s bash "echo first-\$\(\(40\+2\)\)",<nl>,`, got.auid, got.ses), report)
			assert.Regexp(t, fmt.Sprintf(` %s pts\d+ %s head "typed to a program",<nl>`, got.auid, got.ses), report)
			assert.Equal(t, c.password, strings.Contains(w.audit.Search("-i", "-m", "TTY", "--session", got.ses), `data="hunter2-password"`))
			t.Logf("# aureport --tty\n%s# ausearch -i -m TTY --session %s\n%s", report, got.ses, w.audit.Search("-i", "-m", "TTY", "--session", got.ses))
		})
	}

	t.Run("another user", func(t *testing.T) {
		module("disable=* enable=" + w.bob.Name)
		got := typeLines(t, w, w.carol, direct(w.carol), conversation...)
		assert.Contains(t, got.screen, "first-42")
		assert.Empty(t, keystrokes(got.records, "TTY", got.ses))
		assert.NotContains(t, harness.Show(harness.OfType(got.records, "TTY")), "auid="+got.auid)
	})

	t.Run("no terminal", func(t *testing.T) {
		module("enable=* log_passwd")
		mark := w.audit.Fence()
		require.Equal(t, "piped\n", client.RunWith("piped\n", "-T", w.bob.Name+"@node", "cat").Stdout)
		login := harness.OfType(w.collect(mark, 2), "USER_LOGIN")[0]
		assert.Empty(t, keystrokes(w.audit.Since(mark), "TTY", login.Kernel["ses"]), "what comes by a pipe was not typed")
	})

	t.Run("two terminals of one connection", func(t *testing.T) {
		module("enable=*")
		mark := w.audit.Fence()
		identity := harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name))
		connection := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
		for i := range 2 {
			s := openShell(t, connection)
			enter(t, s.in, fmt.Sprintf("echo shell-%d-$((1+1))", i))
			s.screen.wait(t, fmt.Sprintf("shell-%d-2", i))
		}
		connection.Close()
		login := harness.OfType(w.collect(mark, 2), "USER_LOGIN")[0]
		text := keystrokes(w.audit.Since(mark), "TTY", login.Kernel["ses"])
		for i := range 2 {
			assert.Contains(t, text, fmt.Sprintf("echo shell-%d-", i), "what was typed before the connection was cut")
		}
	})

	t.Run("a shell that records its lines itself", func(t *testing.T) {
		harness.NeedPrograms(t, "setcap")
		module("enable=*")
		self, err := os.Executable()
		require.NoError(t, err)
		dir := harness.OpenDir(t)
		program := filepath.Join(dir, "shell")
		harness.CopyFile(t, self, program)
		require.NoError(t, os.Chmod(program, 0o755))
		harness.Output(t, "setcap", "cap_audit_write+ep", program)
		line := userTTYEnv + "='a line of the shell' " + program + " && echo sent-$((1+1))"
		got := typeLines(t, w, w.bob, direct(w.bob), [2]string{line, "sent-2"})
		assert.Equal(t, "a line of the shell", keystrokes(got.records, "USER_TTY", got.ses))
		report := w.audit.Report("--tty")
		assert.Regexp(t, fmt.Sprintf(` %s \? %s \? "a line of the shell"`, got.auid, got.ses), report)
		t.Logf("# aureport --tty\n%s", report)
	})
}

// TestTTYAuditGuide puts the line of docs/tty-audit.md where it says, into the
// host's own service.
func TestTTYAuditGuide(t *testing.T) {
	harness.NeedRoot(t)
	root, err := harness.ModuleRoot()
	require.NoError(t, err)
	doc, err := os.ReadFile(filepath.Join(root, "docs", "tty-audit.md"))
	require.NoError(t, err)
	found := regexp.MustCompile("(?m)^session .*pam_tty_audit.so .*$").FindAllString(string(doc), -1)
	require.Len(t, found, 2, "Debian's line and Red Hat's")
	require.Equal(t, found[0], found[1])
	service, err := os.ReadFile("/etc/pam.d/sshd")
	if err != nil {
		testhost.Skip(t, "this host has no PAM service for sshd: %v", err)
	}
	name := fmt.Sprintf("tpe2ettyaudit%d", os.Getpid())
	w := newWorld(t, worldConfig{daemon: harness.DaemonConfig{PAMService: guideService(t, name, string(service), found[0], "")}})
	guideService(t, name, string(service), found[0], w.bob.Name)
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name, w.carol.Name))
	for _, u := range []harness.User{w.bob, w.carol} {
		got := typeLines(t, w, u, client.Command("-tt", u.Name+"@node"), conversation...)
		text := keystrokes(got.records, "TTY", got.ses)
		assert.Equal(t, u == w.bob, strings.Contains(text, "echo first-"), "%s: %q", u.Name, text)
		assert.NotContains(t, text, "hunter2-password")
	}
}

// guideService writes a service with the line after its last one of a session, for
// another user than the guide's, and returns its name.
func guideService(t *testing.T, name, service, line, user string) string {
	t.Helper()
	line = strings.ReplaceAll(line, "deploy", user)
	lines := strings.SplitAfter(service, "\n")
	last := 0
	for i, l := range lines {
		if strings.HasPrefix(l, "session") {
			last = i
		}
	}
	lines = slices.Insert(lines, last+1, line+"\n")
	path := filepath.Join("/etc/pam.d", name)
	harness.Undo(t, "rm -f "+path)
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644))
	return name
}
