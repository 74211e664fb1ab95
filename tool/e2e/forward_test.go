// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/testhost"
	"teleport-auditd/tool/e2e/harness"
)

// TestForward is what OpenSSH's client and PuTTY's forward, directly and through
// the proxy, and whose the sockets are.
func TestForward(t *testing.T) {
	harness.NeedPrograms(t, "ssh", "ss", "ssh-agent", "ssh-add")
	w := newWorld(t, worldConfig{})
	key := w.daemon.Sign("alice", w.bob.Name)
	client := harness.NewClient(t, w.daemon, key)
	putty := harness.NewPutty(t, w.daemon, key)
	plink := func(route harness.Route, args []string) *exec.Cmd {
		return putty.Command("plink", route, w.bob.Name, append(args, putty.Target(w.bob.Name))...)
	}
	// The first rule that matches names the records, so there is one for all.
	w.audit.Rule("always,exit", "-F", "arch=b64", "-S", "connect", "-F", "auid="+w.bob.ID(), "-k", connectKey)
	for _, side := range []struct {
		name string
		tunnels
	}{
		{"ssh", tunnels{w, func(args ...string) *exec.Cmd {
			return client.Command(append(args, w.bob.Name+"@node")...)
		}}},
		{"ssh through the proxy", tunnels{w, func(args ...string) *exec.Cmd {
			return client.Command(append(append([]string{"-J", w.bob.Name + "@proxy"}, args...), w.bob.Name+"@byname")...)
		}}},
		{"plink", tunnels{w, func(args ...string) *exec.Cmd { return plink(harness.Direct, args) }}},
		{"plink through the proxy", tunnels{w, func(args ...string) *exec.Cmd { return plink(harness.ByProxy, args) }}},
	} {
		t.Run(side.name, func(t *testing.T) {
			t.Run("local", side.local)
			t.Run("dynamic", side.dynamic)
			t.Run("remote", side.remote)
			t.Run("nothing", side.nothing)
			if strings.HasPrefix(side.name, "ssh") {
				t.Run("any remote port, and cancel", side.anyPort)
				t.Run("unix sockets", side.unixSockets)
				t.Run("standard streams", side.streams)
				t.Run("privileged port", side.privileged)
				t.Run("agent", side.agent)
				t.Run("refused by the other side", side.refused)
				t.Run("X11", side.x11)
			} else {
				t.Run("PuTTY's agent", side.puttyAgent)
			}
		})
	}
	assert.NotContains(t, w.daemon.Log(), "panic")
	harness.WaitFor(t, waitLimit, "every process of the user to end", func() bool { return len(w.bob.Processes()) == 0 })
}

// TestForwardRefused: what a certificate does not permit is no login, and what PAM
// refuses is told.
func TestForwardRefused(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca})
	path := filepath.Join(harness.OpenDir(t), "id")
	ca.Sign(t, harness.Cert{KeyID: "alice", Logins: []string{w.bob.Name}, Extensions: map[string]string{"permit-pty": ""}}).Write(t, path)
	client := harness.NewClient(t, w.daemon, path)
	mark := w.audit.Fence()
	result := client.Run("-W", "127.0.0.1:1", w.bob.Name+"@node")
	assert.Contains(t, result.Stderr, "administratively prohibited: the certificate does not permit forwarding (permit-port-forwarding)")
	result = client.Run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", w.bob.Name+"@node")
	assert.Contains(t, result.Stderr, "remote port forwarding failed")
	w.audit.Fence()
	assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))))
	assert.Equal(t, 2, strings.Count(w.daemon.Log(), "Forwarding is refused"), "once a connection")
}

