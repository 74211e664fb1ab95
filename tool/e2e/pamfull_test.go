// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/pam/pamtest"
	"teleport-auditd/tool/e2e/harness"
)

// agreeing is a stack that lets everybody in.
var agreeing = []string{
	"auth     required  pam_permit.so",
	"account  required  pam_permit.so",
	"password required  pam_permit.so",
	"session  required  pam_loginuid.so",
}

// pamWorld is a world with a PAM service that the test changes between logins.
type pamWorld struct {
	*world
	stack  *harness.PAMStack
	module string
	// identity is a certificate for bob and carol.
	identity string
}

// newPAMWorld starts a daemon. pam holds further lines of ssh_service.pam.
func newPAMWorld(t *testing.T, pam ...string) *pamWorld {
	t.Helper()
	harness.NeedRoot(t)
	w := &pamWorld{stack: harness.NewPAMStack(t, agreeing...), module: pamtest.Module(t)}
	config := harness.DaemonConfig{PAMService: w.stack.Name}
	for _, line := range pam {
		// They follow the section's last key.
		config.SSH = append(config.SSH, "  "+line)
	}
	w.world = newWorld(t, worldConfig{daemon: config})
	w.identity = w.daemon.Sign("alice", w.bob.Name, w.carol.Name)
	return w
}

// play makes the module do something, for bob alone, and the rest agree.
func (w *pamWorld) play(arguments string) {
	var lines []string
	for _, line := range agreeing {
		kind, _, _ := strings.Cut(line, " ")
		lines = append(lines, line, fmt.Sprintf("%s required %s only:%s %s", kind, w.module, w.bob.Name, arguments))
	}
	w.stack.Set(lines...)
}

