// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

// maxCAFile is far more than a file of public keys needs.
const maxCAFile = 1 << 20

// fresh is how long after a file was changed it may change again without
// getting another time stamp. File systems stamp by the real clock.
const fresh = 2 * time.Second

// CAFile is a CAs that reads a file of public keys in the format of OpenSSH's
// TrustedUserCAKeys: a key on each line, as in a .pub file; empty lines and
// those that begin with '#' are skipped. It is read again when it has changed.
type CAFile struct {
	path string

	mu sync.Mutex
	// read is the file as it was when keys and err came from it.
	read os.FileInfo
	keys []ssh.PublicKey
	err  error
}

// NewCAFile reads the file at path. The error says which line is wrong. A file
// without a key is an error as well, since nobody could log in.
func NewCAFile(path string) (*CAFile, error) {
	f := &CAFile{path: path}
	if _, err := f.UserCAs(context.Background()); err != nil {
		return nil, trace.Wrap(err)
	}
	return f, nil
}

// UserCAs returns the keys that the file holds now. While the file is missing,
// unreadable or wrong it returns an error that says where, and nobody is
// trusted: what the file held before may be what its owner wanted to revoke.
func (f *CAFile) UserCAs(context.Context) ([]ssh.PublicKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		f.read = nil
		return nil, trace.Errorf("reading the trusted user CA keys (trusted_user_ca_keys): %w; the file holds public keys, as tctl auth export --type=user prints them", err)
	}
	if f.read == nil || !isSameVersion(f.read, info) || time.Since(info.ModTime()) < fresh {
		f.keys, f.err = readCAFile(f.path, info)
		f.read = info
	}
	return f.keys, f.err
}

func isSameVersion(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func readCAFile(path string, info os.FileInfo) ([]ssh.PublicKey, error) {
	// Opening a pipe would wait for somebody to write into it.
	if !info.Mode().IsRegular() {
		return nil, trace.BadParameter("the trusted user CA keys %s are not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, trace.Errorf("reading the trusted user CA keys (trusted_user_ca_keys): %w; the file holds public keys, as tctl auth export --type=user prints them", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCAFile+1))
	if err != nil {
		return nil, trace.Errorf("reading the trusted user CA keys (trusted_user_ca_keys): %w; the file holds public keys, as tctl auth export --type=user prints them", err)
	}
	if len(text) > maxCAFile {
		return nil, trace.BadParameter("the trusted user CA keys %s are longer than %d bytes", path, maxCAFile)
	}
	var keys []ssh.PublicKey
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := parseCAKey(line)
		if err != nil {
			return nil, trace.BadParameter("%s:%d: %v", path, number, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, trace.BadParameter("%s holds no CA public key: nobody could log in", path)
	}
	return keys, nil
}

// parseCAKey reads one line that is neither empty nor a comment.
func parseCAKey(line []byte) (ssh.PublicKey, error) {
	const want = `want a public key as in a .pub file, such as "ssh-ed25519 AAAA... comment"`
	if line[0] == '@' {
		return nil, trace.BadParameter("this is a line for known_hosts; %s", want)
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey(line)
	switch {
	case err != nil:
		return nil, trace.BadParameter("this is no public key; %s", want)
	case len(options) > 0:
		return nil, trace.BadParameter("options before a key mean nothing here; %s", want)
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, trace.BadParameter("a certificate cannot be an authority; give the authority's own public key")
	}
	switch {
	case !isKeyType(key.Type()):
		return nil, trace.BadParameter("keys of type %s are not accepted; use Ed25519, ECDSA or RSA", key.Type())
	case isShortRSA(key):
		return nil, trace.BadParameter("the RSA key is shorter than %d bits; make a new authority", minRSABits)
	}
	return key, nil
}
