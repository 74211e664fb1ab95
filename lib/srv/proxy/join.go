// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// flushTime is how long a node may take to read what a client sent before it
// closed its channel.
const flushTime = 5 * time.Second

// join carries bytes between the client's channel and the node until both ways
// have ended, each by itself: a client that has sent everything may go on
// reading. It returns when the channel is closed on both sides and the node's
// connection is closed. ctx ends both at once.
func join(ctx context.Context, client ssh.Channel, requests <-chan *ssh.Request, node net.Conn) {
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

// closeWrite tells the node that nothing more will come.
func closeWrite(node net.Conn) {
	if half, ok := node.(interface{ CloseWrite() error }); ok {
		// It fails where the node has gone, which reading from it tells.
		_ = half.CloseWrite()
	}
}
