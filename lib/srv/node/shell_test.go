// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/testhost"
)

func TestBreak(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	half := struct{ Milliseconds uint32 }{500}

	pipes, _ := raw(t, client)
	require.False(t, ask(t, pipes, "break", half), "before anything runs")
	require.True(t, ask(t, pipes, "exec", text{"cat"}))
	require.False(t, ask(t, pipes, "break", half), "without a terminal")

	terminal, _ := raw(t, client)
	require.True(t, ask(t, terminal, "pty-req", ptyRq{Term: "xterm", Columns: 80, Rows: 24}))
	require.True(t, ask(t, terminal, "exec", text{"echo ready; read -r line; echo \"got $line\""}))
	read(t, terminal, "ready")
	require.True(t, ask(t, terminal, "break", half))
	require.True(t, ask(t, terminal, "break", struct{ N uint32 }{0}))
	require.False(t, ask(t, terminal, "break", nil), "malformed")
	require.False(t, ask(t, terminal, "break", text{"x"}), "malformed")
	_, err := io.WriteString(terminal, "on\n")
	require.NoError(t, err)
	read(t, terminal, "got on")
}

// TestCoreDump: the end of a process by a signal is told as the host has it.
func TestCoreDump(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	command := func() string {
		return "cd " + writable(t) + " && ulimit -c unlimited && exec sh -c 'kill -SEGV $$'"
	}
	local := exec.Command("sh", "-c", command())
	var exit *exec.ExitError
	require.ErrorAs(t, local.Run(), &exit)
	dumped := exit.Sys().(syscall.WaitStatus).CoreDump()

	ch, requests := raw(t, h.login())
	require.True(t, ask(t, ch, "exec", text{command()}))
	within(t, "the process ends", func() {
		for r := range requests {
			if r.Type != "exit-signal" {
				continue
			}
			var m struct {
				Name       string
				CoreDumped bool
				Message    string
				Language   string
			}
			require.NoError(t, ssh.Unmarshal(r.Payload, &m))
			require.Equal(t, "SEGV", m.Name)
			require.Equal(t, dumped, m.CoreDumped, "as without us")
			return
		}
		t.Error("no exit-signal")
	})
}

// write puts a file into the home folder.
func (h *host) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.user.Home, name)
	require.NoError(h.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(h.t, os.WriteFile(path, []byte(content), 0o644))
}

func permitUserRC(c *ssh.Certificate) {
	if c.Extensions == nil {
		c.Extensions = map[string]string{}
	}
	c.Extensions["permit-user-rc"] = ""
}

