// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/account"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/srv/session/sessiontest"
	"teleport-auditd/lib/srv/srvtest"
	"teleport-auditd/lib/testhost"
)

// program is the built teleport-session.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if playSession() || playForwarder() {
			return 0
		}
		built, remove, err := sessiontest.Build()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer remove()
		program = built
		return m.Run()
	}())
}

// host is a node that runs, and somebody who may log in.
type host struct {
	t      *testing.T
	server *node.Server
	addr   string
	ca     srvtest.Authority
	user   sessiontest.User
	clock  clockwork.Clock
	events *auditdtest.Recorder
	log    *logtest.Hook
	served chan error
}

// somebody is who logs in: not root, whose start-up files may do anything, and
// mind being killed at any moment.
func somebody(t *testing.T) sessiontest.User {
	if os.Geteuid() == 0 {
		return sessiontest.NewUser(t)
	}
	return sessiontest.Self(t)
}

// writable makes a folder that whoever logs in may write to.
func writable(t *testing.T) string {
	dir := sessiontest.OpenDir(t)
	require.NoError(t, os.Chmod(dir, 0o777))
	return dir
}

// newHost starts a node, and makes somebody who may log in. change alters its
// Config.
func newHost(t *testing.T, change ...func(*node.Config)) *host {
	t.Helper()
	h := &host{
		t:      t,
		ca:     srvtest.NewAuthority(t),
		user:   somebody(t),
		events: new(auditdtest.Recorder),
		served: make(chan error, 1),
	}
	needShell(t, h.user.Name)
	caFile := filepath.Join(t.TempDir(), "ca.pub")
	require.NoError(t, os.WriteFile(caFile, ssh.MarshalAuthorizedKey(h.ca.PublicKey()), 0o600))
	cas, err := srv.NewCAFile(caFile)
	require.NoError(t, err)
	key := srvtest.NewKey(t)
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	h.log = hook
	cfg := node.Config{
		Emitter:        h.events,
		AuditMode:      auditd.ModeOff,
		CAs:            cas,
		HostSigners:    func() []ssh.Signer { return []ssh.Signer{key} },
		HostUUID:       "f00f",
		ClusterName:    "example.com",
		SessionProgram: program,
		UserProgram:    sessiontest.UserProgram(program),
		Clock:          clockwork.NewRealClock(),
		Log:            log,
	}
	for _, f := range change {
		f(&cfg)
	}
	h.clock = cfg.Clock
	h.server, err = node.New(cfg)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h.addr = listener.Addr().String()
	go func() { h.served <- h.server.Serve(listener) }()
	t.Cleanup(func() { require.NoError(t, h.server.Close()) })
	return h
}

// needShell skips the test for a user who cannot log in: nologin(8).
func needShell(t *testing.T, name string) {
	t.Helper()
	a, err := account.Lookup(name)
	require.NoError(t, err)
	if err := exec.Command(a.Shell, "-c", "true").Run(); err != nil {
		testhost.Skip(t, "user %s, who runs the test, has no login shell: %v", name, err)
	}
}

// newUserHost starts a node for a throwaway user, and needs root.
func newUserHost(t *testing.T, change ...func(*node.Config)) *host {
	t.Helper()
	u := sessiontest.NewUser(t)
	h := newHost(t, change...)
	h.user = u
	return h
}

// newFastHost starts a node for a user whose shell starts fast, where the test
// may make one.
func newFastHost(t *testing.T, change ...func(*node.Config)) *host {
	t.Helper()
	if os.Geteuid() == 0 {
		return newUserHost(t, change...)
	}
	return newHost(t, change...)
}

// login logs in. change alters the certificate.
func (h *host) login(change ...func(*ssh.Certificate)) *ssh.Client {
	h.t.Helper()
	client, err := h.tryLogin(change...)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { client.Close() })
	return client
}

