// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"teleport-auditd/lib/testhost"
)

// AuditLock is held by whoever changes the kernel's audit state: there is one
// kernel, and go test runs packages side by side.
const AuditLock = "/run/lock/teleport-auditd-audit.lock"

// Audit is the kernel's audit state while a test has it, and the log of what
// was recorded meanwhile.
type Audit struct {
	// Log is the audit log's path, for ausearch -if and its like.
	Log string
	// Pid is the auditd that the test started, 0 where it reads the multicast
	// group beside the host's own auditd.
	Pid int

	t      testing.TB
	fences int
}

// AuditConfig is what StartAudit takes.
type AuditConfig struct {
	// Backlog is the kernel's backlog_limit, 8192 when 0.
	Backlog int
	// BacklogWait is backlog_wait_time in the kernel's ticks, left alone when 0.
	BacklogWait int
	// NoDaemon starts no auditd and reads the multicast group.
	NoDaemon bool
}

// StartAudit takes the kernel's audit state for this test, switches auditing
// on, and starts an auditd that writes a log of the test's own. Everything is
// as before when the test has ended. It skips the test where the kernel cannot
// be used so, and never sets a mode that needs a reboot to leave.
func StartAudit(t testing.TB, config AuditConfig) *Audit {
	t.Helper()
	NeedRoot(t)
	NeedPrograms(t, "auditctl", "auditd", "ausearch", "aureport", "aulast")
	if config.Backlog == 0 {
		config.Backlog = 8192
	}
	lockAudit(t)
	before := AuditStatus(t)
	if before["enabled"] == "2" {
		testhost.Skip(t, "the kernel's audit state is locked (enabled 2) until the next boot")
	}
	rules := Output(t, "auditctl", "-l")
	t.Cleanup(func() {
		// Cleanups run last in, first out: by now everything is undone.
		if now := Output(t, "auditctl", "-l"); now != rules {
			t.Errorf("the test left audit rules behind:\nbefore:\n%safter:\n%s", rules, now)
		}
	})
	// backlog_wait_time is set last time a test asks for it only.
	restore := fmt.Sprintf("auditctl -e %s && auditctl -b %s", before["enabled"], before["backlog_limit"])
	if config.BacklogWait != 0 {
		restore += " && auditctl --backlog_wait_time " + before["backlog_wait_time"]
	}
	Undo(t, restore)
	Output(t, "auditctl", "-b", strconv.Itoa(config.Backlog))
	if config.BacklogWait != 0 {
		Output(t, "auditctl", "--backlog_wait_time", strconv.Itoa(config.BacklogWait))
	}
	Output(t, "auditctl", "-e", "1")

	dir := OpenDir(t)
	a := &Audit{Log: filepath.Join(dir, "audit.log"), t: t}
	if config.NoDaemon || before["pid"] != "0" {
		a.startMulticast()
	} else {
		a.startDaemon(dir)
	}
	return a
}

// lockAudit holds AuditLock until the test's undoing is done.
func lockAudit(t testing.TB) {
	t.Helper()
	file, err := os.OpenFile(AuditLock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		testhost.Skip(t, "cannot open the lock on the kernel's audit state: %v", err)
	}
	waiting := time.Now()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("flock %s: %v", AuditLock, err)
	}
	if waited := time.Since(waiting); waited > time.Second {
		t.Logf("waited %v for another test to leave the kernel's audit state", waited.Round(time.Millisecond))
	}
	// The undo process keeps a copy of the descriptor, and with it the lock,
	// past the death of the test process.
	Undo(t, ":", file)
	file.Close()
}

// AuditStatus returns what auditctl -s says, by name.
func AuditStatus(t testing.TB) map[string]string {
	t.Helper()
	out, err := exec.Command("auditctl", "-s").CombinedOutput()
	if err != nil {
		testhost.Skip(t, "auditctl -s: %v: %s", err, out)
	}
	status := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			status[name] = value
		}
	}
	return status
}

// daemonConfig is an auditd that writes one file and does nothing else.
const daemonConfig = `local_events = yes
write_logs = yes
log_file = %[1]s
log_format = ENRICHED
flush = NONE
max_log_file = 512
max_log_file_action = IGNORE
num_logs = 2
priority_boost = 0
name_format = NONE
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
use_libwrap = no
distribute_network = no
q_depth = 2000
overflow_action = IGNORE
plugin_dir = %[2]s
end_of_event_timeout = 2
`

