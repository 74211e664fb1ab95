// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

// Status is what auditctl -s prints: the kernel's struct audit_status and the
// one feature that concerns logins (include/uapi/linux/audit.h).
type Status struct {
	// EnabledFlag is 0 for off, 1 for on and 2 for on and locked until reboot.
	EnabledFlag uint32
	// Failure is what the kernel does when it loses a record: 0 nothing, 1
	// printk, 2 panic.
	Failure uint32
	// PID is auditd's process id, 0 where none runs.
	PID uint32
	// RateLimit is in records a second, 0 for none.
	RateLimit uint32
	// BacklogLimit and Backlog count records that wait for auditd.
	BacklogLimit uint32
	Lost         uint32
	Backlog      uint32
	// BacklogWaitTime is how long a sender waits at most while the backlog is
	// full, and BacklogWaitTimeActual how long all of them have waited, in the
	// kernel's clock ticks (jiffies: 15,000 are 60 s where CONFIG_HZ is 250).
	BacklogWaitTime       uint32
	BacklogWaitTimeActual uint32
	// LoginUIDImmutable says that a login uid cannot be changed once it is set,
	// LoginUIDLocked that this cannot be switched off.
	LoginUIDImmutable bool
	LoginUIDLocked    bool
}

// Enabled tells whether records are written. Locked is enabled.
func (s Status) Enabled() bool { return s.EnabledFlag != 0 }

// UnsetLoginUID is the login uid of what nobody has logged in to: what init
// starts, and what the daemon must have.
const UnsetLoginUID = 4294967295
