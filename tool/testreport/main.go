// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command testreport reads what `go test -json` says and prints what a person
// wants of it: each package's result, all of a failed test's output, and at the
// end every test that was skipped, with its reason.
//
//	go test -json ./... | testreport
//
// It exits with 1 when a test or a build has failed.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

func main() {
	failed, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "ERROR: %v\n", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// event is one of test2json's (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
}

type testName struct{ pkg, test string }

type skipped struct {
	testName
	reason string
}

// report prints as the events come, and says whether anything has failed.
func report(from io.Reader, to io.Writer) (failed bool, err error) {
	output := map[testName][]string{}
	var skips []skipped
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// The go command's own words, such as a missing module.
				fmt.Fprintf(to, "%s", line)
				continue
			}
			name := testName{e.Package, e.Test}
			switch e.Action {
			case "build-output":
				fmt.Fprint(to, e.Output)
			case "build-fail":
				failed = true
			case "output":
				output[name] = append(output[name], e.Output)
			case "skip":
				if e.Test != "" {
					skips = append(skips, skipped{name, reason(output[name])})
				}
				delete(output, name)
			case "pass":
				if e.Test == "" {
					fmt.Fprint(to, result(output[name]))
				}
				delete(output, name)
			case "fail":
				failed = true
				fmt.Fprint(to, strings.Join(output[name], ""))
				delete(output, name)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return failed, fmt.Errorf("reading the tests' events: %w", err)
		}
	}
	// A test that never ended, as in a timeout, has only said what it was at.
	for _, name := range slices.SortedFunc(maps.Keys(output), compare) {
		if name.test != "" && failed {
			fmt.Fprint(to, strings.Join(output[name], ""))
		}
	}
	printSkips(to, skips)
	return failed, nil
}

// printSkips names each reason once, with all tests that it kept from running.
func printSkips(to io.Writer, skips []skipped) {
	if len(skips) == 0 {
		return
	}
	var reasons []string
	tests := map[string][]string{}
	for _, s := range skips {
		if tests[s.reason] == nil {
			reasons = append(reasons, s.reason)
		}
		tests[s.reason] = append(tests[s.reason], path.Base(s.pkg)+"."+s.test)
	}
	fmt.Fprintf(to, "\nSkipped, %d in all:\n", len(skips))
	for _, reason := range reasons {
		fmt.Fprintf(to, "- %s\n  %s\n", reason, strings.Join(tests[reason], ", "))
	}
}

func compare(a, b testName) int {
	return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
}

// result is a package's one line, "ok" with the time it took.
func result(output []string) string {
	for _, line := range slices.Backward(output) {
		if strings.HasPrefix(line, "ok ") {
			return line
		}
	}
	return ""
}

// reason is what the test gave to t.Skip: the last of its messages, which each
// stand after "file.go:12: " and may go on for lines. What testscript.go tells is
// the record of a script, which comes after the script's own message.
func reason(output []string) string {
	var messages []string
	record := false
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		place, text, found := strings.Cut(line, ": ")
		switch {
		case found && strings.Contains(place, ".go:") && !strings.Contains(place, " "):
			if record = strings.HasPrefix(place, "testscript.go:"); !record {
				messages = append(messages, text)
			}
		case len(messages) > 0 && !record:
			messages[len(messages)-1] += " " + line
		}
	}
	if len(messages) == 0 {
		return "no reason given"
	}
	return messages[len(messages)-1]
}
