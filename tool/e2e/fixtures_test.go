// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic/go-libaudit/v2/aucoalesce"
	"github.com/elastic/go-libaudit/v2/auparse"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/testhost"
	"teleport-auditd/tool/e2e/harness"
)

// keep writes records to the fixtures when E2E_UPDATE=1 asks for it, with the
// readings of two independent parsers beside them.
func keep(t *testing.T, name string, records []harness.Record) {
	t.Helper()
	if os.Getenv("E2E_UPDATE") != "1" || t.Failed() {
		return
	}
	var log bytes.Buffer
	for _, r := range records {
		log.WriteString(r.Raw + "\n")
	}
	path := filepath.Join(recordsDir(t), name+".log")
	require.NoError(t, os.WriteFile(path, log.Bytes(), 0o644))
	require.NoError(t, os.WriteFile(golden(path, ".csv"), []byte(readWithAusearch(t, path)), 0o644))
	require.NoError(t, os.WriteFile(golden(path, ".json"), []byte(readWithLibaudit(t, path)), 0o644))
}

func recordsDir(t *testing.T) string {
	t.Helper()
	root, err := harness.ModuleRoot()
	require.NoError(t, err)
	return filepath.Join(root, "fixtures", "records")
}

func golden(log, ext string) string { return strings.TrimSuffix(log, ".log") + ext }

func readWithAusearch(t *testing.T, log string) string {
	t.Helper()
	return harness.Tool(t, "ausearch", "--format", "csv", "-if", log)
}

// readWithLibaudit reads a log as a collector built on go-libaudit does: parse
// each line, join the lines of one event.
func readWithLibaudit(t *testing.T, log string) string {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	var out bytes.Buffer
	var event []*auparse.AuditMessage
	flush := func() {
		if len(event) == 0 {
			return
		}
		joined, err := aucoalesce.CoalesceMessages(event)
		require.NoError(t, err)
		line, err := json.MarshalIndent(joined, "", "  ")
		require.NoError(t, err)
		out.Write(append(line, '\n'))
		event = nil
	}
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		// What auditd adds for ausearch is not part of the record.
		line, _, _ = strings.Cut(line, "\x1d")
		message, err := auparse.ParseLogLine(line)
		require.NoError(t, err, line)
		if len(event) > 0 && event[0].Sequence != message.Sequence {
			flush()
		}
		event = append(event, message)
	}
	flush()
	return out.String()
}

// TestFixtures reads the recorded logs again: what our records mean to others
// is part of what we promise, so a reading that changes is seen.
func TestFixtures(t *testing.T) {
	logs, err := filepath.Glob(filepath.Join(recordsDir(t), "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, logs, "fixtures/records is empty: write it with E2E_UPDATE=1")
	for _, log := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(log), ".log"), func(t *testing.T) {
			want, err := os.ReadFile(golden(log, ".json"))
			require.NoError(t, err)
			require.Equal(t, string(want), readWithLibaudit(t, log), "go-libaudit's reading")
			if _, err := exec.LookPath("ausearch"); err != nil {
				testhost.Skip(t, "ausearch is not installed, so only go-libaudit read the record")
			}
			want, err = os.ReadFile(golden(log, ".csv"))
			require.NoError(t, err)
			require.Equal(t, string(want), readWithAusearch(t, log), "ausearch's reading")
		})
	}
}
