// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One session channel: what the client asks for, and the streams between it and
// the user's process.

package node

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session"
)

const (
	// Bounds of what a client may set in the environment.
	maxVariables = 64
	maxValue     = 4096
	// maxLater bounds the requests that wait for a process to start. OpenSSH's
	// client sends a handful.
	maxLater = 128

	// exitRefused is the exit status of a command that was never run because
	// the login was refused; ssh itself has the same for a failed connection.
	exitRefused = 255
	// exitNotStarted is what a shell answers for a command that cannot be run.
	exitNotStarted = 126

	// exitGrace is how long the end of a process may take after that of its
	// output for the client to hear of it first.
	exitGrace = 200 * time.Millisecond
)

// channel is one session channel before and after its process has started.
type channel struct {
	ssh.Channel
	conn *connection
	pty  *session.PTY
	env  []string
	// agent says that the process gets a socket to the client's agent.
	agent bool

	// started says that the client's one shell, command or subsystem was asked for.
	started bool
	// process is nil before it runs. The files of it are closed with closeFiles.
	process *process

	// onTerminal says that lines need carriage returns.
	onTerminal atomic.Bool

	mu     sync.Mutex
	closed bool
}

func (c *connection) serveSession(ch ssh.Channel, requests <-chan *ssh.Request) {
	s := &channel{Channel: ch, conn: c}
	c.channelsMu.Lock()
	c.channels[s] = struct{}{}
	c.channelsMu.Unlock()
	defer func() {
		c.channelsMu.Lock()
		defer c.channelsMu.Unlock()
		delete(c.channels, s)
	}()
	// The place in the connection is free when both the channel and its process
	// are gone, whichever is last.
	var users atomic.Int32
	users.Store(1)
	leave := func() {
		if users.Add(-1) == 0 {
			c.sessions.Add(-1)
		}
	}
	defer leave()
	answer := func(r *ssh.Request, ok bool) {
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
	// Requests are read whatever else is waited for: the connection delivers
	// nothing, not even its end, while one of them is not taken. They are
	// answered in their order, so those after one that takes a while wait for it.
	var working chan outcome
	var request *ssh.Request
	var later []*ssh.Request
	carryOut := func(r *ssh.Request) {
		ok, work := s.request(r)
		if work == nil {
			answer(r, ok)
			return
		}
		done := make(chan outcome, 1)
		request, working = r, done
		c.spawn(func() {
			// A panic in it must not keep this channel waiting.
			defer close(done)
			done <- work()
		})
	}
	flooded := false
	for requests != nil || working != nil {
		select {
		case r, ok := <-requests:
			switch {
			case !ok:
				requests = nil
			case working == nil:
				c.active()
				carryOut(r)
			case len(later) < maxLater:
				later = append(later, r)
			case !flooded:
				flooded = true
				c.log.Warnf("The client has sent more than %d requests on one channel at once: closing it.", maxLater)
				_ = s.Close()
			}
		case o := <-working:
			working = nil
			answer(request, o.ok)
			if o.run != nil {
				users.Add(1)
				c.spawn(func() {
					defer leave()
					o.run()
				})
			}
			for working == nil && len(later) > 0 {
				r := later[0]
				later = later[1:]
				carryOut(r)
			}
		}
	}
	// The client has closed the channel: the process finds its pipes closed or
	// its terminal hung up.
	s.closeFiles()
	_ = s.Close()
}

// outcome is the answer to a request, and what goes on after it.
type outcome struct {
	ok  bool
	run func()
}

// request carries out one request of the client, or returns what is to be done
// for it where that takes a while.
func (s *channel) request(r *ssh.Request) (ok bool, work func() outcome) {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload), nil
	case "pty-req":
		return s.requestPTY(r.Payload), nil
	case "shell":
		return s.start(&session.Start{Program: session.Shell})
	case "exec":
		var m struct{ Command string }
		if ssh.Unmarshal(r.Payload, &m) != nil {
			return false, nil
		}
		return s.start(&session.Start{Command: m.Command})
	case "subsystem":
		var m struct{ Name string }
		if ssh.Unmarshal(r.Payload, &m) != nil || s.started {
			return false, nil
		}
		return s.subsystem(m.Name)
	case "window-change":
		return s.resize(r.Payload), nil
	case "break":
		return s.sendBreak(r.Payload), nil
	case "signal":
		var m struct{ Name string }
		if ssh.Unmarshal(r.Payload, &m) != nil || s.process == nil || s.conn.Identity.ForceCommand != "" {
			return false, nil
		}
		s.conn.login.signal(s.process.id, m.Name)
		return true, nil
	case "auth-agent-req@openssh.com":
		if !s.conn.Identity.PermitAgentForwarding {
			s.conn.forwarding.warnOnce("Agent forwarding is refused: the certificate does not permit it (permit-agent-forwarding).")
			return false, nil
		}
		if !s.conn.may.ForwardAgent {
			s.conn.forwarding.warnOnce("Agent forwarding is refused: a role of the user does not permit it (forward_agent).")
			return false, nil
		}
		s.agent = !s.started
		return s.agent, nil
	case "x11-req":
		s.conn.forwarding.warnOnce("X11 forwarding is refused: this node forwards no X11.")
	}
	return false, nil
}

