// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package srv lets people in over SSH by certificate, and tells the audit
// system about those whom it refuses. The node and the proxy are built on it.
//
// Most callers need New, Serve and Close. Whoever has proven a certificate of a
// trusted authority arrives in Config.Handle as a Conn, with an Identity that
// says who it is and what the certificate permits:
//
//	server, err := srv.New(srv.Config{
//		Component:     "node",
//		Emitter:       queue,
//		FailureEvents: []auditd.EventType{auditd.AuditUserLogin, auditd.AuditUserErr},
//		CAs:           cas,
//		HostSigners:   func() []ssh.Signer { return signers },
//		Handle:        func(ctx context.Context, conn *srv.Conn) { ... },
//	})
//	if err != nil {
//		return err
//	}
//	defer server.Close()
//	err = server.Serve(listener)
//
// # Who gets in
//
// Only who holds the private key of a user certificate that one of Config.CAs
// has signed, that is valid now, that names the login among its principals (a
// certificate without principals is good for nobody), and whose critical
// options are all known and fulfilled. Roles in it must be readable, and
// Config.Authorize may decide by them. Keys without a certificate, passwords,
// SHA-1 and RSA below 2048 bits are refused. Config.SecondFactor may ask for more
// after the certificate, never instead of it.
//
// # What is told of a refusal
//
// A connection whose authentication ends without success, however it ends,
// causes one event of each type in Config.FailureEvents, whatever the number of
// keys that were tried. It names the person (TeleportUser) only if a trusted
// authority signed the certificate and the client has proven that it holds the
// certificate's key: anybody can send somebody else's certificate, and nobody
// but its owner can sign with it. A connection that never gave a login name
// causes none.
package srv

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/limits"
	"teleport-auditd/lib/notice"
)

// The bounds that hold where Config leaves them out; both are OpenSSH's.
const (
	DefaultMaxStartups    = 100
	DefaultLoginGraceTime = 120 * time.Second
)

// DefaultRekeyInterval is how long a connection has one key: the hour of RFC 4253,
// section 9.
const DefaultRekeyInterval = time.Hour

// CAs is where the trusted user certificate authorities come from.
type CAs interface {
	// UserCAs returns the authorities' public keys. It is asked at each login,
	// so that a rotation is seen at once. An error refuses the login.
	UserCAs(ctx context.Context) ([]ssh.PublicKey, error)
}

// Hosts says which hosts may log in: those with a host certificate of the
// cluster and the role, under their host id as the login.
type Hosts struct {
	// CAs returns the keys of the cluster's host authority. It is asked at each
	// login, and an error refuses it.
	CAs func(ctx context.Context) ([]ssh.PublicKey, error)
	// Role is what the certificate's x-teleport-role must be, as "Node".
	Role string
	// ClusterName follows the host id, after a dot, in the certificate's key id.
	ClusterName string
}

