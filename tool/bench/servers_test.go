// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
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
	// client is OpenSSH's, for this server, and target whom it logs in as.
	client *harness.Client
	target string
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
	key := identity.Write(s, harness.OpenDir(s)+"/id")
	p.sshd = server{
		addr: sshd.Addr, pid: sshd.Pid, programs: sshd.Programs,
		client: harness.NewSSHDClient(s, sshd, key), target: p.user.Name + "@sshd",
	}
	daemon := harness.StartDaemon(s, config)
	p.ours = server{
		addr: daemon.NodeAddr, pid: daemon.Pid, programs: []string{programs.Teleport, programs.Session},
		client: harness.NewClient(s, daemon, key), target: p.user.Name + "@node",
	}
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

// tree lists the processes of this side, those that the users run included.
func (v server) tree() []harness.Process {
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
	return slices.DeleteFunc(all, func(p harness.Process) bool { return !below[p.Pid] })
}

// processes lists what serves this side's logins, the daemon included, and not
// what the users run.
func (v server) processes() []harness.Process {
	return slices.DeleteFunc(v.tree(), func(p harness.Process) bool {
		// A program that was replaced on disk is still itself.
		return !slices.Contains(v.programs, strings.TrimSuffix(p.Exe, " (deleted)"))
	})
}

// settle waits until nobody is logged in.
func (v server) settle(s subject) {
	s.Helper()
	harness.WaitFor(s, 30*time.Second, "all logins to end at "+v.programs[0], func() bool { return len(v.processes()) <= 1 })
}
