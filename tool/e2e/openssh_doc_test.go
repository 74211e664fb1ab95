// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// line is one record as docs/openssh.md shows it: nothing in it changes from one
// run to the next. An empty field is absent.
type line struct {
	// record is the type, or command for what a user's command found itself.
	record, op, acct, id string
	// auid is a login, ses a letter for each session, process a number for each
	// process, in the order of appearance.
	auid, ses, process      string
	hostname, terminal, res string
	// more is what only our records say.
	more string
}

const commandLine = "(command)"

func (l *line) fields() []*string {
	return []*string{&l.record, &l.op, &l.acct, &l.id, &l.auid, &l.ses, &l.process, &l.hostname, &l.terminal, &l.res, &l.more}
}

var columns = []string{"record", "op", "acct", "id", "auid", "ses", "process", "hostname", "terminal", "res", ""}

var somePTS = regexp.MustCompile(`^/dev/pts/\d+$`)

// lines makes records comparable, and puts what the commands found behind them.
func (p *pair) lines(records []harness.Record, logins [][2]string) []line {
	name := func(s string) string {
		if known, ok := p.names[s]; ok {
			return known
		}
		return s
	}
	sessions, processes := map[string]string{}, map[string]string{}
	session := func(id string) string {
		if id == harness.Unset {
			return "unset"
		}
		if sessions[id] == "" {
			sessions[id] = string(rune('A' + len(sessions)))
		}
		return sessions[id]
	}
	process := func(pid string) string {
		if processes[pid] == "" {
			processes[pid] = fmt.Sprint(len(processes) + 1)
		}
		return processes[pid]
	}
	var lines []line
	for _, r := range userRecords(records) {
		l := line{
			record: r.Type, op: r.Get("op"), acct: name(r.Get("acct")), id: name(r.Get("id")),
			auid: name(r.Kernel["auid"]), ses: session(r.Kernel["ses"]), process: process(r.Kernel["pid"]),
			hostname: r.Get("hostname"), terminal: somePTS.ReplaceAllString(r.Get("terminal"), "/dev/pts/N"), res: r.Get("res"),
		}
		if r.Type == "LOGIN" {
			l.res = r.Kernel["res"]
		}
		var more []string
		for _, extra := range []string{"teleportUser", "reason"} {
			if value := r.Get(extra); value != "" {
				more = append(more, extra+"="+value)
			}
		}
		l.more = strings.Join(more, " ")
		lines = append(lines, l)
	}
	for _, login := range logins {
		lines = append(lines, line{record: commandLine, auid: name(login[0]), ses: session(login[1])})
	}
	return lines
}

// recordTable prints records, each with the server's name before it.
func recordTable(server string, lines []line) string {
	return recordTables([]string{server}, lines)
}

func recordTables(servers []string, sets ...[]line) string {
	var b bytes.Buffer
	out := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\t"+strings.Join(columns, "\t"))
	for i, set := range sets {
		if len(set) == 0 {
			fmt.Fprintf(out, "%s\t(nothing)\n", servers[i])
		}
		for _, l := range set {
			words := []string{servers[i]}
			for _, field := range l.fields() {
				words = append(words, *field)
				if *field == "" && field != &l.more {
					words[len(words)-1] = "-"
				}
			}
			fmt.Fprintln(out, strings.Join(words, "\t"))
		}
	}
	_ = out.Flush()
	return regexp.MustCompile(`(?m) +$`).ReplaceAllString(b.String(), "")
}

var gap = regexp.MustCompile(` {2,}`)

// readTables is the way back from recordTables.
func readTables(text string) map[string][]line {
	sets := map[string][]line{}
	for row := range strings.Lines(text) {
		words := gap.Split(strings.TrimSpace(row), -1)
		if len(words) < len(columns)-1 || strings.HasPrefix(row, " ") {
			continue
		}
		var l line
		for i, field := range l.fields() {
			if i+1 < len(words) && words[i+1] != "-" {
				*field = words[i+1]
			}
		}
		sets[words[0]] = append(sets[words[0]], l)
	}
	return sets
}

const (
	theirName = "sshd"
	ourName   = "teleport"
)

