// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How node_labels choose hosts.

package access

import (
	"regexp"
	"slices"
	"strings"

	"github.com/gravitational/teleport/api/types"
)

// selector is what node_labels come to for one person. The zero value chooses no
// host.
type selector struct {
	// everything is '*': '*'.
	everything bool
	// keys must all be there, each with one of its patterns.
	keys map[string][]pattern
}

// pattern is one value of a label in a role.
type pattern struct {
	// parts stand in this order with anything in between, unless re is set.
	parts []string
	re    *regexp.Regexp
}

// newSelector takes the labels of a role. An expression that cannot be read
// allows nothing, and denies everything.
func newSelector(labels types.Labels, traits map[string][]string, deny bool) selector {
	var s selector
	if len(labels) == 0 {
		return s
	}
	if slices.Equal(labels[types.Wildcard], []string{types.Wildcard}) {
		s.everything = true
		return s
	}
	s.keys = make(map[string][]pattern, len(labels))
	for key, values := range labels {
		patterns := make([]pattern, 0, len(values))
		for _, value := range values {
			if isExpression(value) {
				re, err := regexp.Compile(value)
				if err == nil {
					patterns = append(patterns, pattern{re: re})
				} else if deny {
					patterns = append(patterns, glob(types.Wildcard))
				}
				continue
			}
			t, err := parseTemplate(value)
			if err != nil {
				if deny {
					patterns = append(patterns, glob(types.Wildcard))
				}
				continue
			}
			patterns = append(patterns, t.patterns(traits)...)
		}
		s.keys[key] = patterns
	}
	return s
}

// isExpression tells whether a value is a regular expression.
func isExpression(value string) bool {
	return strings.HasPrefix(value, "^") && strings.HasSuffix(value, "$")
}

// patterns returns what the template stands for. An asterisk is a wildcard in
// the role's own text only: a trait stands for itself.
func (t template) patterns(traits map[string][]string) []pattern {
	if t.trait == "" {
		return []pattern{glob(t.prefix)}
	}
	var all []pattern
	for _, value := range traits[t.trait] {
		if value == "" {
			continue
		}
		before, after := strings.Split(t.prefix, types.Wildcard), strings.Split(t.suffix, types.Wildcard)
		last := len(before) - 1
		parts := append(before[:last:last], before[last]+value+after[0])
		all = append(all, pattern{parts: append(parts, after[1:]...)})
	}
	return all
}

// glob reads a text in which an asterisk stands for anything.
func glob(text string) pattern {
	return pattern{parts: strings.Split(text, types.Wildcard)}
}

func (p pattern) matches(value string) bool {
	if p.re != nil {
		return p.re.MatchString(value)
	}
	first, rest := p.parts[0], p.parts[1:]
	if len(rest) == 0 {
		return value == first
	}
	value, ok := strings.CutPrefix(value, first)
	if !ok {
		return false
	}
	last := rest[len(rest)-1]
	for _, part := range rest[:len(rest)-1] {
		_, after, found := strings.Cut(value, part)
		if !found {
			return false
		}
		value = after
	}
	return strings.HasSuffix(value, last)
}

// matches tells whether a host has all labels that are asked for.
func (s selector) matches(labels map[string]string) bool {
	if s.everything {
		return true
	}
	if len(s.keys) == 0 {
		return false
	}
	for key, patterns := range s.keys {
		value, ok := labels[key]
		if !ok || !slices.ContainsFunc(patterns, func(p pattern) bool { return p.matches(value) }) {
			return false
		}
	}
	return true
}
