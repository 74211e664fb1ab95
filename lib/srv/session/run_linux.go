// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What runs inside teleport-session. The daemon starts it, as root; it acts for
// one login of one user, and forks that user's processes, which are the only
// ones that run as the user. It takes requests from the daemon alone. It ends
// when the daemon closes the socket or dies, and leaves no process of the login
// behind.
//
// Login uid, audit session id, keyring and supplementary groups belong to the
// thread, and a forked process gets those of the thread that forks. So all of
// it happens on the main goroutine, which stays on the main thread.

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/pam"
	"teleport-auditd/lib/srv/books"
)

const (
	// hangupGrace is what the user's processes have between SIGHUP and SIGKILL.
	hangupGrace = 2 * time.Second
	// killGrace is how long processes may take to die of SIGKILL: one that
	// waits for a dead file server does not.
	killGrace = time.Second
	// maxText is how much of what PAM has to say is kept for the user.
	maxText = MaxMessage / 2
	// nologinFile closes the host to all but root while it is there.
	nologinFile = "/etc/nologin"
	// unrecordable is what a user hears where teleport.auditd.mode is required.
	unrecordable = "This login cannot be recorded, and the host requires that it is.\n"
	// passwordExpired is what a user hears whose password must be changed, where
	// PAM asks nobody.
	passwordExpired = "Your password has expired and must be changed. Logging in by certificate, this host asks for none:\n" +
		"change it on the console, or ask the administrator for ssh_service.pam.use_pam_auth.\n"
	// ttyNone is PAM_TTY where there is no terminal. PAM modules know this word
	// from OpenSSH.
	ttyNone = "ssh"
)

// login is this process: the one login that it owns.
type login struct {
	socket int
	// wake is an eventfd that a signal makes readable: the end of a child, or a
	// request to terminate, of which terminated tells.
	wake       int
	terminated func() bool

	request *Login
	root    bool
	// prepared says that prepare was called.
	prepared bool
	emitter  auditd.Emitter
	mode     auditd.Mode
	pam      *pam.Transaction
	// pamEnv is what PAM sets, or, without PAM, the host's own file.
	pamEnv []string
	groups []uint32
	tty    string
	// reserved is the terminal that the login's records name, until its process
	// starts: forwarding came first.
	reserved *terminal
	// text is what PAM had to say and nobody was told yet.
	text strings.Builder

	// channels holds the pids of the processes that run, by channel.
	channels map[uint32]int
	// leaders are the pids of all processes that were ever started here, with
	// whether they still run. Each leads a session (setsid(2)) of its own.
	leaders map[int]bool
	// ttys are the terminals of the processes in channels, by pid.
	ttys map[int]string
	// booksTold says that the daemon knows that the host's books are not complete.
	booksTold bool
}

// Run is teleport-session. The caller has locked the main goroutine to the main
// thread before main began (runtime.LockOSThread in an init function). It
// returns the exit code: 0, 1 for what went wrong, 2 where it was not the
// daemon that started it.
func Run() int {
	kind, err := unix.GetsockoptInt(Socket, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		fmt.Fprintln(os.Stderr, "ERROR: teleport-session is started by teleport for each login; run teleport start instead")
		return 2
	}
	unix.CloseOnExec(Socket)
	l := &login{
		socket:   Socket,
		root:     os.Geteuid() == 0,
		channels: make(map[uint32]int),
		leaders:  make(map[int]bool),
		ttys:     make(map[int]string),
	}
	if err := l.run(); err != nil {
		l.note(err.Error())
		return 1
	}
	return 0
}

func (l *login) run() error {
	var err error
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if l.terminated, err = watchSignals(l.wake); err != nil {
		return err
	}
	// Processes whose parents are gone become ours, so that none is lost.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the reaper of the login's processes: %w", err)
	}
	first, err := l.next()
	if err != nil || first == nil {
		return err
	}
	var ok bool
	if l.request, ok = first.(*Login); !ok {
		return errMalformed
	}
	if l.request.PAM.Authenticate {
		if refusal := l.authenticate(); refusal != nil {
			return l.refuseAttempt(refusal)
		}
		trimMemory()
	}
	second, err := l.next()
	if err != nil || second == nil {
		return errors.Join(err, l.abandon())
	}
	start, ok := second.(*Start)
	if !ok {
		return errors.Join(errMalformed, l.abandon())
	}

	term, refusal := l.logIn(start)
	trimMemory()
	if refusal != nil {
		term.close()
		return l.refuse(refusal)
	}
	defer l.emitter.Close()
	if start.Program == Forward {
		l.reserved, term = term, nil
	}
	l.start(start, term)
	serveErr := l.serve()
	return errors.Join(serveErr, l.end())
}

