// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/utils/sshutils"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/srvtest"
	"teleport-auditd/lib/srv/tunnel"
)

const (
	patience = 20 * time.Second
	uuid     = "0b54bdf1-a1a5-4b6d-9f0a-000000000001"
	cluster  = "example.com"
)

// host makes a host certificate.
func host(t testing.TB, ca srvtest.Authority, id, role string, at time.Time, change ...func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	return ca.Login(t, at, append([]func(*ssh.Certificate){func(c *ssh.Certificate) {
		c.CertType = ssh.HostCert
		c.KeyId = id + "." + cluster
		c.ValidPrincipals = []string{"a-name", id, c.KeyId}
		c.Permissions = ssh.Permissions{Extensions: map[string]string{"x-teleport-role": role}}
	}}, change...)...)
}

// signers is what a host shows, which may be renewed.
type signers struct {
	mu  sync.Mutex
	all []ssh.Signer
}

func (s *signers) set(all ...ssh.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = all
}

func (s *signers) get() []ssh.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// world is a proxy's tunnel port, and the authorities.
type world struct {
	server         *tunnel.Server
	addr           string
	userCA, hostCA srvtest.Authority
	hostCAs        *srvtest.CAs
	proxy          *signers
	auth           net.Listener
	recorder       *auditdtest.Recorder
	log            *logtest.Hook
	logger         *logrus.Logger
	clock          *clockwork.FakeClock

	mu    sync.Mutex
	conns []net.Conn // what agents have dialled
}

func newWorld(t *testing.T, change ...func(*tunnel.ServerConfig)) *world {
	t.Helper()
	w := &world{
		userCA:   srvtest.NewAuthority(t),
		hostCA:   srvtest.NewAuthority(t),
		hostCAs:  &srvtest.CAs{},
		proxy:    &signers{},
		recorder: &auditdtest.Recorder{},
		clock:    clockwork.NewFakeClockAt(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)),
	}
	w.logger, w.log = logtest.NewNullLogger()
	w.hostCAs.Trust(w.hostCA)
	userCAs := &srvtest.CAs{}
	userCAs.Trust(w.userCA)
	w.proxy.set(host(t, w.hostCA, "uuid-of-proxy", "Proxy", w.clock.Now()))
	var err error
	w.auth, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { w.auth.Close() })
	cfg := tunnel.ServerConfig{
		Redial:      -1,
		CAs:         userCAs,
		HostCAs:     w.hostCAs.UserCAs,
		HostSigners: w.proxy.get,
		ClusterName: cluster,
		Emitter:     w.recorder,
		DialAuth: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", w.auth.Addr().String())
		},
		Clock: w.clock,
		Log:   w.logger,
	}
	for _, f := range change {
		f(&cfg)
	}
	w.server, err = tunnel.NewServer(cfg)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.addr = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, w.server.Close())
		require.NoError(t, <-served)
	})
	return w
}

// agent starts a node's agent.
func (w *world) agent(t *testing.T, own *signers, change ...func(*tunnel.AgentConfig)) (*tunnel.Agent, context.CancelFunc) {
	t.Helper()
	cfg := tunnel.AgentConfig{
		NodeID:      uuid,
		ClusterName: cluster,
		TunnelAddr:  func(context.Context) (string, error) { return w.addr, nil },
		HostSigners: own.get,
		HostCAs:     w.hostCAs.UserCAs,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.conns = append(w.conns, conn)
			}
			return conn, err
		},
		Clock: w.clock,
		Log:   w.logger,
	}
	for _, f := range change {
		f(&cfg)
	}
	agent, err := tunnel.NewAgent(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		agent.Run(ctx)
		close(done)
	}()
	stop := func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run has not ended")
		}
	}
	t.Cleanup(stop)
	return agent, stop
}

func (w *world) node(t *testing.T) *signers {
	own := &signers{}
	own.set(srvtest.NewKey(t), host(t, w.hostCA, uuid, "Node", w.clock.Now()))
	return own
}

// dial dials until there is a tunnel, moving the clock when told to.
func (w *world) dial(t *testing.T, advance time.Duration) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		conn, err := w.server.Dial(ctx, uuid)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		require.True(t, trace.IsNotFound(err) || trace.IsConnectionProblem(err), "%v", err)
		require.NoError(t, ctx.Err())
		w.clock.Advance(advance)
		time.Sleep(time.Millisecond)
	}
}

