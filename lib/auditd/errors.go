// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import "errors"

// Errors that a caller may test for with errors.Is.
var (
	// ErrDisabled comes from Emit in ModeRequired while the kernel's auditing is
	// switched off (auditctl -e 0).
	ErrDisabled = errors.New("auditing is switched off in the kernel (auditctl -e 1 switches it on)")
	// ErrAbsent comes from ReadStatus, ReadLoginUID and SetLoginUID, and from
	// Emit in ModeRequired, where this kernel has no auditing: built without
	// CONFIG_AUDIT, booted with audit=0, or not Linux.
	ErrAbsent = errors.New("the kernel has no auditing (CONFIG_AUDIT is missing, or it was booted with audit=0)")
	// ErrUserNamespace comes where the kernel answers ECONNREFUSED: it takes
	// audit messages from the initial user namespace only.
	ErrUserNamespace = errors.New("the kernel takes no audit records from inside a user namespace")
	// ErrNotPermitted comes where this process may not do what it asked for:
	// CAP_AUDIT_WRITE to write, CAP_AUDIT_CONTROL and the initial PID namespace
	// to read the status.
	ErrNotPermitted = errors.New("not permitted (writing audit records needs CAP_AUDIT_WRITE, reading the status CAP_AUDIT_CONTROL)")
	// ErrUnknownOutcome comes when the kernel's acknowledgement did not: the
	// record may or may not have been written, and sending it again could
	// write it twice.
	ErrUnknownOutcome = errors.New("the kernel did not acknowledge the audit record")
	// ErrQueueFull comes from Queue.Emit when the sender cannot keep up: the
	// record is dropped and counted.
	ErrQueueFull = errors.New("the queue of audit records is full")

	// errOpen stands in the chain where there is not even a socket.
	errOpen = errors.New("opening the audit socket")
)
