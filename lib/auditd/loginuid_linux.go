// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	loginUIDFile  = "/proc/self/loginuid"
	sessionIDFile = "/proc/self/sessionid"
)

// ReadLoginUID returns the login uid of this process's main thread,
// UnsetLoginUID where nobody has logged in, or ErrAbsent.
func ReadLoginUID() (uint32, error) { return readID(loginUIDFile) }

// ReadSessionID returns the audit session id of this process's main thread, the
// ses of its records, or ErrAbsent. It is 4294967295 where nobody has logged in.
func ReadSessionID() (uint32, error) { return readID(sessionIDFile) }

func readID(path string) (uint32, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, ErrAbsent
	}
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", path, err)
	}
	return uint32(id), nil
}

// SetLoginUID sets the login uid of the calling thread, which gives it a new
// audit session id and makes the kernel write a LOGIN record. UnsetLoginUID
// clears both.
//
// The calling thread must be the process's main thread: the kernel keeps the id
// by thread, takes it for the writer's own only (proc_loginuid_write in
// fs/proc/base.c), and /proc/self is the main thread. A thread that is forked
// later inherits it.
//
// The errors are ErrAbsent, and ErrNotPermitted where the thread is another
// one, or where the id is set already and CAP_AUDIT_CONTROL is missing or the
// kernel keeps login uids immutable (auditctl --loginuid-immutable).
func SetLoginUID(uid uint32) error {
	f, err := os.OpenFile(loginUIDFile, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrAbsent
	}
	if err == nil {
		_, err = f.WriteString(strconv.FormatUint(uint64(uid), 10))
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("setting the login uid %d: %w", uid, ErrNotPermitted)
	}
	return fmt.Errorf("setting the login uid %d: %w", uid, err)
}
