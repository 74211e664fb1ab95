// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Proxy, tunnel and node together: whoever comes through the proxy is known to the
// node by its own address.

package proxy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/jonboulle/clockwork"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/balancer"
	"teleport-auditd/lib/srv/clientaddr"
	"teleport-auditd/lib/srv/proxy"
	"teleport-auditd/lib/srv/srvtest"
	"teleport-auditd/lib/srv/tunnel"
)

const (
	nodeID  = "0b54bdf1-a1a5-4b6d-9f0a-000000000001"
	proxyID = "0b54bdf1-a1a5-4b6d-9f0a-000000000002"
)

// whole is a cluster in one process: a proxy with its two ports, and a node that is
// reached directly as "direct" and through a tunnel as "behind".
type whole struct {
	proxyAddr  string
	nodeAddr   string
	userCA     srvtest.Authority
	node       *auditdtest.Recorder // the node's host
	proxyHost  *auditdtest.Recorder
	clock      *clockwork.FakeClock
	log        *logtest.Hook
	connected  chan net.Addr // who has logged in at the node
	mu         sync.Mutex
	tunnelConn net.Conn
}

func newWhole(t *testing.T, headers bool) *whole {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	w := &whole{
		userCA:    srvtest.NewAuthority(t),
		node:      &auditdtest.Recorder{},
		proxyHost: &auditdtest.Recorder{},
		clock:     clockwork.NewFakeClockAt(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)),
		log:       hook,
		connected: make(chan net.Addr, 100),
	}
	hostCA := srvtest.NewAuthority(t)
	hostCAs, userCAs := &srvtest.CAs{}, &srvtest.CAs{}
	hostCAs.Trust(hostCA)
	userCAs.Trust(w.userCA)
	certify := func(id, role string) func() []ssh.Signer {
		signer := hostCA.Login(t, w.clock.Now(), func(c *ssh.Certificate) {
			c.CertType = ssh.HostCert
			c.KeyId = id + ".example.com"
			c.ValidPrincipals = []string{id}
			c.Permissions = ssh.Permissions{Extensions: map[string]string{"x-teleport-role": role}}
		})
		return func() []ssh.Signer { return []ssh.Signer{signer} }
	}
	proxySigners, nodeSigners := certify(proxyID, "Proxy"), certify(nodeID, "Node")
	serve := func(server interface {
		Serve(net.Listener) error
		Close() error
	}, listener net.Listener) {
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		t.Cleanup(func() {
			require.NoError(t, server.Close())
			require.NoError(t, <-served)
		})
	}
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return listener
	}

	// The node: its own port, and the tunnel.
	node, err := srv.New(srv.Config{
		Component:     "node",
		Emitter:       w.node,
		FailureEvents: []auditd.EventType{auditd.AuditUserErr},
		CAs:           userCAs,
		HostSigners:   nodeSigners,
		Handle: func(_ context.Context, conn *srv.Conn) {
			w.connected <- conn.RemoteAddr()
			go ssh.DiscardRequests(conn.Requests)
			for channel := range conn.Channels {
				accepted, requests, err := channel.Accept()
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				go func() {
					_, _ = io.Copy(accepted, accepted)
					_ = accepted.CloseWrite()
					accepted.Close()
				}()
			}
		},
		Clock: w.clock,
		Log:   log,
	})
	require.NoError(t, err)
	nodePort := listen()
	w.nodeAddr = nodePort.Addr().String()
	seen := &clientaddr.Seen{}
	withAddresses := func(l net.Listener, required bool) net.Listener {
		listener, err := clientaddr.NewListener(l, clientaddr.ListenerConfig{
			NodeID: nodeID, HostCAs: hostCAs.UserCAs, Required: required, Seen: seen, Clock: w.clock, Log: log,
		})
		require.NoError(t, err)
		return listener
	}
	serve(node, withAddresses(nodePort, false))

	// The proxy: tunnel port and jump port.
	tunnels, err := tunnel.NewServer(tunnel.ServerConfig{
		Redial: -1,
		CAs:    userCAs, HostCAs: hostCAs.UserCAs, HostSigners: proxySigners, ClusterName: "example.com",
		DialAuth: func(context.Context) (net.Conn, error) { return nil, net.ErrClosed },
		Emitter:  w.proxyHost, Clock: w.clock, Log: log,
	})
	require.NoError(t, err)
	tunnelPort := listen()
	serve(tunnels, tunnelPort)
	jump, err := proxy.New(proxy.Config{
		CAs: userCAs, HostSigners: proxySigners,
		Nodes: &nodes{nodes: []types.Server{
			registered(t, types.ServerSpecV2{Hostname: "direct", Addr: nodePort.Addr().String()}),
			registered(t, types.ServerSpecV2{Hostname: "behind", UseTunnel: true, Addr: "192.0.2.1:3022"}),
			registered(t, types.ServerSpecV2{Hostname: "addressless"}),
			lost(t),
		}},
		Tunnels: tunnels, Headers: clientaddr.NewSigner(proxySigners),
		ClusterName: "example.com", Emitter: w.proxyHost, Clock: w.clock, Log: log,
	})
	require.NoError(t, err)
	jumpPort := listen()
	w.proxyAddr = jumpPort.Addr().String()
	jumpListener, err := balancer.NewListener(jumpPort, balancer.Config{Headers: headers, Log: log})
	require.NoError(t, err)
	serve(jump, jumpListener)

	agent, err := tunnel.NewAgent(tunnel.AgentConfig{
		NodeID: nodeID, ClusterName: "example.com", HostSigners: nodeSigners, HostCAs: hostCAs.UserCAs,
		TunnelAddr: func(context.Context) (string, error) { return tunnelPort.Addr().String(), nil },
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.tunnelConn = conn
			return conn, err
		},
		Clock: w.clock, Log: log,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		agent.Run(ctx)
		close(ran)
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	go func() { _ = node.Serve(withAddresses(agent.Listener(), true)) }()
	return w
}

