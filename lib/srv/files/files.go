// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package files is the sftp server, which runs as the user.
package files

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

// Run serves sftp on standard input and output until the client has ended it.
func Run(args []string) int {
	var options []sftp.ServerOption
	for _, arg := range args {
		if arg != "-R" {
			fmt.Fprintf(os.Stderr, "ERROR: sftp does not know the option %q; -R, for reading only, is the one that there is\n", arg)
			return 2
		}
		options = append(options, sftp.ReadOnly())
	}
	server, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}, options...)
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "ERROR:", err)
		return 1
	}
	return 0
}
