// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package tunnel reaches nodes that nobody can dial: they dial the proxy and keep
// the connection, and the proxy opens connections to them through it.
//
// The proxy runs a Server on its tunnel port, and dials nodes with Server.Dial:
//
//	server, err := tunnel.NewServer(tunnel.ServerConfig{...})
//	go server.Serve(listener)
//	conn, err := server.Dial(ctx, nodeID)
//
// The node runs an Agent, which keeps a tunnel to each proxy, and whose Listener it
// serves as it serves any other:
//
//	agent, err := tunnel.NewAgent(tunnel.AgentConfig{...})
//	go agent.Run(ctx)
//	err = node.Serve(agent.Listener())
//
// A tunnel is an SSH connection: the proxy shows its host certificate, the node
// logs in with its own, and each connection is a channel. Both sides find out by
// themselves when the other has gone. The node dials again until Run's context
// ends, and dials anew when its certificate has been renewed; connections that are
// open stay with the tunnel that they came through. Tunnels to several proxies have
// nothing to do with each other.
//
// Where proxies are is what they have registered, which is nobody's word for who
// answers there: that is the host certificate's, by whose host id a node tells which
// proxies it has a tunnel to, whatever address has led to them.
//
// The same port serves Teleport's API client, which logs in with a user's
// certificate and opens a channel teleport-transport to the auth server. Nothing
// else can be reached.
package tunnel

import (
	"context"
	"time"

	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"
)

const (
	// channelConn is the type of the channels that the proxy opens to a node.
	channelConn = "connection@teleport-auditd"
	// keepAliveRequest is answered, if only with a refusal, by whoever is there.
	keepAliveRequest = "keepalive@teleport-auditd"

	roleNode  = "Node"
	roleProxy = "Proxy"

	// DefaultKeepAlive is less than the time after which routers forget a
	// connection that is silent.
	DefaultKeepAlive = 30 * time.Second
	// DefaultRedial is how long a client waits for a node that has lost its
	// tunnel.
	DefaultRedial = 5 * time.Second
	// maxConns bounds the connections of one tunnel.
	maxConns = 1024
)

// keepAlive asks the other side for a sign of life at each interval until ctx
// ends. Where none comes before the next is due, it closes the connection.
func keepAlive(ctx context.Context, conn ssh.Conn, clock clockwork.Clock, interval time.Duration) {
	ticker := clock.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.Chan():
		case <-ctx.Done():
			return
		}
		answered := make(chan error, 1)
		go func() {
			_, _, err := conn.SendRequest(keepAliveRequest, true, nil)
			answered <- err
		}()
		timer := clock.NewTimer(interval)
		select {
		case err := <-answered:
			timer.Stop()
			if err != nil {
				return // the connection has ended
			}
		case <-timer.Chan():
			conn.Close()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
