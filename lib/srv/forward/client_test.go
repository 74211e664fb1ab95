// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/seqpacket"
)

const patience = 30 * time.Second

// log keeps lines.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) warn(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *log) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// newTestClient returns a client, and the other end of its socket.
func newTestClient(t *testing.T) (*Client, *net.UnixConn, *log) {
	t.Helper()
	theirs, ours, err := seqpacket.Pair()
	require.NoError(t, err)
	t.Cleanup(func() { theirs.Close() })
	lines := new(log)
	c, err := NewClient(Config{Socket: ours, Gate: new(Gates).Of(0), Buffers: new(Buffers), Warn: lines.warn, Spawn: func(f func()) { go f() }})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c, theirs, lines
}

// newPair returns a client with an honest process, which runs in the test.
func newPair(t *testing.T) *Client {
	t.Helper()
	c, theirs, lines := newTestClient(t)
	p := newProcess(theirs)
	served := make(chan error, 1)
	go func() {
		err := p.serve()
		p.end()
		served <- err
	}()
	t.Cleanup(func() {
		c.Close()
		require.NoError(t, <-served)
		require.Empty(t, lines.all())
	})
	return c
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func nobody(*Listener, *Conn, string, uint32) {}

// socketFolder is short enough for a socket's path.
func socketFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fwd")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestDial(t *testing.T) {
	c := newPair(t)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	port := uint32(tcp.Addr().(*net.TCPAddr).Port)
	path := filepath.Join(socketFolder(t), "s")
	local, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer local.Close()
	for _, test := range []struct {
		listener net.Listener
		network  Network
		address  string
	}{{tcp, TCP, "127.0.0.1"}, {tcp, TCP, "localhost"}, {local, Unix, path}} {
		conn, err := c.Dial(soon(t), test.network, test.address, port)
		require.NoError(t, err)
		other, err := test.listener.Accept()
		require.NoError(t, err)
		_, err = conn.Write([]byte("there"))
		require.NoError(t, err)
		b := make([]byte, 5)
		_, err = io.ReadFull(other, b)
		require.NoError(t, err)
		require.Equal(t, "there", string(b))
		_, err = other.Write([]byte("back"))
		require.NoError(t, err)
		require.NoError(t, conn.CloseWrite())
		_, err = other.Read(b)
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, other.Close())
		var got bytes.Buffer
		_, err = conn.WriteTo(&got)
		require.NoError(t, err)
		require.Equal(t, "back", got.String())
		require.NoError(t, conn.Close())
		require.NoError(t, conn.Close())
		_, err = conn.Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrClosed)
	}
	require.NoError(t, tcp.Close())
	for _, test := range []struct {
		network Network
		address string
		port    uint32
		want    string
	}{
		{TCP, "127.0.0.1", port, "Connection refused"},
		{TCP, "no-such-host.invalid", 1, "Name or service not known|Temporary failure in name resolution"},
		{Unix, path + "x", 0, "No such file or directory"},
		{Unix, "@teleport-test-abstract", 0, "No such file or directory"},
		{TCP, "", 1, "Invalid argument"},
		{Unix, strings.Repeat("x", 108), 1, "Invalid argument"},
		{Network(9), "x", 1, "Invalid argument"},
	} {
		_, err := c.Dial(soon(t), test.network, test.address, test.port)
		var failed *Error
		require.ErrorAs(t, err, &failed)
		require.Regexp(t, test.want, failed.Error())
	}
}