// setEnv takes what a client may set: how its user reads and writes, and
// nothing that changes what programs do.
func (s *channel) setEnv(payload []byte) bool {
	var m struct{ Name, Value string }
	if ssh.Unmarshal(payload, &m) != nil || len(s.env) >= maxVariables || len(m.Value) > maxValue {
		return false
	}
	if !clientMaySet(m.Name) || strings.ContainsFunc(m.Value, isControl) {
		return false
	}
	s.env = append(s.env, m.Name+"="+m.Value)
	return true
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func clientMaySet(name string) bool {
	switch name {
	case "LANG", "TZ", "COLORTERM":
		return true
	}
	category, ok := strings.CutPrefix(name, "LC_")
	return ok && category != "" && len(category) <= 32 && strings.Trim(category, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == ""
}

// requestPTY notes the terminal that the client wants (RFC 4254, section 6.2).
func (s *channel) requestPTY(payload []byte) bool {
	var m struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        []byte
	}
	if ssh.Unmarshal(payload, &m) != nil || !s.conn.Identity.PermitPTY || s.started || s.pty != nil {
		return false
	}
	s.onTerminal.Store(true)
	s.pty = &session.PTY{Term: m.Term, Columns: m.Columns, Rows: m.Rows, Width: m.Width, Height: m.Height, Modes: m.Modes}
	return true
}

// resize tells the terminal its new size (RFC 4254, section 6.7).
func (s *channel) resize(payload []byte) bool {
	if len(payload) != 16 || s.pty == nil {
		return false
	}
	field := func(i int) uint32 { return binary.BigEndian.Uint32(payload[4*i:]) }
	s.pty.Columns, s.pty.Rows, s.pty.Width, s.pty.Height = field(0), field(1), field(2), field(3)
	if s.process == nil {
		return true
	}
	raw, err := s.process.files[0].SyscallConn()
	if err != nil {
		return false
	}
	size := s.pty.Winsize()
	failed := raw.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) })
	return failed == nil && err == nil
}

// sendBreak sends a break to the terminal (RFC 4335). How long it lasts is the
// terminal's to say, and a pseudo terminal has none.
func (s *channel) sendBreak(payload []byte) bool {
	if len(payload) != 4 || s.pty == nil || s.process == nil {
		return false
	}
	raw, err := s.process.files[0].SyscallConn()
	if err != nil {
		return false
	}
	failed := raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TCSBRK, 0) })
	return failed == nil && err == nil
}

// start takes the channel's one request for a process.
func (s *channel) start(m *session.Start) (ok bool, work func() outcome) {
	if s.started {
		return false, nil
	}
	s.started = true
	m.PTY, m.Env = s.pty, s.env
	if force := s.conn.Identity.ForceCommand; force != "" {
		if m.Program == session.Command && !strings.Contains(m.Command, "\x00") {
			m.Env = append(m.Env, "SSH_ORIGINAL_COMMAND="+m.Command)
		}
		m.Program, m.Command = session.Command, force
	}
	if refusal, status := s.checkFiles(m); refusal != "" {
		return true, func() outcome {
			return outcome{ok: true, run: func() { s.giveUp(refusal, status) }}
		}
	}
	return true, func() outcome { return outcome{ok: true, run: s.startProcess(m)} }
}

