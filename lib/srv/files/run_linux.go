// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// Run serves sftp on standard input and output until the client has ended it. It
// returns the exit status.
func Run(args []string) int {
	readOnly := false
	for _, arg := range args {
		if arg != "-R" {
			fmt.Fprintf(os.Stderr, "ERROR: sftp does not know the option %q; -R, for reading only, is the one that there is\n", arg)
			return 2
		}
		readOnly = true
	}
	// Who may only copy files could otherwise write this program's memory.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	// The library's goroutines take turns: one processor spares waking another.
	runtime.GOMAXPROCS(1)
	// A client that is gone is an end like any other.
	signal.Ignore(syscall.SIGPIPE)
	if err := serve(os.Stdin, os.Stdout, readOnly); err != nil {
		fmt.Fprintln(os.Stderr, "ERROR: sftp:", err)
		return 1
	}
	return 0
}

func serve(in io.Reader, out *os.File, readOnly bool) error {
	f := newFilter(in, out, readOnly)
	h := &handlers{f}
	err := sftp.NewRequestServer(f, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h},
		sftp.WithRSAllocator(), sftp.WithRSMaxTxPacket(maxData)).Serve()
	if f.err != nil {
		// What the library makes of it is of no use to anybody.
		err = f.err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
