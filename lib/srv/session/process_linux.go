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

	"teleport-auditd/lib/srv/books"
)

// Default search paths, as OpenSSH and login(1) have them.
const (
	// sshrcFile is there for tests of existence: teleport-user runs it.
	sshrcFile = "/etc/ssh/sshrc"

	userPath = "/usr/local/bin:/usr/bin:/bin:/usr/games"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// open starts a process for a channel after the login's first.
func (l *login) open(m *Start) {
	term := l.reserved
	l.reserved = nil
	if m.PTY == nil || m.Program == Forward {
		l.reserved, term = term, nil
	} else if term != nil {
		if err := term.set(m.PTY); err != nil {
			l.note(err.Error())
		}
	} else {
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
	defer term.close()
	theirs, ours, err := openFiles(m, term)
	defer closeAll(theirs)
	defer closeAll(ours)
	if err != nil {
		l.note(err.Error())
		_ = l.send(&Failed{ID: m.ID, Text: "this host could not open what the process needs"})
		return
	}
	text, tty := "", ""
	if term != nil {
		tty = term.name
		last := l.enter(tty)
		if m.Program == Shell && !l.isHushed() {
			text = l.takeText() + last.String()
			if !l.request.PAM.Enabled {
				text += messageOfTheDay(motdFile)
			}
		}
	}
	pid, note, err := l.fork(m, term, theirs)
	if err != nil {
		l.leave(tty)
		_ = l.send(&Failed{ID: m.ID, Text: fmt.Sprintf("%s: %s", printable(l.program(m)), reason(err))})
		return
	}
	l.channels[m.ID] = pid
	l.leaders[pid] = true
	if tty != "" {
		l.ttys[pid] = tty
	}
	if err := l.send(&Started{ID: m.ID, PID: uint32(pid), TTY: tty, Text: text + note}, ours...); err != nil {
		// Nobody will ever read from it.
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// enter enters a process with a terminal in the host's books, before it begins
// to look there, and returns the user's login before.
func (l *login) enter(tty string) (last books.LastLogin) {
	if !l.root {
		return last
	}
	l.keepBooks(func(host books.Books) (err error) {
		last, err = host.Login(books.Entry{
			User: l.request.Account.Name,
			UID:  l.request.Account.UID,
			Line: tty,
			Addr: l.request.ClientAddr,
			PID:  os.Getpid(),
			Time: time.Now(),
		})
		return err
	})
	return last
}

// leave enters the end of what enter has entered. An empty tty is none.
func (l *login) leave(tty string) {
	if !l.root || tty == "" {
		return
	}
	l.keepBooks(func(host books.Books) error {
		return host.Logout(books.Entry{Line: tty, PID: os.Getpid(), Time: time.Now()})
	})
}

// keepBooks calls f without the limit of file sizes that PAM may have set for the
// user (pam_limits), which is none of the host's books. Root may lift it, but not
// in every container.
func (l *login) keepBooks(f func(books.Books) error) {
	var own unix.Rlimit
	free := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &own) == nil && own != free && unix.Setrlimit(unix.RLIMIT_FSIZE, &free) == nil {
		defer func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &own) }()
	}
	// A book that cannot be written to is told of once.
	if err := f(books.Host()); err != nil && !l.booksTold {
		l.booksTold = true
		l.note(fmt.Sprintf("the host's books of logins are not complete: %v", err))
	}
}

// openFiles returns the descriptors of a process, standard input, output and
// error, and those of the daemon. All are copies that the caller closes, with an
// error too.
func openFiles(m *Start, term *terminal) (theirs, ours []int, err error) {
	if term != nil {
		for _, to := range []struct {
			fds *[]int
			fd  int
		}{{&theirs, term.slave}, {&theirs, term.slave}, {&theirs, term.slave}, {&ours, term.master}} {
			fd, err := unix.FcntlInt(uintptr(to.fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return theirs, ours, fmt.Errorf("copying a terminal's descriptor: %w", err)
			}
			*to.fds = append(*to.fds, fd)
		}
		return theirs, ours, nil
	}
	if m.Program == Forward {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, nil, fmt.Errorf("opening a socket: %w", err)
		}
		theirs, ours = []int{fds[0]}, []int{fds[1]}
		for range 2 {
			fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return theirs, ours, fmt.Errorf("opening /dev/null: %w", err)
			}
			theirs = append(theirs, fd)
		}
		return theirs, ours, nil
	}
	for i := range 3 {
		reading, writing, err := openStream(m.Program == Files || m.Program == OnlyFiles)
		if err != nil {
			return theirs, ours, fmt.Errorf("opening a pipe: %w", err)
		}
		if i == 0 {
			theirs, ours = append(theirs, reading), append(ours, writing)
		} else {
			theirs, ours = append(theirs, writing), append(ours, reading)
		}
	}
	return theirs, ours, nil
}

