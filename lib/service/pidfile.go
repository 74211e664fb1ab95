// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// The file that says which process the daemon is.

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/disk"
)

type pidFile struct {
	path string
	text string
}

// writePIDFile replaces what an earlier daemon may have left.
func writePIDFile(path string) (*pidFile, error) {
	file := &pidFile{path: path, text: strconv.Itoa(os.Getpid()) + "\n"}
	if err := disk.Replace(path, []byte(file.text), 0o644); err != nil {
		return nil, trace.AccessDenied("the pid file %s cannot be written (%v): change teleport.pid_file or --pid-file", path, cause.System(err))
	}
	return file, nil
}

// remove leaves the file of a daemon that has started in the meantime.
func (f *pidFile) remove() error {
	if text, err := os.ReadFile(f.path); err != nil || strings.TrimSpace(string(text)) != strings.TrimSpace(f.text) {
		return nil // a file that cannot be read is not ours any more
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return trace.ConvertSystemError(err)
	}
	return nil
}