// TestForwardOff: a file that says port_forwarding: no refuses ports and sockets,
// and nothing else.
func TestForwardOff(t *testing.T) {
	harness.NeedPrograms(t, "ssh-agent", "ssh-add")
	w := newWorld(t, worldConfig{daemon: harness.DaemonConfig{SSH: []string{"port_forwarding: no"}}})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	s := tunnels{w, func(args ...string) *exec.Cmd { return client.Command(append(args, w.bob.Name+"@node")...) }}
	target := newServer(t, "tcp4", "127.0.0.1:0")
	mark := s.mark(t)
	entry := harness.FreeAddr(t)
	local := launch(t, s.command("-N", "-L", entry+":"+target.Addr().String()))
	_, err := dialSoon(t, "tcp4", entry).Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	local.errors.wait(t, "administratively prohibited: this node forwards no connections (port_forwarding)")
	local.end()
	result := client.Run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:"+target.Addr().String(), w.bob.Name+"@node")
	assert.Contains(t, result.Stderr, "remote port forwarding failed")
	assert.Empty(t, target.visitors)
	w.audit.Fence()
	assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))))
	assert.Equal(t, 2, strings.Count(w.daemon.Log(), "Forwarding is refused"), "once a connection")
	t.Run("agent", s.agent)
	t.Run("X11", s.x11)
}

// TestForwardGateway: -R listens where the file's gateway_ports lets it.
func TestForwardGateway(t *testing.T) {
	// All of 127.0.0.0/8 is the loopback's: the second address is one that only
	// who listens everywhere, or there, answers at.
	const first, second = "127.0.0.1", "127.0.0.2"
	for _, mode := range []struct {
		name string
		// answers says where, by what the client asks for.
		answers map[string][]string
	}{
		{"no", map[string][]string{"": {first}, "*:": {first}, second + ":": {first}}},
		{"yes", map[string][]string{"": {first, second}, "*:": {first, second}, second + ":": {first, second}}},
		{"clientspecified", map[string][]string{"": {first}, "*:": {first, second}, second + ":": {second}}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			w := newWorld(t, worldConfig{noAudit: true, daemon: harness.DaemonConfig{SSH: []string{"gateway_ports: " + mode.name}}})
			client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
			target := newServer(t, "tcp4", first+":0")
			for asked, want := range mode.answers {
				run := launch(t, client.Command("-N", "-R", asked+"0:"+target.Addr().String(), w.bob.Name+"@node"))
				port := allocatedPort(t, run)
				var answers []string
				for _, host := range []string{first, second} {
					if conn, err := net.Dial("tcp4", net.JoinHostPort(host, port)); err == nil {
						require.NoError(t, conn.SetDeadline(time.Now().Add(waitLimit)))
						sendsBack(t, conn)
						conn.Close()
						answers = append(answers, host)
					}
				}
				assert.Equal(t, want, answers, "-R %s0", asked)
				run.end()
			}
		})
	}
}

// allocatedPort returns what the client's -R with port 0 was given.
func allocatedPort(t *testing.T, client *running) (port string) {
	t.Helper()
	allocated := regexp.MustCompile(`Allocated port (\d+) for remote forward`)
	harness.WaitFor(t, waitLimit, "a port", func() bool {
		if m := allocated.FindStringSubmatch(client.errors.text()); m != nil {
			port = m[1]
		}
		return port != ""
	})
	return port
}

