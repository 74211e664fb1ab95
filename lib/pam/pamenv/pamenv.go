// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package pamenv makes the variables that an operator gives to PAM modules, and
// through PAM to the user's environment (ssh_service.pam.environment).
//
// Parse checks them once, Expand fills in what is known of a person:
//
//	env, err := pamenv.Parse(map[string]string{"TEAM": "team-{{external.team}}"})
//	if err != nil {
//		return err
//	}
//	pairs, left := env.Expand(pamenv.Person{Name: "alice", Traits: map[string][]string{"team": {"db"}}})
//	// pairs is TEAM=team-db
//
// In a value stands text, and what is filled in:
//
//	{{user.metadata.name}}  the Teleport user
//	{{internal.logins}}     the logins that the person may use, and other traits
//	                        of this system's own, such as {{internal.db_users}}
//	{{external.TRAIT}}      a trait that an identity provider gave the person
//
// A trait with several values is filled in with a space between them.
package pamenv

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// MaxVariables is how many variables an environment may have.
	MaxVariables = 64
	// maxText bounds an operator's value, and maxValue what it expands to:
	// certificates are large, and environments are not.
	maxText  = 1024
	maxValue = 4096
	// maxName bounds the name of a variable or a trait.
	maxName = 128
	// maxShown is how much of a text an error repeats.
	maxShown = 64
)

// Person is what a certificate says of its owner.
type Person struct {
	// Name is the Teleport user.
	Name string
	// Logins are those that the certificate permits. They stand for the trait
	// logins where Traits has none.
	Logins []string
	Traits map[string][]string
}

// Environment is a set of variables. The zero value has none.
type Environment struct {
	variables []variable
}

type variable struct {
	name  string
	parts []part
}

// part is text, or what is filled in.
type part struct {
	text string
	// source is "", "user", "internal" or "external".
	source, trait string
}

// Skipped is a variable that Expand left out.
type Skipped struct {
	Name, Reason string
}

// Parse reads variables by their names. The error names the variable.
func Parse(values map[string]string) (Environment, error) {
	var env Environment
	if len(values) > MaxVariables {
		return env, fmt.Errorf("has %d variables, and may have %d", len(values), MaxVariables)
	}
	for name, text := range values {
		if err := CheckName(name); err != nil {
			return Environment{}, err
		}
		parts, err := parse(text)
		if err != nil {
			return Environment{}, fmt.Errorf("%s: %w", name, err)
		}
		env.variables = append(env.variables, variable{name, parts})
	}
	slices.SortFunc(env.variables, func(a, b variable) int { return strings.Compare(a.name, b.name) })
	return env, nil
}

// CheckName takes the name of a variable that is none of the login's own, and
// nothing that changes which code programs run.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("a variable's name must have 1 to %d characters, unlike %s", maxName, shorten(name))
	}
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return fmt.Errorf("a variable's name may hold only letters, digits and _, and start with no digit, unlike %s", shorten(name))
		}
	}
	switch name {
	case "HOME", "USER", "LOGNAME", "SHELL", "MAIL", "TERM":
		return fmt.Errorf("%s is set by the login itself: choose another name", name)
	case "PATH", "IFS", "ENV", "BASH_ENV":
		return fmt.Errorf("%s decides which programs a user runs, and must not follow a certificate: set it with pam_env", name)
	}
	for _, prefix := range [...]string{"SSH_", "TELEPORT_", "PAM_"} {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%s: names that start with %s are the login's own: choose another", shorten(name), prefix)
		}
	}
	if strings.HasPrefix(name, "LD_") {
		return fmt.Errorf("%s decides which code programs load, and must not follow a certificate", shorten(name))
	}
	return nil
}

// CheckValue takes a variable's value as an operator writes it.
func CheckValue(text string) error {
	_, err := parse(text)
	return err
}

const knownSources = "{{user.metadata.name}}, {{internal.logins}} and {{external.TRAIT}}"

func parse(text string) ([]part, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("is longer than the %d bytes that a value may have", maxText)
	}
	if strings.ContainsFunc(text, isControl) {
		return nil, errors.New("may hold no control characters")
	}
	var parts []part
	for text != "" {
		before, rest, open := strings.Cut(text, "{{")
		if strings.Contains(before, "}}") {
			return nil, fmt.Errorf("has a }} without a {{ before it at %s", shorten(text))
		}
		if before != "" {
			parts = append(parts, part{text: before})
		}
		if !open {
			break
		}
		inner, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, fmt.Errorf("has a {{ without a }} after it at %s", shorten("{{"+rest))
		}
		p, err := parsePart(strings.TrimSpace(inner))
		if err != nil {
			return nil, err
		}
		parts, text = append(parts, p), after
	}
	return parts, nil
}

func parsePart(inner string) (part, error) {
	source, name, _ := strings.Cut(inner, ".")
	switch source {
	case "user":
		if name == "metadata.name" {
			return part{source: source}, nil
		}
	case "internal", "external":
		if isTrait(name) {
			return part{source: source, trait: name}, nil
		}
	}
	return part{}, fmt.Errorf("has {{%s}}, which is not known: %s are", strings.Trim(shorten(inner), `"`), knownSources)
}

func isTrait(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// shorten quotes text for an error, and cuts it where it is long.
func shorten(text string) string {
	if len(text) <= maxShown {
		return fmt.Sprintf("%q", text)
	}
	return fmt.Sprintf("%q...", text[:maxShown])
}

// Expand returns the variables as NAME=value, in order of name, and those that
// it leaves out: a variable whose trait the person does not have, or whose value
// no environment should hold.
func (e Environment) Expand(p Person) (pairs []string, left []Skipped) {
	for _, v := range e.variables {
		value, reason := v.expand(p)
		if reason != "" {
			left = append(left, Skipped{Name: v.name, Reason: reason})
			continue
		}
		pairs = append(pairs, v.name+"="+value)
	}
	return pairs, left
}

func (v variable) expand(p Person) (value, missing string) {
	var b strings.Builder
	for _, part := range v.parts {
		switch part.source {
		case "":
			b.WriteString(part.text)
		case "user":
			b.WriteString(p.Name)
		default:
			values := p.Traits[part.trait]
			if len(values) == 0 && part.source == "internal" && part.trait == "logins" {
				values = p.Logins
			}
			if len(values) == 0 {
				return "", fmt.Sprintf("the certificate has no trait %s", part.trait)
			}
			for i, s := range values {
				if i > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(s)
				if b.Len() > maxValue {
					break
				}
			}
		}
		if b.Len() > maxValue {
			return "", fmt.Sprintf("its value is longer than %d bytes", maxValue)
		}
	}
	value = b.String()
	if strings.ContainsFunc(value, isControl) {
		return "", "its value has control characters"
	}
	return value, ""
}
