// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv/proxy"
	"teleport-auditd/lib/srv/srvtest"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

const jumpHost = "this proxy is a jump host and runs no sessions; to reach a node use: ssh -J LOGIN@PROXY:PORT LOGIN@NODE"

// nodes is a list that a test may change.
type nodes struct {
	mu    sync.Mutex
	nodes []types.Server
	fault func() error
}

func (n *nodes) Nodes(context.Context) ([]types.Server, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fault != nil {
		return nil, n.fault()
	}
	return n.nodes, nil
}

// fail makes Nodes call fault instead, until it is nil.
func (n *nodes) fail(fault func() error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

// register adds a node.
func (n *nodes) register(t *testing.T, uuid, name, addr string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	node, err := types.NewServer(uuid, types.KindNode, types.ServerSpecV2{Hostname: name, Addr: addr})
	require.NoError(t, err)
	n.nodes = append(n.nodes, node)
}

// cluster is a proxy, and a node "web" that is whatever a test makes of the
// connections that it gets.
type cluster struct {
	proxy    *proxy.Server
	addr     string
	nodes    *nodes
	node     net.Listener
	recorder *auditdtest.Recorder
	log      *logtest.Hook
	ca       srvtest.Authority
	clock    *clockwork.FakeClock
}

func newCluster(t *testing.T, change ...func(*proxy.Config)) *cluster {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	c := &cluster{
		nodes:    &nodes{},
		recorder: &auditdtest.Recorder{},
		log:      hook,
		ca:       srvtest.NewAuthority(t),
		clock:    clockwork.NewFakeClockAt(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)),
	}
	var err error
	c.node, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { c.node.Close() })
	c.nodes.register(t, "uuid-of-web", "web", c.node.Addr().String())

	cas := &srvtest.CAs{}
	cas.Trust(c.ca)
	key := srvtest.NewKey(t)
	cfg := proxy.Config{
		CAs:         cas,
		HostSigners: func() []ssh.Signer { return []ssh.Signer{key} },
		Nodes:       c.nodes,
		ClusterName: "example.com",
		Emitter:     c.recorder,
		Clock:       c.clock,
		Log:         log,
	}
	for _, change := range change {
		change(&cfg)
	}
	c.proxy, err = proxy.New(cfg)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.addr = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- c.proxy.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, c.proxy.Close())
		require.NoError(t, <-served)
	})
	return c
}

// login connects as somebody whose login does not exist on the proxy's host.
func (c *cluster) login(t *testing.T) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial("tcp", c.addr, &ssh.ClientConfig{
		User: "no-such-login-here",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(c.ca.Login(t, c.clock.Now(), func(cert *ssh.Certificate) {
			cert.ValidPrincipals = []string{"no-such-login-here"}
		}))},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// open asks for a connection to a destination.
func open(client *ssh.Client, host string, port uint32) (ssh.Channel, error) {
	channel, requests, err := client.OpenChannel("direct-tcpip", ssh.Marshal(&struct {
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}{host, port, "127.0.0.1", 0}))
	if err == nil {
		go ssh.DiscardRequests(requests)
	}
	return channel, err
}

// through opens a connection to the node and returns both of its ends.
func (c *cluster) through(t *testing.T, client *ssh.Client) (ssh.Channel, *net.TCPConn) {
	t.Helper()
	channel, err := open(client, "web", 22)
	require.NoError(t, err)
	conn, err := c.node.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return channel, conn.(*net.TCPConn)
}

func requireRejected(t *testing.T, err error, reason ssh.RejectionReason, message string) {
	t.Helper()
	var rejected *ssh.OpenChannelError
	require.ErrorAs(t, err, &rejected)
	require.Equal(t, message, rejected.Message)
	require.Equal(t, reason, rejected.Reason)
}

func TestReachesNodesOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	host, text, err := net.SplitHostPort(c.node.Addr().String())
	require.NoError(t, err)
	number, err := strconv.ParseUint(text, 10, 16)
	require.NoError(t, err)
	port := uint32(number)
	// Something else listens on the proxy's host, as a metadata service might.
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	otherPort := uint32(other.Addr().(*net.TCPAddr).Port)

	client := c.login(t)
	for _, name := range []string{"web", "WEB", "web.example.com", "uuid-of-web"} {
		for _, p := range []uint32{0, 22, port} {
			channel, err := open(client, name, p)
			require.NoError(t, err, "%s:%d", name, p)
			channel.Close()
		}
	}
	channel, err := open(client, host, port)
	require.NoError(t, err)
	channel.Close()

	for _, p := range []uint32{otherPort, 22} {
		_, err = open(client, "127.0.0.1", p)
		requireRejected(t, err, ssh.Prohibited, "no node is registered as \"127.0.0.1\" port "+strconv.Itoa(int(p)))
	}
	_, err = open(client, "127.0.0.1", 0)
	requireRejected(t, err, ssh.Prohibited, `no node is registered as "127.0.0.1": give the port of its address, too`)
	_, err = open(client, "localhost", port)
	requireRejected(t, err, ssh.Prohibited, `no node is registered as "localhost" port `+text)
	_, err = open(client, "a\nb", 22)
	requireRejected(t, err, ssh.Prohibited, `no node is registered as "a\nb" port 22`)

	c.nodes.register(t, "uuid-of-another", "web", "192.0.2.1:3022")
	_, err = open(client, "web", 22)
	requireRejected(t, err, ssh.Prohibited, `2 nodes are registered as "web" port 22; use the UUID of the one that you mean, or its address and port`)
	channel, err = open(client, "uuid-of-web", 22)
	require.NoError(t, err)
	channel.Close()

	require.NoError(t, c.proxy.Close())
	require.Empty(t, c.recorder.Events(), "a client that may use the proxy is no event")
}

