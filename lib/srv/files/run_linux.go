// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package files

import (
	"fmt"
	"os"
)

// Run serves sftp on standard input and output until the client has ended it. It
// returns the exit status.
func Run(args []string) int {
	s := newServer(os.Stdin.Fd(), os.Stdout.Fd())
	for _, arg := range args {
		if arg != "-R" {
			fmt.Fprintf(os.Stderr, "ERROR: sftp does not know the option %q; -R, for reading only, is the one that there is\n", arg)
			return 2
		}
		s.readOnly = true
	}
	if err := s.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "ERROR: sftp:", err)
		return 1
	}
	return 0
}