// pair opens a connection through the tunnel and returns both ends.
func (w *world) pair(t *testing.T, agent *tunnel.Agent, advance time.Duration) (proxySide, nodeSide net.Conn) {
	t.Helper()
	proxySide = w.dial(t, advance)
	nodeSide, err := agent.Listener().Accept()
	require.NoError(t, err)
	t.Cleanup(func() { nodeSide.Close() })
	return proxySide, nodeSide
}

func TestBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, _ := w.agent(t, w.node(t))
	proxySide, nodeSide := w.pair(t, agent, 0)
	require.Equal(t, w.addr, nodeSide.RemoteAddr().String())

	_, err := io.WriteString(proxySide, "question")
	require.NoError(t, err)
	require.NoError(t, proxySide.(interface{ CloseWrite() error }).CloseWrite())
	question, err := io.ReadAll(nodeSide)
	require.NoError(t, err)
	require.Equal(t, "question", string(question))
	_, err = io.WriteString(nodeSide, "answer")
	require.NoError(t, err)
	require.NoError(t, nodeSide.Close())
	answer, err := io.ReadAll(proxySide)
	require.NoError(t, err)
	require.Equal(t, "answer", string(answer))
	require.Eventually(t, func() bool {
		_, err := proxySide.Write([]byte("x"))
		return err != nil
	}, patience, time.Millisecond)
	require.NoError(t, proxySide.Close())
	require.ErrorIs(t, proxySide.Close(), net.ErrClosed)
	_, err = proxySide.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = proxySide.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, proxySide.SetDeadline(time.Now()), net.ErrClosed)
	require.Empty(t, w.recorder.Events())
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, _ := w.agent(t, w.node(t))
	proxySide, nodeSide := w.pair(t, agent, 0)

	for _, past := range []time.Time{time.Now().Add(-time.Hour), time.Unix(1, 0)} {
		require.NoError(t, nodeSide.SetReadDeadline(past))
		_, err := nodeSide.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
	}
	// One that is set while somebody waits.
	require.NoError(t, nodeSide.SetReadDeadline(time.Time{}))
	failed := make(chan error, 1)
	go func() {
		_, err := nodeSide.Read(make([]byte, 1))
		failed <- err
	}()
	require.NoError(t, nodeSide.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	require.ErrorIs(t, <-failed, os.ErrDeadlineExceeded)
	// Nothing is lost by it.
	_, err := io.WriteString(proxySide, "after")
	require.NoError(t, err)
	require.NoError(t, nodeSide.SetReadDeadline(time.Time{}))
	got := make([]byte, 5)
	_, err = io.ReadFull(nodeSide, got)
	require.NoError(t, err)
	require.Equal(t, "after", string(got))

	// A reader that does not read holds the writer up, until its deadline.
	require.NoError(t, proxySide.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	n, err := proxySide.Write(make([]byte, 64<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Less(t, n, 64<<20)
	_, err = proxySide.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	// Closing ends a writer that is held up.
	require.NoError(t, proxySide.SetWriteDeadline(time.Time{}))
	go func() {
		_, err := proxySide.Write([]byte("x"))
		failed <- err
	}()
	require.NoError(t, proxySide.Close())
	require.ErrorIs(t, <-failed, net.ErrClosed)
	// And another connection is not held up by this one.
	other, otherNode := w.pair(t, agent, 0)
	go func() { _, _ = other.Write([]byte("x")) }()
	_, err = otherNode.Read(make([]byte, 1))
	require.NoError(t, err)
}

func TestCarries200MB(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, _ := w.agent(t, w.node(t))
	proxySide, nodeSide := w.pair(t, agent, 0)
	const total = 200 << 20
	block := make([]byte, 1<<20)
	_, err := rand.Read(block)
	require.NoError(t, err)
	start := time.Now()
	sums := make(chan []byte, 2)
	for _, way := range []struct{ from, to net.Conn }{{proxySide, nodeSide}, {nodeSide, proxySide}} {
		go func() {
			for range total / len(block) {
				if _, err := way.from.Write(block); err != nil {
					return
				}
			}
			_ = way.from.(interface{ CloseWrite() error }).CloseWrite()
		}()
		go func() {
			sum := sha256.New()
			_, _ = io.Copy(sum, way.to)
			sums <- sum.Sum(nil)
		}()
	}
	want := sha256.New()
	for range total / len(block) {
		want.Write(block)
	}
	for range 2 {
		require.Equal(t, want.Sum(nil), <-sums)
	}
	t.Logf("200 MiB each way in %v", time.Since(start))
}

// TestReconnects: an agent that has lost its tunnel has another, and its listener
// goes on.
func TestReconnects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, patient)
	agent, _ := w.agent(t, w.node(t), func(c *tunnel.AgentConfig) { c.KeepAlive = 24 * time.Hour })
	proxySide, nodeSide := w.pair(t, agent, 0)
	reading := make(chan error, 2)
	for _, c := range []net.Conn{proxySide, nodeSide} {
		go func() {
			_, err := c.Read(make([]byte, 1))
			reading <- err
		}()
	}
	w.mu.Lock()
	require.Len(t, w.conns, 1)
	w.conns[0].Close()
	w.mu.Unlock()
	require.Error(t, <-reading)
	require.Error(t, <-reading)

	proxySide, nodeSide = w.pair(t, agent, time.Second)
	go func() { _, _ = io.WriteString(proxySide, "again") }()
	got := make([]byte, 5)
	_, err := io.ReadFull(nodeSide, got)
	require.NoError(t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Len(t, w.conns, 2)
}

// frozen is a connection that swallows what is written once it is told to, as a
// router does that has forgotten it.
type frozen struct {
	net.Conn
	mu     sync.Mutex
	frozen bool
}

func (f *frozen) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen {
		return len(b), nil
	}
	return f.Conn.Write(b)
}

// TestKeepAlive: a peer that is silent is given up by both sides.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var made []*frozen
	agent, _ := w.agent(t, w.node(t), func(c *tunnel.AgentConfig) {
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			made = append(made, &frozen{Conn: conn})
			return made[len(made)-1], nil
		}
	})
	_, nodeSide := w.pair(t, agent, 0)
	mu.Lock()
	made[0].mu.Lock()
	made[0].frozen = true
	made[0].mu.Unlock()
	mu.Unlock()

	ended := make(chan error, 1)
	go func() {
		_, err := nodeSide.Read(make([]byte, 1))
		ended <- err
	}()
	deadline := time.After(patience)
	for done := false; !done; {
		select {
		case err := <-ended:
			require.Error(t, err)
			done = true
		case <-deadline:
			t.Fatal("the silent tunnel was not given up")
		default:
			w.clock.Advance(tunnel.DefaultKeepAlive / 3)
			time.Sleep(time.Millisecond)
		}
	}
	w.pair(t, agent, time.Second)
}

