// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv/srvtest"
	"teleport-auditd/lib/srv/tunnel"
)

// registry is what an agent is told of the cluster's proxies.
type registry struct {
	mu      sync.Mutex
	proxies []tunnel.Proxy
	err     error
}

func (r *registry) set(proxies ...tunnel.Proxy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proxies = proxies
}

func (r *registry) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *registry) get() ([]tunnel.Proxy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proxies, r.err
}

// patient has a proxy take no silence for a loss, and no login for too long: the clock
// runs faster than answers.
func patient(c *tunnel.ServerConfig) { c.KeepAlive, c.LoginGraceTime = 24*time.Hour, 24*time.Hour }

// peer is another proxy of the cluster that w is of.
func (w *world) peer(t *testing.T, id string) *world {
	t.Helper()
	return w.shows(t, host(t, w.hostCA, id, "Proxy", w.clock.Now()))
}

// shows is another server that shows a key of its own.
func (w *world) shows(t *testing.T, signer ssh.Signer) *world {
	t.Helper()
	other := newWorld(t, patient, func(c *tunnel.ServerConfig) {
		own := &signers{}
		own.set(signer)
		c.HostCAs, c.HostSigners, c.Clock = w.hostCAs.UserCAs, own.get, w.clock
	})
	other.clock = w.clock
	return other
}

// tunnels counts those that the proxy has had.
func (w *world) tunnels() int {
	n := 0
	for _, entry := range w.log.AllEntries() {
		if strings.Contains(entry.Message, "has a tunnel from") {
			n++
		}
	}
	return n
}

// lines are those of the agent's log that have a text.
func lines(log *logtest.Hook, text string) (found []string) {
	for _, entry := range log.AllEntries() {
		if strings.Contains(entry.Message, text) {
			found = append(found, fmt.Sprint(entry.Message, " proxy=", entry.Data["proxy"]))
		}
	}
	return found
}

// follows has an agent follow the registry, and returns its log.
func follows(r *registry) (func(*tunnel.AgentConfig), *logtest.Hook) {
	logger, hook := logtest.NewNullLogger()
	return func(c *tunnel.AgentConfig) { c.Proxies, c.Log, c.KeepAlive = r.get, logger, 24*time.Hour }, hook
}

// waitFor moves the clock until something is so.
func (w *world) waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		if f() {
			return true
		}
		w.clock.Advance(time.Second)
		return false
	}, patience, 2*time.Millisecond, what)
}

// passes sends something through an open connection.
func passes(t *testing.T, from, to net.Conn) {
	t.Helper()
	go func() { _, _ = io.WriteString(from, "x") }()
	_, err := io.ReadFull(to, make([]byte, 1))
	require.NoError(t, err)
}

// TestEachProxy: a node is reached through each proxy, has one tunnel to each, and
// what becomes of one proxy is nothing to the others.
func TestEachProxy(t *testing.T) {
	t.Parallel()
	one := newWorld(t, patient)
	two := one.peer(t, "second")
	proxies := &registry{}
	proxies.set(tunnel.Proxy{ID: "uuid-of-proxy", Addr: one.addr}, tunnel.Proxy{ID: "second", Addr: two.addr}, tunnel.Proxy{ID: "without an address"})
	change, log := follows(proxies)
	own := one.node(t)
	agent, _ := one.agent(t, own, change)

	proxySide, nodeSide := one.pair(t, agent, time.Second)
	passes(t, proxySide, nodeSide)
	secondProxy, secondNode := two.pair(t, agent, time.Second)
	passes(t, secondProxy, secondNode)

	// The second is killed, and what goes through the first goes on.
	require.NoError(t, two.server.Close())
	_, err := secondNode.Read(make([]byte, 1))
	require.Error(t, err)
	one.waitFor(t, "the loss is told", func() bool { return len(lines(log, "has ended")) == 1 })
	require.Equal(t, []string{"The tunnel to the proxy at " + two.addr + " has ended. proxy=second"}, lines(log, "has ended"))
	passes(t, proxySide, nodeSide)

	// It stays away for long, and is told of once.
	said := func() []string { return lines(log, "No tunnel to a proxy that is registered at "+two.addr) }
	one.waitFor(t, "the reason is told", func() bool { return len(said()) > 0 })
	for range 300 {
		one.clock.Advance(time.Second)
		time.Sleep(100 * time.Microsecond)
	}
	require.Len(t, said(), 1)

	// It comes back where it was.
	back, err := net.Listen("tcp", two.addr)
	require.NoError(t, err)
	again := one.peer(t, "second")
	served := make(chan error, 1)
	go func() { served <- again.server.Serve(back) }()
	secondProxy, secondNode = again.pair(t, agent, time.Second)
	passes(t, secondProxy, secondNode)
	passes(t, proxySide, nodeSide)
	require.Equal(t, 1, one.tunnels(), "the first proxy has one tunnel, and had no other")

	// With a new certificate it dials both anew.
	own.set(host(t, one.hostCA, uuid, "Node", one.clock.Now()))
	one.waitFor(t, "both tunnels are made anew", func() bool { return one.tunnels() == 2 && again.tunnels() == 2 })
	passes(t, proxySide, nodeSide)
	require.NoError(t, again.server.Close())
	require.NoError(t, <-served)
}