// Config is what New needs.
type Config struct {
	// Component names the server in the log: "node" or "proxy".
	Component string
	// Emitter takes the failure events. It must not block, as an auditd.Queue
	// does not, since a refused client waits for it.
	Emitter auditd.Emitter
	// FailureEvents are emitted, in this order, once for each connection whose
	// authentication failed.
	FailureEvents []auditd.EventType
	// CAs knows who may sign user certificates.
	CAs CAs
	// HostSigners returns the host's Ed25519 keys and certificates. It is asked
	// for each connection, so that a renewed certificate is used at once.
	HostSigners func() []ssh.Signer
	// Hosts, where it is set, lets hosts of the cluster in as well, by their own
	// certificates.
	Hosts *Hosts
	// LookupUID finds a login of this host. Where it is nil, as at the proxy,
	// the login need not exist here. It is asked about names that could be
	// logins only: never an empty one, one longer than 255 bytes, or one with
	// NUL, a newline, ':' or '/'.
	LookupUID func(login string) (uid uint32, found bool, err error)
	// Authorize, where it is set, decides about a client whose certificate was
	// proven and found good, before SecondFactor: by roles, or by locks. It is
	// called for each such certificate; nil lets the client go on. A *Refusal in
	// the error says why for the records. ctx ends with the connection.
	Authorize func(ctx context.Context, identity Identity) error
	// Refused, where it is set, hears of each connection whose authentication
	// failed, once, after its events were emitted. It must not block.
	Refused func(Refused)
	// SecondFactor, where it is set, decides about a client whose certificate was
	// proven and found good, and may ask the person questions. It is called for
	// each time that the client tries, one after the other, until it returns no
	// error, which lets the client in. A *Refusal in the error says why for the
	// records. What it returns is the Conn's SecondFactor, or closed where the
	// connection ends before Handle has it.
	SecondFactor func(ctx context.Context, attempt Attempt) (io.Closer, error)
	// Handle serves one authenticated connection, which is closed when Handle
	// returns. ctx ends with Close. Handle must read Channels and Requests,
	// and the requests of each channel that it accepts, until they are closed,
	// or return. A panic in it ends this connection only.
	Handle func(ctx context.Context, conn *Conn)
	// Banner returns what a client shows before it authenticates, for a login
	// that was asked for. Nil, and an empty text, show nothing.
	Banner func() string
	// RekeyInterval is the time between two exchanges of a connection's key, of
	// which there is one after each GiB as well. DefaultRekeyInterval where it
	// is zero.
	RekeyInterval time.Duration
	// MaxStartups bounds the connections that have not authenticated yet; one
	// more is closed at once, or that which is there longest of an address that has
	// more of them. DefaultMaxStartups where it is zero.
	MaxStartups int
	// LoginGraceTime is how long authentication may take.
	// DefaultLoginGraceTime where it is zero.
	LoginGraceTime time.Duration
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.Component == "":
		return trace.BadParameter("srv.Config has no Component")
	case c.Emitter == nil:
		return trace.BadParameter("srv.Config has no Emitter")
	case len(c.FailureEvents) == 0:
		return trace.BadParameter("srv.Config has no FailureEvents")
	case c.CAs == nil:
		return trace.BadParameter("srv.Config has no CAs")
	case c.HostSigners == nil:
		return trace.BadParameter("srv.Config has no HostSigners")
	case c.Hosts != nil && (c.Hosts.CAs == nil || c.Hosts.Role == "" || c.Hosts.ClusterName == ""):
		return trace.BadParameter("srv.Config has Hosts without CAs, Role or ClusterName")
	case c.Handle == nil:
		return trace.BadParameter("srv.Config has no Handle")
	case c.MaxStartups < 0:
		return trace.BadParameter("srv.Config has a negative MaxStartups %d", c.MaxStartups)
	case c.RekeyInterval < 0:
		return trace.BadParameter("srv.Config has a negative RekeyInterval %v", c.RekeyInterval)
	case c.LoginGraceTime < 0:
		return trace.BadParameter("srv.Config has a negative LoginGraceTime %v", c.LoginGraceTime)
	}
	if c.MaxStartups == 0 {
		c.MaxStartups = DefaultMaxStartups
	}
	if c.LoginGraceTime == 0 {
		c.LoginGraceTime = DefaultLoginGraceTime
	}
	if c.RekeyInterval == 0 {
		c.RekeyInterval = DefaultRekeyInterval
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Refused is a connection whose authentication failed.
type Refused struct {
	// Login is the name that was asked for. It may hold any bytes, 4096 of them.
	Login string
	// TeleportUser is the person, where a trusted certificate was proven, and
	// empty otherwise. It may hold any bytes, 4096 of them.
	TeleportUser string
	// Host says that it is a host whose certificate was proven, and TeleportUser
	// what that is called: nobody's name.
	Host bool
	// Reason is what the records say: words joined by hyphens.
	Reason string
	// RemoteAddr and LocalAddr are the connection's.
	RemoteAddr, LocalAddr net.Addr
}

// Conn is a connection whose client has proven who it is.
type Conn struct {
	*ssh.ServerConn
	// Channels is closed when the connection ends.
	Channels <-chan ssh.NewChannel
	// Requests are the global ones. It is closed when the connection ends.
	Requests <-chan *ssh.Request
	// Identity is what the certificate says, checked.
	Identity Identity
	// SecondFactor is what Config.SecondFactor has returned; nil without it.
	// Closing it is up to Handle.
	SecondFactor io.Closer
}

// Server accepts connections and authenticates them.
type Server struct {
	cfg    Config
	log    logrus.FieldLogger
	ctx    context.Context
	cancel context.CancelFunc

	// stopped is closed when nothing new is accepted any more.
	stopped chan struct{}
	// serving counts the connections' goroutines.
	serving sync.WaitGroup

	// noRekey says, once, that keys cannot be exchanged by the clock.
	noRekey sync.Once

	crowded        *notice.Notice
	acceptTrouble  *notice.Notice
	caTrouble      *notice.Notice
	hostKeyTrouble *notice.Notice

	mu        sync.Mutex
	draining  bool
	listeners map[net.Listener]struct{}
	conns     map[*connection]struct{}
	// startups are those of conns that have not authenticated. It is not used under
	// mu, which it takes when one of them has to go.
	startups *limits.Crowd
}

// New returns a Server that accepts nothing before Serve is called.
func New(cfg Config) (*Server, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg:       cfg,
		log:       cfg.Log.WithField("component", cfg.Component),
		ctx:       ctx,
		cancel:    cancel,
		stopped:   make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*connection]struct{}),
		startups:  limits.NewCrowd(cfg.MaxStartups, cfg.MaxStartups),
	}
	s.crowded = notice.New(cfg.Clock, func(times int, _ error) {
		s.log.Warnf("Connections closed: %d. As many as may (max_startups: %d) have not authenticated yet.", times, cfg.MaxStartups)
	})
	s.acceptTrouble = notice.New(cfg.Clock, func(times int, last error) {
		s.log.Errorf("Connections that could not be accepted: %d. The last reason: %v. Accepting goes on.", times, last)
	})
	s.caTrouble = notice.New(cfg.Clock, func(times int, last error) {
		s.log.Errorf("Certificates refused: %d, because the trusted certificate authorities could not be read: %v.", times, last)
	})
	s.hostKeyTrouble = notice.New(cfg.Clock, func(times int, last error) {
		s.log.Errorf("New connections closed at once: %d, because %v.", times, last)
	})
	return s, nil
}