// refusal is why a login is not made.
type refusal struct {
	// reason is a short word for the record, text is for the user.
	reason, text string
	err          error
}

// logIn does what comes before the login's first process, up to the record.
func (l *login) logIn(start *Start) (*terminal, *refusal) {
	r := l.request
	var err error
	if l.mode, err = auditd.ParseMode(r.AuditMode); err == nil {
		l.emitter, err = auditd.New(auditd.Config{Mode: l.mode})
	}
	if err != nil {
		l.emitter = auditd.Discard{}
		return nil, &refusal{reason: "internal-error", err: err}
	}
	if refusal := l.prepare(); refusal != nil {
		return nil, refusal
	}
	if !r.PAM.Enabled {
		l.pamEnv = hostEnvironment(environmentFile)
	}
	var term *terminal
	if start.PTY != nil {
		if term, err = openTerminal(start.PTY, &r.Account, l.root); err != nil {
			return nil, &refusal{reason: "no-terminal", text: "No terminal could be opened.\n", err: err}
		}
		l.tty = term.name
	}
	if l.root {
		// The modules that add groups (pam_group) add to these.
		if err := setGroups(r.Account.Groups); err != nil {
			return term, &refusal{reason: "internal-error", err: fmt.Errorf("setting the user's groups: %w", err)}
		}
	}
	if r.PAM.Enabled {
		if err := l.authorize(); err != nil {
			return term, l.pamRefusal(err)
		}
	}
	if l.groups, err = getGroups(); err != nil {
		return term, &refusal{reason: "internal-error", err: fmt.Errorf("reading the user's groups: %w", err)}
	}
	fresh, err := l.setLoginUID()
	if err != nil && l.mode == auditd.ModeRequired {
		return term, &refusal{reason: "no-audit-session", text: unrecordable, err: err}
	}
	if r.PAM.Enabled {
		if err := l.openSession(); err != nil {
			return term, l.pamRefusal(err)
		}
	}

	if err := l.emit(auditd.AuditUserLogin, auditd.Success, ""); err != nil && l.mode == auditd.ModeRequired {
		return term, &refusal{
			reason: "no-audit-record",
			text:   unrecordable,
			err:    err,
		}
	}
	ses, err := auditd.ReadSessionID()
	if err != nil {
		ses = auditd.UnsetLoginUID
	}
	return term, l.sent(&LoggedIn{AuditSession: ses, Fresh: fresh && ses != auditd.UnsetLoginUID, TTY: l.tty})
}

// prepare checks whether there can be a login, and leaves behind what this
// process has of the daemon, before any PAM module sees it.
func (l *login) prepare() *refusal {
	if l.prepared {
		return nil
	}
	l.prepared = true
	r := l.request
	if !l.root && r.Account.UID != uint32(os.Geteuid()) {
		return &refusal{
			reason: "not-root",
			text:   "This node runs without root and cannot switch users.\n",
			err:    fmt.Errorf("teleport runs without root and cannot become %q", r.Account.Name),
		}
	}
	// With PAM the stack decides (pam_nologin).
	if !r.PAM.Enabled && r.Account.UID != 0 {
		if text, closed := hostClosed(nologinFile); closed {
			return &refusal{reason: "nologin", text: text, err: errors.New("the host is closed to all but root: " + nologinFile)}
		}
	}
	if err := restoreFileLimit(); err != nil {
		l.note(err.Error())
	}
	if err := freshKeyring(); err != nil {
		return &refusal{reason: "internal-error", err: err}
	}
	l.freshAudit()
	return nil
}

// hostClosed tells whether the administrator has closed the host to everybody
// else with a file (nologin(5)), and returns what the file has to say.
func hostClosed(file string) (text string, closed bool) {
	f, err := os.Open(file)
	if err != nil {
		return "", !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText))
	if err != nil || len(b) == 0 {
		return "", true
	}
	return strings.TrimSuffix(string(b), "\n") + "\n", true
}

