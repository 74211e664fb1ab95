// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package cause

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSystem(t *testing.T) {
	_, err := os.Open("/no/such/file")
	require.Equal(t, syscall.ENOENT, System(err))
	require.Equal(t, syscall.ENOENT, System(trace.Wrap(err)))
	require.Equal(t, syscall.ENOENT, System(os.Rename("/no/such/file", "/no/other")))
	other := errors.New("other")
	require.Equal(t, other, System(other))
}

func TestRPC(t *testing.T) {
	for want, err := range map[string]error{
		"plain":           errors.New("plain"),
		"first second":    trace.Wrap(errors.New("first\n\tsecond")),
		"nobody is there": status.Error(codes.Unavailable, "nobody is there"),
		"no route": trace.Wrap(status.Error(codes.Unavailable,
			`connection error: desc = "no route"`)),
	} {
		require.Equal(t, want, RPC(err))
	}
}