func (a *Audit) startDaemon(dir string) {
	t := a.t
	t.Helper()
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(daemonConfig, a.Log, plugins)
	if err := os.WriteFile(filepath.Join(dir, "auditd.conf"), []byte(conf), 0o640); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("auditd", "-n", "-s", "nochange", "-c", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start auditd: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		// A stopped process takes no SIGTERM.
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("auditd: %v", err)
			}
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("auditd did not end within 10 s of SIGTERM")
		}
	})
	a.Pid = cmd.Process.Pid
	WaitFor(t, 10*time.Second, "auditd to own the kernel's audit stream", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("auditd ended at once: %v\n%s", err, out.String())
		default:
		}
		return AuditStatus(t)["pid"] == strconv.Itoa(a.Pid)
	})
}

// Mark is a place in the log.
type Mark int64

// Fence writes a record of its own and waits until the log holds it. Everything
// that the kernel took before the call stands before the Mark.
func (a *Audit) Fence() Mark {
	a.t.Helper()
	a.fences++
	text := fmt.Sprintf("teleport-e2e-fence-%d-%d", os.Getpid(), a.fences)
	Output(a.t, "auditctl", "-m", text)
	var at int64
	WaitFor(a.t, 20*time.Second, "the audit log to hold the record "+text, func() bool {
		log, err := os.ReadFile(a.Log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			a.t.Fatal(err)
		}
		i := strings.Index(string(log), "text="+text+" ")
		if i < 0 {
			return false
		}
		end := strings.IndexByte(string(log[i:]), '\n')
		at = int64(i + end + 1)
		return end >= 0
	})
	return Mark(at)
}

// Since returns the records after a mark.
func (a *Audit) Since(mark Mark) []Record {
	a.t.Helper()
	log, err := os.ReadFile(a.Log)
	if err != nil {
		a.t.Fatal(err)
	}
	records, err := ParseLog(log[mark:])
	if err != nil {
		a.t.Fatalf("the audit log cannot be read: %v", err)
	}
	return records
}

// Collect waits until done says that the records since the mark, of which pick
// makes a choice, are complete, and then returns all that there are, those
// included that nobody waited for.
func (a *Audit) Collect(mark Mark, pick func([]Record) []Record, done func([]Record) bool) []Record {
	a.t.Helper()
	if !Eventually(20*time.Second, func() bool { return done(pick(a.Since(mark))) }) {
		a.Fence()
		a.t.Errorf("waited 20 s for the records; these came:\n%s", Show(pick(a.Since(mark))))
		return pick(a.Since(mark))
	}
	a.Fence()
	records := pick(a.Since(mark))
	for _, r := range records {
		if r.BodyErr != nil {
			a.t.Errorf("a record is not clean: %v\n%s", r.BodyErr, r)
		}
	}
	return records
}

// Rule adds an audit rule, in auditctl's words after -a, until the test ends.
func (a *Audit) Rule(words ...string) {
	a.t.Helper()
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	Undo(a.t, "auditctl -d "+strings.Join(quoted, " "))
	Output(a.t, "auditctl", append([]string{"-a"}, words...)...)
}

// Search runs ausearch on the log.
func (a *Audit) Search(args ...string) string {
	return a.tool("ausearch", append([]string{"-if", a.Log}, args...)...)
}

// Report runs aureport on the log.
func (a *Audit) Report(args ...string) string {
	return a.tool("aureport", append([]string{"-if", a.Log}, args...)...)
}

// Last runs aulast on the log.
func (a *Audit) Last(args ...string) string {
	return a.tool("aulast", append([]string{"-f", a.Log}, args...)...)
}

func (a *Audit) tool(name string, args ...string) string {
	a.t.Helper()
	a.Fence()
	return Tool(a.t, name, args...)
}

// Tool runs a reader of audit logs, in UTC and the C locale, and returns its
// output without its complaints (who is not root gets one about a file that the
// reader can do without). These readers end with 1 where they find nothing,
// which is an answer and no failure.
func Tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, complaints.String())
	}
	return string(out)
}
