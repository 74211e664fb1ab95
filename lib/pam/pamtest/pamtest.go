// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package pamtest gives tests a PAM module that does what its arguments say, for
// what the host's own modules do not do: ask two questions, crash, hang.
//
//	module := pamtest.Module(t)
//	lines := []string{
//		"auth     required " + module + " [auth:ask:Code: =1234]",
//		"account  required " + module + " account:return:12",
//	}
//
// testdata/play.c says what the arguments may be.
package pamtest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"teleport-auditd/lib/testhost"
)

//go:embed testdata/play.c
var source []byte

// Module compiles the module and returns its path. It needs a C compiler and
// PAM's headers, as a build with PAM does; without them the test is skipped, or
// fails where REQUIRE_KERNEL=1 says that nothing may be skipped.
func Module(t testing.TB) string {
	t.Helper()
	// Every user must be able to enter the folder: modules are loaded by root,
	// but named in messages.
	dir, err := os.MkdirTemp("", "teleport-pam-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	from, module := filepath.Join(dir, "play.c"), filepath.Join(dir, "pam_play.so")
	if err := os.WriteFile(from, source, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-Wall", "-o", module, from, "-lpam").CombinedOutput()
	if err != nil {
		testhost.Skip(t, "a PAM module cannot be compiled: %v\n%s", err, out)
	}
	return module
}
