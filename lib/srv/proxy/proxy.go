// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package proxy is the jump host: it takes a client with a certificate to a
// registered node, and nowhere else.
//
// Most callers need New, Serve and Close:
//
//	server, err := proxy.New(proxy.Config{
//		CAs:         cas,
//		HostSigners: func() []ssh.Signer { return signers },
//		Nodes:       authServer,
//		ClusterName: "example.com",
//		Emitter:     queue,
//	})
//	if err != nil {
//		return err
//	}
//	defer server.Close()
//	err = server.Serve(listener)
//
// A client then reaches the node "web" with
//
//	ssh -J bob@PROXY:3023 bob@web
//
// The proxy sees only the ciphertext between the client and the node, which
// authenticates the client again. So the proxy runs no sessions, knows no
// logins of its host, and tells the audit system about those whom it refuses,
// and of nothing else.
//
// # Which nodes
//
// A destination is a registered node by the node's UUID, by its name, or by its
// name and the cluster's (web.example.com), with the port that it registered, 22
// (ssh's default) or 0; by the address and port that it registered; or by labels
// (env=prod, or env=prod,tier=db or env=prod+tier=db, where all must match). What
// fits several nodes is refused. The proxy only ever connects to addresses that
// nodes registered, and never looks up a name that a client gave. A node that has
// registered no address, or that it uses a tunnel, is reached through
// Config.Tunnels.
//
// # The client's address
//
// With Config.Headers each connection to a node begins with a header that tells
// the node, signed, where the client is (package clientaddr).
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/clientaddr"
	"teleport-auditd/lib/srv/relay"
)

const (
	// maxChannels bounds what one client may keep open through one connection.
	maxChannels = 64
	// dialTimeout is how long a node may take to answer.
	dialTimeout = 10 * time.Second
)

// NodeLister knows the registered nodes.
type NodeLister interface {
	// Nodes is asked each time that a client wants to go somewhere.
	Nodes(ctx context.Context) ([]types.Server, error)
}

// Tunnels are the connections that nodes have made to this proxy: tunnel.Server.
type Tunnels interface {
	// Dial opens a connection to the node with this host id. The error is
	// trace.NotFound where the node has no tunnel to this proxy.
	Dial(ctx context.Context, nodeID string) (net.Conn, error)
}

// Headers tells nodes a client's address: clientaddr.Signer.
type Headers interface {
	// Header is what a connection to the node with this host id begins with.
	Header(client net.Addr, nodeID string, now time.Time) ([]byte, error)
}

