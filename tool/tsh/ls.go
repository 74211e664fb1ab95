// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tsh ls.

package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"
	"github.com/goccy/go-yaml"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/cli"
	"teleport-auditd/lib/client"
)

type lsCommand struct {
	clause         *kingpin.CmdClause
	format, search string
	verbose        bool
	labels         []string
}

func newLsCommand(app *kingpin.Application) *lsCommand {
	c := &lsCommand{clause: app.Command("ls", "List the nodes that you may reach.")}
	cli.OneOf(c.clause.Flag("format", "text, json, yaml or names.").Short('f').Default("text"), &c.format, "text", "json", "yaml", "names")
	c.clause.Flag("verbose", "Show the UUIDs, too.").Short('v').BoolVar(&c.verbose)
	c.clause.Flag("search", "Words that a node has in its name or its labels, with commas between them.").PlaceHolder("WORD,...").StringVar(&c.search)
	c.clause.Arg("labels", "Labels that a node has: key=value, with commas or spaces between them.").StringsVar(&c.labels)
	return c
}

func (c *lsCommand) clauseName() string { return c.clause.FullCommand() }

func (c *lsCommand) run(ctx context.Context, t *tsh) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	labels, err := client.ParseLabels(c.labels)
	if err != nil {
		return usageError{err}
	}
	filter := client.NodeFilter{Labels: labels}
	for word := range strings.SplitSeq(c.search, ",") {
		if word = strings.TrimSpace(word); word != "" {
			filter.Search = append(filter.Search, word)
		}
	}
	p, err := t.profile()
	if err != nil {
		return trace.Wrap(err)
	}
	nodes, err := client.ListNodes(ctx, p, filter)
	if err != nil {
		return trace.Wrap(err)
	}
	text, err := formatNodes(nodes, c.format, c.verbose)
	if err != nil {
		return trace.Wrap(err)
	}
	return t.print(text)
}

func formatNodes(nodes []types.Server, format string, verbose bool) (string, error) {
	switch format {
	case "names":
		var b strings.Builder
		for _, node := range nodes {
			b.WriteString(client.Clean(node.GetHostname()) + "\n")
		}
		return b.String(), nil
	case "json", "yaml":
		if nodes == nil {
			nodes = []types.Server{}
		}
		return formatValue(nodes, format)
	}
	titles := []string{"Node Name", "Address", "Labels"}
	if verbose {
		titles = slices.Insert(titles, 1, "Node ID")
	}
	rows := [][]string{titles}
	for _, node := range nodes {
		address := node.GetAddr()
		if node.GetUseTunnel() {
			address = "tunnel"
		}
		row := []string{client.Clean(node.GetHostname()), client.Clean(address), client.Clean(client.NodeLabels(node))}
		if verbose {
			row = slices.Insert(row, 1, client.Clean(node.GetName()))
		}
		rows = append(rows, row)
	}
	return table(rows), nil
}

// formatValue is value for programs. JSON escapes control characters, and so does
// YAML that is made of it.
func formatValue(value any, format string) (string, error) {
	text, err := json.MarshalIndent(value, "", "    ")
	if err != nil {
		return "", trace.Wrap(err)
	}
	if format == "json" {
		return string(text) + "\n", nil
	}
	text, err = yaml.JSONToYAML(text)
	return string(text), trace.Wrap(err)
}

// table lays out rows, the first of which are titles, with dashes below them.
func table(rows [][]string) string {
	dashes := make([]string, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			dashes[i] = strings.Repeat("-", max(len(dashes[i]), utf8.RuneCountInString(cell)))
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for i, row := range rows {
		_, _ = w.Write([]byte(strings.Join(row, "\t") + "\n")) // to memory
		if i == 0 {
			_, _ = w.Write([]byte(strings.Join(dashes, "\t") + "\n"))
		}
	}
	_ = w.Flush()
	return b.String()
}
