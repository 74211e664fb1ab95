// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The data directory: the daemon's alone, and one daemon's at a time.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"github.com/gravitational/trace"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/disk"
)

const (
	lockName     = "teleport.lock"
	hostUUIDName = "host_uuid"
)

type dataDir struct {
	path string
	// lock is a file that is locked as long as this process lives. It is
	// closed in every program that this one starts.
	lock *os.File
}

// openDataDir makes the folder where it is missing, and takes it for this
// process. A folder that others may use is refused, and not changed: it might be
// one that they need.
func openDataDir(path string) (*dataDir, error) {
	if err := makeDataDir(path); err != nil {
		return nil, trace.Wrap(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, trace.AccessDenied("the data directory %s cannot be used (%v): run as root, or choose another with --data-dir", path, cause.System(err))
	}
	if !info.IsDir() {
		return nil, trace.BadParameter("the data directory %s is no folder: choose another with teleport.data_dir or --data-dir", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return nil, trace.AccessDenied("the data directory %s belongs to uid %d, and teleport runs as uid %d: run as its owner, or choose another with --data-dir", path, stat.Uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, trace.AccessDenied("the data directory %s is open to other users (mode %#o), and will hold private keys: close it with chmod 700 %s, or choose a folder of its own with --data-dir", path, info.Mode().Perm(), path)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, trace.AccessDenied("the data directory %s cannot be written (%v): make it writable, or choose another with --data-dir", path, cause.System(err))
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, trace.AlreadyExists("another teleport is running on the data directory %s: end it first, or give this one another with --data-dir", path)
		}
		return nil, trace.ConvertSystemError(fmt.Errorf("the data directory %s cannot be locked: %w", path, err))
	}
	return &dataDir{path: path, lock: lock}, nil
}

func makeDataDir(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return trace.AccessDenied("the data directory %s cannot be made (%v): run as root, or choose another with --data-dir", path, cause.System(err))
	}
	err := os.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return trace.AccessDenied("the data directory %s cannot be made (%v): run as root, or choose another with --data-dir", path, cause.System(err))
	}
	return nil
}

func (d *dataDir) close() error {
	return trace.ConvertSystemError(d.lock.Close())
}

// hostUUID is the host's name among machines. It is made at first start.
func (d *dataDir) hostUUID() (string, error) {
	path := filepath.Join(d.path, hostUUIDName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id := uuid.NewString()
		if err := disk.Replace(path, []byte(id+"\n"), 0o600); err != nil {
			return "", trace.AccessDenied("%s cannot be written (%v): make the data directory writable", path, cause.System(err))
		}
		return id, nil
	}
	if err != nil {
		return "", trace.AccessDenied("%s cannot be read (%v): make it readable for teleport", path, cause.System(err))
	}
	id, err := uuid.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return "", trace.BadParameter("%s holds no UUID: take the file away, and the next start makes a new one", path)
	}
	return id.String(), nil
}