// sent sends a message of the login's beginning. A daemon that is gone has ended
// the login, which serve finds out next.
func (l *login) sent(m Message) *refusal {
	_ = l.send(m)
	return nil
}

// freshKeyring leaves the session keyring that the daemon was started with, of
// which all of its logins would otherwise share the keys: whoever has inherited a
// keyring possesses it, whatever its uid. pam_keyinit makes yet another one.
func freshKeyring() error {
	// Without a name: one with a name could be joined by others.
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	switch errno {
	case 0, unix.ENOSYS, unix.EPERM:
		// A kernel without keyrings has none to share, and a container that
		// may not ask for one lets nobody use any.
		return nil
	}
	return fmt.Errorf("leaving the daemon's session keyring: %w", errno)
}

// freshAudit clears a login uid that the daemon inherited from whoever started
// it, which it should not have: the login would otherwise share that person's
// audit session. A kernel that keeps login uids immutable refuses.
func (l *login) freshAudit() {
	if !l.root {
		return
	}
	uid, err := auditd.ReadLoginUID()
	if err != nil || uid == auditd.UnsetLoginUID {
		return
	}
	if err := auditd.SetLoginUID(auditd.UnsetLoginUID); err != nil {
		l.note(fmt.Sprintf("this login shares the audit session of whoever started teleport: %v", err))
	}
}

// setLoginUID makes the login a new audit session. It comes before the PAM
// session, so that its records and modules see it, whether or not pam_loginuid
// is in the stack: that module leaves a login uid alone that is right already.
func (l *login) setLoginUID() (fresh bool, err error) {
	if !l.root {
		return false, nil
	}
	err = auditd.SetLoginUID(l.request.Account.UID)
	if errors.Is(err, auditd.ErrAbsent) {
		return false, nil
	}
	if err != nil {
		l.note(fmt.Sprintf("the audit trail cannot tell this login's session: %v", err))
	}
	return err == nil, err
}

// authorize asks PAM for the account, unless authenticate has, and for the
// credentials.
func (l *login) authorize() error {
	defer theirFaults()()
	if l.pam == nil {
		if err := l.startPAM(); err != nil {
			return err
		}
		if err := l.pam.CheckAccount(); err != nil {
			return err
		}
	} else if l.tty != "" {
		if err := l.pam.SetTTY(l.tty); err != nil {
			return err
		}
	}
	return l.pam.Establish()
}

func (l *login) startPAM() error {
	r := l.request
	cfg := pam.Config{
		Service: r.PAM.Service,
		User:    r.Account.Name,
		RHost:   addressOf(r.ClientAddr),
		TTY:     l.tty,
		Env: append([]string{
			"TELEPORT_USERNAME=" + r.TeleportUser,
			"TELEPORT_LOGIN=" + r.Account.Name,
			"TELEPORT_ROLES=" + strings.Join(r.Roles, " "),
		}, r.PAM.Env...),
		Text: l.addText,
	}
	if cfg.TTY == "" {
		cfg.TTY = ttyNone
	}
	if r.PAM.Authenticate {
		cfg.Prompt = l.prompt
	}
	var err error
	l.pam, err = pam.Start(cfg)
	return err
}

func (l *login) openSession() error {
	defer theirFaults()()
	if err := l.pam.OpenSession(); err != nil {
		return err
	}
	var err error
	l.pamEnv, err = l.pam.Environment()
	return err
}

func (l *login) pamRefusal(err error) *refusal {
	if errors.Is(err, pam.ErrPasswordExpired) {
		return &refusal{reason: "pam-password-expired", text: l.takeText() + passwordExpired, err: err}
	}
	reason := "pam"
	if e, ok := errors.AsType[*pam.Error](err); ok {
		reason = "pam-" + string(e.Stage)
	}
	return &refusal{reason: reason, text: l.takeText(), err: err}
}

