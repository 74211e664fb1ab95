// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command teleport is the daemon: SSH nodes and proxies that tell the Linux
// audit system of every login.
//
//	teleport start                    run auth, proxy and node on this host
//	teleport start -c teleport.yaml   run what the file says
//	teleport start --roles=node --auth-server=HOST:PORT --token=TOKEN --ca-pin=PIN
//	                                  join the cluster of another host
//	teleport configure                print a commented file
//	teleport configure --test FILE    check a file
//	teleport version
//
// It exits with 0 when it was told to end, with 2 when it was called wrongly,
// and else with 1. An error is one line on stderr.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"

	"teleport-auditd/lib/config"
	"teleport-auditd/lib/service"
	"teleport-auditd/lib/version"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	// It is gRPC's own state, and would write lines of its own to standard error.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// word is a flag's value that must not be empty: an unset shell variable must
// not start the daemon on other settings than those asked for.
type word struct{ text *string }

func (w word) Set(text string) error {
	if text == "" {
		return errors.New("a flag's value is empty")
	}
	*w.text = text
	return nil
}

func (w word) String() string { return *w.text }

// words is a flag that may be given several times.
type words struct{ texts *[]string }

func (w words) Set(text string) error {
	if text == "" {
		return errors.New("a flag's value is empty")
	}
	*w.texts = append(*w.texts, text)
	return nil
}

func (w words) String() string { return strings.Join(*w.texts, ",") }

// IsCumulative tells kingpin that it may be repeated.
func (w words) IsCumulative() bool { return true }

// startFlags are those of teleport start. Empty ones leave the file's values.
type startFlags struct {
	config, roles, nodeName, dataDir, pidFile, token, proxyServer string
	authServers, pins                                             []string
	debug                                                         bool
}

func run(args []string, stdout, stderr io.Writer) int {
	app := kingpin.New("teleport", "SSH nodes and proxies that tell the Linux audit system of every login.")
	app.UsageWriter(stdout)
	app.ErrorWriter(stderr)

	var flags startFlags
	start := app.Command("start", "Run the daemon.")
	start.Flag("config", "Configuration file. Without it "+config.DefaultPath+" is read where it exists, and else auth, proxy and node run on the defaults.").Short('c').PlaceHolder("FILE").SetValue(word{&flags.config})
	start.Flag("roles", "Roles to run, whatever the file enables: auth, proxy, node, with commas between them.").PlaceHolder("LIST").SetValue(word{&flags.roles})
	start.Flag("nodename", "This host's name in the cluster. The default is the host's own.").PlaceHolder("NAME").SetValue(word{&flags.nodeName})
	start.Flag("data-dir", "Folder for certificate authorities and host keys. The default is "+config.DefaultDataDir+".").PlaceHolder("FOLDER").SetValue(word{&flags.dataDir})
	start.Flag("token", "Token to join a cluster with, or a file of it. tctl tokens add makes one.").PlaceHolder("TOKEN").SetValue(word{&flags.token})
	start.Flag("auth-server", "Auth server of the cluster to join. It may be repeated, for several.").PlaceHolder("HOST:PORT").SetValue(words{&flags.authServers})
	start.Flag("proxy-server", "Proxy to join through and to dial out to, instead of an auth server: its HTTPS.").PlaceHolder("HOST:PORT").SetValue(word{&flags.proxyServer})
	start.Flag("ca-pin", "Pin of the authority of the cluster to join. It may be repeated: any may match.").PlaceHolder("PIN").SetValue(words{&flags.pins})
	start.Flag("pid-file", "File to write the process id to.").PlaceHolder("FILE").SetValue(word{&flags.pidFile})
	start.Flag("debug", "Log more, with the stacks of errors.").Short('d').BoolVar(&flags.debug)

	var sampleOf config.Config
	var test string
	configure := app.Command("configure", "Print a commented configuration file, or check one.")
	configure.Flag("test", "Check this file instead, and say what is wrong with it.").PlaceHolder("FILE").SetValue(word{&test})
	configure.Flag("nodename", "This host's name in the printed file.").PlaceHolder("NAME").SetValue(word{&sampleOf.NodeName})
	configure.Flag("data-dir", "Data directory in the printed file.").PlaceHolder("FOLDER").SetValue(word{&sampleOf.DataDir})
	configure.Flag("cluster-name", "Cluster's name in the printed file.").PlaceHolder("NAME").SetValue(word{&sampleOf.Auth.ClusterName})

	ver := app.Command("version", "Print the version.")

	if len(args) == 0 {
		fmt.Fprintln(stderr, "ERROR: a command is missing: start, configure or version. See: teleport help")
		return exitUsage
	}
	command, err := app.Parse(args)
	if err == nil && flags.roles != "" {
		err = config.Default().SetRoles(flags.roles)
	}
	if err == nil && test != "" && (sampleOf.NodeName != "" || sampleOf.DataDir != "" || sampleOf.Auth.ClusterName != "") {
		err = errors.New("--test checks a file as it is, so leave the other flags out")
	}
	if err != nil {
		fmt.Fprintf(stderr, "ERROR: %s. See: teleport help\n", service.OneLine(err))
		return exitUsage
	}
	switch command {
	case start.FullCommand():
		err = runStart(flags)
	case configure.FullCommand():
		err = runConfigure(stdout, test, sampleOf)
	case ver.FullCommand():
		_, err = fmt.Fprintln(stdout, version.Line())
	}
	if err != nil {
		fmt.Fprintf(stderr, "ERROR: %s\n", service.OneLine(err))
		return exitFailure
	}
	return 0
}

