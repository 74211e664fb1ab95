// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The handlers: what a client asks for, as system calls. They take it from the
// filter's request and not from the library's.

package files

import (
	"errors"
	"io"
	"os"
	"os/user"
	"strings"
	"unsafe"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// Bits of an open request (draft-ietf-secsh-filexfer-02, section 6.3).
const (
	openRead   = 0x01
	openWrite  = 0x02
	openAppend = 0x04
	openCreate = 0x08
	openTrunc  = 0x10
	openExcl   = 0x20
)

// handlers is all of the library's handlers. The library calls one at a time.
type handlers struct {
	*filter
}

// status is an answer in the library's terms: a code, and a text for people.
type status struct {
	code error
	text string
}

func (s *status) Error() string { return s.text }
func (s *status) Unwrap() error { return s.code }

var (
	errShort     = &status{sftp.ErrSSHFxBadMessage, "the client sent a packet that is too short"}
	errReadOnly  = &status{sftp.ErrSSHFxPermissionDenied, "this server is for reading only"}
	errBadHandle = &status{sftp.ErrSSHFxFailure, "no such handle is open"}
)

// statusOf sorts the kernel's errors as OpenSSH's sftp-server does, which clients
// know. It leaves others alone.
func statusOf(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	s := &status{sftp.ErrSSHFxFailure, errno.Error()}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.EBADF, unix.ELOOP:
		s.code = sftp.ErrSSHFxNoSuchFile
	case unix.EPERM, unix.EACCES, unix.EFAULT:
		s.code = sftp.ErrSSHFxPermissionDenied
	case unix.ENAMETOOLONG, unix.EINVAL:
		s.code = sftp.ErrSSHFxBadMessage
	case unix.ENOSYS:
		s.code = sftp.ErrSSHFxOpUnsupported
	}
	return s
}

// Fileread and Filewrite are not called: the filter asks for reading and writing.
func (h *handlers) Fileread(*sftp.Request) (io.ReaderAt, error)  { return nil, errors.ErrUnsupported }
func (h *handlers) Filewrite(*sftp.Request) (io.WriterAt, error) { return nil, errors.ErrUnsupported }

// OpenFile opens a file.
func (h *handlers) OpenFile(*sftp.Request) (sftp.WriterAtReaderAt, error) {
	r := &h.request
	path, flags, a := r.string(), r.uint32(), r.attributes()
	if r.short {
		return nil, errShort
	}
	if h.readOnly && flags&(openWrite|openCreate|openTrunc) != 0 {
		return nil, errReadOnly
	}
	// What waits for somebody at its other end must not keep this server
	// waiting, and a terminal must not become its own.
	how := unix.O_NOCTTY | unix.O_NONBLOCK
	switch {
	case flags&openRead != 0 && flags&openWrite != 0:
		how |= unix.O_RDWR
	case flags&openWrite != 0:
		how |= unix.O_WRONLY
	}
	for bit, flag := range map[uint32]int{
		openAppend: unix.O_APPEND, openCreate: unix.O_CREAT, openTrunc: unix.O_TRUNC, openExcl: unix.O_EXCL,
	} {
		if flags&bit != 0 {
			how |= flag
		}
	}
	mode := uint32(0o666)
	if a.has.Permissions {
		mode = a.Mode & 0o7777
	}
	return h.open(path, how, mode)
}

