// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{
		0: maxPercent, 4 << 20: maxPercent, 24 << 20: 200, 48 << 20: 100, 1 << 30: idlePercent,
	} {
		if got := percentFor(live); got != want {
			t.Errorf("%d in use: %d%%, and not %d%%", live, got, want)
		}
	}
}