func (h *host) tryLogin(change ...func(*ssh.Certificate)) (*ssh.Client, error) {
	change = append([]func(*ssh.Certificate){func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} }}, change...)
	return ssh.Dial("tcp", h.addr, &ssh.ClientConfig{
		User:            h.user.Name,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(h.ca.Login(h.t, h.clock.Now(), change...))},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
}

// lines returns the log from a level that operators see.
func (h *host) lines() (lines []string) {
	for _, entry := range h.log.AllEntries() {
		if entry.Level <= logrus.WarnLevel {
			line, _ := entry.String()
			lines = append(lines, line)
		}
	}
	return lines
}

func newSession(t *testing.T, client *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := client.NewSession()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// ended is how a command has ended.
type ended struct {
	stdout, stderr, signal string
	status                 int
}

// run runs a command on a session of its own.
func run(t *testing.T, client *ssh.Client, command string) ended {
	t.Helper()
	return finish(t, newSession(t, client), func(s *ssh.Session) error { return s.Start(command) })
}

// finish starts something on a session and returns how it ended.
func finish(t *testing.T, s *ssh.Session, start func(*ssh.Session) error) (e ended) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	s.Stdout, s.Stderr = &stdout, &stderr
	require.NoError(t, start(s))
	within(t, "the session ends", func() { e = how(t, s.Wait()) })
	e.stdout, e.stderr = stdout.String(), stderr.String()
	return e
}

// how reads what ssh.Session.Wait has answered.
func how(t *testing.T, err error) ended {
	t.Helper()
	if err == nil {
		return ended{}
	}
	var exit *ssh.ExitError
	require.ErrorAs(t, err, &exit)
	e := ended{status: exit.ExitStatus(), signal: exit.Signal()}
	if e.signal != "" {
		e.status = 0 // the client's own
	}
	return e
}

// within fails the test if f does not return for long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(sessiontest.Patience):
		t.Fatalf("timed out: %s", what)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, condition func() bool, what string, args ...any) {
	t.Helper()
	require.Eventually(t, condition, sessiontest.Patience, 2*time.Millisecond, fmt.Sprintf(what, args...))
}

// read reads from a stream until it has seen want.
func read(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	var got []byte
	within(t, fmt.Sprintf("%q is read", want), func() {
		b := make([]byte, 1)
		for !strings.Contains(string(got), want) {
			n, err := r.Read(b)
			if err != nil {
				got = append(got, "<"+err.Error()+">"...)
				return
			}
			got = append(got, b[:n]...)
		}
	})
	require.Contains(t, string(got), want)
	return string(got)
}

// alive tells whether a process runs.
func alive(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	state := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))[0]
	return state != "Z" && state != "X"
}

func gone(t *testing.T, pids ...string) {
	t.Helper()
	for _, pid := range pids {
		eventually(t, func() bool { return !alive(pid) }, "process %s ends", pid)
	}
}

// raw opens a session channel that the test drives itself.
func raw(t *testing.T, client *ssh.Client) (ssh.Channel, <-chan *ssh.Request) {
	t.Helper()
	ch, requests, err := client.OpenChannel("session", nil)
	require.NoError(t, err)
	t.Cleanup(func() { ch.Close() })
	return ch, requests
}

// ask sends a request on a channel and returns the answer.
func ask(t *testing.T, ch ssh.Channel, name string, payload any) bool {
	t.Helper()
	var b []byte
	if payload != nil {
		b = ssh.Marshal(payload)
	}
	ok, err := ch.SendRequest(name, true, b)
	require.NoError(t, err)
	return ok
}

type (
	text  struct{ Text string }
	pair  struct{ Name, Value string }
	ptyRq struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	size struct{ Columns, Rows, Width, Height uint32 }
)

