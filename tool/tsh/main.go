// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command tsh is the user's: it logs in at a proxy, and reaches the cluster's
// nodes through it.
//
//	tsh login --proxy=proxy.example.com --user=alice
//	tsh ls env=prod
//	tsh ssh bob@web
//	tsh scp -r site bob@web:/srv
//	tsh config >> ~/.ssh/config
//
// It ends with the status of the command that it ran at a node, with 2 where it
// was called wrongly, and with 1 where something else failed, with one line on
// standard error that begins with "ERROR:".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"
	"golang.org/x/term"
	"google.golang.org/grpc/grpclog"

	"teleport-auditd/lib/client"
	"teleport-auditd/lib/version"
)

func main() {
	// It is gRPC's own state, and would write lines of its own to standard error.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	// A name that begins with @ is a name: kingpin would read its arguments
	// from the file.
	kingpin.EnableFileExpansion = false
	t := &tsh{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		getenv: os.Getenv,
		clock:  clockwork.NewRealClock(),
	}
	os.Exit(t.run(context.Background(), os.Args[1:]))
}

// usageError is an error of who called tsh.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// silentError has been said already.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

// tsh is one call of the program.
type tsh struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) string
	clock          clockwork.Clock

	home, proxy string
	debug       bool
}

// command is one of tsh's.
type command interface {
	clauseName() string
	run(ctx context.Context, t *tsh) error
}

// run returns the exit status.
func (t *tsh) run(ctx context.Context, args []string) int {
	err := t.dispatch(ctx, args)
	var (
		exit   *client.ExitError
		silent silentError
		usage  usageError
	)
	if err == nil {
		return 0
	}
	if errors.As(err, &exit) {
		if exit.Signal != "" {
			t.say("ERROR: %s", exit)
		}
		return exit.Status
	}
	if !errors.As(err, &silent) {
		text := oneLine(trace.UserMessage(err))
		if errors.Is(err, context.Canceled) {
			// The words of ours stand before it; who pressed Ctrl-C needs no more.
			text = strings.TrimSuffix(text, ": "+context.Canceled.Error())
		}
		t.say("ERROR: %s", text)
		if t.debug {
			_, _ = io.WriteString(t.stderr, client.CleanLines(trace.DebugReport(err))+"\n")
		}
	}
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// say writes a line for the user, beside what a command prints.
func (t *tsh) say(format string, args ...any) {
	end := "\n"
	if file, ok := t.stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		// It may be raw now, and go down without going back.
		end = "\r\n"
	}
	// There is no other place to say it.
	_, _ = io.WriteString(t.stderr, client.Clean(fmt.Sprintf(format, args...))+end)
}

func (t *tsh) dispatch(ctx context.Context, args []string) error {
	app := kingpin.New("tsh", "Logs in at a proxy, and reaches the cluster's nodes through it.")
	app.UsageWriter(t.stdout)
	app.HelpFlag.Short('h')
	// What follows a node is the node's to read.
	app.Interspersed(!isSSH(args))
	app.Flag("debug", "Say where an error came from.").Short('d').BoolVar(&t.debug)
	app.Flag("home", "Folder of logins. Without it, TELEPORT_HOME or ~/.tsh.").PlaceHolder("DIR").StringVar(&t.home)
	app.Flag("proxy", "Proxy, as HOST or HOST:PORT. Without it, TELEPORT_PROXY or the one of the last login.").
		PlaceHolder("HOST").StringVar(&t.proxy)
	app.Action(func(parsed *kingpin.ParseContext) error {
		if parsed.SelectedCommand == nil {
			return trace.BadParameter("no command was given: see tsh --help")
		}
		return nil
	})
	proxyCommand := app.Command("proxy", "Connections for other programs.")
	commands := []command{
		newLoginCommand(app), newLogoutCommand(app), newStatusCommand(app), newLsCommand(app),
		newSSHCommand(app), newScpCommand(app), newConfigCommand(app), newProxySSHCommand(proxyCommand),
	}
	versionCommand := app.Command("version", "Print the version.")

	name, err := app.Parse(args)
	if err != nil {
		return usageError{err}
	}
	if t.home == "" {
		t.home = t.getenv("TELEPORT_HOME")
	}
	if t.proxy == "" {
		t.proxy = t.getenv("TELEPORT_PROXY")
	}
	if t.proxy != "" {
		if _, err := client.ParseProxy(t.proxy); err != nil {
			return usageError{err}
		}
	}
	if !t.debug {
		// The api module logs to standard error what it says in its errors too.
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	if name == versionCommand.FullCommand() {
		return t.print(version.Line() + "\n")
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.clauseName() == name })
	return commands[i].run(ctx, t)
}

// isSSH tells whether the first word that is neither an option nor its value is
// the command ssh.
func isSSH(args []string) bool {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--home", arg == "--proxy":
			i++
		case !strings.HasPrefix(arg, "-"):
			return arg == "ssh"
		}
	}
	return false
}

// interruptible is ctx until the user interrupts.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// print writes what was asked for. A full disk under a redirection is no success.
func (t *tsh) print(text string) error {
	if _, err := io.WriteString(t.stdout, text); err != nil {
		return trace.Errorf("cannot write to standard output: %v", err)
	}
	return nil
}

func (t *tsh) store() (*client.Store, error) {
	return client.NewStore(t.home, t.clock)
}

// refresh is client.DialConfig's: whom the login trusts is kept up to date.
func (t *tsh) refresh(p *client.Profile) func(context.Context) ([]ssh.PublicKey, error) {
	return func(ctx context.Context) ([]ssh.PublicKey, error) {
		store, err := t.store()
		if err != nil {
			return nil, trace.Wrap(err)
		}
		return store.Refresh(ctx, p)
	}
}

// profile is the login to use, which is valid.
func (t *tsh) profile() (*client.Profile, error) {
	store, err := t.store()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return store.LoadValid(t.proxy)
}

// oneLine makes a line of a text that may have several.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return client.Clean(strings.Join(lines, ": "))
}