// TestForwardPAM: a login that only forwards goes through PAM.
func TestForwardPAM(t *testing.T) {
	t.Run("agrees", func(t *testing.T) {
		w := newWorld(t, worldConfig{pam: "login"})
		client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
		s := tunnels{w, func(args ...string) *exec.Cmd { return client.Command(append(args, w.bob.Name+"@node")...) }}
		mark := s.mark(t)
		target := newServer(t, "tcp4", "127.0.0.1:0")
		run := launch(t, s.command("-W", target.Addr().String()))
		require.NoError(t, run.stdin.Close())
		run.wait()
		s.oneLogin(t, mark)
		var types []string
		for _, r := range w.ours(w.audit.Since(mark)) {
			types = append(types, r.Type)
		}
		assert.Equal(t, []string{"USER_ACCT", "CRED_ACQ", "LOGIN", "USER_START", "USER_LOGIN", "USER_END", "USER_END", "CRED_DISP"},
			slices.DeleteFunc(types, func(s string) bool { return s == "SYSCALL" || s == "PROCTITLE" }))
	})
	t.Run("refuses", func(t *testing.T) {
		w := newWorld(t, worldConfig{pam: "deny-account"})
		client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
		mark := w.audit.Fence()
		result := client.Run("-W", "127.0.0.1:1", w.bob.Name+"@node")
		assert.Contains(t, result.Stderr, "administratively prohibited: ")
		assert.Contains(t, result.Stderr, "This host refused the login.")
		records := own(w.collect(mark, 2))
		require.Len(t, records, 2, harness.Show(records))
		for _, r := range records {
			assert.Equal(t, "failed", r.Get("res"), r.String())
		}
	})
}

// connectKey names the records of connect(2).
const connectKey = "e2e-forward"

// tunnels is one client on one way to the node.
type tunnels struct {
	world *world
	// command returns a command that logs in.
	command func(args ...string) *exec.Cmd
}

// running is a client that has been started.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	said   *screen
	errors *screen
	ended  chan struct{}
}

func launch(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{t: t, cmd: cmd, said: &screen{}, errors: &screen{}, ended: make(chan struct{})}
	var err error
	r.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() {
		defer close(r.ended)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.errors.follow(stderr)
		}()
		r.said.follow(stdout)
		<-done
		_ = cmd.Wait()
	}()
	t.Cleanup(r.end)
	return r
}

// end ends the client, and waits for it.
func (r *running) end() {
	// ssh looks for a signal and then waits for packets: one that comes between the
	// two it misses.
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-r.ended:
			return
		case <-time.After(time.Second):
		}
	}
	r.wait()
}

// wait waits until the client has ended by itself.
func (r *running) wait() {
	select {
	case <-r.ended:
	case <-time.After(waitLimit):
		_ = r.cmd.Process.Kill()
		r.t.Errorf("the client has not ended within %v; it said:\n%s", waitLimit, r.errors.text())
	}
}

// server sends back what it gets, and tells who has come.
type server struct {
	net.Listener
	visitors chan net.Conn
}

func newServer(t *testing.T, network, addr string) *server {
	t.Helper()
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	s := &server{Listener: l, visitors: make(chan net.Conn, 1000)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.visitors <- conn
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
		}
	}()
	return s
}

// visitor returns who has come last.
func (s *server) visitor(t *testing.T) net.Conn {
	t.Helper()
	select {
	case conn := <-s.visitors:
		t.Cleanup(func() { conn.Close() })
		return conn
	case <-time.After(waitLimit):
		t.Fatal("nobody has come")
		return nil
	}
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}

// dialSoon connects as soon as somebody listens.
func dialSoon(t *testing.T, network, addr string) (conn net.Conn) {
	t.Helper()
	var err error
	if !harness.Eventually(waitLimit, func() bool {
		conn, err = net.Dial(network, addr)
		return err == nil
	}) {
		t.Fatalf("nobody listens: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

// sendsBack wants what it sends to come back, to the end of it.
func sendsBack(t *testing.T, conn net.Conn) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 20000)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got), "%d of %d bytes came back", len(got), len(sent))
}

// socketUID returns whose a TCP socket is, by its own port and its state, as
// /proc/net/tcp has it.
func socketUID(t *testing.T, port, state string) (uid string) {
	t.Helper()
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	if !harness.Eventually(waitLimit, func() bool {
		text, err := os.ReadFile("/proc/net/tcp")
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 7 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) && f[3] == state {
				uid = f[7]
				return true
			}
		}
		return false
	}) {
		t.Fatalf("there is no socket of port %s in state %s", port, state)
	}
	return uid
}

