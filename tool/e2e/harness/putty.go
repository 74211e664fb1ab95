// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Route is the way that a client takes to the node.
type Route int

const (
	// Direct connects to the node.
	Direct Route = iota
	// ByProxy connects to the proxy, and from there to the node.
	ByProxy
)

func (r Route) String() string {
	if r == ByProxy {
		return "through the proxy"
	}
	return "directly"
}

// Putty is PuTTY's programs with one identity: plink, pscp and psftp. Like Client
// they read nothing of the user's or the host's own.
type Putty struct {
	t      testing.TB
	daemon *Daemon
	// home is what they take for the home folder, key the identity with its
	// certificate in PuTTY's own format.
	home, key string
	// nodeKey and proxyKey are host keys' fingerprints.
	nodeKey, proxyKey string
}

// NewPutty makes the programs ready to log in to the daemon. The identity is the
// path of a private key, with its certificate beside it, as tctl auth sign and
// Identity.Write make them.
func NewPutty(t testing.TB, d *Daemon, identity string) *Putty {
	t.Helper()
	NeedPrograms(t, "plink", "pscp", "psftp", "puttygen")
	home := OpenDir(t)
	p := &Putty{t: t, daemon: d, home: home, key: filepath.Join(home, "identity.ppk")}
	Output(t, "puttygen", identity, "--certificate", identity+"-cert.pub", "-O", "private", "-o", p.key)
	p.nodeKey = fingerprint(t, d.NodeAddr)
	if d.ProxyAddr != "" {
		p.proxyKey = fingerprint(t, d.ProxyAddr)
	}
	return p
}

// fingerprint is that of the host key alone, which is what PuTTY compares.
func fingerprint(t testing.TB, addr string) string {
	t.Helper()
	key, err := HostKey(addr)
	if err != nil {
		t.Fatalf("cannot learn the host key at %s: %v", addr, err)
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return ssh.FingerprintSHA256(key)
}

// Target is the login at the node as PuTTY's programs take it; for copying, a
// colon and a path follow.
func (p *Putty) Target(login string) string {
	host, _, _ := net.SplitHostPort(p.daemon.NodeAddr)
	return login + "@" + host
}

// Command returns one of PuTTY's programs that has not been started. The login is
// needed for the way through the proxy, where it is used too; the arguments end
// with what Target returned, as the program asks for it.
func (p *Putty) Command(program string, route Route, login string, args ...string) *exec.Cmd {
	p.t.Helper()
	_, port, err := net.SplitHostPort(p.daemon.NodeAddr)
	if err != nil {
		p.t.Fatal(err)
	}
	words := []string{"-batch", "-i", p.key, "-hostkey", p.nodeKey, "-P", port}
	if program == "plink" {
		words = append(words, "-ssh")
	}
	if route == ByProxy {
		host, port, err := net.SplitHostPort(p.daemon.ProxyAddr)
		if err != nil {
			p.t.Fatal(err)
		}
		jump := []string{"plink", "-ssh", "-batch", "-i", p.key, "-hostkey", p.proxyKey, "-P", port, "-nc", p.daemon.NodeAddr, login + "@" + host}
		for i, word := range jump {
			jump[i] = Quote(word)
		}
		words = append(words, "-proxycmd", strings.Join(jump, " "))
	}
	cmd := exec.Command(program, append(words, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "LANG=C.UTF-8", "TERM=xterm"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Run runs one of the programs to its end, with stdin given, for a minute at most.
func (p *Putty) Run(stdin, program string, route Route, login string, args ...string) Result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	plain := p.Command(program, route, login, args...)
	cmd := exec.CommandContext(ctx, plain.Path, plain.Args[1:]...)
	cmd.Env, cmd.SysProcAttr, cmd.WaitDelay = plain.Env, plain.SysProcAttr, time.Second
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	result := Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		p.t.Errorf("%s %s did not end within a minute\nstdout: %s\nstderr: %s", program, strings.Join(args, " "), out.String(), errs.String())
		result.Code = -1
	case errors.As(err, &exit):
		result.Code = exit.ExitCode()
	case err != nil:
		p.t.Errorf("cannot run %s: %v", program, err)
		result.Code = -1
	}
	return result
}

// Plink runs a command at the node, or a shell where there is none. Options stand
// before it.
func (p *Putty) Plink(stdin string, route Route, login string, options []string, command ...string) Result {
	p.t.Helper()
	args := append(append(append([]string{}, options...), p.Target(login)), command...)
	return p.Run(stdin, "plink", route, login, args...)
}

// Pscp copies between paths, of which those at the node begin with Target and a
// colon.
func (p *Putty) Pscp(route Route, login string, args ...string) Result {
	p.t.Helper()
	return p.Run("", "pscp", route, login, args...)
}

// Psftp carries out the lines of an sftp batch, and ends at the first that fails.
func (p *Putty) Psftp(route Route, login string, lines ...string) Result {
	p.t.Helper()
	batch := filepath.Join(p.home, "batch")
	if err := os.WriteFile(batch, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.Run("", "psftp", route, login, "-b", batch, p.Target(login))
}