func TestConfig(t *testing.T) {
	good := func() node.Config {
		return node.Config{
			Emitter:        new(auditdtest.Recorder),
			CAs:            new(srvtest.CAs),
			HostSigners:    func() []ssh.Signer { return nil },
			SessionProgram: "/usr/local/bin/teleport-session",
			UserProgram:    "/usr/local/bin/teleport-user",
		}
	}
	cfg := good()
	require.NoError(t, cfg.CheckAndSetDefaults())
	require.Equal(t, auditd.ModeAuto, cfg.AuditMode)
	require.Equal(t, 10, cfg.MaxSessions)
	require.Equal(t, 5*time.Minute, cfg.KeepAliveInterval)
	require.NotNil(t, cfg.Unrecorded)
	for _, test := range []struct {
		want   string
		change func(*node.Config)
	}{
		{`"sometimes" is no auditd mode`, func(c *node.Config) { c.AuditMode = "sometimes" }},
		{"no absolute path", func(c *node.Config) { c.SessionProgram = "" }},
		{"no absolute path", func(c *node.Config) { c.SessionProgram = "teleport-session" }},
		{"no absolute path", func(c *node.Config) { c.UserProgram = "teleport-user" }},
		{`GatewayPorts is "maybe"`, func(c *node.Config) { c.GatewayPorts = "maybe" }},
		{"IdleTimeout -1s", func(c *node.Config) { c.IdleTimeout = -time.Second }},
		{"PAM is enabled without a ServiceName", func(c *node.Config) { c.PAM.Enabled = true }},
		{"negative MaxSessions -1", func(c *node.Config) { c.MaxSessions = -1 }},
		{"KeepAliveInterval -1s", func(c *node.Config) { c.KeepAliveInterval = -time.Second }},
		{"no Emitter", func(c *node.Config) { c.Emitter = nil }},
		{"no CAs", func(c *node.Config) { c.CAs = nil }},
		{"no HostSigners", func(c *node.Config) { c.HostSigners = nil }},
		{"negative MaxStartups", func(c *node.Config) { c.MaxStartups = -1 }},
	} {
		cfg := good()
		test.change(&cfg)
		_, err := node.New(cfg)
		require.ErrorContains(t, err, test.want)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	h := newUserHost(t)
	client := h.login()
	require.Equal(t, ended{stdout: "out\n", stderr: "err\n", status: 3}, run(t, client, "echo out; echo err >&2; exit 3"))
	require.Equal(t, ended{stdout: fmt.Sprintln(h.user.UID)}, run(t, client, "id -u"))
	require.Equal(t, ended{stdout: h.user.Home + "\n"}, run(t, client, "pwd"))
	require.Equal(t, ended{signal: "TERM"}, run(t, client, "kill -TERM $$"))
	require.Equal(t, ended{signal: "BUS@teleport"}, run(t, client, "kill -BUS $$"))
	require.Equal(t, ended{stdout: "$HOME 'x'\n"}, run(t, client, `printf '%s\n' "\$HOME 'x'"`))
	require.Equal(t, 127, run(t, client, "no-such-command").status)
	require.Equal(t, ended{status: 126, stderr: "a command cannot have a NUL in it\n"}, run(t, client, "id\x00-u"))
	require.Equal(t, ended{status: 126, stderr: "/bin/sh: argument list too long\n"}, run(t, client, ": "+strings.Repeat("x", 128<<10)))
	require.Equal(t, ended{status: 126, stderr: "the request is too long\n"}, run(t, client, ": "+strings.Repeat("x", 200<<10)))

	env := run(t, client, "env").stdout
	_, port, err := net.SplitHostPort(h.addr)
	require.NoError(t, err)
	for _, want := range []string{
		"HOME=" + h.user.Home, "USER=" + h.user.Name, "SHELL=/bin/sh",
		"SSH_TELEPORT_USER=alice", "SSH_TELEPORT_HOST_UUID=f00f", "SSH_TELEPORT_CLUSTER_NAME=example.com",
		"SSH_CLIENT=127.0.0.1 " + client.LocalAddr().String()[len("127.0.0.1:"):] + " " + port,
	} {
		require.Contains(t, strings.Split(env, "\n"), want)
	}
	require.NotContains(t, env, "SSH_ORIGINAL_COMMAND")
	require.NotContains(t, env, "GOMAXPROCS", "what is for teleport-session stays there")
	require.NotContains(t, env, "GOGC")
	require.Empty(t, h.lines())
	require.Empty(t, h.events.Events(), "what is recorded of a login comes from teleport-session")
}

func TestShell(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	s := newSession(t, h.login())
	s.Stdin = strings.NewReader("echo $0\nexit 4\n")
	e := finish(t, s, (*ssh.Session).Shell)
	require.Regexp(t, "^-[a-z]+\n$", e.stdout)
	require.Equal(t, 4, e.status)
}

// TestOneLogin: the channels of a connection are one login, two connections two.
func TestOneLogin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first, second := h.login(), h.login()
	parent := run(t, first, "echo $PPID").stdout
	require.Equal(t, parent, run(t, first, "echo $PPID").stdout)
	require.NotEqual(t, parent, run(t, second, "echo $PPID").stdout)

	// A connection that does nothing is no login.
	h.login()
	for _, entry := range h.log.AllEntries() {
		if entry.Message == "Login." {
			parent += "."
		}
	}
	require.Equal(t, 2, strings.Count(parent, "."))
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	s := newSession(t, client)
	require.NoError(t, s.RequestPty("xterm-256color", 43, 132, ssh.TerminalModes{ssh.ECHO: 0}))
	stdin, err := s.StdinPipe()
	require.NoError(t, err)
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("stty size; echo $TERM; tty; echo error >&2; echo ready; while read line; do echo \"got $line\"; stty size; done"))
	got := read(t, stdout, "ready\r\n")
	require.Regexp(t, "^43 132\r\nxterm-256color\r\n/dev/pts/[0-9]+\r\nerror\r\nready\r\n$", got)

	for _, change := range []struct {
		size size
		want string
	}{
		{size{100, 50, 0, 0}, "50 100"},
		{size{7, 1 << 20, 0, 0}, "65535 7"},
	} {
		ok, err := s.SendRequest("window-change", true, ssh.Marshal(change.size))
		require.NoError(t, err)
		require.True(t, ok)
		_, err = io.WriteString(stdin, "hello\r")
		require.NoError(t, err)
		require.Equal(t, "got hello\r\n", read(t, stdout, "\n"), "the terminal does not echo, as asked")
		require.Equal(t, change.want+"\r\n", read(t, stdout, "\n"))
	}
	require.NoError(t, stdin.Close())
	_, err = io.WriteString(stdin, "x")
	require.Error(t, err)
	require.NoError(t, s.Signal(ssh.SIGKILL), "the end of the input is no hang-up")
	within(t, "the session ends", func() { require.Equal(t, ended{signal: "KILL"}, how(t, s.Wait())) })
}

