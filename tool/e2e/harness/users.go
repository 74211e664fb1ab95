// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"teleport-auditd/lib/testhost"
)

// User is a throwaway system user.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
}

// UserConfig is what NewUser takes.
type UserConfig struct {
	// Shell is the login shell, /bin/bash when empty.
	Shell string
	// Groups are further groups, which exist.
	Groups []string
	// Home is the home folder, made for the user when empty. A path that is
	// given is not made.
	Home string
}

// unusedName returns a name that no host has.
func unusedName(t testing.TB, kind string) string {
	t.Helper()
	raw := make([]byte, 4)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return "tpe2e" + kind + hex.EncodeToString(raw)
}

// NewUser makes a system user for the test. What still runs as the user when
// the test ends is killed.
func NewUser(t testing.TB, config UserConfig) User {
	t.Helper()
	NeedRoot(t)
	NeedPrograms(t, "useradd", "userdel")
	name := unusedName(t, "u")
	args := []string{"-s", "/bin/bash"}
	if config.Shell != "" {
		args[1] = config.Shell
	}
	if config.Home != "" {
		args = append(args, "-M", "-d", config.Home)
	} else {
		args = append(args, "-m", "-k", "/var/empty", "-d", filepath.Join(OpenDir(t), name))
	}
	if len(config.Groups) > 0 {
		args = append(args, "-G", strings.Join(config.Groups, ","))
	}
	// A second try, since an early end can leave the user half made.
	Undo(t, fmt.Sprintf("! id %[1]s >/dev/null 2>&1 || userdel -f %[1]s 2>&1 || ! id %[1]s >/dev/null 2>&1", name))
	Output(t, "useradd", append(args, name)...)
	found, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("useradd made no user: %v", err)
	}
	u := User{Name: name, Home: found.HomeDir}
	for _, id := range []struct {
		text   string
		number *uint32
	}{{found.Uid, &u.UID}, {found.Gid, &u.GID}} {
		n, err := strconv.ParseUint(id.text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		*id.number = uint32(n)
	}
	// All that the user runs is killed in the end, so be sure who it is.
	if u.UID < 1000 || u.ID() != found.Uid {
		t.Fatalf("useradd gave %s the uid %s, which is not a throwaway user's", name, found.Uid)
	}
	t.Cleanup(u.KillAll)
	return u
}

// NewGroup makes a system group for the test and returns its name and id.
func NewGroup(t testing.TB) (name, gid string) {
	t.Helper()
	NeedRoot(t)
	NeedPrograms(t, "groupadd", "groupdel")
	name = unusedName(t, "g")
	Undo(t, "groupdel "+name)
	Output(t, "groupadd", name)
	group, err := user.LookupGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, group.Gid
}

// ID is the uid in decimal, as audit records have it.
func (u User) ID() string { return strconv.FormatUint(uint64(u.UID), 10) }

// Processes lists what runs as the user.
func (u User) Processes() []Process {
	var own []Process
	for _, p := range Processes() {
		if p.UID == u.UID {
			own = append(own, p)
		}
	}
	return own
}

// KillAll kills what runs as the user.
func (u User) KillAll() {
	for _, p := range u.Processes() {
		_ = syscall.Kill(p.Pid, syscall.SIGKILL)
	}
}

// Process is a running process; one that has ended and waits for its parent is
// none.
type Process struct {
	Pid, Parent int
	UID         uint32
	// Exe is the program's path, empty where it cannot be read.
	Exe string
	// Command is the command line, its words apart by spaces.
	Command string
}

// Processes lists all processes.
func Processes() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		p := Process{Pid: pid}
		ended := false
		for _, line := range strings.Split(string(status), "\n") {
			words := strings.Fields(line)
			if len(words) < 2 {
				continue
			}
			switch words[0] {
			case "State:":
				ended = words[1] == "Z" || words[1] == "X"
			case "PPid:":
				p.Parent, _ = strconv.Atoi(words[1])
			case "Uid:":
				uid, _ := strconv.ParseUint(words[1], 10, 32)
				p.UID = uint32(uid)
			}
		}
		if ended {
			continue
		}
		p.Exe, _ = os.Readlink(filepath.Join(dir, "exe"))
		words, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		p.Command = strings.TrimSpace(strings.ReplaceAll(string(words), "\x00", " "))
		all = append(all, p)
	}
	return all
}

// PAMService installs a service file from the fixtures in /etc/pam.d, under a
// name of the test's own, and returns that name. Every @DIR@ in it becomes dir.
func PAMService(t testing.TB, fixture, dir string) string {
	t.Helper()
	NeedRoot(t)
	if _, err := os.Stat("/etc/pam.d"); err != nil {
		testhost.Skip(t, "this host has no PAM: %v", err)
	}
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "fixtures", "pam.d", fixture))
	if err != nil {
		t.Fatal(err)
	}
	name := unusedName(t, "pam")
	path := filepath.Join("/etc/pam.d", name)
	Undo(t, "rm -f "+path)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "@DIR@", dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
