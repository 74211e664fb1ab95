// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Folders: their entries, and the line that stands for each.

package files

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxEntries is how many names go into one answer.
	maxEntries = 100
	// maxNames bounds the users and groups whose names are remembered.
	maxNames = 1000
)

// listing is a folder that is being read.
type listing struct {
	// b holds what getdents64(2) returned, from begin to end.
	b          []byte
	begin, end int
}

// Where the fields of a linux_dirent64 are.
const (
	direntLength = 16
	direntName   = 19
)

// next returns the next name, "" at the end.
func (l *listing) next(fd int) (string, error) {
	if l.begin == l.end {
		if l.b == nil {
			l.b = make([]byte, 16<<10)
		}
		n, err := again(func() (int, error) { return unix.Getdents(fd, l.b) })
		if err != nil || n <= 0 {
			return "", err
		}
		l.begin, l.end = 0, n
	}
	entry := l.b[l.begin:l.end]
	if len(entry) < direntName {
		return "", unix.EIO
	}
	length := int(binary.NativeEndian.Uint16(entry[direntLength:]))
	if length <= direntName || length > len(entry) {
		return "", unix.EIO
	}
	name := entry[direntName:length]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	l.begin += length
	return string(name), nil
}

func (s *server) opendir(id uint32, r *request) error {
	path := r.string()
	if r.bad {
		return errMalformed
	}
	if len(s.handles) >= maxHandles {
		return unix.EMFILE
	}
	fd, err := openFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return s.keep(id, &handle{fd: fd, listing: &listing{}})
}

func (s *server) readdir(id uint32, r *request) error {
	h := s.opened(r)
	if r.bad {
		return errMalformed
	}
	if h == nil || h.listing == nil {
		return errBadHandle
	}
	s.out.begin(packetName, id)
	at := len(s.out.b)
	s.out.uint32(0)
	count, now := uint32(0), time.Now()
	var failed error
	for count < maxEntries {
		name, err := h.listing.next(h.fd)
		if err != nil || name == "" {
			failed = err
			break
		}
		var st unix.Stat_t
		if unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			// It has gone, or the user may read names here and no more.
			continue
		}
		s.out.string(name)
		s.out.string(s.names.line(name, &st, now))
		s.out.stat(&st)
		count++
	}
	if count == 0 {
		s.out.drop()
		if failed == nil {
			failed = errEOF
		}
		return failed
	}
	binary.BigEndian.PutUint32(s.out.b[at:], count)
	s.out.end()
	return errAnswered
}

// names remembers what users and groups are called: asking may take a network.
type names struct {
	users, groups map[uint32]string
}

// user returns the user's name, empty where there is none.
func (n *names) user(uid uint32) string {
	return remember(&n.users, uid, func(id string) string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return ""
	})
}

func (n *names) group(gid uint32) string {
	return remember(&n.groups, gid, func(id string) string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return ""
	})
}

func remember(m *map[uint32]string, id uint32, look func(id string) string) string {
	name, ok := (*m)[id]
	if !ok {
		if *m == nil || len(*m) >= maxNames {
			*m = make(map[uint32]string)
		}
		name = look(strconv.FormatUint(uint64(id), 10))
		(*m)[id] = name
	}
	return name
}

// line is what a client shows of an entry, in the words of ls -l.
func (n *names) line(name string, st *unix.Stat_t, now time.Time) string {
	owner, group := n.user(st.Uid), n.group(st.Gid)
	if owner == "" {
		owner = strconv.FormatUint(uint64(st.Uid), 10)
	}
	if group == "" {
		group = strconv.FormatUint(uint64(st.Gid), 10)
	}
	changed := time.Unix(st.Mtim.Unix())
	format := "Jan _2 15:04"
	if age := now.Sub(changed); age > 365*24*time.Hour/2 || age < 0 {
		format = "Jan _2  2006"
	}
	return fmt.Sprintf("%s %3d %-8s %-8s %8d %s %s", modeText(st.Mode), st.Nlink, owner, group, st.Size, changed.Format(format), name)
}

// modeText is a mode as ls -l shows it.
func modeText(mode uint32) string {
	b := []byte("?rwxrwxrwx")
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		b[0] = '-'
	case unix.S_IFDIR:
		b[0] = 'd'
	case unix.S_IFLNK:
		b[0] = 'l'
	case unix.S_IFCHR:
		b[0] = 'c'
	case unix.S_IFBLK:
		b[0] = 'b'
	case unix.S_IFIFO:
		b[0] = 'p'
	case unix.S_IFSOCK:
		b[0] = 's'
	}
	for i := range 9 {
		if mode&(0o400>>i) == 0 {
			b[1+i] = '-'
		}
	}
	for _, special := range []struct {
		bit  uint32
		at   int
		x, s byte
	}{{unix.S_ISUID, 3, 's', 'S'}, {unix.S_ISGID, 6, 's', 'S'}, {unix.S_ISVTX, 9, 't', 'T'}} {
		if mode&special.bit == 0 {
			continue
		}
		if b[special.at] == 'x' {
			b[special.at] = special.x
		} else {
			b[special.at] = special.s
		}
	}
	return string(b)
}