// TestTerminalHangsUp: the processes of a client that goes hear of it.
func TestTerminalHangsUp(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	file := filepath.Join(writable(t), "hup")
	s := newSession(t, client)
	require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("trap 'echo hup >"+file+"; exit' HUP; echo ready; while :; do sleep 0.01; done"))
	read(t, stdout, "ready")
	require.NoError(t, s.Close())
	eventually(t, func() bool { b, _ := os.ReadFile(file); return string(b) == "hup\n" }, "the process takes SIGHUP")
}

func TestEnv(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	for _, test := range []struct {
		name, value string
		ok          bool
	}{
		{"LANG", "de_DE.UTF-8", true},
		{"LANG", "grüße", true},
		{"LC_ALL", "C", true},
		{"LC_MESSAGES", "C", true},
		{"TZ", "Europe/Berlin", true},
		{"COLORTERM", "truecolor", true},
		{"LANG", strings.Repeat("x", 4096), true},
		{"LANG", strings.Repeat("x", 4097), false},
		{"LANG", "C\nLD_PRELOAD=/evil.so", false},
		{"LANG", "C\x00x", false},
		{"LANG", "\x1b[2J", false},
		{"LANGUAGE", "de", false},
		{"LC_", "C", false},
		{"LC_all", "C", false},
		{"LC_A=B", "C", false},
		{"LC_ALL\x00", "C", false},
		{"LC_" + strings.Repeat("X", 33), "C", false},
		{"lang", "C", false},
		{"PATH", "/evil", false},
		{"LD_PRELOAD", "/evil.so", false},
		{"SSH_TELEPORT_USER", "mallory", false},
		{"SSH_ORIGINAL_COMMAND", "x", false},
		{"TERM", "x", false},
		{"", "x", false},
	} {
		t.Run(fmt.Sprintf("%.40q", test.name+"="+test.value), func(t *testing.T) {
			ch, _ := raw(t, client)
			require.Equal(t, test.ok, ask(t, ch, "env", pair{test.name, test.value}))
			require.True(t, ask(t, ch, "exec", text{"env"}))
			out, err := io.ReadAll(ch)
			require.NoError(t, err)
			if test.ok {
				require.Contains(t, string(out), test.name+"="+test.value+"\n")
			} else if test.name != "" && test.name != "PATH" && test.name != "SSH_TELEPORT_USER" {
				require.NotContains(t, "\n"+string(out), "\n"+test.name+"=")
			}
			require.NotContains(t, string(out), "evil")
			require.NotContains(t, string(out), "mallory")
		})
	}
	t.Run("very many", func(t *testing.T) {
		ch, _ := raw(t, client)
		for range 64 {
			require.True(t, ask(t, ch, "env", pair{"LANG", "C"}))
		}
		require.False(t, ask(t, ch, "env", pair{"LANG", "C"}))
		ok, err := ch.SendRequest("env", true, []byte("x"))
		require.NoError(t, err)
		require.False(t, ok, "malformed")
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	h := newUserHost(t)
	client := h.login()
	s := newSession(t, client)
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("trap 'echo one' USR1; trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"))
	read(t, stdout, "ready\n")
	require.NoError(t, s.Signal(ssh.SIGUSR1))
	read(t, stdout, "one\n")
	require.NoError(t, s.Signal("NONSENSE"))
	require.NoError(t, s.Signal("STOP"), "which RFC 4254 does not have")
	require.NoError(t, s.Signal(ssh.SIGTERM))
	read(t, stdout, "bye\n")
	within(t, "the session ends", func() { require.Equal(t, ended{status: 7}, how(t, s.Wait())) })
}

// TestHalfClose: what the process writes after the end of its input arrives.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	s := newSession(t, client)
	s.Stdin = strings.NewReader("3\n1\n2\n")
	require.Equal(t, ended{stdout: "1\n2\n3\n"}, finish(t, s, func(s *ssh.Session) error { return s.Start("sort") }))

	// The other way round: a process that has closed its output still reads.
	file := filepath.Join(writable(t), "file")
	s = newSession(t, client)
	stdin, err := s.StdinPipe()
	require.NoError(t, err)
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("exec cat >"+file+" 2>&1"))
	_, err = io.WriteString(stdin, "late")
	require.NoError(t, err)
	require.NoError(t, stdin.Close())
	out, err := io.ReadAll(stdout)
	require.NoError(t, err)
	require.Empty(t, out)
	within(t, "the session ends", func() { require.NoError(t, s.Wait()) })
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "late", string(b))
}

