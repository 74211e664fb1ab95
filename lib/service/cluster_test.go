// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/backend/etcd/etcdtest"
	"teleport-auditd/lib/config"
)

// host is a process of a cluster of several.
type host struct {
	*Process
	cfg  *config.Config
	hook *logrustest.Hook
}

// addrOfEvent waits for an event and returns the address that it has.
func (h *host) addrOf(t *testing.T, event string) string {
	t.Helper()
	got, err := h.WaitForEvent(testContext(t), event)
	require.NoError(t, err)
	return got.Payload.(net.Addr).String()
}

// tryHost makes a process, and starts it where it can.
func tryHost(t *testing.T, cfg *config.Config) (*host, error) {
	t.Helper()
	require.NoError(t, cfg.CheckAndSetDefaults())
	log, hook := quiet()
	p, err := New(testContext(t), Config{Settings: cfg, Log: log, Emitter: &auditdtest.Recorder{}, SessionProgram: "/bin/true", UserProgram: "/bin/true"})
	if err != nil {
		return nil, err
	}
	p.Start()
	return &host{Process: p, cfg: cfg, hook: hook}, nil
}

func startHost(t *testing.T, cfg *config.Config) *host {
	t.Helper()
	h, err := tryHost(t, cfg)
	require.NoError(t, err)
	_, err = h.WaitForEvent(testContext(t), TeleportReadyEvent)
	require.NoError(t, err, "%v", messages(h.hook, logrus.WarnLevel))
	return h
}

// nodeSettings are those of a host that joins what main serves.
func nodeSettings(t *testing.T, main *host, name string, token string) *config.Config {
	t.Helper()
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("node"))
	cfg.NodeName, cfg.PIDFile = name, ""
	cfg.AuthServers = []string{main.addrOf(t, AuthTLSReady)}
	cfg.AuthToken = token
	pins, err := main.auth.CAPins(t.Context())
	require.NoError(t, err)
	cfg.CAPins = pins
	return cfg
}

func newToken(t *testing.T, main *host, expires time.Time, roles ...types.SystemRole) string {
	t.Helper()
	name := strings.ReplaceAll(uuid.NewString(), "-", "")
	token, err := types.NewProvisionToken(name, roles, expires)
	require.NoError(t, err)
	require.NoError(t, main.auth.CreateToken(t.Context(), token))
	return name
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 20*time.Millisecond, what)
}

// userSigner is alice, who has a certificate for root.
func userSigner(t *testing.T, main *host) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	key, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	cert, err := main.auth.SignUser(t.Context(), auth.UserCertRequest{PublicKey: key.PublicKey(), User: "alice", Logins: []string{"root"}, TTL: time.Hour})
	require.NoError(t, err)
	signer, err := ssh.NewCertSigner(cert, key)
	require.NoError(t, err)
	return signer
}

// dialAs logs in at a proxy.
func dialAs(t *testing.T, proxy *host, signer ssh.Signer) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial("tcp", proxy.addrOf(t, ProxySSHReady), &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// login is alice at a proxy of the cluster that main keeps.
func login(t *testing.T, main, proxy *host) *ssh.Client {
	t.Helper()
	return dialAs(t, proxy, userSigner(t, main))
}

// hostCertThrough is the certificate of the node that the proxy leads to.
func hostCertThrough(t *testing.T, client *ssh.Client, node string) *ssh.Certificate {
	t.Helper()
	var conn net.Conn
	eventually(t, "the proxy leads to "+node, func() (ok bool) {
		var err error
		conn, err = client.Dial("tcp", node+":0")
		return err == nil
	})
	defer conn.Close()
	var shown ssh.PublicKey
	_, _, _, err := ssh.NewClientConn(conn, node, &ssh.ClientConfig{
		User:              "nobody",
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			shown = key
			return nil
		},
	})
	require.Error(t, err, "nobody may log in without a certificate")
	require.IsType(t, &ssh.Certificate{}, shown, "%v", err)
	return shown.(*ssh.Certificate)
}

