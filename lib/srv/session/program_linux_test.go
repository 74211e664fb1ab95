// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The built teleport-session, driven over a socket pair as the daemon does it.

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session/sessiontest"
	"teleport-auditd/lib/testhost"
)

// program is the built teleport-session.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		built, remove, err := sessiontest.Build()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer remove()
		program = built
		return m.Run()
	}())
}

// daemon is the daemon's end of one login.
type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	conn *net.UnixConn
	// messages are what teleport-session has said so far.
	messages []Message
	// files are the descriptors that came with each Started.
	files  map[uint32][]*os.File
	waited chan struct{}
}

// startProgram runs teleport-session. change alters the command before it starts.
func startProgram(t *testing.T, change ...func(*exec.Cmd)) *daemon {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	theirs, ours := os.NewFile(uintptr(fds[1]), "theirs"), os.NewFile(uintptr(fds[0]), "ours")
	defer theirs.Close()
	defer ours.Close()
	conn, err := net.FileConn(ours)
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, f := range change {
		f(cmd)
	}
	require.NoError(t, cmd.Start())
	d := &daemon{t: t, cmd: cmd, conn: conn.(*net.UnixConn), files: make(map[uint32][]*os.File), waited: make(chan struct{})}
	go func() {
		defer close(d.waited)
		_ = cmd.Wait() // its ProcessState says more
	}()
	t.Cleanup(func() {
		d.conn.Close()
		for _, files := range d.files {
			for _, f := range files {
				f.Close()
			}
		}
		select {
		case <-d.waited:
		case <-time.After(sessiontest.Patience):
			t.Error("teleport-session does not end")
			_ = cmd.Process.Kill()
		}
	})
	return d
}

// send sends messages.
func (d *daemon) send(messages ...Message) {
	d.t.Helper()
	for _, m := range messages {
		b, err := Encode(m)
		require.NoError(d.t, err)
		_, err = d.conn.Write(b)
		require.NoError(d.t, err)
	}
}

// receive takes one message, nil at the end.
func (d *daemon) receive() Message {
	d.t.Helper()
	require.NoError(d.t, d.conn.SetReadDeadline(time.Now().Add(sessiontest.Patience)))
	b, rights := make([]byte, MaxMessage+1), make([]byte, unix.CmsgSpace(3*4))
	n, nrights, _, _, err := d.conn.ReadMsgUnix(b, rights)
	if errors.Is(err, io.EOF) || err == nil && n == 0 {
		return nil
	}
	require.NoError(d.t, err, "after %v", d.told())
	m, err := Decode(b[:n])
	require.NoError(d.t, err)
	d.messages = append(d.messages, m)
	if started, ok := m.(*Started); ok {
		control, err := unix.ParseSocketControlMessage(rights[:nrights])
		require.NoError(d.t, err)
		require.Len(d.t, control, 1)
		fds, err := unix.ParseUnixRights(&control[0])
		require.NoError(d.t, err)
		for _, fd := range fds {
			require.NoError(d.t, unix.SetNonblock(fd, true))
			d.files[started.ID] = append(d.files[started.ID], os.NewFile(uintptr(fd), "process"))
		}
	}
	return m
}

// await returns the first message, come or to come, of type M that is right.
func await[M Message](d *daemon, right func(M) bool) M {
	d.t.Helper()
	for i := 0; ; i++ {
		if i == len(d.messages) && d.receive() == nil {
			d.t.Fatalf("teleport-session ended after %v", d.told())
		}
		if m, ok := d.messages[i].(M); ok && right(m) {
			return m
		}
	}
}

func (d *daemon) started(id uint32) *Started {
	d.t.Helper()
	return await(d, func(m *Started) bool { return m.ID == id })
}

func (d *daemon) exited(id uint32) *Exited {
	d.t.Helper()
	return await(d, func(m *Exited) bool { return m.ID == id })
}

// output returns what a process writes to its standard output until its end.
func (d *daemon) output(id uint32) string {
	d.t.Helper()
	d.started(id)
	return readAll(d.t, d.files[id][1])
}

func readAll(t *testing.T, f *os.File) string {
	t.Helper()
	require.NoError(t, f.SetReadDeadline(time.Now().Add(sessiontest.Patience)))
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	return string(b)
}

// run runs a command and returns what it writes.
func (d *daemon) run(id uint32, command string) string {
	d.t.Helper()
	d.send(&Start{ID: id, Command: command})
	out := d.output(id)
	require.Equal(d.t, &Exited{ID: id}, d.exited(id), "%q wrote %q", command, out)
	return out
}

// sleeper starts a process that does nothing.
func (d *daemon) sleeper(id uint32) (pid int) {
	d.t.Helper()
	d.send(&Start{ID: id, Command: "exec sleep 1000"})
	pid = int(d.started(id).PID)
	d.isRunning(pid, "sleep")
	return pid
}