func TestOpensNothingElse(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	client := c.login(t)
	_, err := client.NewSession()
	requireRejected(t, err, ssh.Prohibited, jumpHost)
	for _, channelType := range []string{"x11", "forwarded-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com", ""} {
		_, _, err = client.OpenChannel(channelType, nil)
		requireRejected(t, err, ssh.UnknownChannelType, "this proxy is a jump host and only opens connections to nodes")
	}
	_, _, err = client.OpenChannel("direct-tcpip", []byte("nonsense"))
	requireRejected(t, err, ssh.Prohibited, "the request for a connection is malformed")
	for _, request := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "keepalive@openssh.com", "no-more-sessions@openssh.com"} {
		ok, _, err := client.SendRequest(request, true, nil)
		require.NoError(t, err, "it must be answered")
		require.False(t, ok)
	}
	require.NoError(t, c.proxy.Close())
	require.Empty(t, c.recorder.Events())
}

func TestNodesThatCannotBeReached(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	client := c.login(t)
	c.node.Close()
	_, err := open(client, "web", 22)
	requireRejected(t, err, ssh.ConnectionFailed, `node "web" does not answer: connection refused`)
	c.nodes.register(t, "uuid-of-lost", "lost", "an address without a port")
	_, err = open(client, "lost", 22)
	requireRejected(t, err, ssh.ConnectionFailed, `node "lost" does not answer: unreachable`)

	c.nodes.fail(func() error { return errors.New("database is locked at /var/lib/teleport") })
	_, err = open(client, "web", 22)
	requireRejected(t, err, ssh.ConnectionFailed, "the proxy cannot list the nodes now; try again, and tell the administrator if it goes on")
	require.Equal(t, logrus.ErrorLevel, c.log.LastEntry().Level)
	require.Contains(t, c.log.LastEntry().Message, "database is locked")

	// A panic ends the connection, and not the proxy.
	c.nodes.fail(func() error { panic("one of ours") })
	_, err = open(client, "web", 22)
	require.Error(t, err)
	require.Error(t, client.Wait())
	c.nodes.fail(nil)
	_, err = c.login(t).NewSession()
	requireRejected(t, err, ssh.Prohibited, jumpHost)
}

// TestLockedNode: nobody is led to a node that Config.CheckNode refuses, also where
// it has a tunnel, and the others go on.
func TestLockedNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *proxy.Config) {
		cfg.CheckNode = func(_ context.Context, nodeID string) error {
			if nodeID == "uuid-of-locked" {
				return trace.AccessDenied("this host is locked: taken over")
			}
			return nil
		}
	})
	c.nodes.register(t, "uuid-of-locked", "locked", c.node.Addr().String())
	client := c.login(t)
	for _, name := range []string{"locked", "uuid-of-locked"} {
		_, err := open(client, name, 22)
		requireRejected(t, err, ssh.Prohibited, fmt.Sprintf("node %q cannot be reached: this host is locked: taken over", name))
	}
	c.through(t, client)
}

