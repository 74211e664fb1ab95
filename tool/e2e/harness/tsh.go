// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Tsh is a person at a host, with a home folder for profiles.
type Tsh struct {
	Host *Host
	Home string

	t       testing.TB
	program string
}

// NewTsh makes a home.
func NewTsh(t testing.TB, programs Programs, host *Host) *Tsh {
	t.Helper()
	return &Tsh{Host: host, Home: OpenDir(t), t: t, program: programs.Tsh}
}

// Command is a call of tsh.
func (p *Tsh) Command(args ...string) *exec.Cmd { return p.Other(p.program, args...) }

// Other is a call of another program by the same person.
func (p *Tsh) Other(name string, args ...string) *exec.Cmd {
	cmd := p.Host.Command(name, args...)
	for i, entry := range cmd.Env {
		if strings.HasPrefix(entry, "HOME=") {
			cmd.Env[i] = "HOME=" + p.Home
		}
	}
	return cmd
}

// Run runs tsh without a terminal.
func (p *Tsh) Run(args ...string) Result {
	p.t.Helper()
	return RunCommand(p.t, p.Command(args...), "")
}

// Login logs in at a terminal: with the password, and with the code that code
// returns when tsh asks for one.
func (p *Tsh) Login(password string, code func() string, args ...string) Result {
	p.t.Helper()
	return p.LoginWith(p.Command(append([]string{"login"}, args...)...), password, code)
}

// LoginWith is Login with a command of one's own.
func (p *Tsh) LoginWith(cmd *exec.Cmd, password string, code func() string) Result {
	p.t.Helper()
	return p.AtTerminal(cmd, func(shown string) (string, bool) {
		switch {
		case strings.HasSuffix(strings.TrimSpace(shown), ":") && strings.Contains(lastLine(shown), "assword"):
			return password + "\n", true
		case strings.HasSuffix(strings.TrimSpace(shown), ":") && code != nil:
			return code() + "\n", true
		}
		return "", false
	})
}

func lastLine(text string) string {
	return text[strings.LastIndexByte(strings.TrimRight(text, "\r\n"), '\n')+1:]
}

// AtTerminal runs a command on a terminal of its own. answer is given what was
// shown since the last answer, and says what to type. Stdout of the result is all
// that the terminal has shown.
func (p *Tsh) AtTerminal(cmd *exec.Cmd, answer func(shown string) (string, bool)) Result {
	p.t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		p.t.Fatalf("opening a terminal: %v", err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	defer master.Close()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		p.t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		p.t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("cannot run %s: %v", strings.Join(cmd.Args, " "), err)
	}
	slave.Close()
	var shown lockedBuffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = shown.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	answered := 0
	for {
		select {
		case err := <-done:
			master.SetReadDeadline(time.Now().Add(time.Second)) //nolint:errcheck // the read ends by itself
			<-read
			r := Result{Stdout: shown.String()}
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				r.Code = exit.ExitCode()
			}
			return r
		case <-tick.C:
			text := shown.String()
			if reply, ok := answer(text[answered:]); ok {
				answered = len(text)
				if _, err := master.WriteString(reply); err != nil {
					p.t.Logf("typing: %v", err)
				}
			}
		case <-deadline:
			_ = cmd.Process.Kill()
			p.t.Fatalf("%s did not end within two minutes:\n%s", strings.Join(cmd.Args, " "), shown.String())
		}
	}
}
