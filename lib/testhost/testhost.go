// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package testhost skips tests that the host cannot run: out loud, and nowhere
// that all must run.
package testhost

import (
	"fmt"
	"os"
	"testing"
)

// Skip says why a test cannot run here. With REQUIRE_KERNEL=1, as CI has it, that
// is a failure.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatalf("REQUIRE_KERNEL=1 is set, but this host cannot run the test: %s", reason)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", reason)
}
