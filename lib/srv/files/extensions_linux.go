// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The extensions, which OpenSSH's PROTOCOL file, section 4, describes.

package files

import (
	"errors"
	"os"
	"os/user"
	"strings"

	"golang.org/x/sys/unix"
)

// extension is one by its name, and the version of it.
type extension struct {
	name, version string
	operation
}

// extensions are those that clients are told of.
func extensions() []extension {
	return []extension{
		{"posix-rename@openssh.com", "1", operation{(*server).posixRename, true}},
		{"statvfs@openssh.com", "2", operation{(*server).statvfs, false}},
		{"fstatvfs@openssh.com", "2", operation{(*server).fstatvfs, false}},
		{"hardlink@openssh.com", "1", operation{(*server).hardlink, true}},
		{"fsync@openssh.com", "1", operation{(*server).fsync, true}},
		{"lsetstat@openssh.com", "1", operation{(*server).lsetstat, true}},
		{"limits@openssh.com", "1", operation{(*server).limits, false}},
		{"expand-path@openssh.com", "1", operation{(*server).expandPath, false}},
		{"copy-data", "1", operation{(*server).copyData, true}},
		{"home-directory", "1", operation{(*server).homeDirectory, false}},
		{"users-groups-by-id@openssh.com", "1", operation{(*server).usersAndGroups, false}},
	}
}

func extensionOf(name string) (operation, bool) {
	for _, e := range extensions() {
		if e.name == name {
			return e.operation, true
		}
	}
	return operation{}, false
}

// greet tells the client the version and the extensions. The version stands
// where other answers have their id.
func (s *server) greet() {
	s.out.begin(packetVersion, protocolVersion)
	for _, e := range extensions() {
		s.out.string(e.name)
		s.out.string(e.version)
	}
	s.out.end()
}

func (s *server) posixRename(_ uint32, r *request) error {
	from, to := r.string(), r.string()
	if r.bad {
		return errMalformed
	}
	return unix.Rename(from, to)
}

func (s *server) hardlink(_ uint32, r *request) error {
	from, to := r.string(), r.string()
	if r.bad {
		return errMalformed
	}
	return unix.Link(from, to)
}

func (s *server) fsync(_ uint32, r *request) error {
	h := s.opened(r)
	if r.bad {
		return errMalformed
	}
	if h == nil {
		return errBadHandle
	}
	return unix.Fsync(h.fd)
}

// lsetstat changes a symbolic link itself.
func (s *server) lsetstat(_ uint32, r *request) error {
	path, a := r.string(), r.attributes()
	if r.bad {
		return errMalformed
	}
	return a.apply(
		// A link's size is that of its target's name.
		func() error { return unix.EINVAL },
		func() error { return unix.Lchown(path, int(a.uid), int(a.gid)) },
		func() error { return unix.Fchmodat(unix.AT_FDCWD, path, a.mode&0o7777, unix.AT_SYMLINK_NOFOLLOW) },
		func(t *[2]unix.Timespec) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, path, t[:], unix.AT_SYMLINK_NOFOLLOW)
		})
}

func (s *server) limits(id uint32, _ *request) error {
	s.out.begin(packetExtendedReply, id)
	for _, limit := range []uint64{maxPacket, maxData, maxData, maxHandles} {
		s.out.uint64(limit)
	}
	s.out.end()
	return errAnswered
}

func (s *server) statvfs(id uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	return s.answerStatvfs(id, &st)
}

func (s *server) fstatvfs(id uint32, r *request) error {
	h := s.opened(r)
	if r.bad {
		return errMalformed
	}
	if h == nil {
		return errBadHandle
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(h.fd, &st); err != nil {
		return err
	}
	return s.answerStatvfs(id, &st)
}

func (s *server) answerStatvfs(id uint32, st *unix.Statfs_t) error {
	const readOnly, noSetuid = 1, 2
	var flags uint64
	if st.Flags&unix.ST_RDONLY != 0 {
		flags |= readOnly
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		flags |= noSetuid
	}
	size := uint64(st.Frsize)
	if size == 0 {
		size = uint64(st.Bsize)
	}
	s.out.begin(packetExtendedReply, id)
	for _, n := range []uint64{
		uint64(st.Bsize), size, st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree, st.Ffree,
		uint64(uint32(st.Fsid.Val[1]))<<32 | uint64(uint32(st.Fsid.Val[0])), flags, uint64(st.Namelen),
	} {
		s.out.uint64(n)
	}
	s.out.end()
	return errAnswered
}

// expandPath is realpath of what may begin with ~ or ~user.
func (s *server) expandPath(id uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	if who, ok := strings.CutPrefix(path, "~"); ok {
		who, rest, below := strings.Cut(who, "/")
		home, err := homeOf(who)
		if err != nil {
			return err
		}
		path = home
		if below {
			path += "/" + rest
		}
	}
	return s.answerReal(id, path)
}

func (s *server) homeDirectory(id uint32, r *request) error {
	who := r.string()
	if r.bad {
		return errMalformed
	}
	home, err := homeOf(who)
	if err != nil {
		return err
	}
	s.name(id, home)
	return errAnswered
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

// usersAndGroups answers with the names of ids, empty for those without.
func (s *server) usersAndGroups(id uint32, r *request) error {
	users, groups := &request{b: r.bytes()}, &request{b: r.bytes()}
	if r.bad {
		return errMalformed
	}
	var lists [2]reply
	for i, list := range []struct {
		ids  *request
		name func(uint32) string
	}{{users, s.names.user}, {groups, s.names.group}} {
		for len(list.ids.b) > 0 {
			n := list.ids.uint32()
			if list.ids.bad {
				return errMalformed
			}
			lists[i].string(list.name(n))
		}
	}
	if len(lists[0].b)+len(lists[1].b) > maxData {
		return unix.EMSGSIZE
	}
	s.out.begin(packetExtendedReply, id)
	for i := range lists {
		s.out.string(string(lists[i].b))
	}
	s.out.end()
	return errAnswered
}

// copyData copies from one open file to another; a length of 0 is all.
func (s *server) copyData(_ uint32, r *request) error {
	from, offset, length := s.opened(r), r.uint64(), r.uint64()
	to, toOffset := s.opened(r), r.uint64()
	if r.bad {
		return errMalformed
	}
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
	at, toAt := int64(offset), int64(toOffset)
	buffer := make([]byte, 64<<10)
	for all := length == 0; all || length > 0; {
		part := buffer
		if !all && length < uint64(len(part)) {
			part = part[:length]
		}
		n, err := again(func() (int, error) { return unix.Pread(from.fd, part, at) })
		if err != nil || n == 0 {
			return err
		}
		if err := writeAll(to.fd, part[:n], toAt); err != nil {
			return err
		}
		at, toAt, length = at+int64(n), toAt+int64(n), length-uint64(n)
	}
	return nil
}
