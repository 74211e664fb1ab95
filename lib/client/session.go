// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One command or shell at a node, at the user's terminal or without one.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/term"
)

const (
	// defaultTerm and the size are for a terminal that is forced where there is
	// none.
	defaultTerm    = "xterm"
	defaultColumns = 80
	defaultRows    = 24
	// signalGrace is how long a command may take to end after it has been sent
	// a signal that ends tsh too.
	signalGrace = 5 * time.Second
)

// Session is what to run, and where its input and output are.
type Session struct {
	// Command is a line for the user's shell. Empty is a login shell.
	Command string
	// Terminal asks for a terminal at the node.
	Terminal bool
	// ForwardAgent passes Agent to the session.
	ForwardAgent bool
	// Stdin is nil for no input. Where it is a terminal and Terminal is set, it
	// is raw until Run returns.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Signals are what the user sends to the command; nil for none.
	Signals <-chan os.Signal
}

// ExitError is how a command ended that did not end well.
type ExitError struct {
	// Status is the command's, or 128 and the number of the signal that ended it.
	Status int
	// Signal is the name of that signal, such as TERM.
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "the command was ended by the signal " + Clean(e.Signal)
	}
	return fmt.Sprintf("the command ended with status %d", e.Status)
}

// Run runs the session to its end. The error is *ExitError where the command
// ended with another status than 0, and says what happened where the connection
// did not last. When ctx ends the session is closed.
func (s Session) Run(ctx context.Context, client *ssh.Client) error {
	session, err := client.NewSession()
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return trace.AccessDenied("the node opens no session: %s", Clean(refused.Message))
		}
		return trace.ConnectionProblem(nil, "the node opens no session: %s", dialReason(ctx, err))
	}
	defer session.Close()
	if s.ForwardAgent {
		if err := agent.RequestAgentForwarding(session); err != nil {
			return trace.AccessDenied("the node does not allow the agent to be forwarded")
		}
	}
	session.Stdout, session.Stderr = s.Stdout, s.Stderr
	stdin, err := session.StdinPipe()
	if err != nil {
		return trace.Wrap(err)
	}
	if s.Terminal {
		restore, err := s.requestTerminal(session)
		if err != nil {
			return trace.Wrap(err)
		}
		defer restore()
	}
	start := session.Shell
	if s.Command != "" {
		start = func() error { return session.Start(s.Command) }
	}
	if err := start(); err != nil {
		return trace.AccessDenied("the node does not run the command: %s", Clean(strings.TrimPrefix(err.Error(), "ssh: ")))
	}
	go func() {
		if s.Stdin != nil {
			_, _ = io.Copy(stdin, s.Stdin)
		}
		_ = stdin.Close() // the command sees the end of its input
	}()

	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	for {
		select {
		case err := <-ended:
			return exitError(err)
		case <-ctx.Done():
			_ = session.Close()
			return trace.Wrap(ctx.Err(), "interrupted")
		case sig := <-s.Signals:
			name, ends := signalName(sig)
			_ = session.Signal(name)
			if !ends {
				continue
			}
			select {
			case err := <-ended:
				return exitError(err)
			case <-s.Signals: // the user insists
			case <-ctx.Done():
			case <-time.After(signalGrace):
			}
			_ = session.Close()
			number, _ := sig.(syscall.Signal)
			return &ExitError{Status: 128 + int(number), Signal: string(name)}
		}
	}
}

// signalName is a signal as SSH has it, and whether it is to end tsh as well.
func signalName(sig os.Signal) (name ssh.Signal, ends bool) {
	switch sig {
	case syscall.SIGINT:
		return ssh.SIGINT, true
	case syscall.SIGQUIT:
		return ssh.SIGQUIT, true
	case syscall.SIGHUP:
		return ssh.SIGHUP, true
	case syscall.SIGUSR1:
		return ssh.SIGUSR1, false
	case syscall.SIGUSR2:
		return ssh.SIGUSR2, false
	}
	return ssh.SIGTERM, true
}

func exitError(err error) error {
	var (
		exit    *ssh.ExitError
		missing *ssh.ExitMissingError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{Status: exit.ExitStatus(), Signal: exit.Signal()}
	case errors.As(err, &missing):
		return trace.ConnectionProblem(nil, "the connection to the node ended before the command did")
	}
	return trace.ConnectionProblem(nil, "the session ended: %s", Clean(err.Error()))
}

// requestTerminal asks for a terminal of the size of the user's, makes the
// user's raw, and follows its size. restore undoes that.
func (s Session) requestTerminal(session *ssh.Session) (restore func(), err error) {
	name := os.Getenv("TERM")
	if name == "" {
		name = defaultTerm
	}
	columns, rows, size := defaultColumns, defaultRows, -1
	for _, stream := range []any{s.Stdin, s.Stdout} {
		if file, ok := stream.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			if c, r, err := term.GetSize(int(file.Fd())); err == nil && c > 0 && r > 0 {
				columns, rows, size = c, r, int(file.Fd())
				break
			}
		}
	}
	modes := ssh.TerminalModes{ssh.ECHO: 1, ssh.TTY_OP_ISPEED: 38400, ssh.TTY_OP_OSPEED: 38400}
	if err := session.RequestPty(name, rows, columns, modes); err != nil {
		return nil, trace.AccessDenied("the node gives no terminal: %s", Clean(strings.TrimPrefix(err.Error(), "ssh: ")))
	}
	unraw := func() {}
	if file, ok := s.Stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		descriptor := int(file.Fd())
		state, err := term.MakeRaw(descriptor)
		if err != nil {
			return nil, trace.ConvertSystemError(err)
		}
		unraw = func() { _ = term.Restore(descriptor, state) }
	}
	if size < 0 {
		return unraw, nil
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-resized:
				if c, r, err := term.GetSize(size); err == nil {
					_ = session.WindowChange(r, c)
				}
			}
		}
	}()
	return func() {
		signal.Stop(resized)
		close(done)
		unraw()
	}, nil
}

// ForwardAgent answers what the node asks of an agent: the one at socket, or the
// login's own key where socket is empty. Sessions that are to use it say so.
func ForwardAgent(client *ssh.Client, p *Profile, socket string) error {
	if socket != "" {
		return trace.Wrap(agent.ForwardToRemote(client, socket))
	}
	ring, err := p.keyring()
	if err != nil {
		return trace.Wrap(err)
	}
	return trace.Wrap(agent.ForwardToAgent(client, ring))
}
