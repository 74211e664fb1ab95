// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command teleport-session owns one login of one user. The daemon starts it, as
// root, for each connection that does something: see lib/srv/session.
package main

import (
	"os"
	"runtime"

	"teleport-auditd/lib/srv/session"
)

// Login uid, audit session and PAM's changes belong to the thread, and
// /proc/self/loginuid to the main thread. Only an init function can hold the
// main goroutine on it.
func init() { runtime.LockOSThread() }

func main() { os.Exit(session.Run()) }