// TestUnreadInput: a process that does not read stops neither its connection's
// other channels nor its own end.
func TestUnreadInput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	for name, command := range map[string]string{
		"keeps its input open": "echo ready; exec sleep 1000",
		"has closed its input": "exec 0<&-; echo ready; exec sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSession(t, client)
			stdin, err := s.StdinPipe()
			require.NoError(t, err)
			stdout, err := s.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, s.Start(command))
			read(t, stdout, "ready\n")
			written := make(chan struct{})
			go func() {
				defer close(written)
				_, _ = stdin.Write(make([]byte, 8<<20))
			}()
			require.Equal(t, "here\n", run(t, client, "echo here").stdout)
			require.NoError(t, s.Signal(ssh.SIGTERM))
			within(t, "the session ends", func() { require.Equal(t, ended{signal: "TERM"}, how(t, s.Wait())) })
			within(t, "the writer ends", func() { <-written })
		})
	}
	t.Run("ends before all of it is sent", func(t *testing.T) {
		s := newSession(t, client)
		s.Stdin = bytes.NewReader(make([]byte, 16<<20))
		var stdout bytes.Buffer
		s.Stdout = &stdout
		require.NoError(t, s.Start("head -c 5 | tr '\\0' x; exit 2"))
		within(t, "the session ends", func() {
			err := s.Wait()
			var exit *ssh.ExitError
			if errors.As(err, &exit) { // or the client's copying failed, at the channel's end
				require.Equal(t, 2, exit.ExitStatus())
			}
		})
		require.Equal(t, "xxxxx", stdout.String())
	})
}

