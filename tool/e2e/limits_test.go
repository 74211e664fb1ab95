// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/tool/e2e/harness"
)

// TestCertificates: what a certificate restricts is enforced.
func TestCertificates(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca})
	bob := []string{w.bob.Name}
	dial := func(t *testing.T, c harness.Cert) (*ssh.Client, error) {
		t.Helper()
		c.KeyID = "alice"
		if c.Logins == nil {
			c.Logins = bob
		}
		return harness.Dial(t, w.daemon.NodeAddr, w.bob.Name, ca.Sign(t, c))
	}
	options := func(name, value string) map[string]string { return map[string]string{name: value} }

	for _, test := range []struct {
		name string
		cert harness.Cert
		ok   bool
	}{
		{"plain", harness.Cert{}, true},
		{"valid for ever", harness.Cert{From: time.Unix(0, 0), To: time.Unix(-1, 0)}, true},
		{"not yet valid", harness.Cert{From: time.Now().Add(time.Hour), To: time.Now().Add(2 * time.Hour)}, false},
		{"expired", harness.Cert{From: time.Now().Add(-2 * time.Hour), To: time.Now().Add(-time.Hour)}, false},
		{"no principals", harness.Cert{Logins: []string{}}, false},
		{"a host certificate", harness.Cert{Host: true}, false},
		{"source address that fits", harness.Cert{CriticalOptions: options("source-address", "10.0.0.0/8,127.0.0.0/8")}, true},
		{"source address that does not", harness.Cert{CriticalOptions: options("source-address", "10.0.0.0/8")}, false},
		{"source address that is none", harness.Cert{CriticalOptions: options("source-address", "everywhere")}, false},
		{"unknown critical option", harness.Cert{CriticalOptions: options("verify-required", "")}, false},
		{"unknown extension", harness.Cert{Extensions: options("something@example.com", "x")}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, err := dial(t, test.cert)
			if !test.ok {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			result, err := harness.Exec(client, "echo in")
			require.NoError(t, err)
			assert.Equal(t, "in\n", result.Stdout)
		})
	}

	t.Run("force-command", func(t *testing.T) {
		client, err := dial(t, harness.Cert{CriticalOptions: options("force-command", `echo "forced, not: $SSH_ORIGINAL_COMMAND"`)})
		require.NoError(t, err)
		result, err := harness.Exec(client, "rm -rf x")
		require.NoError(t, err)
		assert.Equal(t, "forced, not: rm -rf x\n", result.Stdout)
		session, err := client.NewSession()
		require.NoError(t, err)
		defer session.Close()
		out, err := session.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, session.Shell())
		sc := &screen{}
		go sc.follow(out)
		sc.wait(t, "forced, not: \n")
		session, err = client.NewSession()
		require.NoError(t, err)
		defer session.Close()
		if err := session.RequestSubsystem("sftp"); err == nil {
			out, _ := session.CombinedOutput("")
			assert.NotContains(t, string(out), "sftp-server")
		}
	})
	t.Run("without permit-pty", func(t *testing.T) {
		client, err := dial(t, harness.Cert{Extensions: map[string]string{}})
		require.NoError(t, err)
		session, err := client.NewSession()
		require.NoError(t, err)
		defer session.Close()
		assert.Error(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		out, err := session.Output("tty; echo in")
		assert.NoError(t, err)
		assert.Contains(t, string(out), "not a tty\nin\n", "a command without a terminal works")
	})
}

// TestLimits: how much one connection may have, and how long it may take.
func TestLimits(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca, daemon: harness.DaemonConfig{SSH: []string{"login_grace_time: 1s", "max_startups: 5"}}})
	identity := ca.Sign(t, harness.Cert{KeyID: "alice", Logins: []string{w.bob.Name}})

	t.Run("sessions of a connection", func(t *testing.T) {
		client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
		var open []*ssh.Session
		for range 10 {
			session, err := client.NewSession()
			require.NoError(t, err)
			_, err = session.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, session.Start("cat"))
			open = append(open, session)
		}
		_, err := client.NewSession()
		var refused *ssh.OpenChannelError
		require.True(t, errors.As(err, &refused), "the eleventh is refused: %v", err)
		assert.Len(t, w.daemon.Sessions(), 1, "they share a process")
		require.NoError(t, open[0].Close())
		harness.WaitFor(t, waitLimit, "room for another session", func() bool {
			result, err := harness.Exec(client, "echo in")
			return err == nil && result.Stdout == "in\n"
		})
	})
	t.Run("keepalive", func(t *testing.T) {
		client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
		for range 3 {
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			require.NoError(t, err, "a keepalive is answered, whatever the answer")
		}
		// Past the grace time, which is for those who have not logged in.
		session, err := client.NewSession()
		require.NoError(t, err)
		out, err := session.Output("sleep 1.2; echo in")
		require.NoError(t, err)
		assert.Equal(t, "in\n", string(out))
	})
	t.Run("login grace time", func(t *testing.T) {
		conn, err := net.Dial("tcp", w.daemon.NodeAddr)
		require.NoError(t, err)
		defer conn.Close()
		began := time.Now()
		require.NoError(t, conn.SetDeadline(began.Add(waitLimit)))
		buf := make([]byte, 4096)
		for err == nil {
			_, err = conn.Read(buf)
		}
		var late net.Error
		assert.False(t, errors.As(err, &late) && late.Timeout(), "a connection that does not log in is dropped")
		assert.GreaterOrEqual(t, time.Since(began), 900*time.Millisecond)
	})
	t.Run("unauthenticated connections", func(t *testing.T) {
		// More than may be there at once, and still a login gets in once those
		// that do nothing have been dropped.
		// Those of the test before count until the daemon has let go of them.
		harness.WaitFor(t, waitLimit, "three of eight connections to be dropped", func() bool {
			return dropped(t, w.daemon.NodeAddr, 8) == 3
		})
		harness.WaitFor(t, waitLimit, "a login to get in", func() bool {
			client, err := harness.Dial(t, w.daemon.NodeAddr, w.bob.Name, identity)
			if err == nil {
				client.Close()
			}
			return err == nil
		})
	})
}