// TestStaleTunnel: while the newest tunnel does not answer, an older one that does
// is used, and the other way round.
func TestStaleTunnel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, _ := w.agent(t, w.node(t))
	w.pair(t, agent, 0)

	// Another login of the same node, which answers nothing.
	signer := w.node(t).get()[1]
	stale, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{User: uuid, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	require.NoError(t, err)
	defer stale.Close()
	asked := stale.HandleChannelOpen("connection@teleport-auditd")

	w.waitTunnels(t, 2, 0)
	dialled := make(chan net.Conn, 1)
	go func() {
		conn, err := w.server.Dial(t.Context(), uuid)
		if err == nil {
			dialled <- conn
		}
	}()
	select {
	case <-asked:
	case <-time.After(patience):
		t.Fatal("the newest tunnel is not tried")
	}
	var conn net.Conn
	for conn == nil {
		w.clock.Advance(time.Second)
		select {
		case conn = <-dialled:
		case <-time.After(time.Millisecond):
		}
	}
	conn.Close()
	(<-w.accept(agent)).Close()
	stale.Close()
	w.pair(t, agent, 0)
}

// waitTunnels waits until the server has had n tunnels, moving the clock.
func (w *world) waitTunnels(t *testing.T, n int, advance time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool {
		w.clock.Advance(advance)
		tunnels := 0
		for _, entry := range w.log.AllEntries() {
			if strings.Contains(entry.Message, "has a tunnel from") {
				tunnels++
			}
		}
		return tunnels == n
	}, patience, time.Millisecond)
}

