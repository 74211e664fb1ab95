// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build cgo && unix

package account

/*
#include <pwd.h>
#include <stdlib.h>
*/
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/srv/session"
)

// maxEntry bounds what a user database may make of one entry.
const maxEntry = 1 << 20

func lookup(name string) (*session.Account, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	for size := 1024; size <= maxEntry; size *= 4 {
		a, errno := getpwnam(name, cname, size)
		if errno != syscall.ERANGE {
			if errno != 0 {
				return nil, trace.Wrap(errno, "looking up user %q", name)
			}
			if a == nil {
				return nil, trace.NotFound("there is no user %q on this host", name)
			}
			return a, nil
		}
	}
	return nil, trace.LimitExceeded("the user database's entry of %q is above %d bytes", name, maxEntry)
}

// getpwnam is getpwnam_r(3). An account of nil without an errno means that
// there is none.
func getpwnam(name string, cname *C.char, size int) (*session.Account, syscall.Errno) {
	buf := (*C.char)(C.malloc(C.size_t(size)))
	defer C.free(unsafe.Pointer(buf))
	var pwd C.struct_passwd
	var result *C.struct_passwd
	errno := syscall.Errno(C.getpwnam_r(cname, &pwd, buf, C.size_t(size), &result))
	switch errno {
	case 0:
	case syscall.ENOENT, syscall.ESRCH, syscall.EBADF, syscall.EPERM:
		// What some name services say for not found, as the man page lists it.
		result = nil
	default:
		return nil, errno
	}
	if result == nil {
		return nil, readable()
	}
	return &session.Account{
		Name:  C.GoString(pwd.pw_name),
		UID:   uint32(pwd.pw_uid),
		GID:   uint32(pwd.pw_gid),
		Home:  C.GoString(pwd.pw_dir),
		Shell: C.GoString(pwd.pw_shell),
	}, 0
}

// readable tells whether "not found" can be believed: name services also say it
// when this process has no descriptor left to open their files with.
func readable() syscall.Errno {
	fd, err := syscall.Open("/etc/passwd", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		_ = syscall.Close(fd)
	}
	switch err {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM:
		return err.(syscall.Errno)
	}
	return 0
}