func (h *handlers) open(path string, how int, mode uint32) (*file, error) {
	if len(h.files) >= maxHandles {
		return nil, statusOf(unix.EMFILE)
	}
	fd, err := again(func() (int, error) { return unix.Open(path, how|unix.O_CLOEXEC, mode) })
	if err != nil {
		return nil, statusOf(err)
	}
	h.opened = &file{fd: fd, filter: h.filter}
	return h.opened, nil
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

// file is a file or folder that the client has open.
type file struct {
	fd      int
	handle  string
	filter  *filter
	entries entries
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	n, err := again(func() (int, error) { return unix.Pread(f.fd, p, offset) })
	if err != nil {
		return 0, statusOf(err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// WriteAt writes all of p, at the end of a file that was opened to append to.
func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	if f.filter.readOnly {
		return 0, errReadOnly
	}
	for done := 0; done < len(p); {
		n, err := again(func() (int, error) { return unix.Pwrite(f.fd, p[done:], offset+int64(done)) })
		if err != nil {
			return done, statusOf(err)
		}
		done += n
	}
	return len(p), nil
}

// Close says what NFS and quotas tell only now of the last writes.
func (f *file) Close() error {
	delete(f.filter.files, f.handle)
	return statusOf(unix.Close(f.fd))
}

// Filecmd changes something.
func (h *handlers) Filecmd(asked *sftp.Request) error {
	if h.readOnly {
		return errReadOnly
	}
	err := h.change(asked.Method)
	if h.request.short {
		return errShort
	}
	return statusOf(err)
}

// PosixRename takes a name that may be in use.
func (h *handlers) PosixRename(asked *sftp.Request) error { return h.Filecmd(asked) }

func (h *handlers) change(method string) error {
	r := &h.request
	if h.request.kind == packetExtended {
		switch h.request.extension {
		case extFsync:
			f := h.files[r.string()]
			if f == nil {
				return unix.EBADF
			}
			return unix.Fsync(f.fd)
		case extLsetstat:
			path, a := r.string(), r.attributes()
			return a.apply(r,
				// A link's size is that of its target's name.
				func(int64) error { return unix.EINVAL },
				func(uid, gid int) error { return unix.Lchown(path, uid, gid) },
				func(mode uint32) error { return unix.Fchmodat(unix.AT_FDCWD, path, mode, unix.AT_SYMLINK_NOFOLLOW) },
				func(t *[2]unix.Timespec) error {
					return unix.UtimesNanoAt(unix.AT_FDCWD, path, t[:], unix.AT_SYMLINK_NOFOLLOW)
				})
		case extCopyData:
			return h.copyData(r)
		}
	}
	if h.request.kind == packetFsetstat {
		f, a := h.files[r.string()], r.attributes()
		if f == nil {
			return errBadHandle
		}
		return a.apply(r,
			func(size int64) error { return unix.Ftruncate(f.fd, size) },
			func(uid, gid int) error { return unix.Fchown(f.fd, uid, gid) },
			func(mode uint32) error { return unix.Fchmod(f.fd, mode) },
			func(t *[2]unix.Timespec) error { return setTimes(f.fd, t) })
	}
	path := r.string()
	var second string
	switch method {
	case "Rename", "PosixRename", "Link", "Symlink":
		second = r.string()
	}
	if r.short {
		return errShort
	}
	switch method {
	case "Setstat":
		a := r.attributes()
		return a.apply(r,
			func(size int64) error { return unix.Truncate(path, size) },
			func(uid, gid int) error { return unix.Chown(path, uid, gid) },
			func(mode uint32) error { return unix.Chmod(path, mode) },
			func(t *[2]unix.Timespec) error { return unix.UtimesNanoAt(unix.AT_FDCWD, path, t[:], 0) })
	case "Rename":
		return rename(path, second)
	case "PosixRename":
		return unix.Rename(path, second)
	case "Link":
		return unix.Link(path, second)
	case "Symlink":
		// The target comes first, as OpenSSH's clients have it.
		return unix.Symlink(path, second)
	case "Remove":
		return unix.Unlink(path)
	case "Rmdir":
		return unix.Rmdir(path)
	case "Mkdir":
		mode := uint32(0o777)
		if a := r.attributes(); !r.short && a.has.Permissions {
			mode = a.Mode & 0o7777
		}
		if r.short {
			return errShort
		}
		return unix.Mkdir(path, mode)
	}
	return sftp.ErrSSHFxOpUnsupported
}

// apply sets what the client has asked for, each in spite of the others, and
// returns the first error. A new owner takes bits of the mode away, and a new
// size changes the times, so the order matters.
func (a attributes) apply(r *request, size func(int64) error, owner func(uid, gid int) error, mode func(uint32) error, times func(*[2]unix.Timespec) error) error {
	if r.short {
		return errShort
	}
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	if a.has.Size {
		keep(size(int64(a.Size)))
	}
	if a.has.UidGid {
		keep(owner(int(a.UID), int(a.GID)))
	}
	if a.has.Permissions {
		keep(mode(a.Mode & 0o7777))
	}
	if a.has.Acmodtime {
		keep(times(&[2]unix.Timespec{unix.NsecToTimespec(int64(a.Atime) * 1e9), unix.NsecToTimespec(int64(a.Mtime) * 1e9)}))
	}
	return first
}

// setTimes is futimens(3): utimensat(2) without a path is about the descriptor.
func setTimes(fd int, t *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(t)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// rename takes no name that is in use (section 6.5).
func rename(from, to string) error {
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

// copyData copies from one open file to another; a length of 0 is all.
func (h *handlers) copyData(r *request) error {
	from, at, length := h.files[r.string()], r.uint64(), r.uint64()
	to, toAt := h.files[r.string()], r.uint64()
	if from == nil || to == nil {
		return errBadHandle
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(from.fd, &a), unix.Fstat(to.fd, &b)); err != nil {
		return err
	}
	if a.Dev == b.Dev && a.Ino == b.Ino {
		return errors.New("a file is not copied into itself")
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		// Others need never end.
		return errors.New("only what is in regular files is copied")
	}
	if length == 0 {
		length = 1 << 62
	}
	_, err := io.Copy(io.NewOffsetWriter(to, int64(toAt)), io.NewSectionReader(from, int64(at), int64(length)))
	return err
}

// StatVFS tells about a file system.
func (h *handlers) StatVFS(*sftp.Request) (*sftp.StatVFS, error) {
	var st unix.Statfs_t
	name := h.request.string()
	err := error(errBadHandle)
	if h.request.extension != extFstatvfs {
		err = unix.Statfs(name, &st)
	} else if f := h.files[name]; f != nil {
		err = unix.Fstatfs(f.fd, &st)
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return &sftp.StatVFS{
		Bsize: uint64(st.Bsize), Frsize: uint64(st.Frsize),
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail,
		Files: st.Files, Ffree: st.Ffree, Favail: st.Ffree,
		Fsid: uint64(uint32(st.Fsid.Val[1]))<<32 | uint64(uint32(st.Fsid.Val[0])),
		// The protocol has these two of the flags, with the kernel's numbers.
		Flag: uint64(st.Flags & (unix.ST_RDONLY | unix.ST_NOSUID)), Namemax: uint64(st.Namelen),
	}, nil
}

// Readlink tells where a symbolic link leads.
func (h *handlers) Readlink(string) (string, error) {
	target, err := readLink(h.request.string())
	return target, statusOf(err)
}

// RealPath is also what expand-path and home-directory are answered with.
func (h *handlers) RealPath(string) (string, error) {
	path := h.request.string()
	var err error
	switch h.request.extension {
	case extHomeDirectory:
		path, err = homeOf(path)
		return path, statusOf(err)
	case extExpandPath:
		if who, ok := strings.CutPrefix(path, "~"); ok {
			who, rest, below := strings.Cut(who, "/")
			if path, err = homeOf(who); err != nil {
				return "", statusOf(err)
			}
			if below {
				path += "/" + rest
			}
		}
	}
	path, err = realPath(path)
	return path, statusOf(err)
}

// homeOf returns a user's home, the own one where the name is empty.
func homeOf(name string) (string, error) {
	if name == "" {
		if home := os.Getenv("HOME"); home != "" {
			return home, nil
		}
		if u, err := user.Current(); err == nil {
			return u.HomeDir, nil
		}
		return "", unix.ENOENT
	}
	u, err := user.Lookup(name)
	if err != nil || u.HomeDir == "" {
		return "", unix.ENOENT
	}
	return u.HomeDir, nil
}

// maxLinks is how many symbolic links lead to a file at most, as in the kernel.
const maxLinks = 40

// realPath returns the absolute path that has no symbolic links in it. Its last
// part need not exist: clients ask for the name of what they are about to make.
// That is what filepath.EvalSymlinks does not do, nor does it see that ".." after
// a link is where the link leads.
func realPath(path string) (string, error) {
	if len(path) >= unix.PathMax {
		return "", unix.ENAMETOOLONG
	}
	done := ""
	if !strings.HasPrefix(path, "/") {
		wd, err := unix.Getwd()
		if err != nil {
			return "", err
		}
		done = strings.TrimSuffix(wd, "/")
	}
	links, below := 0, true
	for below {
		var part string
		part, path, below = strings.Cut(path, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, strings.LastIndexByte(done, '/'))]
			continue
		}
		next := done + "/" + part
		var st unix.Stat_t
		err := unix.Lstat(next, &st)
		if err == unix.ENOENT && !below {
			return next, nil
		}
		if err != nil {
			return "", err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		target, err := readLink(next)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(target, "/") {
			done = ""
		}
		if below {
			target += "/" + path
		}
		path, below = target, true
	}
	if done == "" {
		return "/", nil
	}
	return done, nil
}

func readLink(path string) (string, error) {
	var b [unix.PathMax]byte
	n, err := unix.Readlink(path, b[:])
	return string(b[:max(n, 0)]), err
}
