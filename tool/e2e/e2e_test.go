// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package e2e runs the built programs as an operator does: a teleport daemon, a
// real OpenSSH client, the real kernel and a real auditd, and asks ausearch,
// aulast and aureport what they saw.
//
//	sudo go test ./tool/e2e            # builds the programs first
//	sudo E2E_BIN=build go test ./tool/e2e
//	sudo REQUIRE_KERNEL=1 go test ./tool/e2e   # a skipped test is a failure
//	sudo E2E_UPDATE=1 go test ./tool/e2e -run 'TestRecords|TestFixtures'
//	sudo E2E_UPDATE=1 go test ./tool/e2e -run TestParity
//
// The last but one writes the records that the tests caused to fixtures/records,
// with the readings of ausearch and go-libaudit beside them, and the last those of
// docs/openssh.md.
package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
	"teleport-auditd/tool/e2e/harness"
)

// programs are built once for all tests, by TestMain.
var programs struct {
	harness.Programs
	err error
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(floodEnv) != "" {
		return flood()
	}
	if line := os.Getenv(userTTYEnv); line != "" {
		return sendUserTTY(line)
	}
	dir, err := os.MkdirTemp("", "teleport-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot make a folder for the programs:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Users run teleport too, in the test of a daemon without root.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs.Programs, programs.err = harness.Build(dir)
	return m.Run()
}

// built returns the programs, and fails the test where they do not build.
func built(t testing.TB) harness.Programs {
	t.Helper()
	require.NoError(t, programs.err, "the programs under test do not build")
	return programs.Programs
}

// world is one host under test: audit, a daemon, and a system user on it.
type world struct {
	audit  *harness.Audit
	daemon *harness.Daemon
	// bob may log in; carol exists, and no certificate names her.
	bob, carol harness.User
	// pamDir holds what the PAM service reads.
	pamDir string
}

// worldConfig is what newWorld takes.
type worldConfig struct {
	// pam is a service of fixtures/pam.d; empty is PAM off.
	pam   string
	audit harness.AuditConfig
	// ca, where set, is the only authority the node trusts, and there is
	// neither auth nor proxy.
	ca     *harness.CA
	daemon harness.DaemonConfig
	// noAudit leaves the kernel's audit state alone, which one test has at a
	// time. There are no records to look at then.
	noAudit bool
}

// newWorld starts auditd and a daemon with all roles.
func newWorld(t testing.TB, c worldConfig) *world {
	t.Helper()
	harness.NeedRoot(t)
	w := &world{}
	c.daemon.Programs = built(t)
	c.daemon.Wrap = append(harness.NeedUnsetLoginUID(t), c.daemon.Wrap...)
	if !c.noAudit {
		w.audit = harness.StartAudit(t, c.audit)
	}
	w.bob = harness.NewUser(t, harness.UserConfig{})
	w.carol = harness.NewUser(t, harness.UserConfig{})
	if c.pam != "" {
		w.pamDir = pamFiles(t)
		c.daemon.PAMService = harness.PAMService(t, c.pam, w.pamDir)
	}
	c.daemon.Node = true
	if c.ca != nil {
		c.daemon.TrustedUserCAKeys = c.ca.WriteTrust(t, harness.OpenDir(t))
	} else {
		c.daemon.Auth, c.daemon.Proxy = true, true
	}
	w.daemon = harness.StartDaemon(t, c.daemon)
	return w
}

// pamFiles writes what the services of fixtures/pam.d read.
func pamFiles(t testing.TB) string {
	t.Helper()
	dir := harness.OpenDir(t)
	for name, text := range map[string]string{
		"pam_env.conf": "E2E_FROM_PAM DEFAULT=yes\n",
		"limits.conf":  "* hard nofile 777\n* soft nofile 776\n",
		"motd":         "a message from PAM\n",
		"tty_audit":    "session required pam_tty_audit.so disable=*\n",
	} {
		require.NoError(t, os.WriteFile(dir+"/"+name, []byte(text), 0o644))
	}
	return dir
}

// ours picks the records of the programs under test.
func (w *world) ours(records []harness.Record) []harness.Record {
	return harness.Ours(records, programs.Dir, w.bob.UID, w.carol.UID)
}

// own picks, of ours, what our programs write themselves: not libpam, not the
// kernel.
func own(records []harness.Record) []harness.Record {
	var picked []harness.Record
	for _, r := range records {
		switch r.Get("op") {
		case "login", "session_close", "invalid_user":
			picked = append(picked, r)
		}
	}
	return picked
}

// collect waits for n records of our programs' own since the mark and returns
// all of ours since it.
func (w *world) collect(mark harness.Mark, n int) []harness.Record {
	return w.audit.Collect(mark, w.ours, func(records []harness.Record) bool { return len(own(records)) >= n })
}

// expired makes an identity whose certificate the daemon's own user CA signed,
// and which ended an hour ago.
func (w *world) expired(t testing.TB, user string, logins ...string) harness.Identity {
	t.Helper()
	past := clockwork.NewFakeClockAt(time.Now().Add(-3 * time.Hour))
	server, err := auth.Open(t.Context(), auth.Config{
		DataDir: w.daemon.DataDir, ClusterName: "e2e.example.com", Clock: past, Log: logrus.New(),
	})
	require.NoError(t, err)
	defer server.Close()
	return harness.Certify(t, func(key ssh.PublicKey) *ssh.Certificate {
		cert, err := server.SignUser(t.Context(), auth.UserCertRequest{
			PublicKey: key, User: user, Logins: logins, TTL: 2 * time.Hour,
		})
		require.NoError(t, err)
		return cert
	})
}
