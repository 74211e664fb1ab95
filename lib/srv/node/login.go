// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The daemon's end of a login: it starts teleport-session, asks it for
// processes, and sees to it that nothing is left when it ends.

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/account"
	"teleport-auditd/lib/srv/books"
	"teleport-auditd/lib/srv/seqpacket"
	"teleport-auditd/lib/srv/session"
)

const (
	// maxFiles is how many descriptors come with a process at most.
	maxFiles = 3
	// endTimeout bounds how long the daemon waits, when it ends itself, for a
	// login to end. teleport-session goes on without it.
	endTimeout = 8 * time.Second
	// continueInterval is the time between two tries to wake a teleport-session
	// that was stopped.
	continueInterval = time.Second
	// hangTimeout bounds how long a login takes to end while the daemon lives.
	// PAM modules that talk to a server take their time.
	hangTimeout = time.Minute
	// killTimeout bounds how long processes may take to die of SIGKILL.
	killTimeout = time.Second
	// tellTimeout bounds how long a client may take to hear what became of its
	// login before the connection is closed.
	tellTimeout = 5 * time.Second
	// askTimeout bounds how long a request to teleport-session may take to be
	// sent. Only one that does not read, since it was stopped, needs any time.
	askTimeout = 5 * time.Second
)

// errEnded is why a process was not started on a login that is over.
var errEnded = errors.New("the login has ended")

// refusedError is why there is no login.
type refusedError struct {
	// text is for the user.
	text string
	err  error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// failedError is why a process could not be started, for the user.
type failedError struct{ text string }

func (e *failedError) Error() string { return e.text }

// process is a user's process. Whoever got it closes files.
type process struct {
	id uint32
	// files are the terminal's master, or standard input, output and error, or
	// the socket of what forwards.
	files []*os.File
	text  string
	// exited gets how the process ended, or is closed when nobody knows.
	exited <-chan *session.Exited
}

// login is one connection's login, with the teleport-session that owns it. The
// program starts with the first process.
type login struct {
	server        *Server
	identity      srv.Identity
	remote, local net.Addr
	log           logrus.FieldLogger

	mu sync.Mutex
	// conn is nil while the client authenticates.
	conn *connection
	// asked gets what teleport-session has to ask and to say of PAM's
	// authentication; nil where there is none, and when it is over.
	asked chan session.Message
	// socket is nil before the first process.
	socket *net.UnixConn
	nextID uint32
	// teleportSession is the program that runs, nil before the first process.
	teleportSession *os.Process
	// waiting holds who waits for the start of a process, running who waits for
	// its end, by channel.
	waiting map[uint32]waiter
	running map[uint32]running
	account *session.Account
	// loggedIn is what teleport-session said of the login, refused why there is
	// none.
	loggedIn *session.LoggedIn
	refused  error
	// ended says that teleport-session has told the audit system of the end.
	ended bool
	over  bool
	// events is what Config.Events has heard of the login; its zero value has
	// heard nothing.
	events loginEvents
	// leaders are the processes that were started, each of which leads a
	// session, with whether they still run.
	leaders map[int]bool
	// telling counts the channels whose clients wait to hear what became of them.
	telling sync.WaitGroup

	// done is closed when teleport-session is gone.
	done chan struct{}
}

type waiter struct {
	answer chan result
	// files is how many descriptors the process comes with.
	files int
	// start is what was asked for.
	start *session.Start
}

type result struct {
	process *process
	err     error
}

type running struct {
	pid int
	// tty is the terminal's path, empty for none.
	tty    string
	exited chan *session.Exited
}

func newLogin(s *Server, id srv.Identity, remote, local net.Addr) *login {
	return &login{
		server:   s,
		identity: id,
		remote:   remote,
		local:    local,
		log: s.log.WithFields(logrus.Fields{
			"login": id.Login,
			"user":  id.TeleportUser,
			"addr":  remote.String(),
		}),
		waiting: make(map[uint32]waiter),
		running: make(map[uint32]running),
		leaders: make(map[int]bool),
		done:    make(chan struct{}),
	}
}

// adopt makes c the connection whose login this is.
func (l *login) adopt(c *connection) {
	l.mu.Lock()
	l.conn = c
	over := l.over
	l.mu.Unlock()
	if over {
		// teleport-session has ended since the client authenticated.
		_ = c.Close()
	}
}

// disconnect closes the connection, if there is one yet.
func (l *login) disconnect() {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// survive is for defer: a panic ends this login alone.
func (l *login) survive() {
	if cause := recover(); cause != nil {
		l.log.Errorf("The login has ended, because serving it panicked: %v", cause)
		l.log.Debugf("%s", debug.Stack())
		l.disconnect()
	}
}

// hold keeps the connection open at the login's end, until release is called:
// the client is to hear of it.
func (l *login) hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return func() {}
	}
	l.telling.Add(1)
	return l.telling.Done
}