// TestPAMStacksThatFail: a stack that denies, sleeps or crashes does so to one
// login. Others go on, the records say what became of it, and the log what the
// module answered.
func TestPAMStacksThatFail(t *testing.T) {
	type failure struct {
		name, play string
		// sender is the program whose records these are.
		sender, reason string
		log            []string
		pam            []string
	}
	account, cred := "USER_ACCT PAM:accounting ", "CRED_ACQ PAM:setcred "
	for _, auth := range []bool{false, true} {
		before := []string{}
		failures := []failure{
			{name: "account", play: "account:return:6", sender: "teleport-session", reason: "pam-account", log: []string{", account: Permission denied"}, pam: []string{account + "failed"}},
			{name: "account crashes", play: "account:abort", sender: "teleport", reason: "session-process-died", log: []string{"teleport-session was killed by SIGABRT without ending its login, which a module of the PAM service"}},
		}
		if auth {
			before = []string{"USER_AUTH PAM:authentication success", account + "success"}
			failures = []failure{
				{name: "authenticate", play: "auth:return:7", sender: "teleport", reason: "pam-authenticate", log: []string{", authenticate: Authentication failure"}, pam: []string{"USER_AUTH PAM:authentication failed"}},
				{name: "authenticate crashes", play: "auth:abort", sender: "teleport", reason: "session-process-died", log: []string{"teleport-session was killed by SIGABRT while PAM authenticated the user, which a module of the PAM service"}},
				{name: "account", play: "account:return:6", sender: "teleport", reason: "pam-account", log: []string{", account: Permission denied"}, pam: []string{before[0], account + "failed"}},
				{name: "account crashes", play: "account:segv", sender: "teleport", reason: "session-process-died", log: []string{"teleport-session was killed by SIGSEGV while PAM authenticated the user"}, pam: before[:1]},
			}
		}
		success := func(more ...string) (all []string) {
			if !auth {
				all = append(all, account+"success")
			}
			return append(append(before[:len(before):len(before)], all...), more...)
		}
		failures = append(failures,
			failure{name: "setcred", play: "cred:return:17", sender: "teleport-session", reason: "pam-setcred", log: []string{", setcred: Failure setting user credentials"}, pam: success(cred + "failed")},
			failure{name: "setcred crashes", play: "cred:abort", sender: "teleport", reason: "session-process-died", log: []string{"teleport-session was killed by SIGABRT without ending its login"}, pam: success()},
			failure{name: "session", play: "open:return:14", sender: "teleport-session", reason: "pam-session", log: []string{", session: Cannot make/remove an entry for the specified session"}, pam: success(cred+"success", "USER_START PAM:session_open failed", "CRED_DISP PAM:setcred success")},
			failure{name: "session crashes", play: "open:abort", sender: "teleport", reason: "session-process-died", log: []string{"teleport-session was killed by SIGABRT without ending its login"}, pam: success(cred + "success")},
		)
		t.Run(fmt.Sprintf("use_pam_auth=%v", auth), func(t *testing.T) {
			w := newPAMWorld(t, "use_pam_auth: "+map[bool]string{false: "no", true: "yes"}[auth])
			client := w.client(t)
			client.run(t, w.carol.Name+"@node", "true")
			w.endsClean(t)
			open := w.daemon.Descriptors()
			for _, f := range failures {
				t.Run(f.name, func(t *testing.T) {
					w.play(f.play)
					mark, said := w.audit.Fence(), len(w.daemon.Log())
					result := client.run(t, w.bob.Name+"@node", "echo it ran")
					assert.Equal(t, 255, result.Code)
					assert.NotContains(t, result.Stdout, "it ran")
					assert.Equal(t, "in\n", client.run(t, w.carol.Name+"@node", "echo in").Stdout, "another login")
					harness.WaitFor(t, waitLimit, "both logins' records", func() bool {
						return len(w.of(own(w.ours(w.audit.Since(mark))), w.bob)) >= 2 &&
							len(harness.OfType(own(w.ours(w.audit.Since(mark))), "USER_END")) >= 1
					})
					w.audit.Fence()
					records := w.of(w.ours(w.audit.Since(mark)), w.bob)
					got := own(records)
					require.Len(t, got, 2, harness.Show(records))
					for i, want := range refused(f.sender, w.bob.Name, w.bob.ID(), "alice", "^"+f.reason+"$") {
						want.terminal = noTerminal
						w.checkOwn(t, want, got[i])
					}
					assert.Equal(t, f.pam, pamLines(records))
					for _, line := range f.log {
						assert.Contains(t, w.daemon.Log()[said:], line)
					}
					assert.Contains(t, w.daemon.Log()[said:], w.stack.Name, "the service is named")
					w.endsClean(t)
				})
			}
			t.Run("close crashes", func(t *testing.T) {
				w.play("close:abort")
				mark, said := w.audit.Fence(), len(w.daemon.Log())
				assert.Equal(t, "it ran\n", client.run(t, w.bob.Name+"@node", "echo it ran").Stdout)
				records := w.collect(mark, 2)
				checkPairs(t, records, 1)
				harness.WaitFor(t, waitLimit, "the line in the log", func() bool {
					return strings.Contains(w.daemon.Log()[said:], "teleport-session was killed by SIGABRT when its login was over, which a module of the PAM service")
				})
				w.endsClean(t)
			})
			for _, stage := range []string{"account", "cred", "open"} {
				t.Run(stage+" sleeps", func(t *testing.T) { w.sleeps(t, client, stage) })
			}
			if auth {
				t.Run("auth sleeps", func(t *testing.T) { w.sleeps(t, client, "auth") })
			}
			assert.True(t, harness.Eventually(waitLimit, func() bool { return w.daemon.Descriptors() <= open }), "no descriptor is left behind: %d were open, now %d", open, w.daemon.Descriptors())
			assert.NotContains(t, w.daemon.Log(), "goroutine ", "no pages about goroutines")
			assert.NotContains(t, w.daemon.Log(), "panic")
		})
	}
}