// scenarioText is a scenario's part of the document.
func scenarioText(s scenario, theirs, ours []line) string {
	var b strings.Builder
	fmt.Fprintf(&b, "```\n%s```\n\n", recordTables([]string{theirName, ourName}, theirs, ours))
	same := 0
	rest := slices.Clone(ours)
	for _, l := range theirs {
		if i := slices.Index(rest, l); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
			same++
		}
	}
	fmt.Fprintf(&b, "Alike: %d of sshd's %d. The differences:\n\n", same, len(theirs))
	for _, d := range s.differences {
		fmt.Fprintf(&b, "- [%s](#the-differences): %s\n", d.name, d.right)
	}
	return b.String()
}

// differencesText is the table of the differences, in the order of their first
// use.
func differencesText() string {
	var b strings.Builder
	b.WriteString("| difference | right | why |\n| --- | --- | --- |\n")
	seen := map[string]bool{}
	for _, mode := range parityModes() {
		for _, s := range mode.scenarios {
			for _, d := range s.differences {
				if !seen[d.name] {
					fmt.Fprintf(&b, "| %s | %s | %s |\n", d.name, d.right, d.why)
				}
				seen[d.name] = true
			}
		}
	}
	return b.String()
}

// hostLine says what the records were printed on.
func hostLine(t *testing.T) string {
	t.Helper()
	ssh, err := exec.Command("ssh", "-V").CombinedOutput()
	require.NoError(t, err)
	version, _, _ := strings.Cut(string(ssh), " ")
	return "Recorded beside `" + version + "`.\n"
}

// document is docs/openssh.md, of which parts are written by tests:
//
//	<!-- NAME -->
//	...
//	<!-- end -->
type document struct {
	path, text string
	update     bool
	// foreign says that another sshd than the document's runs here.
	foreign bool
}

func openDocument(t *testing.T) *document {
	t.Helper()
	root, err := harness.ModuleRoot()
	require.NoError(t, err)
	path := filepath.Join(root, "docs", "openssh.md")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return &document{path: path, text: string(text), update: os.Getenv("E2E_UPDATE") == "1"}
}

// part finds a part.
func (d *document) part(t *testing.T, name string) (from, to int) {
	t.Helper()
	mark := "<!-- " + name + " -->\n"
	require.Equal(t, 1, strings.Count(d.text, mark), "docs/openssh.md has one part %q", name)
	from = strings.Index(d.text, mark) + len(mark)
	end := strings.Index(d.text[from:], "<!-- end -->\n")
	require.GreaterOrEqual(t, end, 0, "the part %q ends", name)
	return from, from + end
}

// lines reads the records of a part.
func (d *document) lines(t *testing.T, name string) map[string][]line {
	t.Helper()
	from, to := d.part(t, name)
	return readTables(d.text[from:to])
}

// check compares a part with what was seen now, or writes that.
func (d *document) check(t *testing.T, name, now string) {
	t.Helper()
	from, to := d.part(t, name)
	switch {
	case d.update:
		d.text = d.text[:from] + now + d.text[to:]
	case name == "host":
		if d.foreign = now != d.text[from:to]; d.foreign {
			t.Logf("docs/openssh.md shows another sshd, so what it says of sshd is not tested here, and our records alone are:\n%s%s", d.text[from:to], now)
		}
	default:
		assert.Equal(t, d.text[from:to], now, "docs/openssh.md, %s", name)
	}
}

// close writes the document where that was asked for.
func (d *document) close(t *testing.T) {
	t.Helper()
	if d.update && !t.Failed() {
		d.check(t, "differences", differencesText())
		require.NoError(t, os.WriteFile(d.path, []byte(d.text), 0o644))
	}
}

// TestOpenSSHDocument reads docs/openssh.md without a kernel to ask: each
// scenario is there, and the differences that it claims make our records of
// sshd's.
func TestOpenSSHDocument(t *testing.T) {
	d := openDocument(t)
	d.update = false
	d.check(t, "differences", differencesText())
	parts := 2
	for _, mode := range parityModes() {
		for _, s := range mode.scenarios {
			t.Run(mode.part(s), func(t *testing.T) {
				from, to := d.part(t, mode.part(s))
				sets := d.lines(t, mode.part(s))
				theirs, ours := sets[theirName], sets[ourName]
				require.NotEmpty(t, append(theirs, ours...))
				assert.Equal(t, recordTable(ourName, apply(t, s.differences, theirs)), recordTable(ourName, ours))
				assert.Equal(t, scenarioText(s, theirs, ours), d.text[from:to])
			})
			parts++
		}
	}
	assert.Equal(t, parts, strings.Count(d.text, "<!-- end -->\n"), "no part is left that nobody writes")
}
