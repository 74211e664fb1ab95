// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"teleport-auditd/tool/e2e/harness"
)

// stubborn are sessions that do not want to end. Each prints a line when it is
// as stubborn as it gets.
var stubborn = []struct {
	name, command string
	terminal      bool
}{
	{"sleeps", "echo open; sleep 600", false},
	{"ignores SIGHUP", "trap '' HUP; echo open; sleep 600; sleep 600", false},
	{"ignores all it can", "trap '' HUP INT QUIT TERM PIPE; echo open; sleep 600; sleep 600", false},
	{"leaves its session", "setsid sh -c 'trap \"\" HUP TERM; echo open; sleep 600; sleep 600' & wait", false},
	{"forks twice and lets go of its descriptors", "(setsid sh -c 'trap \"\" HUP TERM; exec sleep 600' </dev/null >/dev/null 2>&1 &); echo open; sleep 600", false},
	{"reads", "echo open; cat", false},
	{"writes what nobody reads", "echo open; yes", false},
	{"is stopped", "echo open; kill -STOP $$", false},
	{"has a terminal", "echo open; sleep 600", true},
	{"ignores SIGHUP on a terminal, and has a job", "trap '' HUP; nohup sleep 600 >/dev/null 2>&1 & setsid sleep 600 & echo open; sleep 600", true},
}

// openStubborn opens a connection for each and returns when all are open.
func openStubborn(t *testing.T, w *world, identity harness.Identity) []*ssh.Client {
	t.Helper()
	var clients []*ssh.Client
	for _, s := range stubborn {
		client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
		session, err := client.NewSession()
		require.NoError(t, err)
		_, err = session.StdinPipe()
		require.NoError(t, err)
		out, err := session.StdoutPipe()
		require.NoError(t, err)
		if s.terminal {
			require.NoError(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		}
		require.NoError(t, session.Start(s.command))
		awaitOpen(t, out)
		clients = append(clients, client)
	}
	return clients
}

// TestSessionsEnd: however a session ends, its end is recorded, and nothing of
// it runs on.
func TestSessionsEnd(t *testing.T) {
	type ending struct {
		name string
		end  func(t *testing.T, w *world, clients []*ssh.Client)
	}
	endings := []ending{
		{"SIGKILL of the daemon", func(t *testing.T, w *world, _ []*ssh.Client) { w.daemon.Signal(syscall.SIGKILL) }},
		{"SIGTERM of the daemon", func(t *testing.T, w *world, _ []*ssh.Client) {
			w.daemon.Signal(syscall.SIGTERM)
			_, ended := w.daemon.Ended(10 * time.Second)
			assert.True(t, ended, "the daemon ends within 10 s")
		}},
		{"the clients disconnect", func(t *testing.T, w *world, clients []*ssh.Client) {
			for _, c := range clients {
				c.Close()
			}
		}},
	}
	for _, service := range []string{"", "login"} {
		for _, e := range endings {
			t.Run("pam="+service+"/"+e.name, func(t *testing.T) {
				w := newWorld(t, worldConfig{pam: service})
				identity := harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name))
				mark := w.audit.Fence()
				clients := openStubborn(t, w, identity)
				require.NotEmpty(t, w.bob.Processes())
				began := time.Now()
				e.end(t, w, clients)
				gone := harness.Eventually(5*time.Second-time.Since(began), func() bool { return len(w.bob.Processes()) == 0 })
				assert.True(t, gone, "no process of the user is left after 5 s, but there is: %+v", w.bob.Processes())
				t.Logf("all processes were gone after %v", time.Since(began).Round(10*time.Millisecond))
				// PAM's close follows ours.
				assert.True(t, harness.Eventually(waitLimit, func() bool { return sessionProcesses() == 0 }), "no teleport-session is left")
				records := w.collect(mark, 2*len(stubborn))
				checkPairs(t, records, len(stubborn))
				if service != "" {
					for _, line := range []string{"USER_END PAM:session_close success", "CRED_DISP PAM:setcred success"} {
						assert.Equal(t, len(stubborn), count(pamLines(records), line), "%s\n%s", line, harness.Show(records))
					}
				}
			})
		}
	}
}

