// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/srv/session/sessiontest"
)

// echo is a server that sends back what it gets, to the end of it.
func echo(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l
}

// closeWriter is a connection whose two directions end by themselves.
type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// roundTrip sends something, ends its direction, and wants it back.
func roundTrip(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	within(t, "what was sent comes back", func() {
		var back same
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(conn, &pattern{size: size})
			if err == nil {
				err = conn.(closeWriter).CloseWrite()
			}
			done <- err
		}()
		_, err := io.Copy(&back, conn)
		require.NoError(t, err)
		require.NoError(t, <-done)
		require.Equal(t, same{at: size}, back)
	})
}

// count counts a line of the log.
func (h *host) count(message string) (n int) {
	for _, entry := range h.log.AllEntries() {
		if entry.Message == message {
			n++
		}
	}
	return n
}

// logins counts what the log has of logins.
func (h *host) logins() int { return h.count("Login.") }

func rejected(t *testing.T, err error) *ssh.OpenChannelError {
	t.Helper()
	var refused *ssh.OpenChannelError
	require.ErrorAs(t, err, &refused)
	return refused
}

func TestDirect(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	tcp := echo(t, "tcp", "127.0.0.1:0")
	path := filepath.Join(writable(t), "socket")
	echo(t, "unix", path)
	require.NoError(t, os.Chmod(path, 0o777))
	for _, size := range []int{0, 1, 1024, 1 << 15, 5 << 20} {
		conn, err := client.Dial("tcp", tcp.Addr().String())
		require.NoError(t, err)
		roundTrip(t, conn, size)
		_ = conn.Close()
		conn, err = client.Dial("unix", path)
		require.NoError(t, err)
		roundTrip(t, conn, size)
		_ = conn.Close()
	}
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	require.NoError(t, err)
	conn, err := client.Dial("tcp", "localhost:"+port)
	require.NoError(t, err)
	roundTrip(t, conn, 100)
	require.Equal(t, 1, h.logins(), "one connection is one login")
	require.Empty(t, h.lines())
}

// hostPort is the client's request for a port.
type hostPort struct {
	Address string
	Port    uint32
}

// direct is the client's request for a connection.
type direct struct {
	Host       string
	Port       uint32
	Originator string
	OriginPort uint32
}

