// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package cause finds in an error what went wrong, for a message that names the
// rest already: the path, or the server that was asked.
package cause

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/gravitational/trace"
)

// System is what the system said, without the operation and the path.
func System(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	var linkError *os.LinkError
	if errors.As(err, &linkError) {
		return linkError.Err
	}
	return err
}

// RPC is what went wrong in a call, in one line, without what gRPC puts before
// it.
func RPC(err error) string {
	text := strings.Join(strings.Fields(trace.UserMessage(err)), " ")
	if at := strings.LastIndex(text, "desc = "); at >= 0 {
		text = strings.Trim(text[at+len("desc = "):], `"`)
	}
	return text
}
