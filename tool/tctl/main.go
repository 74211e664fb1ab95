// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command tctl is the operator's: users and their roles, hosts that may join, the
// authorities, locks and the audit log of the cluster.
//
//	tctl status
//	tctl users add alice --logins=bob,root
//	tctl tokens add --type=node
//	tctl get roles
//	tctl auth sign --user=alice --out=alice
//	tctl auth export --type=host >> ~/.ssh/known_hosts
//	tctl auth rotate --phase=init
//	tctl lock --user=alice
//	tctl events ls
//
// On the host of the auth service root needs no login: tctl opens the storage
// that the configuration names, whether teleport runs or not. From anywhere else
// it goes to the auth service, with an identity file or as whom tsh has logged in.
//
// It ends with status 2 where it was called wrongly and 1 where something else
// failed, with one line on standard error that begins with "ERROR:".
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/config"
	"teleport-auditd/lib/version"
)

func main() {
	// A name that begins with @ is a name: kingpin would read its arguments
	// from the file.
	kingpin.EnableFileExpansion = false
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	t := &tctl{stdout: os.Stdout, stderr: os.Stderr, defaultConfig: config.DefaultPath}
	status := t.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// usageError is an error of who called tctl.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// tctl is one call of the program.
type tctl struct {
	stdout, stderr io.Writer
	// defaultConfig is the file that is read where none is named.
	defaultConfig string

	configFile, dataDir string
	// An empty name is a script's mistake, and not the same as none.
	configFileSet, dataDirSet bool
	authServers               []string
	identity                  string
	debug                     bool
}

// run returns the exit status.
func (t *tctl) run(ctx context.Context, args []string) int {
	err := t.dispatch(ctx, args)
	if err == nil {
		return 0
	}
	report := "ERROR: " + oneLine(trace.UserMessage(err)) + "\n"
	if t.debug {
		report += trace.DebugReport(err) + "\n"
	}
	_, _ = io.WriteString(t.stderr, report) // there is no other place to say it
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

func (t *tctl) dispatch(ctx context.Context, args []string) error {
	app := kingpin.New("tctl", "The operator's tool: users, roles, hosts that join, authorities, locks and the audit log of a cluster.")
	app.UsageWriter(t.stdout)
	app.HelpFlag.Short('h')
	app.Flag("config", "Configuration file of teleport, for its data_dir. Without it, "+t.defaultConfig+" where there is one.").
		Short('c').PlaceHolder("FILE").IsSetByUser(&t.configFileSet).StringVar(&t.configFile)
	app.Flag("data-dir", "Folder of the cluster, in place of a configuration file.").
		PlaceHolder("DIR").IsSetByUser(&t.dataDirSet).StringVar(&t.dataDir)
	app.Flag("auth-server", "Address of an auth service or of a proxy's web port, for --identity; several times for several.").
		PlaceHolder("HOST:PORT").StringsVar(&t.authServers)
	app.Flag("identity", "Identity file to go to the auth service with, as tctl auth sign --format=file writes it.").
		Short('i').PlaceHolder("FILE").StringVar(&t.identity)
	app.Flag("debug", "Say more of what is done, and where an error came from.").
		Short('d').BoolVar(&t.debug)
	app.Action(func(parsed *kingpin.ParseContext) error {
		if parsed.SelectedCommand == nil {
			return trace.BadParameter("no command was given: see tctl --help")
		}
		return nil
	})

	actions := map[string]func(context.Context) error{}
	register := func(clause *kingpin.CmdClause, run func(context.Context) error) {
		// A command with others below it is no action itself.
		actions[clause.FullCommand()] = run
	}
	t.addStatus(app, register)
	t.addUsers(app, register)
	t.addTokens(app, register)
	t.addNodes(app, register)
	t.addResources(app, register)
	t.addAuth(app, register)
	t.addLock(app, register)
	t.addEvents(app, register)
	register(app.Command("version", "Print the version."), func(context.Context) error {
		return t.print(version.Line() + "\n")
	})

	command, err := app.Parse(args)
	if err != nil {
		return usageError{err}
	}
	if run := actions[command]; run != nil {
		return run(ctx)
	}
	return nil
}

// register says what a command does.
type register func(clause *kingpin.CmdClause, run func(context.Context) error)

// print writes what was asked for. A full disk under a redirection is no success.
func (t *tctl) print(text string) error {
	if _, err := io.WriteString(t.stdout, text); err != nil {
		return trace.Errorf("cannot write to standard output: %v", cause.System(err))
	}
	return nil
}

// oneLine makes a line of a text that may have several, and that may quote what
// somebody chose to move the cursor with.
func oneLine(text string) string {
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return printable(strings.Join(lines, ": "))
}