func count(lines []string, line string) int {
	n := 0
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// sessionProcesses counts running teleport-session programs, whoever their
// parent is by now.
func sessionProcesses() int {
	n := 0
	for _, p := range harness.Processes() {
		if p.Exe == programs.Session {
			n++
		}
	}
	return n
}

// checkPairs wants n logins, each with one end of the same pid, auid and ses.
func checkPairs(t *testing.T, records []harness.Record, n int) {
	t.Helper()
	key := func(r harness.Record) string {
		return strings.Join([]string{r.Kernel["pid"], r.Kernel["auid"], r.Kernel["ses"], r.Get("acct"), r.Get("terminal")}, " ")
	}
	starts, ends := map[string]int{}, map[string]int{}
	for _, r := range own(records) {
		switch r.Get("op") {
		case "login":
			starts[key(r)]++
		case "session_close":
			ends[key(r)]++
		}
	}
	assert.Len(t, starts, n)
	assert.Equal(t, starts, ends, "each login has one end:\n%s", harness.Show(records))
	for key, times := range starts {
		assert.Equal(t, 1, times, key)
	}
}

// TestSessionProcessKilled: when a teleport-session is killed its user processes
// go, other logins do not notice, and the daemon records the end.
func TestSessionProcessKilled(t *testing.T) {
	w := newWorld(t, worldConfig{})
	identity := harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name, w.carol.Name))
	other := harness.MustDial(t, w.daemon.NodeAddr, w.carol.Name, identity)
	result, err := harness.Exec(other, "echo here")
	require.NoError(t, err)
	require.Equal(t, "here\n", result.Stdout)
	before := w.daemon.Sessions()
	require.Len(t, before, 1)

	for _, s := range stubborn {
		t.Run(s.name, func(t *testing.T) {
			mark := w.audit.Fence()
			client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
			session, err := client.NewSession()
			require.NoError(t, err)
			out, err := session.StdoutPipe()
			require.NoError(t, err)
			_, err = session.StdinPipe()
			require.NoError(t, err)
			if s.terminal {
				require.NoError(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
			}
			require.NoError(t, session.Start(s.command))
			awaitOpen(t, out)
			defer w.bob.KillAll()
			start := own(w.collect(mark, 1))[0]
			pid, err := strconv.Atoi(start.Kernel["pid"])
			require.NoError(t, err)
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			require.NoError(t, err)
			require.Equal(t, programs.Session, exe)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			assert.True(t, harness.Eventually(5*time.Second, func() bool { return len(w.bob.Processes()) == 0 }),
				"no process of the user is left after 5 s, but there is: %+v", w.bob.Processes())
			records := own(w.collect(mark, 2))
			require.Len(t, records, 2, harness.Show(records))
			end := records[1]
			assert.Equal(t, "USER_END", end.Type)
			assert.Equal(t, "session_close", end.Get("op"))
			for _, name := range []string{"acct", "id", "terminal", "addr", "teleportUser"} {
				assert.Equal(t, start.Get(name), end.Get(name), name)
			}
			done := make(chan error, 1)
			go func() { done <- session.Wait() }()
			select {
			case err := <-done:
				assert.Error(t, err, "the client is told that the session failed")
			case <-time.After(waitLimit):
				t.Error("the client waits for a session that is gone")
			}
			client.Close()
		})
	}
	result, err = harness.Exec(other, "echo still here")
	require.NoError(t, err)
	assert.Equal(t, "still here\n", result.Stdout)
}

