// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package books keeps the host's own books of logins, which who, w, last, lastb
// and lastlog read:
//
//	utmp     who is logged in, one entry for each terminal
//	wtmp     every login with a terminal, and its end
//	lastlog  each user's last login with a terminal
//	btmp     every login that was refused
//
// What is written is what OpenSSH's sshd writes, field by field, where the file
// exists: none is made. A process without a terminal stands in none of them.
//
//	host := books.Host()
//	last, err := host.Login(books.Entry{
//		User: "deploy", UID: 1000, Line: "/dev/pts/3", Addr: "192.0.2.7:50122",
//		PID: os.Getpid(), Time: time.Now(),
//	})
//	...
//	err = host.Logout(books.Entry{Line: "/dev/pts/3", PID: os.Getpid(), Time: time.Now()})
//
// Where the system has replaced wtmp by wtmpdb, login and end go there as well.
//
// # Not through the C library
//
// The layout of the files is the C library's, and only that. Its calls wait up to
// ten seconds for a lock that any user who may read the file can hold, by
// alarm(2), which a Go program cannot have, and then leave the entry out. Here
// the wait for the lock is short, and the entry is written without it: an entry
// has one writer, the process that owns the terminal.
//
// This package is part of a program that starts for every login and must stay
// small, so its errors are plain.
package books

import (
	"context"
	"time"

	"teleport-auditd/lib/auditd"
)

// Books are the files, by path. An empty path, or one where there is no file,
// leaves that book out.
type Books struct {
	Utmp, Wtmp, Lastlog, Btmp string
	// WtmpDB is the database of a host that has wtmpdb.
	WtmpDB string
	// WtmpDBLibrary writes to it, by a name as dlopen(3) takes it. It picks its
	// own database, or a daemon that has it open.
	WtmpDBLibrary string
}

// Host returns the books of this host.
func Host() Books {
	return Books{
		Utmp:          "/var/run/utmp",
		Wtmp:          "/var/log/wtmp",
		Lastlog:       "/var/log/lastlog",
		Btmp:          "/var/log/btmp",
		WtmpDB:        "/var/lib/wtmpdb/wtmp.db",
		WtmpDBLibrary: "libwtmpdb.so.0",
	}
}

// Entry is one login.
type Entry struct {
	// User is the login name, any bytes. It is cut at 32 bytes, and what is no
	// printable ASCII, or is a space, becomes a question mark: the readers print
	// it to a terminal, in columns.
	User string
	UID  uint32
	// Line is the terminal's path, such as /dev/pts/3.
	Line string
	// Addr is the client's IP, or IP:port.
	Addr string
	// PID is the process that owns the terminal, lives as long as the login, and
	// has its login uid: who and w take an entry whose process is gone for one
	// left behind, and last one whose process has another login uid.
	PID  int
	Time time.Time
}

// LastLogin is what lastlog knows of a user.
type LastLogin struct {
	// Time is zero where there was no login.
	Time time.Time
	Line string
	Host string
}

// String returns the line that a user is shown, as sshd has it, with its newline.
// It is empty where there was no login.
func (l LastLogin) String() string {
	if l.Time.IsZero() {
		return ""
	}
	line := "Last login: " + l.Time.Format(time.ANSIC)
	if l.Host != "" {
		line += " from " + l.Host
	}
	return line + "\n"
}

// Emitter is an auditd.Emitter that enters each login that is refused in btmp as
// well, so that lastb agrees with the audit trail. It waits for the file, as it
// does for the kernel: who must not wait puts an auditd.Queue before it.
type Emitter struct {
	auditd.Emitter
	Books Books
	// PID stands in the entries.
	PID int
	// Trouble takes what went wrong with btmp. It may be nil.
	Trouble func(error)
}

// Emit emits the event, with its entry in btmp where it says that a login was
// refused.
func (e Emitter) Emit(ctx context.Context, event auditd.Event) error {
	if event.Type == auditd.AuditUserLogin && event.Result == auditd.Failed {
		err := e.Books.Failed(Entry{User: event.SystemUser, Addr: event.ConnAddress, PID: e.PID, Time: time.Now()})
		if err != nil && e.Trouble != nil {
			e.Trouble(err)
		}
	}
	return e.Emitter.Emit(ctx, event)
}
