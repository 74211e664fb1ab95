// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package auditd tells the Linux audit system who logged in, who left and who
// was refused.
//
// Most callers need three calls. New opens the way to the kernel, or picks the
// no-op where there is none; Emit writes one record and returns when the kernel
// has acknowledged it; Close ends it:
//
//	emitter, err := auditd.New(auditd.Config{})
//	if err != nil {
//		return err
//	}
//	defer emitter.Close()
//	err = emitter.Emit(ctx, auditd.Event{
//		Type:         auditd.AuditUserErr,
//		Result:       auditd.Failed,
//		SystemUser:   "deploy",
//		TeleportUser: "alice",
//		ConnAddress:  "192.0.2.7:50122",
//		Reason:       "certificate-has-expired",
//	})
//
// # What the kernel adds
//
// The kernel puts pid, uid, auid (the login uid) and ses (the audit session id)
// before the message. They are those of the calling thread, so a record of a
// login must be sent by the thread that owns the login: see SetLoginUID, and
// runtime.LockOSThread.
//
// # Errors
//
// This package is part of a program that starts for every login and must stay
// small, so its errors are plain: wrap them with trace where there is room.
//
// # Blocking
//
// When auditd is stuck and the kernel's backlog is full, the kernel holds the
// sender inside sendto(2), for up to backlog_wait_time, and nothing can cancel
// it. A caller on whom others wait puts NewQueue before the Emitter.
package auditd

import (
	"context"
	"strconv"
)

// EventType is the kernel's number of a record type
// (include/uapi/linux/audit.h, and libaudit.h for user-space records).
type EventType uint16

// The records that this package writes.
const (
	// AuditUserEnd says that a login has ended (AUDIT_USER_END).
	AuditUserEnd EventType = 1106
	// AuditUserErr says that a user was refused (AUDIT_USER_ERR).
	AuditUserErr EventType = 1109
	// AuditUserLogin says that a login was made or refused (AUDIT_USER_LOGIN).
	AuditUserLogin EventType = 1112
)

// String returns the name that ausearch -m takes.
func (t EventType) String() string {
	switch t {
	case AuditUserEnd:
		return "USER_END"
	case AuditUserErr:
		return "USER_ERR"
	case AuditUserLogin:
		return "USER_LOGIN"
	}
	return "UNKNOWN[" + strconv.Itoa(int(t)) + "]"
}

// op is what the record's first field says, by type.
func (t EventType) op() string {
	switch t {
	case AuditUserEnd:
		return "session_close"
	case AuditUserErr:
		return "invalid_user"
	case AuditUserLogin:
		return "login"
	}
	return "?"
}

// known tells whether this package writes such records. The kernel takes other
// numbers for commands: 1001 would set its status.
func (t EventType) known() bool { return t.op() != "?" }

// Result is the record's last field.
type Result bool

const (
	// Success is written as res=success.
	Success Result = true
	// Failed is written as res=failed, which is also the zero value: an Event
	// whose result was forgotten claims nothing.
	Failed Result = false
)

// String returns the word that the record carries.
func (r Result) String() string {
	if r {
		return "success"
	}
	return "failed"
}

// UnknownTTY stands in the record's terminal field where there is no terminal.
const UnknownTTY = "teleport"

// Event is one record. Strings may hold any bytes, chosen by anybody: Emit cuts
// and encodes them so that none reaches into another field.
type Event struct {
	// Type picks the record type, and with it the op field.
	Type EventType
	// Result is what became of it.
	Result Result
	// SystemUser is the login name on this host, as the client asked for it.
	SystemUser string
	// UID is the login's uid, nil where the login does not exist on this host.
	UID *uint32
	// TeleportUser is the person: the key id of a certificate that a trusted
	// authority has signed, and empty where there was none.
	TeleportUser string
	// ConnAddress is the client's address: an IP, or IP:port as
	// net.Addr prints it. A zone is dropped, a v4-in-v6 address unmapped, and
	// what is no IP address is written as unknown. Names are never looked up.
	ConnAddress string
	// TTYName is the terminal's path, such as /dev/pts/3; empty for none.
	TTYName string
	// Reason says why, for failures, in the program's words.
	Reason string
}

// Emitter writes records.
type Emitter interface {
	// Emit writes one record and returns once the kernel has taken it. A nil
	// error where auditing is switched off, not there, or not open to this
	// process, means that there was nothing to write, except in ModeRequired,
	// which answers ErrDisabled, ErrAbsent, ErrUserNamespace or ErrNotPermitted
	// instead. A process that may not read the kernel's status
	// (CAP_AUDIT_CONTROL) cannot see that auditing is switched off.
	//
	// Whatever else goes wrong comes back as ErrUnknownOutcome or with the
	// kernel's errno in the chain (errors.Is finds them). An event whose Type is
	// none of the above is an error. ctx is looked at before the send only: see
	// Blocking.
	Emit(ctx context.Context, event Event) error
	// Close releases what the Emitter holds. Emit must not be called after it.
	Close() error
}
