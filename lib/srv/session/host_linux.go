// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What a login takes from the host's files where PAM, whose modules do it
// otherwise, is off.

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// environmentFile holds the host's environment, as pam_env(8) reads it.
	environmentFile = "/etc/environment"
	// motdFile is shown to who gets a shell (motd(5)).
	motdFile = "/etc/motd"
	// maxHostFile bounds what is read of each.
	maxHostFile = 32 << 10
)

// readHostFile returns the beginning of a file. One that is missing, or is not a
// file, is as good as empty: opening a pipe would wait for somebody to write.
func readHostFile(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, maxHostFile))
	if err != nil {
		return ""
	}
	return string(b)
}

// messageOfTheDay is the file's text, which ends in a newline.
func messageOfTheDay(path string) string {
	text := readHostFile(path)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// hostEnvironment returns the variables of a file as pam_env(8) reads it: a
// NAME=value on each line, "export " before it or not, the value in quotes or not,
// and comments from a # on. What is none of that is passed over.
func hostEnvironment(path string) (pairs []string) {
	for line := range strings.Lines(readHostFile(path)) {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\n"), " \t")
		line, _, _ = strings.Cut(line, "#")
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || !isVariable(name) || strings.Contains(value, "\x00") {
			continue
		}
		pairs = append(pairs, name+"="+unquote(strings.TrimRight(value, " \t\r")))
	}
	return pairs
}

func isVariable(name string) bool {
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		default:
			return false
		}
	}
	return name != ""
}

// unquote takes away the quotes around a value. Within it they stay.
func unquote(value string) string {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value
	}
	value = value[1:]
	if n := len(value); n > 0 && (value[n-1] == '"' || value[n-1] == '\'') {
		value = value[:n-1]
	}
	return value
}