// start starts a process, the first one with the login. The error is a
// *refusedError, a *failedError, or says what went wrong on this host.
func (l *login) start(m *session.Start) (*process, error) {
	answer := make(chan result, 1)
	if err := l.ask(m, answer); err != nil {
		return nil, trace.Wrap(err)
	}
	r := <-answer
	return r.process, trace.Wrap(r.err)
}

// ask sends a Start, and registers who waits for its answer.
func (l *login) ask(m *session.Start, answer chan result) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.refused != nil:
		return trace.Wrap(l.refused)
	case l.over:
		return trace.Wrap(errEnded)
	}
	l.nextID++
	m.ID = l.nextID
	start, err := session.Encode(m)
	if err != nil {
		return trace.Wrap(&failedError{text: err.Error()})
	}
	if l.socket == nil {
		if err := l.run(); err != nil {
			if l.socket == nil {
				// There is no teleport-session to record it.
				l.refused = err
				l.recordRefusal("session-process-not-started")
			}
			return trace.Wrap(err)
		}
	}
	files := maxFiles
	if m.PTY != nil || m.Program == session.Forward {
		files = 1
	}
	l.waiting[m.ID] = waiter{answer: answer, files: files, start: m}
	if err := l.write(start); err != nil {
		delete(l.waiting, m.ID)
		return trace.Wrap(err, "asking teleport-session for a process")
	}
	return nil
}

// run starts teleport-session and tells it whose login it is. The caller holds
// the lock.
func (l *login) run() error {
	cfg, id := &l.server.cfg, &l.identity
	a, err := account.Lookup(id.Login)
	if err != nil {
		return trace.Wrap(err)
	}
	l.account = a
	hello, err := session.Encode(&session.Login{
		Account:      *a,
		TeleportUser: id.TeleportUser,
		Roles:        id.Roles,
		ClientAddr:   l.remote.String(),
		ServerAddr:   l.local.String(),
		HostUUID:     cfg.HostUUID,
		ClusterName:  cfg.ClusterName,
		PAM: session.PAM{
			Enabled: cfg.PAM.Enabled, Service: cfg.PAM.ServiceName,
			Authenticate: l.asked != nil, Env: l.pamEnvironment(),
		},
		AuditMode:    string(cfg.AuditMode),
		KeepDetached: cfg.KeepDetached,
		UserProgram:  cfg.UserProgram,
		// With files of theirs users would get round a certificate's command.
		UserEnvironment: cfg.PermitUserEnv && id.ForceCommand == "",
		UserRC:          cfg.PermitUserEnv && id.ForceCommand == "" && id.PermitUserRC,
		SystemRC:        cfg.PermitUserEnv,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	ours, theirs, err := seqpacket.Pair()
	if err != nil {
		return trace.Wrap(err, "opening a socket to teleport-session")
	}
	defer theirs.Close()
	cmd := exec.Command(cfg.SessionProgram)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Env = append(cmd.Env, smallRuntime...)
	if !l.server.debug {
		// Where it goes wrong the log has a line; goroutines are for developers.
		cmd.Env = append(cmd.Env, "GOTRACEBACK=none")
	}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	// A terminal that the daemon was started on must not reach the logins.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		return trace.Wrap(err, "starting %s", cfg.SessionProgram)
	}
	l.socket, l.teleportSession = ours, cmd.Process
	go func() {
		defer l.survive()
		l.listen(cmd)
	}()
	if err := l.write(hello); err != nil {
		return trace.Wrap(err, "telling teleport-session whose login it is")
	}
	return nil
}

// write sends a message to teleport-session. The caller holds the lock.
func (l *login) write(b []byte) error {
	if err := l.socket.SetWriteDeadline(time.Now().Add(askTimeout)); err != nil {
		return trace.Wrap(err)
	}
	_, err := l.socket.Write(b)
	return trace.Wrap(err)
}

// smallRuntime is how Go's runtime in teleport-session wastes the least, as there
// is one for each login: it has one thread's worth of work, and what it
// allocates in its life is less than what collecting it would take. A login that
// runs very many commands collects all the same, at the limit.
var smallRuntime = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}

// signal sends a client's signal to a process.
func (l *login) signal(id uint32, name string) {
	b, err := session.Encode(&session.Signal{ID: id, Name: name})
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		// A client is not told whether a signal has arrived.
		_ = l.write(b)
	}
}