// dropped opens connections that do nothing, and counts those that the daemon
// closes at once.
func dropped(t *testing.T, addr string, connections int) int {
	t.Helper()
	var idle []net.Conn
	for range connections {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		idle = append(idle, conn)
	}
	n := 0
	for _, conn := range idle {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		// Those that may stay are greeted.
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			var late net.Error
			if !errors.As(err, &late) || !late.Timeout() {
				n++
			}
		}
	}
	return n
}

// TestWhatThereIsNot is refused cleanly, is no login, and the connection goes on.
func TestWhatThereIsNot(t *testing.T) {
	w := newWorld(t, worldConfig{})
	alice := w.daemon.Sign("alice", w.bob.Name)
	client := harness.NewClient(t, w.daemon, alice)
	mark := w.audit.Fence()

	unknown := client.Run("-s", w.bob.Name+"@node", "netconf")
	assert.NotZero(t, unknown.Code)
	assert.Contains(t, unknown.Stderr, "subsystem request failed")

	conn := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, harness.ReadIdentity(t, alice))
	_, _, err := conn.OpenChannel("x11", nil)
	assert.Error(t, err)
	session, err := conn.NewSession()
	require.NoError(t, err)
	ok, err := session.SendRequest("x11-req", true, nil)
	require.NoError(t, err)
	assert.False(t, ok)
	require.NoError(t, session.Close())
	require.NoError(t, conn.Close())
	w.audit.Fence()
	assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))), "nothing was allowed, so nobody logged in")

	assert.Equal(t, "in\n", client.Run(w.bob.Name+"@node", "echo in").Stdout)
}

// TestProxyIsNoOpenRelay: the proxy leads to registered nodes and nowhere else.
func TestProxyIsNoOpenRelay(t *testing.T) {
	w := newWorld(t, worldConfig{})
	alice := w.daemon.Sign("alice", w.bob.Name)
	conn := harness.MustDial(t, w.daemon.ProxyAddr, w.bob.Name, harness.ReadIdentity(t, alice))
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	for _, addr := range []string{other.Addr().String(), w.daemon.ProxyAddr, "e2e-node.example.com:22", "localhost:22", "127.0.0.1:1"} {
		through, err := conn.Dial("tcp", addr)
		if !assert.Error(t, err, "the proxy must not lead to %s", addr) {
			through.Close()
		}
	}
	_, port, _ := strings.Cut(w.daemon.NodeAddr, ":")
	for _, addr := range []string{w.daemon.NodeAddr, w.daemon.NodeName + ":" + port} {
		through, err := conn.Dial("tcp", addr)
		require.NoError(t, err, "the proxy leads to its node at %s", addr)
		buf := make([]byte, 8)
		_, err = through.Read(buf)
		require.NoError(t, err)
		assert.Equal(t, "SSH-2.0-", string(buf))
		through.Close()
	}
	_, err = conn.NewSession()
	assert.Error(t, err, "it runs no sessions")
}

// TestKnownHosts: what tctl prints for known_hosts is enough, as it stands, for
// the name that the node was given.
func TestKnownHosts(t *testing.T) {
	w := newWorld(t, worldConfig{})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	dir := harness.OpenDir(t)
	known := dir + "/known_hosts"
	lines := w.daemon.Tctl("auth", "export", "--type=host")
	require.Contains(t, lines, "@cert-authority ")
	harness.Output(t, "/bin/sh", "-c", "printf %s "+harness.Quote(lines)+" > "+known)
	result := client.Run("-o", "UserKnownHostsFile="+known, w.bob.Name+"@node", "echo in")
	assert.Equal(t, "in\n", result.Stdout, result.Stderr)
}