// isRunning waits until a process runs a program.
func (d *daemon) isRunning(pid int, program string) {
	d.t.Helper()
	require.Eventually(d.t, func() bool {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return err == nil && string(comm) == program+"\n"
	}, sessiontest.Patience, time.Millisecond, "process %d does not run %s", pid, program)
}

// end closes the socket for requests, takes what still comes, and returns the
// exit code of teleport-session.
func (d *daemon) end() int {
	d.t.Helper()
	require.NoError(d.t, d.conn.CloseWrite())
	return d.exitCode()
}

func (d *daemon) exitCode() int {
	d.t.Helper()
	for d.receive() != nil {
	}
	select {
	case <-d.waited:
	case <-time.After(sessiontest.Patience):
		d.t.Fatal("teleport-session does not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

// told is what teleport-session has said so far.
func (d *daemon) told() (told []string) {
	for _, m := range d.messages {
		told = append(told, fmt.Sprintf("%T%+v", m, m))
	}
	return told
}

// isEnded says whether teleport-session has told that the login is over.
func (d *daemon) isEnded() bool {
	_, ok := d.messages[len(d.messages)-1].(*Ended)
	return ok
}

// loginOf is a login of a user, without audit records.
func loginOf(u sessiontest.User) *Login {
	return &Login{
		Account:      Account{Name: u.Name, UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home, Shell: "/bin/sh"},
		TeleportUser: "alice",
		ClientAddr:   "192.0.2.7:50122",
		ServerAddr:   "198.51.100.1:3022",
		AuditMode:    "off",
	}
}

// as lets teleport-session run as a user.
func as(u sessiontest.User) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
}

// eachWay runs a test with teleport-session as root for a throwaway user, and
// without root for the user who starts it.
func eachWay(t *testing.T, f func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd))) {
	t.Run("as root", func(t *testing.T) {
		f(t, sessiontest.NewUser(t))
	})
	t.Run("without root", func(t *testing.T) {
		if os.Geteuid() != 0 {
			f(t, sessiontest.Self(t))
			return
		}
		u := sessiontest.NewUser(t)
		f(t, u, as(u))
	})
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int, timeout time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool {
		all, err := processes()
		require.NoError(t, err)
		p, ok := all[pid]
		return !ok || p.hasEnded()
	}, timeout, 5*time.Millisecond, "process %d is left", pid)
}

// status returns a line of /proc/PID/status.
func status(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, name)
	return ""
}

// ignoresNone are the SigIgn masks of a process that ignores no signal: 32 and 33
// are the C library's own, which ignores them in what posix_spawn(3) starts, as
// make does, and lets nobody change it.
const ignoresNone = `^0{7}[01][08]0{7}$`

func TestByHand(t *testing.T) {
	check := func(cmd *exec.Cmd) {
		t.Helper()
		var stderr strings.Builder
		cmd.Stderr = &stderr
		require.Error(t, cmd.Run())
		require.Equal(t, 2, cmd.ProcessState.ExitCode())
		require.Equal(t, "ERROR: teleport-session is started by teleport for each login; run teleport start instead\n", stderr.String())
	}
	check(exec.Command(program))
	check(exec.Command(program, "--help"))

	pipe, w, err := os.Pipe()
	require.NoError(t, err)
	defer pipe.Close()
	defer w.Close()
	withFile := exec.Command(program)
	withFile.ExtraFiles = []*os.File{pipe}
	check(withFile)
}

