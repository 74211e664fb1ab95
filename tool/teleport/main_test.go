// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"teleport": main})
}

// TestScripts runs what testdata describes on the real program. The commands
// beyond testscript's own:
//
//	refused CODE PROGRAM [ARG...]  it must exit with CODE, and say why in one
//	                               line on stderr that begins with ERROR
//	install FOLDER                 puts teleport there, and beside it a
//	                               teleport-session and a teleport-user that do
//	                               nothing
//	waitfor FILE TEXT              waits until the file has the text
//	unprivileged PROGRAM [ARG...]  runs it as a user who may do nothing
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"refused":      refused,
			"install":      install,
			"waitfor":      waitFor,
			"unprivileged": unprivileged,
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition " + name)
		},
	})
}

func refused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: refused CODE PROGRAM [ARG...]")
	}
	checkRefusal(ts, args[0], ts.Exec(args[1], args[2:]...))
}

func checkRefusal(ts *testscript.TestScript, code string, err error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("it was not refused: %v", err)
	}
	if got := strconv.Itoa(exit.ExitCode()); got != code {
		ts.Fatalf("it exited with %s, not with %s", got, code)
	}
	stderr := strings.TrimSuffix(ts.ReadFile("stderr"), "\n")
	if !strings.HasPrefix(stderr, "ERROR: ") || strings.Contains(stderr, "\n") {
		ts.Fatalf("stderr is not one line that begins with ERROR:\n%s", stderr)
	}
}

func install(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: install FOLDER")
	}
	self, err := os.Executable()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	from, err := os.Open(self)
	ts.Check(err)
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "teleport"), os.O_WRONLY|os.O_CREATE, 0o755)
	ts.Check(err)
	_, err = io.Copy(to, from)
	ts.Check(errors.Join(err, to.Close()))
	for _, program := range []string{"teleport-session", "teleport-user"} {
		ts.Check(os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"), 0o755))
	}
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor FILE TEXT")
	}
	path := ts.MkAbs(args[0])
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), args[1]) {
			return
		}
	}
	ts.Fatalf("%s does not come to have %q: %s", args[0], args[1], ts.ReadFile(args[0]))
}

// unprivileged leaves its output in the files out and err, as only exec's own
// reaches stdout and stderr.
func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: unprivileged PROGRAM [ARG...]")
	}
	const nobody = 65534
	// The script's folders are closed to others when they are made.
	for dir := ts.Getenv("WORK"); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		ts.Check(os.Chmod(dir, 0o755))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	ts.Check(os.WriteFile(ts.MkAbs("out"), []byte(stdout.String()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("err"), []byte(stderr.String()), 0o644))
	if neg != (err != nil) {
		ts.Fatalf("it ended with %v: %s", err, stderr.String())
	}
}
