// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// TestProxyTellsOfRefused: who is refused at the proxy's ports for SSH is in the
// cluster's audit log, with the client's own address where a load balancer stands
// before them, and a person by name only where the certificate was proven.
func TestProxyTellsOfRefused(t *testing.T) {
	ctx := testContext(t)
	cfg := settings(t)
	require.NoError(t, cfg.SetRoles("auth,proxy"))
	cfg.Proxy.ProxyProtocol = true
	main := startHost(t, cfg)
	defer func() { require.NoError(t, main.Close()) }()
	lock, err := types.NewLock(uuid.NewString(), types.LockSpecV2{Target: types.LockTarget{User: "alice"}})
	require.NoError(t, err)
	require.NoError(t, main.auth.UpsertLock(ctx, lock))
	eventually(t, "the proxy knows of the lock", func() bool {
		locks, err := main.members[0].known.Locks(ctx)
		return err == nil && len(locks) == 1
	})

	// dial comes from a client of a load balancer's.
	dial := func(event, client string, config *ssh.ClientConfig) error {
		conn, err := net.Dial("tcp", main.addrOf(t, event))
		require.NoError(t, err)
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "PROXY TCP4 %s 192.0.2.1 4711 443\r\n", client)
		require.NoError(t, err)
		config.HostKeyCallback = ssh.InsecureIgnoreHostKey()
		_, _, _, err = ssh.NewClientConn(conn, "proxy", config)
		return err
	}
	alice := []ssh.AuthMethod{ssh.PublicKeys(userSigner(t, main))}
	require.Error(t, dial(ProxySSHReady, "203.0.113.1", &ssh.ClientConfig{User: "stranger"}))
	require.Error(t, dial(ProxySSHReady, "203.0.113.2", &ssh.ClientConfig{User: "root", Auth: alice}))
	require.Error(t, dial(ProxyReverseTunnelReady, "203.0.113.3", &ssh.ClientConfig{User: "nodes-id"}))
	require.Error(t, dial(ProxyReverseTunnelReady, "203.0.113.4", &ssh.ClientConfig{User: "root", Auth: alice}))

	type told struct{ user, login, addr, reason, by string }
	jump, dialIn := "refused by the proxy "+cfg.NodeName, "refused by the tunnel port of the proxy "+cfg.NodeName
	want := map[told]bool{
		{"", "stranger", "203.0.113.1:4711", "no-certificate-was-offered", jump}:   true,
		{"alice", "root", "203.0.113.2:4711", "user-is-locked", jump}:              true,
		{"", "nodes-id", "203.0.113.3:4711", "no-certificate-was-offered", dialIn}: true,
		{"alice", "root", "203.0.113.4:4711", "user-is-locked", dialIn}:            true,
	}
	var got map[told]bool
	eventually(t, "the events", func() bool {
		events, _, err := main.auth.SearchEvents(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), []string{"auth"}, 0, types.EventOrderAscending, "")
		require.NoError(t, err)
		got = map[told]bool{}
		for _, event := range events {
			e := event.(*apievents.AuthAttempt)
			require.False(t, e.Success)
			got[told{e.User, e.Login, e.RemoteAddr, e.Error, e.UserMessage}] = true
		}
		return len(events) >= len(want)
	})
	require.Equal(t, want, got)
}
