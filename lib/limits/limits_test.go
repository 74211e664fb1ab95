// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package limits

import (
	"fmt"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
)

func TestRate(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClock()
	l := NewRate(1, 2, 100, clock)
	require.True(t, l.Allow("192.0.2.1:1"))
	require.True(t, l.Allow("192.0.2.1:2"))
	require.False(t, l.Allow("192.0.2.1:3"))
	require.False(t, l.Allow("[::ffff:192.0.2.1]:4"), "the same address, written otherwise")
	require.False(t, l.Allow("192.0.2.1"), "the same address, without a port")
	require.True(t, l.Allow("192.0.2.2:1"))
	clock.Advance(time.Second)
	require.True(t, l.Allow("192.0.2.1:5"))
	require.False(t, l.Allow("192.0.2.1:6"))
	l.Return("192.0.2.1:6")
	require.True(t, l.Allow("192.0.2.1:7"))
	require.False(t, l.Allow("192.0.2.1:8"))

	require.True(t, l.Allow("[2001:db8::1]:1"))
	require.True(t, l.Allow("[2001:db8::2%eth0]:1"))
	require.False(t, l.Allow("[2001:db8::ffff:1]:1"))
	require.True(t, l.Allow("[2001:db8:0:1::1]:1"))

	require.True(t, l.Allow("pipe"))
	require.True(t, l.Allow("@"))
	require.False(t, l.Allow(""))
}

func TestRateForgets(t *testing.T) {
	t.Parallel()
	l := NewRate(1, 1, 10, clockwork.NewFakeClock())
	for i := range 1000 {
		require.True(t, l.Allow(fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)))
		if i > 0 {
			require.False(t, l.Allow("10.0.0.0:1"), "who keeps asking was forgotten")
		}
	}
	require.Len(t, l.clients, 10)
	require.Equal(t, 10, l.recent.Len())
}

func TestCount(t *testing.T) {
	t.Parallel()
	c := NewCount[string](3)
	require.True(t, c.Enter("a", 2))
	require.True(t, c.Enter("a", 2))
	require.False(t, c.Enter("a", 2))
	require.True(t, c.Enter("b", 2))
	require.False(t, c.Enter("b", 2), "there are three in all")
	c.Leave("a")
	require.True(t, c.Enter("b", 2))
	c.Leave("a")
	c.Leave("b")
	c.Leave("b")
	require.Empty(t, c.of)
	require.Zero(t, c.all)
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	c := NewCrowd(4, 3)
	var gone []string
	enter := func(remote, name string) func() {
		return c.Enter(remote, func() { gone = append(gone, name) })
	}
	first := enter("192.0.2.1:1", "first")
	enter("192.0.2.1:2", "second")
	third := enter("192.0.2.1:3", "third")
	require.Empty(t, gone)
	enter("192.0.2.1:4", "fourth")
	require.Equal(t, []string{"first"}, gone, "one client may have three")
	first()
	enter("198.51.100.1:1", "alone")
	require.Equal(t, []string{"first"}, gone)
	enter("203.0.113.1:1", "another")
	require.Equal(t, []string{"first", "second"}, gone, "the largest makes room")
	third()
	third()
	enter("203.0.113.1:2", "more")
	enter("203.0.113.1:3", "more")
	require.Equal(t, []string{"first", "second", "another"}, gone)
	require.Equal(t, 4, c.all)
}

func TestCrowdTry(t *testing.T) {
	t.Parallel()
	c := NewCrowd(4, 4)
	var gone []string
	try := func(remote, name string) bool {
		_, ok := c.Try(remote, func() { gone = append(gone, name) })
		return ok
	}
	for _, name := range []string{"first", "second", "third", "fourth"} {
		require.True(t, try("192.0.2.1:1", name))
	}
	require.False(t, try("192.0.2.1:1", "fifth"), "it would make room for itself")
	require.True(t, try("192.0.2.2:1", "other"))
	require.True(t, try("192.0.2.2:1", "another"))
	require.Equal(t, []string{"first", "second"}, gone)
	require.False(t, try("192.0.2.2:1", "third of both"), "each has two")
	require.True(t, try("192.0.2.3:1", "alone"))
	require.Len(t, gone, 3)
	require.True(t, try("192.0.2.4:1", "alone"))
	require.Len(t, gone, 4)
	require.False(t, try("192.0.2.5:1", "alone"), "nobody has two")
	require.Equal(t, 4, c.all)
}
