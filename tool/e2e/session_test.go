// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/tool/e2e/harness"
)

// TestSession is what a user finds in a session, with PAM off and on.
func TestSession(t *testing.T) {
	for _, service := range []string{"", "login"} {
		t.Run("pam="+service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service})
			alice := w.daemon.Sign("alice", w.bob.Name)
			s := sessions{world: w, client: harness.NewClient(t, w.daemon, alice), identity: harness.ReadIdentity(t, alice)}
			t.Run("descriptors", s.descriptors)
			t.Run("environment", s.environment)
			t.Run("identity", s.ids)
			t.Run("shells", s.shells)
			t.Run("exit status and signal", s.exits)
			t.Run("streams", s.streams)
			t.Run("half close", s.halfClose)
			t.Run("bulk", s.bulk)
			t.Run("terminal", s.terminal)
			t.Run("signals", s.signals)
			if service != "" {
				t.Run("limits of PAM", s.pamLimits)
				t.Run("message of PAM", s.pamMessage)
				t.Run("environment of PAM", s.pamEnvironment)
			}
			assert.NotContains(t, w.daemon.Log(), "panic")
		})
	}
}

type sessions struct {
	world    *world
	client   *harness.Client
	identity harness.Identity
}

// run runs a command by OpenSSH's client, which must be let in.
func (s sessions) run(t *testing.T, args ...string) harness.Result {
	t.Helper()
	result := s.client.Run(args...)
	require.NotContains(t, result.Stderr, "Permission denied")
	return result
}

func (s sessions) target() string { return s.world.bob.Name + "@node" }

// open opens a connection and a session on it, by Go's client.
func (s sessions) open(t *testing.T) *ssh.Session {
	t.Helper()
	client := harness.MustDial(t, s.world.daemon.NodeAddr, s.world.bob.Name, s.identity)
	session, err := client.NewSession()
	require.NoError(t, err)
	t.Cleanup(func() { session.Close() })
	return session
}

func (s sessions) descriptors(t *testing.T) {
	for _, terminal := range []string{"-T", "-tt"} {
		out := s.run(t, terminal, s.target(), "ls -l /proc/self/fd").Stdout
		found := regexp.MustCompile(`(?m)(\d+) -> (\S+)\r?$`).FindAllStringSubmatch(out, -1)
		var numbers []string
		for _, f := range found {
			// ls has the folder that it reads open itself.
			if strings.HasPrefix(f[2], "/proc/") {
				continue
			}
			numbers = append(numbers, f[1])
		}
		assert.Equal(t, []string{"0", "1", "2"}, numbers, out)
	}
}

