// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// waitLimit is how long a condition may take on a busy machine.
const waitLimit = 20 * time.Second

// TestGuide runs the guide's commands as they stand there, with the uid and the
// session id that it tells the reader to find. The log's path is added, since
// the log is the test's own.
func TestGuide(t *testing.T) {
	for _, service := range []string{"", "login"} {
		t.Run("pam="+service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service})
			w.audit.Rule("always,exit", "-F", "arch=b64", "-S", "execve", "-F", "auid="+w.bob.ID(), "-k", "teleport-e2e")
			client := harness.NewClient(t, w.daemon, w.daemon.Sign("bob", w.bob.Name))
			mark := w.audit.Fence()
			require.Zero(t, client.Run("-tt", w.bob.Name+"@node", "/bin/uname -r").Code)
			start := own(w.collect(mark, 2))[0]
			session := start.Kernel["ses"]
			guide := func(command string) string {
				w.audit.Fence()
				command = strings.Replace(command, "ausearch", "ausearch -if "+w.audit.Log, 1)
				return harness.Tool(t, "/bin/sh", "-c", command)
			}

			t.Run("step 1", func(t *testing.T) {
				assert.Equal(t, "1", harness.AuditStatus(t)["enabled"])
			})
			t.Run("step 2", func(t *testing.T) {
				// With a login open, since its process must not be found.
				held := holdOpen(t, client, w.bob.Name+"@node")
				pids := strings.Fields(harness.Output(t, "pidof", "teleport"))
				var ours []string
				for _, pid := range pids {
					exe, err := os.Readlink(filepath.Join("/proc", pid, "exe"))
					if err == nil && filepath.Dir(exe) == programs.Dir {
						ours = append(ours, pid)
					}
				}
				assert.Equal(t, []string{strconv.Itoa(w.daemon.Pid)}, ours, "pidof teleport names the daemon alone")
				if len(pids) == 1 {
					assert.Equal(t, harness.Unset, guide("cat /proc/$(pidof teleport)/loginuid"))
				}
				held.end()
			})
			t.Run("search by a system user", func(t *testing.T) {
				found := guide("ausearch -ua " + w.bob.ID() + " -m USER_LOGIN")
				assert.Contains(t, found, "teleportUser=bob")
				assert.Contains(t, found, "ses="+session)
			})
			t.Run("search by Teleport user", func(t *testing.T) {
				found := guide("ausearch -m USER_LOGIN | grep teleportUser=bob")
				assert.Contains(t, found, `acct="`+w.bob.Name+`"`)
				assert.Contains(t, found, "ses="+session)
			})
			t.Run("find the session id", func(t *testing.T) {
				found := guide("ausearch  -m USER_LOGIN -x teleport --just-one")
				assert.Contains(t, found, "ses="+session)
				assert.Equal(t, 1, strings.Count(found, "type=USER_LOGIN"))
			})
			t.Run("search by session id", func(t *testing.T) {
				found := guide("ausearch --session " + session)
				assert.Contains(t, found, "type=USER_LOGIN")
				assert.Contains(t, found, "type=USER_END")
				assert.Contains(t, found, "type=LOGIN")
				assert.Regexp(t, `type=EXECVE .*a0="/bin/uname"`, found, "what the user ran is part of the session")
				assert.Regexp(t, `type=SYSCALL .*ses=`+session+` .*exe="/usr/bin/uname"`, found)
			})
		})
	}
}

// held is an ssh that keeps its session open.
type held struct {
	t   *testing.T
	cmd *exec.Cmd
}

// holdOpen logs in and returns once a command runs there.
func holdOpen(t *testing.T, client *harness.Client, target string, options ...string) held {
	t.Helper()
	cmd := client.Command(append(options, target, "echo open; exec sleep 600")...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	h := held{t, cmd}
	t.Cleanup(h.end)
	awaitOpen(t, out)
	return h
}

// awaitOpen reads the line that the tests' commands print first; on a terminal
// a message of PAM's may stand before it. What comes later is not read.
func awaitOpen(t *testing.T, out io.Reader) {
	t.Helper()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, "the session did not open")
		if strings.TrimSpace(line) == "open" {
			return
		}
	}
}

// end drops the connection.
func (h held) end() {
	if h.cmd.ProcessState == nil {
		// It was killed, so it ends badly.
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	}
}

// TestOneConnectionIsOneSession: the channels of one connection share the
// kernel's session id, and two connections never do.
func TestOneConnectionIsOneSession(t *testing.T) {
	for _, service := range []string{"", "login"} {
		t.Run("pam="+service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service})
			client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
			target := w.bob.Name + "@node"
			socket := filepath.Join(harness.OpenDir(t), "mux")
			const sessionID = "cat /proc/self/sessionid; echo; cat /proc/self/loginuid"

			mark := w.audit.Fence()
			master := client.Command("-M", "-S", socket, "-N", target)
			require.NoError(t, master.Start())
			t.Cleanup(held{t, master}.end)
			harness.WaitFor(t, waitLimit, "the ControlMaster", func() bool {
				return client.Run("-S", socket, "-O", "check", target).Code == 0
			})
			first := client.Run("-S", socket, target, sessionID)
			second := client.Run("-tt", "-S", socket, target, sessionID)
			// On a terminal a message of PAM's stands before it.
			clean := func(s string) []string { return strings.Fields(s)[max(0, len(strings.Fields(s))-2):] }
			require.Len(t, clean(first.Stdout), 2, first.Stderr)
			assert.Equal(t, clean(first.Stdout), clean(second.Stdout), "two channels of one connection")
			assert.Equal(t, w.bob.ID(), clean(first.Stdout)[1], "the loginuid")
			assert.Len(t, w.daemon.Sessions(), 1, "one process owns the connection")
			require.Zero(t, client.Run("-S", socket, "-O", "exit", target).Code)

			records := w.collect(mark, 2)
			require.Len(t, own(records), 2, harness.Show(records))
			assert.Equal(t, clean(first.Stdout)[0], own(records)[0].Kernel["ses"])

			other := client.Run(target, sessionID)
			assert.NotEqual(t, clean(first.Stdout)[0], clean(other.Stdout)[0], "two connections")
		})
	}
}

