// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/config"
)

// proxySettings are those of another proxy of the cluster that main serves.
func proxySettings(t *testing.T, main *host, name string) *config.Config {
	t.Helper()
	cfg := nodeSettings(t, main, name, newToken(t, main, time.Now().Add(time.Hour), types.RoleProxy))
	require.NoError(t, cfg.SetRoles("proxy"))
	return cfg
}

// TestTwoProxies: a node that dials out to one proxy is reached through each. One is
// killed, and the other goes on; and while the one that the node was configured with
// is away, the node finds the auth service through the other.
func TestTwoProxies(t *testing.T) {
	ctx := testContext(t)
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("auth"))
	main := startHost(t, cfg)
	defer func() { require.NoError(t, main.Close()) }()

	var proxies [2]*host
	var open [2]bool
	start := func(i int, cfg *config.Config) {
		proxies[i], open[i] = startHost(t, cfg), true
		// It is back where it was.
		p := &cfg.Proxy
		p.ListenAddr, p.TunnelListenAddr, p.WebListenAddr = proxies[i].addrOf(t, ProxySSHReady), proxies[i].addrOf(t, ProxyReverseTunnelReady), proxies[i].addrOf(t, ProxyWebReady)
	}
	end := func(i int) {
		require.NoError(t, proxies[i].Close())
		open[i] = false
	}
	for i, name := range []string{"one", "two"} {
		start(i, proxySettings(t, main, name))
		defer func() {
			if open[i] {
				end(i)
			}
		}()
	}
	registered, err := main.auth.Proxies(ctx)
	require.NoError(t, err)
	require.Len(t, registered, 2)
	for _, proxy := range registered {
		addr, _ := proxy.GetLabel(auth.TunnelAddrLabel)
		require.Contains(t, []string{proxies[0].addrOf(t, ProxyReverseTunnelReady), proxies[1].addrOf(t, ProxyReverseTunnelReady)}, addr)
	}

	nodeCfg := nodeSettings(t, main, "far", newToken(t, main, time.Now().Add(time.Hour), types.RoleNode))
	nodeCfg.AuthServers, nodeCfg.ProxyServer = nil, proxies[0].addrOf(t, ProxyWebReady)
	far := startHost(t, nodeCfg)
	defer func() { require.NoError(t, far.Close()) }()
	for _, proxy := range proxies {
		hostCertThrough(t, login(t, main, proxy), "far")
	}
	gained := func() (n int) {
		for _, line := range messages(far.hook, logrus.InfoLevel) {
			if strings.HasPrefix(line, "There is a tunnel to the proxy at ") {
				n++
			}
		}
		return n
	}
	require.Equal(t, 2, gained(), "one tunnel to each")

	// While the first is away the node is reached, and still hears of changes.
	end(0)
	hostCertThrough(t, login(t, main, proxies[1]), "far")
	lock, err := types.NewLock("mallory", types.LockSpecV2{Target: types.LockTarget{User: "mallory"}})
	require.NoError(t, err)
	require.NoError(t, main.auth.UpsertLock(ctx, lock))
	eventually(t, "the node hears of a lock", func() bool {
		locks, err := far.members[0].known.Locks(ctx)
		return err == nil && len(locks) == 1
	})

	start(0, proxies[0].cfg)
	hostCertThrough(t, login(t, main, proxies[0]), "far")
	require.Equal(t, 3, gained())
	var lost []string
	for _, line := range messages(far.hook, logrus.WarnLevel) {
		if strings.HasPrefix(line, "The tunnel to the proxy at ") {
			lost = append(lost, line)
		}
	}
	require.Equal(t, []string{"The tunnel to the proxy at " + proxies[0].addrOf(t, ProxyReverseTunnelReady) + " has ended."}, lost)

	// A node that starts while that is away has the other on its disk.
	end(0)
	require.NoError(t, far.Close())
	far = startHost(t, nodeCfg)
	hostCertThrough(t, login(t, main, proxies[1]), "far")
}

// TestTunnelPublicAddr: nodes dial in where the configuration says, and else at the
// host where people find the proxy.
func TestTunnelPublicAddr(t *testing.T) {
	anywhere := &net.TCPAddr{IP: net.IPv4zero, Port: 3024}
	for want, proxy := range map[string]config.Proxy{
		"tunnels.example.com:443": {PublicAddr: "proxy.example.com:443", TunnelPublicAddr: "tunnels.example.com:443"},
		"proxy.example.com:3024":  {PublicAddr: "proxy.example.com:443"},
		"edge:3024":               {},
	} {
		p := &Process{settings: &config.Config{NodeName: "edge", Proxy: proxy}}
		require.Equal(t, want, p.tunnelPublicAddr(anywhere))
	}
}