func (s sessions) environment(t *testing.T) {
	w := s.world
	session := s.open(t)
	sent := map[string]string{
		"LANG": "C.UTF-8", "LC_TIME": "C", "TZ": "UTC", "COLORTERM": "truecolor",
		"E2E_EVIL": "x", "LD_PRELOAD": "/evil.so", "PATH": "/evil", "BASH_ENV": "/evil", "HOME": "/evil",
		"SSH_TELEPORT_USER": "root", "LC_BAD=LD_PRELOAD": "x", "LCX": "x",
	}
	for name, value := range sent {
		// A server may refuse a name, and OpenSSH's client does not ask.
		_ = session.Setenv(name, value)
	}
	require.NoError(t, session.RequestPty("xterm-e2e", 24, 80, ssh.TerminalModes{}))
	// The environment that the shell was given, before it added its own.
	raw, err := session.Output("echo; echo the environment:; cat /proc/$$/environ; :")
	require.NoError(t, err)
	// A message of PAM's may stand before it.
	_, raw, found := bytes.Cut(raw, []byte("the environment:\r\n"))
	require.True(t, found)
	env := map[string]string{}
	for _, entry := range strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		assert.NotContains(t, env, name, "given twice")
		env[name] = value
	}
	uuid, err := os.ReadFile(w.daemon.DataDir + "/host_uuid")
	require.NoError(t, err)
	_, port, _ := strings.Cut(w.daemon.NodeAddr, ":")
	want := map[string]string{
		"HOME": w.bob.Home, "USER": w.bob.Name, "LOGNAME": w.bob.Name, "SHELL": "/bin/bash",
		"TERM": "xterm-e2e", "LANG": "C.UTF-8", "LC_TIME": "C", "TZ": "UTC", "COLORTERM": "truecolor",
		"SSH_TELEPORT_USER": "alice", "SSH_TELEPORT_CLUSTER_NAME": "e2e.example.com",
		"SSH_TELEPORT_HOST_UUID": strings.TrimSpace(string(uuid)),
	}
	if w.pamDir != "" {
		// What PAM returns: of its modules, and what it was given.
		want["E2E_FROM_PAM"] = "yes"
		want["TELEPORT_USERNAME"] = "alice"
		want["TELEPORT_LOGIN"] = w.bob.Name
		want["TELEPORT_ROLES"] = ""
		want["MOTD_SHOWN"] = "pam"
	}
	for name, value := range want {
		assert.Equal(t, value, env[name], name)
		delete(env, name)
	}
	for name, pattern := range map[string]string{
		"PATH":           `^/usr/local/bin:|^/usr/bin|^/bin`,
		"MAIL":           `/mail/` + w.bob.Name + `$`,
		"SSH_CLIENT":     `^127\.0\.0\.1 \d+ ` + port + `$`,
		"SSH_CONNECTION": `^127\.0\.0\.1 \d+ 127\.0\.0\.1 ` + port + `$`,
		"SSH_TTY":        `^/dev/pts/\d+$`,
	} {
		assert.Regexp(t, pattern, env[name], name)
		delete(env, name)
	}
	var rest []string
	for name := range env {
		rest = append(rest, name)
	}
	sort.Strings(rest)
	assert.Empty(t, rest, "nothing else: neither of the daemon's nor what the client may not set")
}

func (s sessions) ids(t *testing.T) {
	bob := s.world.bob
	out := s.run(t, s.target(), "id -u; id -g; id -G; umask; pwd; grep -E 'NoNewPrivs|CapEff|SigIgn|SigBlk' /proc/self/status; ulimit -c; cat /proc/self/oom_score_adj").Stdout
	lines := strings.Split(out, "\n")
	require.Greater(t, len(lines), 9, out)
	assert.Equal(t, []string{bob.ID(), fmt.Sprint(bob.GID), fmt.Sprint(bob.GID), "0022", bob.Home}, lines[:5])
	status := strings.Join(lines[5:], "\n")
	assert.Regexp(t, `CapEff:\s+0{16}`, status, "no capability is left")
	assert.Regexp(t, `SigBlk:\s+0{16}`, status, "no signal stays blocked")
	// 32 and 33 are the C library's own, which ignores them in what
	// posix_spawn(3) starts, as make does.
	assert.Regexp(t, `SigIgn:\s+0{7}[01][08]0{7}`, status, "no signal stays ignored")
	audit := strings.Fields(s.run(t, s.target(), "cat /proc/self/loginuid; echo; cat /proc/self/sessionid").Stdout)
	require.Len(t, audit, 2)
	assert.Equal(t, bob.ID(), audit[0])
	assert.NotEqual(t, harness.Unset, audit[1])
	// A job-control shell needs a session and a foreground group of its own.
	assert.Equal(t, "leader\n", s.run(t, s.target(), `[ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leader`).Stdout)
	assert.Contains(t, s.run(t, "-tt", s.target(), `[ $(cut -d' ' -f8 /proc/$$/stat) = $$ ] && echo foreground; tty`).Stdout, "foreground")
}

func (s sessions) shells(t *testing.T) {
	result := s.client.RunWith("echo $0; shopt -q login_shell && echo login\n", s.target())
	assert.Equal(t, "-bash\nlogin\n", result.Stdout, "a shell is a login shell")
	result = s.run(t, s.target(), "echo $0; shopt -q login_shell && echo login; echo $BASH_EXECUTION_STRING")
	assert.Regexp(t, `^(/bin/)?bash\necho`, result.Stdout, "a command is not run by a login shell")
	// A command reaches the shell as one text.
	assert.Equal(t, "a  b\n", s.run(t, s.target(), `echo "a  b"`).Stdout)
	assert.Equal(t, "one\ntwo\n", s.run(t, s.target(), "echo one\necho two").Stdout)
}

