// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package pam

// What a service's files say, read as libpam reads them (pam.conf(5)), so that
// what is broken is found before a user's login. Nothing here needs libpam.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// maxDepth is how deep libpam follows files that include files.
const maxDepth = 16

// maxServiceFile is far above what a service needs.
const maxServiceFile = 1 << 20

// otherService is the stack of services that have none of their own.
const otherService = "other"

// Check tells whether a service's file, and those that it includes, can work:
// whether each line is one that libpam understands, and each module is there. It
// looks in confDirs, which are libpam's own where none is named.
//
// The error is the first thing that would keep users out, on one line with file,
// line and remedy; errors.Is finds fs.ErrNotExist in it where the service has no
// file. The warnings are what libpam goes on without.
func Check(service string, confDirs ...string) (warnings []string, err error) {
	if len(confDirs) == 0 {
		confDirs = []string{"/etc/pam.d", "/usr/lib/pam.d"}
	}
	c := checker{dirs: confDirs, modules: moduleDirs()}
	// libpam looks for the name in lower case.
	name := strings.ToLower(service)
	path, err := c.find(name)
	if err != nil {
		return nil, noServiceError(fmt.Sprintf("the PAM service %q has no file in %s: make %s, or name another service",
			service, strings.Join(confDirs, " or "), confDirs[0]+"/"+name))
	}
	found, err := c.file(path, anyType, nil)
	if err != nil {
		return c.warnings, err
	}
	for _, kind := range [...]moduleType{typeAuth, typeAccount, typeSession} {
		if found&kind != 0 {
			continue
		}
		other, err := c.find(otherService)
		if err != nil {
			return c.warnings, fmt.Errorf("%s has no %s line, and there is no service %q to stand in: add one", path, kind, otherService)
		}
		inOther, err := c.file(other, kind, nil)
		if err != nil {
			return c.warnings, err
		}
		if inOther&kind == 0 {
			return c.warnings, fmt.Errorf("%s has no %s line, and neither has %s: add one", path, kind, other)
		}
		c.warn("%s has no %s line, so those of %s decide", path, kind, other)
	}
	return c.warnings, nil
}

// noServiceError is a service without a file.
type noServiceError string

func (e noServiceError) Error() string { return string(e) }

// Unwrap returns fs.ErrNotExist.
func (noServiceError) Unwrap() error { return fs.ErrNotExist }

// moduleType is the first word of a line, as one bit of a set.
type moduleType byte

const (
	typeAuth moduleType = 1 << iota
	typeAccount
	typeSession
	typePassword

	anyType = typeAuth | typeAccount | typeSession | typePassword
)

func (t moduleType) String() string {
	switch t {
	case typeAuth:
		return "auth"
	case typeAccount:
		return "account"
	case typeSession:
		return "session"
	case typePassword:
		return "password"
	}
	return "any"
}

func parseType(word string) (t moduleType, ok bool) {
	for t := typeAuth; t <= typePassword; t <<= 1 {
		if strings.EqualFold(word, t.String()) {
			return t, true
		}
	}
	return 0, false
}

// checker is one Check.
type checker struct {
	dirs, modules []string
	warnings      []string
}

func (c *checker) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, known := range c.warnings {
		if known == text {
			return
		}
	}
	c.warnings = append(c.warnings, text)
}

// find returns the path of a service's file, or of one that is included.
func (c *checker) find(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, isFile(name)
	}
	var first error
	for _, dir := range c.dirs {
		path := dir + "/" + name
		err := isFile(path)
		if err == nil {
			return path, nil
		}
		if first == nil || !errors.Is(err, fs.ErrNotExist) {
			first = err
		}
	}
	return "", first
}

func isFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", path)
	}
	return nil
}

