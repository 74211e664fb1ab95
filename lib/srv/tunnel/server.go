// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The proxy's side: which tunnels there are, and which one to take.

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv"
)

const (
	// maxTunnels is how many tunnels one node may have: the one that it uses, one
	// that takes its place, and some that it has lost and that are still
	// believed to be there. One more ends the oldest.
	maxTunnels = 4
	// nextAfter is how long the newest tunnel may take before the one before it
	// is tried as well.
	nextAfter = 2 * time.Second
	// maxShown is how much of a name that others chose a line repeats.
	maxShown = 100
)

// ServerConfig is what NewServer needs.
type ServerConfig struct {
	// CAs, HostSigners, Authorize, Refused, Emitter, MaxStartups, LoginGraceTime,
	// Clock and Log are those of srv.Config. CAs are for those who want to reach
	// the auth server; Authorize is asked about nodes, too, which have a HostID.
	CAs         srv.CAs
	HostSigners func() []ssh.Signer
	Authorize   func(ctx context.Context, identity srv.Identity) error
	Refused     func(srv.Refused)
	Emitter     auditd.Emitter
	// HostCAs returns the keys of the cluster's host authority, which certifies
	// nodes. It is asked at each login.
	HostCAs func(ctx context.Context) ([]ssh.PublicKey, error)
	// ClusterName is the cluster's.
	ClusterName string
	// DialAuth opens a connection to an auth server.
	DialAuth func(ctx context.Context) (net.Conn, error)
	// Redial is how long Dial waits for a node that has no tunnel: one that has
	// lost it tries again within a second or two. DefaultRedial where it is zero,
	// and below that Dial does not wait.
	Redial time.Duration
	// KeepAlive is the time between two signs of life. DefaultKeepAlive where it
	// is zero.
	KeepAlive      time.Duration
	MaxStartups    int
	LoginGraceTime time.Duration
	Clock          clockwork.Clock
	Log            logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be. What
// srv.Config has as well is checked there.
func (c *ServerConfig) CheckAndSetDefaults() error {
	switch {
	case c.HostCAs == nil:
		return trace.BadParameter("tunnel.ServerConfig has no HostCAs")
	case c.ClusterName == "":
		return trace.BadParameter("tunnel.ServerConfig has no ClusterName")
	case c.DialAuth == nil:
		return trace.BadParameter("tunnel.ServerConfig has no DialAuth")
	case c.KeepAlive < 0:
		return trace.BadParameter("tunnel.ServerConfig has a negative KeepAlive %v", c.KeepAlive)
	}
	if c.Redial == 0 {
		c.Redial = DefaultRedial
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

// Server accepts the tunnels of nodes.
type Server struct {
	cfg ServerConfig
	log logrus.FieldLogger
	srv *srv.Server

	mu sync.Mutex
	// tunnels are the nodes' by host id, the newest last.
	tunnels map[string][]*tunnel
	// changed is closed when a tunnel has come, and replaced.
	changed chan struct{}
}

// tunnel is the connection of one node. What changes is guarded by Server.mu.
type tunnel struct {
	nodeID string
	conn   *srv.Conn
	// conns is how many connections are open or being opened.
	conns int
	// retired says that no more are to be: it is closed after the last.
	retired bool
}

// NewServer returns a Server that accepts nothing before Serve is called.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	const component = "tunnel"
	s := &Server{cfg: cfg, log: cfg.Log.WithField("component", component), tunnels: make(map[string][]*tunnel), changed: make(chan struct{})}
	var err error
	s.srv, err = srv.New(srv.Config{
		Component:      component,
		Emitter:        cfg.Emitter,
		FailureEvents:  []auditd.EventType{auditd.AuditUserErr},
		CAs:            cfg.CAs,
		Hosts:          &srv.Hosts{CAs: cfg.HostCAs, Role: roleNode, ClusterName: cfg.ClusterName},
		HostSigners:    cfg.HostSigners,
		Authorize:      cfg.Authorize,
		Refused:        cfg.Refused,
		Handle:         s.handle,
		MaxStartups:    cfg.MaxStartups,
		LoginGraceTime: cfg.LoginGraceTime,
		Clock:          cfg.Clock,
		Log:            cfg.Log,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return s, nil
}

// Serve accepts connections from l until Shutdown or Close, as srv.Server does.
func (s *Server) Serve(l net.Listener) error { return s.srv.Serve(l) }

// Shutdown stops accepting and waits until nodes and users have left by
// themselves, or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	for _, tunnels := range s.tunnels {
		for _, t := range tunnels {
			s.retire(t)
		}
	}
	s.mu.Unlock()
	return s.srv.Shutdown(ctx)
}

// Close stops accepting, closes all tunnels and what goes through them, and waits
// until they have ended.
func (s *Server) Close() error { return s.srv.Close() }

// EndWhere closes the tunnels, and what goes through them, of the nodes whose host
// id end picks.
func (s *Server) EndWhere(end func(nodeID string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for nodeID, tunnels := range s.tunnels {
		if !end(nodeID) {
			continue
		}
		for _, t := range tunnels {
			t.retired = true
			t.conn.Close() // it is removed when it has ended
		}
	}
}

// handle is one connection, of a node or of a user.
func (s *Server) handle(ctx context.Context, conn *srv.Conn) {
	go ssh.DiscardRequests(conn.Requests)
	// What is open already ends by itself, once the other end has what was sent.
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	go keepAlive(alive, conn, s.cfg.Clock, s.cfg.KeepAlive)

	if conn.Identity.HostID != "" {
		t := &tunnel{nodeID: conn.Identity.HostID, conn: conn}
		s.add(t)
		defer s.remove(t)
		if end := conn.Identity.ValidBefore; !end.IsZero() {
			// The node has come with a newer certificate by then, or is no
			// longer one of the cluster's.
			timer := s.cfg.Clock.AfterFunc(end.Sub(s.cfg.Clock.Now()), func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.retire(t)
			})
			defer timer.Stop()
		}
	}
	var transports sync.WaitGroup
	defer transports.Wait()
	defer cancel()
	open := make(chan struct{}, maxTransports)
	for channel := range conn.Channels {
		if channel.ChannelType() != constants.ChanTransport {
			s.reject(channel, ssh.Prohibited, "this port is for the tunnels of nodes, and leads users to the auth server only; to reach a node use the proxy's SSH port")
			continue
		}
		select {
		case open <- struct{}{}:
		default:
			s.reject(channel, ssh.ResourceShortage, fmt.Sprintf("this connection already has %d channels open", maxTransports))
			continue
		}
		transports.Go(func() {
			defer func() { <-open }()
			s.transport(ctx, alive, conn, channel)
		})
	}
}

func (s *Server) reject(channel ssh.NewChannel, reason ssh.RejectionReason, message string) {
	if err := channel.Reject(reason, message); err != nil {
		s.log.Debugf("A client was gone before it could be refused a channel: %v", err)
	}
}

func (s *Server) add(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tunnels := append(s.tunnels[t.nodeID], t)
	s.tunnels[t.nodeID] = tunnels
	close(s.changed)
	s.changed = make(chan struct{})
	s.log.Infof("Node %q has a tunnel from %v.", t.nodeID, t.conn.RemoteAddr())
	if len(tunnels) > maxTunnels {
		// It is removed when it has ended.
		tunnels[0].conn.Close()
	}
}

func (s *Server) remove(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(s.tunnels[t.nodeID], func(other *tunnel) bool { return other == t })
	if len(rest) == 0 {
		delete(s.tunnels, t.nodeID)
	} else {
		s.tunnels[t.nodeID] = rest
	}
	s.log.Infof("A tunnel of node %q from %v has ended.", t.nodeID, t.conn.RemoteAddr())
}

// retire has a tunnel end when nothing goes through it any more. The caller holds
// the lock.
func (s *Server) retire(t *tunnel) {
	t.retired = true
	if t.conns == 0 {
		t.conn.Close()
	}
}

// acquire counts a connection through t, unless it may have none more.
func (s *Server) acquire(t *tunnel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.retired || t.conns >= maxConns {
		return false
	}
	t.conns++
	return true
}

func (s *Server) release(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.conns--
	if t.retired && t.conns == 0 {
		t.conn.Close()
	}
}

// Dial opens a connection to the node with this host id, through the newest of
// its tunnels that answers. The error is trace.NotFound where the node has none
// and dials in no more within a few seconds,
// trace.LimitExceeded where each has as many connections as it may, and
// trace.ConnectionProblem where none answers before ctx ends.
func (s *Server) Dial(ctx context.Context, nodeID string) (net.Conn, error) {
	tunnels, err := s.await(ctx, nodeID)
	if err != nil {
		return nil, trace.Wrap(err)
	}

	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer, len(tunnels))
	asked, answered := 0, 0
	ask := func() {
		t := tunnels[asked]
		asked++
		go func() {
			conn, err := s.open(t)
			answers <- answer{conn, err}
		}()
	}
	defer func() {
		// The others answer as well, or end.
		go func(left int) {
			for range left {
				if late := <-answers; late.conn != nil {
					late.conn.Close()
				}
			}
		}(asked - answered)
	}()
	ask()
	timer := s.cfg.Clock.NewTimer(nextAfter)
	defer timer.Stop()
	for {
		select {
		case a := <-answers:
			answered++
			if a.err == nil {
				return a.conn, nil
			}
			if asked < len(tunnels) {
				ask()
			} else if answered == asked {
				return nil, trace.Wrap(a.err)
			}
		case <-timer.Chan():
			if asked < len(tunnels) {
				ask()
				timer.Reset(nextAfter)
			}
		case <-ctx.Done():
			return nil, trace.ConnectionProblem(ctx.Err(), "the tunnel of node %q does not answer", cut(nodeID))
		}
	}
}

// await returns the tunnels of a node, the newest first. A node that has none may
// be about to dial in again, as after a restart of either end.
func (s *Server) await(ctx context.Context, nodeID string) ([]*tunnel, error) {
	timer := s.cfg.Clock.NewTimer(max(0, s.cfg.Redial))
	defer timer.Stop()
	for {
		s.mu.Lock()
		tunnels := slices.DeleteFunc(slices.Clone(s.tunnels[nodeID]), func(t *tunnel) bool { return t.retired })
		changed := s.changed
		s.mu.Unlock()
		if len(tunnels) > 0 {
			slices.Reverse(tunnels)
			return tunnels, nil
		}
		select {
		case <-changed:
		case <-timer.Chan():
			return nil, trace.NotFound("the node %q has no tunnel to this proxy", cut(nodeID))
		case <-ctx.Done():
			return nil, trace.NotFound("the node %q has no tunnel to this proxy", cut(nodeID))
		}
	}
}

// open opens a connection through one tunnel. It returns when the node has
// answered, or the tunnel has ended.
func (s *Server) open(t *tunnel) (net.Conn, error) {
	if !s.acquire(t) {
		return nil, trace.LimitExceeded("the tunnel of node %q has as many connections as it may", cut(t.nodeID))
	}
	channel, requests, err := t.conn.OpenChannel(channelConn, nil)
	var refused *ssh.OpenChannelError
	switch {
	case err == nil:
		return newConn(channel, requests, t.conn.LocalAddr(), t.conn.RemoteAddr(), func() { s.release(t) }), nil
	case errors.As(err, &refused):
		err = trace.LimitExceeded("the node %q refuses a connection through its tunnel: %q", cut(t.nodeID), cut(refused.Message))
	default:
		// It is over, whatever its connection says.
		t.conn.Close()
		err = trace.ConnectionProblem(err, "the tunnel of node %q has ended", cut(t.nodeID))
	}
	s.release(t)
	return nil, err
}

// cut keeps a name that others chose short.
func cut(name string) string { return name[:min(len(name), maxShown)] }
