// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package backend

import (
	"fmt"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"
)

func push(f *Feed, key string, size int) {
	f.Push(Event{Type: Put, Item: Item{Key: key, Value: make([]byte, size)}})
}

// A reader that is too slow is told so, by number and by size, and never finds
// a gap that nobody speaks of.
func TestSlowReader(t *testing.T) {
	for _, tc := range []struct {
		name   string
		size   int
		before int // what it may leave unread
	}{
		{"many", 0, maxWaiting},
		{"large", MaxValueSize, maxWaitingSize / MaxValueSize},
	} {
		t.Run(tc.name, func(t *testing.T) {
			released := make(chan struct{})
			f := NewFeed(t.Context(), func(*Feed) { close(released) }, "/a/")
			push(f, "/a/first", 0)
			// The first is in the hands of the Feed's goroutine, and not in the
			// queue.
			require.Eventually(t, func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.waiting) == 0
			}, 10*time.Second, time.Millisecond)
			for i := range tc.before {
				push(f, fmt.Sprintf("/a/%d", i), tc.size)
				push(f, "/b/not-told", tc.size)
			}
			require.NoError(t, f.Err())
			push(f, "/a/too-much", tc.size)
			require.True(t, trace.IsLimitExceeded(f.Err()), "%v", f.Err())
			require.ErrorContains(t, f.Err(), "/a/")
			require.Equal(t, "/a/first", (<-f.Events()).Item.Key)
			_, more := <-f.Events()
			require.False(t, more, "a part of what waited is told")
			<-released
			push(f, "/a/late", 0)
		})
	}
}

func TestFeedEndsAfterWhatWaits(t *testing.T) {
	f := NewFeed(t.Context(), func(*Feed) {})
	push(f, "/a", 0)
	push(f, "/b", 0)
	f.End(trace.ConnectionProblem(nil, "gone"))
	f.End(nil)
	push(f, "/c", 0)
	require.Equal(t, "/a", (<-f.Events()).Item.Key)
	require.Equal(t, "/b", (<-f.Events()).Item.Key)
	_, more := <-f.Events()
	require.False(t, more)
	require.True(t, trace.IsConnectionProblem(f.Err()), "%v", f.Err())
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "", "\xff": "", "\xff\xff": "", "a": "b", "/a/": "/a0", "a\xff": "b", "a\xff\xff": "b", "\x00": "\x01", "a\xfe": "a\xff",
	} {
		require.Equal(t, want, PrefixEnd(prefix), "%q", prefix)
	}
}
