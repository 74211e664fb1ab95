// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"
)

// gateWidth is how many threads a Gate lets through at once. More would not make
// anything faster: none of them waits in good faith, and a connection's packets
// are encrypted one by one.
const gateWidth = 8

// Gate bounds the threads of the daemon that may be held up in system calls on
// descriptors that came from one user's processes. None of these calls waits for
// anything in good faith. But a user who keeps a copy of a socket can hold its
// lock, in a system call of his own whose memory the kernel waits for; a socket
// may have others in its queue, which are closed with it; and a descriptor that
// is no socket may be anything, closing which may take for ever. The user may get
// at the socket of the process that forwards, too, before that has closed itself
// to its owner (PR_SET_DUMPABLE), which it cannot before it runs: what comes over
// it is never trusted.
type Gate struct {
	gates *Gates
	uid   uint32
	slots chan struct{}
	// holders is guarded by gates.
	holders int
}

// Gates are the gates of a daemon's users. A user has one, whatever the number of
// his connections, for as long as there is one of them, or anything is left of
// one. The zero value works.
type Gates struct {
	mu   sync.Mutex
	uids map[uint32]*Gate
}

// Of returns a user's gate, held.
func (g *Gates) Of(uid uint32) *Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate := g.uids[uid]
	if gate == nil {
		gate = &Gate{gates: g, uid: uid, slots: make(chan struct{}, gateWidth)}
		if g.uids == nil {
			g.uids = make(map[uint32]*Gate)
		}
		g.uids[uid] = gate
	}
	gate.holders++
	return gate
}

// Hold keeps the gate its user's until Release, once more. The caller holds it,
// or knows who does.
func (g *Gate) Hold() {
	g.gates.mu.Lock()
	defer g.gates.mu.Unlock()
	g.holders++
}

// Release undoes Of or Hold.
func (g *Gate) Release() {
	g.gates.mu.Lock()
	defer g.gates.mu.Unlock()
	g.holders--
	if g.holders == 0 {
		delete(g.gates.uids, g.uid)
	}
}

// Wait returns when somebody could pass, or ctx has ended.
func (g *Gate) Wait(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		<-g.slots
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Gate) pass(f func()) {
	g.slots <- struct{}{}
	defer func() { <-g.slots }()
	f()
}

// close closes a descriptor that the user's process has passed.
func (g *Gate) close(fd int) {
	g.pass(func() {
		unlinger(fd)
		_ = unix.Close(fd)
	})
}

// unlinger sees to it that closing a socket does not wait for its peer. What is no
// socket does not know of that.
func unlinger(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
}
