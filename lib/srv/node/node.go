// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package node is the SSH server of a host: it lets people in by certificate
// (lib/srv), and gives each connection a teleport-session, which owns the login
// and runs the user's processes (lib/srv/session).
//
// Most callers need New, Serve and Close:
//
//	server, err := node.New(node.Config{
//		Emitter:        queue,
//		CAs:            cas,
//		HostSigners:    func() []ssh.Signer { return signers },
//		SessionProgram: "/usr/local/bin/teleport-session",
//		UserProgram:    "/usr/local/bin/teleport-user",
//	})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	defer server.Close()
//	err = server.Serve(listener)
//
// Config.Access puts roles and locks before the certificate's own word
// (lib/access), and EndWhere ends what a new lock is about. Config.Events hears
// what the cluster's audit log is to keep.
//
// What is recorded of a login that was made comes from its teleport-session,
// whose thread has the login uid. The node itself records refusals, and the end
// of a login whose teleport-session was killed.
package node

import (
	"context"
	"net"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/pam/pamenv"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/account"
	"teleport-auditd/lib/srv/forward"
	"teleport-auditd/lib/srv/refusals"
)

const (
	// DefaultMaxSessions is how many channels of a connection may run a process
	// at once where Config leaves it out. OpenSSH has the same.
	DefaultMaxSessions = 10
	// DefaultKeepAliveInterval is the time between two questions to the client
	// whether it is still there. Unanswered as often as keepAliveCount, the
	// connection is closed.
	DefaultKeepAliveInterval = 5 * time.Minute

	keepAliveCount = 3
)

// PAM says whether, and with which stack, PAM has a say in logins.
type PAM struct {
	// Enabled runs the stack for every login.
	Enabled bool
	// ServiceName is the stack's file in /etc/pam.d.
	ServiceName string
	// Authenticate has the stack authenticate the person after the certificate,
	// with its questions asked over SSH (keyboard-interactive).
	Authenticate bool
	// Environment is for the modules, and through them for the user.
	Environment pamenv.Environment
}

// GatewayPorts says on which addresses remote forwarding listens.
type GatewayPorts string

// The modes of GatewayPorts, as sshd_config(5) names them.
const (
	// GatewayNo listens on the loopback addresses, whatever the client asks for.
	GatewayNo GatewayPorts = "no"
	// GatewayYes listens on all addresses.
	GatewayYes GatewayPorts = "yes"
	// GatewayClient listens where the client asks for.
	GatewayClient GatewayPorts = "clientspecified"
)

