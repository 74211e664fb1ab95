// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Questions to the user.

package client

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gravitational/trace"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

const ttyPath = "/dev/tty"

// Terminal asks the user. It uses standard input where that is a terminal, and
// the terminal that controls the process otherwise.
type Terminal struct {
	// Stdin is the program's standard input.
	Stdin *os.File
	// Output is where questions go if standard input is the terminal.
	Output io.Writer
}

// AskSecret asks for something that is not to be seen, and returns what was
// typed up to the end of the line. The error is trace.BadParameter where there
// is no terminal, with what was to be asked. It restores the terminal when ctx
// ends before the user has answered.
func (t *Terminal) AskSecret(ctx context.Context, what, question string) (string, error) {
	input, output := t.Stdin, t.Output
	if !term.IsTerminal(int(input.Fd())) {
		tty, err := os.OpenFile(ttyPath, os.O_RDWR, 0)
		if err != nil {
			return "", trace.BadParameter("%s is needed, and there is no terminal to ask at: run tsh login at a terminal", what)
		}
		defer tty.Close()
		input, output = tty, tty
	}
	descriptor := int(input.Fd())
	state, err := term.GetState(descriptor)
	if err != nil {
		return "", trace.ConvertSystemError(err)
	}
	// Before the question: who has seen it may type at once.
	if err := switchEchoOff(descriptor); err != nil {
		return "", trace.ConvertSystemError(err)
	}
	defer term.Restore(descriptor, state) //nolint:errcheck // the terminal has gone
	if _, err := fmt.Fprint(output, question); err != nil {
		return "", trace.ConvertSystemError(err)
	}
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	// A read of a terminal cannot be ended. Who is interrupted ends the program,
	// and this with it.
	go func() {
		text, err := term.ReadPassword(descriptor)
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		_ = term.Restore(descriptor, state)
		_, _ = fmt.Fprintln(output)
		return "", trace.Wrap(ctx.Err(), "interrupted")
	case got := <-answers:
		_, _ = fmt.Fprintln(output)
		if got.err != nil {
			return "", trace.BadParameter("%s is needed, and none was typed", what)
		}
		text := strings.TrimRight(string(got.text), "\r\n")
		if text == "" {
			return "", trace.BadParameter("%s is needed, and none was typed", what)
		}
		return text, nil
	}
}

// switchEchoOff has a terminal show nothing of what is typed.
func switchEchoOff(descriptor int) error {
	settings, err := unix.IoctlGetTermios(descriptor, unix.TCGETS)
	if err != nil {
		return err
	}
	settings.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(descriptor, unix.TCSETS, settings)
}
