// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package client is what a user does with the cluster: log in at a proxy, keep
// what the login is worth, list nodes, and open SSH connections to them.
//
// Most callers log in with a WebClient and keep the result in a Store, and from
// then on load it and connect:
//
//	store, err := client.NewStore(dir)
//	profile, err := store.Load("")
//	nodes, err := client.ListNodes(ctx, profile, client.NodeFilter{})
//	conn, err := client.Dial(ctx, client.DialConfig{Profile: profile})
//	defer conn.Close()
//	node, err := conn.DialNode(ctx, client.NodeAddr{Login: "bob", Host: "web"})
//
// Only the login looks at the web certificate of the proxy. All that comes after
// it believes the authorities that the login brought.
package client

import (
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gravitational/trace"
)

const (
	// DefaultWebPort is the proxy's port for HTTPS where none is given.
	DefaultWebPort = 3080
	// maxNameLength bounds names that become names of files.
	maxNameLength = 200
)

// ParseProxy returns host:port of what a user calls a proxy: a name or address,
// with or without a port, which is DefaultWebPort by default. The error is
// trace.BadParameter.
func ParseProxy(text string) (string, error) {
	bad := func(why string) (string, error) {
		return "", trace.BadParameter("the proxy %q %s: give it as HOST or HOST:PORT", text, why)
	}
	host, port := text, strconv.Itoa(DefaultWebPort)
	switch {
	case strings.Contains(text, "://"):
		return bad("is a URL")
	case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
		host = text[1 : len(text)-1]
	case strings.Count(text, ":") > 1 && !strings.HasPrefix(text, "["):
		// An IPv6 address without a port.
	case strings.Contains(text, ":"):
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return bad("is not an address")
		}
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return bad("has no port between 1 and 65535")
	}
	if err := checkHost("name of the proxy", host); err != nil {
		return "", trace.Wrap(err)
	}
	return net.JoinHostPort(strings.ToLower(host), port), nil
}

// checkHost takes the name or the address of a host or of a cluster. It leaves
// no room for what known_hosts, ssh_config and folders would read as something
// else.
func checkHost(what, name string) error {
	if err := checkFileName(what, name); err != nil {
		return trace.Wrap(err)
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_:", r) {
			return trace.BadParameter("the %s %q has the character %q, which no name of a host has", what, name, r)
		}
	}
	if strings.HasPrefix(name, "-") {
		return trace.BadParameter("the %s %q begins with a dash", what, name)
	}
	return nil
}

// checkFileName takes what may be the name of a file in the folder of profiles,
// where names of proxies, clusters and users are used as they are.
func checkFileName(what, name string) error {
	switch {
	case name == "":
		return trace.BadParameter("the %s is empty", what)
	case len(name) > maxNameLength:
		return trace.BadParameter("the %s is %d bytes long, and at most %d are allowed", what, len(name), maxNameLength)
	case !utf8.ValidString(name), strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return trace.BadParameter("the %s %q has control or invisible characters", what, name)
	case strings.ContainsAny(name, "/\\"), strings.HasPrefix(name, "."):
		return trace.BadParameter("the %s %q cannot be the name of a file", what, name)
	}
	return nil
}

// Clean returns a text that somebody else chose as it may go to a terminal: on
// one line, with what would move the cursor written as Go writes it ('\x1b').
func Clean(text string) string {
	clean := true
	for _, r := range text {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			b.WriteRune(r)
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[0])+0x100, 16)[1:])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		text = text[size:]
	}
	return b.String()
}

// CleanLines is Clean for a text of several lines. Tabs stay.
func CleanLines(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		fields := strings.Split(line, "\t")
		for j, field := range fields {
			fields[j] = Clean(field)
		}
		lines[i] = strings.Join(fields, "\t")
	}
	return strings.Join(lines, "\n")
}
