// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

// What a client may be asked after its certificate (keyboard-interactive, RFC
// 4256).

import (
	"errors"

	"golang.org/x/crypto/ssh"
)

// Attempt is one try of a client's at the second factor.
type Attempt struct {
	// Identity is who has proven to be there, by certificate.
	Identity Identity
	// Conn says between which addresses.
	Conn ssh.ConnMetadata
	// Ask shows the person a text, asks the questions, and returns as many
	// answers, which may hold any bytes. It waits for the person. Its error says
	// that the client is gone, or makes no sense.
	Ask ssh.KeyboardInteractiveChallenge
}

// Refusal is why Config.Authorize or Config.SecondFactor keeps a client out.
type Refusal struct {
	// Reason is what the record says: words joined by hyphens.
	Reason string
	// Final, of a second factor, says that no other answer would change it: Config.SecondFactor is not
	// called again for this connection.
	Final bool
	Err   error
}

// Error returns what went wrong, for the log.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// askForMore is the answer to a client whose certificate is good: it has to do
// more. What it has not done yet is what a failure is about from here on.
func (l *login) askForMore(meta ssh.ConnMetadata) error {
	l.note(failure{telling: proven, login: meta.User(), person: l.identity.TeleportUser, reason: reasonSecondFactor})
	return &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{KeyboardInteractiveCallback: l.secondFactor}}
}

// secondFactor is one attempt.
func (l *login) secondFactor(meta ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	if l.final != nil {
		return nil, l.refuse(*l.final)
	}
	ctx, cancel := l.untilGone()
	defer cancel()
	second, err := l.server.cfg.SecondFactor(ctx, Attempt{Identity: l.identity, Conn: meta, Ask: ask})
	if err == nil {
		l.second = second
		return &ssh.Permissions{}, nil
	}
	// A client that leaves after a wrong answer has given a wrong answer.
	f := l.worst
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		f.reason = refusal.Reason
		if refusal.Final {
			l.final = &f
		}
	}
	return nil, l.refuse(f)
}
