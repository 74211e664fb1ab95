// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package authgrpc serves the cluster over Teleport's gRPC API with mutual TLS,
// so that Teleport's own Go client (github.com/gravitational/teleport/api/client)
// is the client of nodes, proxies, tctl and anybody else.
//
//	server, err := authgrpc.New(authgrpc.Config{Auth: cluster, Certificate: ..., Version: version})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	go server.Serve(listener)
//	defer server.Shutdown(ctx)
//
// Who calls is decided by the certificate, and what a caller may do by the table
// in rules.go, for each call anew: a certificate that has expired, whose
// authority is no longer trusted, or whose user is locked or gone is refused in
// the middle of a connection, and ends streams. Without a certificate there are
// Ping and the join with a token. What is not implemented answers Unimplemented.
package authgrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	auditlogv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/auditlog/v1"
	clusterconfigv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/clusterconfig/v1"
	presencev1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/presence/v1"
	trustv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/trust/v1"
	usersv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/users/v1"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/firstbytes"
	"teleport-auditd/lib/limits"
)

const (
	// maxMessage bounds what a caller may send at once: more than the largest
	// resource that is kept.
	maxMessage = 1 << 20
	// maxHeaders bounds the headers of a call, in bytes.
	maxHeaders = 64 * 1024
	// maxStreams bounds the calls of one connection at a time.
	maxStreams = 1000
	// maxUserWatchers and maxHostWatchers bound the watchers of one caller at a
	// time: each may have megabytes waiting.
	maxUserWatchers = 16
	maxHostWatchers = 64
	// defaultMaxAnonymous is Config.MaxAnonymous's.
	defaultMaxAnonymous = 256

	// minPing is how often a client may ask whether the connection is alive:
	// behind some NATs it must be often.
	minPing = 5 * time.Second
	// pingAfter and pingTimeout find connections whose other end is gone.
	pingAfter   = time.Minute
	pingTimeout = 20 * time.Second

	// idleAfter ends connections on which nothing is called: clients open another
	// when they need it.
	idleAfter = 15 * time.Minute

	// recheck is how often an open stream's caller is looked at again.
	recheck = 5 * time.Second
)

