// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"testing"

	"teleport-auditd/tool/e2e/harness"
)

// BenchmarkTeleport is all of it, in one tree, since it ends with one table and
// holds the kernel's audit state from beginning to end: a test that changed it
// meanwhile would be measured too.
func BenchmarkTeleport(b *testing.B) {
	s := subject{b, &table{load: loadAverage()}}
	defer s.table.print(os.Stdout)

	s.run("encode", encodeOne)
	s.run("host", func(s subject) {
		harness.NeedRoot(s)
		wrap := harness.NeedUnsetLoginUID(s)
		// Records come faster than auditd writes them: room for a block of each
		// side, and what is left over is waited for.
		audit := harness.StartAudit(s, harness.AuditConfig{Backlog: 65536})
		s.run("record", func(s subject) { sendRecords(s, audit) })

		dir := harness.OpenDir(s)
		programs, err := harness.Build(dir)
		if err != nil {
			s.Fatalf("the programs do not build: %v", err)
		}
		s.run("start", func(s subject) { startSession(s, programs) })
		for _, pam := range []bool{false, true} {
			name := map[bool]string{false: "pam=off", true: "pam=on"}[pam]
			s.run("login/"+name, func(s subject) { logIn(s, name, startPair(s, programs, wrap, pam)) })
			s.run("memory/"+name, func(s subject) { idle(s, name, startPair(s, programs, wrap, pam)) })
		}
	})
	// It needs nothing of the audit system.
	s.run("throughput", func(s subject) {
		harness.NeedRoot(s)
		wrap := harness.NeedUnsetLoginUID(s)
		programs, err := harness.Build(harness.OpenDir(s))
		if err != nil {
			s.Fatalf("the programs do not build: %v", err)
		}
		throughput(s, startPair(s, programs, wrap, false))
	})
}
