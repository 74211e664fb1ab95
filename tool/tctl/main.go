// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command tctl is the operator's: it signs certificates for users and prints
// whom to trust. It works on the host of the auth service, on the folder that
// teleport keeps the cluster in, and teleport may be running meanwhile.
//
//	tctl auth sign --user=alice --logins=bob,root --ttl=12h --out=alice
//	tctl auth export --type=host >> ~/.ssh/known_hosts
//	tctl auth export --type=user > /etc/ssh/user_ca.pub
//	tctl version
//
// It ends with status 2 where it was called wrongly and 1 where something else
// failed, with one line on standard error that begins with "ERROR:".
package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auth"
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
	app := kingpin.New("tctl", "Signs certificates for users of the cluster on this host, and prints the authorities to trust.")
	app.UsageWriter(t.stdout)
	app.HelpFlag.Short('h')
	app.Flag("config", "Configuration file of teleport, for its data_dir. Without it, "+t.defaultConfig+" where there is one.").
		Short('c').PlaceHolder("FILE").IsSetByUser(&t.configFileSet).StringVar(&t.configFile)
	app.Flag("data-dir", "Folder of the cluster, in place of a configuration file.").
		PlaceHolder("DIR").IsSetByUser(&t.dataDirSet).StringVar(&t.dataDir)
	app.Flag("debug", "Say more of what is done, and where an error came from.").
		Short('d').BoolVar(&t.debug)
	app.Action(func(parsed *kingpin.ParseContext) error {
		if parsed.SelectedCommand == nil {
			return trace.BadParameter("no command was given: see tctl --help")
		}
		return nil
	})

	authCommand := app.Command("auth", "The cluster's authorities.")
	sign := newSignCommand(authCommand)
	export := newExportCommand(authCommand)
	versionCommand := app.Command("version", "Print the version.")

	command, err := app.Parse(args)
	if err != nil {
		return usageError{err}
	}
	switch command {
	case sign.clause.FullCommand():
		return sign.run(ctx, t)
	case export.clause.FullCommand():
		return export.run(ctx, t)
	case versionCommand.FullCommand():
		return t.print(version.Line() + "\n")
	}
	return nil
}

// print writes what was asked for. A full disk under a redirection is no success.
func (t *tctl) print(text string) error {
	if _, err := io.WriteString(t.stdout, text); err != nil {
		return trace.Errorf("cannot write to standard output: %v", reason(err))
	}
	return nil
}

// open opens the cluster of this host, whatever its name.
func (t *tctl) open(ctx context.Context) (*auth.Server, error) {
	dir, err := t.findDataDir()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	log := logrus.New()
	log.SetOutput(t.stderr)
	log.SetLevel(logrus.WarnLevel)
	if t.debug {
		log.SetLevel(logrus.DebugLevel)
	}
	server, err := auth.Open(ctx, auth.Config{DataDir: dir, Log: log})
	return server, trace.Wrap(err)
}

func (t *tctl) findDataDir() (string, error) {
	switch {
	case t.configFileSet && t.dataDirSet:
		return "", usageError{trace.BadParameter("--config and --data-dir both name the folder of the cluster: give one of them")}
	case t.dataDirSet:
		if t.dataDir == "" {
			return "", usageError{trace.BadParameter("--data-dir is empty: give the folder of the cluster")}
		}
		return t.dataDir, nil
	case t.configFileSet:
		if t.configFile == "" {
			return "", usageError{trace.BadParameter("--config is empty: give a configuration file of teleport")}
		}
		return dataDirOf(t.configFile)
	}
	if _, err := os.Lstat(t.defaultConfig); errors.Is(err, fs.ErrNotExist) {
		return config.DefaultDataDir, nil
	}
	return dataDirOf(t.defaultConfig)
}

func dataDirOf(file string) (string, error) {
	cfg, err := config.ReadFile(file)
	if err != nil {
		return "", trace.Wrap(err)
	}
	return cfg.DataDir, nil
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
	var b strings.Builder
	for _, r := range strings.Join(lines, ": ") {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