// sleeps checks that a module that takes 5 s takes them of one login.
func (w *pamWorld) sleeps(t *testing.T, client *asker, stage string) {
	w.play(stage + ":sleep:5")
	mark := w.audit.Fence()
	var slow sync.WaitGroup
	slow.Go(func() {
		began := time.Now()
		assert.Equal(t, "slow\n", client.run(t, w.bob.Name+"@node", "echo slow").Stdout)
		assert.GreaterOrEqual(t, time.Since(began), 5*time.Second)
	})
	harness.WaitFor(t, waitLimit, "teleport-session to run", func() bool { return len(w.daemon.Sessions()) > 0 })
	began := time.Now()
	for range 3 {
		assert.Equal(t, "in\n", client.run(t, w.carol.Name+"@node", "echo in").Stdout)
	}
	assert.Less(t, time.Since(began), 4*time.Second, "three other logins go on meanwhile")
	slow.Wait()
	records := w.collect(mark, 8)
	checkPairs(t, records, 4)
	w.endsClean(t)
}

// of picks the records of a login.
func (w *pamWorld) of(records []harness.Record, user harness.User) (picked []harness.Record) {
	for _, r := range records {
		if r.Get("acct") == user.Name {
			picked = append(picked, r)
		}
	}
	return picked
}

func (w *pamWorld) endsClean(t *testing.T) {
	t.Helper()
	assert.True(t, harness.Eventually(waitLimit, func() bool { return len(w.daemon.Sessions()) == 0 }), "no teleport-session is left behind")
}

// asker is OpenSSH's client with a program that answers its questions.
type asker struct {
	*harness.Client
	t *testing.T
	// dir holds what was asked, and what is answered.
	dir string
}

// client makes a client that answers what answers was told.
func (w *pamWorld) client(t *testing.T) *asker {
	t.Helper()
	a := &asker{Client: harness.NewClient(t, w.daemon, w.identity), t: t, dir: harness.OpenDir(t)}
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$1\" >>%[1]s/asked\nhead -n 1 %[1]s/answers\nsed -i 1d %[1]s/answers\n", a.dir)
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, "askpass"), []byte(script), 0o755))
	a.answer()
	return a
}

// answer sets the answers to what is asked from here on.
func (a *asker) answer(answers ...string) {
	a.t.Helper()
	require.NoError(a.t, os.WriteFile(filepath.Join(a.dir, "answers"), []byte(strings.Join(answers, "\n")+"\n"), 0o600))
	require.NoError(a.t, os.WriteFile(filepath.Join(a.dir, "asked"), nil, 0o600))
}

// asked returns what was asked since.
func (a *asker) asked() []string {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, "asked"))
	require.NoError(a.t, err)
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// run runs ssh to its end.
func (a *asker) run(t *testing.T, args ...string) harness.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	plain := a.Command(append([]string{"-o", "BatchMode=no", "-o", "PreferredAuthentications=publickey,keyboard-interactive", "-o", "NumberOfPasswordPrompts=3"}, args...)...)
	cmd := exec.CommandContext(ctx, plain.Path, plain.Args[1:]...)
	cmd.Env = append(plain.Env, "SSH_ASKPASS="+filepath.Join(a.dir, "askpass"), "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:0")
	cmd.SysProcAttr, cmd.WaitDelay = plain.SysProcAttr, time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Errorf("ssh %v did not end within a minute\nstdout: %s\nstderr: %s", args, out.String(), errs.String())
	}
	result := harness.Result{Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}
	if err != nil && result.Code < 0 {
		t.Errorf("ssh: %v", err)
	}
	return result
}

// routes are the ways to the node, with what OpenSSH's client needs to go them.
func (w *pamWorld) routes() map[harness.Route][]string {
	return map[harness.Route][]string{
		harness.Direct:  {w.bob.Name + "@node"},
		harness.ByProxy: {"-J", w.bob.Name + "@proxy", w.bob.Name + "@byname"},
	}
}