// pattern is a stream of bytes that repeats at no power of two.
type pattern struct{ at, size int }

func (p *pattern) Read(b []byte) (int, error) {
	n := min(len(b), p.size-p.at)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range b[:n] {
		b[i] = patternAt(p.at + i)
	}
	p.at += n
	return n, nil
}

func patternAt(i int) byte { return byte(i % 251) }

// same compares what is written to it with the pattern.
type same struct{ at, wrong int }

func (s *same) Write(b []byte) (int, error) {
	for i, c := range b {
		if c != patternAt(s.at+i) {
			s.wrong++
		}
	}
	s.at += len(b)
	return len(b), nil
}

func TestLargeStreams(t *testing.T) {
	const size = 64 << 20
	h := newHost(t)
	s := newSession(t, h.login())
	var back same
	s.Stdin, s.Stdout = &pattern{size: size}, &back
	require.NoError(t, s.Start("cat"))
	within(t, "64 MiB each way", func() { require.NoError(t, s.Wait()) })
	require.Equal(t, same{at: size}, back)
}

func TestOutputAfterExit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// All that was written arrives, though the process has ended long ago.
	s := newSession(t, h.login())
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("head -c 3000000 /dev/zero"))
	out, err := io.ReadAll(stdout)
	require.NoError(t, err)
	require.Len(t, out, 3000000)

	// What runs in the background and holds the output keeps the channel open.
	s = newSession(t, h.login())
	stdout, err = s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("(sleep 0.2; echo later) & exit 5"))
	out, err = io.ReadAll(stdout)
	require.NoError(t, err)
	require.Equal(t, "later\n", string(out))
	require.Equal(t, ended{status: 5}, how(t, s.Wait()))
}

func TestMaxSessions(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(c *node.Config) { c.MaxSessions = 2 })
	client := h.login()
	first, _ := raw(t, client)
	second := newSession(t, client)
	require.NoError(t, second.Start("sleep 1000"))
	_, err := client.NewSession()
	var refused *ssh.OpenChannelError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, ssh.ResourceShortage, refused.Reason)
	require.Contains(t, refused.Message, "max_sessions")
	other := h.login()
	require.Equal(t, "ok\n", run(t, other, "echo ok").stdout, "each connection has its own bound")

	require.NoError(t, first.Close())
	eventually(t, func() bool {
		s, err := client.NewSession()
		if err != nil {
			return false
		}
		return s.Close() == nil
	}, "a place is free again")
}

// TestClosedChannel: a process that runs on without its channel still counts.
func TestClosedChannel(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(c *node.Config) { c.MaxSessions = 1 })
	client := h.login()
	s := newSession(t, client)
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("echo $$; exec sleep 1000"))
	pid := strings.TrimSpace(read(t, stdout, "\n"))
	require.NoError(t, s.Close())
	_, err = client.NewSession()
	require.Error(t, err)
	require.True(t, alive(pid), "as with OpenSSH, it hears of it only when it writes")
	p, err := os.FindProcess(atoi(t, pid))
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	eventually(t, func() bool {
		s, err := client.NewSession()
		if err != nil {
			return false
		}
		return s.Close() == nil
	}, "its place is free")

	writer := newSessionEventually(t, client)
	stdout, err = writer.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, writer.Start("echo $$; exec yes"))
	pid = strings.TrimSpace(read(t, stdout, "\n"))
	require.NoError(t, writer.Close())
	gone(t, pid)
}

