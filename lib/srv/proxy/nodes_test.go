// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gravitational/teleport/api/types"
	"github.com/stretchr/testify/require"
)

func newNode(t *testing.T, uuid, name, addr string) types.Server {
	t.Helper()
	node, err := types.NewServer(uuid, types.KindNode, types.ServerSpecV2{Hostname: name, Addr: addr})
	require.NoError(t, err)
	return node
}

func TestFind(t *testing.T) {
	t.Parallel()
	const (
		web   = "0b54bdf1-a1a5-4b6d-9f0a-000000000001"
		db    = "0b54bdf1-a1a5-4b6d-9f0a-000000000002"
		twin1 = "0b54bdf1-a1a5-4b6d-9f0a-000000000003"
		twin2 = "0b54bdf1-a1a5-4b6d-9f0a-000000000004"
		six   = "0b54bdf1-a1a5-4b6d-9f0a-000000000005"
		liar  = "0b54bdf1-a1a5-4b6d-9f0a-000000000006"
		blank = "0b54bdf1-a1a5-4b6d-9f0a-000000000007"
	)
	nodes := []types.Server{
		newNode(t, liar, web, "10.0.0.66:3022"), // it calls itself by another's UUID
		newNode(t, web, "web", "10.0.0.5:3022"),
		newNode(t, db, "db", "db.internal:4022"),
		newNode(t, twin1, "twin", "10.0.0.7:3022"),
		newNode(t, twin2, "twin", "10.0.0.8:5022"),
		newNode(t, six, "six", "[2001:db8::5]:3022"),
		newNode(t, blank, "", ""),
	}
	const prohibited = ""
	for _, tt := range []struct {
		host string
		port uint32
		want string
	}{
		{"web", 22, web},
		{"web", 0, web},
		{"web", 3022, web},
		{"WEB", 22, web},
		{"web.example.com", 22, web},
		{"web.Example.com", 3022, web},
		{web, 22, web},
		{web, 3022, web},
		{"10.0.0.5", 3022, web},
		{"::ffff:10.0.0.5", 3022, web},
		{"db", 22, db},
		{"db.internal", 4022, db},
		{"twin", 5022, twin2},
		{twin1, 22, twin1},
		{"10.0.0.8", 5022, twin2},
		{"2001:db8::5", 3022, six},
		{"2001:0DB8:0:0::5", 3022, six},
		{blank, 22, blank},

		{"web", 80, prohibited},
		{"web", 65536 + 22, prohibited},
		{"web", 1<<32 - 1, prohibited},
		{"web.", 22, prohibited},
		{"web.example.org", 22, prohibited},
		{"web.example.com.evil.org", 22, prohibited},
		{".example.com", 22, prohibited},
		{"", 22, prohibited},
		{"", 0, prohibited},
		{web, 80, prohibited},
		{"10.0.0.5", 22, prohibited}, // an address goes with its own port only
		{"10.0.0.5", 0, prohibited},
		{"10.0.0.9", 3022, prohibited},
		{"010.0.0.5", 3022, prohibited},
		{"167772165", 3022, prohibited}, // 10.0.0.5 to inet_aton(3)
		{"db.internal", 22, prohibited},
		{"localhost", 3022, prohibited},
		{"127.0.0.1", 3022, prohibited},
		{"169.254.169.254", 80, prohibited},
		{"web\x00", 22, prohibited},
		{"example.com", 443, prohibited},
	} {
		t.Run(fmt.Sprintf("%q port %d", tt.host, tt.port), func(t *testing.T) {
			node, err := find(nodes, "example.com", tt.host, tt.port)
			if tt.want == prohibited {
				hint := ""
				if tt.host == "10.0.0.5" && tt.port == 0 {
					hint = ": give the port of its address, too"
				}
				require.EqualError(t, err, "no node is registered as "+shown(tt.host, tt.port)+hint)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, node.GetName())
		})
	}

	_, err := find(nodes, "example.com", "twin", 22)
	require.EqualError(t, err, `2 nodes are registered as "twin" port 22; use the UUID of the one that you mean, or its address and port`)
}