// TestRegistrationsEnd: a proxy that is not registered any more loses its tunnel
// after what goes through it, but where the node was configured with it. What cannot
// be read is what it was.
func TestRegistrationsEnd(t *testing.T) {
	t.Parallel()
	one := newWorld(t, patient)
	two := one.peer(t, "second")
	proxies := &registry{}
	both := []tunnel.Proxy{{ID: "uuid-of-proxy", Addr: one.addr}, {ID: "second", Addr: two.addr}}
	proxies.set(both...)
	change, log := follows(proxies)
	agent, _ := one.agent(t, one.node(t), change)
	one.pair(t, agent, time.Second)
	proxySide, nodeSide := two.pair(t, agent, time.Second)

	proxies.fail(errors.New("not known yet"))
	one.clock.Advance(time.Minute)
	passes(t, proxySide, nodeSide)
	proxies.fail(nil)
	proxies.set()
	ended := func() []string { return lines(log, "is not registered any more") }
	one.waitFor(t, "the end is told", func() bool { return len(ended()) > 0 })
	require.Equal(t, []string{"The proxy at " + two.addr + " is not registered any more: the tunnel to it ends with the last connection through it. proxy=second"}, ended())
	passes(t, proxySide, nodeSide)
	nodeSide.Close()
	one.waitFor(t, "the tunnel has ended", func() bool { return len(lines(two.log, "A tunnel of node")) == 1 })
	first, second := one.pair(t, agent, time.Second)
	passes(t, first, second)

	proxies.set(both...)
	two.pair(t, agent, time.Second)
	require.Equal(t, 1, one.tunnels())
}

// TestHostileRegistrations: who answers at a registered address gets no tunnel but
// as the proxy that is registered, and takes none from the others.
func TestHostileRegistrations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		shows func(t *testing.T, w *world) ssh.Signer
		why   string
	}{
		"another proxy": {func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, "third", "Proxy", w.clock.Now())
		}, "the proxy third answers there, which is not registered with this address"},
		"a node": {func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, "second", "Node", w.clock.Now())
		}, "another-role"},
		"another authority": {func(t *testing.T, w *world) ssh.Signer {
			return host(t, srvtest.NewAuthority(t), "second", "Proxy", w.clock.Now())
		}, "not-trusted"},
		"another cluster": {func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, "second", "Proxy", w.clock.Now(), func(c *ssh.Certificate) { c.KeyId = "second.example.org" })
		}, "its certificate is of another cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := newWorld(t, patient)
			two := one.shows(t, tt.shows(t, one))
			proxies := &registry{}
			proxies.set(tunnel.Proxy{ID: "uuid-of-proxy", Addr: one.addr}, tunnel.Proxy{ID: "second", Addr: two.addr})
			change, log := follows(proxies)
			agent, _ := one.agent(t, one.node(t), change)
			proxySide, nodeSide := one.pair(t, agent, time.Second)
			said := func() []string { return lines(log, "No tunnel to a proxy that is registered at "+two.addr) }
			one.waitFor(t, "it is said", func() bool { return len(said()) > 0 })
			require.Contains(t, said()[0], tt.why)
			one.clock.Advance(time.Minute)
			passes(t, proxySide, nodeSide)
			require.Zero(t, two.tunnels())
			require.Equal(t, 1, one.tunnels())
		})
	}
}

// TestBalancedName: behind one name of a load balancer there are several proxies,
// and each gets one tunnel.
func TestBalancedName(t *testing.T) {
	t.Parallel()
	const name = "proxies.example.com:3024"
	one := newWorld(t, patient)
	all := []*world{one, one.peer(t, "second"), one.peer(t, "third")}
	proxies := &registry{}
	proxies.set(tunnel.Proxy{ID: "uuid-of-proxy", Addr: name}, tunnel.Proxy{ID: "second", Addr: name}, tunnel.Proxy{ID: "third", Addr: name})
	change, log := follows(proxies)
	agent, _ := one.agent(t, one.node(t), change, func(c *tunnel.AgentConfig) {
		c.TunnelAddr = func(context.Context) (string, error) { return name, nil }
		c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, all[rand.N(len(all))].addr)
		}
	})
	for _, w := range all {
		proxySide, nodeSide := w.pair(t, agent, time.Second)
		passes(t, proxySide, nodeSide)
	}
	one.clock.Advance(time.Minute)
	for _, w := range all {
		require.Equal(t, 1, w.tunnels())
	}
	require.Len(t, lines(log, "There is a tunnel"), 3)
}