// file checks a file for the lines of the wanted types, and returns the types
// that it has lines of. within are the files that lead here.
func (c *checker) file(path string, wanted moduleType, within []string) (found moduleType, err error) {
	for _, outer := range within {
		if outer == path {
			return 0, fmt.Errorf("%s includes itself, by way of %s: take one of the includes out", path, strings.Join(append(within, path), ", "))
		}
	}
	if len(within) >= maxDepth {
		return 0, fmt.Errorf("%s is included more than %d files deep, which libpam does not follow: include it more directly", path, maxDepth)
	}
	text, err := readServiceFile(path)
	if err != nil {
		return 0, err
	}
	within = append(within[:len(within):len(within)], path)
	number := 0
	for rest := text; rest != ""; {
		var line string
		var lines int
		line, rest, lines = nextLine(rest)
		at := number + 1
		number += lines
		here, err := c.line(fmt.Sprintf("%s:%d", path, at), line, wanted, within)
		if err != nil {
			return found, err
		}
		found |= here
	}
	return found, nil
}

func readServiceFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxServiceFile {
		return "", fmt.Errorf("%s is larger than a PAM service is: is it the right file?", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("the PAM service cannot be read: %w", err)
	}
	return string(b), nil
}

// nextLine returns a line without its comment, joined with those that a \ at the
// end continues it by, what follows, and how many lines of the file these were.
func nextLine(text string) (line, rest string, lines int) {
	var joined strings.Builder
	for {
		var part string
		part, rest, _ = strings.Cut(text, "\n")
		lines++
		part, _, _ = strings.Cut(part, "#")
		part = strings.TrimRight(part, " \t\r")
		part, more := strings.CutSuffix(part, "\\")
		joined.WriteString(part)
		if !more || rest == "" {
			return joined.String(), rest, lines
		}
		joined.WriteByte(' ')
		text = rest
	}
}

// line checks one line, and returns the types that it stands for.
func (c *checker) line(at, line string, wanted moduleType, within []string) (moduleType, error) {
	word, rest := nextWord(line)
	if word == "" {
		return 0, nil
	}
	if strings.EqualFold(word, "@include") {
		return c.include(at, rest, wanted, within)
	}
	word, silent := strings.CutPrefix(word, "-")
	kind, ok := parseType(word)
	if !ok {
		return 0, fmt.Errorf("%s: %q is no type of module, so libpam refuses every login here: write auth, account, session, password or @include", at, word)
	}
	if kind&wanted == 0 {
		return 0, nil
	}
	control, rest := nextWord(rest)
	switch {
	case strings.EqualFold(control, "include"), strings.EqualFold(control, "substack"):
		return c.include(at, rest, kind, within)
	case control == "":
		return kind, c.broken(kind, "%s: the line ends after %q: write what its result means (required, sufficient...), and a module", at, word)
	}
	needed, err := parseControl(control)
	if err != nil {
		return kind, c.broken(kind, "%s: %v", at, err)
	}
	module, _ := nextWord(rest)
	if module == "" {
		return kind, c.broken(kind, "%s: the line has no module: write one after %q", at, control)
	}
	missing := c.missing(module)
	switch {
	case missing == "" || silent:
		return kind, nil
	case needed:
		return kind, c.broken(kind, "%s: %s: install it, or take the line out", at, missing)
	}
	c.warn("%s: %s, which this line can do without", at, missing)
	return kind, nil
}

// broken is an error, but a warning where only a change of passwords fails of it.
func (c *checker) broken(kind moduleType, format string, args ...any) error {
	if kind == typePassword {
		c.warn(format, args...)
		return nil
	}
	return fmt.Errorf(format, args...)
}

func (c *checker) include(at, rest string, wanted moduleType, within []string) (moduleType, error) {
	name, _ := nextWord(rest)
	if name == "" {
		return 0, fmt.Errorf("%s: the line includes nothing: write the name of a file", at)
	}
	path, err := c.find(name)
	if err != nil {
		if wanted == typePassword {
			c.warn("%s: %s cannot be included, so that no password can be changed: %v", at, name, err)
			return typePassword, nil
		}
		return 0, fmt.Errorf("%s: %s cannot be included (%w): make it, or take the line out", at, name, err)
	}
	return c.file(path, wanted, within)
}

// nextWord cuts the first word off, as libpam's tokens are: apart by white space,
// and whole within brackets, where a \ keeps a bracket from closing.
func nextWord(line string) (word, rest string) {
	line = strings.TrimLeft(line, " \t\r")
	if !strings.HasPrefix(line, "[") {
		i := strings.IndexAny(line, " \t\r")
		if i < 0 {
			return line, ""
		}
		return line[:i], line[i:]
	}
	for i := 1; i < len(line); i++ {
		if line[i] == ']' && line[i-1] != '\\' {
			return line[:i+1], line[i+1:]
		}
	}
	return line, ""
}

