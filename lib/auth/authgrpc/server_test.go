// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPanicsAreOneLine(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	s := &Server{cfg: Config{Log: log}, ctx: context.Background()}
	info := &grpc.UnaryServerInfo{FullMethod: "/a/b"}
	_, err := s.statusUnary(t.Context(), nil, info, func(ctx context.Context, req any) (any, error) {
		return s.recoverUnary(ctx, req, info, func(context.Context, any) (any, error) { panic("oops") })
	})
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "oops", "the client is told of the inside")
	var stacks int
	for _, entry := range hook.AllEntries() {
		if strings.Contains(entry.Message, "goroutine") {
			require.Equal(t, logrus.DebugLevel, entry.Level)
			stacks++
			continue
		}
		require.NotContains(t, entry.Message, "\n")
	}
	require.Equal(t, 1, stacks)
}

func TestErrorsAreOneLine(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	s := &Server{cfg: Config{Log: log}, ctx: ctx}
	for _, tc := range []struct {
		err  error
		code codes.Code
	}{
		{status.Error(codes.NotFound, "a\n\tb"), codes.NotFound},
		{trace.Wrap(context.Canceled), codes.Canceled},
		{trace.Wrap(context.DeadlineExceeded), codes.DeadlineExceeded},
		{io.ErrUnexpectedEOF, codes.Unknown},
	} {
		err := s.oneLine(t.Context(), "/a/b", tc.err)
		require.Equal(t, tc.code, status.Code(err))
		require.NotContains(t, err.Error(), "\n")
	}
	cancel()
	require.Equal(t, codes.Unavailable, status.Code(s.oneLine(t.Context(), "/a/b", context.Canceled)), "a client is not told to look for another server")
	require.NoError(t, s.oneLine(t.Context(), "/a/b", nil))
}

// flakyAuth has authorities, or a store that cannot be read.
type flakyAuth struct {
	Auth
	reads int
	err   error
}

func (f *flakyAuth) GetCertAuthorities(context.Context, types.CertAuthType, bool) ([]types.CertAuthority, error) {
	f.reads++
	return nil, f.err
}

func TestAuthoritiesAreRememberedForAMoment(t *testing.T) {
	clock := clockwork.NewFakeClock()
	auth := &flakyAuth{}
	trusted := &trust{auth: auth, clock: clock}
	first, err := trusted.current(t.Context())
	require.NoError(t, err)
	_, err = trusted.current(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, auth.reads, "each handshake reads the authorities")

	clock.Advance(trustFor)
	auth.err = trace.ConnectionProblem(nil, "the store is away")
	second, err := trusted.current(t.Context())
	require.NoError(t, err)
	require.Same(t, first, second)
	clock.Advance(trustLonger)
	_, err = trusted.current(t.Context())
	require.True(t, trace.IsConnectionProblem(err), "%v", err)
	auth.err = nil
	_, err = trusted.current(t.Context())
	require.NoError(t, err)
	clock.Advance(-time.Hour)
	_, err = trusted.current(t.Context())
	require.NoError(t, err)
}
