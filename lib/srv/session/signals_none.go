// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && !cgo

package session

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchSignals makes every end of a child and every request to terminate
// readable on wake, an eventfd, and returns what tells of the latter. It also
// undoes an ignored SIGHUP or SIGINT that the daemon inherited, which user
// processes would inherit in turn.
func watchSignals(wake int) (terminated func() bool, err error) {
	var ended atomic.Bool
	// Signals of one kind that come together are one, so one place is enough;
	// each kind has its own, lest many of one leave no room for the other.
	children, terminate := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Notify(terminate, unix.SIGTERM, unix.SIGHUP, unix.SIGINT)
	one := binary.NativeEndian.AppendUint64(nil, 1)
	go func() {
		for {
			select {
			case <-children:
			case <-terminate:
				ended.Store(true)
			}
			_, _ = unix.Write(wake, one)
		}
	}()
	return ended.Load, nil
}

// killGroupAs sends a signal to those of a process group whom the user may
// signal: it may hold a program of somebody else's (setuid). Without C, which can
// fork, this thread becomes the user for the moment that it takes.
func killGroupAs(uid uint32, group int, sig syscall.Signal) error {
	// The saved uid stays root, for the way back.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), 0); errno != 0 {
		return fmt.Errorf("becoming the user to send a signal: %w", errno)
	}
	// The user may be told nothing of those whom only root may signal.
	_ = unix.Kill(-group, sig)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
		// Going on as the user would end this login without a record.
		panic(fmt.Sprintf("becoming root again: %v", errno))
	}
	return nil
}

// trimMemory has nothing to do: C allocates nothing here.
func trimMemory() {}

// theirFaults has nothing to do: there are no modules without C.
func theirFaults() (over func()) { return func() {} }
