// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package access

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gravitational/trace"
)

const (
	// maxName bounds the name of a login or role, in bytes, and maxValue that
	// of a label's key or pattern.
	maxName, maxValue = 255, 1024
	// maxEntries bounds each list of a role: a login is decided by going through
	// all of them.
	maxEntries = 1000
)

// loginForbidden are the printable characters that separate, quote or stand for
// other names in shells, configuration files and roles.
const loginForbidden = ",\"'`*"

// CheckLogin tells whether a text may be a login that a certificate names: 1 to
// 255 bytes of UTF-8 without control or invisible characters, spaces, commas,
// quotes, asterisks, and a dash at the beginning. The error is
// trace.BadParameter.
func CheckLogin(login string) error {
	if err := checkText("login", login, maxName); err != nil {
		return trace.Wrap(err)
	}
	if strings.HasPrefix(login, "-") {
		return trace.BadParameter("the login %q begins with a dash, and programs would take it for an option", login)
	}
	if strings.ContainsAny(login, loginForbidden) || strings.ContainsFunc(login, unicode.IsSpace) {
		return trace.BadParameter("the login %q has a space, comma, quote or asterisk", login)
	}
	return nil
}

// CheckRoleName tells whether a text may name a role: letters and digits of any
// script and the marks . _ - + @ within 255 bytes, beginning with a letter or a
// digit. The error is trace.BadParameter.
func CheckRoleName(name string) error {
	if err := checkText("role name", name, maxName); err != nil {
		return trace.Wrap(err)
	}
	for i, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || i > 0 && (unicode.IsMark(r) || strings.ContainsRune("._-+@", r)) {
			continue
		}
		return trace.BadParameter("the role name %q has the character %q there: begin with a letter or a digit, and use these and . _ - + @", name, r)
	}
	return nil
}

func checkText(what, text string, limit int) error {
	switch {
	case text == "":
		return trace.BadParameter("a %s is empty", what)
	case len(text) > limit:
		return trace.BadParameter("a %s is %d bytes long, and may have %d", what, len(text), limit)
	case !utf8.ValidString(text):
		return trace.BadParameter("the %s %q is not UTF-8", what, text)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return trace.BadParameter("the %s %q has the control or invisible character %U", what, text, r)
		}
	}
	return nil
}
