// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd_test

import (
	"context"
	"fmt"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
)

// A failed login, told to the kernel. Without Dial it is the real one.
func ExampleNew() {
	kernel := new(auditdtest.Kernel)
	kernel.Set(auditdtest.Answers{Enabled: 1})

	emitter, err := auditd.New(auditd.Config{Executable: "/usr/local/bin/teleport", Dial: kernel.Dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = emitter.Close() }()

	err = emitter.Emit(context.Background(), auditd.Event{
		Type:         auditd.AuditUserErr,
		Result:       auditd.Failed,
		SystemUser:   "deploy",
		TeleportUser: "alice",
		ConnAddress:  "192.0.2.7:50122",
		Reason:       "expired",
	})
	if err != nil {
		fmt.Println(err)
	}
	for _, r := range kernel.Records() {
		fmt.Println(r.Type, r.Body)
	}
	// Output:
	// USER_ERR op=invalid_user acct="deploy" exe="/usr/local/bin/teleport" hostname=192.0.2.7 addr=192.0.2.7 terminal=teleport rport=50122 teleportUser=alice reason="expired" res=failed
}

// A daemon that must not wait for the kernel puts a Queue before the Emitter.
func ExampleNewQueue() {
	kernel := new(auditdtest.Kernel)
	kernel.Set(auditdtest.Answers{Enabled: 1})

	emitter, err := auditd.New(auditd.Config{Executable: "/usr/local/bin/teleport", Dial: kernel.Dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	queue, err := auditd.NewQueue(auditd.QueueConfig{Emitter: emitter})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"root", "admin"} {
		event := auditd.Event{Type: auditd.AuditUserErr, SystemUser: name, ConnAddress: "[2001:db8::7]:22"}
		if err := queue.Emit(context.Background(), event); err != nil {
			fmt.Println(err)
		}
	}
	// Close writes what waits, and closes the emitter too.
	if err := queue.Close(); err != nil {
		fmt.Println(err)
	}
	for _, r := range kernel.Records() {
		fmt.Println(r.Type, r.Body)
	}
	// Output:
	// USER_ERR op=invalid_user acct="root" exe="/usr/local/bin/teleport" hostname=2001:db8::7 addr=2001:db8::7 terminal=teleport rport=22 res=failed
	// USER_ERR op=invalid_user acct="admin" exe="/usr/local/bin/teleport" hostname=2001:db8::7 addr=2001:db8::7 terminal=teleport rport=22 res=failed
}
