// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The key's file: 32 bytes in hexadecimal, for one user alone.

package seal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gravitational/trace"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/cause"
)

const (
	fileMode   fs.FileMode = 0o600
	othersBits fs.FileMode = 0o077
)

// ReadOrCreate reads the key in the file, or makes one where there is no file,
// for this process's user alone. Processes that do so at the same moment get
// the same key. The folder must be there.
//
// The error is what Read's is, or trace.AccessDenied where the file cannot be
// made.
func ReadOrCreate(path string) (*Key, error) {
	key, err := Read(path)
	if !trace.IsNotFound(err) {
		return key, trace.Wrap(err)
	}
	if err := create(path); err != nil {
		return nil, trace.AccessDenied("the key %s, which seals the authorities, cannot be made (%v): make its folder, and writable for teleport", path, cause.System(err))
	}
	return Read(path)
}

// Read reads the key in the file.
//
// The error is trace.NotFound where there is none, trace.AccessDenied where it
// cannot be read, or can be by others, and trace.BadParameter where it is not a
// key.
func Read(path string) (*Key, error) {
	// A pipe in place of the file is not waited for.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trace.NotFound("there is no key %s to open the authorities with: copy it from an auth server of this cluster, or name it in storage.ca_key_file", path)
	}
	if err != nil {
		return nil, trace.AccessDenied("the key %s, which seals the authorities, cannot be read (%v): make it readable for teleport alone", path, cause.System(err))
	}
	defer file.Close() //nolint:errcheck // it was only read
	if err := checkPrivate(file); err != nil {
		return nil, trace.Wrap(err)
	}
	text, err := io.ReadAll(io.LimitReader(file, 4096))
	if err != nil {
		return nil, trace.AccessDenied("the key %s, which seals the authorities, cannot be read (%v): see whether its disk is sound", path, cause.System(err))
	}
	// What stands in it is never repeated in an error.
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != keySize {
		return nil, trace.BadParameter("the file %s is not a key to seal authorities with (it has %d bytes, a key is %d hexadecimal digits): restore it from a backup, or copy it from another auth server of this cluster",
			path, len(text), 2*keySize)
	}
	return newKey(path, secret)
}

// checkPrivate asks of the file that was opened, not of what may stand in its
// place by now.
func checkPrivate(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return trace.ConvertSystemError(err)
	}
	path := file.Name()
	if !info.Mode().IsRegular() {
		return trace.BadParameter("%s is not a file: storage.ca_key_file must name one", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return trace.AccessDenied("the key %s belongs to another user (uid %d) and not to the one that runs teleport: make it yours with: chown %d %s",
			path, stat.Uid, os.Geteuid(), path)
	}
	if info.Mode().Perm()&othersBits != 0 {
		return trace.AccessDenied("the key %s is open to other users (mode %#o), and whoever has it can open the cluster's authorities: if nobody can have read it close it with: chmod 600 %s",
			path, info.Mode().Perm(), path)
	}
	return nil
}

// create writes a new key whole before it has its name, and leaves one that is
// there by then as it is.
func create(path string) (err error) {
	secret := make([]byte, keySize)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // the key has another name by now
	_, err = file.WriteString(hex.EncodeToString(secret) + "\n")
	if err := errors.Join(err, file.Chmod(fileMode), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the new name survive a power cut, as what is sealed with the
// key will.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
