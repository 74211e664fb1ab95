// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditdtest

import (
	"encoding/binary"
	"sync"
	"syscall"

	libaudit "github.com/elastic/go-libaudit/v2"

	"teleport-auditd/lib/auditd"
)

// Kernel plays the kernel's side of audit sockets. Its fields may be changed
// through Set while sockets are open; the zero value has auditing switched off.
type Kernel struct {
	mu      sync.Mutex
	answers Answers
	records []Record
	open    int
	dialled int
	held    int
}

// Answers is what the Kernel says.
type Answers struct {
	// Enabled is the flag in the status: 0, 1, or 2 for locked.
	Enabled uint32
	// Dial, Send and Receive are what socket(2), sendto(2) and recvfrom(2)
	// fail with, zero for success. Send fails before the message is taken,
	// Receive after it.
	Dial, Send, Receive syscall.Errno
	// Times bounds how often Send and Receive fail, zero for always.
	Times int
	// Record and Status are the errno in the acknowledgement of a record and
	// of a request for the status.
	Record, Status syscall.Errno
	// Silent leaves the acknowledgement of records out.
	Silent bool
	// Stale puts an acknowledgement of another message, one that says EPERM,
	// before the right one.
	Stale bool
	// Block, where it is not nil, holds each record back until it is closed,
	// as the kernel does with a full backlog; BlockStatus does the same to
	// requests for the status.
	Block, BlockStatus <-chan struct{}
}

// Record is one record that the Kernel has taken.
type Record struct {
	Type auditd.EventType
	// Body is the message as it was sent, with its last byte overwritten by
	// NUL as the real kernel does it (audit_receive_msg in kernel/audit.c), and
	// cut there.
	Body string
	// Socket numbers the sockets in the order in which they were opened, from 1.
	Socket int
}

// Set changes what the Kernel says from now on.
func (k *Kernel) Set(a Answers) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers = a
}

// Records returns a copy of what was taken so far. A kernel that has auditing
// switched off acknowledges records and drops them.
func (k *Kernel) Records() []Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Record(nil), k.records...)
}

// Open returns how many sockets are open.
func (k *Kernel) Open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.open
}

// Dialled returns how many sockets were ever opened.
func (k *Kernel) Dialled() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dialled
}

// Held returns how many senders Block and BlockStatus hold back now.
func (k *Kernel) Held() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held
}

// hold waits until block is closed, and not at all where it is nil.
func (k *Kernel) hold(block <-chan struct{}) {
	if block == nil {
		return
	}
	count := func(n int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.held += n
	}
	count(1)
	<-block
	count(-1)
}

// Dial is for auditd.Config.
func (k *Kernel) Dial() (auditd.Socket, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answers.Dial != 0 {
		return nil, k.answers.Dial
	}
	k.open++
	k.dialled++
	return &socket{kernel: k, number: k.dialled}, nil
}

// fail returns errno as long as Times allows it. The caller holds the lock.
func (k *Kernel) fail(errno *syscall.Errno) error {
	err := *errno
	if err == 0 {
		return nil
	}
	if k.answers.Times > 0 {
		if k.answers.Times--; k.answers.Times == 0 {
			*errno = 0
		}
	}
	return err
}

type socket struct {
	kernel *Kernel
	number int

	mu     sync.Mutex
	seq    uint32
	queue  [][]byte
	closed bool
}

func (s *socket) Send(msg syscall.NetlinkMessage) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, syscall.EBADF
	}
	s.seq++
	k := s.kernel
	k.mu.Lock()
	if err := k.fail(&k.answers.Send); err != nil {
		k.mu.Unlock()
		return s.seq, err
	}
	answers := k.answers
	k.mu.Unlock()

	const get = 1000 // AUDIT_GET
	if msg.Header.Type == get {
		k.hold(answers.BlockStatus)
		if answers.Status != 0 {
			s.acknowledge(s.seq, answers.Status)
			return s.seq, nil
		}
		// The real one sends the status after the acknowledgement.
		s.acknowledge(s.seq, 0)
		status := make([]byte, 44)
		binary.NativeEndian.PutUint32(status[4:], answers.Enabled)
		s.push(get, s.seq, status)
		return s.seq, nil
	}
	k.hold(answers.Block)
	if answers.Stale {
		s.acknowledge(s.seq-1, syscall.EPERM)
	}
	if answers.Record == 0 && answers.Enabled != 0 {
		body := append([]byte(nil), msg.Data...)
		if n := len(body); n > 0 {
			body = body[:n-1]
		}
		k.mu.Lock()
		k.records = append(k.records, Record{Type: auditd.EventType(msg.Header.Type), Body: string(body), Socket: s.number})
		k.mu.Unlock()
	}
	if !answers.Silent {
		s.acknowledge(s.seq, answers.Record)
	}
	return s.seq, nil
}

// SendNoWait is Send: a full backlog is played by Answers.Block alone.
func (s *socket) SendNoWait(msg syscall.NetlinkMessage) (uint32, error) { return s.Send(msg) }

func (s *socket) acknowledge(seq uint32, errno syscall.Errno) {
	body := make([]byte, 4+syscall.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(body, uint32(-int32(errno)))
	s.push(syscall.NLMSG_ERROR, seq, body)
}

func (s *socket) push(msgType uint16, seq uint32, body []byte) {
	b := make([]byte, syscall.SizeofNlMsghdr, syscall.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(cap(b)))
	binary.NativeEndian.PutUint16(b[4:], msgType)
	binary.NativeEndian.PutUint32(b[8:], seq)
	s.queue = append(s.queue, append(b, body...))
}

func (s *socket) Receive(_ bool, parse libaudit.NetlinkParser) ([]syscall.NetlinkMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, syscall.EBADF
	}
	k := s.kernel
	k.mu.Lock()
	err := k.fail(&k.answers.Receive)
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if len(s.queue) == 0 {
		return nil, syscall.EAGAIN
	}
	b := s.queue[0]
	s.queue = s.queue[1:]
	return parse(b)
}

func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return syscall.EBADF
	}
	s.closed = true
	s.kernel.mu.Lock()
	s.kernel.open--
	s.kernel.mu.Unlock()
	return nil
}