// TestDirectRefused: what cannot be connected is told in the client's words, and
// what is not allowed is no login.
func TestDirectRefused(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := uint32(free.Addr().(*net.TCPAddr).Port)
	require.NoError(t, free.Close())
	dir := writable(t)
	for _, test := range []struct {
		kind    string
		payload any
		want    string
	}{
		{"direct-tcpip", direct{"127.0.0.1", 0, "", 0}, "there is no such port"},
		{"direct-tcpip", direct{"127.0.0.1", 1 << 16, "", 0}, "there is no such port"},
		{"direct-tcpip", direct{"", 22, "", 0}, "no host is named"},
		{"direct-tcpip", direct{strings.Repeat("x", 256), 22, "", 0}, "the host's name is too long"},
		{"direct-tcpip", direct{"localhost\x00", 22, "", 0}, "the host's name has a control character in it"},
		{"direct-tcpip", text{"x"}, "the request for a connection is malformed"},
		{"direct-streamlocal@openssh.com", text{"x"}, "the request for a connection is malformed"},
		{"direct-streamlocal@openssh.com", direct{"", 0, "", 0}, "the request for a connection is malformed"},
	} {
		_, _, err := client.OpenChannel(test.kind, ssh.Marshal(test.payload))
		refused := rejected(t, err)
		require.Equal(t, ssh.ConnectionFailed, refused.Reason)
		require.Equal(t, test.want, refused.Message)
	}
	type local struct {
		Path, Reserved string
		Reserved32     uint32
	}
	for path, want := range map[string]string{
		"":                       "no path is named",
		"\x00abstract":           "the socket's path has a NUL in it",
		strings.Repeat("x", 108): "the socket's path is too long",
	} {
		_, _, err := client.OpenChannel("direct-streamlocal@openssh.com", ssh.Marshal(local{path, "", 0}))
		require.Equal(t, want, rejected(t, err).Message)
	}
	require.Zero(t, h.logins(), "none of that can be, so nobody has logged in")

	_, _, err = client.OpenChannel("direct-tcpip", ssh.Marshal(direct{"127.0.0.1", port, "", 0}))
	require.Equal(t, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Connection refused"}, rejected(t, err))
	_, err = client.Dial("tcp", "no-such-host.invalid:1")
	require.Regexp(t, "Name or service not known|Temporary failure in name resolution", err.Error())
	for path, want := range map[string]string{
		filepath.Join(dir, "nothing"): "No such file or directory",
		"@teleport-test":              "No such file or directory",
		dir:                           "Connection refused",
	} {
		_, err := client.Dial("unix", path)
		require.Equal(t, want, rejected(t, err).Message, path)
	}
	require.Equal(t, 1, h.logins())

	// What may not be forwarded is no login either.
	for _, client := range []*ssh.Client{
		h.login(func(c *ssh.Certificate) { delete(c.Extensions, "permit-port-forwarding") }),
		newFastHost(t, func(c *node.Config) { c.RefuseForwarding = true }).login(),
	} {
		for range 3 {
			_, err := client.Dial("tcp", "127.0.0.1:1")
			require.Equal(t, ssh.Prohibited, rejected(t, err).Reason)
			require.Regexp(t, "permit-port-forwarding|port_forwarding", rejected(t, err).Message)
			_, err = client.Dial("unix", "/x")
			require.Equal(t, ssh.Prohibited, rejected(t, err).Reason)
			_, err = client.Listen("tcp", "127.0.0.1:0")
			require.Error(t, err)
			_, err = client.ListenUnix(dir + "/never")
			require.Error(t, err)
		}
	}
	require.Equal(t, 1, h.logins())
	require.Len(t, h.lines(), 1, "one line, however often it is tried")
	require.Contains(t, h.lines()[0], "Forwarding is refused: the certificate does not permit forwarding")
}

// TestLoginRefused: the reason of a login's refusal reaches who forwards.
func TestForwardLoginRefused(t *testing.T) {
	service := sessiontest.NewPAMService(t,
		"account required pam_echo.so The host is closed for today.",
		"account required pam_deny.so",
	)
	h := newUserHost(t, func(c *node.Config) { c.PAM = node.PAM{Enabled: true, ServiceName: service} })
	for range 20 {
		client := h.login()
		_, err := client.Dial("tcp", "127.0.0.1:1")
		require.Equal(t, &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: "The host is closed for today. This host refused the login."}, rejected(t, err))
		closes(t, client)
	}
	require.Empty(t, h.events.Events(), "teleport-session has recorded it")
}