// end ends the login and returns when nothing is left of it, or, if ctx has
// ended too, when that takes too long.
func (l *login) end(ctx context.Context) {
	l.mu.Lock()
	l.over = true
	socket := l.socket
	l.mu.Unlock()
	if socket == nil {
		return
	}
	_ = socket.CloseWrite()
	clock := l.server.cfg.Clock
	again := clock.NewTicker(continueInterval)
	defer again.Stop()
	hung := clock.NewTimer(hangTimeout)
	defer hung.Stop()
	var timeout <-chan time.Time
	ending := ctx.Done()
	for {
		// Whoever has stopped it does not keep the login from ending.
		_ = l.teleportSession.Signal(syscall.SIGCONT)
		select {
		case <-l.done:
			return
		case <-again.Chan():
		case <-hung.Chan():
			// What PAM has left undone nobody will do; the rest listen does.
			l.log.Errorf("teleport-session has not ended its login within %v, which PAM keeps it from: killing it.", hangTimeout)
			_ = l.teleportSession.Kill()
		case <-ending:
			ending = nil
			timer := clock.NewTimer(endTimeout)
			defer timer.Stop()
			timeout = timer.Chan()
		case <-timeout:
			l.log.Warn("teleport-session has not ended its login yet, and goes on without the daemon.")
			l.mu.Lock()
			l.tellEnd()
			l.mu.Unlock()
			return
		}
	}
}

// listen takes what teleport-session says until it is gone, and then does what
// is left to do.
func (l *login) listen(cmd *exec.Cmd) {
	defer close(l.done)
	for {
		body, fds, err := seqpacket.Receive(l.socket, session.MaxMessage, maxFiles)
		if err != nil {
			l.log.WithError(err).Error("The socket to teleport-session has failed.")
			break
		}
		if body == nil {
			break
		}
		m, err := session.Decode(body)
		if err != nil {
			// It ends its login now. What it says is read to the end, lest it
			// waits for somebody to read.
			l.log.WithError(err).Error("The answer of teleport-session cannot be read.")
			go seqpacket.CloseAll(fds)
			_ = l.socket.CloseWrite()
			continue
		}
		l.take(m, fds)
	}
	_ = l.socket.CloseWrite()
	err := cmd.Wait()
	_ = l.socket.Close()
	l.finish(err)
	l.waitUntilTold()
	// Without its login a connection is good for nothing.
	l.disconnect()
}

// waitUntilTold waits for the channels that have something to tell their
// clients. There are no new ones, since the login is over.
func (l *login) waitUntilTold() {
	told := make(chan struct{})
	go func() {
		l.telling.Wait()
		close(told)
	}()
	timer := l.server.cfg.Clock.NewTimer(tellTimeout)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.Chan():
	}
}

// take carries out one message. The descriptors are its own.
func (l *login) take(m session.Message, fds []int) {
	log := l.log
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m := m.(type) {
	case *session.Prompt, *session.Authenticated:
		l.tell(m)
	case *session.LoggedIn:
		l.loggedIn = m
		log.WithField("ses", m.AuditSession).WithField("tty", m.TTY).Info("Login.")
	case *session.Refused:
		log.WithField("reason", m.Reason).Log(l.refusalLevel(), "The host refused the login.")
		if l.asked != nil {
			l.tell(m)
			break
		}
		l.refused = trace.Wrap(&refusedError{text: m.Text, err: errors.New(m.Reason)})
		l.ended = m.Recorded
		l.tellHostRefused(m)
		l.answerAll(l.refused)
	case *session.Started:
		l.leaders[int(m.PID)] = true
		wait, ok := l.waiting[m.ID]
		if !ok {
			break
		}
		delete(l.waiting, m.ID)
		l.tellStart(wait.start)
		exited := make(chan *session.Exited, 1)
		l.running[m.ID] = running{pid: int(m.PID), tty: m.TTY, exited: exited}
		if len(fds) != wait.files {
			// The kernel keeps back what this process has no room for. Without
			// its descriptors the user's process finds its input at the end.
			wait.answer <- result{err: trace.LimitExceeded(
				"%d of %d descriptors of a process have arrived: raise the limit of open files (ulimit -n, LimitNOFILE)", len(fds), wait.files)}
			break
		}
		p := &process{id: m.ID, text: m.Text, exited: exited}
		for _, fd := range fds {
			p.files = append(p.files, os.NewFile(uintptr(fd), "user process"))
		}
		fds = nil
		wait.answer <- result{process: p}
	case *session.Failed:
		if wait, ok := l.waiting[m.ID]; ok {
			delete(l.waiting, m.ID)
			wait.answer <- result{err: &failedError{text: m.Text}}
		}
	case *session.Exited:
		if p, ok := l.running[m.ID]; ok {
			delete(l.running, m.ID)
			l.leaders[p.pid] = false
			p.exited <- m
			close(p.exited)
		}
	case *session.Note:
		if m.Unrecorded {
			l.server.cfg.Unrecorded.Count(errors.New(m.Text))
		} else {
			log.Warn(m.Text)
		}
	case *session.Ended:
		l.ended = true
	default:
		log.Errorf("teleport-session sent a message that is the daemon's to send (%T).", m)
	}
	if len(fds) > 0 {
		// A user's process has the other ends, and might hold up the login.
		go seqpacket.CloseAll(fds)
	}
}

