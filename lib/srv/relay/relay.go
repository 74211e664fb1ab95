// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package relay carries bytes both ways between two connections until both ways
// have ended.
package relay

import (
	"context"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// flushTime is how long one side may take to read what the other sent before it
// closed.
const flushTime = 5 * time.Second

// Channel carries bytes between a client's channel and a connection to a node, or
// to whatever else the client has asked for, until both ways have ended, each by
// itself: a client that has sent everything may go on reading. It returns when
// the channel is closed on both sides and the node's connection is closed. ctx
// ends both at once. requests are the channel's; none is granted.
func Channel(ctx context.Context, client ssh.Channel, requests <-chan *ssh.Request, node net.Conn) {
	stop := context.AfterFunc(ctx, func() { node.Close() })
	defer stop()

	// The channel's requests end when the client has closed it, or has gone.
	closed := make(chan struct{})
	go func() {
		ssh.DiscardRequests(requests)
		close(closed)
	}()

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// An error is the node's: it has gone, which reading from it tells as
		// well, after what it had still to say.
		if _, err := io.Copy(node, client); err == nil {
			closeWrite(node)
		}
	}()
	go func() {
		<-closed
		// Nobody reads the node's answers any more. What the client sent before
		// is still the node's.
		_ = node.SetWriteDeadline(time.Now().Add(flushTime))
		<-sent
		node.Close()
	}()

	if _, err := io.Copy(client, node); err == nil {
		// It fails where the client has closed the channel, which is the end.
		_ = client.CloseWrite()
		select {
		case <-sent:
		case <-closed:
		}
	}
	// The client answers by closing its side, and both other goroutines end.
	_ = client.Close()
	<-closed
	<-sent
}

// closeWrite tells the other end that nothing more will come. One that cannot be
// told so is left to find out when both ways have ended.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		// It fails where the other end has gone, which reading from it tells.
		_ = half.CloseWrite()
	}
}

// Conns carries bytes between a client and a server until both ways have ended, each
// by itself, or one of them has failed, and closes both. A client whose server has
// ended has some seconds to end as well: it could stay for ever. ctx ends both at
// once.
func Conns(ctx context.Context, client, server net.Conn) {
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		oneWay(server, client)
	}()
	oneWay(client, server)
	// It fails where the client has gone.
	_ = client.SetReadDeadline(time.Now().Add(flushTime))
	<-done
	client.Close()
	server.Close()
}

// oneWay passes what from says on to to. Where that fails, nothing more can come
// of the other way either.
func oneWay(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	closeWrite(to)
}
