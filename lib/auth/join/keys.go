// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// A host's private keys, which are made at first start, and stay.

package join

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/disk"
)

const (
	privateKeyBlock  = "PRIVATE KEY"
	publicKeyBlock   = "PUBLIC KEY"
	certificateBlock = "CERTIFICATE"
)

// Keys are those of one role of a host.
type Keys struct {
	// SSH is what clients know the host by.
	SSH ssh.Signer
	tls *ecdsa.PrivateKey
}

// OpenKeys reads the role's keys in dir, and makes those that are not there.
//
// The error is trace.AccessDenied for a file that cannot be read or written, or
// that others than this process's user may read, and trace.BadParameter for one
// that holds no key.
func OpenKeys(dir string, role types.SystemRole) (*Keys, error) {
	key, err := HostKey(dir, role)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	path := filepath.Join(dir, "host_tls_key_"+strings.ToLower(string(role)))
	text, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeTLSKey(path)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, trace.Wrap(unusable(path, errors.New("it is not in PEM")))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, trace.Wrap(unusable(path, err))
	}
	tlsKey, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, trace.Wrap(unusable(path, errors.New("it is not of the kind ECDSA")))
	}
	return &Keys{SSH: key, tls: tlsKey}, nil
}

// HostKey is the SSH key of OpenKeys alone, for a host that belongs to no
// cluster.
func HostKey(dir string, role types.SystemRole) (ssh.Signer, error) {
	path := filepath.Join(dir, "host_key_"+strings.ToLower(string(role)))
	text, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeSSHKey(path)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, trace.Wrap(unusable(path, err))
	}
	return key, nil
}

// readKey returns fs.ErrNotExist as it is.
func readKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, trace.AccessDenied("the host key %s cannot be read (%v): make it readable for teleport alone", path, cause.System(err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, trace.AccessDenied("the host key %s is open to other users (mode %#o): if nobody can have read it close it with chmod 600 %s, and else take it away, and the next start makes a new one", path, info.Mode().Perm(), path)
	}
	return text, nil
}

func unusable(path string, err error) error {
	return trace.BadParameter("the host key %s cannot be used (%v): put it back from a backup, or take it away, and the next start makes a new one", path, err)
}

func makeSSHKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, trace.Wrap(err, "making a host key")
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, trace.Wrap(err, "making a host key")
	}
	return writeKey(path, block)
}

func makeTLSKey(path string) ([]byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, trace.Wrap(err, "making a host key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, trace.Wrap(err, "making a host key")
	}
	return writeKey(path, &pem.Block{Type: privateKeyBlock, Bytes: der})
}

func writeKey(path string, block *pem.Block) ([]byte, error) {
	text := pem.EncodeToMemory(block)
	if err := disk.Replace(path, text, 0o600); err != nil {
		return nil, trace.AccessDenied("the host key %s cannot be written (%v): make the data directory writable", path, cause.System(err))
	}
	return text, nil
}

func (k *Keys) sshPublic() []byte { return ssh.MarshalAuthorizedKey(k.SSH.PublicKey()) }

func (k *Keys) tlsPublic() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.tls.Public())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicKeyBlock, Bytes: der}), nil
}