// startProcess starts the channel's process, and returns what goes on after the
// client has its answer. What goes wrong the client sees on its standard error,
// with an exit status.
func (s *channel) startProcess(m *session.Start) (run func()) {
	if strings.Contains(m.Command, "\x00") {
		return func() { s.giveUp("a command cannot have a NUL in it\n", exitNotStarted) }
	}
	release := s.conn.login.hold()
	if s.agent {
		// It comes first: the process gets its path.
		path, err := s.conn.forwarding.agentSocket(m.PTY)
		if err != nil {
			_, text := s.conn.forwarding.explain(err)
			s.conn.log.Warnf("The client's agent is not forwarded: %s.", text)
		}
		m.AgentSocket = path
	}
	p, err := s.conn.login.start(m)
	if err == nil {
		s.process = p
		return func() {
			defer release()
			s.serveProcess()
		}
	}
	return func() {
		defer release()
		s.giveUp(s.explain(err))
	}
}

// explain returns what a client hears about a process that was not started.
func (s *channel) explain(err error) (text string, status uint32) {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused.text + "This host refused the login.\n", exitRefused
	}
	if failed, ok := errors.AsType[*failedError](err); ok {
		return failed.text + "\n", exitNotStarted
	}
	if errors.Is(err, errEnded) {
		return "The login has ended.\n", exitRefused
	}
	s.conn.log.WithError(err).Error("A process of the user could not be started.")
	return "This host could not start the session; its log says why.\n", exitRefused
}

// giveUp ends a channel that got no process.
func (s *channel) giveUp(text string, status uint32) {
	_, _ = io.WriteString(s.Stderr(), s.lines(text))
	s.exitStatus(status)
	_ = s.CloseWrite()
	_ = s.Close()
}

// lines ends lines as the client's terminal needs it, if it has one.
func (s *channel) lines(text string) string {
	if !s.onTerminal.Load() {
		return text
	}
	return strings.ReplaceAll(text, "\n", "\r\n")
}

// line makes a line of its own of a text, wherever the cursor is.
func (s *channel) line(text string) string {
	if !s.onTerminal.Load() {
		return text + "\n"
	}
	return "\r\n" + text + "\r\n"
}

