// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"teleport-auditd/tool/e2e/harness"
)

// server is one side: a running SSH server.
type server struct {
	addr string
	pid  int
	// programs are the paths of what serves logins.
	programs []string
}

// pair is our daemon and the host's sshd, which let the same user in by the same
// certificate.
type pair struct {
	ours, sshd server
	user       harness.User
	client     *ssh.ClientConfig
}

// pamService is the stack that both sides run.
const pamService = "sshd"

// startPair starts both servers. They are ended with the benchmark.
func startPair(s subject, programs harness.Programs, wrap []string, pam bool) *pair {
	s.Helper()
	harness.NeedPrograms(s, "sshd", "ssh-keygen", "usermod")
	if _, err := os.Stat("/etc/pam.d/" + pamService); pam && err != nil {
		harness.Skip(s, "this host has no PAM service for sshd: %v", err)
	}
	p := &pair{user: harness.NewUser(s, harness.UserConfig{})}
	// sshd without PAM lets nobody in whose password is locked.
	harness.Output(s, "usermod", "-p", "*", p.user.Name)
	ca := harness.NewCA(s)
	trust := ca.WriteTrust(s, harness.OpenDir(s))
	identity := ca.Sign(s, harness.Cert{KeyID: "alice@example.com", Logins: []string{p.user.Name}})
	p.client = harness.ClientConfig(p.user.Name, identity)
	p.client.KeyExchanges = []string{ssh.KeyExchangeCurve25519}
	p.client.HostKeyAlgorithms = []string{ssh.KeyAlgoED25519}

	config := harness.DaemonConfig{Programs: programs, Node: true, TrustedUserCAKeys: trust, Wrap: wrap}
	if pam {
		config.PAMService = pamService
	}
	daemon := harness.StartDaemon(s, config)
	p.ours = server{addr: daemon.NodeAddr, pid: daemon.Pid, programs: []string{programs.Teleport, programs.Session}}
	p.sshd = startSSHD(s, wrap, trust, pam)
	for _, side := range []server{p.ours, p.sshd} {
		var err error
		if !harness.Eventually(10*time.Second, func() bool {
			_, err = login(side, p.client)
			return err == nil
		}) {
			s.Fatalf("%s lets nobody in: %v", side.programs[0], err)
		}
		side.settle(s)
	}
	return p
}

// startSSHD starts the host's sshd with a configuration of our own, which looks
// at nothing but the certificate.
func startSSHD(s subject, wrap []string, trust string, pam bool) server {
	s.Helper()
	path, err := exec.LookPath("sshd")
	if err != nil {
		s.Fatal(err)
	}
	// sshd separates its privileges in this folder and does not start without.
	const separation = "/run/sshd"
	if _, err := os.Stat(separation); os.IsNotExist(err) {
		harness.Undo(s, "rmdir "+separation)
		if err := os.Mkdir(separation, 0o755); err != nil {
			s.Fatal(err)
		}
	}
	dir := harness.OpenDir(s)
	key := filepath.Join(dir, "host_key")
	harness.Output(s, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	side := server{addr: harness.FreeAddr(s), programs: []string{path}}
	yes := map[bool]string{true: "yes", false: "no"}
	text := fmt.Sprintf(`ListenAddress %s
HostKey %s
PidFile none
TrustedUserCAKeys %s
UsePAM %s
AuthorizedKeysFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
UseDNS no
MaxStartups 200
`, side.addr, key, trust, yes[pam])
	conf := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	words := append(append([]string{}, wrap...), path, "-D", "-e", "-f", conf)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// Its children hold the pipe, and may outlive it.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		s.Fatalf("cannot start sshd: %v", err)
	}
	side.pid = cmd.Process.Pid
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if s.Failed() {
			s.Logf("%s\nsshd said:\n%s", text, out.String())
		}
	})
	return side
}

// processes lists what serves this side's logins, the daemon included, and not
// what the users run.
func (v server) processes() []harness.Process {
	all := harness.Processes()
	below := map[int]bool{v.pid: true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if below[p.Parent] && !below[p.Pid] {
				below[p.Pid], grown = true, true
			}
		}
	}
	var own []harness.Process
	for _, p := range all {
		for _, path := range v.programs {
			// A program that was replaced on disk is still itself.
			if below[p.Pid] && strings.TrimSuffix(p.Exe, " (deleted)") == path {
				own = append(own, p)
			}
		}
	}
	return own
}

// settle waits until nobody is logged in.
func (v server) settle(s subject) {
	s.Helper()
	harness.WaitFor(s, 30*time.Second, "all logins to end at "+v.programs[0], func() bool { return len(v.processes()) <= 1 })
}