// TestKeyboardInteractive: PAM asks, and OpenSSH's client answers.
func TestKeyboardInteractive(t *testing.T) {
	w := newPAMWorld(t, "use_pam_auth: yes")
	client := w.client(t)
	for route, target := range w.routes() {
		t.Run(route.String(), func(t *testing.T) {
			ssh := func(command string) harness.Result {
				return client.run(t, append(target[:len(target):len(target)], command)...)
			}

			w.play("[auth:say:Second factor for you.] [auth:both:Name: =alice|Code: =1234] [account:say:Your account is fine.]")
			client.answer("alice", "1234")
			mark := w.audit.Fence()
			result := ssh("echo in")
			assert.Equal(t, "in\n", result.Stdout, result.Stderr)
			assert.Zero(t, result.Code)
			require.Len(t, client.asked(), 2)
			assert.Contains(t, client.asked()[0], "Name: ")
			assert.Contains(t, client.asked()[1], "Code: ")
			assert.Contains(t, result.Stderr, "Second factor for you.")
			assert.Contains(t, result.Stderr, "Your account is fine.", "what is said after the last question")
			records := w.collect(mark, 2)
			checkPairs(t, records, 1)
			assert.Equal(t, []string{
				"USER_AUTH PAM:authentication success", "USER_ACCT PAM:accounting success", "CRED_ACQ PAM:setcred success",
				"USER_START PAM:session_open success", "USER_END PAM:session_close success", "CRED_DISP PAM:setcred success",
			}, pamLines(records))
			login := harness.OfType(own(records), "USER_LOGIN")[0]
			for _, r := range pamRecords(records) {
				assert.Equal(t, login.Kernel["pid"], r.Kernel["pid"], "one process from the question to the end: %s", r)
			}

			// A wrong answer, and a right one.
			client.answer("alice", "0", "alice", "1234")
			w.endsClean(t)
			mark = w.audit.Fence()
			assert.Equal(t, "in\n", ssh("echo in").Stdout)
			assert.Len(t, client.asked(), 4)
			checkPairs(t, w.collect(mark, 2), 1)

			// Only wrong ones.
			client.answer("alice", "0", "alice", "1", "alice", "2")
			w.endsClean(t)
			mark = w.audit.Fence()
			result = ssh("echo in")
			assert.Equal(t, 255, result.Code)
			assert.Contains(t, result.Stderr, "Permission denied (keyboard-interactive)")
			got := own(w.collect(mark, 2))
			require.Len(t, got, 2, "one pair for all that was tried")
			for i, want := range refused("teleport", w.bob.Name, w.bob.ID(), "alice", "^pam-authenticate$") {
				want.terminal = noTerminal
				w.checkOwn(t, want, got[i])
			}

			// A password that must be changed.
			w.play("account:return:12 [password:say:You must change your password.] [password:ask:New password: =swordfish]")
			client.answer("swordfish")
			result = ssh("echo in")
			assert.Equal(t, "in\n", result.Stdout, result.Stderr)
			assert.Contains(t, result.Stderr, "You must change your password.")
			require.Len(t, client.asked(), 1)
			assert.Contains(t, client.asked()[0], "New password: ")
			client.answer("x", "y", "z")
			w.endsClean(t)
			mark = w.audit.Fence()
			assert.Equal(t, 255, ssh("echo in").Code)
			got = own(w.collect(mark, 2))
			require.Len(t, got, 2)
			assert.Equal(t, "pam-password", got[0].Get("reason"))
			w.endsClean(t)
		})
	}
	t.Run("a client that cannot be asked", func(t *testing.T) {
		w.play("[auth:ask:Code: =1234]")
		mark := w.audit.Fence()
		result := client.Run(w.bob.Name+"@node", "echo in")
		assert.Equal(t, 255, result.Code)
		assert.Contains(t, result.Stderr, "Permission denied (keyboard-interactive)")
		got := own(w.collect(mark, 2))
		require.Len(t, got, 2)
		assert.Equal(t, "second-factor-was-not-given", got[0].Get("reason"))
		assert.Equal(t, "alice", got[0].Get("teleportUser"))
	})
	t.Run("a connection that does nothing", func(t *testing.T) {
		w.play("[auth:ask:Code: =1234]")
		client.answer("1234")
		mark, said := w.audit.Fence(), len(w.daemon.Log())
		args := []string{"-o", "BatchMode=no", "-o", "PreferredAuthentications=publickey,keyboard-interactive", "-N", w.bob.Name + "@node"}
		cmd := client.Command(args...)
		cmd.Env = append(cmd.Env, "SSH_ASKPASS="+filepath.Join(client.dir, "askpass"), "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:0")
		require.NoError(t, cmd.Start())
		harness.WaitFor(t, waitLimit, "the client to be in", func() bool {
			return strings.Contains(w.daemon.Log()[said:], "has authenticated for login")
		})
		assert.Len(t, w.daemon.Sessions(), 1)
		assert.Len(t, client.asked(), 1)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait()
		w.endsClean(t)
		w.audit.Fence()
		assert.Empty(t, own(w.ours(w.audit.Since(mark))), "it has not logged in, and was not refused")
	})
}