func TestUserFiles(t *testing.T) {
	t.Parallel()
	h := newUserHost(t, func(c *node.Config) { c.PermitUserEnv = true })
	h.write(".ssh/environment", "# mine\nMINE=a b=c\n  INDENTED=1\n\nPATH=/usr/bin:/bin:/mine\nSSH_TELEPORT_USER=root\nSSH_CLIENT=forged\nLANG=C.mine\nnonsense\nLAST=x")
	h.write(".ssh/rc", "echo \"rc $MINE $SSH_TELEPORT_USER $(pwd)\" >&2\nwc -c >&2\nexit 9\n")
	const show = `echo "$MINE|$INDENTED|$PATH|$SSH_TELEPORT_USER|$LANG|$LAST|$0"; cat; exit 3`
	complaint := h.user.Home + "/.ssh/environment:9: this is no NAME=value\n"
	said := "rc a b=c alice " + h.user.Home + "\n0\n"

	client := h.login(permitUserRC)
	s := newSession(t, client)
	s.Stdin = strings.NewReader("input\n")
	require.Equal(t, ended{
		stdout: "a b=c|1|/usr/bin:/bin:/mine|alice|C.mine|x|sh\ninput\n", stderr: complaint + said, status: 3,
	}, finish(t, s, func(s *ssh.Session) error { return s.Start(show) }), "the input is the command's")
	s = newSession(t, client)
	s.Stdin = strings.NewReader("echo $0; exit 4\n")
	require.Equal(t, ended{stdout: "-sh\n", stderr: complaint + said, status: 4}, finish(t, s, (*ssh.Session).Shell), "a login shell is one")
	screen := shellOutput(t, client)
	require.Contains(t, screen, "rc a b=c alice "+h.user.Home+"\r\n0\r\n")

	t.Run("the process is the login's", func(t *testing.T) {
		s := newSession(t, client)
		stdout, err := s.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, s.Start("trap 'echo caught; exit 5' TERM; cut -d' ' -f5,6 /proc/$$/stat; echo $$; cat /proc/$$/fdinfo/* >/dev/null; while :; do sleep 0.01; done"))
		fields := strings.Fields(read(t, stdout, "\n") + read(t, stdout, "\n"))
		require.Len(t, fields, 3)
		require.Equal(t, []string{fields[2], fields[2]}, fields[:2], "it leads its group and session")
		require.NoError(t, s.Signal(ssh.SIGTERM))
		read(t, stdout, "caught\n")
		within(t, "the session ends", func() { require.Equal(t, ended{status: 5}, how(t, s.Wait())) })
	})
	t.Run("the certificate does not permit rc", func(t *testing.T) {
		client := h.login(func(c *ssh.Certificate) { delete(c.Extensions, "permit-user-rc") })
		e := run(t, client, "echo $MINE")
		require.Equal(t, ended{stdout: "a b=c\n", stderr: complaint}, e)
	})
	t.Run("a command of the certificate's", func(t *testing.T) {
		client := h.login(permitUserRC, func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "echo forced $MINE" })
		require.Equal(t, ended{stdout: "forced\n"}, run(t, client, "id"))
	})
	t.Run("files get no rc, whose output they would take for theirs", func(t *testing.T) {
		h.write(".ssh/rc", "echo noise\n")
		ch, _ := raw(t, client)
		require.True(t, ask(t, ch, "subsystem", text{"sftp"}))
		_, err := ch.Write([]byte{0, 0, 0, 5, 1, 0, 0, 0, 3}) // SSH_FXP_INIT
		require.NoError(t, err)
		answer := make([]byte, 5)
		within(t, "the answer comes", func() { _, err = io.ReadFull(ch, answer) })
		require.NoError(t, err)
		require.EqualValues(t, 2, answer[4], "SSH_FXP_VERSION, not %q", answer)
	})
	t.Run("hostile files", func(t *testing.T) {
		home := filepath.Join(h.user.Home, ".ssh")
		for name, make := range map[string]func(path string) error{
			"a pipe":    func(path string) error { return syscall.Mkfifo(path, 0o666) },
			"a device":  func(path string) error { return os.Symlink("/dev/zero", path) },
			"a folder":  func(path string) error { return os.Mkdir(path, 0o755) },
			"too long":  func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("A=b\n"), 1<<17), 0o644) },
			"too many":  func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("A=b\n", 1001)), 0o644) },
			"forbidden": func(path string) error { return os.Symlink("/etc/shadow", path) },
			"NUL":       func(path string) error { return os.WriteFile(path, []byte("A=b\x00LD_PRELOAD=x\n"), 0o644) },
		} {
			require.NoError(t, os.RemoveAll(filepath.Join(home, "environment")))
			require.NoError(t, os.RemoveAll(filepath.Join(home, "rc")))
			require.NoError(t, make(filepath.Join(home, "environment")))
			e := run(t, client, "echo ok; env | grep -c -e LD_PRELOAD -e root:; exit 6")
			require.Equal(t, "ok\n0\n", e.stdout, name)
			require.Equal(t, 6, e.status, name)
			require.NotEmpty(t, e.stderr, name)
			require.NotContains(t, e.stderr, "\x00", name)
		}
	})
	require.NoError(t, os.RemoveAll(filepath.Join(h.user.Home, ".ssh")))
	require.Equal(t, ended{stdout: "ok\n"}, run(t, client, "echo ok"), "without the files")
}

