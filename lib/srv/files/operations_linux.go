// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What a client can ask for, but for the extensions.

package files

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (s *server) open(id uint32, r *request) error {
	path, flags, a := r.string(), r.uint32(), r.attributes()
	if r.bad {
		return errMalformed
	}
	// What waits for somebody at its other end must not keep this server
	// waiting, and a terminal must not become its own.
	how := unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	switch {
	case flags&openRead != 0 && flags&openWrite != 0:
		how |= unix.O_RDWR
	case flags&openWrite != 0:
		how |= unix.O_WRONLY
	}
	for _, f := range [...]struct {
		bit  uint32
		flag int
	}{{openAppend, unix.O_APPEND}, {openCreate, unix.O_CREAT}, {openTrunc, unix.O_TRUNC}, {openExcl, unix.O_EXCL}} {
		if flags&f.bit != 0 {
			how |= f.flag
		}
	}
	if s.readOnly && flags&(openWrite|openCreate|openTrunc) != 0 {
		return unix.EACCES
	}
	if len(s.handles) >= maxHandles {
		return unix.EMFILE
	}
	// Opening a pipe tells whoever is at its other end, and nothing comes of
	// it: requests say where in the file they read and write.
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		return unix.ESPIPE
	}
	fd, err := openFile(path, how, a.permissions(0o666))
	if err != nil {
		return err
	}
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		_ = unix.Close(fd)
		return unix.ESPIPE
	}
	return s.keep(id, &handle{fd: fd})
}

func openFile(path string, how int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, how, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (s *server) close(_ uint32, r *request) error {
	n, ok := r.number()
	if r.bad {
		return errMalformed
	}
	h := s.handles[n]
	if !ok || h == nil {
		return unix.ENOENT
	}
	delete(s.handles, n)
	// Here NFS and quotas tell what became of the last writes.
	return unix.Close(h.fd)
}

func (s *server) read(id uint32, r *request) error {
	h, offset, length := s.opened(r), r.uint64(), r.uint32()
	if r.bad {
		return errMalformed
	}
	if h == nil {
		return errBadHandle
	}
	if cap(s.out.b)-len(s.out.b) < maxPacket {
		if err := s.flush(); err != nil {
			// The next read from the client finds that it has gone.
			return err
		}
	}
	s.out.begin(packetData, id)
	s.out.uint32(0)
	at := len(s.out.b)
	data := s.out.b[at : at+int(min(length, maxData))]
	n, err := again(func() (int, error) { return unix.Pread(h.fd, data, int64(offset)) })
	if err != nil || n == 0 {
		s.out.drop()
		if err == nil {
			err = errEOF
		}
		return err
	}
	s.out.b = s.out.b[:at-4]
	s.out.uint32(uint32(n))
	s.out.b = s.out.b[:at+n]
	s.out.end()
	return errAnswered
}

// again repeats a call that a signal has interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (s *server) write(_ uint32, r *request) error {
	h, offset, data := s.opened(r), r.uint64(), r.bytes()
	if r.bad {
		return errMalformed
	}
	if h == nil {
		return errBadHandle
	}
	return writeAll(h.fd, data, int64(offset))
}

// writeAll writes all of data, at the end of a file that was opened to append to.
func writeAll(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		n, err := again(func() (int, error) { return unix.Pwrite(fd, data, offset) })
		if err != nil {
			return err
		}
		data, offset = data[n:], offset+int64(n)
	}
	return nil
}

func (s *server) lstat(id uint32, r *request) error {
	return s.statPath(id, r, unix.AT_SYMLINK_NOFOLLOW)
}

func (s *server) stat(id uint32, r *request) error { return s.statPath(id, r, 0) }

func (s *server) statPath(id uint32, r *request, flags int) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	var st unix.Stat_t
	if err := unix.Fstatat(unix.AT_FDCWD, path, &st, flags); err != nil {
		return err
	}
	return s.attributes(id, &st)
}

func (s *server) fstat(id uint32, r *request) error {
	h := s.opened(r)
	if r.bad {
		return errMalformed
	}
	if h == nil {
		return errBadHandle
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return err
	}
	return s.attributes(id, &st)
}

func (s *server) attributes(id uint32, st *unix.Stat_t) error {
	s.out.begin(packetAttrs, id)
	s.out.stat(st)
	s.out.end()
	return errAnswered
}