// Serve accepts connections from l until Shutdown or Close, and returns nil
// then, or the error that keeps l from accepting ever again. It closes l. It
// may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.addListener(l) {
		return nil
	}
	defer s.removeListener(l)

	const firstDelay, lastDelay = 5 * time.Millisecond, time.Second
	delay := firstDelay
	for {
		conn, err := l.Accept()
		if err == nil {
			delay = firstDelay
			s.accept(conn)
			continue
		}
		if s.isStopped() {
			return nil
		}
		if !mayPass(err) {
			return trace.Errorf("accepting connections on %v: %w", l.Addr(), err)
		}
		s.acceptTrouble.Happened(err)
		timer := s.cfg.Clock.NewTimer(delay)
		select {
		case <-timer.Chan():
		case <-s.stopped:
			timer.Stop()
			return nil
		}
		delay = min(2*delay, lastDelay)
	}
}

// mayPass tells whether accept(2) may work again later: the connection that it
// would have returned is gone, or the system is short of something for now.
// These are the errors that accept(2) says to treat so.
func mayPass(err error) bool {
	for _, errno := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN,
		syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENOPROTOOPT,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// accept starts serving one connection, or closes it.
func (s *Server) accept(conn net.Conn) {
	c := &connection{Conn: conn}
	if s.cfg.SecondFactor != nil || s.cfg.Authorize != nil {
		c.ended = make(chan struct{})
	}
	leave, ok := s.startups.Try(conn.RemoteAddr().String(), func() { s.drop(c, reasonCrowded) })
	if !ok {
		conn.Close()
		s.crowded.Happened(nil)
		return
	}
	c.started = leave
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		leave()
		conn.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.serving.Add(1)
	s.mu.Unlock()
	go s.serve(c)
}

// serve is one connection, from its first byte to its last.
func (s *Server) serve(c *connection) {
	keepAlive(c.Conn)
	var conn *Conn
	defer func() {
		if conn == nil {
			c.Close()
			s.remove(c)
		}
	}()
	defer s.survive(c)
	if conn = s.authenticate(c); conn != nil {
		// Authenticating takes a deep stack, which a goroutine would keep as
		// long as the connection lasts.
		go s.handle(c, conn)
	}
}

func (s *Server) handle(c *connection, conn *Conn) {
	defer s.remove(c)
	defer c.Close()
	defer s.survive(c)
	// Closing first lets the readers of what is left come to an end.
	defer discard(conn.Channels, conn.Requests)
	defer conn.Close()
	defer s.rekey(conn)()
	s.cfg.Handle(s.ctx, conn)
}

// survive, deferred, keeps a panic over one connection from ending the others.
func (s *Server) survive(c *connection) {
	if cause := recover(); cause != nil {
		s.log.Errorf("A connection from %v has ended, because serving it panicked: %v", c.RemoteAddr(), cause)
		s.log.Debugf("%s", debug.Stack())
	}
}

// keepAlive lets the kernel find out within 90 s that a client's host is gone.
func keepAlive(conn net.Conn) {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = outer.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// It fails where the client has already gone, which reading tells.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable:   true,
			Idle:     30 * time.Second,
			Interval: 15 * time.Second,
			Count:    4,
		})
	}
}

