// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What to do where etcd does not answer: try again for a while, and say in one
// line what is wrong.

package etcd

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/gravitational/trace"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// retry calls try until it succeeds or fails for good, or the time is up. Each
// try gets a context of its own, and goes to the next member. try must be safe
// to call again after it failed in whatever way.
func (s *Store) retry(ctx context.Context, try func(context.Context) error) error {
	start := time.Now()
	var last error
	for {
		tryCtx, cancel := context.WithTimeout(ctx, tryTimeout)
		err := try(tryCtx)
		timedOut := tryCtx.Err() != nil
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return trace.Wrap(ctx.Err())
		}
		if s.client.Ctx().Err() != nil {
			return s.closedError()
		}
		if !timedOut && !transient(err) {
			return s.describe(err)
		}
		// That no answer came says less than what an earlier try was told.
		if last == nil || !timedOut {
			last = err
		}
		if since := time.Since(start); since > callTimeout || since > refusedTimeout && !timedOut {
			return s.unreachable(last)
		}
		s.log.WithError(err).Debugf("Trying again to reach etcd at %s.", s.peers)
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return trace.Wrap(ctx.Err())
		}
	}
}

// transient says whether the error is one of a member or of the way to it, and
// not of what was asked.
func transient(err error) bool {
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal, codes.Unknown:
		return true
	case codes.ResourceExhausted:
		return rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests)
	}
	return false
}

func code(err error) codes.Code {
	var etcdErr rpctypes.EtcdError
	if errors.As(err, &etcdErr) {
		return etcdErr.Code()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	if answer, ok := status.FromError(err); ok {
		return answer.Code()
	}
	return codes.InvalidArgument // none of etcd's: ours
}

func (s *Store) unreachable(err error) error {
	return trace.ConnectionProblem(err, "etcd at %s does not answer (%s): see whether most of its members run, and whether storage.peers and the TLS files are right", s.peers, oneLine(err))
}

// describe says what etcd has refused.
func (s *Store) describe(err error) error {
	switch code(err) {
	case codes.ResourceExhausted:
		return trace.LimitExceeded("etcd at %s takes no more (%s): compact and defragment it, see its alarms with etcdctl alarm list, and run it with --auto-compaction-retention", s.peers, oneLine(err))
	case codes.PermissionDenied, codes.Unauthenticated:
		return trace.AccessDenied("etcd at %s does not let this server in (%s): see the certificate in storage.tls_cert_file and the roles in etcd", s.peers, oneLine(err))
	}
	return trace.Wrap(err, "etcd at %s", s.peers)
}

func (s *Store) closedError() error {
	return trace.ConnectionProblem(nil, "the connection to etcd at %s was closed", s.peers)
}

// oneLine is what etcd or gRPC said, without the lines that some errors have.
func oneLine(err error) string {
	return strings.Join(strings.Fields(rpctypes.ErrorDesc(err)), " ")
}
