// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"

	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
)

// oneCA trusts one authority.
type oneCA struct{ key ssh.PublicKey }

func (c oneCA) UserCAs(context.Context) ([]ssh.PublicKey, error) {
	return []ssh.PublicKey{c.key}, nil
}

// A server that greets people by the name in their certificate.
func Example() {
	newKey := func() ssh.Signer {
		_, private, _ := ed25519.GenerateKey(rand.Reader)
		signer, _ := ssh.NewSignerFromKey(private)
		return signer
	}
	ca, hostKey, userKey := newKey(), newKey(), newKey()

	done := make(chan struct{})
	server, err := srv.New(srv.Config{
		Component:     "example",
		Emitter:       &auditdtest.Recorder{}, // a daemon has an auditd.Queue
		FailureEvents: []auditd.EventType{auditd.AuditUserErr},
		CAs:           oneCA{ca.PublicKey()},
		HostSigners:   func() []ssh.Signer { return []ssh.Signer{hostKey} },
		Handle: func(_ context.Context, conn *srv.Conn) {
			fmt.Printf("Good evening, %s; you wish to be %s.\n", conn.Identity.TeleportUser, conn.Identity.Login)
			close(done)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _ = server.Serve(listener) }()

	certificate := &ssh.Certificate{
		Key:             userKey.PublicKey(),
		CertType:        ssh.UserCert,
		KeyId:           "alice",
		ValidPrincipals: []string{"bob"},
		ValidBefore:     ssh.CertTimeInfinity,
	}
	if err := certificate.SignCert(rand.Reader, ca); err != nil {
		fmt.Println(err)
		return
	}
	signer, err := ssh.NewCertSigner(certificate, userKey)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := ssh.Dial("tcp", listener.Addr().String(), &ssh.ClientConfig{
		User:            "bob",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(hostKey.PublicKey()),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	<-done
	// Output: Good evening, alice; you wish to be bob.
}