// TestUserFilesAreNotRead where nobody has permitted it.
func TestUserFilesAreNotRead(t *testing.T) {
	t.Parallel()
	h := newUserHost(t)
	h.write(".ssh/environment", "MINE=1\n")
	h.write(".ssh/rc", "echo rc\n")
	require.Equal(t, ended{stdout: "<>\n"}, run(t, h.login(permitUserRC), "echo \"<$MINE>\""))
}

// TestLongCommand: 32,768 bytes, and what Linux takes at most.
func TestLongCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	const rest = "echo $((${#x} + 1)) #"
	for _, length := range []int{32768, 128<<10 - 1} {
		command := "x=" + strings.Repeat("a", 1000) + "; " + rest
		command += strings.Repeat("x", length-len(command))
		require.Equal(t, ended{stdout: "1001\n"}, run(t, client, command), "%d bytes", length)
	}
	e := run(t, client, strings.Repeat("x", 128<<10))
	require.Equal(t, 126, e.status)
	require.Contains(t, e.stderr, "argument list too long")
}

// TestManyRequests: a client that asks for very much on one channel, and on one
// connection, gets its answers.
func TestManyRequests(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	client := h.login()
	ch, _ := raw(t, client)
	require.True(t, ask(t, ch, "pty-req", ptyRq{Term: "xterm", Columns: 80, Rows: 24}))
	require.True(t, ask(t, ch, "shell", nil))
	for i := range 3000 {
		require.True(t, ask(t, ch, "window-change", size{uint32(i), 24, 0, 0}))
		require.False(t, ask(t, ch, "nonsense", nil))
	}
	_, err := io.WriteString(ch, "stty size; exit\n")
	require.NoError(t, err)
	read(t, ch, "24 2999")
	for range 3000 {
		_, _, err := client.SendRequest("nonsense", true, nil)
		require.NoError(t, err)
	}
	for range 200 {
		require.Equal(t, "ok\n", run(t, client, "echo ok").stdout)
	}
}

// fakeHost is a node by a clock of the test's.
func fakeHost(t *testing.T, change func(*node.Config)) (*host, *clockwork.FakeClock) {
	t.Helper()
	clock := clockwork.NewFakeClockAt(time.Now())
	h := newFastHost(t, func(c *node.Config) {
		c.Clock = clock
		c.KeepAliveInterval = 24 * time.Hour
		change(c)
	})
	return h, clock
}

// waits runs something that ends with its connection, and returns what it says on
// standard error until then.
func waits(t *testing.T, client *ssh.Client, terminal bool) (stderr func() string) {
	t.Helper()
	s := newSession(t, client)
	if terminal {
		require.NoError(t, s.RequestPty("xterm", 24, 80, nil))
	}
	var text bytes.Buffer
	s.Stderr = &text
	stdin, err := s.StdinPipe()
	require.NoError(t, err)
	t.Cleanup(func() { stdin.Close() })
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("echo ready; exec cat"))
	read(t, stdout, "ready")
	return func() string {
		within(t, "the session ends", func() { _ = s.Wait() })
		return text.String()
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	h, clock := fakeHost(t, func(c *node.Config) { c.IdleTimeout = 10 * time.Minute })
	client := h.login()
	s := newSession(t, client)
	stdin, err := s.StdinPipe()
	require.NoError(t, err)
	stdout, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start("echo ready; exec cat"))
	read(t, stdout, "ready\n")
	pipes, terminal := waits(t, client, false), waits(t, client, true)

	// What is used stays.
	for range 4 {
		clock.Advance(6 * time.Minute)
		_, err := io.WriteString(stdin, "x\n")
		require.NoError(t, err)
		read(t, stdout, "x\n")
	}
	// Questions whether somebody is there are no use.
	clock.Advance(6 * time.Minute)
	_, _, err = client.SendRequest("keepalive@openssh.com", true, nil)
	require.NoError(t, err)
	clock.Advance(4*time.Minute - time.Second)
	_, _, err = client.SendRequest("keepalive@openssh.com", true, nil)
	require.NoError(t, err, "a second is left")
	clock.Advance(time.Second)
	require.Equal(t, "This connection was idle for 10m and ends.\n", pipes())
	require.Equal(t, "\r\nThis connection was idle for 10m and ends.\r\n", terminal())
	// A client that does not close it now is cut off.
	advanceUntil(t, clock, 10*time.Second, func() bool { return isClosed(client) })
	closes(t, client)
	require.Empty(t, h.events.Events(), "teleport-session has recorded the end")

	// One that never opened anything ends as well.
	client = h.login()
	require.NoError(t, clock.BlockUntilContext(t.Context(), 1))
	eventually(t, func() bool {
		clock.Advance(time.Minute)
		_, _, err := client.SendRequest("x", true, nil)
		return err != nil
	}, "it ends")
}

