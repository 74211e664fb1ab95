// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What SQLite's result codes mean to an operator
// (https://sqlite.org/rescode.html).

package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/gravitational/trace"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// primaryCode is the part of an extended result code that names its family.
const primaryCode = 0xff

// describe says in one line what failed and what to do about it. An error that
// is ours already, or the context's, is passed on.
func describe(err error, doing, path string) error {
	var code *sqlite.Error
	if !errors.As(err, &code) {
		return trace.Wrap(err)
	}
	switch code.Code() & primaryCode {
	case sqlite3.SQLITE_INTERRUPT:
		return trace.Wrap(context.Canceled)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT:
		return damaged(path, code.Error())
	case sqlite3.SQLITE_FULL:
		return trace.LimitExceeded("%s %s: the disk is full: make room on the file system of %s", doing, path, filepath.Dir(path))
	case sqlite3.SQLITE_READONLY:
		return trace.AccessDenied("%s %s: it cannot be written (%s): see whether its file system is mounted read-only", doing, path, code.Error())
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return trace.AccessDenied("%s %s: it cannot be opened (%s): see its permissions, and whether its file system is mounted read-only", doing, path, code.Error())
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return trace.LimitExceeded("%s %s: another process has been writing it for too long (%s): see which has it open with: fuser %s", doing, path, code.Error(), path)
	case sqlite3.SQLITE_IOERR:
		return trace.Errorf("%s %s: its disk failed or is full (%s): see the kernel's log and the room on the file system of %s", doing, path, code.Error(), filepath.Dir(path))
	}
	return trace.Errorf("%s %s: %s", doing, path, code.Error())
}

// damaged never suggests starting afresh as the first thing: with the file go
// the authorities that every node and user trusts.
func damaged(path, report string) error {
	report = strings.Join(strings.Fields(report), " ") // SQLite's has several lines
	return trace.Errorf("%s is damaged (%s): stop teleport and restore the file from a backup; without one, move it away, and teleport starts a new cluster whose authorities nobody trusts yet", path, report)
}
