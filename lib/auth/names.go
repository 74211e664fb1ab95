// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Which names may stand in a certificate. They end up in audit records, log
// lines, known_hosts files and command lines: what could be read as something
// else there is refused before it is signed.

package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gravitational/trace"
)

// loginForbidden are the printable characters that separate or quote words for
// shells, configuration files and `tctl --logins`.
const loginForbidden = ",\"'`"

// checkUser allows any script, and spaces between words.
func checkUser(user string) error {
	if err := checkName("user name", user); err != nil {
		return trace.Wrap(err)
	}
	if strings.TrimSpace(user) != user {
		return trace.BadParameter("the user name %q begins or ends with a space: remove it", user)
	}
	// tsh keeps logins in files that are named by the user.
	if user == "." || user == ".." || strings.Contains(user, "/") {
		return trace.BadParameter("the user name %q cannot name a file: use one without a slash that is not dots alone", user)
	}
	return nil
}

// checkLogins asks for at least one login: a certificate without any would be
// good for all of them, to some servers.
func checkLogins(logins []string) error {
	if len(logins) == 0 {
		return trace.BadParameter("there are no logins: give at least one, such as root")
	}
	if len(logins) > MaxPrincipals {
		return trace.BadParameter("there are %d logins, and a certificate holds at most %d", len(logins), MaxPrincipals)
	}
	seen := make(map[string]bool, len(logins))
	for _, login := range logins {
		if err := checkName("login", login); err != nil {
			return trace.Wrap(err)
		}
		if strings.HasPrefix(login, "-") {
			return trace.BadParameter("the login %q begins with a dash, and programs would take it for an option: use another", login)
		}
		if strings.ContainsAny(login, loginForbidden) || strings.ContainsFunc(login, unicode.IsSpace) {
			return trace.BadParameter("the login %q has a space, comma or quote: use a login without", login)
		}
		if seen[login] {
			return trace.BadParameter("the login %q is given twice: give it once", login)
		}
		seen[login] = true
	}
	return nil
}

// checkName is what all names have in common. Invisible characters are refused
// with the control characters: they make two names look the same, or turn the
// text after them around.
func checkName(what, name string) error {
	if name == "" {
		return trace.BadParameter("a %s is empty: give one", what)
	}
	if len(name) > MaxNameLength {
		return trace.BadParameter("the %s that begins with %q is %d bytes long, and at most %d are allowed", what, cut(name), len(name), MaxNameLength)
	}
	if !utf8.ValidString(name) {
		return trace.BadParameter("the %s %q is not UTF-8: use one that is", what, name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return trace.BadParameter("the %s %q has the control or invisible character %U: use one without", what, name, r)
		}
	}
	return nil
}

// cut keeps an error about a name of a megabyte short.
func cut(name string) string {
	const enough = 32
	return cutTo(name, enough)
}

// checkHostName takes the name or IP address of a host or cluster: letters and
// digits of any script and the marks between them. It leaves no room for
// wildcards, lists and markers, which known_hosts and OpenSSH's reading of host
// certificates would honour.
func checkHostName(what, name string) error {
	if err := checkName(what, name); err != nil {
		return trace.Wrap(err)
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_:", r) {
			return trace.BadParameter("the %s %q has the character %q: use letters, digits, dots, dashes and underscores", what, name, r)
		}
	}
	if strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
		return trace.BadParameter("the %s %q begins with %q: begin it with a letter or a digit", what, name, name[:1])
	}
	return nil
}

func checkClusterName(name string) error {
	if err := checkHostName("cluster name", name); err != nil {
		return trace.Wrap(err)
	}
	if strings.Contains(name, ":") {
		return trace.BadParameter("the cluster name %q has a colon: use letters, digits, dots, dashes and underscores", name)
	}
	return nil
}