// TestPAMQuestionsByPlink: PuTTY's client asks its user at the terminal.
func TestPAMQuestionsByPlink(t *testing.T) {
	w := newPAMWorld(t, "use_pam_auth: yes")
	putty := harness.NewPutty(t, w.daemon, w.identity)
	for _, route := range []harness.Route{harness.Direct, harness.ByProxy} {
		t.Run(route.String(), func(t *testing.T) {
			w.play("[auth:say:Second factor for you.] [auth:both:Name: =alice|Code: =1234] [account:say:Your account is fine.]")
			mark := w.audit.Fence()
			cmd := putty.Command("plink", route, w.bob.Name, "-no-antispoof", putty.Target(w.bob.Name), "echo in; exit 3")
			// In batch mode it asks nobody.
			for i, word := range cmd.Args {
				if word == "-batch" {
					cmd.Args = append(cmd.Args[:i:i], cmd.Args[i+1:]...)
					break
				}
			}
			master, slave := openPTY(t)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
			require.NoError(t, cmd.Start())
			slave.Close()
			sc := &screen{}
			go sc.follow(master)
			sc.wait(t, "Second factor for you.")
			sc.wait(t, "Name: ")
			enter(t, master, "alice")
			sc.wait(t, "Code: ")
			enter(t, master, "1234")
			sc.wait(t, "Your account is fine.")
			sc.wait(t, "\nin")
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case err := <-ended:
				require.Error(t, err, "its exit status is the command's")
			case <-time.After(waitLimit):
				_ = cmd.Process.Kill()
				t.Fatalf("plink does not end:\n%s", sc.text())
			}
			assert.Equal(t, 3, cmd.ProcessState.ExitCode())
			assert.NotContains(t, sc.text(), "1234", "the code is not echoed")
			checkPairs(t, w.collect(mark, 2), 1)
		})
	}
}

// openPTY opens a terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, slave
}

// TestPAMPasswordExpired: without use_pam_auth nobody can be asked for a new
// password, which the user hears.
func TestPAMPasswordExpired(t *testing.T) {
	w := newPAMWorld(t)
	w.play("account:return:12")
	mark := w.audit.Fence()
	result := w.client(t).run(t, w.bob.Name+"@node", "echo in")
	assert.Equal(t, 255, result.Code)
	assert.Empty(t, result.Stdout)
	assert.Contains(t, result.Stderr, "Your password has expired and must be changed.")
	assert.Contains(t, result.Stderr, "ssh_service.pam.use_pam_auth")
	got := own(w.collect(mark, 2))
	require.Len(t, got, 2)
	assert.Equal(t, "pam-password-expired", got[0].Get("reason"))
	assert.Contains(t, w.daemon.Log(), "account: Authentication token is no longer valid; new one required (the password must be changed")
}

