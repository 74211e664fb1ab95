// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package pam runs one PAM transaction for one login.
//
//	t, err := pam.Start(pam.Config{Service: "sshd", User: "bob", RHost: "192.0.2.7", TTY: "/dev/pts/3"})
//	if err != nil {
//		return err
//	}
//	defer t.Close()
//	err = t.Authenticate() // auth, where a certificate alone is not enough
//	err = t.CheckAccount() // account, and password where it must be changed
//	err = t.Establish()    // credentials
//	err = t.OpenSession()  // session
//	env, err := t.Environment()
//
// Close undoes what was done, in the reverse order, on error paths too. Check
// tells whether a service's file can work, before anybody logs in.
//
// Modules act on the calling thread and its process: pam_loginuid writes the
// main thread's login uid, pam_keyinit the thread's keyring, pam_limits the
// process's limits. So all calls of a transaction belong on the main thread of a
// process that serves this login alone.
package pam

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnavailable comes from Available and Start in a program that was built
// without PAM.
var ErrUnavailable = errors.New("this program was built without PAM (build it with cgo and the PAM headers: Debian's libpam0g-dev, Fedora's pam-devel)")

// ErrPasswordExpired comes from CheckAccount where the account stack demands a
// new password and Config.Prompt is nil, so that nobody can be asked for one.
var ErrPasswordExpired = errors.New("the password must be changed, and nobody is asked for a new one at a certificate login")

// maxAnswer is how long an answer to a prompt may be: PAM_MAX_RESP_SIZE, which
// some modules have buffers of.
const maxAnswer = 512

// Stage is the part of a transaction that failed.
type Stage string

// The stages, in order.
const (
	StageStart        Stage = "start"
	StageAuthenticate Stage = "authenticate"
	StageAccount      Stage = "account"
	StagePassword     Stage = "password"
	StageSetcred      Stage = "setcred"
	StageSession      Stage = "session"
	StageClose        Stage = "close"
)

// Error is what a PAM stack answered.
type Error struct {
	Stage Stage
	// Service is the name of the service, the stack's file in /etc/pam.d.
	Service string
	Err     error
}

// Error says which stack refused, where, and with which words of libpam's.
func (e *Error) Error() string {
	return fmt.Sprintf("PAM service %q, %s: %v", e.Service, e.Stage, e.Err)
}

// Unwrap returns libpam's answer.
func (e *Error) Unwrap() error { return e.Err }

// Config is what a transaction needs.
type Config struct {
	// Service names the stack: a file in /etc/pam.d.
	Service string
	// ConfDir is a folder to read the stack from instead of /etc/pam.d. It is
	// for tests.
	ConfDir string
	// User is the login name.
	User string
	// RHost is the client's IP address, and TTY the terminal's path, or a word
	// for no terminal. Both reach the audit records that libpam writes.
	RHost, TTY string
	// Env holds NAME=value pairs for the modules. A pair with a NUL in it, or
	// without a name, is left out: libpam would cut it there, and a cut name is
	// another name.
	Env []string
	// Text takes what modules have to say to the user: the message of the day,
	// the reason of a refusal.
	Text func(string)
	// Prompt asks the user a question of a module's, and returns the answer.
	// echo says that the answer may be seen while it is typed. An error fails
	// the module, and is part of the transaction's error then. Where Prompt is
	// nil nobody is asked, which fails the module too.
	Prompt func(echo bool, text string) (string, error)
}

// CheckAndSetDefaults checks what came from elsewhere.
func (c *Config) CheckAndSetDefaults() error {
	if c.Service == "" || c.User == "" {
		return errors.New("pam.Config needs a Service and a User")
	}
	for _, s := range []string{c.Service, c.User, c.RHost, c.TTY} {
		if err := checkNUL(s); err != nil {
			return err
		}
	}
	if c.Text == nil {
		c.Text = func(string) {}
	}
	return nil
}

func checkNUL(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%q has a NUL in it, which PAM would take for its end", s)
	}
	return nil
}

// checkAnswer takes what a user may answer. The error does not repeat it.
func checkAnswer(answer string) error {
	switch {
	case len(answer) > maxAnswer:
		return fmt.Errorf("the user's answer is longer than the %d bytes that PAM takes", maxAnswer)
	case strings.IndexByte(answer, 0) >= 0:
		return errors.New("the user's answer has a NUL in it, which PAM would take for its end")
	}
	return nil
}