const (
	stateEstablished = "01"
	stateListen      = "0A"
)

// mark is a place in the log after the last login's end.
func (s tunnels) mark(t *testing.T) harness.Mark {
	t.Helper()
	harness.WaitFor(t, waitLimit, "the logins before to end", func() bool { return len(s.world.daemon.Sessions()) == 0 })
	return s.world.audit.Fence()
}

// oneLogin wants exactly one login and its end since the mark, and returns its
// audit session.
func (s tunnels) oneLogin(t *testing.T, mark harness.Mark) (ses string) {
	t.Helper()
	records := own(s.world.collect(mark, 2))
	require.Len(t, records, 2, harness.Show(records))
	assert.Equal(t, "USER_LOGIN", records[0].Type)
	assert.Equal(t, "USER_END", records[1].Type)
	for _, r := range records {
		assert.Equal(t, "success", r.Get("res"), r.String())
		assert.Equal(t, s.world.bob.ID(), r.Kernel["auid"], r.String())
		assert.Equal(t, records[0].Kernel["ses"], r.Kernel["ses"])
	}
	return records[0].Kernel["ses"]
}

// local is -L: the socket is the user's, and so is its connect(2).
func (s tunnels) local(t *testing.T) {
	w := s.world
	mark := s.mark(t)
	target := newServer(t, "tcp4", "127.0.0.1:0")
	entry := harness.FreeAddr(t)
	client := launch(t, s.command("-N", "-L", entry+":"+target.Addr().String()))
	conn := dialSoon(t, "tcp4", entry)
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	visitor := target.visitor(t)
	port := portOf(t, visitor.RemoteAddr().String())
	assert.Equal(t, w.bob.ID(), socketUID(t, port, stateEstablished), "/proc/net/tcp")
	// The line of the socket of that port of its own.
	ss := harness.Output(t, "ss", "-tnpeH", "sport", "=", ":"+port)
	assert.Contains(t, ss, " uid:"+w.bob.ID()+" ", "ss -tnpe")
	b := make([]byte, 1)
	_, err = io.ReadFull(conn, b)
	require.NoError(t, err)
	sendsBack(t, conn)
	sendsBack(t, dialSoon(t, "tcp4", entry))
	client.end()

	ses := s.oneLogin(t, mark)
	var calls []harness.Record
	for _, r := range w.audit.Since(mark) {
		if r.Type == "SYSCALL" && r.Kernel["key"] == connectKey && r.Kernel["exe"] == programs.User {
			calls = append(calls, r)
		}
	}
	require.NotEmpty(t, calls, "the kernel has recorded connect(2)")
	for _, r := range calls {
		assert.Equal(t, ses, r.Kernel["ses"], r.String())
		assert.Equal(t, w.bob.ID(), r.Kernel["auid"], r.String())
		assert.Equal(t, w.bob.ID(), r.Kernel["uid"], r.String())
	}
	assert.Contains(t, w.audit.Search("-k", connectKey, "--session", ses, "-sc", "connect", "-i"), "laddr=127.0.0.1", "ausearch finds it by the session")
}

// dynamic is -D.
func (s tunnels) dynamic(t *testing.T) {
	target := newServer(t, "tcp4", "127.0.0.1:0")
	entry := harness.FreeAddr(t)
	launch(t, s.command("-N", "-D", entry))
	number, err := strconv.Atoi(portOf(t, target.Addr().String()))
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		conn := dialSoon(t, "tcp4", entry)
		// SOCKS 5, without authentication, connecting to a name (RFC 1928).
		_, err := conn.Write([]byte{5, 1, 0})
		require.NoError(t, err)
		answer := make([]byte, 2)
		_, err = io.ReadFull(conn, answer)
		require.NoError(t, err)
		require.Equal(t, []byte{5, 0}, answer)
		request := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
		_, err = conn.Write(binary.BigEndian.AppendUint16(request, uint16(number)))
		require.NoError(t, err)
		answer = make([]byte, 10)
		_, err = io.ReadFull(conn, answer)
		require.NoError(t, err)
		require.Zero(t, answer[1], "SOCKS succeeds")
		sendsBack(t, conn)
	}
}

