// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	libaudit "github.com/elastic/go-libaudit/v2"
)

// Socket is a netlink socket to the kernel's audit system. Whoever gets it from
// Config.Dial owns it and closes it.
type Socket = libaudit.NetlinkSendReceiver

// receiveBuffer holds the largest answer that is read: an acknowledgement
// carries at most the message that it answers, and that is below 8,970 bytes
// (MAX_AUDIT_MESSAGE_LENGTH in libaudit.h).
const receiveBuffer = 9216

// dialKernel opens a socket to the kernel. The kernel chooses its port id, so
// that two senders of one process do not collide.
func dialKernel() (Socket, error) {
	client, err := libaudit.NewNetlinkClient(syscall.NETLINK_AUDIT, 0, make([]byte, receiveBuffer), nil)
	if err != nil {
		return nil, err
	}
	return client, nil
}

// line is one open socket with the buffers that go with it. One goroutine at a
// time has it.
type line struct {
	socket Socket
	body   []byte
	parsed []syscall.NetlinkMessage
	parse  libaudit.NetlinkParser
}

// netlink sends records, each acknowledged before the next on the same socket.
// It keeps one socket open. There is no lock: a sender that the kernel holds
// back takes the socket with it, and the next one opens another.
type netlink struct {
	dial   func() (Socket, error)
	exe    string
	idle   atomic.Pointer[line]
	closed atomic.Bool
}

func newNetlink(dial func() (Socket, error), exe string) *netlink {
	return &netlink{dial: dial, exe: exe}
}

func (n *netlink) take() (*line, error) {
	if l := n.idle.Swap(nil); l != nil {
		return l, nil
	}
	socket, err := n.dial()
	if err != nil {
		return nil, openError(err)
	}
	l := &line{socket: socket}
	// Made once here: a function value made at each call would be garbage.
	l.parse = l.parseAnswers
	return l, nil
}

// put keeps the socket for the next sender, unless another one came back first
// or there will be no next: whoever was held back in the kernel comes here after
// close.
func (n *netlink) put(l *line) {
	if !n.idle.CompareAndSwap(nil, l) {
		_ = l.socket.Close()
	} else if n.closed.Load() {
		_ = n.close()
	}
}

// openError names what a failed open means. libaudit's callers take the same
// errnos for "no audit here" (audit_open(3)).
func openError(err error) error {
	switch {
	case errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EINVAL):
		return ErrAbsent
	}
	return fmt.Errorf("%w: %w", errOpen, answerError(err))
}

// answerError names what the kernel's errno means (audit_netlink_ok in
// kernel/audit.c). The errno stays in the chain where it has no name here.
func answerError(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return ErrNotPermitted
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrUserNamespace
	}
	return err
}

func (n *netlink) emit(event *Event) error {
	l, err := n.take()
	if err != nil {
		return err
	}
	l.body = appendBody(l.body[:0], n.exe, event)
	msg := syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{
			Type:  uint16(event.Type),
			Flags: syscall.NLM_F_REQUEST | syscall.NLM_F_ACK,
		},
		Data: l.body,
	}
	seq, err := l.send(msg)
	if err != nil {
		_ = l.socket.Close()
		return fmt.Errorf("sending the audit record: %w", answerError(err))
	}
	answer, err := l.acknowledgement(seq)
	if err != nil {
		// The socket may still get this answer later; a new one will not.
		_ = l.socket.Close()
		return err
	}
	n.put(l)
	if answer != nil {
		return fmt.Errorf("the kernel refused the audit record: %w", answerError(answer))
	}
	return nil
}

// send repeats what a signal interrupted: nothing has been sent then.
func (l *line) send(msg syscall.NetlinkMessage) (uint32, error) {
	for {
		seq, err := l.socket.Send(msg)
		if !errors.Is(err, syscall.EINTR) {
			return seq, err
		}
	}
}

// acknowledgement returns the kernel's answer to the message seq, nil for taken.
// The kernel handles an audit message inside sendto(2) and has queued the
// answer when that returns (netlink_rcv_skb), so an answer that is not there
// will not come, and waiting for it would hang.
func (l *line) acknowledgement(seq uint32) (answer, err error) {
	for {
		msgs, err := l.receive()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		for i := range msgs {
			if msgs[i].Header.Seq == seq && msgs[i].Header.Type == syscall.NLMSG_ERROR {
				return libaudit.ParseNetlinkError(msgs[i].Data), nil
			}
		}
	}
}

func (l *line) receive() ([]syscall.NetlinkMessage, error) {
	for {
		msgs, err := l.socket.Receive(true, l.parse)
		if !errors.Is(err, syscall.EINTR) {
			return msgs, err
		}
	}
}

// parseAnswers splits what one read returned into messages, like
// syscall.ParseNetlinkMessage, without allocating. The messages live until the
// next read.
func (l *line) parseAnswers(b []byte) ([]syscall.NetlinkMessage, error) {
	l.parsed = l.parsed[:0]
	for len(b) >= syscall.NLMSG_HDRLEN {
		header := *(*syscall.NlMsghdr)(unsafe.Pointer(&b[0]))
		if header.Len < syscall.NLMSG_HDRLEN || uint64(header.Len) > uint64(len(b)) {
			return nil, syscall.EINVAL
		}
		l.parsed = append(l.parsed, syscall.NetlinkMessage{Header: header, Data: b[syscall.NLMSG_HDRLEN:header.Len]})
		// Messages start at multiples of NLMSG_ALIGNTO (netlink(3)).
		next := (int(header.Len) + syscall.NLMSG_ALIGNTO - 1) &^ (syscall.NLMSG_ALIGNTO - 1)
		b = b[min(next, len(b)):]
	}
	return l.parsed, nil
}

func (n *netlink) close() error {
	n.closed.Store(true)
	if l := n.idle.Swap(nil); l != nil {
		return l.socket.Close()
	}
	return nil
}
