// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The variables in roles: {{internal.logins}} and {{external.team}} stand for the
// values of a person's traits.

package access

import (
	"strings"
	"unicode"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/trace"
)

const (
	internalVariables = "internal"
	externalVariables = "external"
)

// template is a text with at most one variable in it.
type template struct {
	prefix, suffix string
	// trait is empty where there is no variable.
	trait string
}

// parseTemplate reads a text. The error is trace.BadParameter without the key
// that the text stands under.
func parseTemplate(text string) (template, error) {
	before, rest, found := strings.Cut(text, "{{")
	if !found {
		if strings.Contains(text, "}}") {
			return template{}, trace.BadParameter("%q closes a variable with }} that it does not open with {{", text)
		}
		return template{prefix: text}, nil
	}
	inside, after, found := strings.Cut(rest, "}}")
	if !found {
		return template{}, trace.BadParameter("%q opens a variable with {{ and does not close it with }}", text)
	}
	if strings.Contains(before, "}}") || strings.Contains(after, "{{") || strings.Contains(after, "}}") {
		return template{}, trace.BadParameter("%q has more than one variable, and may have one", text)
	}
	namespace, trait, ok := parseVariable(strings.TrimSpace(inside))
	if !ok {
		return template{}, trace.BadParameter("%q has a variable that is not known: write {{internal.logins}} or {{external.NAME}}, without functions", text)
	}
	t := template{prefix: before, suffix: after, trait: trait}
	switch {
	case namespace == externalVariables:
	case namespace == internalVariables && t.trait == constants.TraitLogins:
	case namespace == internalVariables:
		return template{}, trace.BadParameter("%q has the variable internal.%s, and only internal.%s is known", text, t.trait, constants.TraitLogins)
	default:
		return template{}, trace.BadParameter("%q has a variable of %q, and only %s and %s are known", text, namespace, internalVariables, externalVariables)
	}
	return t, nil
}

// parseVariable reads namespace.name and namespace["name"].
func parseVariable(text string) (namespace, trait string, ok bool) {
	isWord := func(s string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
			return r != '_' && r != '-' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
		})
	}
	if namespace, trait, ok = strings.Cut(text, `["`); ok {
		trait, ok = strings.CutSuffix(trait, `"]`)
		return namespace, trait, ok && isWord(namespace) && trait != "" && !strings.ContainsAny(trait, `"\`)
	}
	namespace, trait, ok = strings.Cut(text, ".")
	return namespace, trait, ok && isWord(namespace) && isWord(trait)
}

// expand returns the texts that the template stands for: one where it has no
// variable, and as many as the trait has values otherwise, which may be none.
// Empty values are left out.
func (t template) expand(traits map[string][]string) []string {
	if t.trait == "" {
		return []string{t.prefix}
	}
	var texts []string
	for _, value := range traits[t.trait] {
		if value != "" {
			texts = append(texts, t.prefix+value+t.suffix)
		}
	}
	return texts
}
