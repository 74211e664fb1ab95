// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/sqlite"
)

func node(id, name, addr string) *types.ServerV2 {
	return &types.ServerV2{
		Kind:     types.KindNode,
		Version:  types.V2,
		Metadata: types.Metadata{Name: id, Labels: map[string]string{"env": "prod"}},
		Spec:     types.ServerSpecV2{Hostname: name, Addr: addr, Version: "0.1.0"},
	}
}

func TestNodes(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClock()
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, Config{DataDir: dir, Clock: clock})

	nodes, err := s.Nodes(ctx)
	require.NoError(t, err)
	require.Empty(t, nodes)

	short := node("b", "web2", "192.0.2.2:3022")
	short.SetExpiry(clock.Now().Add(time.Minute).UTC())
	require.NoError(t, s.UpsertNode(ctx, short))
	require.NoError(t, s.UpsertNode(ctx, node("a", "web1", "[2001:db8::1]:3022")))

	require.NoError(t, s.UpsertNode(ctx, node("c", "büro", "[fe80::1%eth0]:22")))

	// What another process reads is what was registered, to the label.
	nodes, err = open(t, Config{DataDir: dir, Clock: clock}).Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 3)
	require.Equal(t, "web1", nodes[0].GetHostname())
	require.Equal(t, "[2001:db8::1]:3022", nodes[0].GetAddr())
	require.Equal(t, map[string]string{"env": "prod"}, nodes[0].GetLabels())
	require.Equal(t, "0.1.0", nodes[0].GetTeleportVersion())
	require.True(t, nodes[0].Expiry().IsZero())
	require.Equal(t, "b", nodes[1].GetName())
	require.Equal(t, short.Expiry(), nodes[1].Expiry())

	// A renewal moves the expiry, and the address.
	clock.Advance(59 * time.Second)
	short.SetExpiry(clock.Now().Add(time.Minute).UTC())
	short.SetAddr("192.0.2.22:3022")
	require.NoError(t, s.UpsertNode(ctx, short))
	clock.Advance(59 * time.Second)
	nodes, err = s.Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 3)
	require.Equal(t, "192.0.2.22:3022", nodes[1].GetAddr())

	clock.Advance(time.Second)
	nodes, err = s.Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 2, "an expired registration is listed")
}

func TestOneUnreadableNodeHidesNoOther(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, Config{DataDir: dir})
	require.NoError(t, s.UpsertNode(ctx, node("b", "web", "192.0.2.2:3022")))
	store, err := sqlite.Open(ctx, sqlite.Config{Dir: dir})
	require.NoError(t, err)
	_, err = store.Put(ctx, backend.Item{Key: "/nodes/a", Value: []byte("nonsense")})
	require.NoError(t, err)
	_, err = store.Put(ctx, backend.Item{Key: "/nodes/c", Value: []byte(`{"kind":"node","metadata":{"name":"c"},"spec":{"hostname":"*","addr":"a:1"}}`)})
	require.NoError(t, err)
	require.NoError(t, store.Close())

	nodes, err := s.Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 1)
	require.Equal(t, "web", nodes[0].GetHostname())
}

func TestNodesRefused(t *testing.T) {
	s := open(t, Config{})
	for _, tc := range []struct {
		name string
		node types.Server
		want string
	}{
		{"no node", nil, "ServerV2"},
		{"no id", node("", "web", "a:1"), "Name"},
		{"id that is a path", node("../authorities/user/x", "web", "a:1"), `'/'`},
		{"no name", node("a", "", "a:1"), "node name is empty"},
		{"name for any host", node("a", "*", "a:1"), `'*'`},
		{"name with a second line", node("a", "web\n@cert-authority *", "a:1"), "U+000A"},
		{"name of 256 bytes", node("a", strings.Repeat("x", 256), "a:1"), "256"},
		{"no address", node("a", "web", ""), "host:port"},
		{"no port", node("a", "web", "192.0.2.1"), "host:port"},
		{"port 0", node("a", "web", "192.0.2.1:0"), "port"},
		{"port out of range", node("a", "web", "192.0.2.1:65536"), "port"},
		{"port by name", node("a", "web", "192.0.2.1:ssh"), "port"},
		{"no host", node("a", "web", ":3022"), "node address is empty"},
		{"address for any host", node("a", "web", "*:3022"), `'*'`},
		{"two addresses", node("a", "web", "a,b:3022"), `','`},
		{"a proxy", &types.ServerV2{Kind: types.KindProxy, Metadata: types.Metadata{Name: "a"}}, `"proxy"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := s.UpsertNode(t.Context(), tc.node)
			require.True(t, trace.IsBadParameter(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
		})
	}
}