func (s *channel) exitStatus(status uint32) {
	_, _ = s.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// serveProcess carries the streams until the process has ended and all that it
// wrote is sent. A process in the background that still holds the pipes keeps
// the channel open, as with OpenSSH.
func (s *channel) serveProcess() {
	p := s.process
	type stream struct {
		to   io.Writer
		from *os.File
	}
	var outputs []stream
	if s.pty != nil {
		_, _ = io.WriteString(s, s.lines(p.text))
		master := p.files[0]
		// The end of the client's input is no hang-up of the terminal.
		s.conn.spawn(func() { _ = s.feed(master) })
		outputs = []stream{{s, master}}
	} else {
		_, _ = io.WriteString(s.Stderr(), p.text)
		stdin := p.files[0]
		s.conn.spawn(func() {
			err := s.feed(stdin)
			_ = stdin.Close()
			if err != nil {
				// Nobody reads any more. What the client still sends must
				// not stop its window, which its own requests share.
				_, _ = io.Copy(io.Discard, s)
			}
		})
		outputs = []stream{{s, p.files[1]}, {s.Stderr(), p.files[2]}}
	}
	var open atomic.Int32
	open.Store(int32(len(outputs)))
	output := make(chan struct{})
	for _, o := range outputs {
		s.conn.spawn(func() {
			// Closed after a panic too: the process must not be waited for in vain.
			defer func() {
				if open.Add(-1) == 0 {
					close(output)
				}
			}()
			s.pump(o.to, o.from)
		})
	}
	s.exit(s.ended(output))
	<-output
	_ = s.CloseWrite()
	_ = s.Close()
	s.closeFiles()
}

// ended waits for the end of the process. The end of its output, which is closed
// then, is not that of the process, and the client may be waiting for either. But
// mostly both come together, and then the exit status goes first: PuTTY takes
// nothing more on a channel when input and output have ended.
func (s *channel) ended(output <-chan struct{}) *session.Exited {
	p := s.process
	select {
	case exit := <-p.exited:
		return exit
	case <-output:
	}
	timer := s.conn.server.cfg.Clock.NewTimer(exitGrace)
	defer timer.Stop()
	select {
	case exit := <-p.exited:
		return exit
	case <-timer.Chan():
	}
	_ = s.CloseWrite()
	return <-p.exited
}

// exit tells the client how the process has ended.
func (s *channel) exit(exit *session.Exited) {
	switch {
	case exit == nil:
		// teleport-session was killed, and the process with it.
		s.exitSignal("KILL", false)
	case exit.Signal != "":
		s.exitSignal(exit.Signal, exit.CoreDumped)
	default:
		s.exitStatus(exit.Status)
	}
}

// exitSignal is RFC 4254, section 6.10.
func (s *channel) exitSignal(name string, coreDumped bool) {
	_, _ = s.SendRequest("exit-signal", false, ssh.Marshal(struct {
		Name       string
		CoreDumped bool
		Message    string
		Language   string
	}{name, coreDumped, "", ""}))
}

func (s *channel) closeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.process == nil {
		return
	}
	s.closed = true
	for _, f := range s.process.files {
		_ = f.Close()
	}
}

// largeBuffer holds as much as one packet of a channel carries.
const largeBuffer = 32 << 10

// outputBuffers lends buffers to sessions that have something to send. Its zero
// value works.
type outputBuffers struct{ pool sync.Pool }

func (o *outputBuffers) get() *[largeBuffer]byte {
	if b, ok := o.pool.Get().(*[largeBuffer]byte); ok {
		return b
	}
	return new([largeBuffer]byte)
}

func (o *outputBuffers) put(b *[largeBuffer]byte) { o.pool.Put(b) }

// pump sends what the process writes until nobody can write any more. It holds a
// buffer only while there is something to read: most sessions are silent.
func (s *channel) pump(to io.Writer, from *os.File) {
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	buffers := &s.conn.server.outputs
	hungUp := false
	wide := false
	for {
		var b *[largeBuffer]byte
		var n int
		var inner error
		err := raw.Read(func(fd uintptr) bool {
			b = buffers.get()
			for {
				if n, inner = unix.Read(int(fd), b[:]); !errors.Is(inner, unix.EINTR) {
					break
				}
			}
			if errors.Is(inner, unix.EAGAIN) {
				buffers.put(b)
				return false
			}
			if n == len(b) && !wide {
				wide = true
				widen(fd)
			}
			return true
		})
		// A terminal whose last user is gone answers EIO, which is its end. But
		// Linux may say so before what that user wrote last, where the writing and
		// the closing come between its own two looks: the second time is true.
		if err == nil && errors.Is(inner, unix.EIO) && !hungUp {
			hungUp = true
			buffers.put(b)
			continue
		}
		if err != nil || inner != nil || n == 0 {
			return
		}
		s.conn.active()
		_, err = to.Write(b[:n])
		buffers.put(b)
		if err != nil {
			return
		}
	}
}

// feed gives the process what the client sends until the client's input ends.
// The error says that the process takes no more. The buffer starts small: most
// input is typed.
func (s *channel) feed(to *os.File) error {
	b := make([]byte, 1024)
	wide := false
	for {
		n, err := s.Read(b)
		if n > 0 {
			s.conn.active()
			if _, err := to.Write(b[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		switch {
		case n < len(b):
		case n < largeBuffer:
			b = make([]byte, largeBuffer)
		case !wide:
			wide = true
			b = make([]byte, largeInput)
			if raw, err := to.SyscallConn(); err == nil {
				_ = raw.Control(widen)
			}
		}
	}
}
