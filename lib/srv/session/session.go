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
// or, where the login is refused, Refused in place of LoggedIn. A daemon that
// dies closes its end as well. The request of the login travels in the socket
// alone, never in arguments or environment, which others can read.
//
// The descriptors of Started are the daemon's: the terminal's master, or the
// writing end of the process's standard input and the reading ends of its
// standard output and error.
//
// This package is linked into a program that is started for every login, so it
// imports little, and its errors are plain.
package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Socket is the descriptor of teleport-session's end of the socket pair.
const Socket = 3

// version changes with the protocol. Daemon and teleport-session are installed
// together, but a daemon that still runs meets the program that replaced its own.
const version = 1

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
)

// Message is one of the types below.
type Message interface {
	kind() kind
	// code reads or writes the fields, in one order for both.
	code(c *coder)
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

// Start asks for a process. Its channel is known by ID from here on.
type Start struct {
	ID uint32
	// Command is for the login shell's -c. Shell asks for a login shell instead.
	Command string
	Shell   bool
	// PTY is nil where the process gets pipes.
	PTY *PTY
	// Env holds NAME=value pairs that the client may set, checked by the daemon.
	Env []string
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
	// Recorded says that teleport-session has told the audit system.
	Recorded bool
}

// Started says that a channel's process runs. Its descriptors come with it.
type Started struct {
	ID  uint32
	PID uint32
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

func (m *Login) code(c *coder) {
	c.string(&m.Account.Name)
	c.uint32(&m.Account.UID)
	c.uint32(&m.Account.GID)
	list(c, &m.Account.Groups, (*coder).uint32)
	c.string(&m.Account.Home)
	c.string(&m.Account.Shell)
	c.string(&m.TeleportUser)
	list(c, &m.Roles, (*coder).string)
	c.string(&m.ClientAddr)
	c.string(&m.ServerAddr)
	c.string(&m.HostUUID)
	c.string(&m.ClusterName)
	c.bool(&m.PAM.Enabled)
	c.string(&m.PAM.Service)
	c.string(&m.AuditMode)
	c.bool(&m.KeepDetached)
}

func (m *Start) code(c *coder) {
	c.uint32(&m.ID)
	c.string(&m.Command)
	c.bool(&m.Shell)
	list(c, &m.Env, (*coder).string)
	terminal := m.PTY != nil
	c.bool(&terminal)
	if !terminal {
		return
	}
	if m.PTY == nil {
		m.PTY = new(PTY)
	}
	c.string(&m.PTY.Term)
	c.uint32(&m.PTY.Columns)
	c.uint32(&m.PTY.Rows)
	c.uint32(&m.PTY.Width)
	c.uint32(&m.PTY.Height)
	c.bytes(&m.PTY.Modes)
}

func (m *Signal) code(c *coder) {
	c.uint32(&m.ID)
	c.string(&m.Name)
}

func (m *LoggedIn) code(c *coder) {
	c.uint32(&m.AuditSession)
	c.bool(&m.Fresh)
	c.string(&m.TTY)
}

func (m *Refused) code(c *coder) {
	c.string(&m.Reason)
	c.string(&m.Text)
	c.bool(&m.Recorded)
}

func (m *Started) code(c *coder) {
	c.uint32(&m.ID)
	c.uint32(&m.PID)
	c.string(&m.Text)
}

func (m *Failed) code(c *coder) {
	c.uint32(&m.ID)
	c.string(&m.Text)
}

func (m *Exited) code(c *coder) {
	c.uint32(&m.ID)
	c.uint32(&m.Status)
	c.string(&m.Signal)
	c.bool(&m.CoreDumped)
}

func (m *Note) code(c *coder) {
	c.bool(&m.Unrecorded)
	c.string(&m.Text)
}

func (m *Ended) code(*coder) {}

// Encode returns the message as it is sent. The error says that it is larger
// than MaxMessage.
func Encode(m Message) ([]byte, error) {
	c := coder{writing: true, buf: []byte{version, byte(m.kind())}}
	m.code(&c)
	if c.err == nil && len(c.buf) > MaxMessage {
		c.err = errTooLong
	}
	return c.buf, c.err
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
	default:
		return nil, errMalformed
	}
	c := coder{buf: b[2:]}
	m.code(&c)
	if c.err == nil && len(c.buf) != 0 {
		c.err = errMalformed
	}
	return m, c.err
}

// coder writes fields to buf, or reads them from it. Numbers are varints,
// strings and lists are prefixed with their length.
type coder struct {
	writing bool
	buf     []byte
	err     error
}

func (c *coder) uint32(v *uint32) {
	if c.writing {
		c.buf = binary.AppendUvarint(c.buf, uint64(*v))
		return
	}
	n, size := binary.Uvarint(c.buf)
	if c.err != nil || size <= 0 || n > math.MaxUint32 {
		c.err = errMalformed
		return
	}
	*v, c.buf = uint32(n), c.buf[size:]
}

func (c *coder) bool(v *bool) {
	var n uint32
	if *v {
		n = 1
	}
	c.uint32(&n)
	*v = n == 1
	if n > 1 {
		c.err = errMalformed
	}
}

func (c *coder) length(n int) int {
	size := uint32(n)
	c.uint32(&size)
	return int(size)
}

func (c *coder) bytes(v *[]byte) {
	n := c.length(len(*v))
	switch {
	case c.writing && n > MaxMessage:
		c.err = errTooLong
	case c.writing:
		c.buf = append(c.buf, *v...)
	case c.err != nil || n > len(c.buf):
		c.err = errMalformed
	case n > 0:
		*v, c.buf = append([]byte(nil), c.buf[:n]...), c.buf[n:]
	}
}

func (c *coder) string(v *string) {
	b := []byte(*v)
	c.bytes(&b)
	if !c.writing {
		*v = string(b)
	}
}

func list[T any](c *coder, v *[]T, each func(*coder, *T)) {
	n := c.length(len(*v))
	if !c.writing {
		// Each element takes at least a byte.
		if c.err != nil || n > len(c.buf) {
			c.err = errMalformed
			return
		}
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range *v {
		each(c, &(*v)[i])
	}
}