func TestDialCancelled(t *testing.T) {
	c, theirs, lines := newTestClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Dial(ctx, TCP, "127.0.0.1", 1)
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = c.Dial(ctx, TCP, "127.0.0.1", 1)
	require.Equal(t, errTimeout, err)
	// Late answers are dropped, and are nothing strange.
	for _, want := range []message{
		&dial{ID: 1, Address: "127.0.0.1", Port: 1}, &forwardCancel{ID: 1},
		&dial{ID: 2, Address: "127.0.0.1", Port: 1}, &forwardCancel{ID: 2},
	} {
		b, _, err := seqpacket.Receive(theirs, maxMessage, 0)
		require.NoError(t, err)
		got, err := decode(b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	fds := streamPair(t)
	say(t, theirs, &connected{ID: 1}, fds[0])
	say(t, theirs, &failed{ID: 2})
	require.NoError(t, unix.Close(fds[0]))
	n, err := unix.Read(fds[1], make([]byte, 1))
	require.NoError(t, err)
	require.Zero(t, n, "it was closed")
	require.Empty(t, lines.all())
	require.False(t, c.Hostile())
}

// forwardCancel is cancel, whose name the tests have for something else.
type forwardCancel = cancel

func TestListen(t *testing.T) {
	c := newPair(t)
	type visit struct {
		l       *Listener
		conn    *Conn
		address string
		port    uint32
	}
	visits := make(chan visit, 10)
	take := func(l *Listener, conn *Conn, address string, port uint32) { visits <- visit{l, conn, address, port} }
	come := func(network, addr string) {
		t.Helper()
		conn, err := net.Dial(network, addr)
		require.NoError(t, err)
		defer conn.Close()
		v := <-visits
		_, err = v.conn.Write([]byte("hello"))
		require.NoError(t, err)
		b := make([]byte, 5)
		_, err = io.ReadFull(conn, b)
		require.NoError(t, err)
		if network != "unix" {
			require.Equal(t, conn.LocalAddr().(*net.TCPAddr).IP.String(), v.address)
			require.Equal(t, conn.LocalAddr().(*net.TCPAddr).Port, int(v.port))
		}
		require.NoError(t, v.conn.Close())
	}
	l, err := c.Listen(soon(t), TCP, []string{"127.0.0.1", "::1"}, 0, take)
	require.NoError(t, err)
	require.NotZero(t, l.Port)
	come("tcp4", fmt.Sprintf("127.0.0.1:%d", l.Port))
	if ipv6() {
		come("tcp6", fmt.Sprintf("[::1]:%d", l.Port))
	}
	_, err = c.Listen(soon(t), TCP, []string{"127.0.0.1", "::1"}, l.Port, take)
	require.EqualError(t, err, "Address already in use")
	require.NoError(t, l.Close(soon(t)))
	again, err := c.Listen(soon(t), TCP, []string{"localhost"}, l.Port, take)
	require.NoError(t, err, "a closed listener's port is free")
	require.Equal(t, l.Port, again.Port)
	all, err := c.Listen(soon(t), TCP, []string{"0.0.0.0", "::"}, 0, take)
	require.NoError(t, err)
	come("tcp4", fmt.Sprintf("127.0.0.1:%d", all.Port))
	_, err = c.Listen(soon(t), TCP, []string{"192.0.2.1"}, 0, take)
	require.EqualError(t, err, "Cannot assign requested address")

	path := filepath.Join(socketFolder(t), "s")
	l, err = c.Listen(soon(t), Unix, []string{path}, 0, take)
	require.NoError(t, err)
	come("unix", path)
	_, err = c.Listen(soon(t), Unix, []string{path}, 0, take)
	require.EqualError(t, err, "Address already in use")
	require.NoError(t, l.Close(soon(t)))
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	for _, test := range []struct {
		network   Network
		addresses []string
	}{{TCP, nil}, {TCP, []string{""}}, {Unix, nil}, {Unix, []string{"a", "b"}}, {9, []string{"a"}}} {
		_, err := c.Listen(soon(t), test.network, test.addresses, 0, take)
		var failed *Error
		require.ErrorAs(t, err, &failed, "%v", test)
	}
}

func ipv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

func TestAgentSocket(t *testing.T) {
	c := newPair(t)
	var paths []string
	for range 2 {
		l, err := c.Listen(soon(t), Agent, nil, 0, nobody)
		require.NoError(t, err)
		require.Regexp(t, `^/tmp/ssh-[^/]{6,}/agent\.\d+$`, l.Path)
		info, err := os.Stat(filepath.Dir(l.Path))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		paths = append(paths, l.Path)
	}
	require.NotEqual(t, paths[0], paths[1])
	require.NoError(t, c.Close())
	<-c.Done()
	for _, path := range paths {
		require.Eventually(t, func() bool {
			_, err := os.Lstat(filepath.Dir(path))
			return errors.Is(err, os.ErrNotExist)
		}, patience, time.Millisecond, "%s is removed", path)
	}
	_, err := c.Dial(soon(t), TCP, "127.0.0.1", 1)
	require.ErrorIs(t, err, ErrGone)
}

// say sends a message as the user's process, with a descriptor.
func say(t *testing.T, socket *net.UnixConn, m message, fds ...int) {
	t.Helper()
	b, err := encode(m)
	require.NoError(t, err)
	sayBytes(t, socket, b, fds...)
}

func sayBytes(t *testing.T, socket *net.UnixConn, b []byte, fds ...int) {
	t.Helper()
	_, _, err := socket.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	require.NoError(t, err)
}

// streamPair returns two ends of a connection.
func streamPair(t *testing.T) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	return fds
}

// TestWrongDescriptors: what is no connection is neither used nor kept.
func TestWrongDescriptors(t *testing.T) {
	open := func(fd int, err error) int {
		require.NoError(t, err)
		return fd
	}
	fifo := filepath.Join(socketFolder(t), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	var pipe [2]int
	require.NoError(t, unix.Pipe(pipe[:]))
	_ = unix.Close(pipe[1])
	for name, fd := range map[string]int{
		"a pipe":         pipe[0],
		"/dev/null":      open(unix.Open("/dev/null", unix.O_RDWR, 0)),
		"a folder":       open(unix.Open("/", unix.O_RDONLY|unix.O_PATH, 0)),
		"a FIFO":         open(unix.Open(fifo, unix.O_RDWR, 0)),
		"UDP":            open(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)),
		"a seqpacket":    open(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)),
		"netlink":        open(unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM, 0)),
		"an eventfd":     open(unix.Eventfd(0, 0)),
		"an epoll":       open(unix.EpollCreate1(0)),
		"a stream, late": streamPair(t)[0],
	} {
		t.Run(name, func(t *testing.T) {
			defer unix.Close(fd)
			c, theirs, lines := newTestClient(t)
			answer := make(chan error, 1)
			go func() {
				_, err := c.Dial(soon(t), TCP, "127.0.0.1", 1)
				answer <- err
			}()
			_, _, err := seqpacket.Receive(theirs, maxMessage, 0)
			require.NoError(t, err)
			if strings.HasSuffix(name, "late") {
				say(t, theirs, &failed{ID: 1, Reason: reasonErrno, Errno: 111}, fd)
			} else {
				say(t, theirs, &connected{ID: 1}, fd)
			}
			require.ErrorIs(t, <-answer, ErrGone)
			require.True(t, c.Hostile())
			require.Len(t, lines.all(), 1)
			require.Contains(t, lines.all()[0], "has misbehaved")
		})
	}
}

