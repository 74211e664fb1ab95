// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	apiclient "github.com/gravitational/teleport/api/client"
	"github.com/jonboulle/clockwork"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh/agent"

	"teleport-auditd/lib/client"
	"teleport-auditd/lib/client/clienttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tsh": main})
}

// TestScripts runs each file in testdata: a behaviour of tsh that reads as a
// manual page. Beside testscript's own commands there are those of
// scriptCommands.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Cmds:                scriptCommands(),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("TSH", filepath.Join(home, ".tsh"))
			// Each of the many programs would wait for a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Values[clusterKey{}] = new(*clienttest.Cluster)
			return os.MkdirAll(home, 0o700)
		},
	})
}

// clusterKey is where a script keeps the cluster that it made last.
type clusterKey struct{}

func clusterOf(ts *testscript.TestScript) *clienttest.Cluster {
	cluster := *ts.Value(clusterKey{}).(**clienttest.Cluster)
	if cluster == nil {
		ts.Fatalf("there is no cluster yet")
	}
	return cluster
}

func scriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		// cluster [otp=CODE] [ttl=TIME] [name=NAME] [login=LOGIN]: a cluster runs until
		// the script ends. $PROXY and $SSHPROXY say where, and SSL_CERT_FILE makes its
		// web certificate known. Where one is there already, this is another.
		"cluster": func(ts *testscript.TestScript, _ bool, args []string) {
			var cfg clienttest.Config
			for _, arg := range args {
				key, value, _ := strings.Cut(arg, "=")
				switch key {
				case "otp":
					cfg.OTP = value
				case "name":
					cfg.Name = value
				case "login":
					cfg.Logins = append(cfg.Logins, value)
				case "ttl":
					var err error
					cfg.TTL, err = time.ParseDuration(value)
					ts.Check(err)
				default:
					ts.Fatalf("unknown argument %q", arg)
				}
			}
			cluster, err := clienttest.New(cfg)
			ts.Check(err)
			ts.Defer(cluster.Close)
			*ts.Value(clusterKey{}).(**clienttest.Cluster) = cluster
			file := ts.MkAbs("web-ca.pem")
			ts.Check(os.WriteFile(file, cluster.WebCA, 0o600))
			ts.Setenv("SSL_CERT_FILE", file)
			ts.Setenv("PROXY", cluster.WebAddr)
			ts.Setenv("SSHPROXY", cluster.SSHAddr)
		},
		// node NAME [KEY=VALUE]... [shown=NAME] [banner=TEXT]: a node whose home is
		// nodes/NAME. $NAME_ID is its UUID, $NAME_ADDR its address.
		"node": func(ts *testscript.TestScript, _ bool, args []string) {
			cfg := clienttest.NodeConfig{Name: args[0], Dir: ts.MkAbs(filepath.Join("nodes", args[0])), Labels: map[string]string{}}
			for _, arg := range args[1:] {
				key, value, _ := strings.Cut(arg, "=")
				if text, err := strconv.Unquote(`"` + value + `"`); err == nil {
					value = text
				}
				switch key {
				case "shown":
					cfg.Shown = append(cfg.Shown, value)
				case "banner":
					cfg.Banner = value
				default:
					cfg.Labels[key] = value
				}
			}
			ts.Check(os.MkdirAll(cfg.Dir, 0o755))
			id, addr, err := clusterOf(ts).AddNode(cfg)
			ts.Check(err)
			ts.Setenv(args[0]+"_ID", id)
			ts.Setenv(args[0]+"_ADDR", addr)
		},
		// login: alice logs in, as with tsh login.
		"login": func(ts *testscript.TestScript, _ bool, _ []string) {
			web := client.WebClient{Addr: clusterOf(ts).WebAddr, Insecure: true}
			info, err := web.Ping(context.Background())
			ts.Check(err)
			login, err := web.Login(context.Background(), info, client.Request{User: "alice", Password: clienttest.Password, TTL: time.Hour})
			ts.Check(err)
			store, err := client.NewStore(ts.MkAbs(ts.Getenv("TSH")), clockwork.NewRealClock())
			ts.Check(err)
			_, err = store.Save(login)
			ts.Check(err)
		},
		// agent: an ssh-agent at $SSH_AUTH_SOCK. keys lists it.
		"agent": func(ts *testscript.TestScript, _ bool, _ []string) {
			dir, err := os.MkdirTemp("", "agent-")
			ts.Check(err)
			listener, err := net.Listen("unix", filepath.Join(dir, "agent"))
			ts.Check(err)
			ring := agent.NewKeyring()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						_ = agent.ServeAgent(ring, conn)
						_ = conn.Close()
					}()
				}
			}()
			ts.Defer(func() {
				_ = listener.Close()
				_ = os.RemoveAll(dir)
			})
			ts.Setenv("SSH_AUTH_SOCK", listener.Addr().String())
		},
		// agentkeys NUMBER: the agent has that many keys.
		"agentkeys": func(ts *testscript.TestScript, _ bool, args []string) {
			conn, err := net.Dial("unix", ts.Getenv("SSH_AUTH_SOCK"))
			ts.Check(err)
			defer conn.Close()
			held, err := agent.NewClient(conn).List()
			ts.Check(err)
			if got := strconv.Itoa(len(held)); got != args[0] {
				ts.Fatalf("the agent has %s keys, want %s", got, args[0])
			}
		},
		// echo: a server that sends back what it gets, in capitals. $ECHO is its port.
		"echo": func(ts *testscript.TestScript, _ bool, _ []string) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			ts.Check(err)
			ts.Defer(func() { _ = listener.Close() })
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						text, _ := io.ReadAll(conn)
						_, _ = conn.Write([]byte(strings.ToUpper(string(text))))
						_ = conn.Close()
					}()
				}
			}()
			ts.Setenv("ECHO", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
		},
		// ask KIND PORT DESTINATION WORD: WORD goes to the forwarded port, by socks
		// to DESTINATION, and comes back in capitals. It waits for the port.
		"ask": ask,
		// tunnel NAME ARG...: tsh ssh -N with these until the script ends, which is
		// by an interrupt. $NAME is the port that was allocated.
		"tunnel": tunnel,
		// apiclient: Teleport's own client loads the folder and reaches the auth
		// service.
		"apiclient": func(ts *testscript.TestScript, _ bool, _ []string) {
			cluster := clusterOf(ts)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			credentials := apiclient.LoadProfile(ts.MkAbs(ts.Getenv("TSH")), "")
			_, err := credentials.SSHClientConfig()
			ts.Check(err)
			if expiry, ok := credentials.Expiry(); !ok || expiry.Before(time.Now()) {
				ts.Fatalf("the credentials expire at %v", expiry)
			}
			api, err := apiclient.New(ctx, apiclient.Config{
				Addrs:                      []string{cluster.WebAddr},
				Credentials:                []apiclient.Credentials{credentials},
				ALPNSNIAuthDialClusterName: cluster.Name,
			})
			ts.Check(err)
			defer api.Close()
			answer, err := api.Ping(ctx)
			ts.Check(err)
			if answer.ClusterName != cluster.Name {
				ts.Fatalf("the auth service is of %q", answer.ClusterName)
			}
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
		// mode FILE MODE: the file's permissions, in octal.
		"mode": func(ts *testscript.TestScript, _ bool, args []string) {
			info, err := os.Lstat(ts.MkAbs(args[0]))
			ts.Check(err)
			if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
				ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
			}
		},
		// private FOLDER: nobody else may read anything below it.
		"private": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(filepath.Walk(ts.MkAbs(args[0]), func(path string, info os.FileInfo, err error) error {
				want := os.FileMode(0o600)
				if err == nil && info.IsDir() {
					want = 0o700
				}
				if err == nil && info.Mode().Perm() != want {
					err = fmt.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
				}
				return err
			}))
		},
		// holds FOLDER NAME...: the folder holds these and no others.
		"holds": func(ts *testscript.TestScript, _ bool, args []string) {
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

func ask(ts *testscript.TestScript, _ bool, args []string) {
	kind, port, destination, word := args[0], args[1], args[2], args[3]
	var conn net.Conn
	var err error
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err = net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil || time.Now().After(deadline) {
			break
		}
	}
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	if kind == "socks" {
		host, text, err := net.SplitHostPort(destination)
		ts.Check(err)
		number, err := strconv.Atoi(text)
		ts.Check(err)
		request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
		_, err = conn.Write(append(request, byte(number>>8), byte(number)))
		ts.Check(err)
		answer := make([]byte, 12)
		_, err = io.ReadFull(conn, answer)
		ts.Check(err)
		if answer[0] != 5 || answer[1] != 0 || answer[2] != 5 || answer[3] != 0 {
			ts.Fatalf("the answer by SOCKS is %v", answer)
		}
	}
	_, err = conn.Write([]byte(word))
	ts.Check(err)
	ts.Check(conn.(*net.TCPConn).CloseWrite())
	text, err := io.ReadAll(conn)
	ts.Check(err)
	if string(text) != strings.ToUpper(word) {
		ts.Fatalf("got %q back", text)
	}
}

func tunnel(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command("tsh", append([]string{"ssh", "-N"}, args[1:]...)...)
	for _, name := range []string{"HOME", "PATH", "GORACE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		ts.Check(cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != 130 {
			ts.Fatalf("tsh ssh -N ended with status %d after an interrupt, want 130", status)
		}
	})
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() {
		ts.Fatalf("tsh ssh -N said nothing")
	}
	match := regexp.MustCompile(`^Port (\d+) was allocated`).FindStringSubmatch(lines.Text())
	if match == nil {
		ts.Fatalf("tsh ssh -N said %q", lines.Text())
	}
	ts.Setenv(args[0], match[1])
}
