// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// A way to etcd that loses answers.

package etcd

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type unreliable struct {
	url string

	mu    sync.Mutex
	conns map[net.Conn]net.Conn // the client's side, and etcd's
	odds  int                   // one of so many answers is lost; none where it is 0
	lost  int
	held  chan struct{} // closed when an answer is held back; nil where none is to be
	told  bool
}

func newUnreliable(t *testing.T, to string) *unreliable {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u := &unreliable{url: "http://" + listener.Addr().String(), conns: map[net.Conn]net.Conn{}}
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		u.drop()
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			u.mu.Lock()
			u.conns[client] = server
			u.mu.Unlock()
			go u.copy(client, server, false)
			go u.copy(server, client, true)
		}
	}()
	return u
}

func (u *unreliable) copy(from, to net.Conn, answers bool) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || answers && !u.passes() {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// passes says whether an answer gets through, and is lost where it does not.
func (u *unreliable) passes() bool {
	u.mu.Lock()
	if u.held != nil {
		held := u.held
		if !u.told {
			u.told = true
			close(held)
		}
		u.mu.Unlock()
		return u.waitDropped(held)
	}
	defer u.mu.Unlock()
	if u.odds > 0 && rand.IntN(u.odds) == 0 {
		u.lost++
		return false
	}
	return true
}

// waitDropped holds what there is until drop is called, which loses it.
func (u *unreliable) waitDropped(held chan struct{}) bool {
	for {
		u.mu.Lock()
		same := u.held == held
		u.mu.Unlock()
		if !same {
			return false
		}
		time.Sleep(time.Millisecond)
	}
}

func (u *unreliable) loseOneOf(odds int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.odds = odds
}

func (u *unreliable) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lost
}

// hold keeps back all answers from here on, until drop. The channel is closed
// when there is one.
func (u *unreliable) hold() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held, u.told = make(chan struct{}), false
	return u.held
}

// drop loses what is held, and breaks all connections.
func (u *unreliable) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = nil
	for client, server := range u.conns {
		_ = client.Close()
		_ = server.Close()
		delete(u.conns, client)
	}
}
