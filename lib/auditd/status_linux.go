// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Message types and layouts of include/uapi/linux/audit.h.
const (
	msgGet        = 1000 // AUDIT_GET
	msgGetFeature = 1019 // AUDIT_GET_FEATURE

	// featureLoginUIDImmutable is AUDIT_FEATURE_LOGINUID_IMMUTABLE as a bit.
	featureLoginUIDImmutable = 1 << 1
)

// statusTimeout bounds the wait for a status. The kernel sends it from a thread
// that it starts for it, so it comes a little after the acknowledgement.
const statusTimeout = time.Second

// ReadStatus asks the kernel for its audit status. The errors are ErrAbsent,
// ErrUserNamespace, ErrNotPermitted (it needs CAP_AUDIT_CONTROL in the initial
// PID namespace), or what the socket answered.
func ReadStatus() (Status, error) {
	n := newNetlink(dialKernel, "")
	defer func() { _ = n.close() }()
	s, err := n.status()
	if err != nil {
		return Status{}, err
	}
	features, err := n.ask(msgGetFeature, 16)
	if err != nil {
		return Status{}, err
	}
	// struct audit_features: version, mask, features, lock.
	s.LoginUIDImmutable = binary.NativeEndian.Uint32(features[8:])&featureLoginUIDImmutable != 0
	s.LoginUIDLocked = binary.NativeEndian.Uint32(features[12:])&featureLoginUIDImmutable != 0
	return s, nil
}

// status reads struct audit_status.
func (n *netlink) status() (Status, error) {
	// Up to backlog it has been there since Linux 2.6; the rest came later.
	b, err := n.ask(msgGet, 32)
	if err != nil {
		return Status{}, err
	}
	field := func(i int) uint32 {
		if len(b) < 4*i+4 {
			return 0
		}
		return binary.NativeEndian.Uint32(b[4*i:])
	}
	return Status{
		EnabledFlag:           field(1),
		Failure:               field(2),
		PID:                   field(3),
		RateLimit:             field(4),
		BacklogLimit:          field(5),
		Lost:                  field(6),
		Backlog:               field(7),
		BacklogWaitTime:       field(9),
		BacklogWaitTimeActual: field(10),
	}, nil
}

// ask sends a request without a body and returns a copy of the answer, which
// has at least size bytes.
func (n *netlink) ask(msgType uint16, size int) ([]byte, error) {
	l, err := n.take()
	if err != nil {
		return nil, err
	}
	seq, err := l.send(syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{Type: msgType, Flags: syscall.NLM_F_REQUEST | syscall.NLM_F_ACK},
	})
	if err != nil {
		_ = l.socket.Close()
		return nil, fmt.Errorf("asking for the audit status: %w", answerError(err))
	}
	answer, err := l.answer(seq, msgType, size)
	if err != nil {
		_ = l.socket.Close()
		return nil, fmt.Errorf("asking for the audit status: %w", answerError(err))
	}
	n.put(l)
	return answer, nil
}

// answer waits for the message of the given type. It does not block in the
// kernel: an answer that got lost there would never end it.
func (l *line) answer(seq uint32, msgType uint16, size int) ([]byte, error) {
	deadline := time.Now().Add(statusTimeout)
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		msgs, err := l.receive()
		if errors.Is(err, syscall.EAGAIN) && time.Now().Before(deadline) {
			time.Sleep(wait)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			switch {
			case m.Header.Seq != seq:
			case m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4:
				if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
					return nil, syscall.Errno(errno)
				}
			case m.Header.Type == msgType && len(m.Data) >= size:
				return append([]byte(nil), m.Data...), nil
			}
		}
	}
}

// canWrite returns ErrNotPermitted where the calling thread lacks
// CAP_AUDIT_WRITE. The uid says nothing about it: root in a container may lack
// it, others may have it.
func canWrite() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	// Where even this is forbidden, sending finds out.
	if err := unix.Capget(&header, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_AUDIT_WRITE) == 0 {
		return ErrNotPermitted
	}
	return nil
}

// absence tells the two kinds of a kernel without auditing apart.
func absence() error {
	if _, err := os.Stat("/proc/self/loginuid"); err != nil {
		return fmt.Errorf("%w: CONFIG_AUDIT is missing", ErrAbsent)
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ErrAbsent
	}
	for _, arg := range strings.Fields(string(cmdline)) {
		if arg == "audit=0" || arg == "audit=off" {
			return fmt.Errorf("%w: %s is on the kernel's command line", ErrAbsent, arg)
		}
	}
	return ErrAbsent
}