func TestProcess(t *testing.T) {
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		leak, err := os.Open("/dev/null")
		require.NoError(t, err)
		defer leak.Close()
		old := syscall.Umask(0o27)
		d := startProgram(t, append(change, func(cmd *exec.Cmd) {
			// A daemon with a descriptor that it forgot to mark.
			cmd.ExtraFiles = append(cmd.ExtraFiles, leak)
		})...)
		syscall.Umask(old)
		d.send(loginOf(u), &Start{ID: 1, Command: "exec sleep 1000"})
		pid := int(d.started(1).PID)
		d.isRunning(pid, "sleep")
		require.IsType(t, &LoggedIn{}, d.messages[0])
		require.Len(t, d.files[1], 3)
		require.Empty(t, d.started(1).Text)

		id := func(n uint32) string {
			return strings.TrimSpace(strings.Repeat(strconv.FormatUint(uint64(n), 10)+" ", 4))
		}
		require.Equal(t, id(u.UID), status(t, pid, "Uid"))
		require.Equal(t, id(u.GID), status(t, pid, "Gid"))
		var groups []uint32
		for _, g := range strings.Fields(status(t, pid, "Groups")) {
			n, err := strconv.ParseUint(g, 10, 32)
			require.NoError(t, err)
			groups = append(groups, uint32(n))
		}
		require.ElementsMatch(t, u.Groups, groups)
		require.Equal(t, "0000000000000000", status(t, pid, "CapEff"))
		require.Regexp(t, ignoresNone, status(t, pid, "SigIgn"))
		require.Equal(t, "0000000000000000", status(t, pid, "SigBlk"))
		require.Equal(t, "0027", status(t, pid, "Umask"), "as inherited")
		require.Equal(t, strconv.Itoa(d.cmd.Process.Pid), status(t, pid, "PPid"))

		sid, err := unix.Getsid(pid)
		require.NoError(t, err)
		require.Equal(t, pid, sid)
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		require.NoError(t, err)
		require.Equal(t, u.Home, cwd)
		parentCwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", d.cmd.Process.Pid))
		require.NoError(t, err)
		require.Equal(t, "/", parentCwd, "the user's file systems are not kept busy")
		var names []string
		require.Eventually(t, func() bool {
			// The program's own loader has its libraries open for a moment.
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			require.NoError(t, err)
			names = nil
			for _, fd := range fds {
				names = append(names, fd.Name())
			}
			return slices.Equal(names, []string{"0", "1", "2"})
		}, sessiontest.Patience, time.Millisecond, "descriptors %v are open", &names)

		// Standard input, output and error, each its own.
		d.send(&Start{ID: 2, Command: "cat; echo error >&2; exit 3"})
		d.started(2)
		_, err = d.files[2][0].WriteString("hello")
		require.NoError(t, err)
		require.NoError(t, d.files[2][0].Close())
		require.Equal(t, "hello", readAll(t, d.files[2][1]))
		require.Equal(t, "error\n", readAll(t, d.files[2][2]))
		require.Equal(t, &Exited{ID: 2, Status: 3}, d.exited(2))

		require.Equal(t, "sh\n", d.run(3, "echo $0"))
		require.Equal(t, u.Home+"\n", d.run(4, "pwd"))
		d.send(&Start{ID: 5, Program: Shell})
		d.started(5)
		_, err = d.files[5][0].WriteString("echo $0\n")
		require.NoError(t, err)
		require.NoError(t, d.files[5][0].Close())
		require.Equal(t, "-sh\n", d.output(5), "a login shell")

		require.Zero(t, d.end())
		require.True(t, d.isEnded())
		gone(t, pid, 0+time.Second)
	})
}

func TestFileLimit(t *testing.T) {
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		// Go raises its own soft limit; the shell sets the one that is inherited.
		d := startProgram(t, append(change, func(cmd *exec.Cmd) {
			cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "ulimit -S -n 77; exec " + program}
		})...)
		d.send(loginOf(u))
		require.Equal(t, "77\n", d.run(1, "ulimit -S -n"))
		require.Equal(t, "77\n", d.run(2, "ulimit -S -n"))
		require.NotEqual(t, "77\n", d.run(3, "ulimit -H -n"))
	})
}

// TestIgnoredSignals: a daemon started with nohup ignores SIGHUP.
func TestIgnoredSignals(t *testing.T) {
	d := startProgram(t, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "trap '' HUP INT; exec " + program}
	})
	d.send(loginOf(sessiontest.Self(t)), &Start{ID: 1, Command: "exec sleep 1000"})
	pid := int(d.started(1).PID)
	d.isRunning(pid, "sleep")
	require.Regexp(t, ignoresNone, status(t, pid, "SigIgn"))
}

func TestTerminalOfProcess(t *testing.T) {
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		d := startProgram(t, change...)
		pty := &PTY{Term: "xterm-256color", Columns: 132, Rows: 43, Modes: mode(53, 0)}
		d.send(loginOf(u), &Start{ID: 1, PTY: pty, Command: "tty; stty size; echo $TERM $SSH_TTY; stty -a | tr ' ;' '\\n\\n' | grep echo$; exec sleep 1000"})
		started := d.started(1)
		require.Len(t, d.files[1], 1)
		master := d.files[1][0]
		name := await(d, func(*LoggedIn) bool { return true }).TTY
		require.Regexp(t, "^/dev/pts/[0-9]+$", name)
		want := strings.Join([]string{name, "43 132", "xterm-256color " + name, "-echo", ""}, "\r\n")
		require.NoError(t, master.SetReadDeadline(time.Now().Add(sessiontest.Patience)))
		got := make([]byte, len(want))
		_, err := io.ReadFull(master, got)
		require.NoError(t, err)
		require.Equal(t, want, string(got))

		d.isRunning(int(started.PID), "sleep")
		var stat unix.Stat_t
		require.NoError(t, unix.Stat(name, &stat))
		require.Equal(t, u.UID, stat.Uid)
		require.Zero(t, stat.Mode&0o057)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", started.PID))
		require.NoError(t, err)
		tty, err := strconv.ParseUint(strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))[5], 10, 32)
		require.NoError(t, err)
		require.Equal(t, stat.Rdev, unix.Mkdev(uint32(tty>>8&0xfff), uint32(tty&0xff|tty>>12&0xfff00)), "its controlling terminal")

		// ^C reaches the process because it is.
		_, err = master.WriteString("\x03")
		require.NoError(t, err)
		require.Equal(t, &Exited{ID: 1, Signal: "INT"}, d.exited(1))

		// The client hangs up.
		d.send(&Start{ID: 2, PTY: pty, Command: "exec sleep 1000"})
		d.started(2)
		d.isRunning(int(d.started(2).PID), "sleep")
		require.NoError(t, d.files[2][0].Close())
		require.Equal(t, &Exited{ID: 2, Signal: "HUP"}, d.exited(2))
		require.Zero(t, d.end())
	})
}