func (s sessions) exits(t *testing.T) {
	for _, code := range []int{0, 1, 3, 254} {
		assert.Equal(t, code, s.run(t, s.target(), fmt.Sprintf("exit %d", code)).Code)
	}
	assert.Equal(t, 127, s.run(t, s.target(), "/nonexistent/program").Code)
	for _, terminal := range []bool{false, true} {
		session := s.open(t)
		if terminal {
			require.NoError(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		}
		err := session.Run("kill -TERM $$")
		var exit *ssh.ExitError
		require.True(t, errors.As(err, &exit), "%v", err)
		assert.Equal(t, "TERM", exit.Signal(), "an end by a signal is told as one")
	}
}

func (s sessions) streams(t *testing.T) {
	result := s.run(t, s.target(), "echo out; echo err >&2")
	assert.Equal(t, "out\n", result.Stdout)
	assert.Equal(t, "err\n", result.Stderr, "stderr comes apart from stdout")
	result = s.client.RunWith("some input\n", s.target(), "cat; cat >&2 </dev/null")
	assert.Equal(t, "some input\n", result.Stdout)
}

func (s sessions) halfClose(t *testing.T) {
	t.Run("the client closes stdin", func(t *testing.T) {
		assert.Equal(t, "all of it", s.client.RunWith("all of it", s.target(), "cat").Stdout)
		assert.Equal(t, "after\n", s.client.RunWith("", s.target(), "cat; echo after").Stdout)
	})
	t.Run("the command closes stdout and lives on", func(t *testing.T) {
		began := time.Now()
		result := s.run(t, s.target(), "exec 1>&-; sleep 1; echo late >&2; exit 5")
		assert.Equal(t, 5, result.Code)
		assert.Equal(t, "late\n", result.Stderr)
		assert.GreaterOrEqual(t, time.Since(began), time.Second)
	})
	t.Run("the command closes both and lives on", func(t *testing.T) {
		session := s.open(t)
		out, err := session.StdoutPipe()
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, session.Start("exec 1>&- 2>&-; sleep 2; exit 5"))
		_, err = io.ReadAll(out)
		require.NoError(t, err)
		assert.Less(t, time.Since(began), 1900*time.Millisecond, "the end of output is told when it comes")
		var exit *ssh.ExitError
		require.True(t, errors.As(session.Wait(), &exit))
		assert.Equal(t, 5, exit.ExitStatus())
	})
	t.Run("the command closes stdin", func(t *testing.T) {
		// What comes then is lost, and the session is not.
		result := s.client.RunWith(strings.Repeat("x", 1<<20), s.target(), "exec 0<&-; echo done")
		assert.Equal(t, "done\n", result.Stdout)
	})
	t.Run("what was written before the end arrives", func(t *testing.T) {
		for range 5 {
			assert.Len(t, s.run(t, s.target(), "head -c 200000 /dev/zero | tr '\\0' x").Stdout, 200000)
			assert.Contains(t, s.run(t, "-tt", s.target(), "seq 20000").Stdout, "\n20000\r\n")
		}
	})
	t.Run("a job keeps the output open", func(t *testing.T) {
		// As with sshd: without a terminal the session lasts as long as its output.
		result := s.run(t, s.target(), "(sleep 1; echo from the job) & exit 0")
		assert.Equal(t, "from the job\n", result.Stdout)
	})
}

func (s sessions) bulk(t *testing.T) {
	const size = 8 << 20
	data := make([]byte, size)
	_, err := rand.Read(data)
	require.NoError(t, err)
	session := s.open(t)
	session.Stdin = bytes.NewReader(data)
	var out bytes.Buffer
	session.Stdout = &out
	require.NoError(t, session.Run("cat"))
	assert.Equal(t, sha256.Sum256(data), sha256.Sum256(out.Bytes()), "both ways, byte for byte")
}

