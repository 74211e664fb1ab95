// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The node's side: which proxies to have a tunnel to.

package tunnel

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"
)

const (
	// dialTime is how long the proxy may take to let the node in.
	dialTime = 20 * time.Second
	// firstDelay and lastDelay are between two attempts.
	firstDelay, lastDelay = time.Second, time.Minute
	// lookInterval is how often the agent looks whether its certificate is a new
	// one, and followInterval how often which proxies are registered.
	lookInterval   = 30 * time.Second
	followInterval = 10 * time.Second
	// backlog is how many connections may wait to be accepted.
	backlog = 128
)

// AgentConfig is what NewAgent needs.
type AgentConfig struct {
	// NodeID is the host id of this node, and ClusterName its cluster's.
	NodeID      string
	ClusterName string
	// TunnelAddr returns the tunnel address, host and port, of the proxy that the
	// node was configured with. It is asked each time that the agent dials it.
	TunnelAddr func(ctx context.Context) (string, error)
	// Proxies returns the proxies that are registered, from memory: it is asked
	// every few seconds. The agent has a tunnel to each of them as well. Where it
	// fails they stay those that they were; where it is nil there are none.
	Proxies func() ([]Proxy, error)
	// HostSigners returns the node's keys and certificates; the first with a
	// certificate logs in. A new certificate has the agent dial anew.
	HostSigners func() []ssh.Signer
	// HostCAs returns the keys of the cluster's host authority, which certifies
	// proxies.
	HostCAs func(ctx context.Context) ([]ssh.PublicKey, error)
	// Dial connects to a tunnel address; net.Dialer's where it is nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// KeepAlive is the time between two signs of life. DefaultKeepAlive where it
	// is zero.
	KeepAlive time.Duration
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *AgentConfig) CheckAndSetDefaults() error {
	switch {
	case c.NodeID == "":
		return trace.BadParameter("tunnel.AgentConfig has no NodeID")
	case c.ClusterName == "":
		return trace.BadParameter("tunnel.AgentConfig has no ClusterName")
	case c.TunnelAddr == nil:
		return trace.BadParameter("tunnel.AgentConfig has no TunnelAddr")
	case c.HostSigners == nil:
		return trace.BadParameter("tunnel.AgentConfig has no HostSigners")
	case c.HostCAs == nil:
		return trace.BadParameter("tunnel.AgentConfig has no HostCAs")
	case c.KeepAlive < 0:
		return trace.BadParameter("tunnel.AgentConfig has a negative KeepAlive %v", c.KeepAlive)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = DefaultKeepAlive
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Proxy is a proxy that is registered with the cluster.
type Proxy struct {
	// ID is its host id, which its certificate must have.
	ID string
	// Addr is its tunnel address, host and port. Several proxies may have the same,
	// that of a load balancer.
	Addr string
}

// Agent keeps a tunnel from this node to each proxy of its cluster: to the one that
// the configured address leads to, whichever it is, and to those that are
// registered.
type Agent struct {
	cfg      AgentConfig
	log      logrus.FieldLogger
	listener *listener
	running  sync.WaitGroup
	// connected is closed when there was a tunnel for the first time.
	connected chan struct{}
	once      sync.Once
	// main keeps the tunnel to where the configured address leads.
	main *keeper

	mu sync.Mutex
	// links are the tunnels, by the host id of the proxy, and making those that are
	// being made.
	links  map[string]*link
	making map[string]bool
	// registered are the ids of the proxies that are.
	registered map[string]bool
	// changed is closed when any of this has changed, and replaced.
	changed chan struct{}
}

// NewAgent returns an Agent that dials nobody before Run is called.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	a := &Agent{
		cfg:       cfg,
		log:       cfg.Log.WithField("component", "tunnel"),
		listener:  newListener(),
		connected: make(chan struct{}),
		links:     make(map[string]*link),
		making:    make(map[string]bool),
		changed:   make(chan struct{}),
	}
	a.main = newKeeper(a, "", cfg.TunnelAddr)
	return a, nil
}

// Listener returns what accepts the connections that come through the tunnels, as
// long as Run runs. There is one, however many tunnels there are and however often
// one is made anew.
func (a *Agent) Listener() net.Listener { return a.listener }

// Connected returns what is closed once there was a tunnel.
func (a *Agent) Connected() <-chan struct{} { return a.connected }

// Run keeps the tunnels until ctx ends, then ends all connections through them and
// closes the Listener. Where only the Listener is closed, what is open goes on and
// the proxies are refused new connections. It is called once.
func (a *Agent) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer a.running.Wait()
	defer a.listener.Close()
	defer cancel()

	a.running.Go(func() { a.main.run(ctx, ctx) })
	if a.cfg.Proxies == nil {
		<-ctx.Done()
		return
	}
	keepers := make(map[string]*keeper)
	ticker := a.cfg.Clock.NewTicker(followInterval)
	defer ticker.Stop()
	for {
		a.follow(ctx, keepers)
		select {
		case <-ticker.Chan():
		case <-ctx.Done():
			return
		}
	}
}

// follow has a keeper for each address that proxies are registered with.
func (a *Agent) follow(ctx context.Context, keepers map[string]*keeper) {
	proxies, err := a.cfg.Proxies()
	if err != nil {
		a.log.Debugf("The proxies of the cluster are not known: %v", err)
		return
	}
	registered := make(map[string]bool)
	at := make(map[string]map[string]bool)
	for _, proxy := range proxies {
		if proxy.ID == "" || proxy.Addr == "" || registered[proxy.ID] {
			continue
		}
		registered[proxy.ID] = true
		if at[proxy.Addr] == nil {
			at[proxy.Addr] = make(map[string]bool)
		}
		at[proxy.Addr][proxy.ID] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.registered = registered
	for addr, k := range keepers {
		if k.ids = at[addr]; k.ids == nil {
			k.ids = map[string]bool{}
			k.stop()
			delete(keepers, addr)
		}
	}
	for addr, ids := range at {
		if keepers[addr] != nil {
			continue
		}
		k := newKeeper(a, addr, func(context.Context) (string, error) { return addr, nil })
		k.ids = ids
		own, stop := context.WithCancel(ctx)
		k.stop = stop
		keepers[addr] = k
		a.running.Go(func() { k.run(own, ctx) })
	}
	a.sweep()
	a.notify()
}

// sweep ends the tunnels to proxies that are not registered any more, after what
// goes through them. The configured address may lead to one that never was. The
// caller holds the lock.
func (a *Agent) sweep() {
	for id, l := range a.links {
		if !a.registered[id] && id != a.main.led {
			delete(a.links, id)
			l.log.Infof("The proxy at %v is not registered any more: the tunnel to it ends with the last connection through it.", l.conn.RemoteAddr())
			l.retire()
		}
	}
}

// notify wakes the keepers. The caller holds the lock.
func (a *Agent) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// has tells whether there is a tunnel to the proxy that was made with the node's
// certificate of now, or is about to be. The caller holds the lock.
func (a *Agent) has(id string, cert []byte) bool {
	l := a.links[id]
	return a.making[id] || l != nil && (cert == nil || bytes.Equal(l.cert, cert))
}

// certified returns what the node logs in with.
func (a *Agent) certified() ssh.Signer {
	for _, signer := range a.cfg.HostSigners() {
		if _, ok := signer.PublicKey().(*ssh.Certificate); ok {
			return signer
		}
	}
	return nil
}

func (a *Agent) certificate() []byte {
	if signer := a.certified(); signer != nil {
		return signer.PublicKey().Marshal()
	}
	return nil
}