func registered(t *testing.T, spec types.ServerSpecV2) types.Server {
	t.Helper()
	node, err := types.NewServer(nodeID, types.KindNode, spec)
	require.NoError(t, err)
	return node
}

func lost(t *testing.T) types.Server {
	t.Helper()
	node, err := types.NewServer("uuid-of-lost", types.KindNode, types.ServerSpecV2{Hostname: "lost", UseTunnel: true})
	require.NoError(t, err)
	return node
}

// jump logs in at the proxy, after saying what a load balancer says.
func (w *whole) jump(t *testing.T, header string) (client *ssh.Client, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", w.proxyAddr)
	require.NoError(t, err)
	_, err = io.WriteString(conn, header)
	require.NoError(t, err)
	sshConn, channels, requests, err := ssh.NewClientConn(conn, w.proxyAddr, w.person(t))
	require.NoError(t, err)
	client = ssh.NewClient(sshConn, channels, requests)
	t.Cleanup(func() { client.Close() })
	return client, conn.LocalAddr().String()
}

func (w *whole) person(t *testing.T, change ...func(*ssh.Certificate)) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:            "bob",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(w.userCA.Login(t, w.clock.Now(), change...))},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	}
}

// through opens a connection to a node, once there is a tunnel.
func (w *whole) through(t *testing.T, client *ssh.Client, host string) net.Conn {
	t.Helper()
	var conn net.Conn
	require.Eventually(t, func() bool {
		var err error
		conn, err = client.Dial("tcp", net.JoinHostPort(host, "22"))
		if err != nil {
			require.ErrorContains(t, err, "it has no tunnel to this proxy now")
			w.clock.Advance(time.Second)
		}
		return err == nil
	}, patience, time.Millisecond)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestNodesKnowTheClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, header, addr string
	}{
		{name: "by itself"},
		{"by a load balancer", "PROXY TCP6 2001:db8::1 2001:db8::2 50000 3023\r\n", "[2001:db8::1]:50000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWhole(t, tt.header != "")
			client, addr := w.jump(t, tt.header)
			if tt.addr != "" {
				addr = tt.addr
			}
			for i, host := range []string{"direct", "behind", "addressless"} {
				// One who is let in,
				conn, channels, requests, err := ssh.NewClientConn(w.through(t, client, host), host, w.person(t))
				require.NoError(t, err)
				inner := ssh.NewClient(conn, channels, requests)
				require.Equal(t, addr, (<-w.connected).String(), host)
				sent := make([]byte, 4<<20)
				_, err = rand.Read(sent)
				require.NoError(t, err)
				echo, echoRequests, err := inner.OpenChannel("echo", nil)
				require.NoError(t, err)
				go ssh.DiscardRequests(echoRequests)
				go func() {
					_, _ = echo.Write(sent)
					_ = echo.CloseWrite()
				}()
				got, err := io.ReadAll(echo)
				require.NoError(t, err)
				require.True(t, bytes.Equal(sent, got))
				inner.Close()

				// one whose certificate asks for another address,
				_, _, _, err = ssh.NewClientConn(w.through(t, client, host), host, w.person(t, func(c *ssh.Certificate) {
					c.CriticalOptions = map[string]string{"source-address": "198.51.100.1"}
				}))
				require.Error(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				_, err = w.node.Wait(ctx, i+1)
				cancel()
				require.NoError(t, err)
				events := w.node.Events()
				require.Len(t, events, i+1)
				require.Equal(t, auditd.Event{
					Type: auditd.AuditUserErr, Result: auditd.Failed, SystemUser: "bob", TeleportUser: "alice",
					ConnAddress: addr, Reason: "source-address-is-not-allowed",
				}, events[i], host)
			}
			require.Empty(t, w.proxyHost.Events())
		})
	}
}