// TestPAMSessions: what the usual modules do to a session, with and without a
// terminal, and with and without PAM's questions.
func TestPAMSessions(t *testing.T) {
	for _, auth := range []string{"no", "yes"} {
		t.Run("use_pam_auth="+auth, func(t *testing.T) {
			w := newPAMWorld(t, "use_pam_auth: "+auth)
			client := w.client(t)
			dir := harness.OpenDir(t)
			nologin := filepath.Join(dir, "nologin")
			limits := filepath.Join(dir, "limits.conf")
			require.NoError(t, os.WriteFile(limits, []byte("* hard nofile 777\n* soft nofile 776\n* hard core 0\n"), 0o644))
			w.stack.Set(
				"auth     required  pam_permit.so",
				"account  required  pam_nologin.so file="+nologin,
				"account  required  pam_permit.so",
				"session  required  pam_loginuid.so",
				"session  optional  pam_keyinit.so force revoke",
				"session  required  pam_limits.so conf="+limits,
				"session  required  pam_umask.so umask=027",
			)
			for _, terminal := range []string{"-T", "-tt"} {
				result := client.run(t, terminal, w.bob.Name+"@node", "umask; ulimit -Sn; ulimit -Hn; ulimit -c; tty >/dev/null && echo terminal; grep -c ' _ses' /proc/keys")
				lines := strings.Split(strings.ReplaceAll(result.Stdout, "\r", ""), "\n")
				want := []string{"0027", "776", "777", "0"}
				if terminal == "-tt" {
					want = append(want, "terminal")
				}
				require.GreaterOrEqual(t, len(lines), len(want), result)
				assert.Equal(t, want, lines[:len(want)])
				assert.NotEqual(t, "0", lines[len(want)], "the session has a keyring of its own: %v", result)
			}
			// Two logins do not share it. One that was revoked at the end of its login
			// (R) is shown until the kernel has swept it.
			keyring := func() string {
				return client.run(t, w.bob.Name+"@node", "awk '/ _ses/ && $2 !~ /R/' /proc/keys").Stdout
			}
			first, second := keyring(), keyring()
			assert.NotEmpty(t, first)
			id, _, _ := strings.Cut(first, " ")
			assert.NotContains(t, second, id)

			w.endsClean(t)
			require.NoError(t, os.WriteFile(nologin, []byte("Closed until noon.\n"), 0o644))
			mark := w.audit.Fence()
			for _, terminal := range []string{"-T", "-tt"} {
				result := client.run(t, terminal, w.bob.Name+"@node", "echo in")
				assert.Equal(t, 255, result.Code)
				assert.NotContains(t, result.Stdout, "in\n")
				assert.Equal(t, 1, strings.Count(result.Stderr, "Closed until noon."), result.Stderr)
			}
			got := own(w.collect(mark, 4))
			require.Len(t, got, 4)
			for _, r := range got {
				assert.Equal(t, "pam-account", r.Get("reason"))
			}
		})
	}
}

