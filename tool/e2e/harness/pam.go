// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"teleport-auditd/lib/testhost"
)

// PAMStack is a service of the test's own in /etc/pam.d.
type PAMStack struct {
	// Name is the service's.
	Name string

	t    testing.TB
	path string
}

// NewPAMStack installs a service of these lines until the test ends.
func NewPAMStack(t testing.TB, lines ...string) *PAMStack {
	t.Helper()
	NeedRoot(t)
	if _, err := os.Stat("/etc/pam.d"); err != nil {
		testhost.Skip(t, "this host has no PAM: %v", err)
	}
	name := unusedName(t, "pam")
	s := &PAMStack{Name: name, t: t, path: filepath.Join("/etc/pam.d", name)}
	Undo(t, "rm -f "+s.path+" "+s.path+".new")
	s.Set(lines...)
	return s
}

// Set replaces the lines. libpam reads them at the next login.
func (s *PAMStack) Set(lines ...string) {
	s.t.Helper()
	if err := os.WriteFile(s.path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		s.t.Fatal(err)
	}
}