// TestForgedAddress: who goes to the node's port cannot say that it is somebody
// else, and is let in as itself.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	w := newWhole(t, false)
	for _, header := range []string{"", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02"} {
		conn, err := net.Dial("tcp", w.nodeAddr)
		require.NoError(t, err)
		_, err = io.WriteString(conn, header)
		require.NoError(t, err)
		sshConn, channels, requests, err := ssh.NewClientConn(conn, "direct", w.person(t))
		if header != "" {
			require.Error(t, err, "%q", header)
			continue
		}
		require.NoError(t, err)
		ssh.NewClient(sshConn, channels, requests).Close()
		require.Equal(t, conn.LocalAddr().String(), (<-w.connected).String())
	}
	require.Empty(t, w.connected)
	require.Empty(t, w.node.Events())
}

// TestTunnelBreaks: sessions end with their tunnel, and the node is reached again
// through the next one.
func TestTunnelBreaks(t *testing.T) {
	t.Parallel()
	w := newWhole(t, false)
	client, addr := w.jump(t, "")
	conn, channels, requests, err := ssh.NewClientConn(w.through(t, client, "behind"), "behind", w.person(t))
	require.NoError(t, err)
	inner := ssh.NewClient(conn, channels, requests)
	require.Equal(t, addr, (<-w.connected).String())
	w.mu.Lock()
	w.tunnelConn.Close()
	w.mu.Unlock()
	require.Error(t, inner.Wait())

	conn, channels, requests, err = ssh.NewClientConn(w.through(t, client, "behind"), "behind", w.person(t))
	require.NoError(t, err)
	defer ssh.NewClient(conn, channels, requests).Close()
	require.Equal(t, addr, (<-w.connected).String())

	_, err = client.Dial("tcp", "lost:22")
	requireRejected(t, err, ssh.ConnectionFailed, `node "lost" does not answer: it has no tunnel to this proxy now`)
}