func newSessionEventually(t *testing.T, client *ssh.Client) (s *ssh.Session) {
	t.Helper()
	eventually(t, func() bool {
		var err error
		s, err = client.NewSession()
		return err == nil
	}, "a session opens")
	return s
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	_, err := fmt.Sscan(s, &n)
	require.NoError(t, err)
	return n
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	for name, want := range map[string]struct {
		reason ssh.RejectionReason
		text   string
	}{
		"direct-tcpip":                   {ssh.ConnectionFailed, "the request for a connection is malformed"},
		"direct-streamlocal@openssh.com": {ssh.ConnectionFailed, "the request for a connection is malformed"},
		"x11":                            {ssh.Prohibited, "this node forwards no X11"},
		"auth-agent@openssh.com":         {ssh.UnknownChannelType, "this node knows sessions only"},
		"tun@openssh.com":                {ssh.UnknownChannelType, "this node knows sessions only"},
		"":                               {ssh.UnknownChannelType, "this node knows sessions only"},
	} {
		_, _, err := client.OpenChannel(name, ssh.Marshal(pair{"x", "y"}))
		var refused *ssh.OpenChannelError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, want.reason, refused.Reason, name)
		require.Equal(t, want.text, refused.Message, name)
	}
	for _, name := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "keepalive@openssh.com", "nonsense"} {
		ok, _, err := client.SendRequest(name, true, nil)
		require.NoError(t, err)
		require.False(t, ok, name)
	}

	ch, _ := raw(t, client)
	for name, payload := range map[string]any{
		"x11-req":       nil,
		"nonsense":      nil,
		"signal":        text{"TERM"},
		"window-change": size{80, 24, 0, 0},
		"exec":          nil,
		"subsystem":     nil,
		"pty-req":       nil,
	} {
		require.False(t, ask(t, ch, name, payload), name)
	}
	require.False(t, ask(t, ch, "subsystem", text{"nonsense"}))

	// All of that was no login yet, and the channel is as good as new.
	for _, entry := range h.log.AllEntries() {
		require.NotEqual(t, "Login.", entry.Message)
	}
	require.True(t, ask(t, ch, "pty-req", ptyRq{Term: "xterm", Columns: 80, Rows: 24}))
	require.False(t, ask(t, ch, "pty-req", ptyRq{Term: "xterm"}), "one terminal a channel")
	require.True(t, ask(t, ch, "window-change", size{90, 30, 0, 0}), "a window may change before the command")
	require.False(t, ask(t, ch, "window-change", text{"x"}))
	require.True(t, ask(t, ch, "exec", text{"stty size; exec sleep 1000"}))
	require.Equal(t, "30 90\r\n", read(t, ch, "\n"))
	for name, payload := range map[string]any{
		"shell":     nil,
		"exec":      text{"id"},
		"subsystem": text{"sftp"},
		"pty-req":   ptyRq{Term: "xterm"},
	} {
		require.False(t, ask(t, ch, name, payload), "%s on a channel that runs something", name)
	}
	require.True(t, ask(t, ch, "signal", text{"STOP"}), "one that RFC 4254 does not have does nothing")
}

func TestForceCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login(func(c *ssh.Certificate) {
		c.CriticalOptions["force-command"] = "echo \"forced, not <$SSH_ORIGINAL_COMMAND>\""
	})
	require.Equal(t, ended{stdout: "forced, not <rm -rf /; $(id)>\n"}, run(t, client, "rm -rf /; $(id)"))
	require.Equal(t, ended{stdout: "forced, not <>\n"}, run(t, client, "x\x00y"))
	s := newSession(t, client)
	require.Equal(t, ended{stdout: "forced, not <>\n"}, finish(t, s, (*ssh.Session).Shell))
	ch, _ := raw(t, client)
	require.True(t, ask(t, ch, "subsystem", text{"sftp"}))
	require.Equal(t, "forced, not <sftp>\n", read(t, ch, "\n"))

	client = h.login(func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "echo ready; exec sleep 1000" })
	ch, _ = raw(t, client)
	require.True(t, ask(t, ch, "shell", nil))
	read(t, ch, "ready\n")
	require.False(t, ask(t, ch, "signal", text{"KILL"}), "the command was not the client's")
}

func TestNoTerminalPermitted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login(func(c *ssh.Certificate) { delete(c.Extensions, "permit-pty") })
	s := newSession(t, client)
	require.Error(t, s.RequestPty("xterm", 24, 80, nil))
	require.Equal(t, ended{stdout: "not a tty\n", status: 1}, finish(t, s, func(s *ssh.Session) error { return s.Start("tty") }), "the rest works")
}

func TestNoMoreSessions(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	first := newSession(t, client)
	_, _, err := client.SendRequest("no-more-sessions@openssh.com", false, nil)
	require.NoError(t, err)
	eventually(t, func() bool {
		s, err := client.NewSession()
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return refused.Reason == ssh.Prohibited
		}
		s.Close()
		return false
	}, "no session opens any more")
	require.Equal(t, "ok\n", finish(t, first, func(s *ssh.Session) error { return s.Start("echo ok") }).stdout)
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClockAt(time.Now())
	h := newHost(t, func(c *node.Config) {
		c.Clock = clock
		c.KeepAliveInterval = time.Minute
	})
	dial := func() (ssh.Conn, <-chan *ssh.Request) {
		tcp, err := net.Dial("tcp", h.addr)
		require.NoError(t, err)
		t.Cleanup(func() { tcp.Close() })
		conn, channels, requests, err := ssh.NewClientConn(tcp, h.addr, &ssh.ClientConfig{
			User:            h.user.Name,
			Auth:            []ssh.AuthMethod{ssh.PublicKeys(h.ca.Login(t, clock.Now(), func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} }))},
			HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		require.NoError(t, err)
		go func() {
			for c := range channels {
				_ = c.Reject(ssh.Prohibited, "")
			}
		}()
		return conn, requests
	}
	ctx, cancel := context.WithTimeout(t.Context(), sessiontest.Patience)
	defer cancel()

	lively, questions := dial()
	for asked := 0; asked < 10; {
		clock.Advance(time.Minute)
		select {
		case q := <-questions:
			require.Equal(t, "keepalive@openssh.com", q.Type)
			require.True(t, q.WantReply)
			require.NoError(t, q.Reply(false, nil))
			asked++
		case <-time.After(time.Second):
			// The last answer was not taken yet when this question was due.
		}
	}
	_, _, err := lively.SendRequest("ping", true, nil)
	require.NoError(t, err, "who answers stays")
	require.NoError(t, lively.Close())
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		return clock.BlockUntilContext(ctx, 1) != nil
	}, "the ticker is stopped")

	dead, questions := dial()
	for asked := false; !asked; {
		clock.Advance(time.Minute)
		select {
		case <-questions:
			asked = true
		case <-time.After(time.Second):
			// The login was not as far yet.
		}
	}
	_, _, err = dead.SendRequest("ping", true, nil)
	require.NoError(t, err, "it is given time")
	closed := make(chan error, 1)
	go func() { closed <- dead.Wait() }()
	eventually(t, func() bool {
		clock.Advance(time.Minute)
		select {
		case err := <-closed:
			require.Error(t, err)
			return true
		default:
			return false
		}
	}, "the connection is closed")
	require.Len(t, h.lines(), 1)
	require.Contains(t, h.lines()[0], "The client has not answered for 3m0s: closing its connection.")
}
