// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// row is one line of the table.
type row struct {
	name, ours, rival, ratio, budget, met string
}

// none stands in a column that has nothing to say.
const none = "-"

// table collects what the benchmarks found.
type table struct {
	rows    []row
	skipped []string
	load    string
}

// print writes the table, or nothing where nothing was measured.
func (t *table) print(w io.Writer) {
	if len(t.rows)+len(t.skipped) == 0 {
		return
	}
	fmt.Fprintln(w)
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "name\tours\trival\tratio\tbudget\tmet?")
	for _, r := range t.rows {
		fmt.Fprintln(out, strings.Join([]string{r.name, r.ours, r.rival, r.ratio, r.budget, r.met}, "\t"))
	}
	_ = out.Flush()
	for _, s := range t.skipped {
		fmt.Fprintln(w, "NOT MEASURED:", s)
	}
	fmt.Fprintf(w, "load average before: %s; after: %s\n\n", t.load, loadAverage())
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if words := strings.Fields(string(text)); err == nil && len(words) >= 3 {
		return strings.Join(words[:3], " ")
	}
	return "unknown"
}

// limit is a budget. The zero limit is none.
type limit struct {
	most, least float64
}

func (l limit) text(unit string) string {
	switch {
	case l.most != 0:
		return fmt.Sprintf("at most %g%s", l.most, unit)
	case l.least != 0:
		return fmt.Sprintf("at least %g%s", l.least, unit)
	}
	return none
}

func (l limit) met(value float64) string {
	switch {
	case l == limit{}:
		return none
	case l.most != 0 && value > l.most, l.least != 0 && value < l.least:
		return "NO"
	}
	return "yes"
}

// compare adds a row whose budget is about ours over rival.
func (t *table) compare(name, unit string, ours, rival float64, budget limit) {
	ratio := ours / rival
	t.rows = append(t.rows, row{name, value(ours, unit), value(rival, unit), fmt.Sprintf("%.2f", ratio), budget.text(""), budget.met(ratio)})
}

// differ adds a row whose budget is about ours less rival.
func (t *table) differ(name, unit string, ours, rival float64, budget limit) {
	more := ours - rival
	t.rows = append(t.rows, row{name, value(ours, unit), value(rival, unit), fmt.Sprintf("%+.2f %s", more, unit), budget.text(" " + unit + " more"), budget.met(more)})
}

// alone adds a row without a rival.
func (t *table) alone(name, unit string, ours float64, budget limit) {
	t.rows = append(t.rows, row{name, value(ours, unit), none, none, budget.text(" " + unit), budget.met(ours)})
}

func value(v float64, unit string) string { return fmt.Sprintf("%.2f %s", v, unit) }

// subject is a running benchmark that says in the table why it was skipped: go
// test hides that.
type subject struct {
	*testing.B
	table *table
}

// Skipf is what package harness skips with.
func (s subject) Skipf(format string, args ...any) {
	s.Helper()
	s.table.skipped = append(s.table.skipped, s.Name()+": "+fmt.Sprintf(format, args...))
	s.B.Skipf(format, args...)
}

// run is testing.B's Run.
func (s subject) run(name string, f func(subject)) {
	s.Run(name, func(b *testing.B) { f(subject{b, s.table}) })
}

// median returns the value in the middle.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