// Config is what New needs.
type Config struct {
	// CAs, HostSigners, Authorize, Refused, Emitter, MaxStartups, LoginGraceTime,
	// Clock and Log are those of srv.Config. The login of a proxy's client means
	// nothing: Authorize is for locks, and roles are the node's to decide by.
	CAs         srv.CAs
	HostSigners func() []ssh.Signer
	Authorize   func(ctx context.Context, identity srv.Identity) error
	Refused     func(srv.Refused)
	// Nodes knows where clients may go.
	Nodes NodeLister
	// Tunnels leads to the nodes that dial out. Where it is nil, they cannot be
	// reached.
	Tunnels Tunnels
	// CheckNode refuses to lead anybody to the node with this host id, as where
	// it is locked: the error's text is for the client. Where it is nil, all
	// registered nodes can be reached.
	CheckNode func(ctx context.Context, nodeID string) error
	// Headers makes what tells nodes the client's address. Where it is nil,
	// nodes see the proxy's. Nodes of OpenSSH's are told nothing.
	Headers Headers
	// ClusterName may follow a node's name, after a dot.
	ClusterName    string
	Emitter        auditd.Emitter
	MaxStartups    int
	LoginGraceTime time.Duration
	Clock          clockwork.Clock
	Log            logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
// What srv.Config has as well is checked there.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.Nodes == nil:
		return trace.BadParameter("proxy.Config has no Nodes")
	case c.ClusterName == "":
		return trace.BadParameter("proxy.Config has no ClusterName")
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Server is a jump host.
type Server struct {
	cfg Config
	log logrus.FieldLogger
	srv *srv.Server
}

// New returns a Server that accepts nothing before Serve is called.
func New(cfg Config) (*Server, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	const component = "proxy"
	s := &Server{cfg: cfg, log: cfg.Log.WithField("component", component)}
	var err error
	s.srv, err = srv.New(srv.Config{
		Component:      component,
		Emitter:        cfg.Emitter,
		FailureEvents:  []auditd.EventType{auditd.AuditUserErr},
		CAs:            cfg.CAs,
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

// Shutdown stops accepting and waits until the clients have left by themselves,
// or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.srv.Shutdown(ctx) }

// Close stops accepting, closes all connections, and waits until they have ended.
func (s *Server) Close() error { return s.srv.Close() }

// handle is one client's connection.
func (s *Server) handle(ctx context.Context, conn *srv.Conn) {
	waiting, cancel := context.WithCancel(ctx)
	var forwards sync.WaitGroup
	defer forwards.Wait()
	// The client has gone: nobody waits for a node's answer any more. What is
	// open already ends by itself, once the node has what the client sent.
	defer cancel()

	// It grants none. A keepalive is one of them, and any answer is a sign of
	// life.
	go ssh.DiscardRequests(conn.Requests)

	var open atomic.Int32
	for channel := range conn.Channels {
		switch channel.ChannelType() {
		case "direct-tcpip":
			if open.Add(1) > maxChannels {
				open.Add(-1)
				s.reject(channel, ssh.ResourceShortage, fmt.Sprintf("this connection already has %d channels open", maxChannels))
				continue
			}
			forwards.Go(func() {
				defer open.Add(-1)
				defer func() {
					if cause := recover(); cause != nil {
						s.log.Errorf("The connection from %v has ended, because forwarding panicked: %v", conn.RemoteAddr(), cause)
						s.log.Debugf("%s", debug.Stack())
						conn.Close()
					}
				}()
				if target, ok := s.connect(waiting, conn, channel); ok {
					s.forward(ctx, channel, target)
				}
			})
		case "session":
			s.reject(channel, ssh.Prohibited, "this proxy is a jump host and runs no sessions; to reach a node use: ssh -J LOGIN@PROXY:PORT LOGIN@NODE")
		default:
			s.reject(channel, ssh.UnknownChannelType, "this proxy is a jump host and only opens connections to nodes")
		}
	}
}

// reject tells the client why not. OpenSSH's client shows the reason and the
// message on one line.
func (s *Server) reject(channel ssh.NewChannel, reason ssh.RejectionReason, message string) {
	if err := channel.Reject(reason, message); err != nil {
		s.log.Debugf("A client was gone before it could be refused a channel: %v", err)
	}
}

// connect connects to the node that a direct-tcpip channel asks for, or rejects
// the channel.
func (s *Server) connect(ctx context.Context, conn *srv.Conn, channel ssh.NewChannel) (net.Conn, bool) {
	var request struct { // RFC 4254, section 7.2
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(channel.ExtraData(), &request); err != nil {
		s.reject(channel, ssh.Prohibited, "the request for a connection is malformed")
		return nil, false
	}
	log := s.log.WithFields(logrus.Fields{
		"addr": conn.RemoteAddr().String(),
		"user": short(conn.Identity.TeleportUser),
	})

	nodes, err := s.cfg.Nodes.Nodes(ctx)
	if err != nil {
		log.Errorf("Could not list the nodes, so that nobody reaches any: %v", err)
		s.reject(channel, ssh.ConnectionFailed, "the proxy cannot list the nodes now; try again, and tell the administrator if it goes on")
		return nil, false
	}
	node, err := find(nodes, s.cfg.ClusterName, request.Host, request.Port)
	if err != nil {
		log.Infof("Refused a connection: %v", err)
		s.reject(channel, ssh.Prohibited, err.Error())
		return nil, false
	}

	if s.cfg.CheckNode != nil {
		if err := s.cfg.CheckNode(ctx, node.GetName()); err != nil {
			log.Infof("Refused a connection to node %q (%s): %v", node.GetHostname(), node.GetName(), trace.UserMessage(err))
			s.reject(channel, ssh.Prohibited, fmt.Sprintf("node %q cannot be reached: %s", short(request.Host), trace.UserMessage(err)))
			return nil, false
		}
	}

	target, err := s.dial(ctx, conn.RemoteAddr(), node)
	if err != nil {
		log.Warnf("Node %q (%s) does not answer: %v", node.GetHostname(), node.GetName(), err)
		s.reject(channel, ssh.ConnectionFailed, fmt.Sprintf("node %q does not answer: %s", short(request.Host), describeDial(err)))
		return nil, false
	}
	log.Infof("Opened a connection to node %q (%s).", node.GetHostname(), node.GetName())
	return target, true
}

// dial opens a connection to a node, and tells the node who the client is.
func (s *Server) dial(ctx context.Context, client net.Addr, node types.Server) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	target, err := s.reach(ctx, node)
	if err != nil {
		return nil, err
	}
	if s.cfg.Headers == nil || node.IsOpenSSHNode() {
		return target, nil
	}
	header, err := s.cfg.Headers.Header(client, node.GetName(), s.cfg.Clock.Now())
	if err == nil {
		err = clientaddr.Write(target, header)
	}
	if err != nil {
		target.Close()
		// Not of the error's kind: it is no node that was not found.
		return nil, trace.Errorf("telling the node the client's address: %v", err)
	}
	return target, nil
}

// reach goes where the node has said that it is.
func (s *Server) reach(ctx context.Context, node types.Server) (net.Conn, error) {
	if !node.GetUseTunnel() && node.GetAddr() != "" {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", node.GetAddr())
	}
	if s.cfg.Tunnels == nil {
		return nil, trace.NotFound("it is behind a tunnel, and this proxy has none")
	}
	return s.cfg.Tunnels.Dial(ctx, node.GetName())
}

// forward serves a channel whose node has answered, to its end.
func (s *Server) forward(ctx context.Context, channel ssh.NewChannel, target net.Conn) {
	defer target.Close()
	client, requests, err := channel.Accept()
	if err != nil {
		s.log.Debugf("A client was gone before its connection to a node was open: %v", err)
		return
	}
	relay.Channel(ctx, client, requests, target)
}

// describeDial says why a node could not be reached, without its address, which
// is not the client's business.
func describeDial(err error) string {
	var timeout net.Error
	switch {
	case trace.IsNotFound(err):
		return "it has no tunnel to this proxy now"
	case errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	}
	return "unreachable"
}