// remote is -R with a port that is asked for.
func (s tunnels) remote(t *testing.T) {
	mark := s.mark(t)
	target := newServer(t, "tcp4", "127.0.0.1:0")
	entry := harness.FreeAddr(t)
	port := portOf(t, entry)
	client := launch(t, s.command("-N", "-R", port+":"+target.Addr().String()))
	conn := dialSoon(t, "tcp4", entry)
	assert.Equal(t, s.world.bob.ID(), socketUID(t, port, stateListen), "whose the listening socket is")
	assert.Equal(t, s.world.bob.ID(), socketUID(t, port, stateEstablished), "whose the accepted one is")
	sendsBack(t, conn)
	sendsBack(t, dialSoon(t, "tcp6", "[::1]:"+port))
	// Somebody else's port is not had.
	if strings.HasSuffix(s.command().Path, "ssh") {
		again := launch(t, s.command("-N", "-o", "ExitOnForwardFailure=yes", "-R", port+":"+target.Addr().String()))
		again.wait()
		assert.Contains(t, again.errors.text(), "remote port forwarding failed for listen port "+port)
		client.end()
		assert.Len(t, own(s.world.collect(mark, 4)), 4)
	} else {
		client.end()
		s.oneLogin(t, mark)
	}
	harness.WaitFor(t, waitLimit, "the port to be closed", func() bool {
		conn, err := net.Dial("tcp4", entry)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// nothing is -N alone, which is no login.
func (s tunnels) nothing(t *testing.T) {
	w := s.world
	mark := s.mark(t)
	before := strings.Count(w.daemon.Log(), "has authenticated")
	client := launch(t, s.command("-N"))
	harness.WaitFor(t, waitLimit, "the client to be let in", func() bool { return strings.Count(w.daemon.Log(), "has authenticated") > before })
	client.end()
	w.audit.Fence()
	assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))))
}

