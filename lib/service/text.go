// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gravitational/trace"
)

// OneLine is an error's message without the breaks that trace puts between the
// layers of a wrapped one.
func OneLine(err error) string {
	var parts []string
	for _, line := range strings.Split(trace.UserMessage(err), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, strings.TrimSuffix(line, ":"))
		}
	}
	return strings.Join(parts, ": ")
}

// sentence is an error's message with a capital, for the log.
func sentence(err error) string {
	text := OneLine(err)
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// together is one error of several, and the only one as it is: an aggregate
// would hide where that one comes from.
func together(errs ...error) error {
	var found []error
	for _, err := range errs {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return trace.NewAggregate(found...)
}