// parseControl reads what a module's result means. needed says that a module
// that is not there fails the stack.
func parseControl(control string) (needed bool, err error) {
	switch strings.ToLower(control) {
	case "required", "requisite":
		return true, nil
	case "optional", "sufficient":
		return false, nil
	}
	inner, open := strings.CutPrefix(control, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !open {
		return false, fmt.Errorf("%q is nothing that a result can mean: write required, requisite, sufficient, optional, include, substack or [value=action ...]", control)
	}
	if !closed {
		return false, errors.New("a [ has no ] on its line: add it")
	}
	// What is not mentioned fails, without a default.
	action, unknown := "bad", ""
	for _, pair := range strings.Fields(inner) {
		value, what, ok := strings.Cut(pair, "=")
		if !ok || !isValue(value) {
			return false, fmt.Errorf("%q in %s is no value=action: values are such as success, default and user_unknown", pair, control)
		}
		if !isAction(what) {
			return false, fmt.Errorf("%q in %s has no action: write ignore, bad, die, ok, done, reset, or how many modules to skip", pair, control)
		}
		switch value {
		case "default":
			action = what
		case "module_unknown":
			unknown = what
		}
	}
	if unknown != "" {
		action = unknown
	}
	return action == "bad" || action == "die", nil
}

// isValue knows the results that a module may have (pam.conf(5)).
func isValue(word string) bool {
	switch word {
	case "success", "open_err", "symbol_err", "service_err", "system_err", "buf_err",
		"perm_denied", "auth_err", "cred_insufficient", "authinfo_unavail", "user_unknown",
		"maxtries", "new_authtok_reqd", "acct_expired", "session_err", "cred_unavail",
		"cred_expired", "cred_err", "no_module_data", "conv_err", "authtok_err",
		"authtok_recover_err", "authtok_lock_busy", "authtok_disable_aging", "try_again",
		"ignore", "abort", "authtok_expired", "module_unknown", "bad_item", "conv_again",
		"incomplete", "default":
		return true
	}
	return false
}

func isAction(word string) bool {
	switch word {
	case "ignore", "bad", "die", "ok", "done", "reset":
		return true
	}
	n, err := strconv.ParseUint(word, 10, 16)
	return err == nil && n > 0
}

// missing says what is wrong with a module, or is empty.
func (c *checker) missing(module string) string {
	// libpam puts the architecture's folder there, which is . on most hosts.
	module = strings.ReplaceAll(module, "$ISA", ".")
	if strings.HasPrefix(module, "/") {
		if err := isFile(module); err != nil {
			return fmt.Sprintf("there is no module %s", module)
		}
		return ""
	}
	for _, dir := range c.modules {
		if isFile(dir+"/"+module) == nil {
			return ""
		}
	}
	return fmt.Sprintf("there is no module %s in %s", module, strings.Join(c.modules, " or "))
}

// moduleDirs returns the folders of this host where libpam may look for modules.
// Each distribution has built its own into it.
func moduleDirs() []string {
	var dirs []string
	var known []os.FileInfo
	add := func(dir string) {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			return
		}
		// /lib is often /usr/lib.
		for _, k := range known {
			if os.SameFile(k, info) {
				return
			}
		}
		dirs, known = append(dirs, dir), append(known, info)
	}
	for _, lib := range [...]string{"/lib", "/usr/lib"} {
		// A folder that cannot be read holds no modules for libpam either.
		entries, _ := os.ReadDir(lib)
		for _, e := range entries {
			if strings.Contains(e.Name(), "-linux-") {
				add(lib + "/" + e.Name() + "/security")
			}
		}
	}
	for _, dir := range [...]string{
		"/lib64/security", "/usr/lib64/security", "/lib/security", "/usr/lib/security",
		"/usr/local/lib/security", "/run/current-system/sw/lib/security",
	} {
		add(dir)
	}
	if len(dirs) == 0 {
		dirs = []string{"/lib/security"}
	}
	return dirs
}
