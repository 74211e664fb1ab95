// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// CA is a certificate authority of the test's own. It signs anything, which a
// real one would not.
type CA struct {
	signer ssh.Signer
}

// NewCA makes an Ed25519 authority.
func NewCA(t testing.TB) CA {
	t.Helper()
	_, signer := newKey(t)
	return CA{signer}
}

func newKey(t testing.TB) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

// WriteTrust writes the file that trusted_user_ca_keys names.
func (ca CA) WriteTrust(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "user_ca.pub")
	text := append([]byte("# The authority of one test.\n\n"), ssh.MarshalAuthorizedKey(ca.signer.PublicKey())...)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Cert is what a certificate says.
type Cert struct {
	// KeyID is the Teleport user's name.
	KeyID string
	// Logins are the principals.
	Logins []string
	// From and To bound its validity: an hour each way of now when zero.
	From, To time.Time
	// CriticalOptions are as written.
	CriticalOptions map[string]string
	// Extensions are as written; nil is what Teleport gives: permit-pty and
	// the like.
	Extensions map[string]string
	// Host makes a host certificate of it.
	Host bool
}

// Identity is a key and, where Cert is not nil, its certificate.
type Identity struct {
	Key    ed25519.PrivateKey
	Signer ssh.Signer
	Cert   *ssh.Certificate
}

// Sign makes a key and signs it.
func (ca CA) Sign(t testing.TB, c Cert) Identity {
	t.Helper()
	key, signer := newKey(t)
	if c.From.IsZero() {
		c.From = time.Now().Add(-time.Hour)
	}
	if c.To.IsZero() {
		c.To = time.Now().Add(time.Hour)
	}
	if c.Extensions == nil {
		c.Extensions = map[string]string{"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": ""}
	}
	kind := uint32(ssh.UserCert)
	if c.Host {
		kind = ssh.HostCert
	}
	cert := &ssh.Certificate{
		Key: signer.PublicKey(), CertType: kind, KeyId: c.KeyID, ValidPrincipals: c.Logins,
		ValidAfter: uint64(c.From.Unix()), ValidBefore: uint64(c.To.Unix()),
		Permissions: ssh.Permissions{CriticalOptions: c.CriticalOptions, Extensions: c.Extensions},
	}
	if err := cert.SignCert(rand.Reader, ca.signer); err != nil {
		t.Fatal(err)
	}
	return withCert(t, key, signer, cert)
}

// PlainKey makes a key without a certificate.
func PlainKey(t testing.TB) Identity {
	t.Helper()
	key, signer := newKey(t)
	return Identity{Key: key, Signer: signer}
}

// Certify makes an identity of a fresh key and what sign makes of it.
func Certify(t testing.TB, sign func(ssh.PublicKey) *ssh.Certificate) Identity {
	t.Helper()
	key, signer := newKey(t)
	return withCert(t, key, signer, sign(signer.PublicKey()))
}

func withCert(t testing.TB, key ed25519.PrivateKey, signer ssh.Signer, cert *ssh.Certificate) Identity {
	t.Helper()
	certSigner, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{Key: key, Signer: certSigner, Cert: cert}
}

// Write writes the identity as OpenSSH reads it and returns the private key's
// path. Beside it stand path.pub and, with a certificate, path-cert.pub.
func (i Identity) Write(t testing.TB, path string) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(i.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(i.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{path: pem.EncodeToMemory(block), path + ".pub": ssh.MarshalAuthorizedKey(public)}
	if i.Cert != nil {
		files[path+"-cert.pub"] = ssh.MarshalAuthorizedKey(i.Cert)
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// ReadIdentity reads what tctl auth sign wrote.
func ReadIdentity(t testing.TB, path string) Identity {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var key ed25519.PrivateKey
	switch k := raw.(type) {
	case *ed25519.PrivateKey:
		key = *k
	case ed25519.PrivateKey:
		key = k
	default:
		t.Fatalf("%s holds a %T, not an Ed25519 key", path, raw)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(path + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		t.Fatalf("%s-cert.pub: %v", path, err)
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		t.Fatalf("%s-cert.pub holds no certificate", path)
	}
	return withCert(t, key, signer, cert)
}