// answerAll tells everybody who waits for a process that there will be none.
// The caller holds the lock.
func (l *login) answerAll(err error) {
	for id, wait := range l.waiting {
		delete(l.waiting, id)
		wait.answer <- result{err: err}
	}
}

// finish cleans up after teleport-session, as it should have done itself and,
// if it was killed, could not.
func (l *login) finish(exit error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tellEnd()
	givenUp := l.over
	l.over = true
	how, crashed := describeExit(exit)
	if l.asked != nil {
		// lib/srv records the attempts of a connection as one.
		if !givenUp && (crashed || exit != nil) {
			l.log.Errorf("%s while PAM authenticated the user%s.", how, l.suspects(crashed))
		}
		return
	}
	l.answerAll(errEnded)
	var ttys []string
	for id, p := range l.running {
		delete(l.running, id)
		close(p.exited)
		if p.tty != "" {
			ttys = append(ttys, p.tty)
		}
	}
	if l.ended {
		if crashed {
			l.log.Errorf("%s when its login was over%s.", how, l.suspects(crashed))
		}
		if l.loggedIn != nil {
			l.log.WithField("ses", l.loggedIn.AuditSession).Info("Logout.")
		}
		return
	}
	l.log.Errorf("%s without ending its login%s; the daemon does what is left to do.", how, l.suspects(crashed))
	// The audit session tells best what belongs to a login: nobody else has it,
	// and nobody leaves it.
	members := session.Members{Leaders: l.leaders}
	if l.loggedIn != nil && l.loggedIn.Fresh {
		members.AuditSession = l.loggedIn.AuditSession
		if !l.server.cfg.KeepDetached {
			members.Leaders = nil
		}
	}
	if err := members.Kill(killTimeout); err != nil {
		l.log.WithError(err).Error("Processes of a login are left.")
	}
	if l.loggedIn == nil {
		// Who has authenticated and gone has not tried to log in.
		if l.nextID > 0 || !givenUp {
			l.recordRefusal("session-process-died")
		}
		return
	}
	l.record(auditd.AuditUserEnd, auditd.Success, "", l.loggedIn.TTY)
	l.leave(ttys)
}

// leave enters in the host's books that the login's terminals are nobody's.
func (l *login) leave(ttys []string) {
	if os.Geteuid() != 0 {
		return
	}
	for _, tty := range ttys {
		err := books.Host().Logout(books.Entry{Line: tty, PID: l.teleportSession.Pid, Time: l.server.cfg.Clock.Now()})
		if err != nil {
			l.log.WithError(err).Warn("The host's books of logins are not complete.")
		}
	}
}

// describeExit says how teleport-session ended, and whether a fault of its own
// or of a module did it.
func describeExit(err error) (how string, crashed bool) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			sig := status.Signal()
			return "teleport-session was killed by " + unix.SignalName(sig), sig != unix.SIGKILL && sig != unix.SIGTERM
		}
	}
	if err != nil {
		return fmt.Sprintf("teleport-session ended (%v)", err), false
	}
	return "teleport-session ended", false
}

// suspects names what a crash points to.
func (l *login) suspects(crashed bool) string {
	if !crashed || !l.server.cfg.PAM.Enabled {
		return ""
	}
	return fmt.Sprintf(", which a module of the PAM service %q may have caused", l.server.cfg.PAM.ServiceName)
}

func (l *login) recordRefusal(reason string) {
	l.record(auditd.AuditUserLogin, auditd.Failed, reason, "")
	l.record(auditd.AuditUserErr, auditd.Failed, reason, "")
	l.tellAttempt(reason)
}

// record tells the audit system what teleport-session cannot tell any more.
func (l *login) record(event auditd.EventType, result auditd.Result, reason, tty string) {
	id := &l.identity
	uid := id.UID
	if l.account != nil {
		uid = l.account.UID
	}
	// The queue counts what it drops.
	_ = l.server.cfg.Emitter.Emit(context.Background(), auditd.Event{
		Type:         event,
		Result:       result,
		SystemUser:   id.Login,
		UID:          &uid,
		TeleportUser: id.TeleportUser,
		ConnAddress:  l.remote.String(),
		TTYName:      tty,
		Reason:       reason,
	})
}
