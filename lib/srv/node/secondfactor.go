// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// PAM's authentication, after the certificate: teleport-session runs the stack,
// and its questions go to the client. It is the one that the login goes on with,
// since a PAM transaction is a process's.

package node

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/pam"
	"teleport-auditd/lib/pam/pamenv"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/session"
)

// abandonTimeout is what PAM's modules have to end when nobody waits for them any
// more. What they have done by then is no login.
const abandonTimeout = 3 * time.Second

// What the person may answer otherwise at the next attempt, in the words of
// session.Refused.
const (
	wordAuthenticate = "pam-" + string(pam.StageAuthenticate)
	wordPassword     = "pam-" + string(pam.StagePassword)
)

// errClientGone is why an attempt came to no answer.
var errClientGone = errors.New("the client has gone")

// secondFactor is one attempt of a client at PAM.
func (s *Server) secondFactor(ctx context.Context, attempt srv.Attempt) (io.Closer, error) {
	l := newLogin(s, attempt.Identity, attempt.Conn.RemoteAddr(), attempt.Conn.LocalAddr())
	l.asked = make(chan session.Message, 1)
	authenticated := false
	defer func() {
		if !authenticated {
			_ = l.Close()
		}
	}()
	if err := l.authenticate(ctx, attempt.Ask); err != nil {
		return nil, err
	}
	authenticated = true
	return l, nil
}

// authenticate starts teleport-session and carries PAM's questions until it has
// decided. The error is a *srv.Refusal, unless the client was the cause.
func (l *login) authenticate(ctx context.Context, ask ssh.KeyboardInteractiveChallenge) error {
	l.mu.Lock()
	err := l.run()
	l.mu.Unlock()
	if err != nil {
		l.log.WithError(err).Error("teleport-session could not be started to authenticate the user.")
		return trace.Wrap(&srv.Refusal{Reason: "session-process-not-started", Final: true, Err: err})
	}
	for {
		m, err := l.await(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		switch m := m.(type) {
		case *session.Prompt:
			err = l.answer(m, ask)
		case *session.Authenticated:
			if err = show(ask, m.Text); err == nil {
				err = l.authenticated()
			}
			return trace.Wrap(err)
		case *session.Refused:
			if err := show(ask, m.Text); err != nil {
				// The host has refused all the same.
				l.log.Debugf("The client was not told why PAM refused: %v.", err)
			}
			err = &srv.Refusal{Reason: m.Word, Final: m.Word != wordAuthenticate && m.Word != wordPassword, Err: errors.New(m.Reason)}
		}
		if err != nil {
			return trace.Wrap(err)
		}
	}
}

// await returns what teleport-session says next.
func (l *login) await(ctx context.Context) (session.Message, error) {
	select {
	case m := <-l.asked:
		return m, nil
	case <-ctx.Done():
		return nil, errClientGone
	case <-l.done:
	}
	select {
	case m := <-l.asked:
		// Its last word.
		return m, nil
	default:
		return nil, l.died()
	}
}

func (l *login) died() error {
	return &srv.Refusal{Reason: "session-process-died", Final: true, Err: errors.New("teleport-session has ended")}
}

// answer asks the client a question of PAM's, and gives PAM the answer.
func (l *login) answer(m *session.Prompt, ask ssh.KeyboardInteractiveChallenge) error {
	answers, err := ask("", m.Instruction, []string{m.Text}, []bool{m.Echo})
	if err != nil {
		return trace.Wrap(err)
	}
	if len(answers) != 1 {
		return trace.BadParameter("the client has given %d answers to one question", len(answers))
	}
	b, err := session.Encode(&session.Answer{OK: true, Text: answers[0]})
	if err != nil {
		// It is far too long.
		if b, err = session.Encode(&session.Answer{}); err != nil {
			return trace.Wrap(err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return l.died()
	}
	if err := l.write(b); err != nil {
		l.log.WithError(err).Error("teleport-session does not take the answer to a question of PAM's.")
		return l.died()
	}
	return nil
}

// show shows the client what PAM had to say after its last question.
func show(ask ssh.KeyboardInteractiveChallenge, text string) error {
	if text == "" {
		return nil
	}
	_, err := ask("", text, nil, nil)
	return trace.Wrap(err)
}

// authenticated ends PAM's authentication: from here on teleport-session waits
// for the first process, and what happens to it is this login's.
func (l *login) authenticated() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return l.died()
	}
	l.asked = nil
	return nil
}

// tell passes on what teleport-session says of PAM's authentication. The caller
// holds the lock.
func (l *login) tell(m session.Message) {
	if l.asked == nil {
		l.log.Errorf("teleport-session sent a message that nobody waits for (%T).", m)
		return
	}
	select {
	case l.asked <- m:
	default:
		// Who waited has left.
	}
}

// refusalLevel is how loud a refusal is told. What PAM says when its client has
// left is of no interest. The caller holds the lock.
func (l *login) refusalLevel() logrus.Level {
	if l.asked != nil && l.over {
		return logrus.DebugLevel
	}
	return logrus.WarnLevel
}

// Close ends a login that nothing was started on, and returns when nothing is
// left of it. A module of PAM's may be in the middle of something.
func (l *login) Close() error {
	l.mu.Lock()
	l.over = true
	socket, process := l.socket, l.teleportSession
	l.mu.Unlock()
	if socket == nil {
		return nil
	}
	_ = socket.CloseWrite()
	if l.isDone(abandonTimeout) {
		return nil
	}
	l.log.Warnf("PAM has not come to an end within %v after its client had gone: ending it.", abandonTimeout)
	// What a module runs holds the module up, and would be left behind.
	left := session.Members{Ancestor: process.Pid}.Kill(killTimeout)
	if !l.isDone(killTimeout) {
		_ = process.Kill()
		if !l.isDone(killTimeout) {
			left = errors.Join(left, trace.Errorf("teleport-session %d does not end", process.Pid))
		}
	}
	return trace.Wrap(left)
}

// isDone waits until teleport-session is gone, and tells whether it is.
func (l *login) isDone(limit time.Duration) bool {
	timer := l.server.cfg.Clock.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.done:
		return true
	case <-timer.Chan():
		return false
	}
}

// pamEnvironment returns the variables for PAM's modules, and says which of them
// this person does not get.
func (l *login) pamEnvironment() []string {
	cfg := &l.server.cfg.PAM
	if !cfg.Enabled {
		return nil
	}
	pairs, left := cfg.Environment.Expand(pamenv.Person{
		Name:   l.identity.TeleportUser,
		Logins: l.identity.Principals,
		Traits: l.identity.Traits,
	})
	for _, variable := range left {
		l.log.Warnf("The variable %s of ssh_service.pam.environment is left out: %s.", variable.Name, variable.Reason)
	}
	return pairs
}
