// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The node's side: to have a tunnel, and to have it again when it has ended.

package tunnel

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/notice"
	"teleport-auditd/lib/srv"
)

const (
	// dialTime is how long the proxy may take to let the node in.
	dialTime = 20 * time.Second
	// firstDelay and lastDelay are between two attempts.
	firstDelay, lastDelay = time.Second, time.Minute
	// lookInterval is how often the agent looks whether its certificate is a new
	// one.
	lookInterval = 30 * time.Second
	// backlog is how many connections may wait to be accepted.
	backlog = 128
)

// AgentConfig is what NewAgent needs.
type AgentConfig struct {
	// NodeID is the host id of this node, and ClusterName its cluster's.
	NodeID      string
	ClusterName string
	// TunnelAddr returns the proxy's tunnel address, host and port. It is asked
	// each time that the agent dials.
	TunnelAddr func(ctx context.Context) (string, error)
	// HostSigners returns the node's keys and certificates; the first with a
	// certificate logs in. A new certificate has the agent dial anew.
	HostSigners func() []ssh.Signer
	// HostCAs returns the keys of the cluster's host authority, which certifies
	// proxies.
	HostCAs func(ctx context.Context) ([]ssh.PublicKey, error)
	// Dial connects to TunnelAddr; net.Dialer's where it is nil.
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

// Agent keeps a tunnel from this node to one proxy.
type Agent struct {
	cfg      AgentConfig
	log      logrus.FieldLogger
	listener *listener
	trouble  *notice.Notice
	running  sync.WaitGroup
	// connected is closed when there was a tunnel for the first time.
	connected chan struct{}
	once      sync.Once
}

// NewAgent returns an Agent that dials nobody before Run is called.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	a := &Agent{cfg: cfg, log: cfg.Log.WithField("component", "tunnel"), listener: newListener(), connected: make(chan struct{})}
	a.trouble = notice.New(cfg.Clock, func(times int, last error) {
		a.log.Warnf("No tunnel to the proxy: %v. Times since the last such line: %d. Trying goes on.", last, times)
	})
	return a, nil
}

// Listener returns what accepts the connections that come through the tunnels, as
// long as Run runs. There is one, however often the tunnel is made anew.
func (a *Agent) Listener() net.Listener { return a.listener }

// Connected returns what is closed once there was a tunnel.
func (a *Agent) Connected() <-chan struct{} { return a.connected }

