// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package seal keeps secrets of the cluster, the private keys of its
// authorities, from who can read its storage: they are stored sealed with a key
// that stands in a file of the auth servers.
//
//	key, err := seal.ReadOrCreate("/var/lib/teleport/ca_key")
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	sealed, err := key.Seal(secret, "/authorities/user/example.com")
//
// Several auth servers with one storage have copies of the same file.
package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// magic is what all that is sealed begins with, and the version of the
	// format: an id of the key, a nonce, and what XChaCha20-Poly1305 made of
	// the secret follow.
	magic = "sealed-v1:"

	keySize    = chacha20poly1305.KeySize
	idSize     = 8
	nonceSize  = chacha20poly1305.NonceSizeX
	headerSize = len(magic) + idSize + nonceSize
)

// Key seals and opens. It may be used by several goroutines.
type Key struct {
	path string
	aead cipher.AEAD
	id   []byte
}

func newKey(path string, secret []byte) (*Key, error) {
	aead, err := chacha20poly1305.NewX(secret)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	// What tells a wrong key from damage says nothing about the key.
	id := sha256.Sum256(append([]byte("id of a sealing key\x00"), secret...))
	return &Key{path: path, aead: aead, id: id[:idSize]}, nil
}

// Seal returns the secret as it may be stored. associatedData says where: it
// can be opened nowhere else.
func (k *Key) Seal(secret []byte, associatedData string) ([]byte, error) {
	sealed := make([]byte, 0, headerSize+len(secret)+k.aead.Overhead())
	sealed = append(sealed, magic...)
	sealed = append(sealed, k.id...)
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, trace.Wrap(err)
	}
	sealed = append(sealed, nonce...)
	return k.aead.Seal(sealed, nonce, secret, bound(sealed, associatedData)), nil
}

// Open returns the secret that was sealed with the same associatedData.
//
// The error is trace.AccessDenied where it was sealed with another key, and
// trace.BadParameter where it is not sealed (see IsSealed), is damaged, or was
// sealed for another place.
func (k *Key) Open(sealed []byte, associatedData string) ([]byte, error) {
	if !IsSealed(sealed) {
		return nil, trace.BadParameter("%q is not sealed, or by a newer version of teleport: restore it from a backup, or run that version", associatedData)
	}
	if len(sealed) < headerSize+k.aead.Overhead() {
		return nil, trace.BadParameter("%q is damaged (it is cut short): restore it from a backup", associatedData)
	}
	header := sealed[:headerSize]
	if id := header[len(magic) : len(magic)+idSize]; !bytes.Equal(id, k.id) {
		return nil, trace.AccessDenied("%q was sealed with another key (%x) than that of %s (%x): put the file of the auth server that made the cluster there, or name it in storage.ca_key_file",
			associatedData, id, k.path, k.id)
	}
	secret, err := k.aead.Open(nil, header[len(magic)+idSize:], sealed[headerSize:], bound(header, associatedData))
	if err != nil {
		return nil, trace.BadParameter("%q is damaged, or was sealed for another place: restore it from a backup", associatedData)
	}
	return secret, nil
}

// IsSealed says whether the text looks like what Seal returned, with whatever
// key.
func IsSealed(text []byte) bool {
	return bytes.HasPrefix(text, []byte(magic))
}

// ID names the key in records. It gives nothing of the key away.
func (k *Key) ID() string {
	return hex.EncodeToString(k.id)
}

// bound is what the seal covers beside the secret.
func bound(header []byte, associatedData string) []byte {
	return append(bytes.Clone(header), associatedData...)
}