// TestNonsense: what is no answer of the protocol ends the process's service.
func TestNonsense(t *testing.T) {
	long, err := encode(&dial{ID: 1, Address: strings.Repeat("x", 3000)})
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"garbage":       []byte("garbage"),
		"one byte":      {version},
		"other version": {version + 1, byte(kindFailed), 1, 0, 0},
		"too long":      append(append([]byte{version, byte(kindListening)}, long...), make([]byte, 5000)...),
		"a request":     long,
		"a number":      {version, byte(kindFailed), 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c, theirs, lines := newTestClient(t)
			fds := streamPair(t)
			defer unix.Close(fds[1])
			sayBytes(t, theirs, b, fds[0])
			require.NoError(t, unix.Close(fds[0]))
			<-c.Done()
			require.True(t, c.Hostile())
			require.Len(t, lines.all(), 1)
			n, err := unix.Read(fds[1], make([]byte, 1))
			require.NoError(t, err)
			require.Zero(t, n, "the descriptor is closed")
		})
	}
	t.Run("listens elsewhere", func(t *testing.T) {
		for _, m := range []*listening{{ID: 1, Port: 81}, {ID: 1, Port: 1 << 20}, {ID: 1, Port: 80, Path: "/tmp/\x1b[2J"}, {ID: 1, Port: 80, Path: strings.Repeat("x", 200)}} {
			c, theirs, _ := newTestClient(t)
			go func() {
				_, _, _ = seqpacket.Receive(theirs, maxMessage, 0)
				b, _ := encode(m)
				_, _ = theirs.Write(b)
			}()
			_, _ = c.Listen(soon(t), TCP, []string{"127.0.0.1"}, 80, nobody)
			<-c.Done()
			require.True(t, c.Hostile(), "%+v", m)
		}
	})
	t.Run("an end", func(t *testing.T) {
		c, theirs, lines := newTestClient(t)
		require.NoError(t, theirs.Close())
		<-c.Done()
		require.False(t, c.Hostile())
		require.Empty(t, lines.all())
	})
}

