// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/client"
	"teleport-auditd/lib/client/clienttest"
)

// dialNode logs in at a node of a new cluster.
func dialNode(t *testing.T, dir string) *ssh.Client {
	t.Helper()
	cluster := newCluster(t, clienttest.Config{})
	_, _, err := cluster.AddNode(clienttest.NodeConfig{Name: "web", Dir: dir})
	require.NoError(t, err)
	p, err := newStore(t, clockwork.NewRealClock()).Save(login(t, cluster))
	require.NoError(t, err)
	conn, err := client.Dial(context.Background(), client.DialConfig{Profile: p})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	node, err := conn.DialNode(context.Background(), client.NodeAddr{Login: "bob", Host: "WEB"})
	require.NoError(t, err)
	return node
}

// watched is an output that a test waits for.
type watched struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) has(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.text.String(), text)
}

func TestSignals(t *testing.T) {
	node := dialNode(t, t.TempDir())
	for _, test := range []struct {
		name, command string
		send          []os.Signal
		want          client.ExitError
	}{
		{"the command decides", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done", []os.Signal{syscall.SIGINT}, client.ExitError{Status: 9}},
		{"the command ends by it", "echo ready; sleep 100", []os.Signal{syscall.SIGTERM}, client.ExitError{Status: 143, Signal: "TERM"}},
		{"it does not end tsh", "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done", []os.Signal{syscall.SIGUSR1}, client.ExitError{Status: 4}},
		{"the second one does", "trap '' HUP; echo ready; sleep 100", []os.Signal{syscall.SIGHUP, syscall.SIGHUP}, client.ExitError{Status: 129, Signal: "HUP"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			signals := make(chan os.Signal)
			output := &watched{}
			go func() {
				for deadline := time.Now().Add(20 * time.Second); !output.has("ready") && time.Now().Before(deadline); {
					time.Sleep(5 * time.Millisecond)
				}
				for _, sig := range test.send {
					signals <- sig
				}
			}()
			err := client.Session{Command: test.command, Stdout: output, Stderr: output, Signals: signals}.Run(context.Background(), node)
			var exit *client.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, test.want, *exit)
		})
	}
}

func TestSessionEndsWithItsContext(t *testing.T) {
	node := dialNode(t, t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := client.Session{Command: "sleep 100"}.Run(ctx, node)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// liar lists names of files that lead elsewhere.
type liar struct {
	client.LocalSide
	names []string
}

type named struct {
	os.FileInfo
	name string
}

func (n named) Name() string { return n.name }

func (l liar) ReadDir(name string) ([]os.FileInfo, error) {
	infos, err := l.LocalSide.ReadDir(name)
	if err != nil || len(infos) == 0 {
		return nil, err
	}
	var lies []os.FileInfo
	for _, name := range l.names {
		lies = append(lies, named{infos[0], name})
	}
	return append(lies, infos...), nil
}

func TestCopyRefusesNamesThatLeadElsewhere(t *testing.T) {
	source, target := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(source, "good"), []byte("good"), 0o600))
	var problems []string
	copier := client.Copier{Recursive: true, Problem: func(err error) { problems = append(problems, trace.UserMessage(err)) }}
	side := liar{names: []string{"..", ".", "", "../../evil", "/etc/evil", "a\x00b"}}
	err := copier.Copy(context.Background(), []client.Source{{Side: side, Name: source}}, client.LocalSide{}, filepath.Join(target, "copy"))
	require.ErrorContains(t, err, "6 of the files or folders could not be copied")
	require.Len(t, problems, 6)
	entries, err := os.ReadDir(filepath.Join(target, "copy"))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	entries, err = os.ReadDir(target)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// TestHostsThatAreNotTheCluster: a proxy of another cluster is not believed.
func TestHostsThatAreNotTheCluster(t *testing.T) {
	got := login(t, newCluster(t, clienttest.Config{}))
	got.SSHAddr = newCluster(t, clienttest.Config{}).SSHAddr
	p, err := newStore(t, clockwork.NewRealClock()).Save(got)
	require.NoError(t, err)
	_, err = client.Dial(context.Background(), client.DialConfig{Profile: p})
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "does not show a certificate of this cluster for this name: no authorities for hostname")
}

// TestHostsOfAnotherRole: a node of the cluster is not believed to be its proxy,
// whatever names it has, nor anything else to be a node.
func TestHostsOfAnotherRole(t *testing.T) {
	cluster := newCluster(t, clienttest.Config{})
	_, addr, err := cluster.AddNode(clienttest.NodeConfig{Name: "web", Dir: t.TempDir()})
	require.NoError(t, err)
	got := login(t, cluster)
	addrOfProxy := got.SSHAddr
	got.SSHAddr = addr
	p, err := newStore(t, clockwork.NewRealClock()).Save(got)
	require.NoError(t, err)
	_, err = client.Dial(t.Context(), client.DialConfig{Profile: p})
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, `the certificate is that of a "Node", and not of a "Proxy"`)

	_, _, err = cluster.AddNode(clienttest.NodeConfig{Name: "jump", Dir: t.TempDir(), Role: types.RoleProxy})
	require.NoError(t, err)
	got.SSHAddr = addrOfProxy
	p, err = newStore(t, clockwork.NewRealClock()).Save(got)
	require.NoError(t, err)
	conn, err := client.Dial(t.Context(), client.DialConfig{Profile: p})
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.DialNode(t.Context(), client.NodeAddr{Login: "root", Host: "jump"})
	require.ErrorContains(t, err, `the certificate is that of a "Proxy", and not of a "Node"`)
}

// TestExpiredHost: the clock is the user's host's.
func TestExpiredHost(t *testing.T) {
	cluster := newCluster(t, clienttest.Config{})
	clock := clockwork.NewFakeClockAt(time.Now().Add(2 * time.Hour))
	p, err := newStore(t, clock).Save(login(t, cluster))
	require.NoError(t, err)
	_, err = client.Dial(context.Background(), client.DialConfig{Profile: p, Clock: clock})
	require.ErrorContains(t, err, "cert has expired")
}