// TestCluster is three hosts: auth and proxy, a node, and a node that dials out.
func TestCluster(t *testing.T) {
	ctx := testContext(t)
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("auth,proxy"))
	main := startHost(t, cfg)
	closed := false
	defer func() {
		if !closed {
			require.NoError(t, main.Close())
		}
	}()
	soon := time.Now().Add(time.Hour)

	near := startHost(t, nodeSettings(t, main, "near", newToken(t, main, soon, types.RoleNode)))
	nearClosed := false
	defer func() {
		if !nearClosed {
			require.NoError(t, near.Close())
		}
	}()
	farSettings := nodeSettings(t, main, "far", newToken(t, main, soon, types.RoleNode))
	farSettings.AuthServers, farSettings.ProxyServer = nil, main.addrOf(t, ProxyWebReady)
	far := startHost(t, farSettings)
	defer func() { require.NoError(t, far.Close()) }()

	nodes, err := main.auth.Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 2)
	for _, node := range nodes {
		require.Equal(t, node.GetHostname() == "far", node.GetUseTunnel())
	}

	client := login(t, main, main)
	first := map[string]*ssh.Certificate{}
	for _, name := range []string{"near", "far"} {
		first[name] = hostCertThrough(t, client, name)
		require.Contains(t, first[name].ValidPrincipals, name)
	}

	// A rotation of the host authority reaches the nodes phase by phase.
	rotate := func(phase string) {
		require.NoError(t, main.auth.RotateCertAuthority(ctx, types.RotateRequest{Type: types.HostCA, TargetPhase: phase, Mode: types.RotationModeManual}))
	}
	rotate(types.RotationPhaseInit)
	rotate(types.RotationPhaseUpdateClients)
	rotate(types.RotationPhaseUpdateServers)
	for name, before := range first {
		eventually(t, name+" has a certificate of the new authority", func() bool {
			now := hostCertThrough(t, client, name)
			return string(now.SignatureKey.Marshal()) != string(before.SignatureKey.Marshal())
		})
	}
	rotate(types.RotationPhaseStandby)
	for _, h := range []*host{near, far} {
		eventually(t, "the auth service believes the host by the authority that is left", func() bool {
			_, err := h.members[0].client.GetDomainName(ctx)
			return err == nil
		})
	}
	ping, err := webclient.Find(&webclient.Config{Context: ctx, ProxyAddr: main.addrOf(t, ProxyWebReady), Insecure: true})
	require.NoError(t, err)
	require.Equal(t, main.addrOf(t, ProxyReverseTunnelReady), ping.Proxy.SSH.TunnelListenAddr)

	// The node serves without the auth service, also one that starts then.
	require.NoError(t, main.Close())
	closed = true
	require.NoError(t, near.Close())
	nearClosed = true
	near.cfg.AuthToken = ""
	again := startHost(t, near.cfg)
	shown := hostKeyOf(t, again.addrOf(t, NodeSSHReady), ssh.CertAlgoED25519v01)
	require.IsType(t, &ssh.Certificate{}, shown)
	require.NotEmpty(t, messages(again.hook, logrus.WarnLevel))

	// And registers by itself when it is back.
	back := *main.cfg
	_, port, err := net.SplitHostPort(near.cfg.AuthServers[0])
	require.NoError(t, err)
	back.Auth.ListenAddr = "127.0.0.1:" + port
	main = startHost(t, &back)
	closed = false
	eventually(t, "the node reappears", func() bool {
		nodes, err := main.auth.Nodes(ctx)
		require.NoError(t, err)
		for _, node := range nodes {
			if node.GetHostname() == "near" {
				return true
			}
		}
		return false
	})
	require.NoError(t, again.Close())
}

// TestJoinRefused holds each refusal to one clear line, which ends the start.
func TestJoinRefused(t *testing.T) {
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("auth"))
	main := startHost(t, cfg)
	defer func() { require.NoError(t, main.Close()) }()
	soon := time.Now().Add(time.Hour)
	used := newToken(t, main, soon, types.RoleNode)
	joined := startHost(t, nodeSettings(t, main, "first", used))
	require.NoError(t, joined.Close())

	for name, test := range map[string]struct {
		token func() string
		pin   string
		want  string
	}{
		"wrong pin":             {token: func() string { return "x" }, pin: "sha256:" + strings.Repeat("00", 32), want: "the pin does not match: the server's authority is sha256:[0-9a-f]{64}, and teleport.ca_pin"},
		"unknown token":         {token: func() string { return "nosuchtoken" }, want: "cannot join the cluster: the token is not one of this cluster"},
		"used token":            {token: func() string { return used }, want: "the token was used already, by another host"},
		"token of another type": {token: func() string { return newToken(t, main, soon, types.RoleProxy) }, want: "the token is of another type"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := nodeSettings(t, main, "second", test.token())
			if test.pin != "" {
				cfg.CAPins = []string{test.pin}
			}
			_, err := tryHost(t, cfg)
			require.True(t, trace.IsAccessDenied(err), "%v", err)
			require.Regexp(t, test.want, OneLine(err))
			require.NotContains(t, trace.UserMessage(err), "\n")
			require.NoFileExists(t, filepath.Join(cfg.DataDir, "host_identity_node.json"))
		})
	}
}

