// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/seqpacket"
)

// lingerTime is more than any test has.
const lingerTime = 10 * time.Minute

// lingering returns a TCP socket closing which takes lingerTime, or until let go:
// its peer reads nothing.
func lingering(t *testing.T) (fd int, letGo func()) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Connect(fd, &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}))
	peer, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { peer.Close() })
	require.NoError(t, unix.SetNonblock(fd, true))
	for b := make([]byte, 1<<16); err == nil; {
		_, err = unix.Write(fd, b)
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	require.NoError(t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(lingerTime / time.Second)}))
	return fd, func() { peer.Close() }
}

// nested returns a Unix socket with a lingering one in its queue, which is
// closed with it.
func nested(t *testing.T) (fd int, letGo func()) {
	t.Helper()
	inner, letGo := lingering(t)
	pair := streamPair(t)
	require.NoError(t, unix.Sendmsg(pair[1], []byte("x"), unix.UnixRights(inner), nil, 0))
	require.NoError(t, unix.Close(inner))
	require.NoError(t, unix.Close(pair[1]))
	return pair[0], letGo
}

// sayAndForget sends a message whose descriptors are nobody's but the kernel's then.
func sayAndForget(t *testing.T, socket *net.UnixConn, b []byte, fds ...int) {
	t.Helper()
	sayBytes(t, socket, b, fds...)
	for _, fd := range fds {
		require.NoError(t, unix.Close(fd))
	}
}

// clients are those of one user.
type clients struct {
	gate *Gate
	// running are the goroutines of all of them.
	running sync.WaitGroup
	lines   log
}

func (c *clients) config(ours *os.File) Config {
	return Config{Socket: ours, Gate: c.gate, Buffers: new(Buffers), Warn: c.lines.warn, Spawn: c.running.Go}
}

// ended waits until nothing of the clients is left.
func (c *clients) ended(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("something of the clients is left")
	}
}

func encoded(t *testing.T, m message) []byte {
	t.Helper()
	b, err := encode(m)
	require.NoError(t, err)
	return b
}

// TestLingering: a user's sockets that are slow to close hold up nobody, wherever
// it is that they are closed.
func TestLingering(t *testing.T) {
	sockets := func(t *testing.T, n int) (fds []int) {
		for range n {
			fd, _ := lingering(t)
			fds = append(fds, fd)
		}
		return fds
	}
	for name, test := range map[string]struct {
		say func(t *testing.T, theirs *net.UnixConn)
		// hostile says that it ends without Close.
		hostile bool
	}{
		"nobody's": {say: func(t *testing.T, theirs *net.UnixConn) {
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), sockets(t, 1)...)
		}},
		"too many": {hostile: true, say: func(t *testing.T, theirs *net.UnixConn) {
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), sockets(t, 5)...)
		}},
		"as many as a message takes": {hostile: true, say: func(t *testing.T, theirs *net.UnixConn) {
			fds := sockets(t, 2)
			same := make([]int, 253-2)
			for i := range same {
				same[i] = fds[0]
			}
			sayBytes(t, theirs, encoded(t, &connected{ID: 7}), append(same, fds...)...)
			for _, fd := range fds {
				require.NoError(t, unix.Close(fd))
			}
		}},
		"with garbage": {hostile: true, say: func(t *testing.T, theirs *net.UnixConn) {
			sayAndForget(t, theirs, []byte("garbage"), sockets(t, 2)...)
		}},
		"with one that cannot be used": {hostile: true, say: func(t *testing.T, theirs *net.UnixConn) {
			folder, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), append([]int{folder}, sockets(t, 2)...)...)
		}},
		"queued": {hostile: true, say: func(t *testing.T, theirs *net.UnixConn) {
			sayBytes(t, theirs, []byte("garbage"))
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), sockets(t, 2)...)
		}},
		"queued behind an empty message": {hostile: true, say: func(t *testing.T, theirs *net.UnixConn) {
			sayBytes(t, theirs, []byte("garbage"))
			sayBytes(t, theirs, nil)
			sayAndForget(t, theirs, nil, sockets(t, 1)...)
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), sockets(t, 2)...)
		}},
		"queued by one that has gone": {say: func(t *testing.T, theirs *net.UnixConn) {
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), sockets(t, 1)...)
			require.NoError(t, theirs.Close())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			user := clients{gate: new(Gates).Of(1)}
			theirs, ours, err := seqpacket.Pair()
			require.NoError(t, err)
			defer theirs.Close()
			// All of it is there before anything is read.
			test.say(t, theirs)
			c, err := NewClient(user.config(ours))
			require.NoError(t, err)
			if test.hostile {
				select {
				case <-c.Done():
				case <-time.After(patience):
					t.Fatal("the process is still trusted")
				}
				require.True(t, c.Hostile())
			}
			require.NoError(t, c.Close())
			user.ended(t)
			_ = theirs.Close()
			// Their peers are still there.
			require.LessOrEqual(t, descriptors(t), before+5)
		})
	}
}

// TestHeldUp: descriptors that cannot but hold up whoever closes them hold up a
// few threads, however many connections the user makes, and no other user's.
func TestHeldUp(t *testing.T) {
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		return len(entries)
	}
	gates := new(Gates)
	user := clients{gate: gates.Of(1)}
	require.NoError(t, user.gate.Wait(soon(t)))
	var letGo []func()
	once := func() {
		theirs, ours, err := seqpacket.Pair()
		require.NoError(t, err)
		defer theirs.Close()
		for range 2 {
			fd, free := nested(t)
			letGo = append(letGo, free)
			sayAndForget(t, theirs, encoded(t, &connected{ID: 7}), fd)
		}
		again := gates.Of(1)
		defer again.Release()
		require.Same(t, user.gate, again)
		c, err := NewClient(user.config(ours))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, c.Close())
		<-c.Done()
		require.Less(t, time.Since(began), patience)
		// Its process hears of it.
		_, err = theirs.Read(make([]byte, 1))
		require.Error(t, err)
	}
	before := threads()
	for range 3 * gateWidth {
		once()
	}
	require.Eventually(t, func() bool { return len(user.gate.slots) == gateWidth }, patience, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, user.gate.Wait(ctx), context.DeadlineExceeded)
	// The runtime has some of its own.
	require.LessOrEqual(t, threads(), before+gateWidth+8)
	user.gate.Release()
	gates.mu.Lock()
	require.Same(t, user.gate, gates.uids[1], "a user who comes again has the same")
	gates.mu.Unlock()

	other := gates.Of(2)
	require.NoError(t, other.Wait(soon(t)))
	other.Release()

	for _, free := range letGo {
		free()
	}
	user.ended(t)
	require.Empty(t, gates.uids, "nothing is kept of users who are gone")
}