// discard reads what Handle left unread of a closed connection. Nobody else
// would, and the goroutine that delivers it would wait for ever.
func discard(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	go ssh.DiscardRequests(requests)
	go func() {
		for channel := range channels {
			// The connection is closed: the answer reaches nobody.
			_ = channel.Reject(ssh.ConnectionFailed, "")
		}
	}()
}

// connection is one accepted connection.
type connection struct {
	net.Conn
	// started takes it from those that have not authenticated.
	started func()
	// admitted says that its client has authenticated; guarded by Server.mu.
	admitted bool
	// dropped is why the server itself closed it; guarded by Server.mu.
	dropped string
	// ended is closed when nothing can be read from it any more; nil where
	// nobody wants to know.
	ended   chan struct{}
	endOnce sync.Once
}

// Read is the client's.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && c.ended != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.endOnce.Do(func() { close(c.ended) })
	}
	return n, err
}

// admit counts a connection as authenticated. It is false where the server has
// closed it meanwhile.
func (s *Server) admit(c *connection) bool {
	s.mu.Lock()
	admitted := !s.draining && c.dropped == ""
	c.admitted = admitted
	s.mu.Unlock()
	if admitted {
		c.started()
	}
	return admitted
}

// drop closes a connection that has not authenticated.
func (s *Server) drop(c *connection, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.admitted || c.dropped != "" {
		return
	}
	c.dropped = why
	c.Close()
}

// whyDropped is empty where the server has not dropped the connection.
func (s *Server) whyDropped(c *connection) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.dropped == "" && s.draining {
		return reasonShutdown
	}
	return c.dropped
}

func (s *Server) remove(c *connection) {
	s.mu.Lock()
	delete(s.conns, c)
	crowded := c.dropped == reasonCrowded
	s.mu.Unlock()
	c.started()
	if crowded {
		s.crowded.Happened(nil)
	}
	s.serving.Done()
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isStopped() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// stop closes the listeners, and the connections that pick picks.
func (s *Server) stop(pick func(*connection) bool) {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		close(s.stopped)
	}
	for l := range s.listeners {
		l.Close()
	}
	var picked []*connection
	for c := range s.conns {
		if pick(c) {
			if !c.admitted && c.dropped == "" {
				c.dropped = reasonShutdown
			}
			picked = append(picked, c)
		}
	}
	s.mu.Unlock()
	for _, c := range picked {
		c.Close()
	}
}

// Shutdown stops accepting, closes the connections that have not authenticated,
// and waits until the others have ended by themselves. Where ctx ends first it
// returns ctx's error and leaves them open: Close ends them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop(func(c *connection) bool { return !c.admitted })
	ended := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		s.cancel()
		s.closeNotices()
		return nil
	case <-ctx.Done():
		return trace.Wrap(ctx.Err())
	}
}

// Close stops accepting, ends the context of every Handle, closes all
// connections, and waits until each Handle has returned and each failure event
// was emitted. It may be called more than once, and after Shutdown.
func (s *Server) Close() error {
	s.stop(func(c *connection) bool { return !c.admitted })
	s.cancel()
	s.stop(func(*connection) bool { return true })
	s.serving.Wait()
	s.closeNotices()
	return nil
}

func (s *Server) closeNotices() {
	for _, n := range []*notice.Notice{s.crowded, s.acceptTrouble, s.caTrouble, s.hostKeyTrouble} {
		n.Close()
	}
}
