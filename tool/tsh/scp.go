// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tsh scp.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"
	"golang.org/x/term"

	"teleport-auditd/lib/cli"
	"teleport-auditd/lib/client"
)

// progressInterval is how often a terminal is told how far a file is.
const progressInterval = 200 * time.Millisecond

type scpCommand struct {
	clause                     *kingpin.CmdClause
	recursive, preserve, quiet bool
	port                       int
	paths                      []string
}

func newScpCommand(app *kingpin.Application) *scpCommand {
	c := &scpCommand{clause: app.Command("scp", "Copy files to, from and between nodes.")}
	c.clause.Flag("recursive", "Copy folders.").Short('r').BoolVar(&c.recursive)
	c.clause.Flag("preserve", "Keep modes and times.").Short('p').BoolVar(&c.preserve)
	cli.Number(c.clause.Flag("port", "Port that the nodes registered. Without it, whichever that is.").Short('P').PlaceHolder("PORT"), &c.port, "a port", 0, maxPort)
	c.clause.Flag("quiet", "Show no progress.").Short('q').BoolVar(&c.quiet)
	c.clause.Arg("from, to", "Files, and last where to: [[LOGIN@]NODE:]PATH.").Required().StringsVar(&c.paths)
	return c
}

func (c *scpCommand) clauseName() string { return c.clause.FullCommand() }

func (c *scpCommand) run(ctx context.Context, t *tsh) (err error) {
	ctx, stop := interruptible(ctx)
	defer stop()
	if len(c.paths) < 2 {
		return usageError{trace.BadParameter("scp needs what to copy and where to: tsh scp FROM... TO")}
	}
	var locations []client.Location
	remote := false
	for _, text := range c.paths {
		location, err := client.ParseLocation(text)
		if err != nil {
			return usageError{err}
		}
		locations = append(locations, location)
		remote = remote || location.Host != ""
	}
	if !remote {
		return usageError{trace.BadParameter("none of the files is at a node: name one as [LOGIN@]NODE:PATH")}
	}
	p, err := t.profile()
	if err != nil {
		return trace.Wrap(err)
	}
	conn, err := client.Dial(ctx, client.DialConfig{Profile: p, Clock: t.clock, Banner: t.stderr, Refresh: t.refresh(p)})
	if err != nil {
		return trace.Wrap(err)
	}
	defer conn.Close()

	// One login for each node, however many files are there.
	type place struct{ login, host string }
	sides := make(map[place]client.Side)
	side := func(location client.Location) (client.Side, error) {
		if location.Host == "" {
			return client.LocalSide{}, nil
		}
		key := place{location.Login, location.Host}
		if open, ok := sides[key]; ok {
			return open, nil
		}
		login := location.Login
		if login == "" {
			if login, err = defaultLogin(p); err != nil {
				return nil, trace.Wrap(err)
			}
		}
		node, err := conn.DialNode(ctx, client.NodeAddr{Login: login, Host: location.Host, Port: c.port})
		if err != nil {
			return nil, trace.Wrap(err)
		}
		files, err := client.OpenFiles(node, location.Host)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		sides[key] = files
		return files, nil
	}
	var sources []client.Source
	for _, location := range locations[:len(locations)-1] {
		from, err := side(location)
		if err != nil {
			return trace.Wrap(err)
		}
		sources = append(sources, client.Source{Side: from, Name: location.Path})
	}
	target := locations[len(locations)-1]
	to, err := side(target)
	if err != nil {
		return trace.Wrap(err)
	}
	// A copy that waits for a node that says nothing is interrupted here.
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer end()
	// The line that names the file has been said, where there is one file.
	said := 0
	copier := client.Copier{
		Recursive: c.recursive,
		Preserve:  c.preserve,
		Problem: func(err error) {
			said++
			t.say("ERROR: %s", oneLine(trace.UserMessage(err)))
		},
		Progress: t.progress(c.quiet),
	}
	err = copier.Copy(ctx, sources, to, target.Path)
	if said == 1 && err != nil && !errors.Is(err, context.Canceled) {
		return silentError{err}
	}
	return trace.Wrap(err)
}

// progress shows how far a file is, on a terminal.
func (t *tsh) progress(quiet bool) func(name string, copied, size int64, done bool) {
	file, ok := t.stdout.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	var last time.Time
	return func(name string, copied, size int64, done bool) {
		now := t.clock.Now()
		if !done && now.Sub(last) < progressInterval {
			return
		}
		last = now
		percent := int64(100)
		if size > 0 && !done {
			percent = min(100, copied*100/size)
		}
		ending := ""
		if done {
			ending = "\n"
		}
		_, _ = io.WriteString(file, fmt.Sprintf("\r%-40s %3d%% %14d%s", client.Clean(path.Base(name)), percent, copied, ending))
	}
}