func TestHomeMissing(t *testing.T) {
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		login := loginOf(u)
		login.Account.Home = "/nowhere/\x1b]0;x\a"
		d := startProgram(t, change...)
		d.send(login)
		require.Equal(t, "/\n", d.run(1, "pwd"))
		require.Equal(t, `Could not change to the home folder /nowhere/\x1b]0;x\a: no such file or directory`+"\n", d.started(1).Text)
	})
	t.Run("closed to the user", func(t *testing.T) {
		u := sessiontest.NewUser(t)
		login := loginOf(u)
		login.Account.Home = t.TempDir() // root's, 0700
		d := startProgram(t)
		d.send(login)
		require.Equal(t, "/\n", d.run(1, "pwd"))
		require.Contains(t, d.started(1).Text, "permission denied")
	})
}

func TestShellMissing(t *testing.T) {
	login := loginOf(sessiontest.Self(t))
	login.Account.Shell = "/bin/no-such-shell"
	d := startProgram(t)
	d.send(login, &Start{ID: 1, Program: Shell})
	failed := await(d, func(m *Failed) bool { return m.ID == 1 })
	require.Equal(t, "/bin/no-such-shell: no such file or directory", failed.Text)
	d.send(&Start{ID: 2, Command: strings.Repeat("x", 1<<17)})
	require.Equal(t, "/bin/no-such-shell: no such file or directory", await(d, func(m *Failed) bool { return m.ID == 2 }).Text)
	require.Zero(t, d.end())
	require.True(t, d.isEnded())

	d = startProgram(t)
	d.send(loginOf(sessiontest.Self(t)), &Start{ID: 1, Command: strings.Repeat("x", 1<<17)})
	require.Equal(t, "/bin/sh: argument list too long", await(d, func(m *Failed) bool { return m.ID == 1 }).Text)
}

func TestEnvironmentOfProcess(t *testing.T) {
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		d := startProgram(t, append(change, func(cmd *exec.Cmd) { cmd.Env = []string{"LEAKED=1", "PATH=/"} })...)
		d.send(loginOf(u))
		d.send(&Start{ID: 1, Command: "env", Env: []string{"LANG=C"}})
		env := strings.Split(d.output(1), "\n")
		for _, want := range []string{"HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name, "LANG=C", "SSH_TELEPORT_USER=alice", "SSH_CONNECTION=192.0.2.7 50122 198.51.100.1 3022"} {
			require.Contains(t, env, want)
		}
		require.NotContains(t, env, "LEAKED=1")
	})
}

func TestManyChannels(t *testing.T) {
	d := startProgram(t)
	d.send(loginOf(sessiontest.Self(t)))
	const n = 100
	for id := uint32(1); id <= n; id++ {
		d.send(&Start{ID: id, Command: fmt.Sprintf("echo %d; exit %d", id, id)})
	}
	for id := uint32(1); id <= n; id++ {
		require.Equal(t, fmt.Sprintln(id), d.output(id))
		require.Equal(t, &Exited{ID: id, Status: id}, d.exited(id))
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	require.NoError(t, err)
	require.Less(t, len(entries), 16, "descriptors of ended channels are closed")
	require.Zero(t, d.end())
	require.True(t, d.isEnded())
}

func TestSignals(t *testing.T) {
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		d := startProgram(t, change...)
		d.send(loginOf(u))
		for id, name := range []string{"TERM", "KILL", "USR1", "SEGV"} {
			id := uint32(id)
			d.sleeper(id)
			d.send(&Signal{ID: id, Name: name})
			exited := d.exited(id)
			require.Equal(t, name, exited.Signal)
			require.Zero(t, exited.Status)
		}
		// The whole process group.
		d.send(&Start{ID: 10, Command: "trap 'echo parent' USR1; sh -c 'trap \"echo child\" USR1; echo ready; sleep 1000 & wait; kill $!' & read x; wait; wait"})
		d.started(10)
		ready := make([]byte, len("ready\n"))
		_, err := io.ReadFull(d.files[10][1], ready)
		require.NoError(t, err)
		d.send(&Signal{ID: 10, Name: "TERM"})
		require.Equal(t, "TERM", d.exited(10).Signal)
		require.Empty(t, readAll(t, d.files[10][1]), "nobody holds the pipe")

		// What is no signal, or for nobody, does nothing.
		d.send(&Signal{ID: 10, Name: "TERM"}, &Signal{ID: 99, Name: "KILL"})
		pid := d.sleeper(11)
		for _, name := range []string{"STOP", "SIGTERM", "", "TERM\x00"} {
			d.send(&Signal{ID: 11, Name: name})
		}
		require.Equal(t, "here\n", d.run(12, "echo here"))
		require.NoError(t, unix.Kill(pid, 0))
		require.Zero(t, d.end())
	})
}