func TestRemote(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	serve := func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.(closeWriter).CloseWrite()
			}()
		}
	}
	dir := writable(t)
	path := filepath.Join(dir, "s")
	tcp, err := client.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go serve(tcp)
	local, err := client.ListenUnix(path)
	require.NoError(t, err)
	go serve(local)
	for _, addr := range []net.Addr{tcp.Addr(), local.Addr()} {
		for _, size := range []int{0, 1, 3 << 20} {
			conn, err := net.Dial(addr.Network(), addr.String())
			require.NoError(t, err)
			roundTrip(t, conn, size)
			require.NoError(t, conn.Close())
		}
	}
	_, err = client.Listen("tcp", tcp.Addr().String())
	require.Error(t, err, "it is taken")
	_, err = client.ListenUnix(path)
	require.Error(t, err, "it is taken")
	held, err := net.Dial("tcp", tcp.Addr().String())
	require.NoError(t, err)
	_, err = held.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(held, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, tcp.Close())
	_, err = net.Dial("tcp", tcp.Addr().String())
	require.Error(t, err, "a cancelled port is closed at once")
	_, err = os.Lstat(path)
	require.NoError(t, err)
	require.NoError(t, local.Close())
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	roundTrip(t, held, 1<<20)

	again, err := client.Listen("tcp", tcp.Addr().String())
	require.NoError(t, err, "and free")
	other, err := client.ListenUnix(path)
	require.NoError(t, err)
	_ = other
	ok, _, err := client.SendRequest("cancel-tcpip-forward", true, ssh.Marshal(struct {
		Address string
		Port    uint32
	}{"127.0.0.1", 1}))
	require.NoError(t, err)
	require.False(t, ok, "what does not listen cannot be cancelled")
	for _, name := range []string{"tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com"} {
		ok, _, err := client.SendRequest(name, true, []byte("x"))
		require.NoError(t, err)
		require.False(t, ok, "malformed")
	}
	for _, path := range []string{"", "\x00x", strings.Repeat("x", 108), "/nowhere/at/all"} {
		_, err := client.ListenUnix(path)
		require.Error(t, err, "%q", path)
	}
	require.NoError(t, client.Close())
	eventually(t, func() bool {
		conn, err := net.Dial("tcp", again.Addr().String())
		if err == nil {
			conn.Close()
		}
		_, missing := os.Lstat(path)
		return err != nil && errors.Is(missing, os.ErrNotExist)
	}, "the connection's sockets end with it")
	require.Equal(t, 1, h.logins())
	require.Empty(t, h.lines())
}

// TestGatewayPorts: where a client's port listens, and by what name it hears of it.
func TestGatewayPorts(t *testing.T) {
	t.Parallel()
	own := outside(t)
	for _, test := range []struct {
		mode    node.GatewayPorts
		address string
		// loopback and all say where somebody answers.
		loopback, all bool
	}{
		{node.GatewayNo, "", true, false},
		{node.GatewayNo, "0.0.0.0", true, false},
		{node.GatewayNo, "localhost", true, false},
		{node.GatewayNo, own, true, false},
		{node.GatewayYes, "localhost", true, true},
		{node.GatewayYes, "", true, true},
		{node.GatewayClient, "", true, true},
		{node.GatewayClient, "*", true, true},
		{node.GatewayClient, "0.0.0.0", true, true},
		{node.GatewayClient, "localhost", true, false},
		{node.GatewayClient, "127.0.0.1", true, false},
		{node.GatewayClient, own, false, true},
	} {
		t.Run(fmt.Sprintf("%s,%q", test.mode, test.address), func(t *testing.T) {
			h := newFastHost(t, func(c *node.Config) { c.GatewayPorts = test.mode })
			client := h.login()
			channels := client.HandleChannelOpen("forwarded-tcpip")
			ok, answer, err := client.SendRequest("tcpip-forward", true, ssh.Marshal(hostPort{test.address, 0}))
			require.NoError(t, err)
			require.True(t, ok)
			var port struct{ Port uint32 }
			require.NoError(t, ssh.Unmarshal(answer, &port))
			for addr, want := range map[string]bool{"127.0.0.1": test.loopback, own: test.all} {
				conn, err := net.Dial("tcp", net.JoinHostPort(addr, fmt.Sprint(port.Port)))
				require.Equal(t, want, err == nil, addr)
				if !want {
					continue
				}
				within(t, "the client hears of it", func() {
					channel := <-channels
					var got direct
					assert.NoError(t, ssh.Unmarshal(channel.ExtraData(), &got))
					assert.Equal(t, hostPort{test.address, port.Port}, hostPort{got.Host, got.Port})
					assert.Equal(t, conn.LocalAddr().String(), net.JoinHostPort(got.Originator, fmt.Sprint(got.OriginPort)))
					assert.NoError(t, channel.Reject(ssh.Prohibited, ""))
				})
				_, err = conn.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF, "a connection that the client does not want is closed")
				conn.Close()
			}
			ok, _, err = client.SendRequest("cancel-tcpip-forward", true, ssh.Marshal(hostPort{test.address, port.Port}))
			require.NoError(t, err)
			require.True(t, ok)
		})
	}
}

