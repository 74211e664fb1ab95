// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
)

func listen(ts *testscript.TestScript) net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	return listener
}

// serveSSH is a host of the cluster as any SSH server could be one: it shows the
// certificate that auth signed, believes auth's user authorities, and answers
// every command with who asked.
func serveSSH(ts *testscript.TestScript, listener net.Listener, server *auth.Server, name string, principals []string) {
	ctx := context.Background()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	signer, err := ssh.NewSignerFromSigner(private)
	ts.Check(err)
	cert, err := server.SignHost(ctx, auth.HostCertRequest{
		PublicKey:  signer.PublicKey(),
		HostID:     "6c1f7d3e-9a39-4d0c-8d5e-0f1e2d3c4b5a",
		NodeName:   name,
		Role:       types.RoleNode,
		Principals: principals,
		TTL:        time.Hour,
	})
	ts.Check(err)
	hostKey, err := ssh.NewCertSigner(cert, signer)
	ts.Check(err)
	trusted, err := server.UserCAs(ctx)
	ts.Check(err)
	checker := &ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool {
		return bytes.Equal(key.Marshal(), trusted[0].Marshal())
	}}
	config := &ssh.ServerConfig{PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		permissions, err := checker.Authenticate(conn, key)
		if err != nil {
			return nil, err
		}
		permissions.ExtraData = map[any]any{"user": key.(*ssh.Certificate).KeyId}
		return permissions, nil
	}}
	config.AddHostKey(hostKey)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveConn(conn, config)
		}
	}()
}

func serveConn(netConn net.Conn, config *ssh.ServerConfig) {
	defer netConn.Close() //nolint:errcheck // the client is gone or will be
	conn, channels, requests, err := ssh.NewServerConn(netConn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for newChannel := range channels {
		channel, requests, err := newChannel.Accept()
		if err != nil {
			return
		}
		for request := range requests {
			_ = request.Reply(request.Type == "exec", nil)
			if request.Type != "exec" {
				continue
			}
			_, _ = fmt.Fprintf(channel, "%s is %s here\n", conn.Permissions.ExtraData["user"], conn.User())
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
			_ = channel.Close()
		}
	}
}