// refuse tells the audit system and the daemon why nobody has logged in.
func (l *login) refuse(r *refusal) error {
	if l.root {
		l.keepBooks(func(host books.Books) error {
			return host.Failed(books.Entry{User: l.request.Account.Name, Addr: l.request.ClientAddr, PID: os.Getpid(), Time: time.Now()})
		})
	}
	// The daemon was told of a record that was not written.
	_ = l.emit(auditd.AuditUserLogin, auditd.Failed, r.reason)
	_ = l.emit(auditd.AuditUserErr, auditd.Failed, r.reason)
	// Before PAM ends, whose modules may take this process with them: what is
	// recorded is not to be recorded again.
	err := l.send(&Refused{Reason: r.err.Error(), Text: r.text, Recorded: true})
	return errors.Join(err, l.closePAM(), l.emitter.Close())
}

func (l *login) closePAM() error {
	if l.pam == nil {
		return nil
	}
	defer theirFaults()()
	return l.pam.Close()
}

// emit writes one record of this login. What goes wrong is the daemon's to
// count.
func (l *login) emit(event auditd.EventType, result auditd.Result, reason string) error {
	r := l.request
	err := l.emitter.Emit(context.Background(), auditd.Event{
		Type:         event,
		Result:       result,
		SystemUser:   r.Account.Name,
		UID:          &r.Account.UID,
		TeleportUser: r.TeleportUser,
		ConnAddress:  r.ClientAddr,
		TTYName:      l.tty,
		Reason:       reason,
	})
	if err != nil {
		_ = l.send(&Note{Unrecorded: true, Text: err.Error()})
	}
	return err
}

// addText keeps a line of PAM's for the user.
func (l *login) addText(s string) {
	// A message that is too long is not sent at all.
	room := maxText - l.text.Len()
	if room <= 0 {
		return
	}
	s = s[:min(len(s), room)]
	l.text.WriteString(s)
	if !strings.HasSuffix(s, "\n") {
		l.text.WriteByte('\n')
	}
}

func (l *login) takeText() string {
	text := l.text.String()
	l.text.Reset()
	return text
}

// serve carries out the daemon's requests until it has no more: it returns nil
// when the connection has ended, the daemon has died, or somebody asked this
// process to terminate.
func (l *login) serve() error {
	for {
		m, err := l.next()
		if err != nil || m == nil {
			return err
		}
		switch m := m.(type) {
		case *Start:
			l.open(m)
		case *Signal:
			l.signal(m)
		default:
			return errMalformed
		}
	}
}

// end ends the processes and tells everybody who must know, whatever fails on
// the way.
func (l *login) end() error {
	l.reserved.close()
	err := l.endProcesses()
	for _, tty := range l.ttys {
		// Its process did not end.
		l.leave(tty)
	}
	// The daemon was told of a record that was not written.
	_ = l.emit(auditd.AuditUserEnd, auditd.Success, "")
	err = errors.Join(err, ignoreGone(l.send(&Ended{})))
	return errors.Join(err, l.closePAM())
}

// ignoreGone drops the error of telling a daemon that is gone.
func ignoreGone(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// next returns the daemon's next request, and takes the ends of processes until
// there is one. It is nil when there will be none: the daemon has closed its end,
// or somebody asked this process to terminate.
func (l *login) next() (Message, error) {
	fds := []unix.PollFd{
		{Fd: int32(l.socket), Events: unix.POLLIN},
		{Fd: int32(l.wake), Events: unix.POLLIN},
	}
	for {
		n, err := unix.Poll(fds, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("waiting for the daemon: %w", err)
		}
		l.reap()
		if l.terminated() {
			return nil, nil
		}
		if n > 0 && fds[0].Revents != 0 {
			return l.receive()
		}
	}
}

// receive returns the next message, or nil when the daemon has closed its end.
func (l *login) receive() (Message, error) {
	for {
		n, _, err := unix.Recvfrom(l.socket, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("receiving from the daemon: %w", err)
		case n > MaxMessage:
			return nil, errMalformed
		}
		b := make([]byte, n)
		n, _, err = unix.Recvfrom(l.socket, b, 0)
		if err != nil {
			return nil, fmt.Errorf("receiving from the daemon: %w", err)
		}
		return Decode(b[:n])
	}
}

// send sends a message with descriptors, which stay the caller's to close.
func (l *login) send(m Message, fds ...int) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(l.socket, b, rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// note puts a line into the daemon's log, if there is one to hear it.
func (l *login) note(text string) { _ = l.send(&Note{Text: text}) }

// addressOf returns the IP of an IP:port, without zone or mapping.
func addressOf(s string) string {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().WithZone("").String()
}
