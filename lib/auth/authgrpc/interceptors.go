// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What every call goes through.

package authgrpc

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"

	"github.com/gravitational/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"teleport-auditd/lib/auth"
)

// oneLine is the outermost: a client shows one line, and is told when it was
// itself that gave up.
func (s *Server) oneLine(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if ctxErr := context.Cause(s.ctx); ctxErr != nil && errors.Is(err, context.Canceled) {
		return status.Error(codes.Unavailable, "the auth service is shutting down")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	st := status.Convert(err)
	// An inner interceptor has made a status of it, which errors.Is cannot see
	// through.
	if gone := ctx.Err(); gone != nil && st.Code() == codes.Unknown {
		return status.FromContextError(gone).Err()
	}
	if st.Code() == codes.Unknown || st.Code() == codes.Internal {
		s.cfg.Log.WithError(err).WithField("method", method).Error("A call failed.")
	}
	return status.Error(st.Code(), strings.Join(strings.Fields(st.Message()), " "))
}

func (s *Server) statusUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, s.oneLine(ctx, info.FullMethod, err)
}

func (s *Server) statusStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return s.oneLine(stream.Context(), info.FullMethod, handler(srv, stream))
}

// recovered keeps one bad call from ending the service for all.
func (s *Server) recovered(method string, err *error) {
	reason := recover()
	if reason == nil {
		return
	}
	s.cfg.Log.WithField("method", method).Errorf("A call panicked: %v. Please report it; the debug log has the stack.", reason)
	s.cfg.Log.Debugf("%s", debug.Stack())
	*err = status.Error(codes.Internal, "the auth service failed in this call: see its log")
}

func (s *Server) recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer s.recovered(info.FullMethod, &err)
	return handler(ctx, req)
}

func (s *Server) recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	return handler(srv, stream)
}

// authorize returns the context of the call with its caller in it.
func (s *Server) authorize(ctx context.Context, method string) (context.Context, error) {
	c, err := s.identify(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	rule, known := s.rules[method]
	if err := rule.check(c, method, known); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.checkNodeLock(ctx, c, method); err != nil {
		return nil, trace.Wrap(err)
	}
	if c == nil {
		return auth.WithCaller(ctx, auth.Caller{RemoteAddr: remoteAddr(ctx)}), nil
	}
	return auth.WithCaller(withCaller(ctx, c), auth.Caller{User: c.name, RemoteAddr: c.addr}), nil
}

func (s *Server) authorizeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := s.authorize(ctx, info.FullMethod)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return handler(ctx, req)
}

// authorizeStream looks at the caller again and again while the stream is open.
func (s *Server) authorizeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := s.authorize(stream.Context(), info.FullMethod)
	if err != nil {
		return trace.Wrap(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.watchCaller(ctx, info.FullMethod, cancel)
	err = handler(srv, &authorizedStream{ServerStream: stream, ctx: ctx})
	if cause := context.Cause(ctx); cause != nil && stream.Context().Err() == nil && errors.Is(err, context.Canceled) {
		return trace.Wrap(cause) // why the caller is no longer served
	}
	return trace.Wrap(err)
}

func (s *Server) watchCaller(ctx context.Context, method string, cancel context.CancelCauseFunc) {
	ticker := s.cfg.Clock.NewTicker(recheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			cancel(trace.ConnectionProblem(nil, "the auth service is shutting down"))
			return
		case <-ticker.Chan():
			_, err := s.authorize(ctx, method)
			// A store that cannot be read says nothing about the caller.
			if trace.IsAccessDenied(err) {
				cancel(err)
				return
			}
		}
	}
}

type authorizedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *authorizedStream) Context() context.Context { return s.ctx }
