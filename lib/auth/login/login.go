// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package login is the one call that a proxy makes and Teleport's API has no
// gRPC method for: a user's password and code against certificates.
//
// It goes over the connection that api/client has open to the auth service
// (Client.GetConnection), as the method Authenticate of a service of its own,
// with JSON in a protobuf BytesValue. Only a proxy may call it.
//
//	response, err := login.Authenticate(ctx, client.GetConnection(), login.Request{User: "alice", ...})
package login

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gravitational/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	serviceName = "teleportauditd.login.v1.LoginService"
	methodName  = "Authenticate"

	// FullMethod is the method's name on the wire, for who decides on access.
	FullMethod = "/" + serviceName + "/" + methodName
)

const (
	// MinPasswordLength is how many characters a password has at least.
	MinPasswordLength = 12
	// MaxPasswordLength is how many bytes a password has at most. All of them
	// count.
	MaxPasswordLength = 256

	// InviteToken and ResetToken are the kinds (SubKind) of a types.UserToken:
	// for a user who is new, and for one whose password and second factor no
	// longer count. InvitePath and ResetPath are where a proxy has their pages,
	// each followed by the token's name.
	InviteToken = "invite"
	ResetToken  = "password"
	InvitePath  = "/web/invite/"
	ResetPath   = "/web/reset/"
)

// What a login that failed is told, so that a proxy can tell which it was.
const (
	// WrongCredentials is the whole text for all that was typed wrongly.
	WrongCredentials = "the user name, password or code is wrong"
	// LockedPrefix begins the text for a user who gave all rightly and is
	// locked.
	LockedPrefix = "the user is locked by an administrator"
	// TooBusy is the whole text where as many as may wait for their passwords to
	// be looked at.
	TooBusy = "too many logins at once: try again in a moment"
	// TooManyAtOnce is the whole text where others who log in as the same user
	// took too long.
	TooManyAtOnce = "too many logins of the same user at once: try again in a moment"
)

// Request is a user who logs in at a proxy.
type Request struct {
	// User and Password are what the user typed, and OTP the code, which is
	// empty where the cluster asks for none.
	User     string `json:"user"`
	Password string `json:"password"`
	OTP      string `json:"otp"`
	// SSHPublicKey is in the format of authorized_keys, TLSPublicKey in PEM
	// (PKIX). Either may be empty, for no such certificate.
	SSHPublicKey []byte `json:"ssh_public_key"`
	TLSPublicKey []byte `json:"tls_public_key"`
	// TTL is how long the certificates are to be valid. Zero is as long as the
	// user's roles allow, which cut a longer one.
	TTL time.Duration `json:"ttl"`
	// ClientAddr is ip:port of the client, as the proxy sees it.
	ClientAddr string `json:"client_addr"`
}

// Response is what a login is worth.
type Response struct {
	User string `json:"user"`
	// SSH is a certificate in the format of authorized_keys, TLS one in PEM;
	// nil where no key was given.
	SSH []byte `json:"ssh"`
	TLS []byte `json:"tls"`
	// SSHHostCAs (authorized_keys) and TLSHostCAs (PEM) are whom to trust as
	// hosts of the cluster.
	SSHHostCAs [][]byte `json:"ssh_host_cas"`
	TLSHostCAs [][]byte `json:"tls_host_cas"`
	Cluster    string   `json:"cluster"`
}

// Service is the auth service's end.
type Service interface {
	// Authenticate returns trace.AccessDenied, with one text for all that was
	// typed wrongly, and trace.LimitExceeded for a user who is locked out.
	Authenticate(context.Context, Request) (*Response, error)
}

// Register makes server answer the call with service.
func Register(server grpc.ServiceRegistrar, service Service) {
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*Service)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: methodName, Handler: handle}},
	}, service)
}

func handle(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.BytesValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	call := func(ctx context.Context, in any) (any, error) {
		var request Request
		if err := json.Unmarshal(in.(*wrapperspb.BytesValue).GetValue(), &request); err != nil {
			return nil, trace.BadParameter("the login request cannot be read: %v", err)
		}
		response, err := srv.(Service).Authenticate(ctx, request)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(response)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		return wrapperspb.Bytes(value), nil
	}
	if interceptor == nil {
		return call(ctx, in)
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: FullMethod}, call)
}

// Authenticate makes the call. Errors are those of Service.
func Authenticate(ctx context.Context, conn grpc.ClientConnInterface, request Request) (*Response, error) {
	value, err := json.Marshal(request)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	out := new(wrapperspb.BytesValue)
	if err := conn.Invoke(ctx, FullMethod, wrapperspb.Bytes(value), out); err != nil {
		return nil, trace.Wrap(err)
	}
	var response Response
	if err := json.Unmarshal(out.GetValue(), &response); err != nil {
		return nil, trace.Wrap(err, "reading the answer to a login")
	}
	return &response, nil
}
