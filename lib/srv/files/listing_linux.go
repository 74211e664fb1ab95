// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What files are: the entries of folders, attributes, and the names of owners.

package files

import (
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// Filelist opens a folder, or tells about what is opened or at the end of a path.
func (h *handlers) Filelist(asked *sftp.Request) (sftp.ListerAt, error) {
	r := &h.request
	path := r.string()
	if asked.Method == "List" {
		// Written out, since a nil *file would not be a nil ListerAt.
		f, err := h.open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	var e entry
	err := error(errBadHandle)
	if r.kind != packetFstat {
		follow := 0
		if r.kind == packetLstat {
			follow = unix.AT_SYMLINK_NOFOLLOW
		}
		err = unix.Fstatat(unix.AT_FDCWD, path, &e.st, follow)
	} else if f := h.files[path]; f != nil {
		err = unix.Fstat(f.fd, &e.st)
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return only{h.filter, e}, nil
}

// Lstat is Filelist: the request says which of them it is.
func (h *handlers) Lstat(asked *sftp.Request) (sftp.ListerAt, error) { return h.Filelist(asked) }

// only is a list of one entry.
type only struct {
	*filter
	entry
}

func (o only) ListAt(to []os.FileInfo, _ int64) (int, error) {
	o.told(o.entry)
	to[0] = o.entry
	return 1, io.EOF
}

// told keeps what the library does not send.
func (f *filter) told(e entry) {
	seconds, _ := e.st.Atim.Unix()
	f.accessed = append(f.accessed, uint32(seconds))
}

// entries is a folder that is being read.
type entries struct {
	// rest are the names that were read and not told.
	rest  []string
	begun bool
}

// ListAt returns the next entries: the library asks for one after the other.
func (f *file) ListAt(to []os.FileInfo, _ int64) (int, error) {
	n := 0
	for n < len(to) {
		if len(f.entries.rest) == 0 {
			if !f.entries.begun {
				// ParseDirent leaves these out.
				f.entries.rest, f.entries.begun = []string{".", ".."}, true
				continue
			}
			var b [16 << 10]byte
			length, err := again(func() (int, error) { return unix.Getdents(f.fd, b[:]) })
			if err != nil && n == 0 {
				return 0, statusOf(err)
			}
			if length <= 0 {
				return n, io.EOF
			}
			_, _, f.entries.rest = unix.ParseDirent(b[:length], -1, nil)
			continue
		}
		e := entry{name: f.entries.rest[0]}
		f.entries.rest = f.entries.rest[1:]
		if unix.Fstatat(f.fd, e.name, &e.st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			// It has gone, or the user may read names here and no more.
			continue
		}
		f.filter.told(e)
		to[n] = e
		n++
	}
	return n, nil
}

// entry is a file as the library wants to hear of it.
type entry struct {
	name string
	st   unix.Stat_t
}

func (e entry) Name() string       { return e.name }
func (e entry) Size() int64        { return e.st.Size }
func (e entry) ModTime() time.Time { return time.Unix(e.st.Mtim.Unix()) }
func (e entry) IsDir() bool        { return e.Mode().IsDir() }

// Mode has Go's bits, of which the library makes the file system's again.
func (e entry) Mode() os.FileMode {
	mode := os.FileMode(e.st.Mode & 0o777)
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= os.ModeDir
	case unix.S_IFLNK:
		mode |= os.ModeSymlink
	case unix.S_IFCHR:
		mode |= os.ModeDevice | os.ModeCharDevice
	case unix.S_IFBLK:
		mode |= os.ModeDevice
	case unix.S_IFIFO:
		mode |= os.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= os.ModeSocket
	}
	if e.st.Mode&unix.S_ISUID != 0 {
		mode |= os.ModeSetuid
	}
	if e.st.Mode&unix.S_ISGID != 0 {
		mode |= os.ModeSetgid
	}
	if e.st.Mode&unix.S_ISVTX != 0 {
		mode |= os.ModeSticky
	}
	return mode
}

// Sys has what the library looks for there.
func (e entry) Sys() any {
	return &syscall.Stat_t{Nlink: e.st.Nlink, Uid: e.st.Uid, Gid: e.st.Gid}
}

// LookupUserName returns the name of a user id, itself where there is none.
func (h *handlers) LookupUserName(id string) string {
	n, _ := strconv.ParseUint(id, 10, 32)
	if name := h.names.user(uint32(n)); name != "" {
		return name
	}
	return id
}

// LookupGroupName is LookupUserName for groups.
func (h *handlers) LookupGroupName(id string) string {
	n, _ := strconv.ParseUint(id, 10, 32)
	if name := h.names.group(uint32(n)); name != "" {
		return name
	}
	return id
}

// maxNames bounds the users and groups whose names are remembered.
const maxNames = 1000

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
