// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/gravitational/teleport/api/types"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auth"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tctl": main,
		"dial": dial,
	})
}

// TestScripts runs each file in testdata: a behaviour of tctl that reads as a
// manual page. Beside testscript's own commands there are those of scriptCommands.
func TestScripts(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Cmds:                scriptCommands(),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOSTNAME", hostname)
			// Each of the many programs would wait for a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

func scriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		// cluster NAME: teleport runs, and has its cluster open in data, until the
		// script ends.
		"cluster": func(ts *testscript.TestScript, _ bool, args []string) {
			server := newCluster(ts, ts.MkAbs("data"), args[0])
			ts.Defer(func() { ts.Check(server.Close()) })
		},
		// node NAME HOST:PORT [UUID]: a node registers.
		"node": func(ts *testscript.TestScript, _ bool, args []string) {
			server := openCluster(ts, ts.MkAbs("data"))
			defer func() { ts.Check(server.Close()) }()
			id := "id-of-" + args[0]
			if len(args) > 2 {
				id = args[2]
			}
			ts.Check(server.UpsertNode(context.Background(), &types.ServerV2{
				Kind:     types.KindNode,
				Version:  types.V2,
				Metadata: types.Metadata{Name: id},
				Spec:     types.ServerSpecV2{Hostname: args[0], Addr: args[1]},
			}))
		},
		// sshserver NAME PRINCIPAL...: a host of the cluster that shows a
		// certificate and lets the cluster's users in. $ADDR, $HOST and $PORT
		// say where.
		"sshserver": func(ts *testscript.TestScript, _ bool, args []string) {
			server := openCluster(ts, ts.MkAbs("data"))
			listener := listen(ts)
			ts.Defer(func() {
				_ = listener.Close()
				ts.Check(server.Close())
			})
			serveSSH(ts, listener, server, args[0], args[1:])
			host, port, err := net.SplitHostPort(listener.Addr().String())
			ts.Check(err)
			ts.Setenv("ADDR", listener.Addr().String())
			ts.Setenv("HOST", host)
			ts.Setenv("PORT", port)
		},
		// exits STATUS PROGRAM ARG...: as exec, with the status that the program
		// must end with.
		"exits": func(ts *testscript.TestScript, _ bool, args []string) {
			want, err := strconv.Atoi(args[0])
			ts.Check(err)
			err = ts.Exec(args[1], args[2:]...)
			got := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				got = exit.ExitCode()
			} else {
				ts.Check(err)
			}
			if got != want {
				ts.Fatalf("ended with status %d, want %d", got, want)
			}
		},
		// oneerror: standard error was one line, and it begins with ERROR.
		"oneerror": func(ts *testscript.TestScript, _ bool, _ []string) {
			text := ts.ReadFile("stderr")
			if !strings.HasPrefix(text, "ERROR: ") || strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
				ts.Fatalf("not one line that begins with ERROR: %q", text)
			}
		},
		// expand FILE: $NAME becomes the value of the script's variable.
		"expand": func(ts *testscript.TestScript, _ bool, args []string) {
			text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
		},
		// mode FILE MODE: the file's permissions, in octal.
		"mode": func(ts *testscript.TestScript, _ bool, args []string) {
			info, err := os.Lstat(ts.MkAbs(args[0]))
			ts.Check(err)
			if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
				ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
			}
		},
		// files FOLDER NAME...: the folder holds these and no others, not even
		// hidden ones.
		"files": func(ts *testscript.TestScript, _ bool, args []string) {
			entries, err := os.ReadDir(ts.MkAbs(args[0]))
			ts.Check(err)
			var names []string
			for _, entry := range entries {
				names = append(names, entry.Name())
			}
			if got, want := strings.Join(names, " "), strings.Join(args[1:], " "); got != want {
				ts.Fatalf("%s holds %q, want %q", args[0], got, want)
			}
		},
	}
}

func newCluster(ts *testscript.TestScript, dir, name string) *auth.Server {
	log := logrus.New()
	log.SetOutput(io.Discard)
	server, err := auth.Open(context.Background(), auth.Config{DataDir: dir, ClusterName: name, Log: log})
	ts.Check(err)
	return server
}

// openCluster opens the cluster that is there.
func openCluster(ts *testscript.TestScript, dir string) *auth.Server {
	return newCluster(ts, dir, "")
}

// dial joins its standard input and output with a TCP connection: the
// ProxyCommand with which ssh reaches a host whose name nobody resolves.
func dial() {
	conn, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(os.Stdout, conn)
}
