// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"teleport-auditd/tool/e2e/harness"
)

const (
	// idleLogins is how many logins idle keeps open at a time.
	idleLogins = 50
	// idleCommand is what they run.
	idleCommand = "sleep 600"
)

// idle measures the memory of logins that wait, beside sshd.
func idle(s subject, name string, p *pair) {
	var ours, session, sshd float64
	for s.Loop() {
		ours, session = idlePSS(s, p, p.ours)
		sshd, _ = idlePSS(s, p, p.sshd)
	}
	s.ReportMetric(0, "ns/op")
	s.ReportMetric(ours, "MiB/login")
	s.ReportMetric(sshd, "sshd-MiB/login")
	s.ReportMetric(session, "session-MiB/login")
	s.ReportMetric(ours/sshd, "x-sshd")
	s.table.compare("memory of an idle login, the daemon's growth included, "+name+" (rival: sshd)", "MiB", ours, sshd, limit{most: 0.7})
	most := 1.2
	if name == "pam=on" {
		most = 1.5
	}
	s.table.alone("memory of teleport-session, "+name, "MiB", session, limit{most: most})
}

// idlePSS opens logins that wait, and returns by how many MiB the server's
// processes have grown for each, and how much the processes that serve one login
// alone have.
func idlePSS(s subject, p *pair, side server) (grown, own float64) {
	s.Helper()
	side.settle(s)
	before := side.pss(s)
	var clients []*ssh.Client
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
		side.settle(s)
	}()
	for range idleLogins {
		client, err := ssh.Dial("tcp", side.addr, p.client)
		if err != nil {
			s.Fatal(err)
		}
		clients = append(clients, client)
		session, err := client.NewSession()
		if err != nil {
			s.Fatal(err)
		}
		if err := session.Start("exec " + idleCommand); err != nil {
			s.Fatal(err)
		}
	}
	harness.WaitFor(s, 30*time.Second, "all logins to sleep", func() bool {
		n := 0
		for _, process := range p.user.Processes() {
			if process.Command == idleCommand {
				n++
			}
		}
		return n == idleLogins
	})
	after := side.pss(s)
	for pid, pss := range after {
		grown += pss
		if pid != side.pid {
			own += pss
		}
	}
	for _, pss := range before {
		grown -= pss
	}
	return grown / idleLogins, own / idleLogins
}

// pss returns the memory of this side's processes in MiB, by pid: their own
// pages, and their part of those that they share (Pss in
// /proc/PID/smaps_rollup).
func (v server) pss(s subject) map[int]float64 {
	s.Helper()
	sizes := map[int]float64{}
	for _, p := range v.processes() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.Pid))
		if err != nil {
			s.Fatalf("reading the memory of %s: %v", p.Exe, err)
		}
		for line := range strings.Lines(string(text)) {
			var kib float64
			if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
				sizes[p.Pid] = kib / 1024
			}
		}
	}
	return sizes
}
