// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

package files

import (
	"fmt"
	"os"
)

// Run says that this system has no sftp server.
func Run([]string) int {
	fmt.Fprintln(os.Stderr, "ERROR: sftp is served on Linux only")
	return 1
}