// outside returns an address of this host that is not the loopback's.
func outside(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; ip.To4() != nil && !ip.IsLoopback() {
			return ip.String()
		}
	}
	// All of 127.0.0.0/8 is this host's.
	return "127.0.0.2"
}

func TestAgent(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	keys := agent.NewKeyring()
	require.NoError(t, agent.ForwardToAgent(client, keys))
	var paths []string
	for range 2 {
		s := newSession(t, client)
		require.NoError(t, agent.RequestAgentForwarding(s))
		stdout, err := s.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, s.Start("echo $SSH_AUTH_SOCK; exec sleep 1000"))
		paths = append(paths, strings.TrimSpace(read(t, stdout, "\n")))
	}
	require.Regexp(t, "^/tmp/ssh-.*/agent", paths[0])
	require.Equal(t, paths[0], paths[1], "one for the connection")
	require.Equal(t, "\n", run(t, client, "echo $SSH_AUTH_SOCK").stdout, "who did not ask gets none")
	conn, err := net.Dial("unix", paths[0])
	require.NoError(t, err)
	within(t, "the agent answers", func() {
		list, err := agent.NewClient(conn).List()
		require.NoError(t, err)
		require.Empty(t, list)
	})
	require.NoError(t, client.Close())
	eventually(t, func() bool {
		_, err := os.Lstat(filepath.Dir(paths[0]))
		return errors.Is(err, os.ErrNotExist)
	}, "the folder is removed")
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)

	client = h.login(func(c *ssh.Certificate) { delete(c.Extensions, "permit-agent-forwarding") })
	s := newSession(t, client)
	require.Error(t, agent.RequestAgentForwarding(s))
	require.Equal(t, "\n", finish(t, s, func(s *ssh.Session) error { return s.Start("echo $SSH_AUTH_SOCK") }).stdout)
	require.Len(t, h.lines(), 1)
	require.Contains(t, h.lines()[0], "Agent forwarding is refused")
}

// TestGlobalFlood: a client that asks and does not wait cannot keep much here, and
// one that waits is answered in order.
func TestGlobalFlood(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	payload := ssh.Marshal(struct {
		Address string
		Port    uint32
	}{"127.0.0.1", 0})
	within(t, "the connection is closed", func() {
		for {
			if _, _, err := client.SendRequest("tcpip-forward", false, payload); err != nil {
				return
			}
		}
	})
	closes(t, client)
	require.Contains(t, strings.Join(h.lines(), ""), "global requests at once: closing its connection")
}

// forwarder returns the pid of the user's process that forwards, by its parent.
func forwarder(t *testing.T, client *ssh.Client) int {
	t.Helper()
	parent := strings.TrimSpace(run(t, client, "echo $PPID").stdout)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		name, rest, _ := strings.Cut(string(text[strings.IndexByte(string(text), '(')+1:]), ")")
		if f := strings.Fields(rest); name == "teleport-user" && f[1] == parent {
			return atoi(t, filepath.Base(filepath.Dir(stat)))
		}
	}
	t.Fatal("there is no process that forwards")
	return 0
}