func (w *world) accept(agent *tunnel.Agent) <-chan net.Conn {
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := agent.Listener().Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	return accepted
}

// TestRenewal: with a new certificate the agent dials anew, and what is open goes
// on through the old tunnel, which ends after it.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *tunnel.ServerConfig) { c.KeepAlive = 24 * time.Hour })
	own := w.node(t)
	agent, _ := w.agent(t, own, func(c *tunnel.AgentConfig) { c.KeepAlive = 24 * time.Hour })
	oldProxy, oldNode := w.pair(t, agent, 0)
	own.set(host(t, w.hostCA, uuid, "Node", w.clock.Now()))
	w.waitTunnels(t, 2, 10*time.Second)
	newProxy, newNode := w.pair(t, agent, 0)
	for _, pair := range [][2]net.Conn{{oldProxy, oldNode}, {newProxy, newNode}} {
		go func() { _, _ = pair[0].Write([]byte("x")) }()
		_, err := pair[1].Read(make([]byte, 1))
		require.NoError(t, err)
	}
	oldNode.Close()
	w.mu.Lock()
	old := w.conns[0]
	w.mu.Unlock()
	require.Eventually(t, func() bool {
		return errors.Is(old.SetDeadline(time.Time{}), net.ErrClosed)
	}, patience, time.Millisecond, "the old tunnel must end after its last connection")
	go func() { _, _ = newProxy.Write([]byte("y")) }()
	_, err := newNode.Read(make([]byte, 1))
	require.NoError(t, err)
}

// TestExpiry: a node whose certificate has ended is not reached any more, and what
// is open goes on.
func TestExpiry(t *testing.T) {
	t.Parallel()
	// Signs of life must not be late while the clock runs.
	w := newWorld(t, func(c *tunnel.ServerConfig) { c.KeepAlive = 24 * time.Hour })
	agent, _ := w.agent(t, w.node(t), func(c *tunnel.AgentConfig) { c.KeepAlive = 24 * time.Hour })
	proxySide, nodeSide := w.pair(t, agent, 0)
	w.clock.Advance(time.Hour)
	require.Eventually(t, func() bool {
		_, err := w.server.Dial(t.Context(), uuid)
		return trace.IsNotFound(err)
	}, patience, time.Millisecond)
	go func() { _, _ = proxySide.Write([]byte("x")) }()
	_, err := nodeSide.Read(make([]byte, 1))
	require.NoError(t, err)
}

func TestRefusedHosts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		user   string
		signer func(t *testing.T, w *world) ssh.Signer
		reason string
		person string
	}{
		"a proxy": {uuid, func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, uuid, "Proxy", w.clock.Now())
		}, "host-certificate-is-of-another-role", uuid + "." + cluster},
		"another node's id": {"another", func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, uuid, "Node", w.clock.Now())
		}, "login-is-not-among-the-principals", uuid + "." + cluster},
		"its name": {"a-name", func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, uuid, "Node", w.clock.Now())
		}, "login-is-not-the-host-id-of-the-certificate", uuid + "." + cluster},
		"expired": {uuid, func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, uuid, "Node", w.clock.Now().Add(-2*time.Hour))
		}, "certificate-has-expired", uuid + "." + cluster},
		"another cluster": {uuid, func(t *testing.T, w *world) ssh.Signer {
			return host(t, srvtest.NewAuthority(t), uuid, "Node", w.clock.Now())
		}, "certificate-authority-is-not-trusted", ""},
		"a host by the user authority": {uuid, func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.userCA, uuid, "Node", w.clock.Now())
		}, "certificate-authority-is-not-trusted", ""},
		"a user by the host authority": {"bob", func(t *testing.T, w *world) ssh.Signer {
			return w.hostCA.Login(t, w.clock.Now())
		}, "certificate-authority-is-not-trusted", ""},
		"an expired user": {"bob", func(t *testing.T, w *world) ssh.Signer {
			return w.userCA.Login(t, w.clock.Now().Add(-2*time.Hour))
		}, "certificate-has-expired", "alice"},
		"a key": {uuid, func(t *testing.T, w *world) ssh.Signer { return srvtest.NewKey(t) }, "key-is-not-a-certificate", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{
				User: tt.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(tt.signer(t, w))}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			})
			require.Error(t, err)
			require.NoError(t, w.server.Close())
			events := w.recorder.Events()
			require.Len(t, events, 1)
			require.NotEmpty(t, events[0].ConnAddress)
			events[0].ConnAddress = ""
			require.Equal(t, auditd.Event{
				Type: auditd.AuditUserErr, Result: auditd.Failed,
				SystemUser: tt.user, TeleportUser: tt.person, Reason: tt.reason,
			}, events[0])
		})
	}
}

