// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The store's folder and files: made so that only their owner may use them, and
// refused where somebody else might.

package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/gravitational/trace"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/cause"
)

const (
	dirMode    fs.FileMode = 0o700
	fileMode   fs.FileMode = 0o600
	othersBits fs.FileMode = 0o077

	// lockName is the file whose flock(2) the process holds that opens the
	// store. It is another file than the database because closing any
	// descriptor of the database drops the locks that SQLite holds on it
	// (https://sqlite.org/howtocorrupt.html, 2.2).
	lockName = "backend.lock"

	// lockRetry is the pause between two tries at the lock, which is held for
	// the milliseconds that opening takes.
	lockRetry = 10 * time.Millisecond
	// lockTimeout bounds the wait.
	lockTimeout = 30 * time.Second
)

// prepare makes or checks the folder and the database file and returns the
// file's absolute path, with the lock held that unlock releases.
func prepare(ctx context.Context, dir string, mustExist bool) (unlock func(), path string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, "", trace.ConvertSystemError(err)
	}
	path = filepath.Join(dir, FileName)
	if mustExist {
		// What has no store is left without the lock file, too. Who may not
		// look into the folder learns that from the check below.
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, "", trace.NotFound("there is no %s in %s", FileName, dir)
		}
	} else if err := makeDir(dir); err != nil {
		return nil, "", trace.Wrap(err)
	}
	if err := checkDir(dir); err != nil {
		return nil, "", trace.Wrap(err)
	}
	unlock, err = lock(ctx, filepath.Join(dir, lockName))
	if err != nil {
		return nil, "", trace.Wrap(err)
	}
	if err := makeFile(path); err != nil {
		unlock()
		return nil, "", trace.Wrap(err)
	}
	// SQLite gives the files beside it the database's mode and owner. What is
	// there already from an earlier run is held to the same.
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := checkFile(path + suffix); err != nil {
			unlock()
			return nil, "", trace.Wrap(err)
		}
	}
	return unlock, path, nil
}

// makeDir makes dir 0700 whatever the umask. The folders above it get the usual
// mode: they hold no secrets.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return cannot("make the folder", filepath.Dir(dir), err)
	}
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return cannot("make the folder", dir, err)
	}
	if err := os.Chmod(dir, dirMode); err != nil {
		return cannot("make the folder", dir, err)
	}
	return nil
}

// makeFile makes an empty file where there is none, 0600 whatever the umask. To
// SQLite an empty file is an empty database.
func makeFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return cannot("make", path, err)
	}
	if err := errors.Join(file.Chmod(fileMode), file.Close()); err != nil {
		return cannot("make", path, err)
	}
	return nil
}

// lock waits for the exclusive right to open the store. It ends with the
// process that holds it.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := makeFile(path); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := checkFile(path); err != nil {
		return nil, trace.Wrap(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, cannot("open", path, err)
	}
	unlock = func() { _ = file.Close() } // the lock goes with the descriptor
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	ticker := time.NewTicker(lockRetry)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			unlock()
			return nil, cannot("lock", path, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			unlock()
			return nil, trace.LimitExceeded("another process is still opening the store (%v): see which holds the lock with: fuser %s", ctx.Err(), path)
		}
	}
}

func checkDir(dir string) error {
	info, err := os.Stat(dir) // data_dir may be a link to where the room is
	if err != nil {
		return cannot("use the folder", dir, err)
	}
	if !info.IsDir() {
		return trace.BadParameter("%s is not a folder: set teleport.data_dir to one", dir)
	}
	return checkPrivate(dir, info, dirMode)
}

func checkFile(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cannot("use", path, err)
	}
	if !info.Mode().IsRegular() {
		return trace.AccessDenied("%s is not a regular file: move it away, or use another data_dir", path)
	}
	return checkPrivate(path, info, fileMode)
}

// checkPrivate asks that nobody but this process's user may use what info is of.
func checkPrivate(path string, info fs.FileInfo, want fs.FileMode) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		owner, me := strconv.Itoa(int(stat.Uid)), strconv.Itoa(os.Geteuid())
		return trace.AccessDenied("%s belongs to %s, and this program runs as %s: run it as %s, or give the path away with: chown -R %s %s",
			path, userName(owner), userName(me), userName(owner), me, path)
	}
	if others := info.Mode().Perm() & othersBits; others != 0 {
		return trace.AccessDenied("%s may be used by others (its mode is %04o), and it holds the cluster's private keys: run: chmod %04o %s",
			path, info.Mode().Perm(), want, path)
	}
	return nil
}

// userName is the login of uid, or the number where it has none.
func userName(uid string) string {
	if known, err := user.LookupId(uid); err == nil {
		return known.Username
	}
	return "uid " + uid
}

// cannot names what failed, with the system's own words and a remedy where
// there is one to name. The path stands in the message once.
func cannot(do, path string, err error) error {
	reason := cause.System(err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return trace.AccessDenied("cannot %s %s: %v: run as the user that runs teleport, which is root as a rule", do, path, reason)
	case errors.Is(err, unix.EROFS):
		return trace.AccessDenied("cannot %s %s: %v: use a data_dir on a file system that can be written", do, path, reason)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return trace.LimitExceeded("cannot %s %s: %v: make room there", do, path, reason)
	case errors.Is(err, unix.ENOTDIR):
		return trace.BadParameter("cannot %s %s: a part of the path is not a folder: set teleport.data_dir to one", do, path)
	}
	return trace.Errorf("cannot %s %s: %v", do, path, reason)
}
