// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package session is one login of one user: the protocol between the daemon and
// teleport-session, and what runs inside teleport-session.
//
// The daemon starts teleport-session as root, with nothing but one end of a
// SOCK_SEQPACKET socket pair as descriptor 3, when a connection opens its first
// channel that does something. It then owns that login until the connection
// ends: PAM, login uid, audit records and the user's processes.
//
//	daemon                          teleport-session
//	Login, Start 1           ---->  PAM, login uid, USER_LOGIN, the first process
//	                         <----  LoggedIn, Started 1 with descriptors
//	Start 2, Signal 1        ---->
//	                         <----  Started 2, Exited 1, Exited 2
//	(closes its end)         ---->  ends the processes, USER_END, PAM
//	                         <----  Ended, and exits
//
// or, where the login is refused, Refused in place of LoggedIn. Where PAM is to
// authenticate the person (PAM.Authenticate), teleport-session starts before that:
//
//	Login                    ---->  PAM's auth and account
//	                         <----  Prompt, for each question
//	Answer                   ---->
//	                         <----  Authenticated, or Refused
//	Start 1                  ---->  as above, or nothing: the client has left
//
// A daemon that dies closes its end as well. The request of the login travels in the socket
// alone, never in arguments or environment, which others can read.
//
// The descriptors of Started are the daemon's: the terminal's master, or the
// writing end of the process's standard input and the reading ends of its
// standard output and error, or a socket to the process that forwards.
//
// This package is linked into a program that is started for every login, so it
// imports little, and its errors are plain.
package session

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/wire"
)

// Socket is the descriptor of teleport-session's end of the socket pair.
const Socket = 3

// version changes with the protocol. Daemon and teleport-session are installed
// together, but a daemon that still runs meets the program that replaced its own.
const version = 2

// MaxMessage is the largest message. Linux takes no single argument above 128
// KiB (MAX_ARG_STRLEN), so no command that could be run is longer.
const MaxMessage = 192 << 10

// kind is a message's first byte.
type kind byte

const (
	kindLogin kind = iota + 1
	kindStart
	kindSignal
	kindLoggedIn
	kindRefused
	kindStarted
	kindFailed
	kindExited
	kindNote
	kindEnded
	kindPrompt
	kindAnswer
	kindAuthenticated
)

// Message is one of the types below.
type Message interface {
	kind() kind
	// code reads or writes the fields, in one order for both.
	code(c *wire.Coder)
}

// Account is the system user, as the host's user database has it.
type Account struct {
	Name     string
	UID, GID uint32
	Groups   []uint32
	Home     string
	Shell    string
}

// PAM says whether, and with which stack, PAM has a say in the login.
type PAM struct {
	Enabled bool
	Service string
	// Authenticate runs the auth and account stacks at once, before the first
	// Start, and has the person asked what they want to know.
	Authenticate bool
	// Env holds NAME=value pairs for the modules, checked by the daemon.
	Env []string
}

// Login says whose login this is. It is the first message.
type Login struct {
	Account      Account
	TeleportUser string
	Roles        []string
	// ClientAddr and ServerAddr are IP:port.
	ClientAddr, ServerAddr string
	HostUUID, ClusterName  string
	PAM                    PAM
	// AuditMode is the text of an auditd.Mode.
	AuditMode string
	// KeepDetached leaves processes alone, at the end, that have made a session
	// of their own (setsid(2)).
	KeepDetached bool
	// UserProgram is the absolute path of teleport-user, which serves files and
	// forwarding as the user.
	UserProgram string
	// UserEnvironment reads ~/.ssh/environment, UserRC runs ~/.ssh/rc, and
	// SystemRC runs /etc/ssh/sshrc where ~/.ssh/rc is not run, before each
	// process (sshd(8)).
	UserEnvironment, UserRC, SystemRC bool
}

// PTY is the terminal that a channel asked for.
type PTY struct {
	Term string
	// Columns and Rows are in characters, Width and Height in pixels.
	Columns, Rows, Width, Height uint32
	// Modes is the encoded string of RFC 4254, section 8.
	Modes []byte
}

// Winsize is the size as the kernel takes it, the client's numbers cut to what
// fits.
func (p *PTY) Winsize() unix.Winsize {
	clamp := func(n uint32) uint16 { return uint16(min(n, math.MaxUint16)) }
	return unix.Winsize{Col: clamp(p.Columns), Row: clamp(p.Rows), Xpixel: clamp(p.Width), Ypixel: clamp(p.Height)}
}