// TestPAMEnvironment: what a certificate says reaches PAM's modules and the
// user's environment.
func TestPAMEnvironment(t *testing.T) {
	harness.NeedRoot(t)
	ca := harness.NewCA(t)
	log := filepath.Join(harness.OpenDir(t), "log")
	stack := harness.NewPAMStack(t, append(agreeing, "session optional pam_exec.so log="+log+" /usr/bin/env")...)
	w := newWorld(t, worldConfig{ca: &ca, daemon: harness.DaemonConfig{PAMService: stack.Name, SSH: []string{
		"  environment:",
		`    TEAM: "the {{external.team}} team"`,
		`    WHO: "{{user.metadata.name}} as {{internal.logins}}"`,
		`    MISSING: "{{external.missing}}"`,
		`    EVIL: "{{external.evil}}"`,
	}}})
	run := func(traits string) string {
		extensions := map[string]string{"permit-pty": ""}
		if traits != "" {
			extensions["teleport-traits"] = traits
		}
		id := ca.Sign(t, harness.Cert{KeyID: "alice", Logins: []string{w.bob.Name, "deploy"}, Extensions: extensions})
		client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, id)
		result, err := harness.Exec(client, `echo "$TEAM|$WHO|${MISSING-unset}|${EVIL-unset}"`)
		require.NoError(t, err)
		_, err = harness.Exec(client, "true")
		require.NoError(t, err)
		return result.Stdout
	}
	assert.Equal(t, "the db web team|alice as "+w.bob.Name+" deploy|unset|unset\n", run(`{"team":["db","web"],"evil":["x\nLD_PRELOAD=/evil.so"]}`))
	assert.Equal(t, 1, strings.Count(w.daemon.Log(), "The variable MISSING of ssh_service.pam.environment is left out: the certificate has no trait missing."), "once a login")
	assert.Contains(t, w.daemon.Log(), "The variable EVIL of ssh_service.pam.environment is left out: its value has control characters.")
	harness.WaitFor(t, waitLimit, "what the module saw", func() bool {
		b, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(b), "\nTEAM=the db web team\n") && !strings.Contains(string(b), "LD_PRELOAD")
	})
	assert.Equal(t, "|alice as "+w.bob.Name+" deploy|unset|unset\n", run(`{"team":`), "what cannot be read is as if it were not there")
	assert.Contains(t, w.daemon.Log(), "an extension teleport-traits that cannot be read")
	assert.Equal(t, "|alice as root|unset|unset\n", run(`{"logins":["root"]}`))
}

// TestPAMServiceAtStart: a service that lets nobody in is found before anybody
// tries.
func TestPAMServiceAtStart(t *testing.T) {
	stack := harness.NewPAMStack(t, agreeing...)
	start := func(t *testing.T, service string) (log string, ended bool) {
		daemon := harness.StartDaemon(t, harness.DaemonConfig{Programs: built(t), Auth: true, Node: true, PAMService: service, MayFail: true})
		if strings.Contains(daemon.Log(), "Teleport is ready") {
			return daemon.Log(), false
		}
		failure, ended := daemon.Ended(waitLimit)
		require.True(t, ended, daemon.Log())
		require.Error(t, failure)
		return daemon.Log(), true
	}
	for name, test := range map[string]struct {
		service string
		lines   []string
		want    string
	}{
		"missing":        {service: "no-such-service", want: `nobody could log in: the PAM service "no-such-service" has no file in /etc/pam.d or /usr/lib/pam.d: make /etc/pam.d/no-such-service, or name another service`},
		"broken line":    {lines: append(agreeing, "acount required pam_permit.so"), want: `/etc/pam.d/` + stack.Name + `:5: "acount" is no type of module`},
		"missing module": {lines: append(agreeing, "account required pam_nowhere.so"), want: `/etc/pam.d/` + stack.Name + `:5: there is no module pam_nowhere.so in /`},
		"broken include": {lines: append(agreeing, "@include no-such-service"), want: `/etc/pam.d/` + stack.Name + `:5: no-such-service cannot be included`},
	} {
		t.Run(name, func(t *testing.T) {
			service := test.service
			if service == "" {
				service = stack.Name
				stack.Set(test.lines...)
			}
			log, ended := start(t, service)
			require.True(t, ended, "the daemon must not run:\n%s", log)
			lines := strings.Split(strings.TrimSpace(log), "\n")
			assert.Contains(t, lines[len(lines)-1], test.want)
			assert.NotContains(t, log, "goroutine ")
		})
	}
	t.Run("what can be done without", func(t *testing.T) {
		stack.Set(append(agreeing, "session optional pam_nowhere.so", "-session required pam_systemd_nowhere.so")...)
		log, ended := start(t, stack.Name)
		require.False(t, ended, log)
		assert.Contains(t, log, "there is no module pam_nowhere.so in ")
		assert.NotContains(t, log, "pam_systemd_nowhere")
	})
}