// TestIdleForwarding: what is forwarded is use, too.
func TestIdleForwarding(t *testing.T) {
	t.Parallel()
	h, clock := fakeHost(t, func(c *node.Config) { c.IdleTimeout = 10 * time.Minute })
	client := h.login()
	conn, err := client.Dial("tcp", echo(t, "tcp", "127.0.0.1:0").Addr().String())
	require.NoError(t, err)
	for range 5 {
		_, err := io.WriteString(conn, "x\n")
		require.NoError(t, err)
		read(t, conn, "x\n")
		clock.Advance(9 * time.Minute)
	}
	_, _, err = client.SendRequest("keepalive@openssh.com", true, nil)
	require.NoError(t, err)
	clock.Advance(time.Minute)
	closes(t, client)
}

// TestIdleClientThatDoesNotRead keeps its connection for no longer than others.
func TestIdleClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	h, clock := fakeHost(t, func(c *node.Config) { c.IdleTimeout = 10 * time.Minute })
	client := h.login()
	ch, _ := raw(t, client)
	require.True(t, ask(t, ch, "exec", text{"echo $$; read -r line; exec yes >&2"}))
	pid := strings.TrimSpace(read(t, ch, "\n"))
	_, err := io.WriteString(ch, "go\n")
	require.NoError(t, err)
	ends := make(chan struct{})
	go func() {
		defer close(ends)
		_ = client.Wait()
	}()
	eventually(t, func() bool {
		clock.Advance(time.Minute)
		select {
		case <-ends:
			return true
		default:
			return false
		}
	}, "the connection ends")
	gone(t, pid)
}

func TestExpired(t *testing.T) {
	t.Parallel()
	h, clock := fakeHost(t, func(c *node.Config) { c.DisconnectExpired = true })
	hour := func(c *ssh.Certificate) { c.ValidBefore = uint64(clock.Now().Add(time.Hour).Unix()) }
	client := h.login(hour)
	forever := h.login(func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity })
	longer := h.login(func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity - 1 })
	pipes, terminal := waits(t, client, false), waits(t, client, true)
	for range 59 {
		clock.Advance(time.Minute)
	}
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout, "it is valid")
	advanceUntil(t, clock, 2*time.Minute, func() bool { return isClosed(client) })
	require.Equal(t, "The certificate of this login has expired, and the login ends.\n", pipes())
	require.Equal(t, "\r\nThe certificate of this login has expired, and the login ends.\r\n", terminal())
	closes(t, client)
	require.Equal(t, "ok\n", run(t, forever, "echo ok").stdout)
	require.Equal(t, "ok\n", run(t, longer, "echo ok").stdout, "no overflow")

	t.Run("a clock that is set forward", func(t *testing.T) {
		client := h.login(hour)
		said := waits(t, client, false)
		clock.Advance(30 * 24 * time.Hour)
		require.Contains(t, said(), "has expired")
	})
	require.Empty(t, h.events.Events())
}