func TestRefusedClient(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, err := ssh.Dial("tcp", c.addr, &ssh.ClientConfig{
		User:            "bob",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(c.ca.Login(t, c.clock.Now().Add(-24*time.Hour)))},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.Error(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = c.recorder.Wait(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, c.proxy.Close())
	events := c.recorder.Events()
	require.Len(t, events, 1)
	require.NotEmpty(t, events[0].ConnAddress)
	events[0].ConnAddress = ""
	require.Equal(t, auditd.Event{
		Type:         auditd.AuditUserErr,
		Result:       auditd.Failed,
		SystemUser:   "bob",
		TeleportUser: "alice",
		Reason:       "certificate-has-expired",
	}, events[0])
}

// TestEachWayEndsByItself: what one side has finished, the other may go on with.
func TestEachWayEndsByItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	client := c.login(t)

	t.Run("the client first", func(t *testing.T) {
		channel, node := c.through(t, client)
		_, err := io.WriteString(channel, "question")
		require.NoError(t, err)
		require.NoError(t, channel.CloseWrite())
		question, err := io.ReadAll(node)
		require.NoError(t, err)
		require.Equal(t, "question", string(question))
		_, err = io.WriteString(node, "answer")
		require.NoError(t, err)
		node.Close()
		answer, err := io.ReadAll(channel)
		require.NoError(t, err)
		require.Equal(t, "answer", string(answer))
	})
	t.Run("the node first", func(t *testing.T) {
		channel, node := c.through(t, client)
		_, err := io.WriteString(node, "question")
		require.NoError(t, err)
		require.NoError(t, node.CloseWrite())
		question, err := io.ReadAll(channel)
		require.NoError(t, err)
		require.Equal(t, "question", string(question))
		_, err = io.WriteString(channel, "answer")
		require.NoError(t, err)
		require.NoError(t, channel.CloseWrite())
		answer, err := io.ReadAll(node)
		require.NoError(t, err)
		require.Equal(t, "answer", string(answer))
	})
	t.Run("the client closes and says nothing more", func(t *testing.T) {
		channel, node := c.through(t, client)
		_, err := io.WriteString(channel, "last words")
		require.NoError(t, err)
		require.NoError(t, channel.Close())
		words, err := io.ReadAll(node)
		require.NoError(t, err)
		require.Equal(t, "last words", string(words))
	})
	t.Run("the node breaks off", func(t *testing.T) {
		channel, node := c.through(t, client)
		require.NoError(t, node.SetLinger(0))
		node.Close()
		_, err := io.ReadAll(channel)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, err := channel.Write([]byte("x"))
			return errors.Is(err, io.EOF)
		}, patience, time.Millisecond, "the channel must be closed both ways")
	})
	t.Run("the client is gone", func(t *testing.T) {
		gone := c.login(t)
		channel, node := c.through(t, gone)
		_, err := io.WriteString(channel, "last words")
		require.NoError(t, err)
		gone.Close()
		words, err := io.ReadAll(node)
		require.NoError(t, err)
		require.Equal(t, "last words", string(words))
	})
}

func TestCarriesEverything(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	channel, node := c.through(t, c.login(t))
	go func() {
		// The node answers with what it gets.
		buffer := make([]byte, 64<<10)
		for {
			n, err := node.Read(buffer)
			if n > 0 {
				_, _ = node.Write(buffer[:n])
			}
			if err != nil {
				_ = node.CloseWrite()
				return
			}
		}
	}()
	sent := make([]byte, 20<<20)
	_, err := rand.Read(sent)
	require.NoError(t, err)
	go func() {
		_, _ = channel.Write(sent)
		_ = channel.CloseWrite()
	}()
	received, err := io.ReadAll(channel)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, received))
}

func TestChannelsAreBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	client := c.login(t)
	var channels []ssh.Channel
	for range 64 {
		channel, _ := c.through(t, client)
		channels = append(channels, channel)
	}
	_, err := open(client, "web", 22)
	requireRejected(t, err, ssh.ResourceShortage, "this connection already has 64 channels open")
	c.through(t, c.login(t)) // another connection has its own
	require.NoError(t, channels[0].Close())
	require.Eventually(t, func() bool {
		channel, err := open(client, "web", 22)
		if err == nil {
			channel.Close()
		}
		return err == nil
	}, patience, time.Millisecond)
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCluster(t)
	client := c.login(t)
	_, node := c.through(t, client)
	// A node that reads nothing must not keep the proxy from ending: more goes
	// in than every buffer on the way holds.
	stuck, _ := c.through(t, client)
	writing := make(chan struct{})
	go func() {
		chunk := make([]byte, 1<<20)
		for i := 0; ; i++ {
			if _, err := stuck.Write(chunk); err != nil {
				return
			}
			if i == 0 {
				close(writing)
			}
		}
	}()
	<-writing

	require.NoError(t, c.proxy.Close())
	_, err := io.ReadAll(node)
	require.NoError(t, err)
	require.Error(t, client.Wait())
	c.node.Close()
	// The condition has a goroutine of its own.
	require.Eventually(t, func() bool { return runtime.NumGoroutine()-1 <= before }, patience, time.Millisecond,
		"goroutines are left over")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := func() proxy.Config {
		return proxy.Config{
			CAs:         &srvtest.CAs{},
			HostSigners: func() []ssh.Signer { return nil },
			Nodes:       &nodes{},
			ClusterName: "example.com",
			Emitter:     &auditdtest.Recorder{},
		}
	}
	_, err := proxy.New(good())
	require.NoError(t, err)
	for want, spoil := range map[string]func(*proxy.Config){
		"no CAs":         func(c *proxy.Config) { c.CAs = nil },
		"no HostSigners": func(c *proxy.Config) { c.HostSigners = nil },
		"no Nodes":       func(c *proxy.Config) { c.Nodes = nil },
		"no ClusterName": func(c *proxy.Config) { c.ClusterName = "" },
		"no Emitter":     func(c *proxy.Config) { c.Emitter = nil },
	} {
		cfg := good()
		spoil(&cfg)
		_, err := proxy.New(cfg)
		require.ErrorContains(t, err, want)
	}
}
