// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One user process: its descriptors, environment, credentials and end.

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Default search paths, as OpenSSH and login(1) have them.
const (
	userPath = "/usr/local/bin:/usr/bin:/bin:/usr/games"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// open starts a process for a channel after the login's first.
func (l *login) open(m *Start) {
	var term *terminal
	if m.PTY != nil {
		var err error
		if term, err = openTerminal(m.PTY, &l.request.Account, l.root); err != nil {
			l.note(err.Error())
			_ = l.send(&Failed{ID: m.ID, Text: "no terminal could be opened"})
			return
		}
	}
	l.start(m, term)
}

// start starts the process of a channel and tells the daemon. term is nil for
// pipes, and closed on return.
func (l *login) start(m *Start, term *terminal) {
	var theirs, ours []int
	if term != nil {
		theirs = []int{term.slave, term.slave, term.slave}
		ours = []int{term.master}
		defer term.close()
	} else {
		pipes, err := openPipes()
		if err != nil {
			l.note(err.Error())
			_ = l.send(&Failed{ID: m.ID, Text: "no pipes could be opened"})
			return
		}
		defer closeAll(pipes[:])
		theirs = []int{pipes[0], pipes[3], pipes[5]}
		ours = []int{pipes[1], pipes[2], pipes[4]}
	}
	text := ""
	if term != nil {
		text = l.takeText()
	}
	pid, note, err := l.fork(m, term, theirs)
	if err != nil {
		_ = l.send(&Failed{ID: m.ID, Text: fmt.Sprintf("%s: %s", l.shell(), reason(err))})
		return
	}
	l.channels[m.ID] = pid
	l.leaders[pid] = true
	if err := l.send(&Started{ID: m.ID, PID: uint32(pid), Text: text + note}, ours...); err != nil {
		// Nobody will ever read from it.
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// reason returns what a failed start says to a user: the errno's own words.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

func (l *login) shell() string {
	if s := l.request.Account.Shell; s != "" {
		return s
	}
	return "/bin/sh" // as passwd(5) has it for an empty field
}

// fork starts the process on the main thread, whose audit ids it inherits. The
// note is for the user.
func (l *login) fork(m *Start, term *terminal, files []int) (pid int, note string, err error) {
	if err := closeOnExec(); err != nil {
		return 0, "", err
	}
	account := &l.request.Account
	shell := l.shell()
	argv := []string{path.Base(shell), "-c", m.Command}
	if m.Shell {
		argv = []string{"-" + path.Base(shell)}
	}
	attr := &syscall.ProcAttr{
		Env:   l.environment(m, term),
		Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys: &syscall.SysProcAttr{
			Setsid:  true,
			Setctty: term != nil,
			// If this process is killed, the user's go too.
			Pdeathsig: syscall.SIGKILL,
		},
	}
	if l.root {
		attr.Sys.Credential = &syscall.Credential{Uid: account.UID, Gid: account.GID, Groups: l.groups}
	}
	// The working directory is set here, as the user, and inherited: a home
	// folder may be closed to root (NFS), and a missing one must not be taken
	// for a missing shell.
	err = l.asUser(func() error { return unix.Chdir(account.Home) })
	if err != nil {
		note = fmt.Sprintf("Could not change to the home folder %s: %s\n", printable(account.Home), reason(err))
		if err := unix.Chdir("/"); err != nil {
			return 0, "", err
		}
	}
	pid, err = syscall.ForkExec(shell, argv, attr)
	// This process must not keep the user's file systems busy.
	return pid, note, errors.Join(err, unix.Chdir("/"))
}

// environment returns what the process starts with. Later values win: the
// client's, then ours, then PAM's, then what names the login, which nobody may
// change.
func (l *login) environment(m *Start, term *terminal) []string {
	r := l.request
	values := make(map[string]string)
	var order []string
	set := func(name, value string) {
		// execve(2) ends a string at NUL: the rest would be lost, and what is
		// left would be another value.
		if strings.IndexByte(name, 0) >= 0 || strings.IndexByte(value, 0) >= 0 {
			return
		}
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	setAll := func(pairs []string) {
		for _, pair := range pairs {
			if name, value, ok := strings.Cut(pair, "="); ok && name != "" {
				set(name, value)
			}
		}
	}
	setAll(m.Env)
	set("HOME", r.Account.Home)
	set("USER", r.Account.Name)
	set("LOGNAME", r.Account.Name)
	set("SHELL", l.shell())
	set("MAIL", "/var/mail/"+r.Account.Name)
	set("PATH", userPath)
	if r.Account.UID == 0 {
		set("PATH", rootPath)
	}
	setAll(l.pamEnv)
	// What has no value in this login gets none from elsewhere either.
	own := func(name, value string) {
		delete(values, name)
		if value != "" {
			set(name, value)
		}
	}
	var clientAddr, connection string
	if client, err := netip.ParseAddrPort(r.ClientAddr); err == nil {
		if server, err := netip.ParseAddrPort(r.ServerAddr); err == nil {
			clientAddr = fmt.Sprintf("%s %d %d", client.Addr().Unmap(), client.Port(), server.Port())
			connection = fmt.Sprintf("%s %d %s %d", client.Addr().Unmap(), client.Port(), server.Addr().Unmap(), server.Port())
		}
	}
	own("SSH_CLIENT", clientAddr)
	own("SSH_CONNECTION", connection)
	tty := ""
	if term != nil {
		tty = term.name
		set("TERM", term.term)
	}
	own("SSH_TTY", tty)
	own("SSH_TELEPORT_USER", r.TeleportUser)
	own("SSH_TELEPORT_HOST_UUID", r.HostUUID)
	own("SSH_TELEPORT_CLUSTER_NAME", r.ClusterName)

	env := make([]string, 0, len(order))
	for _, name := range order {
		if value, ok := values[name]; ok {
			env = append(env, name+"="+value)
			// A name that was left out for a while is in the order twice.
			delete(values, name)
		}
	}
	return env
}

// signals are those that a client may send (RFC 4254, section 6.10).
var signals = [...]struct {
	name   string
	signal unix.Signal
}{
	{"ABRT", unix.SIGABRT}, {"ALRM", unix.SIGALRM}, {"FPE", unix.SIGFPE}, {"HUP", unix.SIGHUP},
	{"ILL", unix.SIGILL}, {"INT", unix.SIGINT}, {"KILL", unix.SIGKILL}, {"PIPE", unix.SIGPIPE},
	{"QUIT", unix.SIGQUIT}, {"SEGV", unix.SIGSEGV}, {"TERM", unix.SIGTERM},
	{"USR1", unix.SIGUSR1}, {"USR2", unix.SIGUSR2},
}

func signalOf(name string) (unix.Signal, bool) {
	for _, s := range signals {
		if s.name == name {
			return s.signal, true
		}
	}
	return 0, false
}

// signal sends a client's signal to those that the user may signal: the process
// group may hold a program of somebody else's (setuid).
func (l *login) signal(m *Signal) {
	pid, runs := l.channels[m.ID]
	sig, known := signalOf(m.Name)
	if !runs || !known {
		return
	}
	if !l.root {
		_ = unix.Kill(-pid, sig)
		return
	}
	if err := killGroupAs(l.request.Account.UID, pid, sig); err != nil {
		l.note(err.Error())
	}
}

// asUser runs f with the user's file access, on this thread only.
func (l *login) asUser(f func() error) error {
	if !l.root {
		return f()
	}
	account := &l.request.Account
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(account.GID), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(account.UID), 0, 0)
	defer func() {
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
	}()
	return f()
}

// setGroups sets this thread's supplementary groups. The whole process would
// not be wrong, but Go does that thread by thread, which takes a while.
func setGroups(groups []uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	runtime.KeepAlive(groups)
	if errno != 0 {
		return errno
	}
	return nil
}

func getGroups() ([]uint32, error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return nil, err
	}
	out := make([]uint32, len(groups))
	for i, g := range groups {
		out[i] = uint32(g)
	}
	return out, nil
}

// closeOnExec keeps every descriptor from the user's process but the three that
// it is given: PAM modules open descriptors that Go knows nothing of.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// The kernel has it since 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("listing open descriptors: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// openPipes returns reading and writing ends of three pipes, in that order.
func openPipes() ([6]int, error) {
	var fds [6]int
	for i := 0; i < len(fds); i += 2 {
		if err := unix.Pipe2(fds[i:i+2], unix.O_CLOEXEC); err != nil {
			closeAll(fds[:i])
			return fds, fmt.Errorf("opening a pipe: %w", err)
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// reap takes the ends of processes, those of channels to the daemon. It tells
// whether any process of the login is left.
func (l *login) reap() (left bool) {
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:])
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return err == nil
		}
		for id, p := range l.channels {
			if p != pid {
				continue
			}
			delete(l.channels, id)
			l.leaders[pid] = false
			m := &Exited{ID: id, Status: uint32(status.ExitStatus())}
			if status.Signaled() {
				m = &Exited{ID: id, Signal: signalName(status.Signal()), CoreDumped: status.CoreDump()}
			}
			_ = l.send(m)
		}
	}
}

// signalName returns the name that exit-signal carries: those of RFC 4254, and
// for others a local name with the @ that the RFC asks for.
func signalName(s syscall.Signal) string {
	name := strings.TrimPrefix(unix.SignalName(s), "SIG")
	if _, ok := signalOf(name); ok {
		return name
	}
	if name == "" {
		name = strconv.Itoa(int(s))
	}
	return name + "@teleport"
}

// endProcesses ends what still runs: SIGHUP, and SIGKILL to what is left after
// hangupGrace. The error says what even SIGKILL has left.
//
// A look at the host's processes is no snapshot: it can miss one whose parent has
// just ended. Whether any is left is what wait4(2) says, as this process adopts
// all of them; only of those that are spared it cannot tell.
func (l *login) endProcesses() error {
	members := Members{Ancestor: os.Getpid()}
	if l.request.KeepDetached {
		members.Leaders = l.leaders
	}
	killAt := time.Now().Add(hangupGrace)
	// On a busy host much time passes between two looks: what is left was killed
	// before it is given up.
	var giveUpAt time.Time
	// Each end of a process cuts the wait short. Looking at all processes of the
	// host costs more the more logins end at once.
	wait, seen := 5*time.Millisecond, make(map[int]bool)
	unseen := 0
	for l.reap() {
		pids, err := members.List()
		if err == nil && len(pids) == 0 {
			unseen++
		} else {
			unseen = 0
		}
		if unseen == looks && l.request.KeepDetached {
			return nil
		}
		now := time.Now()
		killing := now.After(killAt)
		switch {
		case !giveUpAt.IsZero() && now.After(giveUpAt):
			return errors.Join(err, fmt.Errorf("processes %v of %q do not end", pids, l.request.Account.Name))
		case killing:
			signalAll(pids, unix.SIGKILL)
			if giveUpAt.IsZero() {
				giveUpAt, wait = time.Now().Add(killGrace), time.Millisecond
			}
		default:
			for _, pid := range pids {
				if !seen[pid] {
					seen[pid] = true
					// A stopped process takes SIGHUP only when it goes on.
					signalAll([]int{pid}, unix.SIGHUP)
					signalAll([]int{pid}, unix.SIGCONT)
				}
			}
		}
		if killing {
			l.pause(min(wait, 5*time.Millisecond))
		} else {
			l.pause(min(wait, killAt.Sub(now)))
		}
		wait = min(2*wait, 250*time.Millisecond)
	}
	return nil
}

// pause waits until a process has ended, for d at most.
func (l *login) pause(d time.Duration) {
	fds := []unix.PollFd{{Fd: int32(l.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, int(d.Milliseconds())+1)
}

func signalAll(pids []int, sig unix.Signal) {
	for _, pid := range pids {
		_ = unix.Kill(pid, sig)
	}
}

// printable keeps a path from the user database from writing control sequences
// to a terminal.
func printable(s string) string {
	return strings.Trim(strconv.Quote(s), `"`)
}
