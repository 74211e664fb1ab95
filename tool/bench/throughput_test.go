// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"teleport-auditd/tool/e2e/harness"
)

const (
	// bulkSize is the file that is carried, in MiB.
	bulkSize = 256
	// bulkRounds is how often each side has its turn.
	bulkRounds = 9
)

// carry is one way to carry the file: words are the command, done says whether
// all of it arrived.
type carry struct {
	name  string
	words func(b bulk, side server) []string
	done  func(b bulk) bool
}

// bulk is the file, and the connections that it goes through.
type bulk struct {
	// file is there, and copied is where it is put.
	file, copied string
	// sockets are open connections, by the server's address. The login is made
	// before: ours is faster, which says nothing of the throughput.
	sockets map[string]string
}

// carries are what people do with large files. The clients are OpenSSH's, with
// the ciphers that they choose by themselves.
func carries() []carry {
	always := func(bulk) bool { return true }
	whole := func(b bulk) bool {
		info, err := os.Stat(b.copied)
		return err == nil && info.Size() == bulkSize<<20
	}
	sftp := func(batch func(b bulk) string) func(bulk, server) []string {
		return func(b bulk, side server) []string {
			return []string{"/bin/sh", "-c", "printf '%s\\n' " + harness.Quote(batch(b)) + " | " +
				"exec sftp -q -F " + side.client.Config + " -o ControlPath=" + b.sockets[side.addr] + " -b - " + side.target}
		}
	}
	scp := func(b bulk, side server, from, to string) []string {
		return []string{"scp", "-q", "-F", side.client.Config, "-o", "ControlPath=" + b.sockets[side.addr], from, to}
	}
	return []carry{
		{"ssh cat", func(b bulk, side server) []string {
			return []string{"ssh", "-F", side.client.Config, "-S", b.sockets[side.addr], side.target, "cat " + b.file}
		}, always},
		{"sftp get", sftp(func(b bulk) string { return "get " + b.file + " /dev/null" }), always},
		{"sftp put", sftp(func(b bulk) string { return "put " + b.file + " " + b.copied }), whole},
		{"scp from", func(b bulk, side server) []string { return scp(b, side, side.target+":"+b.file, "/dev/null") }, always},
		{"scp to", func(b bulk, side server) []string { return scp(b, side, b.file, side.target+":"+b.copied) }, whole},
	}
}

// throughput measures how fast a file goes through, beside sshd.
func throughput(s subject, p *pair) {
	harness.NeedPrograms(s, "sftp", "scp")
	dir := harness.OpenDir(s)
	b := bulk{file: filepath.Join(dir, "file"), copied: filepath.Join(p.user.Home, "copied"), sockets: map[string]string{}}
	// Bytes that compression would not shrink are not needed: there is none.
	if err := os.WriteFile(b.file, make([]byte, bulkSize<<20), 0o644); err != nil {
		s.Fatal(err)
	}
	for _, side := range []server{p.ours, p.sshd} {
		b.sockets[side.addr] = side.open(s)
	}
	for _, c := range carries() {
		s.run(c.name, func(s subject) {
			var ours, sshd carried
			for s.Loop() {
				for range bulkRounds {
					ours.turn(s, b, c, p.ours)
					sshd.turn(s, b, c, p.sshd)
				}
			}
			s.ReportMetric(0, "ns/op")
			s.ReportMetric(median(ours.rates), "MiB/s")
			s.ReportMetric(median(sshd.rates), "sshd-MiB/s")
			s.ReportMetric(median(ours.rates)/median(sshd.rates), "x-sshd")
			label := c.name + " (rival: sshd)"
			s.table.compare("throughput, "+label, "MiB/s", median(ours.rates), median(sshd.rates), limit{least: 0.9})
			s.table.compare("processor time of the server for a GiB, "+label, "s", median(ours.busy), median(sshd.busy), limit{})
		})
	}
}

// carried is what a side showed: MiB a second, and the seconds of processor time
// that all its processes took for a GiB.
type carried struct {
	rates, busy []float64
}

// turn carries the file once.
func (m *carried) turn(s subject, b bulk, c carry, side server) {
	s.Helper()
	words := c.words(b, side)
	cmd := exec.Command(words[0], words[1:]...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	before := side.busy(s)
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		s.Fatalf("%q: %v\n%s", words, err, complaints.String())
	}
	if !c.done(b) {
		s.Fatalf("%q: not all of it has arrived", words)
	}
	// What was not written to the disk yet never is.
	_ = os.Remove(b.copied)
	m.rates = append(m.rates, bulkSize/took.Seconds())
	m.busy = append(m.busy, (side.busy(s)-before)*1024/bulkSize)
}

// busy is the processor time of this side's processes, what the users run and
// what has ended included.
func (v server) busy(s subject) float64 {
	s.Helper()
	ticks := 0
	for _, p := range v.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		if err != nil {
			// It has ended, and its parent has its time.
			continue
		}
		// The name, in brackets, may hold anything.
		_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
		words := strings.Fields(rest)
		// utime, stime, and both again of the children (proc(5)).
		for _, word := range words[11:15] {
			n, err := strconv.Atoi(word)
			if err != nil {
				s.Fatal(err)
			}
			ticks += n
		}
	}
	// USER_HZ is 100 on all that Go knows.
	return float64(ticks) / 100
}

// open logs in and leaves the connection open, for others to go through. It
// returns the socket that leads there.
func (v server) open(s subject) string {
	s.Helper()
	socket := filepath.Join(harness.OpenDir(s), "master")
	cmd := v.client.Command("-M", "-S", socket, "-N", v.target)
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	harness.WaitFor(s, 20*time.Second, "a connection to "+v.programs[0], func() bool {
		return v.client.Run("-S", socket, "-O", "check", v.target).Code == 0
	})
	return socket
}
