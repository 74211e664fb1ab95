// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package pam

import (
	"errors"
	"fmt"
	"strings"

	"github.com/msteinert/pam/v2"
)

// Available returns nil: this program has PAM.
func Available() error { return nil }

// Transaction is a PAM transaction of one login.
type Transaction struct {
	cfg  Config
	pam  *pam.Transaction
	cred bool
	open bool
	// unanswered is why a prompt had no answer. Modules turn it into one of
	// libpam's words, which say less.
	unanswered error
}

var errPrompt = errors.New("PAM asked the user a question, and nobody is asked at a certificate login")

// Start begins a transaction. The error is an *Error of StageStart where the
// service has no file, among others.
func Start(cfg Config) (*Transaction, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, err
	}
	t := &Transaction{cfg: cfg}
	answer := pam.ConversationFunc(func(style pam.Style, text string) (string, error) {
		switch style {
		case pam.TextInfo, pam.ErrorMsg:
			cfg.Text(text)
			return "", nil
		case pam.PromptEchoOn, pam.PromptEchoOff:
			return t.prompt(style == pam.PromptEchoOn, text)
		}
		return "", pam.ErrConv
	})
	var err error
	if cfg.ConfDir != "" {
		t.pam, err = pam.StartConfDir(cfg.Service, cfg.User, answer, cfg.ConfDir)
	} else {
		t.pam, err = pam.Start(cfg.Service, cfg.User, answer)
	}
	if err != nil {
		return nil, t.failed(StageStart, err)
	}
	for _, item := range []struct {
		item  pam.Item
		value string
	}{{pam.Rhost, cfg.RHost}, {pam.Tty, cfg.TTY}} {
		if item.value == "" {
			continue
		}
		if err := t.pam.SetItem(item.item, item.value); err != nil {
			return nil, errors.Join(t.failed(StageStart, err), t.Close())
		}
	}
	for _, pair := range cfg.Env {
		if strings.IndexByte(pair, 0) >= 0 || strings.IndexByte(pair, '=') < 1 {
			continue
		}
		if err := t.pam.PutEnv(pair); err != nil {
			return nil, errors.Join(t.failed(StageStart, err), t.Close())
		}
	}
	return t, nil
}

// prompt asks the user.
func (t *Transaction) prompt(echo bool, text string) (answer string, err error) {
	if t.cfg.Prompt == nil {
		err = errPrompt
	} else if answer, err = t.cfg.Prompt(echo, text); err == nil {
		err = checkAnswer(answer)
	}
	if err != nil {
		t.unanswered = err
		return "", err
	}
	return answer, nil
}

// SetTTY changes Config.TTY, where the terminal was not known at Start.
func (t *Transaction) SetTTY(tty string) error {
	if err := checkNUL(tty); err != nil {
		return t.failed(StageSession, err)
	}
	if err := t.pam.SetItem(pam.Tty, tty); err != nil {
		return t.failed(StageSession, err)
	}
	return nil
}

// Authenticate lets the auth stack find out who is there. The error is an
// *Error.
func (t *Transaction) Authenticate() error {
	if err := t.call(StageAuthenticate, t.pam.Authenticate, 0); err != nil {
		return err
	}
	return t.checkUser(StageAuthenticate)
}

// CheckAccount asks the account stack, and has the password changed where that
// demands it. The error is an *Error; ErrPasswordExpired is in it where there is
// nobody to ask for a new password.
func (t *Transaction) CheckAccount() error {
	err := t.call(StageAccount, t.pam.AcctMgmt, 0)
	if errors.Is(err, pam.ErrNewAuthtokReqd) {
		if t.cfg.Prompt == nil {
			return t.failed(StageAccount, fmt.Errorf("%w (%w)", pam.ErrNewAuthtokReqd, ErrPasswordExpired))
		}
		err = t.call(StagePassword, t.pam.ChangeAuthTok, pam.ChangeExpiredAuthtok)
	}
	if err != nil {
		return err
	}
	return t.checkUser(StageAccount)
}

// Establish establishes the credentials. The error is an *Error.
func (t *Transaction) Establish() error {
	if err := t.call(StageSetcred, t.pam.SetCred, pam.EstablishCred); err != nil {
		return err
	}
	t.cred = true
	return t.checkUser(StageSetcred)
}

// checkUser refuses a module's renaming of the user. The records, the login uid
// and the processes of this login would then name two people.
func (t *Transaction) checkUser(stage Stage) error {
	user, err := t.pam.GetItem(pam.User)
	if err != nil {
		return t.failed(stage, err)
	}
	if user != t.cfg.User {
		return t.failed(stage, fmt.Errorf("a module changed the user from %q to %q", t.cfg.User, user))
	}
	return nil
}

// OpenSession runs the session stack. The error is an *Error.
func (t *Transaction) OpenSession() error {
	if err := t.call(StageSession, t.pam.OpenSession, 0); err != nil {
		return err
	}
	t.open = true
	return nil
}

// Environment returns what the modules set, as NAME=value pairs in no order.
func (t *Transaction) Environment() ([]string, error) {
	vars, err := t.pam.GetEnvList()
	if err != nil {
		return nil, t.failed(StageSession, err)
	}
	env := make([]string, 0, len(vars))
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	return env, nil
}

// Close closes the session, deletes the credentials and ends the transaction,
// as far as they were begun. It does all of it, whatever fails on the way.
func (t *Transaction) Close() error {
	var errs []error
	if t.open {
		t.open = false
		if err := t.pam.CloseSession(0); err != nil {
			errs = append(errs, t.failed(StageClose, err))
		}
	}
	if t.cred {
		t.cred = false
		if err := t.pam.SetCred(pam.DeleteCred); err != nil {
			errs = append(errs, t.failed(StageClose, err))
		}
	}
	if err := t.pam.End(); err != nil {
		errs = append(errs, t.failed(StageClose, err))
	}
	return errors.Join(errs...)
}

// call runs a stage of the stack.
func (t *Transaction) call(stage Stage, function func(pam.Flags) error, flags pam.Flags) error {
	t.unanswered = nil
	err := function(flags)
	switch {
	case err == nil:
		return nil
	case t.unanswered != nil:
		err = fmt.Errorf("%w (%w)", err, t.unanswered)
	}
	return t.failed(stage, err)
}

func (t *Transaction) failed(stage Stage, err error) error {
	return &Error{Stage: stage, Service: t.cfg.Service, Err: err}
}
