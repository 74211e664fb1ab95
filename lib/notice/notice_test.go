// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package notice_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/notice"
)

// TestNotice: the first is said at once, those of the next minute in one line, and
// what is left when it closes.
func TestNotice(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClock()
	said := make(chan string, 10)
	next := func() string {
		select {
		case line := <-said:
			return line
		case <-time.After(20 * time.Second):
			return "nothing"
		}
	}
	n := notice.New(clock, func(times int, last error) { said <- fmt.Sprint(times, " ", last) })
	n.Happened(errors.New("a"))
	require.Equal(t, "1 a", next())
	n.Happened(errors.New("b"))
	n.Happened(errors.New("c"))
	require.Empty(t, said)
	clock.Advance(time.Minute)
	require.Equal(t, "2 c", next())
	n.Happened(errors.New("d"))
	require.Empty(t, said, "a minute has begun anew")
	n.Close()
	require.Equal(t, "1 d", next())
	n.Close()
	require.Empty(t, said)
	n.Happened(errors.New("e"))
	require.Equal(t, "1 e", next(), "what comes later is not lost")
}
