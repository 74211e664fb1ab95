// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The server: one packet after the other, and the files that are open.

package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// maxHandles bounds the files and folders that a client has open at once.
const maxHandles = 1000

// server serves one client. It answers each request before it reads the next,
// and reads none while its answers are not taken, so that what a client can make
// it keep is bounded by its two buffers.
type server struct {
	from, to int
	readOnly bool
	// in holds what was read, from begin to end.
	in         []byte
	begin, end int
	out        reply
	greeted    bool

	handles map[uint32]*handle
	last    uint32
	names   names
}

// handle is a file or folder that the client has open.
type handle struct {
	fd int
	// listing is nil for what was opened as a file.
	listing *listing
}

func newServer(from, to uintptr) *server {
	return &server{
		from: int(from), to: int(to),
		in: make([]byte, 2*maxPacket),
		// A packet that data is read into lies behind those that wait.
		out:     reply{b: make([]byte, 0, 2*maxPacket)},
		handles: make(map[uint32]*handle),
	}
}

// serve returns when the client is gone, which is no error.
func (s *server) serve() error {
	defer s.closeAll()
	for {
		packet, err := s.next()
		if err != nil || packet == nil {
			return err
		}
		if err := s.handle(packet); err != nil {
			return errors.Join(err, gone(s.flush()))
		}
		// What is answered while more requests wait goes out together.
		if len(s.out.b) > maxPacket/4 {
			if err := s.flush(); err != nil {
				return gone(err)
			}
		}
	}
}

// gone makes nothing of a client that went away.
func gone(err error) error {
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// next returns the next packet, without its length, or nil at the end.
func (s *server) next() ([]byte, error) {
	for {
		have := s.in[s.begin:s.end]
		if len(have) >= 4 {
			length := binary.BigEndian.Uint32(have)
			if length < 1 || length > maxPacket {
				return nil, fmt.Errorf("the client sent a packet of %d bytes, and 1 to %d are allowed", length, maxPacket)
			}
			if packet := have[4:]; uint32(len(packet)) >= length {
				s.begin += 4 + int(length)
				return packet[:length], nil
			}
		}
		if err := s.flush(); err != nil {
			return nil, gone(err)
		}
		if s.begin == s.end || s.begin > maxPacket/2 {
			s.end = copy(s.in, have)
			s.begin = 0
		}
		n, err := retry(s.from, unix.POLLIN, func() (int, error) { return unix.Read(s.from, s.in[s.end:]) })
		if err != nil {
			return nil, fmt.Errorf("reading from the client: %w", err)
		}
		if n == 0 {
			if s.begin != s.end {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, nil
		}
		s.end += n
	}
}

// flush sends what waits to be sent.
func (s *server) flush() error {
	for b := s.out.b; len(b) > 0; {
		n, err := retry(s.to, unix.POLLOUT, func() (int, error) { return unix.Write(s.to, b) })
		if err != nil {
			s.out.b = s.out.b[:0]
			return fmt.Errorf("writing to the client: %w", err)
		}
		b = b[n:]
	}
	s.out.b = s.out.b[:0]
	return nil
}

// retry repeats a call that a signal has interrupted. Whoever started this
// program may have left a descriptor that does not wait.
func retry(fd int, events int16, call func() (int, error)) (int, error) {
	for {
		n, err := call()
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return 0, err
			}
		default:
			return 0, err
		}
	}
}

// handle carries out one packet. The error ends the server.
func (s *server) handle(packet []byte) error {
	kind, r := packet[0], &request{b: packet[1:]}
	if kind == packetInit {
		if r.uint32(); r.bad {
			return errMalformed
		}
		s.greeted = true
		s.greet()
		return nil
	}
	if !s.greeted {
		return fmt.Errorf("the client sent a packet of kind %d before its version", kind)
	}
	id := r.uint32()
	if r.bad {
		return errMalformed
	}
	o, ok := operationOf(kind)
	if kind == packetExtended {
		o, ok = extensionOf(r.string())
	}
	if r.bad {
		return errMalformed
	}
	if !ok {
		s.status(id, codeUnsupported, "")
		return nil
	}
	if o.writes && s.readOnly {
		s.status(id, codePermissionDenied, "this server is for reading only")
		return nil
	}
	err := o.run(s, id, r)
	if errors.Is(err, errAnswered) {
		return nil
	}
	if errors.Is(err, errMalformed) {
		return err
	}
	s.fail(id, err)
	return nil
}

