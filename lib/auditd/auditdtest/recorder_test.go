// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditdtest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
)

func TestRecorder(t *testing.T) {
	r := new(auditdtest.Recorder)
	go func() {
		for range 2 {
			_ = r.Emit(context.Background(), auditd.Event{SystemUser: "bob"})
		}
	}()
	events, err := r.Wait(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, r.Events(), events)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	events, err = r.Wait(ctx, 3)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, events, 2)

	broken := errors.New("broken")
	r.Fail(broken)
	require.ErrorIs(t, r.Emit(t.Context(), auditd.Event{}), broken)
	require.Len(t, r.Events(), 3)

	require.False(t, r.Closed())
	require.NoError(t, r.Close())
	require.True(t, r.Closed())
}