// Auth is the cluster behind the server. Its errors are those of lib/auth.
type Auth interface {
	ClusterName() string

	CreateUser(ctx context.Context, user types.User) (types.User, error)
	UpdateUser(ctx context.Context, user types.User) (types.User, error)
	UpsertUser(ctx context.Context, user types.User) (types.User, error)
	GetUser(ctx context.Context, name string, withSecrets bool) (types.User, error)
	ListUsers(ctx context.Context, pageSize int, pageToken string, withSecrets bool) ([]types.User, string, error)
	DeleteUser(ctx context.Context, name string) error

	CreateRole(ctx context.Context, role types.Role) (types.Role, error)
	UpdateRole(ctx context.Context, role types.Role) (types.Role, error)
	UpsertRole(ctx context.Context, role types.Role) (types.Role, error)
	GetRole(ctx context.Context, name string) (types.Role, error)
	GetRoles(ctx context.Context) ([]types.Role, error)
	DeleteRole(ctx context.Context, name string) error

	CreateToken(ctx context.Context, token types.ProvisionToken) error
	UpsertToken(ctx context.Context, token types.ProvisionToken) error
	GetToken(ctx context.Context, name string) (types.ProvisionToken, error)
	GetTokens(ctx context.Context) ([]types.ProvisionToken, error)
	DeleteToken(ctx context.Context, name string) error

	UpsertNode(ctx context.Context, node types.Server) error
	UpsertProxy(ctx context.Context, proxy types.Server) error
	// ProxyAddr returns host:port of a proxy's web address, for Ping, or an empty
	// string.
	ProxyAddr(ctx context.Context) string
	GetNode(ctx context.Context, name string) (types.Server, error)
	Nodes(ctx context.Context) ([]types.Server, error)
	Proxies(ctx context.Context) ([]types.Server, error)
	DeleteNode(ctx context.Context, name string) error
	DeleteAllNodes(ctx context.Context) error

	UpsertLock(ctx context.Context, lock types.Lock) error
	GetLock(ctx context.Context, name string) (types.Lock, error)
	GetLocks(ctx context.Context, inForceOnly bool, targets ...types.LockTarget) ([]types.Lock, error)
	DeleteLock(ctx context.Context, name string) error

	GetAuthPreference(ctx context.Context) (types.AuthPreference, error)
	SetAuthPreference(ctx context.Context, preference types.AuthPreference) error
	ResetAuthPreference(ctx context.Context) error
	GetClusterNetworkingConfig(ctx context.Context) (types.ClusterNetworkingConfig, error)
	GetSessionRecordingConfig(ctx context.Context) (types.SessionRecordingConfig, error)
	GetClusterAuditConfig(ctx context.Context) (types.ClusterAuditConfig, error)

	GetCertAuthority(ctx context.Context, id types.CertAuthID, loadKeys bool) (types.CertAuthority, error)
	GetCertAuthorities(ctx context.Context, kind types.CertAuthType, loadKeys bool) ([]types.CertAuthority, error)
	UpsertCertAuthority(ctx context.Context, authority types.CertAuthority) error
	DeleteCertAuthority(ctx context.Context, id types.CertAuthID) error
	RotateCertAuthority(ctx context.Context, request types.RotateRequest) error

	// GenerateUserCerts signs the keys that are given for a user, as the user's
	// roles allow and until Expires; a zero one is as long as they allow.
	GenerateUserCerts(ctx context.Context, request proto.UserCertsRequest) (*proto.Certs, error)
	GenerateHostCerts(ctx context.Context, request *proto.HostCertsRequest) (*proto.Certs, error)
	RegisterUsingToken(ctx context.Context, request *types.RegisterUsingTokenRequest) (*proto.Certs, error)

	EmitAuditEvent(ctx context.Context, event apievents.AuditEvent) error
	SearchEvents(ctx context.Context, from, to time.Time, eventTypes []string, limit int, order types.EventOrder, startKey string) ([]apievents.AuditEvent, string, error)
	NewWatcher(ctx context.Context, watch types.Watch) (types.Watcher, error)
}

// People is where users' passwords and second factors are, and links to set
// them.
type People interface {
	login.Service
	CreateResetPasswordToken(ctx context.Context, name, kind string, ttl time.Duration, createdBy string) (types.UserToken, error)
	GetResetPasswordToken(ctx context.Context, id string) (types.UserToken, error)
	CreateRegisterChallenge(ctx context.Context, tokenID string) (*proto.MFARegisterChallenge, error)
	ChangeUserAuthentication(ctx context.Context, request *proto.ChangeUserAuthenticationRequest) (*proto.ChangeUserAuthenticationResponse, error)
}

