// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/tool/e2e/harness"
)

const (
	// recordBlock is how many records each side sends in a round.
	recordBlock = 20
	// recordBacklog is how many are sent before auditd is waited for.
	recordBacklog = 4096
	// recordPause lets the kernel's audit thread fall asleep.
	recordPause = 100 * time.Microsecond
)

// sender sends n records, each acknowledged, and tells how long they took.
type sender func(n int) (time.Duration, error)

// sendRecords measures one acknowledged USER_LOGIN, beside the kernel's floor and
// beside libaudit.
//
// What the kernel takes for a record varies severalfold with what its audit
// thread does at that moment: to wake it is most of the cost of a record that
// comes by itself, as a login's does. So ours and the floor take turns record by
// record, once with pauses and once without. libaudit, in a process of its own,
// comes in blocks.
func sendRecords(s subject, audit *harness.Audit) {
	audit.Fence()
	lost := harness.AuditStatus(s)["lost"]
	s.run("alone", func(s subject) { sendInTurn(s, "one USER_LOGIN by itself", recordPause, nil) })
	s.run("burst", func(s subject) { sendInTurn(s, "one USER_LOGIN of many", 0, libauditSender(s)) })
	if now := harness.AuditStatus(s)["lost"]; now != lost {
		s.Errorf("the kernel has lost records (%s before, %s after), and loses them faster than it takes them", lost, now)
	}
}

func sendInTurn(s subject, name string, pause time.Duration, libaudit sender) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ours, floor := ourSender(s), floorSender(s)
	var mine, lowest, theirs []float64
	send := func(by sender, n int, took *[]float64) {
		// Awake: a processor that has slept is slow for a while.
		for began := time.Now(); time.Since(began) < pause; {
			continue
		}
		d, err := by(n)
		if err != nil {
			s.Fatal(err)
		}
		*took = append(*took, float64(d)/float64(n))
	}
	sent := 0
	for s.Loop() {
		for range recordBlock / 2 {
			send(ours, 1, &mine)
			send(floor, 1, &lowest)
			send(floor, 1, &lowest)
			send(ours, 1, &mine)
		}
		if libaudit != nil {
			send(libaudit, recordBlock, &theirs)
		}
		if sent += 3 * recordBlock; sent > recordBacklog {
			drain(s)
			sent = 0
		}
	}
	drain(s)
	s.ReportMetric(median(mine), "ns/op")
	report := func(rival string, took []float64, budget limit) {
		s.ReportMetric(median(took), rival+"-ns/op")
		s.ReportMetric(median(mine)/median(took), "x-"+rival)
		s.table.compare(name+" (rival: "+rival+")", "µs", median(mine)/1e3, median(took)/1e3, budget)
	}
	report("floor", lowest, limit{most: 1.15})
	if libaudit != nil {
		report("libaudit", theirs, limit{})
	}
}

// drain waits until auditd has taken all records: a full backlog would be
// measured in place of the sender.
func drain(s subject) {
	s.Helper()
	harness.WaitFor(s, 60*time.Second, "auditd to take the records", func() bool {
		return harness.AuditStatus(s)["backlog"] == "0"
	})
}

// ourSender sends through auditd.New.
func ourSender(s subject) sender {
	s.Helper()
	emitter, err := auditd.New(auditd.Config{Executable: program})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = emitter.Close() })
	event, ctx := aLogin(), s.Context()
	return func(n int) (time.Duration, error) {
		began := time.Now()
		for range n {
			if err := emitter.Emit(ctx, event); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
}

// floorSender sends the very bytes that ours sends, made once, from one open
// socket, and only looks whether the answer is 0.
func floorSender(s subject) sender {
	s.Helper()
	e := newEncoder(s)
	if err := e.Emit(s.Context(), aLogin()); err != nil {
		s.Fatal(err)
	}
	message := append(make([]byte, syscall.NLMSG_HDRLEN), e.kernel.last...)
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], uint16(auditd.AuditUserLogin))
	binary.NativeEndian.PutUint16(message[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		s.Fatalf("opening an audit socket: %v", err)
	}
	s.Cleanup(func() { _ = unix.Close(fd) })
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	answer := make([]byte, 1024)
	return func(n int) (time.Duration, error) {
		began := time.Now()
		for range n {
			if err := unix.Sendto(fd, message, 0, to); err != nil {
				return 0, fmt.Errorf("sendto: %w", err)
			}
			got, err := unix.Read(fd, answer)
			if err != nil {
				return 0, fmt.Errorf("read: %w", err)
			}
			if got < syscall.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint32(answer[syscall.NLMSG_HDRLEN:]) != 0 {
				return 0, fmt.Errorf("the kernel answered % x", answer[:got])
			}
		}
		return time.Since(began), nil
	}
}

// libauditSender builds and starts testdata/libaudit.c. It returns nil, with a
// line in the table, where this host has no C compiler or no libaudit.
func libauditSender(s subject) sender {
	s.Helper()
	built := filepath.Join(harness.OpenDir(s), "libaudit")
	// By its file's name the library is found without its development package.
	out, err := exec.Command("gcc", "-O2", "-Wall", "-o", built, "testdata/libaudit.c", "-l:libaudit.so.1").CombinedOutput()
	if err != nil {
		if os.Getenv("REQUIRE_KERNEL") == "1" {
			s.Fatalf("the rival libaudit does not build: %v\n%s", err, out)
		}
		s.table.skipped = append(s.table.skipped, fmt.Sprintf("%s: the rival libaudit, which needs gcc and libaudit.so.1: %v %s", s.Name(), err, out))
		return nil
	}
	cmd := exec.Command(built, program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			s.Errorf("the rival libaudit: %v", err)
		}
	})
	lines := bufio.NewReader(stdout)
	return func(n int) (time.Duration, error) {
		if _, err := fmt.Fprintln(stdin, n); err != nil {
			return 0, err
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return 0, fmt.Errorf("no answer: %w", err)
		}
		took, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		return time.Duration(took), err
	}
}
