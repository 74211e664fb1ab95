// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"log"
	"net"
	"os"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/node"
)

// A node in a program of one's own, for users whom an existing SSH authority
// has certified. It must run as root to let others log in.
func Example() {
	emitter, err := auditd.New(auditd.Config{})
	if err != nil {
		log.Fatal(err)
	}
	queue, err := auditd.NewQueue(auditd.QueueConfig{Emitter: emitter, Log: logrus.StandardLogger(), Clock: clockwork.NewRealClock()})
	if err != nil {
		log.Fatal(err)
	}
	defer queue.Close()
	cas, err := srv.NewCAFile("/etc/ssh/user_ca.pub")
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile("/etc/ssh/ssh_host_ed25519_key")
	if err != nil {
		log.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		log.Fatal(err)
	}
	server, err := node.New(node.Config{
		Emitter:        queue,
		CAs:            cas,
		HostSigners:    func() []ssh.Signer { return []ssh.Signer{key} },
		SessionProgram: "/usr/local/bin/teleport-session",
		UserProgram:    "/usr/local/bin/teleport-user",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	listener, err := net.Listen("tcp", ":3022")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}
