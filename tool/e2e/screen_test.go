// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"strings"
	"sync"
	"testing"

	"teleport-auditd/tool/e2e/harness"
)

// screen is what a terminal has shown so far.
type screen struct {
	mu  sync.Mutex
	all strings.Builder
}

// follow reads until the output ends.
func (s *screen) follow(r io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		s.mu.Lock()
		s.all.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// wait waits for a text to appear.
func (s *screen) wait(t testing.TB, text string) {
	t.Helper()
	if !harness.Eventually(waitLimit, func() bool { return strings.Contains(s.text(), text) }) {
		t.Fatalf("waited %v for %q on the screen:\n%s", waitLimit, text, s.text())
	}
}
