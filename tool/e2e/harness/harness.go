// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package harness drives the built programs against the real kernel, a real
// auditd and OpenSSH's client, for the end-to-end tests and the benchmarks.
//
// Most tests need four calls: Build makes the programs once, StartAudit takes
// the kernel's audit state and starts an auditd of the test's own, StartDaemon
// starts a teleport, and Client.Run logs in. Whatever they change on the host
// (audit state, users, PAM services) is put back when the test ends, and also
// when the test process dies: see Undo.
package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"teleport-auditd/lib/testhost"
)

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		testhost.Skip(t, "it needs root (to add users, read audit logs and log in as other users)")
	}
}

// NeedPrograms skips the test unless every program is found.
func NeedPrograms(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			testhost.Skip(t, "it needs the program %s, which is not in PATH", name)
		}
	}
}

// Undo runs a shell script when the test ends. The script waits in a process of
// its own, so it also runs when the test process is killed or times out, which
// is why what changes the host is undone through here and not by t.Cleanup.
//
// Files in keep stay open until the script has run.
func Undo(t testing.TB, script string, keep ...*os.File) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "cat >/dev/null\n"+script)
	// Out of the terminal's process group: ^C ends the test, not its undoing.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = keep
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("cannot make the pipe that holds an undo script back: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start an undo script: %v", err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("undoing what the test did to the host: %v\n%s\n%s", err, script, out.String())
		}
	})
}

// Quote makes one word of the shell's of any text.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// WaitFor asks cond until it is true, and fails the test when that takes longer
// than the limit.
func WaitFor(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !Eventually(limit, cond) {
		t.Fatalf("waited %v for %s", limit, what)
	}
}

// Eventually asks cond until it is true, and reports whether it became true
// within the limit.
func Eventually(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Output runs a program and returns what it prints, both streams together. It
// fails the test unless the program ends with 0.
func Output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// OpenDir makes a folder that every user may enter, removed with the test.
// (t.TempDir is root's alone, and users run programs from here.)
func OpenDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "teleport-e2e-")
	if err != nil {
		t.Fatalf("cannot make a folder for the test: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// CopyFile copies a program, keeping its mode.
func CopyFile(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		t.Fatal(err)
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

// ModuleRoot returns the folder that holds go.mod.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod in the working directory or above it")
		}
		dir = up
	}
}