// advanceUntil moves the clock by a second, and then again, while what is to come
// is not there.
func advanceUntil(t *testing.T, clock *clockwork.FakeClock, most time.Duration, there func() bool) {
	t.Helper()
	moved := time.Duration(0)
	eventually(t, func() bool {
		if moved < most {
			clock.Advance(time.Second)
			moved += time.Second
		}
		return there()
	}, "it comes within %v by the clock", most)
}

// isClosed tells whether a connection takes no more questions.
func isClosed(client *ssh.Client) bool {
	_, _, err := client.SendRequest("x", true, nil)
	return err != nil
}

// TestExpiredIsLeftAlone where nobody has asked for the other.
func TestExpiredIsLeftAlone(t *testing.T) {
	t.Parallel()
	h, clock := fakeHost(t, func(*node.Config) {})
	client := h.login(func(c *ssh.Certificate) { c.ValidBefore = uint64(clock.Now().Add(time.Hour).Unix()) })
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout)
	clock.Advance(2 * time.Hour)
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout)
}

// TestRekeyByTheClock: while a shell is open and data is on its way, each hour
// brings a new key, and nothing is lost.
func TestRekeyByTheClock(t *testing.T) {
	t.Parallel()
	h, clock := fakeHost(t, func(*node.Config) {})
	tcp, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	// The client looks at the host's key at each exchange.
	var exchanges atomic.Int32
	conn, channels, requests, err := ssh.NewClientConn(tcp, h.addr, &ssh.ClientConfig{
		User: h.user.Name,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(h.ca.Login(t, clock.Now(), func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} }))},
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error {
			exchanges.Add(1)
			return nil
		},
	})
	require.NoError(t, err)
	client := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { client.Close() })
	require.EqualValues(t, 1, exchanges.Load())

	shell := newSession(t, client)
	require.NoError(t, shell.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}))
	stdin, err := shell.StdinPipe()
	require.NoError(t, err)
	stdout, err := shell.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, shell.Start("echo ready; while read -r line; do echo \"<$line>\"; done"))
	read(t, stdout, "ready")

	upload := newSession(t, client)
	in, out := io.Pipe()
	sent, received := sha256.New(), sha256.New()
	upload.Stdin, upload.Stdout = in, received
	require.NoError(t, upload.Start("exec cat"))
	stop := make(chan struct{})
	wrote := make(chan error, 1)
	go func() {
		block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for i := 0; ; i++ {
			select {
			case <-stop:
				wrote <- out.Close()
				return
			default:
			}
			copy(block, strconv.Itoa(i))
			sent.Write(block)
			if _, err := out.Write(block); err != nil {
				wrote <- err
				return
			}
		}
	}()
	for want := int32(2); want < 6; want++ {
		require.NoError(t, clock.BlockUntilContext(t.Context(), 1))
		clock.Advance(time.Hour)
		eventually(t, func() bool { return exchanges.Load() == want }, "key exchange %d", want)
		_, err := io.WriteString(stdin, "key "+strconv.Itoa(int(want))+"\n")
		require.NoError(t, err)
		read(t, stdout, "<key "+strconv.Itoa(int(want))+">")
	}
	close(stop)
	require.NoError(t, <-wrote)
	within(t, "the upload ends", func() { require.NoError(t, upload.Wait()) })
	require.Equal(t, sent.Sum(nil), received.Sum(nil))
	require.Empty(t, h.lines())
}