// TestSignalOfAnother: what the user may not signal, the client may not either. A
// program that has become root, as sudo does, is in the user's process group.
func TestSignalOfAnother(t *testing.T) {
	u := sessiontest.NewUser(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		testhost.Skip(t, "needs setpriv: %v", err)
	}
	b, err := os.ReadFile(setpriv)
	require.NoError(t, err)
	sudo := filepath.Join(sessiontest.OpenDir(t), "sudo")
	require.NoError(t, os.WriteFile(sudo, b, 0o755))
	require.NoError(t, os.Chmod(sudo, 0o755|os.ModeSetuid))

	d := startProgram(t)
	d.send(loginOf(u), &Start{ID: 1, Command: "sleep 1001 & exec " + sudo + " --reuid 0 --clear-groups sleep 1000"})
	pid := int(d.started(1).PID)
	d.isRunning(pid, "sleep")
	if status(t, pid, "Uid") != "0 0 0 0" {
		testhost.Skip(t, "the folder for temporary files takes no setuid programs")
	}
	var child int
	require.Eventually(t, func() bool {
		all, err := processes()
		require.NoError(t, err)
		for p := range all {
			if all[p].group == pid && p != pid {
				child = p
			}
		}
		return child != 0
	}, sessiontest.Patience, time.Millisecond)
	d.isRunning(child, "sleep")
	d.send(&Signal{ID: 1, Name: "KILL"})
	gone(t, child, sessiontest.Patience)
	require.Equal(t, "here\n", d.run(2, "echo here"))
	require.NoError(t, unix.Kill(pid, 0), "root's process is not the user's to kill")
	require.Zero(t, d.end())
	gone(t, pid, time.Second)
}

func TestCoreDump(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	require.NoError(t, err)
	if strings.HasPrefix(string(pattern), "|") || strings.HasPrefix(string(pattern), "/") {
		t.Skipf("this host keeps its core dumps elsewhere: %s", pattern)
	}
	d := startProgram(t)
	login := loginOf(sessiontest.Self(t))
	login.Account.Home = t.TempDir()
	d.send(login, &Start{ID: 1, Command: "ulimit -c unlimited; exec sleep 1000"})
	d.isRunning(int(d.started(1).PID), "sleep")
	d.send(&Signal{ID: 1, Name: "ABRT"})
	require.Equal(t, &Exited{ID: 1, Signal: "ABRT", CoreDumped: true}, d.exited(1))
}

// stubborn processes do not end by themselves. Each says its pid.
const stubborn = `
(nohup sh -c 'echo $$; exec sleep 1000' 2>/dev/null &)
(setsid sh -c 'echo $$; exec sleep 1000' &)
(setsid sh -c 'trap "" HUP TERM; echo $$; while :; do sleep 1000; done' &)
sh -c 'echo $$; kill -STOP $$; :' &
echo $$
exec sleep 1000
`