// Run keeps the tunnel until ctx ends, then ends all connections through it and
// closes the Listener. Where only the Listener is closed, what is open goes on and
// the proxy is refused new connections. It is called once.
func (a *Agent) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer a.trouble.Close()
	defer a.running.Wait()
	defer a.listener.Close()
	defer cancel()

	var current *link
	var since time.Time
	delay := firstDelay
	for ctx.Err() == nil {
		next, err := a.connect(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			a.trouble.Happened(err)
		} else {
			a.log.Infof("There is a tunnel to the proxy at %v.", next.conn.RemoteAddr())
			a.once.Do(func() { close(a.connected) })
			if current != nil {
				// What goes through it may go on.
				current.retire()
			}
			current, since = next, a.cfg.Clock.Now()
			a.running.Go(func() { a.serve(ctx, next) })
		}
		if current != nil && !isClosed(current.ended) && bytes.Equal(current.cert, a.certificate()) {
			if renewed := a.watch(ctx, current); renewed {
				continue
			}
			if ctx.Err() != nil {
				return
			}
			a.trouble.Happened(trace.ConnectionProblem(nil, "the one to %v has ended", current.conn.RemoteAddr()))
			if a.cfg.Clock.Since(since) > lastDelay {
				// One that ends at once each time does so no more often than one
				// that cannot be made.
				delay = firstDelay
			}
		}
		// Between half and all of it, so that nodes do not come all at once when
		// a proxy is there again.
		wait := delay/2 + rand.N(delay/2+1)
		delay = min(2*delay, lastDelay)
		timer := a.cfg.Clock.NewTimer(wait)
		select {
		case <-timer.Chan():
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// watch waits for the end of l, or of ctx, or for a new certificate, which it
// tells.
func (a *Agent) watch(ctx context.Context, l *link) (renewed bool) {
	ticker := a.cfg.Clock.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.Chan():
			if cert := a.certificate(); cert != nil && !bytes.Equal(cert, l.cert) {
				return true
			}
		case <-l.ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
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

// link is one tunnel.
type link struct {
	conn     ssh.Conn
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
	// cert is what the node has logged in with.
	cert []byte
	// ended is closed when nothing more comes.
	ended chan struct{}

	mu      sync.Mutex
	conns   int
	retired bool
}

// connect makes a tunnel.
func (a *Agent) connect(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	signer := a.certified()
	if signer == nil {
		return nil, trace.NotFound("this node has no certificate yet")
	}
	addr, err := a.cfg.TunnelAddr(ctx)
	if err != nil {
		return nil, trace.Errorf("finding the proxy's tunnel address: %v", err)
	}
	tcp, err := a.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, trace.Errorf("the proxy's tunnel port %v cannot be reached: %v", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	var accepted []byte
	conn, channels, requests, err := ssh.NewClientConn(tcp, addr, &ssh.ClientConfig{
		Config:        srv.ClientAlgorithms(),
		ClientVersion: srv.ClientVersion,
		User:          a.cfg.NodeID,
		Auth:          []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			// It is called for each exchange of keys. A proxy that was let in
			// stays the one that it is when its certificate has ended.
			if accepted != nil && bytes.Equal(accepted, key.Marshal()) {
				return nil
			}
			if err := a.checkProxy(ctx, key); err != nil {
				return err
			}
			accepted = key.Marshal()
			return nil
		},
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
	})
	if err == nil && !stop() {
		err = ctx.Err()
		conn.Close()
	}
	if err != nil {
		stop()
		tcp.Close()
		return nil, trace.Errorf("the proxy at %v and this node do not agree: %v", addr, err)
	}
	return &link{
		conn:     conn,
		channels: channels,
		requests: requests,
		cert:     signer.PublicKey().Marshal(),
		ended:    make(chan struct{}),
	}, nil
}

// checkProxy lets the node talk to proxies of its cluster only. Which one it is
// does not matter: it has the node's word and gives its own.
func (a *Agent) checkProxy(ctx context.Context, key ssh.PublicKey) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return trace.AccessDenied("it shows no certificate")
	}
	cas, err := a.cfg.HostCAs(ctx)
	if err != nil {
		return trace.Errorf("the host authorities could not be read: %v", err)
	}
	return trace.Wrap(srv.CheckHostCert(cert, cas, roleProxy, a.cfg.Clock.Now()))
}

// serve accepts what the proxy opens, until the tunnel or ctx has ended.
func (a *Agent) serve(ctx context.Context, l *link) {
	defer close(l.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	go keepAlive(ctx, l.conn, a.cfg.Clock, a.cfg.KeepAlive)
	go ssh.DiscardRequests(l.requests)
	for channel := range l.channels {
		if channel.ChannelType() != channelConn {
			a.reject(channel, ssh.UnknownChannelType, "this node takes connections only")
			continue
		}
		if !l.acquire() {
			a.reject(channel, ssh.ResourceShortage, "the tunnel has as many connections as it may")
			continue
		}
		if !a.listener.acquire() {
			l.release()
			a.reject(channel, ssh.ResourceShortage, "the node does not take connections fast enough")
			continue
		}
		accepted, requests, err := channel.Accept()
		if err != nil {
			l.release()
			a.listener.release()
			continue // the tunnel has ended
		}
		a.listener.deliver(newConn(accepted, requests, l.conn.LocalAddr(), l.conn.RemoteAddr(), l.release))
	}
	l.conn.Close()
}

func (a *Agent) reject(channel ssh.NewChannel, reason ssh.RejectionReason, message string) {
	if err := channel.Reject(reason, message); err != nil {
		a.log.Debugf("The proxy was gone before it could be refused a connection: %v", err)
	}
}

// acquire counts a connection, unless there may be none more.
func (l *link) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= maxConns {
		return false
	}
	l.conns++
	return true
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns--
	if l.retired && l.conns == 0 {
		l.conn.Close()
	}
}

// retire has the tunnel end when nothing goes through it any more.
func (l *link) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	if l.conns == 0 {
		l.conn.Close()
	}
}

// listener hands out what comes through the tunnels.
type listener struct {
	queue  chan net.Conn
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{
		queue:  make(chan net.Conn, backlog),
		slots:  make(chan struct{}, backlog),
		closed: make(chan struct{}),
	}
}

// acquire takes a place in the queue, which Accept gives back.
func (l *listener) acquire() bool {
	if isClosed(l.closed) {
		return false
	}
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *listener) release() { <-l.slots }

// deliver never waits: the place is there.
func (l *listener) deliver(c net.Conn) {
	l.queue <- c
	if isClosed(l.closed) {
		l.drain()
	}
}

// drain closes what nobody accepts.
func (l *listener) drain() {
	for {
		select {
		case c := <-l.queue:
			l.release()
			c.Close()
		default:
			return
		}
	}
}

// Accept waits for the next connection. The error is net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	if isClosed(l.closed) {
		return nil, net.ErrClosed
	}
	select {
	case c := <-l.queue:
		l.release()
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.drain()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr{} }

// addr is where a tunnel listens: nowhere.
type addr struct{}

func (addr) Network() string { return "tunnel" }
func (addr) String() string  { return "the tunnel to the proxy" }