// TestAuthorize: a lock on a node keeps its tunnel away, and one on a user the user.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	refused := make(chan srv.Refused, 10)
	w := newWorld(t, func(c *tunnel.ServerConfig) {
		c.Authorize = func(_ context.Context, identity srv.Identity) error {
			switch {
			case identity.HostID == uuid && identity.TeleportUser == "":
				return &srv.Refusal{Reason: "node-is-locked"}
			case identity.HostID == "" && identity.TeleportUser == "alice":
				return &srv.Refusal{Reason: "user-is-locked"}
			}
			return nil
		}
		c.Refused = func(r srv.Refused) { refused <- r }
	})
	for user, signer := range map[string]ssh.Signer{
		uuid:  w.node(t).get()[1],
		"bob": w.userCA.Login(t, w.clock.Now()),
	} {
		_, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		require.Error(t, err)
		r := <-refused
		require.Equal(t, user, r.Login)
		require.Equal(t, user == uuid, r.Host)
		require.Equal(t, map[string]string{uuid: "node-is-locked", "bob": "user-is-locked"}[user], r.Reason)
	}
	require.Len(t, w.recorder.Events(), 2)
	_, err := w.server.Dial(t.Context(), uuid)
	require.True(t, trace.IsNotFound(err))
}

// TestEndWhere: the tunnels of a node that is shut out end, with what goes through
// them, and those of others stay.
func TestEndWhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, stop := w.agent(t, w.node(t))
	_, nodeSide := w.pair(t, agent, 0)
	w.server.EndWhere(func(nodeID string) bool { return nodeID == "another" })
	_, err := w.server.Dial(t.Context(), uuid)
	require.NoError(t, err)
	w.server.EndWhere(func(nodeID string) bool { return nodeID == uuid })
	_, err = nodeSide.Read(make([]byte, 1))
	require.Error(t, err)
	stop()
	_, err = w.server.Dial(t.Context(), uuid)
	require.True(t, trace.IsNotFound(err), "%v", err)
}

// TestOtherProxies: a node gives its tunnel to nobody but a proxy of its cluster.
func TestOtherProxies(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		shows func(t *testing.T, w *world) ssh.Signer
		why   string
	}{
		"a node": {func(t *testing.T, w *world) ssh.Signer { return host(t, w.hostCA, "x", "Node", w.clock.Now()) }, "another-role"},
		"another cluster": {func(t *testing.T, w *world) ssh.Signer {
			return host(t, srvtest.NewAuthority(t), "x", "Proxy", w.clock.Now())
		}, "not-trusted"},
		"expired": {func(t *testing.T, w *world) ssh.Signer {
			return host(t, w.hostCA, "x", "Proxy", w.clock.Now().Add(-2*time.Hour))
		}, "expired"},
		"a key": {func(t *testing.T, w *world) ssh.Signer { return srvtest.NewKey(t) }, "no common algorithm for host key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.proxy.set(tt.shows(t, w))
			w.agent(t, w.node(t))
			require.Eventually(t, func() bool { return w.log.LastEntry() != nil }, patience, time.Millisecond)
			require.Contains(t, w.log.LastEntry().Message, tt.why)
			require.NotContains(t, w.log.LastEntry().Message, "\n")
			_, err := w.server.Dial(t.Context(), uuid)
			require.True(t, trace.IsNotFound(err))
		})
	}
}