// startStubborn starts them on channel 1.
func (d *daemon) startStubborn() (pids []int) {
	d.t.Helper()
	d.send(&Start{ID: 1, Command: stubborn})
	d.started(1)
	b := make([]byte, 1)
	require.NoError(d.t, d.files[1][1].SetReadDeadline(time.Now().Add(sessiontest.Patience)))
	for line := ""; len(pids) < 5; {
		_, err := d.files[1][1].Read(b)
		require.NoError(d.t, err)
		if line += string(b); b[0] != '\n' {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		require.NoError(d.t, err)
		pids, line = append(pids, pid), ""
	}
	require.Eventually(d.t, func() bool {
		all, err := processes()
		require.NoError(d.t, err)
		return slices.ContainsFunc(pids, func(pid int) bool { return all[pid].state == 'T' })
	}, sessiontest.Patience, time.Millisecond)
	return pids
}

// detached returns those that lead a session other than that of channel 1.
func (d *daemon) detached(pids []int) (detached []int) {
	for _, pid := range pids {
		if sid, err := unix.Getsid(pid); err == nil && sid != int(d.started(1).PID) {
			detached = append(detached, pid)
		}
	}
	return detached
}

func TestEndOfProcesses(t *testing.T) {
	const inTime = 5 * time.Second
	ways := []struct {
		name string
		end  func(d *daemon)
		code int
	}{
		{"the connection ends", func(d *daemon) { require.NoError(d.t, d.conn.CloseWrite()) }, 0},
		{"the daemon dies", func(d *daemon) { require.NoError(d.t, d.conn.Close()) }, 0},
		{"SIGTERM", func(d *daemon) { require.NoError(d.t, d.cmd.Process.Signal(syscall.SIGTERM)) }, 0},
		{"SIGHUP", func(d *daemon) { require.NoError(d.t, d.cmd.Process.Signal(syscall.SIGHUP)) }, 0},
		{"garbage", func(d *daemon) {
			_, err := d.conn.Write([]byte("garbage"))
			require.NoError(d.t, err)
		}, 1},
		{"a message that is not the daemon's to send", func(d *daemon) { d.send(&Ended{}) }, 1},
		{"a second login", func(d *daemon) { d.send(&Login{}) }, 1},
	}
	eachWay(t, func(t *testing.T, u sessiontest.User, change ...func(*exec.Cmd)) {
		for _, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				t.Parallel()
				d := startProgram(t, change...)
				d.send(loginOf(u))
				pids := d.startStubborn()
				require.Len(t, d.detached(pids), 2)
				start := time.Now()
				way.end(d)
				for _, pid := range pids {
					gone(t, pid, inTime-time.Since(start))
				}
				gone(t, d.cmd.Process.Pid, inTime-time.Since(start))
				if way.name == "the daemon dies" {
					return
				}
				require.Equal(t, way.code, d.exitCode())
				require.True(t, slices.ContainsFunc(d.messages, func(m Message) bool { _, ok := m.(*Ended); return ok }), "%v", d.told())
			})
		}
	})
}

func TestKeepDetached(t *testing.T) {
	d := startProgram(t)
	login := loginOf(sessiontest.Self(t))
	login.KeepDetached = true
	d.send(login)
	pids := d.startStubborn()
	detached := d.detached(pids)
	require.Len(t, detached, 2)
	t.Cleanup(func() {
		leaders := make(map[int]bool)
		for _, pid := range detached {
			leaders[pid] = true
		}
		require.NoError(t, Members{Leaders: leaders}.Kill(sessiontest.Patience))
	})
	require.Zero(t, d.end())
	require.True(t, d.isEnded())
	for _, pid := range pids {
		if slices.Contains(detached, pid) {
			require.NoError(t, unix.Kill(pid, 0), "a process with a session of its own stays")
		} else {
			gone(t, pid, time.Second)
		}
	}
}

// TestKilled: the processes that the daemon cannot find without the kernel's
// audit sessions are at least those that were started for it.
func TestKilled(t *testing.T) {
	d := startProgram(t)
	d.send(loginOf(sessiontest.Self(t)))
	pid := d.sleeper(1)
	require.NoError(t, d.cmd.Process.Kill())
	gone(t, pid, 5*time.Second)
}

// TestQuick: nobody waits at the end of a login whose processes go when told.
func TestQuick(t *testing.T) {
	d := startProgram(t)
	d.send(loginOf(sessiontest.Self(t)))
	d.sleeper(1)
	start := time.Now()
	require.Zero(t, d.end())
	require.Less(t, time.Since(start), hangupGrace)
}

func TestBeginning(t *testing.T) {
	self := sessiontest.Self(t)
	for _, test := range []struct {
		name string
		send func(d *daemon)
		code int
	}{
		{"the daemon has nothing to say", func(d *daemon) { require.NoError(d.t, d.conn.CloseWrite()) }, 0},
		{"a login without a process", func(d *daemon) {
			d.send(loginOf(self))
			require.NoError(d.t, d.conn.CloseWrite())
		}, 0},
		{"a process without a login", func(d *daemon) { d.send(&Start{}) }, 1},
		{"garbage", func(d *daemon) {
			_, err := d.conn.Write([]byte{version, 99})
			require.NoError(d.t, err)
			require.NoError(d.t, d.conn.CloseWrite())
		}, 1},
		{"SIGTERM before anything", func(d *daemon) {
			// It is caught as soon as signals are waited for.
			require.Eventually(d.t, func() bool {
				caught, err := strconv.ParseUint(status(d.t, d.cmd.Process.Pid, "SigCgt"), 16, 64)
				require.NoError(d.t, err)
				_ = d.cmd.Process.Signal(syscall.SIGWINCH)
				return caught&(1<<(syscall.SIGTERM-1)) != 0 && strings.Contains(wchan(d.cmd.Process.Pid), "poll")
			}, sessiontest.Patience, time.Millisecond)
			require.NoError(d.t, d.cmd.Process.Signal(syscall.SIGTERM))
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := startProgram(t)
			test.send(d)
			require.Equal(t, test.code, d.exitCode())
			for _, m := range d.messages {
				require.IsType(t, &Note{}, m, "no login was made")
			}
		})
	}
}

