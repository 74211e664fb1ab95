// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package forward is what a login forwards: the protocol between the daemon and
// the process that makes the connections and sockets, what runs inside that
// process, as the user (Run), and the daemon's end of it (Client).
//
// The process runs as the user, in the login's audit session, and does what the
// kernel should know as the user's: it looks names up, connects, binds, listens
// and accepts. It then passes the connected descriptor to the daemon, which
// carries the bytes. So a forwarded socket belongs to the user (ss -e, SO_PEERCRED),
// an audit rule on connect(2) finds the login's auid and ses, and the kernel
// refuses what it should.
//
//	daemon                   the user's process
//	Dial 1           ---->   looks up, connects
//	                 <----   Connected 1 with the descriptor
//	Listen 2         ---->   binds, listens
//	                 <----   Listening 2
//	                 <----   Accepted 2 with a descriptor, for each connection
//	Cancel 2         ---->   closes the listener
//	                 <----   Closed 2
//	(closes its end) ---->   removes its sockets, ends
//
// Failed answers a Dial or Listen that came to nothing, also one that was
// cancelled.
//
// The process belongs to the user, who may stop it, kill it, or be it: the daemon
// believes nothing that it says, and no descriptor that it passes (Conn).
package forward

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/wire"
)

const (
	// DialTimeout bounds how long a connection may take to be made.
	DialTimeout = time.Minute
	// MaxHost is the longest name of a host.
	MaxHost = 255
	// MaxPath is the longest path that a socket can have.
	MaxPath = len(unix.RawSockaddrUnix{}.Path) - 1

	// version changes with the protocol: a daemon that still runs meets the
	// program that replaced its own.
	version = 1
	// maxMessage is the largest message.
	maxMessage = 4096
)

// Network says what an address is.
type Network uint32

const (
	// TCP is a host, by name or number, and a port.
	TCP Network = iota
	// Unix is the path of a socket.
	Unix
	// Agent listens on a socket whose path the user's process chooses, in a new
	// folder of the user's own.
	Agent
)

// reason is why a request came to nothing.
type reason uint32

const (
	// reasonErrno stands for the kernel's own reason, which comes with it.
	reasonErrno reason = iota
	reasonNoName
	reasonLookup
	reasonTimeout
	reasonOther
)

type kind byte

const (
	kindDial kind = iota + 1
	kindListen
	kindCancel
	kindConnected
	kindListening
	kindFailed
	kindAccepted
	kindClosed
)

// message is one of the types below. Each is about a request, by its ID.
type message interface {
	kind() kind
	code(c *wire.Coder)
}

type dial struct {
	ID      uint32
	Network Network
	// Address is a host or a path.
	Address string
	Port    uint32
}

type listen struct {
	ID      uint32
	Network Network
	// Addresses are hosts, all of which are listened on, at one port, or a path.
	Addresses []string
	// Port is 0 for one that the kernel picks.
	Port uint32
}

type cancel struct{ ID uint32 }

// connected comes with the descriptor.
type connected struct{ ID uint32 }

type listening struct {
	ID   uint32
	Port uint32
	// Path is that of an Agent's socket.
	Path string
}

type failed struct {
	ID     uint32
	Reason reason
	Errno  uint32
}

// accepted comes with the descriptor.
type accepted struct {
	ID uint32
	// Address and Port are whose connection it is, empty for Unix.
	Address string
	Port    uint32
}

type closed struct{ ID uint32 }

func (*dial) kind() kind      { return kindDial }
func (*listen) kind() kind    { return kindListen }
func (*cancel) kind() kind    { return kindCancel }
func (*connected) kind() kind { return kindConnected }
func (*listening) kind() kind { return kindListening }
func (*failed) kind() kind    { return kindFailed }
func (*accepted) kind() kind  { return kindAccepted }
func (*closed) kind() kind    { return kindClosed }

func (m *dial) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.Uint32((*uint32)(&m.Network))
	c.String(&m.Address)
	c.Uint32(&m.Port)
}

func (m *listen) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.Uint32((*uint32)(&m.Network))
	wire.List(c, &m.Addresses, (*wire.Coder).String)
	c.Uint32(&m.Port)
}

func (m *cancel) code(c *wire.Coder)    { c.Uint32(&m.ID) }
func (m *connected) code(c *wire.Coder) { c.Uint32(&m.ID) }
func (m *closed) code(c *wire.Coder)    { c.Uint32(&m.ID) }

func (m *listening) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.Uint32(&m.Port)
	c.String(&m.Path)
}

func (m *failed) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.Uint32((*uint32)(&m.Reason))
	c.Uint32(&m.Errno)
}

func (m *accepted) code(c *wire.Coder) {
	c.Uint32(&m.ID)
	c.String(&m.Address)
	c.Uint32(&m.Port)
}

func encode(m message) ([]byte, error) {
	return wire.Write(maxMessage, []byte{version, byte(m.kind())}, m.code)
}

var (
	errVersion   = errors.New("teleport and teleport-user are of different versions: restart teleport")
	errMalformed = errors.New("malformed message between teleport and teleport-user")
)

// decode reads what encode wrote. It takes any bytes.
func decode(b []byte) (message, error) {
	if len(b) < 2 {
		return nil, errMalformed
	}
	if b[0] != version {
		return nil, errVersion
	}
	var m message
	switch kind(b[1]) {
	case kindDial:
		m = new(dial)
	case kindListen:
		m = new(listen)
	case kindCancel:
		m = new(cancel)
	case kindConnected:
		m = new(connected)
	case kindListening:
		m = new(listening)
	case kindFailed:
		m = new(failed)
	case kindAccepted:
		m = new(accepted)
	case kindClosed:
		m = new(closed)
	default:
		return nil, errMalformed
	}
	if wire.Read(b[2:], m.code) != nil {
		return nil, errMalformed
	}
	return m, nil
}

// CheckHost says what is wrong with the name of a host, or nothing.
func CheckHost(host string) string {
	switch {
	case host == "":
		return "no host is named"
	case len(host) > MaxHost:
		return "the host's name is too long"
	case strings.ContainsFunc(host, isControl):
		return "the host's name has a control character in it"
	}
	return ""
}

// CheckPath says what is wrong with the path of a socket, or nothing.
func CheckPath(path string) string {
	switch {
	case path == "":
		return "no path is named"
	case len(path) > MaxPath:
		return "the socket's path is too long"
	case strings.ContainsRune(path, 0):
		return "the socket's path has a NUL in it"
	}
	return ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