// TestReaders asks the tools that an auditor uses.
func TestReaders(t *testing.T) {
	w := newWorld(t, worldConfig{})
	alice := w.daemon.Sign("alice", w.bob.Name, ghost)
	client := harness.NewClient(t, w.daemon, alice)
	mark := w.audit.Fence()
	require.Zero(t, client.Run("-tt", w.bob.Name+"@node", "sleep 1").Code)
	require.Zero(t, client.Run(w.bob.Name+"@node", "true").Code)
	require.Equal(t, 255, client.Run(w.carol.Name+"@node", "true").Code)
	require.Equal(t, 255, client.Run(ghost+"@node", "true").Code)
	records := own(w.collect(mark, 8))
	require.Len(t, records, 8, harness.Show(records))
	open := holdOpen(t, client, w.bob.Name+"@node", "-tt")
	defer open.end()

	t.Run("aulast", func(t *testing.T) {
		last := w.audit.Last()
		// Names are cut to the column by aulast.
		assert.Regexp(t, `(?m)^`+w.bob.Name[:8]+`\S*\s+/?\S*pts/\d+\s+127\.0\.0\.1\s+\w{3} \w{3}\s+\d+ \d\d:\d\d - \d\d:\d\d\s+\(00:0[0-9]\)`, last,
			"host, terminal, start, end and duration")
		assert.Regexp(t, `(?m)^`+w.bob.Name[:8]+`\S*\s+teleport\s+127\.0\.0\.1\s+.* - \d\d:\d\d\s+\(00:0\d\)`, last, "without a terminal")
		assert.Regexp(t, `(?m)^`+w.bob.Name[:8]+`\S*\s+/?\S*pts/\d+\s+127\.0\.0\.1\s+.*still logged in`, last)
		assert.NotContains(t, last, "Bad user login")
		assert.NotContains(t, last, "gone - no logout", "every login has its end")
	})
	t.Run("aulast --bad", func(t *testing.T) {
		bad := w.audit.Last("--bad")
		assert.Regexp(t, `(?m)^`+w.carol.Name[:8]+`.*127\.0\.0\.1`, bad)
		assert.Regexp(t, `(?m)^`+ghost[:8]+`.*127\.0\.0\.1`, bad)
		assert.NotContains(t, bad, w.bob.Name)
	})
	t.Run("aureport -l", func(t *testing.T) {
		all := w.audit.Report("-l", "-i")
		// # date time auid host term exe success event
		assert.Regexp(t, `(?m)^\d+\. \S+ \S+ `+w.bob.Name+` 127\.0\.0\.1 /dev/pts/\d+ \S+/teleport-session yes \d+$`, all)
		assert.Regexp(t, `(?m)^\d+\. \S+ \S+ `+w.bob.Name+` 127\.0\.0\.1 teleport \S+/teleport-session yes \d+$`, all)
		assert.Regexp(t, `(?m)^\d+\. \S+ \S+ `+w.carol.Name+` 127\.0\.0\.1 teleport \S+/teleport no \d+$`, all)
	})
	t.Run("aureport -l --failed", func(t *testing.T) {
		failed := w.audit.Report("-l", "--failed", "-i")
		rows := regexp.MustCompile(`(?m)^\d+\. .*$`).FindAllString(failed, -1)
		require.Len(t, rows, 2, failed)
		assert.Contains(t, failed, w.carol.Name)
		assert.Contains(t, failed, ghost)
		assert.NotContains(t, failed, w.bob.Name)
	})
	t.Run("ausearch by what a row says", func(t *testing.T) {
		for _, words := range []string{"-sv no -m USER_LOGIN", "-m USER_ERR", "-hn 127.0.0.1 -m USER_LOGIN", "-tm teleport", "-x teleport-session"} {
			assert.Contains(t, w.audit.Search(strings.Fields(words)...), "teleportUser=alice", words)
		}
		assert.Contains(t, w.audit.Search("-i", "-m", "USER_LOGIN", "-sv", "yes"), "acct="+w.bob.Name)
	})
	t.Run("aureport counts", func(t *testing.T) {
		summary := w.audit.Report("--summary")
		assert.Contains(t, summary, fmt.Sprintf("Number of logins: %d\n", 3), summary)
		assert.Contains(t, summary, fmt.Sprintf("Number of failed logins: %d\n", 2), summary)
	})
}