// Config is what New needs.
type Config struct {
	// Emitter takes the node's own events. It must not block.
	Emitter auditd.Emitter
	// Unrecorded counts the records of logins that the kernel did not take.
	// Nil counts them in a Tally that logs to Log.
	Unrecorded *auditd.Tally
	// AuditMode is how much a login depends on its record.
	AuditMode auditd.Mode
	// CAs knows who may sign user certificates.
	CAs srv.CAs
	// HostSigners returns the host's keys and certificates.
	HostSigners func() []ssh.Signer
	// HostUUID and ClusterName reach the user's environment.
	HostUUID, ClusterName string
	// SessionProgram is the absolute path of teleport-session.
	SessionProgram string
	// UserProgram is the absolute path of teleport-user, which every user must
	// be able to run.
	UserProgram string
	// RefuseFileCopy refuses sftp and scp, RefuseForwarding every forwarding but
	// that of the agent.
	RefuseFileCopy, RefuseForwarding bool
	// GatewayPorts says on which addresses remote forwarding listens.
	GatewayPorts GatewayPorts
	// PermitUserEnv reads ~/.ssh/environment, and runs ~/.ssh/rc where the
	// certificate permits it (permit-user-rc), at each start of a process.
	PermitUserEnv bool
	// IdleTimeout ends a connection on which nothing was sent either way for
	// so long; zero never does.
	IdleTimeout time.Duration
	// DisconnectExpired ends a connection when its certificate does.
	DisconnectExpired bool
	// Access decides what somebody with a good certificate may do here, by roles
	// and locks. Nil leaves it to the certificate alone. A *access.Denied says
	// why for the records; any error refuses. It is asked before the client has
	// authenticated, and again when it has, and answers from a cache: clients
	// wait for it.
	Access func(ctx context.Context, identity srv.Identity) (access.Options, error)
	// Events takes the events of the cluster's audit log: the start and the end
	// of each login, and logins that were refused, or how many where there are too
	// many of them. It must not block. Nil has none.
	Events func(apievents.AuditEvent)
	// Hostname and Labels are the node's, for Events.
	Hostname string
	Labels   map[string]string
	// Banner returns what clients see before they authenticate. Nil shows none.
	Banner func() string
	// PAM is off in its zero value.
	PAM PAM
	// KeepDetached leaves processes alone at the end of a connection that have
	// made a session of their own (setsid(2)): daemons, terminal multiplexers.
	KeepDetached bool
	// MaxSessions, MaxStartups, LoginGraceTime and KeepAliveInterval have
	// defaults where they are zero.
	MaxSessions, MaxStartups          int
	LoginGraceTime, KeepAliveInterval time.Duration
	// RekeyInterval is lib/srv's.
	RekeyInterval time.Duration
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
// What lib/srv checks is left to it.
func (c *Config) CheckAndSetDefaults() error {
	mode, err := auditd.ParseMode(string(c.AuditMode))
	if err != nil {
		return trace.BadParameter("node.Config: %v", err)
	}
	c.AuditMode = mode
	switch {
	case !filepath.IsAbs(c.SessionProgram):
		return trace.BadParameter("node.Config: SessionProgram %q is no absolute path", c.SessionProgram)
	case !filepath.IsAbs(c.UserProgram):
		return trace.BadParameter("node.Config: UserProgram %q is no absolute path", c.UserProgram)
	case c.IdleTimeout < 0:
		return trace.BadParameter("node.Config: negative IdleTimeout %v", c.IdleTimeout)
	case c.PAM.Enabled && c.PAM.ServiceName == "":
		return trace.BadParameter("node.Config: PAM is enabled without a ServiceName")
	case c.PAM.Authenticate && !c.PAM.Enabled:
		return trace.BadParameter("node.Config: PAM is to authenticate, and is not enabled")
	case c.MaxSessions < 0 || c.KeepAliveInterval < 0:
		return trace.BadParameter("node.Config: negative MaxSessions %d or KeepAliveInterval %v", c.MaxSessions, c.KeepAliveInterval)
	}
	switch c.GatewayPorts {
	case "":
		c.GatewayPorts = GatewayNo
	case GatewayNo, GatewayYes, GatewayClient:
	default:
		return trace.BadParameter("node.Config: GatewayPorts is %q, and not %q, %q or %q", c.GatewayPorts, GatewayNo, GatewayYes, GatewayClient)
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = DefaultMaxSessions
	}
	if c.KeepAliveInterval == 0 {
		c.KeepAliveInterval = DefaultKeepAliveInterval
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	if c.Unrecorded == nil {
		c.Unrecorded = auditd.NewTally(c.Log, c.Clock)
	}
	return nil
}

// Server is a node.
type Server struct {
	cfg Config
	log logrus.FieldLogger
	// debug says that the log takes what is for developers.
	debug bool
	srv   *srv.Server
	// refusals tells of those who were not let in; nil without Config.Events.
	refusals *refusals.Teller
	// buffers are lent to forwarded connections, outputs to sessions.
	buffers forward.Buffers
	// gates bound the threads that users hold up.
	gates   forward.Gates
	outputs outputBuffers
	// open are the connections whose clients have authenticated.
	openMu sync.Mutex
	open   map[*connection]struct{}
}

// New returns a node that accepts nothing before Serve is called.
func New(cfg Config) (*Server, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	log := cfg.Log.WithField("component", "node")
	s := &Server{cfg: cfg, log: log, debug: log.Logger.IsLevelEnabled(logrus.DebugLevel), open: make(map[*connection]struct{})}
	srvConfig := srv.Config{
		Component:      "node",
		Emitter:        cfg.Emitter,
		FailureEvents:  []auditd.EventType{auditd.AuditUserLogin, auditd.AuditUserErr},
		CAs:            cfg.CAs,
		HostSigners:    cfg.HostSigners,
		LookupUID:      lookupUID,
		Handle:         s.handle,
		Banner:         cfg.Banner,
		RekeyInterval:  cfg.RekeyInterval,
		MaxStartups:    cfg.MaxStartups,
		LoginGraceTime: cfg.LoginGraceTime,
		Clock:          cfg.Clock,
		Log:            cfg.Log,
	}
	if cfg.Access != nil {
		srvConfig.Authorize = func(ctx context.Context, identity srv.Identity) error {
			_, err := cfg.Access(ctx, identity)
			return Refusal(err)
		}
	}
	var err error
	if cfg.Events != nil {
		by := ""
		if cfg.Hostname != "" {
			by = "the node " + cfg.Hostname
		}
		if s.refusals, err = refusals.New(refusals.Config{Emit: cfg.Events, ClusterName: cfg.ClusterName, By: by, Clock: cfg.Clock}); err != nil {
			return nil, trace.Wrap(err)
		}
		srvConfig.Refused = s.refusals.Tell
	}
	if cfg.PAM.Authenticate {
		srvConfig.SecondFactor = s.secondFactor
	}
	if s.srv, err = srv.New(srvConfig); err != nil {
		return nil, trace.Wrap(err)
	}
	return s, nil
}

func lookupUID(login string) (uint32, bool, error) {
	uid, err := account.UID(login)
	if trace.IsNotFound(err) {
		return 0, false, nil
	}
	return uid, err == nil, trace.Wrap(err)
}

// Serve accepts connections on l until Shutdown or Close, and returns nil then.
func (s *Server) Serve(l net.Listener) error { return trace.Wrap(s.srv.Serve(l)) }

// Shutdown stops accepting and waits for the connections to end by themselves,
// or for ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.srv.Shutdown(ctx)
	if err == nil && s.refusals != nil {
		s.refusals.Close()
	}
	return trace.Wrap(err)
}

// Close ends all connections, each with its record, and returns when the last
// one's processes are gone.
func (s *Server) Close() error {
	err := s.srv.Close()
	if s.refusals != nil {
		s.refusals.Close()
	}
	return trace.Wrap(err)
}

// connection is one client that has proven who it is.
type connection struct {
	*srv.Conn
	server *Server
	log    logrus.FieldLogger
	login  *login
	// may is what the client may do, by the roles and by Config.
	may access.Options
	// forwarding is what the client forwards.
	forwarding *forwarding
	// noMore is set when the client has said that it opens no more sessions.
	noMore atomic.Bool
	// sessions counts the session channels, and those processes that have
	// outlived theirs.
	sessions atomic.Int32
	// lastActive is when something was sent last, in ns since 1970; see active.
	lastActive atomic.Int64
	// channels are the open session channels.
	channelsMu sync.Mutex
	channels   map[*channel]struct{}
}

func (s *Server) handle(ctx context.Context, conn *srv.Conn) {
	l, ok := conn.SecondFactor.(*login)
	if !ok {
		l = newLogin(s, conn.Identity, conn.RemoteAddr(), conn.LocalAddr())
	}
	c := &connection{Conn: conn, server: s, log: l.log, login: l, channels: make(map[*channel]struct{})}
	defer s.enter(c)()
	if err := c.authorize(ctx); err != nil {
		c.turnAway(err)
		return
	}
	c.forwarding = newForwarding(c)
	l.adopt(c)
	c.spawn(c.serveRequests)
	defer c.keepAlive()()
	defer c.endIdle()()
	defer c.endExpired()()
	for channel := range conn.Channels {
		c.open(channel)
	}
	c.forwarding.end()
	c.login.end(ctx)
}

// spawn runs f on a goroutine of its own, on which a panic ends this connection
// alone.
func (c *connection) spawn(f func()) {
	go func() {
		defer c.survive()
		f()
	}()
}

// survive is for defer.
func (c *connection) survive() {
	if cause := recover(); cause != nil {
		c.log.Errorf("The connection has ended, because serving it panicked: %v", cause)
		c.log.Debugf("%s", debug.Stack())
		_ = c.Close()
	}
}

// open answers the client's wish for a channel.
func (c *connection) open(channel ssh.NewChannel) {
	c.active()
	refuse := func(reason ssh.RejectionReason, text string) { _ = channel.Reject(reason, text) }
	switch channel.ChannelType() {
	case "session":
		if c.noMore.Load() {
			refuse(ssh.Prohibited, "you have said that you open no more sessions")
			return
		}
		if n := c.sessions.Add(1); int(n) > c.server.cfg.MaxSessions {
			c.sessions.Add(-1)
			refuse(ssh.ResourceShortage, "too many sessions are open on this connection (max_sessions)")
			return
		}
		ch, requests, err := channel.Accept()
		if err != nil {
			c.sessions.Add(-1)
			return
		}
		c.spawn(func() { c.serveSession(ch, requests) })
	case "direct-tcpip", "direct-streamlocal@openssh.com":
		c.forwarding.open(channel)
	case "x11":
		refuse(ssh.Prohibited, "this node forwards no X11")
	default:
		refuse(ssh.UnknownChannelType, "this node knows sessions only")
	}
}

// keepAlive asks the client, from time to time, whether it is there, and closes
// the connection of one that does not answer any more: its machine may be gone,
// and its login would never end. It returns what stops it.
func (c *connection) keepAlive() (stop func()) {
	interval := c.server.cfg.KeepAliveInterval
	var mu sync.Mutex
	var timer clockwork.Timer
	waiting, stopped := 0, false
	ask := func() {
		defer c.survive()
		mu.Lock()
		if stopped {
			mu.Unlock()
			return
		}
		waiting++
		first, lost := waiting == 1, waiting > keepAliveCount
		if !lost {
			timer.Reset(interval)
		}
		mu.Unlock()
		switch {
		case lost:
			c.log.Warnf("The client has not answered for %v: closing its connection.", keepAliveCount*interval)
			_ = c.Close()
		case first:
			// Otherwise the question of the last time is still open.
			if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err == nil {
				mu.Lock()
				waiting = 0
				mu.Unlock()
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = c.server.cfg.Clock.AfterFunc(interval, ask)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}
