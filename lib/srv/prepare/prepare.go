// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package prepare does, as the user, what sshd(8) has happen between a login and
// its program: it reads ~/.ssh/environment, runs ~/.ssh/rc or /etc/ssh/sshrc, and
// then becomes the program. teleport-session starts it where the host permits that
// (ssh_service.permit_user_env) and one of the files is there. Whatever the files
// do, they do it as the user, with nothing of root's open.
package prepare

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	systemRC = "/etc/ssh/sshrc"
	// maxFile and maxLines bound ~/.ssh/environment.
	maxFile  = 256 << 10
	maxLines = 1000
	// notRun is the exit status where the program cannot be run, as a shell has it.
	notRun = 126
)

// Run takes the options -e (read ~/.ssh/environment), -r (run ~/.ssh/rc) and -s
// (run /etc/ssh/sshrc), then "--", the program's path, and its arguments from its
// own name on. It returns only where the program could not be run.
func Run(args []string) int {
	var environment, userRC, system bool
	for ; len(args) > 0 && args[0] != "--"; args = args[1:] {
		switch args[0] {
		case "-e":
			environment = true
		case "-r":
			userRC = true
		case "-s":
			system = true
		default:
			fmt.Fprintf(os.Stderr, "ERROR: prepare does not know %q\n", args[0])
			return 2
		}
	}
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, "ERROR: prepare needs a program and its name")
		return 2
	}
	program, args := args[1], args[2:]
	home, env := os.Getenv("HOME"), os.Environ()
	if environment {
		env = addFile(env, filepath.Join(home, ".ssh", "environment"), os.Stderr)
	}
	switch {
	case userRC:
		// By the user's own shell, so that one that lets nobody in (nologin)
		// runs nothing.
		runRC(env, home, program, "-c", "/bin/sh .ssh/rc")
	case system:
		runRC(env, home, "/bin/sh", systemRC)
	}
	err := syscall.Exec(program, args, env)
	fmt.Fprintf(os.Stderr, "%s: %v\n", printable(program), err)
	return notRun
}

// runRC runs a file to its end. How it ends does not matter: it is no condition of
// the login.
func runRC(env []string, home, program string, args ...string) {
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Dir = env, home
	// The input is the program's.
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		fmt.Fprintf(os.Stderr, "Could not run the rc file: %v\n", err)
	}
}

// addFile adds a file's variables to env, of which the later ones count. complain
// hears of lines that are none.
func addFile(env []string, path string, complain io.Writer) []string {
	text, err := read(path)
	if err != nil {
		fmt.Fprintf(complain, "Could not read %s: %v\n", printable(path), err)
		return env
	}
	number := 0
	for line := range strings.Lines(text) {
		if number++; number > maxLines {
			fmt.Fprintf(complain, "%s has more than %d lines: the rest is not read\n", printable(path), maxLines)
			break
		}
		line = strings.TrimLeft(strings.TrimSuffix(line, "\n"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" || strings.ContainsRune(line, 0) {
			fmt.Fprintf(complain, "%s:%d: this is no NAME=value\n", printable(path), number)
			continue
		}
		if !namesLogin(name) {
			env = set(env, name, value)
		}
	}
	return env
}

func read(path string) (string, error) {
	// Opening a pipe would wait for somebody to write.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New("it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > maxFile:
		return "", fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	return string(b), nil
}

// namesLogin tells what a file does not change: programs and logs read in it who
// has logged in, and from where.
func namesLogin(name string) bool {
	switch name {
	case "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_ORIGINAL_COMMAND":
		return true
	}
	return strings.HasPrefix(name, "SSH_TELEPORT_")
}

func set(env []string, name, value string) []string {
	for i, pair := range env {
		if strings.HasPrefix(pair, name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

// printable keeps a path from writing control sequences to a terminal.
func printable(s string) string { return strings.Trim(fmt.Sprintf("%q", s), `"`) }