func (w *world) user(t *testing.T) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{
		User: "bob", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.userCA.Login(t, w.clock.Now()))}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func TestTransport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client := w.user(t)
	go func() {
		for {
			conn, err := w.auth.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	// Teleport's own client code.
	conn, _, err := sshutils.ConnectProxyTransport(client.Conn, &sshutils.DialReq{Address: constants.RemoteAuthServer}, false)
	require.NoError(t, err)
	sent := bytes.Repeat([]byte("question"), 1<<17)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))

	for address, want := range map[string]string{
		"127.0.0.1:22":         "this port leads to the auth server only",
		"@local-node":          "this port leads to the auth server only",
		w.auth.Addr().String(): "this port leads to the auth server only",
	} {
		_, _, err = sshutils.ConnectProxyTransport(client.Conn, &sshutils.DialReq{Address: address}, false)
		require.ErrorContains(t, err, want)
	}
	_, _, err = sshutils.ConnectProxyTransport(client.Conn, &sshutils.DialReq{ServerID: uuid + "." + cluster}, false)
	require.ErrorContains(t, err, "this port leads to the auth server only")

	for name, payload := range map[string][]byte{
		"nonsense": []byte("{"),
		"long":     append([]byte(`{"address":"@remote-auth-server"}`), bytes.Repeat([]byte(" "), 5000)...),
	} {
		channel, requests, err := client.OpenChannel(constants.ChanTransport, nil)
		require.NoError(t, err)
		go ssh.DiscardRequests(requests)
		ok, err := channel.SendRequest(constants.ChanTransportDialReq, true, payload)
		require.NoError(t, err, name)
		require.False(t, ok, name)
		why, err := io.ReadAll(channel.Stderr())
		require.NoError(t, err)
		require.Equal(t, "the request for a connection is malformed", string(why))
	}
	for _, channelType := range []string{"session", "direct-tcpip", "connection@teleport-auditd", ""} {
		_, _, err = client.OpenChannel(channelType, nil)
		var refused *ssh.OpenChannelError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, ssh.Prohibited, refused.Reason)
	}
	ok, _, err := client.SendRequest("tcpip-forward", true, ssh.Marshal(struct {
		Addr string
		Port uint32
	}{"0.0.0.0", 0}))
	require.NoError(t, err)
	require.False(t, ok)

	w.auth.Close()
	_, _, err = sshutils.ConnectProxyTransport(client.Conn, &sshutils.DialReq{Address: constants.RemoteAuthServer}, false)
	require.ErrorContains(t, err, "cannot reach the auth server now")
	require.Empty(t, w.recorder.Events())
}

func TestTransportIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client := w.user(t)
	var first ssh.Channel
	for range 64 {
		channel, requests, err := client.OpenChannel(constants.ChanTransport, nil)
		require.NoError(t, err)
		go ssh.DiscardRequests(requests)
		if first == nil {
			first = channel
		}
	}
	_, _, err := client.OpenChannel(constants.ChanTransport, nil)
	var refused *ssh.OpenChannelError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, ssh.ResourceShortage, refused.Reason)
	// Who does not say where to is let go.
	w.clock.Advance(10 * time.Second)
	_, err = io.ReadAll(first)
	require.NoError(t, err)
}

func TestBacklogIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, _ := w.agent(t, w.node(t))
	w.pair(t, agent, 0)
	for range 128 {
		w.dial(t, 0)
	}
	_, err := w.server.Dial(t.Context(), uuid)
	require.ErrorContains(t, err, "does not take connections fast enough")
	conn, err := agent.Listener().Accept()
	require.NoError(t, err)
	conn.Close()
	w.dial(t, 0)
	// Closing the listener, as a node does that is going, closes those that wait.
	require.NoError(t, agent.Listener().Close())
	_, err = agent.Listener().Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = w.server.Dial(t.Context(), uuid)
	require.Error(t, err)
}

func TestEndsWithoutLeftovers(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t)
	agent, stop := w.agent(t, w.node(t))
	proxySide, nodeSide := w.pair(t, agent, 0)
	go func() { _, _ = proxySide.Write(make([]byte, 64<<20)) }() // nobody reads it
	_, err := nodeSide.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, w.server.Close())
	stop()
	proxySide.Close()
	nodeSide.Close()
	w.auth.Close()
	require.Eventually(t, func() bool { return runtime.NumGoroutine()-1 <= before }, patience, time.Millisecond, "goroutines are left over")
}