// anyPort is -R with port 0, and ssh -O forward and cancel.
func (s tunnels) anyPort(t *testing.T) {
	mark := s.mark(t)
	target := newServer(t, "tcp4", "127.0.0.1:0")
	control := filepath.Join(harness.OpenDir(t), "control")
	master := launch(t, s.command("-N", "-M", "-S", control, "-R", "0:"+target.Addr().String()))
	port := allocatedPort(t, master)
	sendsBack(t, dialSoon(t, "tcp4", "127.0.0.1:"+port))

	operate := func(args ...string) string {
		t.Helper()
		cmd := s.command(append([]string{"-S", control}, args...)...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
		return string(out)
	}
	second := harness.FreeAddr(t)
	spec := second + ":" + target.Addr().String()
	operate("-O", "forward", "-R", spec)
	open := dialSoon(t, "tcp4", second)
	_, err := open.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(open, make([]byte, 1))
	require.NoError(t, err)
	operate("-O", "cancel", "-R", spec)
	harness.WaitFor(t, waitLimit, "the cancelled port to be closed", func() bool {
		conn, err := net.Dial("tcp4", second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	sendsBack(t, open)
	l, err := net.Listen("tcp4", second)
	require.NoError(t, err, "and free")
	require.NoError(t, l.Close())
	sendsBack(t, dialSoon(t, "tcp4", "127.0.0.1:"+port))

	entry := harness.FreeAddr(t)
	operate("-O", "forward", "-L", entry+":"+target.Addr().String())
	sendsBack(t, dialSoon(t, "tcp4", entry))
	shell := launch(t, s.command("-S", control, "-T"))
	_, err = io.WriteString(shell.stdin, "echo beside it\n")
	require.NoError(t, err)
	shell.said.wait(t, "beside it\n")
	operate("-O", "exit")
	master.wait()
	s.oneLogin(t, mark)
}

// unixSockets are -L and -R with paths: the sockets are the user's, for the user
// alone, and who looks sees the user (SO_PEERCRED).
func (s tunnels) unixSockets(t *testing.T) {
	bob := s.world.bob
	dir := harness.OpenDir(t)
	require.NoError(t, os.Chmod(dir, 0o777))
	path := func(name string) string { return filepath.Join(dir, name) }
	target := newServer(t, "unix", path("target"))
	require.NoError(t, os.Chmod(path("target"), 0o777))
	taken := path("taken")
	require.NoError(t, os.WriteFile(taken, []byte("precious"), 0o666))

	client := launch(t, s.command("-N", "-L", path("local")+":"+path("target"), "-R", path("remote")+":"+path("target"), "-R", taken+":"+path("target")))
	conn := dialSoon(t, "unix", path("local"))
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	raw, err := target.visitor(t).(*net.UnixConn).SyscallConn()
	require.NoError(t, err)
	var cred *unix.Ucred
	require.NoError(t, raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }))
	require.NoError(t, err)
	assert.Equal(t, bob.UID, cred.Uid, "SO_PEERCRED")
	assert.Equal(t, bob.GID, cred.Gid, "SO_PEERCRED")
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err)
	sendsBack(t, conn)

	sendsBack(t, dialSoon(t, "unix", path("remote")))
	info, err := os.Stat(path("remote"))
	require.NoError(t, err)
	assert.Equal(t, bob.UID, info.Sys().(*syscall.Stat_t).Uid)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(taken)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(text), "a file is not replaced by a socket")
	client.errors.wait(t, "remote port forwarding failed for listen path "+taken)
	client.end()
	harness.WaitFor(t, waitLimit, "the socket to be removed", func() bool {
		_, err := os.Lstat(path("remote"))
		return os.IsNotExist(err)
	})
}

// streams is -W.
func (s tunnels) streams(t *testing.T) {
	mark := s.mark(t)
	target := newServer(t, "tcp4", "127.0.0.1:0")
	client := launch(t, s.command("-W", target.Addr().String()))
	_, err := io.WriteString(client.stdin, "through\n")
	require.NoError(t, err)
	client.said.wait(t, "through\n")
	require.NoError(t, client.stdin.Close())
	client.wait()
	assert.Zero(t, client.cmd.ProcessState.ExitCode())
	s.oneLogin(t, mark)
}

// privileged is a port that the kernel gives to root alone.
func (s tunnels) privileged(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	require.NoError(t, err)
	const port = "7"
	if first, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || first <= 7 {
		testhost.Skip(t, "on this host every user may have port %s (net.ipv4.ip_unprivileged_port_start is %s)", port, text)
	}
	client := launch(t, s.command("-N", "-o", "ExitOnForwardFailure=yes", "-R", port+":127.0.0.1:1"))
	client.wait()
	assert.NotZero(t, client.cmd.ProcessState.ExitCode())
	assert.Contains(t, client.errors.text(), "remote port forwarding failed for listen port "+port)
	harness.WaitFor(t, waitLimit, "the log to say why", func() bool {
		return strings.Contains(s.world.daemon.Log(), "The client's socket does not listen: Permission denied.")
	})
}

// startAgent starts an agent with a key, and returns its socket.
func startAgent(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(harness.OpenDir(t), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, agent.Start())
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	dialSoon(t, "unix", socket).Close()
	key := harness.PlainKey(t).Write(t, filepath.Join(harness.OpenDir(t), "key"))
	add := exec.Command("ssh-add", "-q", key)
	add.Env = []string{"PATH=" + os.Getenv("PATH"), "SSH_AUTH_SOCK=" + socket}
	out, err := add.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return socket
}