// TestForwarderKilled: whoever kills it loses what it listened on, and nothing else.
func TestForwarderKilled(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	target := echo(t, "tcp", "127.0.0.1:0")
	open, err := client.Dial("tcp", target.Addr().String())
	require.NoError(t, err)
	l, err := client.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	pid := forwarder(t, client)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool { return len(h.lines()) == 1 }, "the log tells of it")
	require.Contains(t, h.lines()[0], "The user's process that forwards has ended")
	roundTrip(t, open, 1<<20)
	_, err = net.Dial("tcp", l.Addr().String())
	require.Error(t, err)
	conn, err := client.Dial("tcp", target.Addr().String())
	require.NoError(t, err, "the next one starts another")
	roundTrip(t, conn, 100)
	require.NotEqual(t, pid, forwarder(t, client))
	again, err := client.Listen("tcp", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, again.Close())
	require.Equal(t, 1, h.logins())
	require.NoError(t, client.Close())
	require.NoError(t, h.server.Close())
	require.Empty(t, h.events.Events(), "the login's records are not the daemon's to write")
}

// TestForwarderStopped: whoever stops it holds up nothing else.
func TestForwarderStopped(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	target := echo(t, "tcp", "127.0.0.1:0")
	open, err := client.Dial("tcp", target.Addr().String())
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(forwarder(t, client), syscall.SIGSTOP))
	for range 100 {
		go func() { _, _ = client.Dial("tcp", target.Addr().String()) }()
	}
	roundTrip(t, open, 1<<20)
	require.Equal(t, "here\n", run(t, client, "echo here").stdout)
	begun := time.Now()
	require.NoError(t, client.Close())
	within(t, "the login ends", func() { require.NoError(t, h.server.Close()) })
	require.Less(t, time.Since(begun), 10*time.Second)
	require.Empty(t, h.events.Events())
}

// TestForwardLeaks: forwarding leaves nothing behind, however it ends.
func TestForwardLeaks(t *testing.T) {
	h := newFastHost(t)
	target := echo(t, "tcp", "127.0.0.1:0")
	once := func() {
		client, err := h.tryLogin()
		require.NoError(t, err)
		defer client.Close()
		// Nobody reads it.
		client.HandleChannelOpen("forwarded-tcpip")
		ok, answer, err := client.SendRequest("tcpip-forward", true, ssh.Marshal(hostPort{"127.0.0.1", 0}))
		require.NoError(t, err)
		require.True(t, ok)
		var port struct{ Port uint32 }
		require.NoError(t, ssh.Unmarshal(answer, &port))
		for range 5 {
			conn, err := client.Dial("tcp", target.Addr().String())
			require.NoError(t, err)
			roundTrip(t, conn, 10000)
			// Those stay open: one here, one that the client never answers.
			_, err = client.Dial("tcp", target.Addr().String())
			require.NoError(t, err)
			silent, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port.Port))
			require.NoError(t, err)
			defer silent.Close()
			_, _ = client.Dial("tcp", "127.0.0.1:1")
		}
	}
	for range 3 {
		once()
	}
	asBefore := settle(t)
	for range 30 {
		once()
	}
	asBefore()
	require.Empty(t, children(t))
}

// TestManyForwards: there is a bound, and it is told.
func TestManyForwards(t *testing.T) {
	t.Parallel()
	h := newFastHost(t)
	client := h.login()
	target := echo(t, "tcp", "127.0.0.1:0")
	var first net.Conn
	for range 512 {
		conn, err := client.Dial("tcp", target.Addr().String())
		require.NoError(t, err)
		first = conn
	}
	_, err := client.Dial("tcp", target.Addr().String())
	require.Equal(t, ssh.ResourceShortage, rejected(t, err).Reason)
	require.Equal(t, "ok\n", run(t, client, "echo ok").stdout, "sessions have their own bound")
	require.NoError(t, first.Close())
	eventually(t, func() bool {
		_, err := client.Dial("tcp", target.Addr().String())
		return err == nil
	}, "there is room again")
	require.Len(t, h.lines(), 1)
}

// forwarders makes programs that misbehave as their names say.
func forwarders(t *testing.T) (program func(name string) string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := os.ReadFile(self)
	require.NoError(t, err)
	dir := sessiontest.OpenDir(t)
	return func(name string) string {
		program := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(program, text, 0o755))
		return program
	}
}

