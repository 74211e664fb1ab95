// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Teleport is a daemon with a configuration file as an operator writes it, on a
// host of a Network or, where Host is nil, on this machine.
type Teleport struct {
	Host *Host
	// ConfigFile and DataDir are paths, both in Dir.
	Dir, ConfigFile, DataDir string
	Pid                      int

	t        testing.TB
	programs Programs
	wrap     []string
	args     []string
	cmd      *exec.Cmd
	output   lockedBuffer
	ended    chan struct{}
	failure  error
}

// TeleportConfig is what NewTeleport takes.
type TeleportConfig struct {
	Programs Programs
	Host     *Host
	// YAML is the configuration; $DIR is the daemon's folder in it, where its
	// data_dir should be as $DIR/data. Empty starts without a file.
	YAML string
	// Args follow `teleport start`; $DIR is replaced in them too.
	Args []string
	// Wrap stands before the command.
	Wrap []string
	// Dir is the folder; made where it is empty.
	Dir string
}

// NewTeleport prepares a daemon, and ends it with the test. Start starts it.
func NewTeleport(t testing.TB, c TeleportConfig) *Teleport {
	t.Helper()
	d := &Teleport{Host: c.Host, Dir: c.Dir, t: t, programs: c.Programs, wrap: c.Wrap}
	if d.Dir == "" {
		d.Dir = OpenDir(t)
	}
	d.ConfigFile, d.DataDir = filepath.Join(d.Dir, "teleport.yaml"), filepath.Join(d.Dir, "data")
	if c.YAML != "" {
		if err := os.WriteFile(d.ConfigFile, []byte(strings.ReplaceAll(c.YAML, "$DIR", d.Dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		d.args = []string{"-c", d.ConfigFile}
	}
	for _, arg := range c.Args {
		d.args = append(d.args, strings.ReplaceAll(arg, "$DIR", d.Dir))
	}
	t.Cleanup(func() {
		d.End()
		if t.Failed() {
			t.Logf("%s\n%s\nteleport %s said:\n%s", d.ConfigFile, c.YAML, strings.Join(d.args, " "), tail(d.Log(), 8000))
		}
	})
	return d
}

// Start starts the daemon and waits until all its roles are ready.
func (d *Teleport) Start() {
	d.t.Helper()
	said := d.Begin()
	d.WaitLog(said, "Teleport is ready")
}

// Begin starts the daemon and waits for nothing. It returns where its log begins.
func (d *Teleport) Begin() int {
	d.t.Helper()
	said := len(d.Log())
	words := append([]string{}, d.Host.words()...)
	words = append(words, d.wrap...)
	words = append(append(words, d.programs.Teleport, "start"), d.args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &d.output, &d.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "SHELL=/bin/sh"}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		d.t.Fatalf("cannot start teleport: %v", err)
	}
	ended := make(chan struct{})
	d.cmd, d.Pid, d.ended = cmd, cmd.Process.Pid, ended
	go func() {
		d.failure = cmd.Wait()
		close(ended)
	}()
	return said
}

// WaitLog waits for a text in the log after a place in it.
func (d *Teleport) WaitLog(said int, text string) {
	d.t.Helper()
	up := Eventually(40*time.Second, func() bool {
		return strings.Contains(d.Log()[said:], text) || d.HasEnded(0)
	})
	if !up || !strings.Contains(d.Log()[said:], text) {
		d.t.Fatalf("teleport on %s did not say %q (ended: %v):\n%s", d.Dir, text, d.HasEnded(0), tail(d.Log()[said:], 4000))
	}
}

// Log is what the daemon has said, in all its lives.
func (d *Teleport) Log() string { return d.output.String() }

// HasEnded waits for the daemon's end for at most limit.
func (d *Teleport) HasEnded(limit time.Duration) bool {
	if d.cmd == nil {
		return true
	}
	if limit <= 0 {
		select {
		case <-d.ended:
			return true
		default:
			return false
		}
	}
	select {
	case <-d.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

// Failure is how the daemon ended, which it must have.
func (d *Teleport) Failure() error { return d.failure }

// End ends the daemon in order.
func (d *Teleport) End() {
	d.t.Helper()
	if d.HasEnded(0) {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if !d.HasEnded(15 * time.Second) {
		d.Kill()
		d.t.Errorf("teleport on %s did not end within 15 s of SIGTERM", d.Dir)
	}
}

// Kill ends the daemon with SIGKILL.
func (d *Teleport) Kill() {
	d.t.Helper()
	_ = d.cmd.Process.Kill()
	if !d.HasEnded(10 * time.Second) {
		d.t.Fatalf("teleport on %s survives SIGKILL", d.Dir)
	}
}

// Tctl runs tctl with the daemon's configuration, on its host, and returns its
// standard output.
func (d *Teleport) Tctl(args ...string) string {
	d.t.Helper()
	r := d.TryTctl(args...)
	if r.Code != 0 {
		d.t.Fatalf("tctl %s: %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// TryTctl is Tctl for what may fail.
func (d *Teleport) TryTctl(args ...string) Result {
	d.t.Helper()
	return RunCommand(d.t, d.Host.Command(d.programs.Tctl, append([]string{"-c", d.ConfigFile}, args...)...), "")
}

// RunCommand runs a command for at most two minutes.
func RunCommand(t testing.TB, cmd *exec.Cmd, stdin string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	limited := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	limited.Env, limited.Dir, limited.SysProcAttr, limited.WaitDelay = cmd.Env, cmd.Dir, cmd.SysProcAttr, time.Second
	var out, errs bytes.Buffer
	limited.Stdin, limited.Stdout, limited.Stderr = strings.NewReader(stdin), &out, &errs
	err := limited.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Errorf("%s did not end within two minutes\nstdout: %s\nstderr: %s", strings.Join(cmd.Args, " "), r.Stdout, r.Stderr)
		r.Code = -1
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		t.Errorf("cannot run %s: %v", strings.Join(cmd.Args, " "), err)
		r.Code = -1
	}
	return r
}
