// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/join"
	"teleport-auditd/lib/config"
)

// settings are the defaults on ports that are free, in a folder of the test's.
func settings(t *testing.T) *config.Config {
	cfg := config.Default()
	cfg.NodeName = "web-1"
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.PIDFile = filepath.Join(t.TempDir(), "pid")
	for _, addr := range []*string{
		&cfg.Auth.ListenAddr, &cfg.Proxy.ListenAddr, &cfg.Proxy.WebListenAddr, &cfg.Proxy.TunnelListenAddr, &cfg.SSH.ListenAddr,
	} {
		*addr = "127.0.0.1:0"
	}
	cfg.SSH.Labels = map[string]string{"env": "test"}
	require.NoError(t, cfg.CheckAndSetDefaults())
	return cfg
}

// start runs a process until the test ends.
func start(t *testing.T, cfg *config.Config) (*Process, *auditdtest.Recorder) {
	log, _ := quiet()
	recorder := &auditdtest.Recorder{}
	p, err := New(t.Context(), Config{Settings: cfg, Log: log, Emitter: recorder, SessionProgram: "/bin/true", UserProgram: "/bin/true"})
	require.NoError(t, err)
	p.Start()
	return p, recorder
}

// hostKeyOf is what an SSH server shows a client that asks for keys of one
// algorithm.
func hostKeyOf(t *testing.T, addr, algorithm string) (shown ssh.PublicKey) {
	_, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
		User:              "nobody",
		HostKeyAlgorithms: []string{algorithm},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			shown = key
			return nil
		},
	})
	require.Error(t, err, "nobody may log in without a certificate")
	require.NotNil(t, shown)
	return shown
}

func TestProcess(t *testing.T) {
	ctx := testContext(t)
	cfg := settings(t)
	p, recorder := start(t, cfg)
	_, err := p.WaitForEvent(ctx, TeleportReadyEvent)
	require.NoError(t, err)
	require.FileExists(t, cfg.PIDFile)

	nodeReady, err := p.WaitForEvent(ctx, NodeSSHReady)
	require.NoError(t, err)
	proxyReady, err := p.WaitForEvent(ctx, ProxySSHReady)
	require.NoError(t, err)
	_, err = p.WaitForEvent(ctx, AuthReady)
	require.NoError(t, err)
	nodeAddr, proxyAddr := nodeReady.Payload.(net.Addr).String(), proxyReady.Payload.(net.Addr).String()

	nodes, err := p.auth.Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 1)
	require.Equal(t, p.hostUUID, nodes[0].GetName())
	require.Equal(t, "web-1", nodes[0].GetHostname())
	require.Equal(t, nodeAddr, nodes[0].GetAddr())
	require.Equal(t, "test", nodes[0].GetAllLabels()["env"])
	require.WithinDuration(t, p.clock.Now().Add(announceTTL), nodes[0].Expiry(), heartbeat)

	// Both show a certificate that clients can check by any of these names.
	cas, err := p.auth.HostCAs(ctx)
	require.NoError(t, err)
	checker := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return string(key.Marshal()) == string(cas[0].Marshal())
	}}
	for _, addr := range []string{nodeAddr, proxyAddr} {
		cert, ok := hostKeyOf(t, addr, ssh.CertAlgoED25519v01).(*ssh.Certificate)
		require.True(t, ok)
		for _, name := range []string{"web-1", "web-1.teleport-auditd", p.hostUUID, "localhost", "127.0.0.1", "::1"} {
			require.NoError(t, checker.CheckHostKey(net.JoinHostPort(name, "3022"), nil, cert))
		}
		require.Error(t, checker.CheckHostKey("db-1:3022", nil, cert))
		require.Equal(t, ssh.KeyAlgoED25519, hostKeyOf(t, addr, ssh.KeyAlgoED25519).Type())
	}

	require.NoError(t, p.Close())
	require.True(t, recorder.Closed())
	require.NoFileExists(t, cfg.PIDFile)
	_, err = net.Dial("tcp", nodeAddr)
	require.Error(t, err)
	_, err = auth.Open(ctx, auth.Config{DataDir: cfg.DataDir})
	require.NoError(t, err)
	select {
	case err := <-p.failed:
		t.Fatalf("ending in order is no failure: %v", err)
	default:
	}
}