// wchan is where in the kernel the main thread waits.
func wchan(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return string(text)
}

func TestOtherVersionOfProgram(t *testing.T) {
	d := startProgram(t)
	b, err := Encode(loginOf(sessiontest.Self(t)))
	require.NoError(t, err)
	b[0]++
	_, err = d.conn.Write(b)
	require.NoError(t, err)
	require.Equal(t, 1, d.exitCode())
	require.Len(t, d.messages, 1)
	require.Contains(t, d.messages[0].(*Note).Text, "restart teleport")
}

func TestRefusals(t *testing.T) {
	t.Run("another user without root", func(t *testing.T) {
		u := sessiontest.NewUser(t)
		d := startProgram(t, as(u))
		d.send(loginOf(sessiontest.Self(t)), &Start{ID: 1, Command: "id"})
		require.Zero(t, d.exitCode())
		require.Len(t, d.messages, 1)
		require.Equal(t, &Refused{
			Reason:   `teleport runs without root and cannot become "root"`,
			Text:     "This node runs without root and cannot switch users.\n",
			Recorded: true,
		}, d.messages[0])
	})
	t.Run("unknown mode", func(t *testing.T) {
		login := loginOf(sessiontest.Self(t))
		login.AuditMode = "sometimes"
		d := startProgram(t)
		d.send(login, &Start{ID: 1})
		require.Zero(t, d.exitCode())
		require.Contains(t, d.messages[0].(*Refused).Reason, `"sometimes" is no auditd mode`)
	})
}

func TestHostClosed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nologin")
	text, closed := hostClosed(file)
	require.False(t, closed)
	require.Empty(t, text)
	for content, want := range map[string]string{
		"":                                "",
		"Back at nine.":                   "Back at nine.\n",
		"Back\nat nine.\n":                "Back\nat nine.\n",
		strings.Repeat("x", 2*MaxMessage): strings.Repeat("x", maxText) + "\n",
	} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		text, closed = hostClosed(file)
		require.True(t, closed)
		require.Equal(t, want, text)
	}
	text, closed = hostClosed(filepath.Dir(file))
	require.True(t, closed, "what cannot be read is there all the same")
	require.Empty(t, text)
}

// TestLoginUID: a login is an audit session of its own, whoever started the
// daemon.
func TestLoginUID(t *testing.T) {
	u := sessiontest.NewUser(t)
	if _, err := os.Stat("/proc/self/loginuid"); err != nil {
		testhost.Skip(t, "this kernel has no login uids: %v", err)
	}
	sessions := make(map[uint32]bool)
	for range 2 {
		d := startProgram(t)
		d.send(loginOf(u))
		require.Equal(t, fmt.Sprint(u.UID), d.run(1, "cat /proc/self/loginuid"))
		loggedIn := await(d, func(*LoggedIn) bool { return true })
		require.True(t, loggedIn.Fresh)
		require.Equal(t, fmt.Sprint(loggedIn.AuditSession), d.run(2, "cat /proc/self/sessionid"), "channels share it")
		require.Empty(t, loggedIn.TTY)
		sessions[loggedIn.AuditSession] = true

		// What is in it can be found, whatever session it has made.
		d.send(&Start{ID: 3, Command: "setsid sleep 1000 & exec sleep 1000"})
		d.isRunning(int(d.started(3).PID), "sleep")
		var pids []int
		require.Eventually(t, func() bool {
			var err error
			pids, err = Members{AuditSession: loggedIn.AuditSession}.List()
			require.NoError(t, err)
			return len(pids) == 3
		}, sessiontest.Patience, time.Millisecond)
		require.Contains(t, pids, d.cmd.Process.Pid)
		require.Zero(t, d.end())
		pids, err := Members{AuditSession: loggedIn.AuditSession}.List()
		require.NoError(t, err)
		require.Empty(t, pids)
	}
	require.Len(t, sessions, 2, "logins do not share it")
}