// streamBuffer is how much waits in a stream for files.
const streamBuffer = 512 << 10

// openStream returns both ends of a pipe, or, for files, of a socket, which carries
// them with fewer pages and a fifth faster. Pipes are what commands expect: they
// can be opened again by way of /dev/stdin. And a socket carries descriptors, too,
// whose closing could hold up the daemon for as long as the user likes
// (SO_LINGER): it is taken only where the kernel can be told to carry none, since
// Linux 6.16.
func openStream(files bool) (reading, writing int, err error) {
	if files {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			for _, fd := range fds {
				err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0))
				// Not in every container: the size is then the host's own.
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, streamBuffer)
			}
			if err == nil {
				return fds[0], fds[1], nil
			}
			closeAll(fds[:])
		}
	}
	var fds [2]int
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC)
	return fds[0], fds[1], err
}

// isHushed tells whether the user wants to see nothing but a prompt (login(1)).
func (l *login) isHushed() bool {
	return l.asUser(func() error {
		var stat unix.Stat_t
		return unix.Stat(l.request.Account.Home+"/.hushlogin", &stat)
	}) == nil
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
	if m.Program != Forward {
		err = l.asUser(func() error { return unix.Chdir(account.Home) })
	}
	if err != nil {
		note = fmt.Sprintf("Could not change to the home folder %s: %s\n", printable(account.Home), reason(err))
		if err := unix.Chdir("/"); err != nil {
			return 0, "", err
		}
	}
	program, arguments := l.program(m), l.arguments(m)
	if before := l.before(m); before != nil {
		// It reads and runs the user's files as the user, and then becomes the
		// program.
		arguments = append(append(append([]string{path.Base(l.request.UserProgram)}, before...), program), arguments...)
		program = l.request.UserProgram
	}
	pid, err = syscall.ForkExec(program, arguments, attr)
	// This process must not keep the user's file systems busy.
	return pid, note, errors.Join(err, unix.Chdir("/"))
}

// program is the path of what a Start runs.
func (l *login) program(m *Start) string {
	if m.Program == Forward || m.Program == OnlyFiles {
		return l.request.UserProgram
	}
	return l.shell()
}

// arguments are the program's, its own name first.
func (l *login) arguments(m *Start) []string {
	name := path.Base(l.shell())
	switch m.Program {
	case Shell:
		return []string{"-" + name}
	case Forward:
		return []string{path.Base(l.request.UserProgram), "forward"}
	case OnlyFiles:
		return append([]string{path.Base(l.request.UserProgram), "sftp"}, strings.Fields(m.Command)...)
	case Files:
		command := quoteForShell(l.request.UserProgram) + " sftp"
		if m.Command != "" {
			command += " " + m.Command
		}
		return []string{name, "-c", command}
	}
	return []string{name, "-c", m.Command}
}

// before returns the arguments of teleport-user for what is to be done before the
// program runs (lib/srv/prepare), nil where that is nothing: most users have none
// of the files, and where they are not permitted nobody looks for them.
func (l *login) before(m *Start) []string {
	r := l.request
	if m.Program == Forward || !r.UserEnvironment && !r.UserRC && !r.SystemRC {
		return nil
	}
	exists := func(file string) bool {
		return l.asUser(func() error {
			var stat unix.Stat_t
			return unix.Stat(file, &stat)
		}) == nil
	}
	var words []string
	if r.UserEnvironment && exists(r.Account.Home+"/.ssh/environment") {
		words = append(words, "-e")
	}
	switch {
	// As with sshd, whose own file is for files too.
	case r.UserRC && m.Program != Files && m.Program != OnlyFiles && exists(r.Account.Home+"/.ssh/rc"):
		words = append(words, "-r")
	case r.SystemRC && exists(sshrcFile):
		words = append(words, "-s")
	}
	if words == nil {
		return nil
	}
	return append(append([]string{"prepare"}, words...), "--")
}

// quoteForShell makes one word of a path. What needs no quotes gets none, since
// shells that let only some programs run compare words.
func quoteForShell(s string) string {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z',
			c == '/', c == '.', c == '_', c == '-', c == '+':
		default:
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return s
}

// environment returns what the process starts with. Later values win: the
// client's, then ours, then PAM's or, without PAM, the host's, then what names the
// login, which nobody may change.
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
	// Without agent forwarding it may be that of an agent of PAM's.
	if m.AgentSocket != "" {
		set("SSH_AUTH_SOCK", m.AgentSocket)
	}
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
			l.leave(l.ttys[pid])
			delete(l.ttys, pid)
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