// TestNodeAlone serves another cluster: no auth role, but a file of its CA.
func TestNodeAlone(t *testing.T) {
	ctx := testContext(t)
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("node"))
	cfg.SSH.TrustedUserCAKeys = filepath.Join(t.TempDir(), "ca.pub")
	log, hook := quiet()
	service := Config{Settings: cfg, Log: log, Emitter: &auditdtest.Recorder{}, SessionProgram: "/bin/true", UserProgram: "/bin/true"}

	_, err := New(ctx, service)
	require.ErrorContains(t, err, cfg.SSH.TrustedUserCAKeys, "a file that is not there")

	authority, err := join.HostKey(t.TempDir(), types.RoleNode)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cfg.SSH.TrustedUserCAKeys, ssh.MarshalAuthorizedKey(authority.PublicKey()), 0o600))
	service.Emitter = &auditdtest.Recorder{}
	p, err := New(ctx, service)
	require.NoError(t, err)
	p.Start()
	ready, err := p.WaitForEvent(ctx, NodeSSHReady)
	require.NoError(t, err)
	_, err = p.WaitForEvent(ctx, TeleportReadyEvent)
	require.NoError(t, err)
	shown := hostKeyOf(t, ready.Payload.(net.Addr).String(), ssh.KeyAlgoED25519)
	require.Contains(t, messages(hook, logrus.InfoLevel), "Without auth_service there is no host certificate: the host key is "+ssh.FingerprintSHA256(shown)+".")
	require.NoError(t, p.Close())
	require.NoFileExists(t, filepath.Join(cfg.DataDir, "backend.db"))
}

func TestStartThatFails(t *testing.T) {
	log, hook := quiet()
	for name, test := range map[string]struct {
		damage func(*testing.T, *config.Config, *Config)
		want   string
	}{
		"no teleport-session": {func(_ *testing.T, _ *config.Config, c *Config) { c.SessionProgram = "/no/teleport-session" }, "/no/teleport-session is missing"},
		"no PAM service": {func(_ *testing.T, s *config.Config, _ *Config) {
			s.SSH.PAM = config.PAM{Enabled: true, ServiceName: "no-such-service"}
		}, `ssh_service.pam.service_name: nobody could log in: the PAM service "no-such-service" has no file in /etc/pam.d|built without PAM`},
		"no banner": {func(_ *testing.T, s *config.Config, _ *Config) { s.SSH.Banner = "/no/such/banner" }, `reading the banner \(ssh_service.banner\): open /no/such/banner`},
		"port in use": {func(t *testing.T, s *config.Config, _ *Config) {
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = taken.Close() })
			s.SSH.ListenAddr = taken.Addr().String()
		}, "another program uses the port"},
		"data directory open to others": {func(t *testing.T, s *config.Config, _ *Config) {
			require.NoError(t, os.Mkdir(s.DataDir, 0o700))
			require.NoError(t, os.Chmod(s.DataDir, 0o755))
		}, "is open to other users"},
		"another cluster's data": {func(t *testing.T, s *config.Config, _ *Config) {
			server, err := auth.Open(t.Context(), auth.Config{DataDir: s.DataDir, ClusterName: "other", Log: log})
			require.NoError(t, err)
			require.NoError(t, server.Close())
		}, `set auth_service.cluster_name to "other"`},
		"pid file": {func(_ *testing.T, s *config.Config, _ *Config) { s.PIDFile = "/no/such/folder/pid" }, "the pid file /no/such/folder/pid cannot be written"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := settings(t)
			recorder := &auditdtest.Recorder{}
			service := Config{Settings: cfg, Log: log, Emitter: recorder, SessionProgram: "/bin/true", UserProgram: "/bin/true"}
			test.damage(t, cfg, &service)
			_, err := New(t.Context(), service)
			require.Error(t, err)
			require.True(t, recorder.Closed())
			require.Regexp(t, "(?i)"+test.want, OneLine(err))
			require.NotContains(t, trace.UserMessage(err), "\n")
			require.NoFileExists(t, cfg.PIDFile)

			// What a failed start has taken it has given back.
			if name == "pid file" {
				cfg.PIDFile = ""
				service.Emitter = &auditdtest.Recorder{}
				p, err := New(t.Context(), service)
				require.NoError(t, err)
				require.NoError(t, p.Close())
			}
		})
	}
	require.Empty(t, messages(hook, logrus.ErrorLevel))
}
