// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"os/exec"
	"path/filepath"
	"time"

	"teleport-auditd/tool/e2e/harness"
)

// startSession measures the start of teleport-session, from fork to exit,
// beside an empty Go program with cgo. Started by hand it says so and ends,
// which is the first thing that it can do.
func startSession(s subject, programs harness.Programs) {
	empty := filepath.Join(harness.OpenDir(s), "empty")
	harness.Output(s, "go", "build", "-o", empty, "./testdata/empty")
	// Both programs are read from disk once.
	lifetime(s, programs.Session, 2)
	lifetime(s, empty, 0)
	var ours, theirs []float64
	for s.Loop() {
		ours = append(ours, lifetime(s, programs.Session, 2))
		theirs = append(theirs, lifetime(s, empty, 0))
	}
	mine, other := median(ours), median(theirs)
	s.ReportMetric(mine, "ns/op")
	s.ReportMetric(other, "empty-ns/op")
	s.ReportMetric(mine-other, "ns-more")
	s.ReportMetric(mine/other, "x-empty")
	s.table.differ("start of teleport-session (rival: empty Go program)", "ms", mine/1e6, other/1e6, limit{most: 4})
}

// lifetime returns how many nanoseconds a program ran, from fork to exit.
func lifetime(s subject, path string, code int) float64 {
	s.Helper()
	cmd := exec.Command(path)
	// As the daemon starts it.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.Fatalf("%s ended with %d, not %d", path, got, code)
	}
	return float64(took)
}