// Config is what a Server needs.
type Config struct {
	Auth   Auth
	People People
	// Certificate returns the auth service's own certificate, with its
	// authority's behind it. It is asked at each handshake, so that it may
	// change.
	Certificate func(context.Context) (*tls.Certificate, error)
	// Admin is whom audit events name where the caller has the role Admin;
	// empty is the name in the certificate.
	Admin string
	// Version is this program's, for Ping.
	Version string
	// MaxAnonymous bounds the connections without a certificate, as hosts have
	// that join. One more makes another go: that which has been there longest of
	// the address (IPv4, or IPv6 /64) with most of them. An address may have half
	// of them at most; hosts that join through a proxy have the proxy's. They may
	// be idle for 10 seconds and last for a minute and a half. 256 by default.
	MaxAnonymous int
	// Clock decides which certificates are valid; the real one by default.
	Clock clockwork.Clock
	// Log is logrus's standard logger by default.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults refuses a config without Auth, People, Certificate or
// Version.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.Auth == nil:
		return trace.BadParameter("the gRPC server has no cluster to serve")
	case c.People == nil:
		return trace.BadParameter("the gRPC server has nobody to ask for passwords")
	case c.Certificate == nil:
		return trace.BadParameter("the gRPC server has no certificate")
	case c.Version == "":
		return trace.BadParameter("the gRPC server does not know its version")
	case c.MaxAnonymous < 0:
		return trace.BadParameter("the gRPC server has a negative MaxAnonymous %d", c.MaxAnonymous)
	}
	if c.MaxAnonymous == 0 {
		c.MaxAnonymous = defaultMaxAnonymous
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Server is the gRPC server.
type Server struct {
	cfg Config
	tls *tls.Config
	// grpc serves who has shown a certificate, and anonymous who has not.
	grpc, anonymous *grpc.Server
	trust           *trust
	rules           map[string]rule
	// streams are the methods that are.
	streams map[string]bool
	// strangers are the connections without a certificate.
	strangers *limits.Crowd
	// watchers are those that are open, by the name of the caller.
	watchers *limits.Count[string]

	// ctx ends with the server: streams that only wait end with it.
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
}

// New makes a Server. It reads and writes nothing before Serve.
func New(cfg Config) (*Server, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	s := &Server{
		cfg:   cfg,
		trust: &trust{auth: cfg.Auth, clock: cfg.Clock},
		rules: rules(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.tls = s.tlsConfig()
	s.strangers = limits.NewCrowd(cfg.MaxAnonymous, max(cfg.MaxAnonymous/2, 1))
	s.watchers = limits.NewCount[string](math.MaxInt)
	s.grpc = grpc.NewServer(s.knownOptions()...)
	s.anonymous = grpc.NewServer(s.anonymousOptions()...)
	s.register(s.anonymous)
	s.register(s.grpc)
	s.streams = streamsOf(s.grpc)
	return s, nil
}

func (s *Server) register(registrar *grpc.Server) {
	proto.RegisterAuthServiceServer(registrar, &authService{Server: s})
	proto.RegisterJoinServiceServer(registrar, &joinService{Server: s})
	usersv1.RegisterUsersServiceServer(registrar, &usersService{Server: s})
	trustv1.RegisterTrustServiceServer(registrar, &trustService{Server: s})
	clusterconfigv1.RegisterClusterConfigServiceServer(registrar, &clusterConfigService{Server: s})
	auditlogv1.RegisterAuditLogServiceServer(registrar, &auditLogService{Server: s})
	// Nothing of it is implemented here, and it answers so.
	presencev1.RegisterPresenceServiceServer(registrar, presencev1.UnimplementedPresenceServiceServer{})
	login.Register(registrar, s.cfg.People)
}

// Serve answers connections until Shutdown or Close, and then returns nil. It
// closes the listener.
func (s *Server) Serve(listener net.Listener) error {
	anonymous := newHanded(listener.Addr())
	door, err := firstbytes.Listen(listener, firstbytes.GreetConfig{Greet: s.greet(anonymous), Within: handshakeTimeout})
	if err != nil {
		return trace.Wrap(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// It ends with its listener, which is closed below.
		_ = s.anonymous.Serve(anonymous)
	}()
	err = s.grpc.Serve(door)
	_ = anonymous.Close()
	<-ended
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return trace.Wrap(err)
}

// Shutdown lets calls end, tells watchers to look for another server, and
// returns when all have ended, or closes what is left when ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	s.end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var both sync.WaitGroup
		both.Go(s.anonymous.GracefulStop)
		both.Go(s.grpc.GracefulStop)
		both.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.stop()
		<-done
	}
}

// Close ends the server and its connections at once.
func (s *Server) Close() {
	s.end()
	s.stop()
}

func (s *Server) stop() {
	s.grpc.Stop()
	s.anonymous.Stop()
}

func (s *Server) end() { s.once.Do(s.cancel) }