// TestBannerIsShown before anybody has logged in, and to those who never do.
func TestBannerIsShown(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("Keep öut! ", 6000)
	h := newHost(t, func(c *node.Config) { c.Banner = func() string { return long } })
	for name, auth := range map[string][]ssh.AuthMethod{
		"let in":  {ssh.PublicKeys(h.ca.Login(t, time.Now(), func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} }))},
		"refused": nil,
	} {
		var parts []string
		client, err := ssh.Dial("tcp", h.addr, &ssh.ClientConfig{
			User: h.user.Name, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			BannerCallback: func(message string) error {
				parts = append(parts, message)
				return nil
			},
		})
		if err == nil {
			client.Close()
		}
		require.Equal(t, auth != nil, err == nil, name)
		require.Equal(t, long, strings.Join(parts, ""), name)
		for _, part := range parts {
			require.LessOrEqual(t, len(part), 32768-100, "clients need not take longer packets")
			require.Equal(t, part, strings.ToValidUTF8(part, "?"), "cut between letters")
		}
	}
}

// TestKeepAliveOfDeadRekey: a client that is gone in the middle of an exchange of
// keys is found out as any other.
func TestKeepAliveOfDeadRekey(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClockAt(time.Now())
	h := newFastHost(t, func(c *node.Config) { c.Clock, c.KeepAliveInterval = clock, time.Hour })
	server, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	conn := &frozen{Conn: server, thaw: make(chan struct{})}
	c, channels, requests, err := ssh.NewClientConn(conn, h.addr, &ssh.ClientConfig{
		User:            h.user.Name,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(h.ca.Login(t, clock.Now(), func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} }))},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.NoError(t, err)
	client := ssh.NewClient(c, channels, requests)
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout)
	conn.isFrozen.Store(true)
	t.Cleanup(func() {
		close(conn.thaw)
		client.Close()
	})
	eventually(t, func() bool {
		clock.Advance(10 * time.Minute)
		for _, line := range h.lines() {
			if strings.Contains(line, "The client has not answered") {
				return true
			}
		}
		return false
	}, "the client is given up")
}

// frozen is a connection whose client stops reading at some time.
type frozen struct {
	net.Conn
	isFrozen atomic.Bool
	thaw     chan struct{}
}

func (f *frozen) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if f.isFrozen.Load() && err == nil {
		<-f.thaw
		return 0, errors.New("thawed")
	}
	return n, err
}

// TestRekeyOpenSSH: OpenSSH's client follows when the server asks for new keys by
// the clock, in the middle of data both ways.
func TestRekeyOpenSSH(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ssh"); err != nil {
		testhost.Skip(t, "needs OpenSSH's client: %v", err)
	}
	h := newFastHost(t, func(c *node.Config) { c.RekeyInterval = 200 * time.Millisecond })
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	identity := filepath.Join(t.TempDir(), "id")
	require.NoError(t, os.WriteFile(identity, pem.EncodeToMemory(block), 0o600))
	cert := h.ca.Certificate(t, key, time.Now(), func(c *ssh.Certificate) { c.ValidPrincipals = []string{h.user.Name} })
	require.NoError(t, os.WriteFile(identity+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600))

	host, port, err := net.SplitHostPort(h.addr)
	require.NoError(t, err)
	cmd := exec.Command("ssh", "-v", "-F", "none", "-p", port, "-i", identity, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null", h.user.Name+"@"+host, "cat")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	sent, received := sha256.New(), sha256.New()
	var log lockedBuffer
	cmd.Stdout, cmd.Stderr = received, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	block64 := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	eventually(t, func() bool {
		for range 16 {
			sent.Write(block64)
			if _, err := stdin.Write(block64); err != nil {
				return true
			}
		}
		return strings.Count(log.String(), "SSH2_MSG_KEXINIT received") >= 5
	}, "five exchanges of keys")
	require.NoError(t, stdin.Close())
	within(t, "ssh ends", func() { require.NoError(t, cmd.Wait(), log.String()) })
	require.Equal(t, sent.Sum(nil), received.Sum(nil))
	require.Empty(t, h.lines())
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
