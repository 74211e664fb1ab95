// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session"
)

// playSession is a teleport-session that misbehaves as the first command says.
// The test's own program is it where it was started as one, which it tells.
func playSession() bool {
	kind, err := unix.GetsockoptInt(session.Socket, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return false
	}
	receive := func() session.Message {
		b := make([]byte, session.MaxMessage)
		n, _, err := unix.Recvfrom(session.Socket, b, 0)
		if err != nil || n == 0 {
			return nil
		}
		m, err := session.Decode(b[:n])
		if err != nil {
			os.Exit(1)
		}
		return m
	}
	send := func(messages ...session.Message) {
		for _, m := range messages {
			b, err := session.Encode(m)
			if err != nil || unix.Sendto(session.Socket, b, unix.MSG_NOSIGNAL, nil) != nil {
				os.Exit(1)
			}
		}
	}
	receive()
	start, ok := receive().(*session.Start)
	if !ok {
		return true
	}
	loggedIn := &session.LoggedIn{AuditSession: 4294967295, TTY: "/dev/pts/77"}
	switch start.Command {
	case "die before the login":
		os.Exit(1)
	case "die after the login":
		send(loggedIn)
		os.Exit(1)
	case "no descriptors":
		send(loggedIn, &session.Started{ID: start.ID, PID: 1 << 30})
	case "garbage":
		send(loggedIn)
		_ = unix.Sendto(session.Socket, []byte("garbage"), unix.MSG_NOSIGNAL, nil)
	case "chatter":
		send(loggedIn)
		_ = unix.Sendto(session.Socket, []byte("garbage"), unix.MSG_NOSIGNAL, nil)
		for range 2000 {
			send(&session.Note{Text: "blah"})
		}
	case "answers to nobody":
		send(loggedIn,
			&session.Started{ID: 99, PID: 1 << 30}, &session.Failed{ID: 99}, &session.Exited{ID: 99},
			&session.Login{}, &session.Failed{ID: start.ID, Text: "but this is for you"})
	case "stop":
		send(loggedIn, &session.Failed{ID: start.ID, Text: "stopped"})
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "never end":
		send(loggedIn, &session.Failed{ID: start.ID, Text: strconv.Itoa(os.Getpid())})
		time.Sleep(time.Hour)
	}
	for receive() != nil {
	}
	send(&session.Ended{})
	return true
}

// playForwarder is a teleport-user whose owner has replaced it, and which does
// what its name says.
func playForwarder() bool {
	kind, err := unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET || len(os.Args) != 2 || os.Args[1] != "forward" {
		return false
	}
	pipe := make([]int, 2)
	_ = unix.Pipe(pipe)
	// As lib/srv/forward writes it: version, kind, ID.
	connected, accepted := []byte{1, 4, 1}, []byte{1, 7, 1, 0, 0}
	send := func(b []byte, fds ...int) bool {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		return unix.Sendmsg(0, b, rights, nil, unix.MSG_NOSIGNAL) == nil
	}
	_, _, _ = unix.Recvfrom(0, make([]byte, 8192), 0)
	switch filepath.Base(os.Args[0]) {
	case "garbage":
		send([]byte("garbage"))
	case "pipe":
		send(connected, pipe[0])
	case "many":
		send(connected, pipe[0], pipe[0], pipe[0], pipe[0])
	case "empty":
		send(nil)
	case "end":
		os.Exit(0)
	case "lingering":
		// Most of them are queued behind what ends the service.
		for range 4 {
			fds := []int{lingering(), lingering(), lingering(), lingering()}
			send(accepted, fds...)
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}
	case "nested":
		// Another socket is in the queue of one, and closed with it.
		pair, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		inner := lingering()
		_ = unix.Sendmsg(pair[1], []byte("x"), unix.UnixRights(inner), nil, 0)
		_, _ = unix.Close(inner), unix.Close(pair[1])
		send(accepted, pair[0])
		_ = unix.Close(pair[0])
	case "flood":
		pair, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		for send(accepted, pair[0]) && send(connected[:2]) {
		}
	case "flood of nobody's":
		pair, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		for range 20000 {
			send(accepted, pair[0])
		}
		send([]byte{1, 6, 1, 0, 13}) // Failed: EACCES
	}
	for {
		time.Sleep(time.Hour)
	}
}

// lingering returns a TCP socket closing which takes ten minutes, or until this
// process ends, which has its peer and does not read from it.
func lingering() int {
	listener, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	_ = unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	_ = unix.Listen(listener, 1)
	addr, _ := unix.Getsockname(listener)
	fd, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	_ = unix.Connect(fd, addr)
	_, _, _ = unix.Accept(listener)
	_ = unix.SetNonblock(fd, true)
	for b := make([]byte, 1<<16); ; {
		if _, err := unix.Write(fd, b); err != nil {
			break
		}
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 600})
	return fd
}