// TestAnswersToNobody are ignored with one line, however many they are, and keep
// no descriptor.
func TestAnswersToNobody(t *testing.T) {
	c, theirs, lines := newTestClient(t)
	before := descriptors(t)
	for i := range uint32(500) {
		fds := streamPair(t)
		say(t, theirs, &connected{ID: i}, fds[0])
		say(t, theirs, &accepted{ID: i}, fds[0])
		say(t, theirs, &listening{ID: i})
		say(t, theirs, &failed{ID: i})
		say(t, theirs, &closed{ID: i})
		require.NoError(t, unix.Close(fds[0]))
		require.NoError(t, unix.Close(fds[1]))
	}
	require.Eventually(t, func() bool { return descriptors(t) <= before }, patience, time.Millisecond, "descriptors are kept")
	require.Len(t, lines.all(), 1)
	require.False(t, c.Hostile())
	// One that was answered twice.
	go func() {
		_, _, _ = seqpacket.Receive(theirs, maxMessage, 0)
		say(t, theirs, &failed{ID: 1, Reason: reasonNoName})
		say(t, theirs, &failed{ID: 1, Reason: reasonNoName})
	}()
	_, err := c.Dial(soon(t), TCP, "x", 1)
	require.EqualError(t, err, "Name or service not known")
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// TestStopped: a process that does not read is given up, and nobody waits for it
// longer than that.
func TestStopped(t *testing.T) {
	t.Parallel()
	c, _, lines := newTestClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	var err error
	for range 2 * maxPending {
		if _, err = c.Dial(ctx, TCP, strings.Repeat("x", 250), 1); errors.Is(err, ErrGone) {
			break
		}
	}
	require.ErrorIs(t, err, ErrGone)
	require.Less(t, time.Since(began), sendTimeout+5*time.Second)
	require.Len(t, lines.all(), 1)
	require.Contains(t, lines.all()[0], "does not read")
}

// newTestConn returns a connection, and its other end.
func newTestConn(t *testing.T) (c *Conn, ours, other int) {
	t.Helper()
	fds := streamPair(t)
	require.NoError(t, unix.SetNonblock(fds[0], true))
	ours, err := unix.Dup(fds[0])
	require.NoError(t, err)
	t.Cleanup(func() {
		unix.Close(ours)
		unix.Close(fds[1])
	})
	c, err = newConn(fds[0], new(Gates).Of(0), new(Buffers))
	require.NoError(t, err)
	return c, ours, fds[1]
}

// TestBlocking: a user who makes a shared socket block holds up nobody.
func TestBlocking(t *testing.T) {
	c, ours, _ := newTestConn(t)
	require.NoError(t, unix.SetNonblock(ours, false))
	ended := make(chan error, 2)
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		ended <- err
	}()
	go func() {
		_, err := c.WriteTo(io.Discard)
		ended <- err
	}()
	// It does block: nothing has come back, and the other side reads nothing.
	select {
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, c.Close())
	for range 2 {
		select {
		case err := <-ended:
			require.True(t, errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed), "%v", err)
		case <-time.After(patience):
			t.Fatal("a thread is held up")
		}
	}
}

// TestDrain: what is left to send goes out after receiving has ended.
func TestDrain(t *testing.T) {
	c, _, other := newTestConn(t)
	const size = 8 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := c.ReadFrom(io.LimitReader(zeros{}, size))
		sent <- err
	}()
	c.StopReceiving()
	_, err := c.WriteTo(io.Discard)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	total := 0
	for b := make([]byte, 1<<20); total < size; {
		n, err := unix.Read(other, b)
		require.NoError(t, err)
		require.NotZero(t, n)
		total += n
	}
	require.NoError(t, <-sent)
	require.NoError(t, c.Close())
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestAbort: draining does not outlive the connection.
func TestAbort(t *testing.T) {
	c, _, _ := newTestConn(t)
	sent := make(chan error, 1)
	go func() {
		_, err := c.ReadFrom(zeros{})
		sent <- err
	}()
	c.StopReceiving()
	c.Abort()
	require.ErrorIs(t, <-sent, os.ErrDeadlineExceeded)
	require.NoError(t, c.Close())
}

// TestPeerGone: sending to nobody is an error, and no signal.
func TestPeerGone(t *testing.T) {
	c, _, other := newTestConn(t)
	require.NoError(t, unix.Shutdown(other, unix.SHUT_RDWR))
	_, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, unix.EPIPE)
	require.NoError(t, c.Close())
}
