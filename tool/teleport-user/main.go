// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command teleport-user does for a login what needs no shell, as the user and in
// the login's audit session: it serves files (sftp) and makes the connections and
// sockets of forwarding. teleport-session starts it, after it has become the user.
//
//	teleport-user sftp [-R]    an sftp server on standard input and output
//	teleport-user forward      forwarding, asked for by the daemon on descriptor 0
//	teleport-user prepare ...  ~/.ssh/environment and rc, and then a shell
package main

import (
	"fmt"
	"os"

	"teleport-auditd/lib/srv/files"
	"teleport-auditd/lib/srv/forward"
	"teleport-auditd/lib/srv/prepare"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0, 1 for what went wrong, 2 for wrong arguments.
func run(args []string) int {
	if len(args) == 0 {
		return usage()
	}
	switch args[0] {
	case "sftp":
		return files.Run(args[1:])
	case "forward":
		return forward.Run()
	case "prepare":
		return prepare.Run(args[1:])
	}
	return usage()
}

func usage() int {
	fmt.Fprintln(os.Stderr, "ERROR: teleport-user is started by teleport for sftp and forwarding; run teleport start instead")
	return 2
}