// TestForwarderKeepsLogin: sockets that are slow to close do not keep a login from
// ending with its connection, and with it what holds their other ends.
func TestForwarderKeepsLogin(t *testing.T) {
	t.Parallel()
	program := forwarders(t)
	h := newFastHost(t, func(c *node.Config) { c.UserProgram = program("lingering") })
	client := h.login()
	require.Equal(t, "before\n", run(t, client, "echo before").stdout)
	within(t, "it is answered", func() {
		_, err := client.Dial("tcp", "127.0.0.1:1")
		require.Error(t, err)
	})
	require.NoError(t, client.Close())
	within(t, "the login ends", func() { require.NoError(t, h.server.Close()) })
	require.Equal(t, 1, h.count("Logout."))
	require.Empty(t, h.events.Events(), "the login's records are not the daemon's to write")
}

// TestForwarderHoldsUp: a user whose processes hold up all threads that there are
// for him forwards nothing more, on any connection, until they let go. His logins
// end.
func TestForwarderHoldsUp(t *testing.T) {
	t.Parallel()
	program := forwarders(t)
	h := newFastHost(t, func(c *node.Config) { c.UserProgram = program("nested") })
	dial := func() chan error {
		client := h.login()
		answer := make(chan error, 1)
		go func() {
			_, err := client.Dial("tcp", "127.0.0.1:1")
			answer <- err
		}()
		return answer
	}
	// More than there are threads: a signal lets one go.
	for range 16 {
		dial()
	}
	// On a busy host the others come late, and the next one is one of them.
	heard := false
	for deadline := time.Now().Add(4 * sessiontest.Patience); !heard; {
		require.True(t, time.Now().Before(deadline), "the next one hears of it")
		select {
		case err := <-dial():
			heard = strings.Contains(err.Error(), "this user's processes hold up what they forward")
		case <-time.After(10 * time.Second):
		}
	}
	require.Contains(t, strings.Join(h.lines(), ""), "forwarding is refused")
	within(t, "the logins end", func() { require.NoError(t, h.server.Close()) })
	require.Equal(t, h.logins(), h.count("Logout."))
	require.Empty(t, h.events.Events(), "the login's records are not the daemon's to write")
}

// TestForwarderMisbehaves: what runs as the user may be anything.
func TestForwarderMisbehaves(t *testing.T) {
	t.Parallel()
	forwarder := forwarders(t)
	for name, test := range map[string]struct {
		want string
		// again is what the next one hears.
		again string
	}{
		"garbage":           {"the process that forwards has ended", "has misbehaved; connect again"},
		"pipe":              {"the process that forwards has ended", "has misbehaved; connect again"},
		"many":              {"the process that forwards has ended", "has misbehaved; connect again"},
		"flood":             {"the process that forwards has ended", "has misbehaved; connect again"},
		"empty":             {"the process that forwards has ended", "the process that forwards has ended"},
		"end":               {"the process that forwards has ended", "the process that forwards has ended"},
		"flood of nobody's": {"Permission denied", ""},
	} {
		program := forwarder(name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFastHost(t, func(c *node.Config) { c.UserProgram = program })
			client := h.login()
			require.Equal(t, "before\n", run(t, client, "echo before").stdout)
			within(t, "it is answered", func() {
				_, err := client.Dial("tcp", "127.0.0.1:1")
				assert.ErrorContains(t, err, test.want)
			})
			if test.again != "" {
				eventually(t, func() bool {
					_, err := client.Dial("tcp", "127.0.0.1:1")
					return strings.Contains(err.Error(), test.again)
				}, "the next one hears %q", test.again)
			}
			require.Equal(t, "ok\n", run(t, client, "echo ok").stdout, "the login goes on")
			require.NoError(t, client.Close())
			require.NoError(t, h.server.Close())
			require.Empty(t, h.events.Events())
		})
	}
}