// TestConnectionsCutShort: a client that goes away at any moment leaves no login
// without its end, and no end without a login.
func TestConnectionsCutShort(t *testing.T) {
	for _, service := range []string{"", "login"} {
		t.Run("pam="+service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service})
			identity := harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name))
			mark := w.audit.Fence()
			const tries = 40
			var group errgroup.Group
			group.SetLimit(4)
			for i := range tries {
				group.Go(func() error {
					conn, err := net.Dial("tcp", w.daemon.NodeAddr)
					if err != nil {
						return err
					}
					defer conn.Close()
					c, channels, requests, err := ssh.NewClientConn(conn, "", harness.ClientConfig(w.bob.Name, identity))
					if err != nil {
						return err
					}
					session, err := ssh.NewClient(c, channels, requests).NewSession()
					if err != nil {
						return err
					}
					if i%2 == 0 {
						if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
							return err
						}
					}
					// Nobody waits for the answer: the connection is cut while
					// the login is being made, a little later each time.
					go func() { _ = session.Start("trap '' HUP; sleep 600; sleep 600") }()
					time.Sleep(time.Duration(i) * time.Millisecond)
					return nil
				})
			}
			require.NoError(t, group.Wait())
			assert.True(t, harness.Eventually(waitLimit, func() bool { return sessionProcesses() == 0 }), "no teleport-session is left")
			assert.True(t, harness.Eventually(5*time.Second, func() bool { return len(w.bob.Processes()) == 0 }),
				"no process of the user is left, but there is: %+v", w.bob.Processes())
			// All that was begun has ended with its process.
			records := w.collect(mark, 0)
			logins := 0
			for _, r := range own(records) {
				if r.Get("op") == "login" {
					logins++
					assert.Equal(t, "success", r.Get("res"), r.String())
				}
			}
			t.Logf("%d of %d connections lived long enough to log in", logins, tries)
			assert.NotZero(t, logins)
			checkPairs(t, records, logins)
			if service != "" {
				lines := pamLines(records)
				assert.Equal(t, count(lines, "USER_START PAM:session_open success"), count(lines, "USER_END PAM:session_close success"))
				assert.Equal(t, count(lines, "CRED_ACQ PAM:setcred success"), count(lines, "CRED_DISP PAM:setcred success"))
			}
		})
	}
}

// TestDrain: SIGQUIT lets open sessions end by themselves and takes no new ones.
func TestDrain(t *testing.T) {
	w := newWorld(t, worldConfig{})
	identity := harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name))
	client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
	session, err := client.NewSession()
	require.NoError(t, err)
	in, err := session.StdinPipe()
	require.NoError(t, err)
	out, err := session.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, session.Start("cat"))
	w.daemon.Signal(syscall.SIGQUIT)
	harness.WaitFor(t, waitLimit, "the node to take no more connections", func() bool {
		_, err := ssh.Dial("tcp", w.daemon.NodeAddr, harness.ClientConfig(w.bob.Name, identity))
		return err != nil
	})
	_, err = io.WriteString(in, "still here\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "still here\n", line)
	_, ended := w.daemon.Ended(0)
	assert.False(t, ended)
	require.NoError(t, in.Close())
	require.NoError(t, session.Wait())
	require.NoError(t, client.Close())
	failure, ended := w.daemon.Ended(waitLimit)
	assert.True(t, ended, "the daemon ends with its last session")
	assert.NoError(t, failure)
}

// TestKeepDetached: where the operator wants it, what left the session stays.
func TestKeepDetached(t *testing.T) {
	for _, keep := range []string{"yes", "no"} {
		t.Run(keep, func(t *testing.T) {
			w := newWorld(t, worldConfig{daemon: harness.DaemonConfig{SSH: []string{"keep_detached_processes: " + keep}}})
			client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
			mark := w.audit.Fence()
			result := client.Run(w.bob.Name+"@node", "(setsid sleep 600 </dev/null >/dev/null 2>&1 &); sleep 0.1; echo done")
			require.Equal(t, "done\n", result.Stdout, result.Stderr)
			require.Len(t, own(w.collect(mark, 2)), 2, "the end of the login is recorded all the same")
			harness.WaitFor(t, waitLimit, "teleport-session to end", func() bool { return sessionProcesses() == 0 })
			left := fmt.Sprint(len(w.bob.Processes()))
			assert.Equal(t, map[string]string{"yes": "1", "no": "0"}[keep], left, "detached processes")
		})
	}
}