func TestPAM(t *testing.T) {
	u := sessiontest.NewUser(t)
	dir := sessiontest.OpenDir(t) // pam_motd reads as the user
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	log := filepath.Join(dir, "log")
	motd := file("motd", "Be careful.\n")
	env := file("pam_env.conf", "EDITOR DEFAULT=vi\nSSH_TELEPORT_USER DEFAULT=mallory\n")
	limits := file("limits.conf", u.Name+" hard nofile 123\n"+u.Name+" soft nofile 99\n")
	service := sessiontest.NewPAMService(t,
		"auth required pam_permit.so",
		"account required pam_echo.so welcome %u",
		"account required pam_permit.so",
		"session required pam_loginuid.so",
		"session required pam_env.so readenv=0 conffile="+env,
		"session required pam_limits.so conf="+limits,
		"session optional pam_motd.so motd="+motd,
		"session required pam_exec.so log="+log+" /bin/sh -c [cat /proc/self/loginuid; echo; env]",
	)
	login := loginOf(u)
	login.PAM = PAM{Enabled: true, Service: service}
	login.Roles = []string{"access", "auditor"}

	d := startProgram(t)
	d.send(login, &Start{ID: 1, PTY: &PTY{Term: "xterm"}, Command: "ulimit -n; echo $EDITOR $SSH_TELEPORT_USER $TELEPORT_USERNAME $TELEPORT_LOGIN $TELEPORT_ROLES; exec sleep 1000"})
	require.Empty(t, d.started(1).Text, "a command's output is not mixed with PAM's text")
	want := "99\r\nvi alice alice " + u.Name + " access auditor\r\n"
	got := make([]byte, len(want))
	_, err := io.ReadFull(d.files[1][0], got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	require.Equal(t, "123\n", d.run(2, "ulimit -H -n"))
	require.Empty(t, d.started(2).Text)
	for id := uint32(3); id < 5; id++ {
		d.send(&Start{ID: id, Program: Shell, PTY: &PTY{Term: "xterm"}})
	}
	require.True(t, strings.HasPrefix(d.started(3).Text, "welcome "+u.Name+"\nBe careful.\n"), "a shell sees it: %q", d.started(3).Text)
	require.NotContains(t, d.started(4).Text, "welcome", "what was said once is not said again")
	tty := await(d, func(*LoggedIn) bool { return true }).TTY
	require.Zero(t, d.end())
	require.True(t, d.isEnded())

	text, err := os.ReadFile(log)
	require.NoError(t, err)
	for _, want := range []string{"PAM_TYPE=open_session\n", "PAM_TYPE=close_session\n"} {
		require.Contains(t, string(text), want)
	}
	for _, want := range []string{"\n" + fmt.Sprint(u.UID) + "\n", "PAM_RHOST=192.0.2.7\n", "PAM_TTY=" + tty + "\n", "PAM_USER=" + u.Name + "\n", "TELEPORT_USERNAME=alice\n"} {
		require.Equal(t, 2, strings.Count(string(text), want), "%q in %s", want, text)
	}
}

func TestPAMRefuses(t *testing.T) {
	u := sessiontest.NewUser(t)
	closed := filepath.Join(t.TempDir(), "closed")
	for _, test := range []struct {
		name   string
		lines  []string
		reason string
		text   string
	}{
		{
			"account", []string{"account required pam_echo.so not %u", "account required pam_deny.so"},
			"account: ", "not " + u.Name + "\n",
		},
		{
			"session",
			[]string{
				"auth required pam_permit.so", "account required pam_permit.so",
				"session required pam_echo.so not now", "session required pam_deny.so",
				"session required pam_exec.so type=close_session /usr/bin/touch " + closed,
			},
			"session: ", "not now\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			login := loginOf(u)
			login.PAM = PAM{Enabled: true, Service: sessiontest.NewPAMService(t, test.lines...)}
			d := startProgram(t)
			d.send(login, &Start{ID: 1, Command: "id"})
			require.Zero(t, d.exitCode())
			require.Len(t, d.messages, 1)
			refused := d.messages[0].(*Refused)
			require.Contains(t, refused.Reason, test.reason)
			require.Equal(t, test.text, refused.Text)
			require.True(t, refused.Recorded)
			require.NoFileExists(t, closed, "what was not opened is not closed")
		})
	}
	t.Run("very long text", func(t *testing.T) {
		motd := filepath.Join(t.TempDir(), "motd")
		require.NoError(t, os.WriteFile(motd, []byte(strings.Repeat("x", 60<<10)), 0o600))
		var lines []string
		for range 5 {
			lines = append(lines, "account required pam_echo.so file="+motd)
		}
		login := loginOf(u)
		login.PAM = PAM{Enabled: true, Service: sessiontest.NewPAMService(t, append(lines, "account required pam_deny.so")...)}
		d := startProgram(t)
		d.send(login, &Start{ID: 1, Command: "id"})
		require.Zero(t, d.exitCode())
		require.Contains(t, d.messages[0].(*Refused).Text, "xxx", "the refusal arrives all the same")
	})
}
