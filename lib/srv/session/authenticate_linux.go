// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The part of a login that comes before the daemon lets the client in, where PAM
// is to authenticate the person. Nothing of it is told to the audit system here:
// the client may try again, and the daemon tells of the connection as a whole.

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// authenticate runs PAM's auth and account stacks, and has a password changed
// that they want changed.
func (l *login) authenticate() *refusal {
	if refusal := l.prepare(); refusal != nil {
		return refusal
	}
	defer theirFaults()()
	err := l.startPAM()
	if err == nil {
		err = l.pam.Authenticate()
	}
	if err == nil {
		err = l.pam.CheckAccount()
	}
	if err != nil {
		return l.pamRefusal(err)
	}
	return l.sent(&Authenticated{Text: l.takeText()})
}

// prompt asks the person a question of PAM's.
func (l *login) prompt(echo bool, text string) (string, error) {
	text = text[:min(len(text), maxText)]
	if err := l.send(&Prompt{Echo: echo, Instruction: l.takeText(), Text: text}); err != nil {
		return "", fmt.Errorf("asking the user: %w", err)
	}
	m, err := l.nextAnswer()
	if err != nil {
		return "", err
	}
	answer, ok := m.(*Answer)
	switch {
	case m == nil:
		return "", errors.New("the client has gone")
	case !ok:
		return "", errMalformed
	case !answer.OK:
		return "", errors.New("the client gave no answer that PAM takes")
	}
	return answer.Text, nil
}

// nextAnswer is next for a time when the processes of this one are a module's,
// whose ends that module waits for.
func (l *login) nextAnswer() (Message, error) {
	fds := []unix.PollFd{
		{Fd: int32(l.socket), Events: unix.POLLIN},
		{Fd: int32(l.wake), Events: unix.POLLIN},
	}
	for {
		n, err := unix.Poll(fds, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("waiting for the daemon: %w", err)
		}
		if l.terminated() {
			return nil, nil
		}
		if n > 0 && fds[0].Revents != 0 {
			return l.receive()
		}
		var count [8]byte
		_, _ = unix.Read(l.wake, count[:])
	}
}

// refuseAttempt tells the daemon why PAM did not authenticate the person.
func (l *login) refuseAttempt(r *refusal) error {
	err := l.closePAM()
	return errors.Join(err, ignoreGone(l.send(&Refused{Reason: r.err.Error(), Word: r.reason, Text: r.text})))
}

// abandon ends what was authenticated and never became a login.
func (l *login) abandon() error {
	if l.pam == nil {
		return nil
	}
	err := l.closePAM()
	return errors.Join(err, ignoreGone(l.send(&Ended{})))
}
