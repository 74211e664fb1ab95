// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package cli has flags that say by themselves what they take. kingpin's own tell
// neither which flag was wrong ("enum value must be one of ...") nor, for numbers,
// anything but what a parser said.
package cli

import (
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"
)

// OneOf is a flag that takes one of words.
func OneOf(flag *kingpin.FlagClause, to *string, words ...string) {
	flag.SetValue(&oneOf{flag: flag, to: to, words: words})
}

type oneOf struct {
	flag  *kingpin.FlagClause
	to    *string
	words []string
}

func (v *oneOf) String() string { return *v.to }

func (v *oneOf) Set(text string) error {
	if !slices.Contains(v.words, text) {
		last := len(v.words) - 1
		return trace.BadParameter("--%s takes no %.64q: give %s or %s", v.flag.Model().Name, text, strings.Join(v.words[:last], ", "), v.words[last])
	}
	*v.to = text
	return nil
}

// Repeatable is a flag without a value that may be given several times, as in
// ssh -tt, and means no more then.
func Repeatable(flag *kingpin.FlagClause, to *bool) {
	flag.SetValue((*repeatable)(to))
}

type repeatable bool

func (v *repeatable) String() string { return strconv.FormatBool(bool(*v)) }

func (v *repeatable) IsBoolFlag() bool { return true }

func (v *repeatable) IsCumulative() bool { return true }

func (v *repeatable) Set(text string) error {
	on, err := strconv.ParseBool(text)
	*v = repeatable(on)
	return trace.Wrap(err)
}

// Number is a flag that takes a whole number from least to most, which is what
// its user is told it is.
func Number(flag *kingpin.FlagClause, to *int, what string, least, most int) {
	flag.SetValue(&number{flag: flag, to: to, what: what, least: least, most: most})
}

type number struct {
	flag        *kingpin.FlagClause
	to          *int
	what        string
	least, most int
}

func (v *number) String() string { return strconv.Itoa(*v.to) }

func (v *number) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < v.least || n > v.most {
		return trace.BadParameter("--%s takes no %.64q: give %s from %d to %d", v.flag.Model().Name, text, v.what, v.least, v.most)
	}
	*v.to = n
	return nil
}
