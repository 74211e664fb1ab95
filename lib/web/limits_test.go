// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
)

func TestLimiter(t *testing.T) {
	clock := clockwork.NewFakeClock()
	l := newLimiter(1, 2, 100, clock)
	require.True(t, l.allow("192.0.2.1:1"))
	require.True(t, l.allow("192.0.2.1:2"))
	require.False(t, l.allow("192.0.2.1:3"))
	require.False(t, l.allow("[::ffff:192.0.2.1]:4"), "the same address, written otherwise")
	require.True(t, l.allow("192.0.2.2:1"))
	clock.Advance(time.Second)
	require.True(t, l.allow("192.0.2.1:5"))
	require.False(t, l.allow("192.0.2.1:6"))

	// One host has a whole /64.
	require.True(t, l.allow("[2001:db8::1]:1"))
	require.True(t, l.allow("[2001:db8::2%eth0]:1"))
	require.False(t, l.allow("[2001:db8::ffff:1]:1"))
	require.True(t, l.allow("[2001:db8:0:1::1]:1"))

	require.True(t, l.allow("pipe"))
	require.True(t, l.allow("@"))
	require.False(t, l.allow(""))
}

func TestLimiterForgets(t *testing.T) {
	l := newLimiter(1, 1, 10, clockwork.NewFakeClock())
	for i := range 1000 {
		require.True(t, l.allow(fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)))
		if i > 0 {
			require.False(t, l.allow("10.0.0.0:1"), "who keeps asking was forgotten")
		}
		require.LessOrEqual(t, len(l.clients), 10)
		require.Equal(t, len(l.clients), l.recent.Len())
	}
}