// Program says what a Start runs.
type Program uint32

const (
	// Command runs Start.Command by the login shell's -c.
	Command Program = iota
	// Shell runs a login shell.
	Shell
	// Files runs teleport-user's sftp server by the login shell's -c, with
	// Start.Command as its arguments, so that a shell that lets nobody in
	// (nologin) lets no files out.
	Files
	// OnlyFiles runs the same server without a shell, for a login that may do
	// nothing else: a shell would read startup files that the user can write with
	// it.
	OnlyFiles
	// Forward runs teleport-user for the connection's forwarding. Its one
	// descriptor is a SOCK_SEQPACKET socket to it (lib/srv/forward).
	Forward
)

// Start asks for a process. Its channel is known by ID from here on.
type Start struct {
	ID      uint32
	Program Program
	Command string
	// PTY is nil where the process gets pipes. With Forward it is the terminal
	// of the next Start, where that is known: the first Start makes the login,
	// whose records name its terminal.
	PTY *PTY
	// Env holds NAME=value pairs that the client may set, checked by the daemon.
	Env []string
	// AgentSocket is SSH_AUTH_SOCK, empty for none.
	AgentSocket string
}

// Signal sends a signal to a channel's process group, with the user's own
// permissions. Name is as in RFC 4254, section 6.10, without SIG.
type Signal struct {
	ID   uint32
	Name string
}

// LoggedIn says that the login was made.
type LoggedIn struct {
	// AuditSession is the ses of its records, 4294967295 where there is none.
	AuditSession uint32
	// Fresh says that this login alone has that ses.
	Fresh bool
	// TTY is the terminal that its records name.
	TTY string
}

// Refused says that the login was not made. teleport-session ends after it.
type Refused struct {
	// Reason is for the log, Text for the user.
	Reason, Text string
	// Word is Reason as the audit record has it, where it is not Recorded.
	Word string
	// Recorded says that teleport-session has told the audit system.
	Recorded bool
}

// Started says that a channel's process runs. Its descriptors come with it.
type Started struct {
	ID  uint32
	PID uint32
	// TTY is the terminal's path, empty for none.
	TTY string
	// Text is for the user, before what the process writes.
	Text string
}

// Failed says that a channel's process could not be started. Text is for the user.
type Failed struct {
	ID   uint32
	Text string
}

// Exited says how a channel's process has ended.
type Exited struct {
	ID uint32
	// Status is the exit status where Signal is empty.
	Status     uint32
	Signal     string
	CoreDumped bool
}

// Note is a line for the daemon's log.
type Note struct {
	// Unrecorded says that it is about an audit record that was not written.
	Unrecorded bool
	Text       string
}

// Prompt is a question of PAM's. The daemon sends an Answer.
type Prompt struct {
	// Echo says that the answer may be seen while it is typed.
	Echo bool
	// Instruction is what PAM had to say before, Text the question.
	Instruction, Text string
}

// Answer is the person's. It may hold any bytes.
type Answer struct {
	// OK says that there is one.
	OK   bool
	Text string
}

// Authenticated says that PAM's auth and account stacks agreed. Text is for the
// user.
type Authenticated struct{ Text string }

// Ended says that the end of the login has been told to the audit system.
type Ended struct{}

func (*Login) kind() kind    { return kindLogin }
func (*Start) kind() kind    { return kindStart }
func (*Signal) kind() kind   { return kindSignal }
func (*LoggedIn) kind() kind { return kindLoggedIn }
func (*Refused) kind() kind  { return kindRefused }
func (*Started) kind() kind  { return kindStarted }
func (*Failed) kind() kind   { return kindFailed }
func (*Exited) kind() kind   { return kindExited }
func (*Note) kind() kind     { return kindNote }
func (*Ended) kind() kind    { return kindEnded }

func (*Prompt) kind() kind        { return kindPrompt }
func (*Answer) kind() kind        { return kindAnswer }
func (*Authenticated) kind() kind { return kindAuthenticated }

