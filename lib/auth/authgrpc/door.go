// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The door: connections are shaken hands with before gRPC has them. Those who have
// shown a certificate go to one server, and those who have not to another, which
// has little to lose: nobody knows who they are, and they are let in for Ping and
// for a join.

package authgrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/utils/grpc/interceptors"
	"github.com/gravitational/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

const (
	// handshakeTimeout is how long a connection may take to become one.
	handshakeTimeout = 10 * time.Second

	// What a connection without a certificate may have: a join is one call of a
	// few kilobytes.
	anonymousMessage = 64 << 10
	anonymousHeaders = 16 << 10
	anonymousStreams = 4
	// anonymousIdle ends one on which nothing is called, and anonymousAge every
	// one, with anonymousGrace for the calls on it.
	anonymousIdle  = 10 * time.Second
	anonymousAge   = time.Minute
	anonymousGrace = 30 * time.Second
)

// callTimeout ends a call that is no stream, the reading of its message included.
const callTimeout = 2 * time.Minute

// options are those of both servers.
func (s *Server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(shaken{}),
		grpc.ConnectionTimeout(handshakeTimeout),
		// From the outside in: errors become statuses, a panic becomes an
		// error, and nothing runs before the caller is known.
		grpc.ChainUnaryInterceptor(s.statusUnary, interceptors.GRPCServerUnaryErrorInterceptor, s.recoverUnary, s.authorizeUnary),
		grpc.ChainStreamInterceptor(s.statusStream, interceptors.GRPCServerStreamErrorInterceptor, s.recoverStream, s.authorizeStream),
	}
}

// knownOptions are those of the server for who has a certificate.
func (s *Server) knownOptions() []grpc.ServerOption {
	return append(s.options(),
		grpc.InTapHandle(s.boundCall),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleAfter, Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	)
}

// anonymousOptions are those of the server for who has none.
func (s *Server) anonymousOptions() []grpc.ServerOption {
	return append(s.options(),
		grpc.InTapHandle(s.anonymousCall),
		grpc.MaxRecvMsgSize(anonymousMessage),
		grpc.MaxHeaderListSize(anonymousHeaders),
		grpc.MaxConcurrentStreams(anonymousStreams),
		// What is held of messages that are not whole yet.
		grpc.StaticStreamWindowSize(anonymousMessage),
		grpc.StaticConnWindowSize(anonymousMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     anonymousIdle,
			MaxConnectionAge:      anonymousAge,
			MaxConnectionAgeGrace: anonymousGrace,
			Time:                  pingAfter,
			Timeout:               pingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	)
}

// anonymousCall refuses, before its message is read, what no anonymous caller may
// call.
func (s *Server) anonymousCall(ctx context.Context, info *tap.Info) (context.Context, error) {
	rule, known := s.rules[info.FullMethodName]
	if err := rule.check(nil, info.FullMethodName, known); err != nil {
		return ctx, status.Error(codes.PermissionDenied, trace.UserMessage(err))
	}
	return s.boundCall(ctx, info)
}

// boundCall ends what is no stream in time. It is called before the message is
// read, where nothing may wait: who may call what is for authorize.
func (s *Server) boundCall(ctx context.Context, info *tap.Info) (context.Context, error) {
	if s.streams[info.FullMethodName] {
		return ctx, nil
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	context.AfterFunc(ctx, cancel)
	return bounded, nil
}

// streamsOf are the methods that are streams.
func streamsOf(server *grpc.Server) map[string]bool {
	streams := map[string]bool{}
	for service, info := range server.GetServiceInfo() {
		for _, method := range info.Methods {
			if method.IsClientStream || method.IsServerStream {
				streams["/"+service+"/"+method.Name] = true
			}
		}
	}
	return streams
}

// greet shakes hands. Who shows no certificate is given to the other server.
func (s *Server) greet(anonymous *handed) func(ctx context.Context, conn net.Conn, inTime func() bool) net.Conn {
	return func(ctx context.Context, raw net.Conn, inTime func() bool) net.Conn {
		conn := tls.Server(raw, s.tls)
		err := conn.HandshakeContext(ctx)
		if !inTime() || err != nil {
			raw.Close()
			return nil
		}
		state := conn.ConnectionState()
		if state.NegotiatedProtocol == "" {
			raw.Close() // gRPC is spoken with those alone who have asked for it
			return nil
		}
		if len(state.PeerCertificates) > 0 {
			return conn
		}
		counted := &countedConn{Conn: conn}
		counted.leave = s.strangers.Enter(raw.RemoteAddr().String(), func() { raw.Close() })
		if !anonymous.give(ctx, counted) {
			counted.Close()
		}
		return nil
	}
}

// countedConn is a connection without a certificate, until it is closed.
type countedConn struct {
	*tls.Conn
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// handed is a listener of what it is given.
type handed struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHanded(addr net.Addr) *handed {
	return &handed{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give hands a connection out. False means that it is still the caller's.
func (h *handed) give(ctx context.Context, conn net.Conn) bool {
	select {
	case h.conns <- conn:
		return true
	case <-h.done:
	case <-ctx.Done():
	}
	return false
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handed) Addr() net.Addr { return h.addr }

// shaken are the credentials of connections that have shaken hands already.
type shaken struct{}

var errNoClient = errors.New("these credentials are a server's alone")

func (shaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	stated, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil, trace.BadParameter("the connection is without TLS")
	}
	return conn, credentials.TLSInfo{
		State:          stated.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (shaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errNoClient
}

func (shaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (shaken) Clone() credentials.TransportCredentials { return shaken{} }

func (shaken) OverrideServerName(string) error { return errNoClient }