func (s *server) setstat(_ uint32, r *request) error {
	path, a := r.string(), r.attributes()
	if r.bad {
		return errMalformed
	}
	return a.apply(
		func() error { return unix.Truncate(path, int64(a.size)) },
		func() error { return unix.Chown(path, int(a.uid), int(a.gid)) },
		func() error { return unix.Chmod(path, a.mode&0o7777) },
		func(t *[2]unix.Timespec) error { return unix.UtimesNanoAt(unix.AT_FDCWD, path, t[:], 0) })
}

func (s *server) fsetstat(_ uint32, r *request) error {
	h, a := s.opened(r), r.attributes()
	if r.bad {
		return errMalformed
	}
	if h == nil {
		return errBadHandle
	}
	return a.apply(
		func() error { return unix.Ftruncate(h.fd, int64(a.size)) },
		func() error { return unix.Fchown(h.fd, int(a.uid), int(a.gid)) },
		func() error { return unix.Fchmod(h.fd, a.mode&0o7777) },
		func(t *[2]unix.Timespec) error { return setTimes(h.fd, t) })
}

// setTimes is futimens(3): utimensat(2) without a path is about the descriptor.
func setTimes(fd int, t *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(t)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// apply sets what the client has asked for, each in spite of the others, and
// returns the first error. A new owner takes bits of the mode away, and a new
// size changes the times, so the order matters.
func (a *attributes) apply(size, owner, mode func() error, times func(*[2]unix.Timespec) error) error {
	var first error
	do := func(has uint32, f func() error) {
		if a.has&has == 0 {
			return
		}
		if err := f(); err != nil && first == nil {
			first = err
		}
	}
	do(hasSize, size)
	do(hasOwner, owner)
	do(hasMode, mode)
	do(hasTimes, func() error {
		return times(&[2]unix.Timespec{
			unix.NsecToTimespec(int64(a.atime) * 1e9), unix.NsecToTimespec(int64(a.mtime) * 1e9),
		})
	})
	return first
}

func (s *server) remove(_ uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	return unix.Unlink(path)
}

func (s *server) mkdir(_ uint32, r *request) error {
	path, a := r.string(), r.attributes()
	if r.bad {
		return errMalformed
	}
	return unix.Mkdir(path, a.permissions(0o777))
}

func (s *server) rmdir(_ uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	return unix.Rmdir(path)
}

// rename takes no name that is in use (section 6.5).
func (s *server) rename(_ uint32, r *request) error {
	from, to := r.string(), r.string()
	if r.bad {
		return errMalformed
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// This file system does not know how.
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if unix.Lstat(to, &st) == nil {
		return unix.EEXIST
	}
	return unix.Rename(from, to)
}

func (s *server) readlink(id uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	var b [unix.PathMax]byte
	n, err := unix.Readlink(path, b[:])
	if err != nil {
		return err
	}
	s.name(id, string(b[:n]))
	return errAnswered
}

// symlink has its two paths in the order that OpenSSH gave them, and not in that
// of section 6.10: all clients have followed OpenSSH.
func (s *server) symlink(_ uint32, r *request) error {
	target, link := r.string(), r.string()
	if r.bad {
		return errMalformed
	}
	return unix.Symlink(target, link)
}

func (s *server) realpath(id uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	return s.answerReal(id, path)
}

func (s *server) answerReal(id uint32, path string) error {
	resolved, err := real(path)
	if err != nil {
		return err
	}
	s.name(id, resolved)
	return errAnswered
}

// maxLinks is how many symbolic links lead to a file at most, as in the kernel.
const maxLinks = 40

// real returns the absolute path that has no symbolic links in it. Its last part
// need not exist: clients ask for the name of what they are about to make.
func real(path string) (string, error) {
	if !filepath.IsAbs(path) {
		// Cleaning the path would take ".." after a link for what it is not.
		wd, err := unix.Getwd()
		if err != nil {
			return "", err
		}
		if wd != "/" {
			wd += "/"
		}
		path = wd + path
	}
	for range maxLinks {
		resolved, err := filepath.EvalSymlinks(path)
		if !errors.Is(err, os.ErrNotExist) {
			return resolved, err
		}
		folder, last := filepath.Split(trimSlashes(path))
		if last == "" || last == "." || last == ".." {
			return "", err
		}
		if folder, err = filepath.EvalSymlinks(folder); err != nil {
			return "", err
		}
		path = filepath.Join(folder, last)
		target, err := os.Readlink(path)
		if err != nil {
			// There is nothing of that name.
			return path, nil
		}
		if filepath.IsAbs(target) {
			path = target
		} else {
			path = folder + "/" + target
		}
	}
	return "", unix.ELOOP
}

func trimSlashes(path string) string {
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return path
}