func (m *Login) code(c *wire.Coder) {
	c.String(&m.Account.Name)
	c.Uint32(&m.Account.UID)
	c.Uint32(&m.Account.GID)
	wire.List(c, &m.Account.Groups, (*wire.Coder).Uint32)
	c.String(&m.Account.Home)
	c.String(&m.Account.Shell)
	c.String(&m.TeleportUser)
	wire.List(c, &m.Roles, (*wire.Coder).String)
	c.String(&m.ClientAddr)
	c.String(&m.ServerAddr)
	c.String(&m.HostUUID)
	c.String(&m.ClusterName)
	c.Bool(&m.PAM.Enabled)
	c.String(&m.PAM.Service)
	c.Bool(&m.PAM.Authenticate)
	wire.List(c, &m.PAM.Env, (*wire.Coder).String)
	c.String(&m.AuditMode)
	c.Bool(&m.KeepDetached)
	c.String(&m.UserProgram)
	c.Bool(&m.UserEnvironment)
	c.Bool(&m.UserRC)
	c.Bool(&m.SystemRC)
}

func (m *Start) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	program := uint32(m.Program)
	c.Uint32(&program)
	m.Program = Program(program)
	c.String(&m.Command)
	c.String(&m.AgentSocket)
	wire.List(c, &m.Env, (*wire.Coder).String)
	terminal := m.PTY != nil
	c.Bool(&terminal)
	if !terminal {
		return
	}
	if m.PTY == nil {
		m.PTY = new(PTY)
	}
	c.String(&m.PTY.Term)
	c.Uint32(&m.PTY.Columns)
	c.Uint32(&m.PTY.Rows)
	c.Uint32(&m.PTY.Width)
	c.Uint32(&m.PTY.Height)
	c.Bytes(&m.PTY.Modes)
}

func (m *Signal) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.String(&m.Name)
}

func (m *LoggedIn) code(c *wire.Coder) {
	c.Uint32(&m.AuditSession)
	c.Bool(&m.Fresh)
	c.String(&m.TTY)
}

func (m *Refused) code(c *wire.Coder) {
	c.String(&m.Reason)
	c.String(&m.Text)
	c.String(&m.Word)
	c.Bool(&m.Recorded)
}

func (m *Started) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.Uint32(&m.PID)
	c.String(&m.TTY)
	c.String(&m.Text)
}

func (m *Failed) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.String(&m.Text)
}

func (m *Exited) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.Uint32(&m.Status)
	c.String(&m.Signal)
	c.Bool(&m.CoreDumped)
}

func (m *Note) code(c *wire.Coder) {
	c.Bool(&m.Unrecorded)
	c.String(&m.Text)
}

func (m *Ended) code(*wire.Coder) {}

func (m *Prompt) code(c *wire.Coder) {
	c.Bool(&m.Echo)
	c.String(&m.Instruction)
	c.String(&m.Text)
}

func (m *Answer) code(c *wire.Coder) {
	c.Bool(&m.OK)
	c.String(&m.Text)
}

func (m *Authenticated) code(c *wire.Coder) {
	c.String(&m.Text)
}

// Encode returns the message as it is sent. The error says that it is larger
// than MaxMessage.
func Encode(m Message) ([]byte, error) {
	b, err := wire.Write(MaxMessage, []byte{version, byte(m.kind())}, m.code)
	if errors.Is(err, wire.ErrTooLong) {
		return nil, errTooLong
	}
	return b, err
}

var (
	errTooLong   = errors.New("the request is too long")
	errMalformed = errors.New("malformed message between teleport and teleport-session")
)

// Decode reads what Encode wrote. It takes any bytes, and fails for those that
// are no message, or one of another version.
func Decode(b []byte) (Message, error) {
	if len(b) < 2 {
		return nil, errMalformed
	}
	if b[0] != version {
		return nil, fmt.Errorf("teleport and teleport-session are of different versions (%d and %d): restart teleport", version, b[0])
	}
	var m Message
	switch kind(b[1]) {
	case kindLogin:
		m = new(Login)
	case kindStart:
		m = new(Start)
	case kindSignal:
		m = new(Signal)
	case kindLoggedIn:
		m = new(LoggedIn)
	case kindRefused:
		m = new(Refused)
	case kindStarted:
		m = new(Started)
	case kindFailed:
		m = new(Failed)
	case kindExited:
		m = new(Exited)
	case kindNote:
		m = new(Note)
	case kindEnded:
		m = new(Ended)
	case kindPrompt:
		m = new(Prompt)
	case kindAnswer:
		m = new(Answer)
	case kindAuthenticated:
		m = new(Authenticated)
	default:
		return nil, errMalformed
	}
	if wire.Read(b[2:], m.code) != nil {
		return nil, errMalformed
	}
	return m, nil
}
