// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package srvtest gives tests what they need to log in to a srv.Server: a
// certificate authority (NewAuthority), certificates that it signs
// (Authority.Login), and host keys (NewKey).
package srvtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// NewKey makes an Ed25519 key.
func NewKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	return signer
}

// Authority signs user certificates.
type Authority struct {
	ssh.Signer
}

// NewAuthority makes an Ed25519 authority.
func NewAuthority(t testing.TB) Authority {
	t.Helper()
	return Authority{Signer: NewKey(t)}
}

// Certificate signs a certificate for key: by default one for the person "alice",
// with the principal "bob", valid from the hour before at to the hour after it,
// and all that ssh-keygen permits. change may alter it before it is signed.
func (a Authority) Certificate(t testing.TB, key ssh.PublicKey, at time.Time, change ...func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key:             key,
		Serial:          7,
		CertType:        ssh.UserCert,
		KeyId:           "alice",
		ValidPrincipals: []string{"bob"},
		ValidAfter:      uint64(at.Add(-time.Hour).Unix()),
		ValidBefore:     uint64(at.Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{
			CriticalOptions: map[string]string{},
			Extensions: map[string]string{
				"permit-X11-forwarding":   "",
				"permit-agent-forwarding": "",
				"permit-port-forwarding":  "",
				"permit-pty":              "",
				"permit-user-rc":          "",
			},
		},
	}
	for _, f := range change {
		f(cert)
	}
	require.NoError(t, cert.SignCert(rand.Reader, a.Signer))
	return cert
}

// Login makes a key and a Certificate for it, to log in with.
func (a Authority) Login(t testing.TB, at time.Time, change ...func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	key := NewKey(t)
	signer, err := ssh.NewCertSigner(a.Certificate(t, key.PublicKey(), at, change...), key)
	require.NoError(t, err)
	return signer
}

// CAs are trusted authorities that a test may change. The zero value trusts
// nobody.
type CAs struct {
	mu   sync.Mutex
	keys []ssh.PublicKey
	err  error
}

// Trust replaces the authorities.
func (c *CAs) Trust(authorities ...Authority) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys, c.err = nil, nil
	for _, a := range authorities {
		c.keys = append(c.keys, a.PublicKey())
	}
}

// Fail makes UserCAs return err.
func (c *CAs) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// UserCAs returns what was trusted last.
func (c *CAs) UserCAs(context.Context) ([]ssh.PublicKey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys, c.err
}
