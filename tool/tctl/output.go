// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How tctl shows what it has found: as a table for people, and as JSON or YAML
// for programs.

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/alecthomas/kingpin/v2"
	"github.com/goccy/go-yaml"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/cli"
)

const (
	formatText = "text"
	formatJSON = "json"
	formatYAML = "yaml"
)

// addFormat gives a command --format.
func addFormat(clause *kingpin.CmdClause, format *string) {
	cli.OneOf(clause.Flag("format", "How it is printed: text, json or yaml.").Default(formatText), format, formatText, formatJSON, formatYAML)
}

// show prints value in JSON or YAML, or else what text returns.
func (t *tctl) show(format string, value any, text func() string) error {
	switch format {
	case formatJSON:
		out, err := toJSON(value)
		if err != nil {
			return trace.Wrap(err)
		}
		return t.print(out)
	case formatYAML:
		out, err := toYAML(value)
		if err != nil {
			return trace.Wrap(err)
		}
		return t.print(out)
	}
	return t.print(text())
}

// toJSON writes a list without elements as one, and not as null, which a program
// that goes through a list would stumble over.
func toJSON(value any) (string, error) {
	if list := reflect.ValueOf(value); list.Kind() == reflect.Slice && list.IsNil() {
		value = []struct{}{}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	if err := encoder.Encode(value); err != nil {
		return "", trace.Wrap(err)
	}
	return b.String(), nil
}

// toYAML goes through JSON, whose names the resources have.
func toYAML(value any) (string, error) {
	text, err := toJSON(value)
	if err != nil {
		return "", trace.Wrap(err)
	}
	out, err := yaml.JSONToYAML([]byte(text))
	if err != nil {
		return "", trace.Wrap(err)
	}
	return string(out), nil
}

// table is rows below a head, in columns.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for i, cell := range cells {
			if i > 0 {
				_, _ = w.Write([]byte{'\t'})
			}
			_, _ = w.Write([]byte(printable(cell)))
		}
		_, _ = w.Write([]byte{'\n'})
	}
	line(head)
	under := make([]string, len(head))
	for i, title := range head {
		under[i] = strings.Repeat("-", len(title))
	}
	line(under)
	for _, row := range rows {
		line(row)
	}
	_ = w.Flush() // into memory
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(line, " \n")+"\n")
	}
	return strings.Join(lines, "")
}

// printable shows what could move the cursor or end a line as its code.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// labels are "key=value" in the order of the keys.
func labels(set map[string]string) string {
	var pairs []string
	for key, value := range set {
		pairs = append(pairs, key+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// parseLabels reads "key=value,key=value".
func parseLabels(text string) (map[string]string, error) {
	set := map[string]string{}
	for _, pair := range splitList([]string{text}) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usageError{trace.BadParameter("%q is no label: give key=value, with commas between several", pair)}
		}
		set[key] = value
	}
	return set, nil
}

// splitList takes a,b as well as several flags; what is empty is left out.
func splitList(lists []string) []string {
	var all []string
	for _, list := range lists {
		for _, word := range strings.Split(list, ",") {
			if word = strings.TrimSpace(word); word != "" {
				all = append(all, word)
			}
		}
	}
	return all
}

// spoken is a time that lasts as people say it: 1h, 30m, 1h30m.
func spoken(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// when is a time as tables have it.
func when(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format(time.RFC3339)
}

// parseTTL takes a duration of one second or more.
func parseTTL(flag, text string) (time.Duration, error) {
	ttl, err := time.ParseDuration(text)
	if err != nil || ttl < time.Second {
		return 0, usageError{trace.BadParameter("--%s=%q is no duration of a second or more: give one such as 90m or 12h", flag, text)}
	}
	return ttl, nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
