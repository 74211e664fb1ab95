// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && !cgo

package session

import (
	"encoding/binary"
	"os"
	"os/signal"
	"sync/atomic"

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

// trimMemory has nothing to do: C allocates nothing here.
func trimMemory() {}