func TestFindByLabels(t *testing.T) {
	t.Parallel()
	labelled := func(uuid, name, addr string, labels map[string]string) types.Server {
		node, err := types.NewServerWithLabels(uuid, types.KindNode, types.ServerSpecV2{Hostname: name, Addr: addr}, labels)
		require.NoError(t, err)
		return node
	}
	nodes := []types.Server{
		labelled("uuid-1", "web1", "10.0.0.1:3022", map[string]string{"env": "prod", "tier": "web", "teleport.dev/os": "linux"}),
		labelled("uuid-2", "web2", "10.0.0.2:3022", map[string]string{"env": "Test", "tier": "web", "query": "a=b", "plus": "c++"}),
		labelled("uuid-3", "db", "", map[string]string{"env": "prod", "tier": "db", "empty": ""}),
	}
	for _, tt := range []struct {
		host string
		port uint32
		want string
		err  string
	}{
		{host: "tier=db", port: 22, want: "uuid-3"},
		{host: "tier=db", port: 0, want: "uuid-3"},
		{host: "tier=db,env=prod", port: 22, want: "uuid-3"},
		{host: "env=prod,tier=web", port: 22, want: "uuid-1"},
		{host: "env=prod,tier=web", port: 3022, want: "uuid-1"},
		{host: "env=test", port: 22, want: "uuid-2"},
		{host: "ENV=TEST", port: 22, want: "uuid-2"},
		{host: "teleport.dev/os=linux", port: 22, want: "uuid-1"},
		{host: "query=a=b", port: 22, want: "uuid-2"},
		{host: "tier=db+env=prod", port: 22, want: "uuid-3"},
		{host: "plus=c++", port: 22, want: "uuid-2"},
		{host: "plus=c+++tier=web", port: 22, want: "uuid-2"},
		{host: "plus=c++,tier=db", port: 22, err: `no node is registered as "plus=c++,tier=db" port 22`},
		{host: "+=", port: 22, err: `"+=" is not a list of labels; give them as key=value,key=value`},
		{host: "empty=", port: 22, want: "uuid-3"},
		{host: "tier=web", port: 22, err: `2 nodes are registered as "tier=web" port 22; use the UUID of the one that you mean, or its address and port`},
		{host: "none=x", port: 0, err: `no node is registered as "none=x"`},
		{host: "tier=web", port: 0, err: `2 nodes are registered as "tier=web"; use the UUID of the one that you mean, or its address and port`},
		{host: "tier=db", port: 80, err: `no node is registered as "tier=db" port 80`},
		{host: "tier=db,env=test", port: 22, err: `no node is registered as "tier=db,env=test" port 22`},
		{host: "tier=", port: 22, err: `no node is registered as "tier=" port 22`},
		{host: "none=x", port: 22, err: `no node is registered as "none=x" port 22`},
		{host: "=", port: 22, err: `"=" is not a list of labels; give them as key=value,key=value`},
		{host: "env=prod,db", port: 22, err: `"env=prod,db" is not a list of labels; give them as key=value,key=value`},
		{host: "env=prod,", port: 22, err: `"env=prod," is not a list of labels; give them as key=value,key=value`},
		{host: "env=\x00", port: 22, err: `no node is registered as "env=\x00" port 22`},
		{host: strings.Repeat("a=b,", 16) + "a=b", port: 22, err: `a node is found by at most 16 labels, and "` + strings.Repeat("a=b,", 16) + `a=b" has more`},
	} {
		t.Run(fmt.Sprintf("%q port %d", tt.host, tt.port), func(t *testing.T) {
			node, err := find(nodes, "example.com", tt.host, tt.port)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, node.GetName())
		})
	}
}
