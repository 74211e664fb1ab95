// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package seqpacket sends and receives messages with descriptors over a
// SOCK_SEQPACKET socket pair, by which the daemon talks to the processes of a
// login (unix(7), SCM_RIGHTS).
package seqpacket

import (
	"errors"
	"net"
	"os"

	"github.com/gravitational/trace"
	"golang.org/x/sys/unix"
)

// Pair returns both ends of a new socket pair, which are the caller's to close:
// the one that stays here, and the one for another process.
func Pair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "seqpacket")
	ours, err = Conn(fds[0])
	if err != nil {
		_ = theirs.Close()
		return nil, nil, trace.Wrap(err)
	}
	return ours, theirs, nil
}

// Conn makes a connection of a socket's descriptor, which it takes over, also
// where it fails. The error says that it is no Unix socket.
func Conn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "seqpacket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, trace.BadParameter("the descriptor is no Unix socket")
	}
	return unixConn, nil
}

// maxRights is how many descriptors the kernel lets a message have (SCM_MAX_FD).
const maxRights = 253

// Receive returns the next message, cut to limit bytes, with its descriptors, of
// which there are most at most; the kernel drops the others. They are the
// caller's, close on exec and without blocking. The body is nil when the other
// side has closed its end. The buffer is as large as the message: most are small,
// and each login waits for one most of the time.
func Receive(socket *net.UnixConn, limit, most int) (body []byte, fds []int, err error) {
	body, fds, err = receive(socket, limit, most, func(f func()) { f() })
	if err != nil {
		CloseAll(fds)
		return nil, nil, err
	}
	return body, fds, nil
}

// ReceiveHostile is Receive for what a user's process sends. What the kernel
// drops it closes in the thread that receives, which may take as long as the user
// likes. So there is room for all descriptors, which are the caller's with an
// error too. Where this process has too many open files the kernel drops them
// all the same: what receives runs through pass.
func ReceiveHostile(socket *net.UnixConn, limit int, pass func(func())) (body []byte, fds []int, err error) {
	return receive(socket, limit, maxRights, pass)
}

func receive(socket *net.UnixConn, limit, most int, pass func(func())) (body []byte, fds []int, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		var n int
		n, _, inner = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if errors.Is(inner, unix.ECONNRESET) {
			// It has gone without reading all. This is told once, and before what
			// it has said itself.
			n, _, inner = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		}
		if errors.Is(inner, unix.EAGAIN) {
			return false
		}
		if inner != nil || n == 0 {
			return true
		}
		body = make([]byte, min(n, limit))
		rights := make([]byte, unix.CmsgSpace(most*4))
		pass(func() {
			var nrights int
			n, nrights, _, _, inner = unix.Recvmsg(int(fd), body, rights, unix.MSG_CMSG_CLOEXEC)
			if errors.Is(inner, unix.ECONNRESET) {
				n, nrights, _, _, inner = unix.Recvmsg(int(fd), body, rights, unix.MSG_CMSG_CLOEXEC)
			}
			if inner == nil {
				body = body[:n]
				fds, inner = parseRights(rights[:nrights])
			}
		})
		return true
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return nil, fds, trace.Wrap(err)
	}
	return body, fds, nil
}

// Drain takes the descriptors that are still queued at a socket that was shut
// down, a message at a time: they would be closed with it. What receives runs
// through pass, as in ReceiveHostile.
func Drain(socket *net.UnixConn, pass func(func()), discard func(fds []int)) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return trace.Wrap(err)
	}
	control := make([]byte, unix.CmsgSpace(maxRights*4)+unix.CmsgSpace(unix.SizeofUcred))
	for first := true; ; first = false {
		var fds []int
		more := false
		var inner error
		pass(func() {
			err = raw.Control(func(fd uintptr) {
				if first {
					// With its sender's name an empty message is no end.
					if inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); inner != nil {
						return
					}
				}
				var n int
				_, n, _, _, inner = unix.Recvmsg(int(fd), nil, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
				if errors.Is(inner, unix.ECONNRESET) {
					more, inner = true, nil
					return
				}
				if inner == nil && n > 0 {
					more = true
					fds, inner = rights(control[:n])
				}
			})
		})
		discard(fds)
		if err == nil {
			err = inner
		}
		if err != nil || !more {
			return trace.Wrap(err)
		}
	}
}

// parseRights returns the descriptors of a control message, set for the poller.
// They are the caller's, with an error too.
func parseRights(b []byte) (fds []int, err error) {
	fds, err = rights(b)
	if err != nil {
		return fds, err
	}
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			return fds, err
		}
	}
	return fds, nil
}

// rights returns the descriptors of a control message.
func rights(b []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, rights...)
	}
	return fds, nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