func runStart(flags startFlags) error {
	settings, err := readSettings(flags)
	if err != nil {
		logStack(flags.debug, config.Default().Log, err)
		return trace.Wrap(err)
	}
	log, err := service.OpenLog(settings.Log)
	if err != nil {
		logStack(flags.debug, config.Default().Log, err)
		return trace.Wrap(err)
	}
	if os.Getenv("GOGC") == "" {
		paceCollections()
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, service.Signals()...)
	err = service.Run(context.Background(), service.Config{Settings: settings, Log: log, ReopenLog: log.Reopen}, signals)
	if err != nil && settings.Log.Output != "stderr" {
		// The line on stderr is the caller's; whoever reads the log alone must
		// find it too.
		log.Errorf("Teleport has ended: %s", service.OneLine(err))
	}
	if err != nil {
		log.Debugf("Stack of the error: %s", trace.DebugReport(err))
	}
	return trace.Wrap(err)
}

// logStack is for errors that come before the log of the settings is open.
func logStack(debug bool, to config.Log, err error) {
	if !debug {
		return
	}
	to.Severity = logrus.DebugLevel
	if log, openErr := service.OpenLog(to); openErr == nil {
		log.Debugf("Stack of the error: %s", trace.DebugReport(err))
	}
}

// readSettings puts the flags over the file, and the file over the defaults.
func readSettings(flags startFlags) (*config.Config, error) {
	settings := config.Default()
	path := flags.config
	if path == "" {
		if _, err := os.Stat(config.DefaultPath); !errors.Is(err, fs.ErrNotExist) {
			path = config.DefaultPath
		}
	}
	if path != "" {
		var err error
		if settings, err = config.ReadFile(path); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	for field, flag := range map[*string]string{
		&settings.NodeName:  flags.nodeName,
		&settings.DataDir:   flags.dataDir,
		&settings.PIDFile:   flags.pidFile,
		&settings.AuthToken: flags.token,
	} {
		if flag != "" {
			*field = flag
		}
	}
	// Either flag replaces what the file says of both; both flags are refused below.
	if len(flags.authServers) > 0 || flags.proxyServer != "" {
		settings.AuthServers, settings.ProxyServer = flags.authServers, flags.proxyServer
	}
	if len(flags.pins) > 0 {
		settings.CAPins = flags.pins
	}
	if flags.roles != "" {
		if err := settings.SetRoles(flags.roles); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	settings.Debug = flags.debug
	return settings, trace.Wrap(settings.CheckAndSetDefaults())
}

// runConfigure prints the defaults with what sampleOf has of its own, or checks
// the file test.
func runConfigure(stdout io.Writer, test string, sampleOf config.Config) error {
	if test != "" {
		settings, err := config.ReadFile(test)
		if err != nil {
			return trace.Wrap(err)
		}
		if err := settings.CheckAndSetDefaults(); err != nil {
			return trace.Wrap(err)
		}
		_, err = fmt.Fprintf(stdout, "%s is in order.\n", test)
		return trace.Wrap(err)
	}
	settings := config.Default()
	settings.NodeName = sampleOf.NodeName
	if sampleOf.DataDir != "" {
		settings.DataDir = sampleOf.DataDir
	}
	if sampleOf.Auth.ClusterName != "" {
		settings.Auth.ClusterName = sampleOf.Auth.ClusterName
	}
	if err := settings.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	_, err := io.WriteString(stdout, config.Sample(settings))
	return trace.Wrap(err)
}