// operation is how a request is carried out. run returns errAnswered where it
// has written the answer, errMalformed where the packet lacks something, and
// otherwise what the status is of.
type operation struct {
	run func(s *server, id uint32, r *request) error
	// writes says that nobody who only reads may ask for it.
	writes bool
}

var (
	errAnswered  = errors.New("answered")
	errEOF       = errors.New("end of file")
	errBadHandle = errors.New("no such handle is open")
)

func operationOf(kind byte) (operation, bool) {
	switch kind {
	case packetOpen:
		return operation{run: (*server).open}, true
	case packetClose:
		return operation{run: (*server).close}, true
	case packetRead:
		return operation{run: (*server).read}, true
	case packetWrite:
		return operation{run: (*server).write, writes: true}, true
	case packetLstat:
		return operation{run: (*server).lstat}, true
	case packetStat:
		return operation{run: (*server).stat}, true
	case packetFstat:
		return operation{run: (*server).fstat}, true
	case packetSetstat:
		return operation{run: (*server).setstat, writes: true}, true
	case packetFsetstat:
		return operation{run: (*server).fsetstat, writes: true}, true
	case packetOpendir:
		return operation{run: (*server).opendir}, true
	case packetReaddir:
		return operation{run: (*server).readdir}, true
	case packetRemove:
		return operation{run: (*server).remove, writes: true}, true
	case packetMkdir:
		return operation{run: (*server).mkdir, writes: true}, true
	case packetRmdir:
		return operation{run: (*server).rmdir, writes: true}, true
	case packetRealpath:
		return operation{run: (*server).realpath}, true
	case packetRename:
		return operation{run: (*server).rename, writes: true}, true
	case packetReadlink:
		return operation{run: (*server).readlink}, true
	case packetSymlink:
		return operation{run: (*server).symlink, writes: true}, true
	}
	return operation{}, false
}

// status answers with a code. The text is for people, and empty for the code's
// own.
func (s *server) status(id uint32, c code, text string) {
	if text == "" {
		text = c.String()
	}
	s.out.begin(packetStatus, id)
	s.out.uint32(uint32(c))
	s.out.string(text)
	s.out.string("") // the text's language
	s.out.end()
}

// fail answers with the status of err, which may be nil.
func (s *server) fail(id uint32, err error) {
	var errno unix.Errno
	switch {
	case err == nil:
		s.status(id, codeOK, "")
	case errors.Is(err, errEOF):
		s.status(id, codeEOF, "")
	case errors.As(err, &errno):
		c, text := codeOf(errno), ""
		if c == codeFailure || c == codeBadMessage {
			text = errno.Error()
		}
		s.status(id, c, text)
	default:
		s.status(id, codeFailure, err.Error())
	}
}

// name answers with one name.
func (s *server) name(id uint32, name string) {
	s.out.begin(packetName, id)
	s.out.uint32(1)
	s.out.string(name)
	s.out.string(name)
	s.out.uint32(0) // no attributes
	s.out.end()
}

// keep answers with a handle for fd, which it takes.
func (s *server) keep(id uint32, h *handle) error {
	for taken := true; taken; {
		s.last++
		_, taken = s.handles[s.last]
	}
	s.handles[s.last] = h
	s.out.begin(packetHandle, id)
	s.out.uint32(4)
	s.out.uint32(s.last)
	s.out.end()
	return errAnswered
}

// number reads a handle's number.
func (r *request) number() (n uint32, ok bool) {
	if b := r.bytes(); len(b) == 4 {
		return binary.BigEndian.Uint32(b), true
	}
	return 0, false
}

// opened reads a handle. It is nil where there is none.
func (s *server) opened(r *request) *handle {
	n, ok := r.number()
	if !ok {
		return nil
	}
	return s.handles[n]
}

func (s *server) closeAll() {
	for _, h := range s.handles {
		_ = unix.Close(h.fd)
	}
	s.handles = nil
}