// TestJoinWaits holds that a host waits for its auth server, and that the wait
// ends with ctx.
func TestJoinWaits(t *testing.T) {
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("node"))
	cfg.AuthServers, cfg.AuthToken, cfg.CAPins = []string{"127.0.0.1:1"}, "abc", []string{"sha256:" + strings.Repeat("00", 32)}
	require.NoError(t, cfg.CheckAndSetDefaults())
	log, hook := quiet()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := New(ctx, Config{Settings: cfg, Log: log, Emitter: &auditdtest.Recorder{}, SessionProgram: "/bin/true", UserProgram: "/bin/true"})
		ended <- err
	}()
	eventually(t, "the wait is said", func() bool { return len(messages(hook, logrus.WarnLevel)) > 0 })
	require.Contains(t, messages(hook, logrus.WarnLevel)[0], "The auth server 127.0.0.1:1 cannot be reached: ")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// TestTwoAuthServers is a node of a cluster that two auth servers keep in etcd.
// One is ended, and the node finds the other.
func TestTwoAuthServers(t *testing.T) {
	ctx := testContext(t)
	peers := etcdtest.Start(t, 1).Peers()
	sealed := filepath.Join(t.TempDir(), "ca_key")
	var mains [2]*host
	closed := false
	for i := range mains {
		cfg := settings(t)
		require.NoError(t, cfg.SetRoles("auth"))
		cfg.NodeName = "auth-" + string('1'+rune(i))
		cfg.Storage = config.Storage{Type: config.StorageEtcd, Peers: peers, CAKeyFile: sealed}
		mains[i] = startHost(t, cfg)
		defer func() {
			if i != 0 || !closed {
				require.NoError(t, mains[i].Close())
			}
		}()
	}
	token := newToken(t, mains[0], time.Now().Add(time.Hour), types.RoleNode)
	cfg := nodeSettings(t, mains[1], "web", token)
	cfg.AuthServers = []string{mains[0].addrOf(t, AuthTLSReady), mains[1].addrOf(t, AuthTLSReady)}
	cfg.SSH.ListenAddr = "127.0.0.1:0"
	node := startHost(t, cfg)
	defer func() { require.NoError(t, node.Close()) }()

	require.NoError(t, mains[0].Close())
	closed = true
	require.NoError(t, mains[1].auth.DeleteAllNodes(ctx))
	// It was connected to the one or to the other. From now on it is to this one.
	lock, err := types.NewLock(uuid.NewString(), types.LockSpecV2{Target: types.LockTarget{User: "mallory"}})
	require.NoError(t, err)
	require.NoError(t, mains[1].auth.UpsertLock(ctx, lock))
	eventually(t, "the lock of the auth server that is left is known", func() bool {
		locks, err := node.members[0].known.Locks(ctx)
		require.NoError(t, err)
		return len(locks) == 1
	})
}

// TestProxyOfItsOwn is a host with two roles that joins with one token, and leads
// users to its node while the auth service is away.
func TestProxyOfItsOwn(t *testing.T) {
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("auth"))
	main := startHost(t, cfg)
	token := newToken(t, main, time.Now().Add(time.Hour), types.RoleNode, types.RoleProxy)
	cfg = nodeSettings(t, main, "edge", token)
	require.NoError(t, cfg.SetRoles("proxy,node"))
	edge := startHost(t, cfg)
	client := login(t, main, edge)
	hostCertThrough(t, client, "edge")
	require.NoError(t, client.Close())
	cfg.SSH.ListenAddr = edge.addrOf(t, NodeSSHReady) // where it is registered
	require.NoError(t, edge.Close())

	signer := userSigner(t, main)
	require.NoError(t, main.Close())
	edge = startHost(t, cfg)
	defer func() { require.NoError(t, edge.Close()) }()
	client = dialAs(t, edge, signer)
	hostCertThrough(t, client, "edge")
	ping, err := webclient.Ping(&webclient.Config{Context: testContext(t), ProxyAddr: edge.addrOf(t, ProxyWebReady), Insecure: true})
	require.NoError(t, err)
	require.Equal(t, "teleport-auditd", ping.ClusterName)
}
