// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package sessiontest gives tests what a login needs of a host: the built
// teleport-session (Build), a throwaway system user (NewUser), and a PAM service
// (NewPAMService). What it makes on the host goes when the test ends.
package sessiontest

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"teleport-auditd/lib/pam"
	"teleport-auditd/lib/testhost"
)

// Patience is how long a test waits for what is to come.
const Patience = 30 * time.Second

// NeedRoot skips a test that is not run as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		testhost.Skip(t, "needs root: it switches users")
	}
}

// UserProgram is teleport-user beside what Build has built.
func UserProgram(program string) string {
	return filepath.Join(filepath.Dir(program), "teleport-user")
}

// Build builds teleport-session, and teleport-user beside it, in a new folder that
// every user may read, for TestMain. remove deletes it.
func Build() (program string, remove func(), err error) {
	dir, err := openDir()
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	program = filepath.Join(dir, "teleport-session")
	out, err := exec.Command("go", "build", "-o", dir+"/", "teleport-auditd/tool/teleport-session", "teleport-auditd/tool/teleport-user").CombinedOutput()
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("building teleport-session and teleport-user: %w\n%s", err, out)
	}
	return program, remove, nil
}

// openDir makes a folder that every user may enter, which t.TempDir's are not.
func openDir() (string, error) {
	dir, err := os.MkdirTemp("", "teleport-session-test-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// OpenDir makes a folder that every user may enter.
func OpenDir(t testing.TB) string {
	t.Helper()
	dir, err := openDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// User is a system user.
type User struct {
	Name     string
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// Self returns the user who runs the test, with the groups that the test has, and
// at home in / where the home folder is missing.
func Self(t testing.TB) User {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(u.HomeDir); err != nil {
		u.HomeDir = "/"
	}
	d := describe(t, u)
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	d.Groups = nil
	for _, g := range groups {
		d.Groups = append(d.Groups, uint32(g))
	}
	return d
}

// NewUser makes a user with the login shell /bin/sh, a home folder and, where
// groups are given, those besides. It needs root.
func NewUser(t testing.TB, groups ...string) User {
	t.Helper()
	NeedRoot(t)
	if _, err := exec.LookPath("useradd"); err != nil {
		testhost.Skip(t, "needs useradd: %v", err)
	}
	name := "tps" + strings.ToLower(rand.Text()[:10])
	args := []string{"-m", "-k", "/var/empty", "-s", "/bin/sh", "-d", filepath.Join(OpenDir(t), name)}
	if len(groups) > 0 {
		args = append(args, "-G", strings.Join(groups, ","))
	}
	t.Cleanup(func() { change(t, "userdel", "-f", name) })
	change(t, "useradd", append(args, name)...)
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return describe(t, u)
}

// change runs a program that changes the user database. It is tried for a while,
// since only one may do so at a time.
func change(t testing.TB, program string, args ...string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command(program, args...).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !strings.Contains(string(out), "lock") {
			t.Errorf("%s %v: %v\n%s", program, args, err, out)
			return
		}
	}
}

func describe(t testing.TB, u *user.User) User {
	t.Helper()
	ids, err := u.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	d := User{Name: u.Username, Home: u.HomeDir, UID: number(t, u.Uid), GID: number(t, u.Gid)}
	for _, id := range ids {
		d.Groups = append(d.Groups, number(t, id))
	}
	return d
}

func number(t testing.TB, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// NewPAMService installs a stack in /etc/pam.d and returns its name. It needs
// root, and a build with PAM.
func NewPAMService(t testing.TB, lines ...string) string {
	t.Helper()
	if err := pam.Available(); err != nil {
		t.Skip(err)
	}
	NeedRoot(t)
	if _, err := os.Stat("/etc/pam.d"); err != nil {
		testhost.Skip(t, "this host has no PAM: %v", err)
	}
	path := filepath.Join("/etc/pam.d", "tps"+strings.ToLower(rand.Text()[:10]))
	t.Cleanup(func() { os.Remove(path) })
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path)
}
