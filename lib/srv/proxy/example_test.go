// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"

	"github.com/gravitational/teleport/api/types"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/proxy"
)

// registry knows one node.
type registry struct{}

func (registry) Nodes(context.Context) ([]types.Server, error) {
	node, err := types.NewServer("0b54bdf1-a1a5-4b6d-9f0a-6d1f5c3f2a10", types.KindNode,
		types.ServerSpecV2{Hostname: "web", Addr: "192.0.2.10:3022"})
	return []types.Server{node}, err
}

// A jump host for those whom an SSH authority in a file has certified.
func Example() {
	cas, err := srv.NewCAFile("/etc/ssh/user_ca.pub")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	hostKey, err := ssh.NewSignerFromKey(private)
	if err != nil {
		fmt.Println(err)
		return
	}
	server, err := proxy.New(proxy.Config{
		CAs:         cas,
		HostSigners: func() []ssh.Signer { return []ssh.Signer{hostKey} },
		Nodes:       registry{},
		ClusterName: "example.com",
		Emitter:     &auditdtest.Recorder{}, // a daemon has an auditd.Queue
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	listener, err := net.Listen("tcp", ":3023")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.Serve(listener))
}
