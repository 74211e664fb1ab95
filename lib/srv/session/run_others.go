// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux || 386 || arm || mips || mipsle

package session

import (
	"fmt"
	"os"
)

// Run says that this system has no teleport-session. On 32-bit Linux the calls
// that switch one thread's user take 16-bit ids.
func Run() int {
	fmt.Fprintln(os.Stderr, "ERROR: teleport-session runs on 64-bit Linux only")
	return 1
}
