// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
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
	p := &pair{user: harness.NewUser(s, harness.UserConfig{})}
	harness.SSHDLogin(s, p.user)
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
	// sshd first: where the host cannot run it, it says so.
	sshd := harness.StartSSHD(s, harness.SSHDConfig{Trust: trust, PAM: pam, Service: pamService, Wrap: wrap})
	p.sshd = server{addr: sshd.Addr, pid: sshd.Pid, programs: sshd.Programs}
	daemon := harness.StartDaemon(s, config)
	p.ours = server{addr: daemon.NodeAddr, pid: daemon.Pid, programs: []string{programs.Teleport, programs.Session}}
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