// terminalOf opens a session with a terminal and a shell that waits for lines.
func (s sessions) terminalOf(t *testing.T, modes ssh.TerminalModes) (*ssh.Session, io.Writer, *screen) {
	t.Helper()
	session := s.open(t)
	in, err := session.StdinPipe()
	require.NoError(t, err)
	out, err := session.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, session.RequestPty("xterm", 24, 80, modes))
	require.NoError(t, session.Start("echo ready; while read -r line; do eval \"$line\"; done"))
	sc := &screen{}
	go sc.follow(out)
	sc.wait(t, "ready")
	return session, in, sc
}

// enter types a line.
func enter(t *testing.T, in io.Writer, line string) {
	t.Helper()
	write(t, in, line+"\n")
}

func write(t *testing.T, in io.Writer, text string) {
	t.Helper()
	_, err := io.WriteString(in, text)
	require.NoError(t, err)
}

func (s sessions) terminal(t *testing.T) {
	t.Run("size and its change", func(t *testing.T) {
		session, in, screen := s.terminalOf(t, ssh.TerminalModes{})
		enter(t, in, "trap 'echo changed' WINCH; stty size")
		screen.wait(t, "24 80")
		require.NoError(t, session.WindowChange(40, 100))
		enter(t, in, "stty size")
		screen.wait(t, "40 100")
		screen.wait(t, "changed")
	})
	t.Run("modes", func(t *testing.T) {
		_, in, screen := s.terminalOf(t, ssh.TerminalModes{
			ssh.ECHO: 0, ssh.IXON: 0, ssh.VINTR: 7, ssh.OPOST: 1, ssh.TTY_OP_ISPEED: 38400, ssh.TTY_OP_OSPEED: 38400,
		})
		enter(t, in, "stty -a")
		for _, word := range []string{"-echo ", "-ixon", "intr = ^G"} {
			screen.wait(t, word)
		}
		assert.NotContains(t, screen.text(), "stty -a", "echo is off")
	})
	t.Run("interrupt", func(t *testing.T) {
		_, in, screen := s.terminalOf(t, ssh.TerminalModes{})
		enter(t, in, "trap 'echo interrupted' INT; echo armed")
		screen.wait(t, "armed\r")
		write(t, in, "\x03")
		enter(t, in, "")
		screen.wait(t, "interrupted\r")
	})
	t.Run("owner", func(t *testing.T) {
		out := s.run(t, "-tt", s.target(), "stat -c '%u %a' $(tty)").Stdout
		assert.Regexp(t, `(?m)^`+s.world.bob.ID()+` 6[0-2]0\r?$`, out, "the terminal is the user's, and not all others'")
	})
	t.Run("shell exits", func(t *testing.T) {
		result := s.client.RunWith("exit 4\n", "-tt", s.target())
		assert.Equal(t, 4, result.Code)
	})
	t.Run("a second pty-req", func(t *testing.T) {
		session := s.open(t)
		require.NoError(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		assert.Error(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		_, err := session.Output("true")
		assert.NoError(t, err, "and the session goes on")
	})
	t.Run("absurd requests", func(t *testing.T) {
		session := s.open(t)
		_, err := session.SendRequest("pty-req", true, []byte{0, 0, 0})
		require.NoError(t, err)
		_, err = session.SendRequest("window-change", false, []byte{1})
		require.NoError(t, err)
		_, err = session.SendRequest("env", true, []byte{0xff, 0xff, 0xff, 0xff})
		require.NoError(t, err)
		out, err := session.Output("echo alive")
		require.NoError(t, err)
		assert.Equal(t, "alive\n", string(out))
	})
}

func (s sessions) signals(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		session := s.open(t)
		out, err := session.StdoutPipe()
		require.NoError(t, err)
		if terminal {
			require.NoError(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		}
		require.NoError(t, session.Start("trap 'echo got it; exit 6' USR1; echo ready; while :; do sleep 0.05; done"))
		sc := &screen{}
		go sc.follow(out)
		sc.wait(t, "ready")
		require.NoError(t, session.Signal(ssh.SIGUSR1))
		sc.wait(t, "got it")
		var exit *ssh.ExitError
		require.True(t, errors.As(session.Wait(), &exit))
		assert.Equal(t, 6, exit.ExitStatus())
	}
}

func (s sessions) pamLimits(t *testing.T) {
	assert.Equal(t, "776\n777\n", s.run(t, s.target(), "ulimit -Sn; ulimit -Hn").Stdout, "pam_limits")
}

func (s sessions) pamMessage(t *testing.T) {
	assert.Contains(t, s.client.RunWith("exit\n", "-tt", s.target()).Stdout, "a message from PAM", "the motd reaches a shell's terminal")
	assert.Equal(t, "only this\n", s.run(t, s.target(), "echo only this").Stdout, "and no command's output")
	assert.Equal(t, "only this\r\n", s.run(t, "-tt", s.target(), "echo only this").Stdout, "with a terminal neither")
}

func (s sessions) pamEnvironment(t *testing.T) {
	s.run(t, s.target(), "true")
	log, err := os.ReadFile(s.world.pamDir + "/pam_exec.log")
	require.NoError(t, err)
	for _, line := range []string{
		"TELEPORT_USERNAME=alice\n", "TELEPORT_LOGIN=" + s.world.bob.Name + "\n", "TELEPORT_ROLES=",
		"PAM_USER=" + s.world.bob.Name + "\n", "PAM_RHOST=127.0.0.1\n", "PAM_TTY=", "PAM_SERVICE=" + "tpe2epam",
		"PAM_TYPE=open_session\n", "PAM_TYPE=close_session\n",
	} {
		assert.Contains(t, string(log), line)
	}
}

// TestUsers are logins that are not as usual.
func TestUsers(t *testing.T) {
	group, gid := harness.NewGroup(t)
	member := harness.NewUser(t, harness.UserConfig{Groups: []string{group}})
	homeless := harness.NewUser(t, harness.UserConfig{Home: "/nonexistent/home"})
	barred := harness.NewUser(t, harness.UserConfig{Shell: "/usr/sbin/nologin"})
	dash := harness.NewUser(t, harness.UserConfig{Shell: "/bin/dash"})
	lost := harness.NewUser(t, harness.UserConfig{Shell: "/nonexistent/shell"})
	w := newWorld(t, worldConfig{})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", member.Name, homeless.Name, barred.Name, dash.Name, lost.Name, "root"))

	groups := strings.Fields(client.Run(member.Name+"@node", "id -G").Stdout)
	assert.ElementsMatch(t, []string{fmt.Sprint(member.GID), gid}, groups, "supplementary groups")

	result := client.Run(homeless.Name+"@node", "pwd")
	assert.Equal(t, "/\n", result.Stdout)
	assert.Contains(t, result.Stderr, "/nonexistent/home", "a note says so")

	result = client.Run(barred.Name+"@node", "echo it ran")
	assert.Equal(t, 1, result.Code)
	assert.NotContains(t, result.Stdout, "it ran")
	assert.Contains(t, result.Stdout, "not available")

	assert.Equal(t, "-dash\n", client.RunWith("echo $0\n", dash.Name+"@node").Stdout)

	result = client.Run(lost.Name+"@node", "true")
	assert.NotZero(t, result.Code)
	assert.Contains(t, result.Stderr, "/nonexistent/shell", "one clear line")

	assert.Equal(t, "0\n", client.Run("root@node", "id -u").Stdout)
}

// TestNoLoginUIDInPAM: a PAM stack without pam_loginuid still gives every login
// its own auid and session id.
func TestNoLoginUIDInPAM(t *testing.T) {
	w := newWorld(t, worldConfig{pam: "no-loginuid"})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	mark := w.audit.Fence()
	require.Zero(t, client.Run(w.bob.Name+"@node", "true").Code)
	records := w.collect(mark, 2)
	require.Len(t, harness.OfType(records, "LOGIN"), 1, harness.Show(records))
	checkPairs(t, records, 1)
	assert.Equal(t, w.bob.ID(), own(records)[0].Kernel["auid"])
}