// agent is -A: a socket of the user's that nobody else may enter.
func (s tunnels) agent(t *testing.T) {
	w := s.world
	socket := startAgent(t)
	const look = "tty; ssh-add -l; echo sock=$SSH_AUTH_SOCK; stat -c '%U %a' $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK); cat /proc/self/sessionid; echo; "
	for _, test := range []struct{ option, tty string }{{"-T", "teleport"}, {"-tt", "/dev/pts/"}} {
		mark := s.mark(t)
		client := launch(t, s.command("-A", "-o", "IdentityAgent="+socket, test.option))
		_, err := io.WriteString(client.stdin, look+"exit\n")
		require.NoError(t, err)
		client.wait()
		said := strings.ReplaceAll(client.said.text(), "\r", "")
		assert.Contains(t, said, "(ED25519)", "ssh-add -l on the node: %s", client.errors.text())
		assert.Contains(t, said, "\n"+w.bob.Name+" 600\n"+w.bob.Name+" 700\n")
		path := regexp.MustCompile(`(?m)^sock=(/tmp/ssh-[^/]+)/agent\.\d+$`).FindStringSubmatch(said)
		require.NotNil(t, path, said)
		harness.WaitFor(t, waitLimit, "the agent's folder to be removed", func() bool {
			_, err := os.Lstat(path[1])
			return os.IsNotExist(err)
		})
		ses := s.oneLogin(t, mark)
		assert.Contains(t, said, "\n"+ses+"\n")
		for _, r := range own(w.ours(w.audit.Since(mark))) {
			assert.Contains(t, r.Get("terminal"), test.tty, "the records name the terminal, though the agent's socket came first")
		}
	}
}

// refused is what the client says where nobody listens.
func (s tunnels) refused(t *testing.T) {
	for target, want := range map[string]string{
		harness.FreeAddr(t):             "open failed: connect failed: Connection refused",
		"no-such-host.invalid:1":        "open failed: connect failed: (Name or service not known|Temporary failure in name resolution)",
		"127.0.0.1:0":                   "(Bad|bad) ",
		"[2001:db8::1%nothing]:1":       "open failed: connect failed: ",
		strings.Repeat("x", 300) + ":1": "open failed: connect failed: the host's name is too long",
	} {
		client := launch(t, s.command("-W", target))
		client.wait()
		assert.Regexp(t, want, client.errors.text(), target)
	}
}

// x11 is refused in one line of the log.
func (s tunnels) x11(t *testing.T) {
	before := len(s.world.daemon.Log())
	cmd := s.command("-X", "-T")
	cmd.Env = append(cmd.Env, "DISPLAY=127.0.0.1:77")
	client := launch(t, cmd)
	_, err := io.WriteString(client.stdin, "echo display=$DISPLAY\nexit\n")
	require.NoError(t, err)
	client.wait()
	client.said.wait(t, "display=\n")
	assert.Equal(t, 1, strings.Count(s.world.daemon.Log()[before:], "X11 forwarding is refused"), client.errors.text())
}

// puttyAgent is PuTTY's client, which wants an answer.
func (s tunnels) puttyAgent(t *testing.T) {
	mark := s.mark(t)
	target := newServer(t, "tcp4", "127.0.0.1:0")
	entry := harness.FreeAddr(t)
	cmd := s.command("-A", "-L", entry+":"+target.Addr().String())
	cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+startAgent(t))
	client := launch(t, cmd)
	_, err := io.WriteString(client.stdin, "ssh-add -l; echo sock=$SSH_AUTH_SOCK\n")
	require.NoError(t, err)
	client.said.wait(t, "(ED25519)")
	client.said.wait(t, "sock=/tmp/ssh-")
	sendsBack(t, dialSoon(t, "tcp4", entry))
	_, err = io.WriteString(client.stdin, "exit\n")
	require.NoError(t, err)
	client.wait()
	s.oneLogin(t, mark)
}
