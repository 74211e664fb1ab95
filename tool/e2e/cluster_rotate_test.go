// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

var sidIn = regexp.MustCompile(`sid=\S+`)

// TestRotation replaces the keys of both authorities while sessions are open and
// nodes are joined: nobody is cut off before standby, and what the old keys have
// signed is refused after it.
func TestRotation(t *testing.T) {
	w := newCluster(t, clusterConfig{audit: true})
	w.join("direct", false)
	w.join("inner", true)
	w.invite("alice", "--logins="+w.bob.Name)
	early := w.person("alice")
	w.sees(early, "direct", "inner")
	oldPin := pinLine.FindString(w.main.Tctl("status"))

	open := func(node string) (check func()) {
		cmd := early.Command("ssh", w.bob.Name+"@"+node, "echo open; while read line; do echo got $line; done")
		input, err := cmd.StdinPipe()
		require.NoError(t, err)
		output, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(held{t, cmd}.end)
		awaitOpen(t, output)
		return func() {
			t.Helper()
			_, err := fmt.Fprintln(input, "it")
			require.NoError(t, err)
			line := make([]byte, 64)
			n, err := output.Read(line)
			require.NoError(t, err, "the session on %s has ended", node)
			require.Equal(t, "got it\n", string(line[:n]))
		}
	}
	checks := []func(){open("direct"), open("inner")}
	everybody := func(phase string, people ...*harness.Tsh) {
		t.Helper()
		for _, check := range checks {
			check()
		}
		for i, p := range people {
			for _, node := range []string{"direct", "inner"} {
				var r harness.Result
				ok := harness.Eventually(waitLimit, func() bool {
					r = p.Run("ssh", w.bob.Name+"@"+node, "true")
					return r.Code == 0
				})
				require.True(t, ok, "phase %s, person %d, %s: %s", phase, i, node, r.Stderr)
			}
		}
	}
	everybody("before", early)
	w.main.Tctl("auth", "rotate", "--phase=init")
	assert.Len(t, pinLine.FindAllString(w.main.Tctl("status"), -1), 2, "both pins during a rotation")
	everybody("init", early)
	duringInit := w.person("alice")
	// One phase after the other.
	if r := w.main.TryTctl("auth", "rotate", "--phase=standby"); assert.Equal(t, 1, r.Code) {
		assert.Regexp(t, `^ERROR: .*\n$`, r.Stderr)
	}
	w.main.Tctl("auth", "rotate", "--phase=update_clients")
	everybody("update_clients", early, duringInit)
	late := w.person("alice")
	w.main.Tctl("auth", "rotate", "--phase=update_servers")
	everybody("update_servers", early, duringInit, late)
	// A node that joins meanwhile is one like the others.
	w.join("new", false)
	later := w.person("alice")
	w.sees(later, "direct", "inner", "new")
	everybody("update_servers", later)

	w.main.Tctl("auth", "rotate", "--phase=standby")
	pins := pinLine.FindAllString(w.main.Tctl("status"), -1)
	require.Len(t, pins, 1)
	assert.NotEqual(t, oldPin, pins[0])
	last := w.person("alice")
	everybody("standby", late, last)

	// Directly, as the proxy would refuse before the node does.
	mark := w.audit.Fence()
	key, cert := findKey(t, early)
	node := w.nodeAddr("direct")
	refused := func() bool {
		mark = w.audit.Fence()
		r := harness.RunCommand(t, early.Other("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-i", key, "-o", "CertificateFile="+cert, "-p", "3022", w.bob.Name+"@"+node, "true"), "")
		return r.Code == 255
	}
	require.True(t, harness.Eventually(waitLimit, refused), "a certificate of the old authority is let in after standby")
	records := w.refusals(mark, 2)
	require.Len(t, records, 2, harness.Show(records))
	assert.Equal(t, "failed", records[0].Get("res"))
	assert.Equal(t, "invalid_user", records[1].Get("op"))
	assert.Equal(t, "certificate-authority-is-not-trusted", records[1].Get("reason"))
	mark = w.audit.Fence()
	require.NotZero(t, early.Run("ssh", w.bob.Name+"@direct", "true").Code)
	records = w.refusals(mark, 1)
	assert.Equal(t, "invalid_user", records[0].Get("op"), "at the proxy")
}

// nodeAddr is where tctl says that a node is.
func (w *cluster) nodeAddr(name string) string {
	w.t.Helper()
	for line := range strings.Lines(w.main.Tctl("nodes", "ls")) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == name {
			host, _, _ := strings.Cut(words[2], ":")
			return host
		}
	}
	w.t.Fatalf("there is no node %q", name)
	return ""
}

// findKey returns the files of a person's key and certificate for ssh.
func findKey(t *testing.T, p *harness.Tsh) (key, cert string) {
	t.Helper()
	found, err := filepath.Glob(p.Home + "/.tsh/keys/*/*-ssh/*-cert.pub")
	require.NoError(t, err)
	require.Len(t, found, 1)
	key = strings.TrimSuffix(filepath.Dir(found[0]), "-ssh")
	return key, found[0]
}

// refusals waits for n records of attempts that have failed. The end of a login
// that was let in before may come in between.
func (w *cluster) refusals(mark harness.Mark, n int) []harness.Record {
	w.t.Helper()
	failed := func(records []harness.Record) []harness.Record {
		return slices.DeleteFunc(own(harness.Ours(records, programs.Dir, w.bob.UID, w.carol.UID)), func(r harness.Record) bool {
			return r.Get("res") == "success"
		})
	}
	return w.audit.Collect(mark, failed, func(records []harness.Record) bool { return len(records) >= n })
}

// TestClusterRefusals: each refusal is one clear line and leaves its events.
func TestClusterRefusals(t *testing.T) {
	w := newCluster(t, clusterConfig{audit: true, otp: true})
	w.join("web", false, "labels:", "  env: prod")
	app := w.invite("alice", "--logins="+w.bob.Name)
	require.NotNil(t, app, "the page shows a secret")
	host := w.network.Host()
	attempt := func(password string, code func() string) harness.Result {
		p := harness.NewTsh(t, programs.Programs, host)
		return p.Login(password, code, "--proxy="+w.hub.IP+":3080", "--user=alice", "--insecure")
	}
	good := func() string { return app.Code(t) }
	failed := func(name string, r harness.Result, mark harness.Mark) {
		t.Helper()
		require.Equal(t, 1, r.Code, r.Stdout)
		assert.Equal(t, 1, strings.Count(r.Stdout, "ERROR: "), r.Stdout)
		records := w.refusals(mark, 1)
		require.Len(t, records, 1, "%s: %s", name, harness.Show(records))
		assert.Equal(t, "invalid_user", records[0].Get("op"))
		assert.Equal(t, host.IP, records[0].Get("addr"))
		assert.Equal(t, "alice", records[0].Get("acct"))
		events := w.events("--type=user.login", "--user=alice")
		require.NotEmpty(t, events)
		assert.Contains(t, events[len(events)-1], "success=false", name)
	}

	mark := w.audit.Fence()
	// The code is as good afterwards as it was.
	code := good()
	again := func() string { return code }
	failed("wrong password", attempt("wrong horse battery", again), mark)
	mark = w.audit.Fence()
	failed("wrong code", attempt(clusterPassword, func() string { return "000000" }), mark)
	p := harness.NewTsh(t, programs.Programs, host)
	r := p.Login(clusterPassword, again, "--proxy="+w.hub.IP+":3080", "--user=alice", "--insecure")
	require.Zero(t, r.Code, r.Stdout)
	mark = w.audit.Fence()
	failed("reused code", attempt(clusterPassword, again), mark)

	// At the node: a pair, and the reason.
	refused := func(name, target, reason string) {
		t.Run(name, func(t *testing.T) {
			mark := w.audit.Fence()
			r := p.Run("ssh", target, "true")
			require.NotZero(t, r.Code)
			assert.Equal(t, 1, strings.Count(r.Stderr, "ERROR: "), r.Stderr)
			records := w.refusals(mark, 2)
			require.Len(t, records, 2, harness.Show(records))
			for _, record := range records {
				assert.Equal(t, reason, record.Get("reason"))
				assert.Equal(t, "alice", record.Get("teleportUser"))
				assert.Equal(t, host.IP, record.Get("addr"))
			}
		})
	}
	require.Zero(t, p.Run("ssh", w.bob.Name+"@web", "true").Code)
	refused("login not in the certificate", w.carol.Name+"@web", "login-is-not-among-the-principals")
	role := func(logins, labels string) {
		file := harness.OpenDir(t) + "/role.yaml"
		require.NoError(t, writeFile(file, fmt.Sprintf("kind: role\nversion: v7\nmetadata:\n  name: access\nspec:\n  allow:\n    logins: [%s]\n    node_labels:\n      env: %s\n", logins, labels)))
		w.main.Tctl("create", "-f", file)
	}
	eventually := func(reason string) {
		t.Helper()
		require.True(t, harness.Eventually(waitLimit, func() bool { return p.Run("ssh", w.bob.Name+"@web", "true").Code != 0 }), reason)
		_ = w.audit.Fence()
	}
	role("'{{internal.logins}}'", "test")
	eventually("labels")
	refused("node not allowed by labels", w.bob.Name+"@web", "node-not-allowed-by-role")
	role(w.carol.Name, "prod")
	eventually("logins")
	refused("login not allowed by role", w.bob.Name+"@web", "login-not-allowed-by-role")
	role("'{{internal.logins}}'", "prod")
	require.True(t, harness.Eventually(waitLimit, func() bool { return p.Run("ssh", w.bob.Name+"@web", "true").Code == 0 }))

	t.Run("locked user", func(t *testing.T) {
		open := p.Command("ssh", "-t", w.bob.Name+"@web", "echo open; sleep 600")
		output, err := open.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, open.Start())
		t.Cleanup(held{t, open}.end)
		awaitOpen(t, output)
		lock := w.main.Tctl("lock", "--user=alice", "--message=left the company")
		ended := make(chan struct{})
		go func() { _ = open.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(waitLimit):
			t.Fatal("the open session of a locked user goes on")
		}
		node := w.nodeAddr("web")
		key, cert := findKey(t, p)
		direct := func() harness.Result {
			return harness.RunCommand(t, p.Other("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
				"-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-i", key, "-o", "CertificateFile="+cert, "-p", "3022", w.bob.Name+"@"+node, "true"), "")
		}
		mark := w.audit.Fence()
		require.Equal(t, 255, direct().Code)
		records := w.refusals(mark, 2)
		require.Len(t, records, 2, harness.Show(records))
		assert.Equal(t, "user-is-locked", records[1].Get("reason"))
		mark = w.audit.Fence()
		failed("locked user", attempt(clusterPassword, good), mark)
		name := regexp.MustCompile(`name "([^"]+)"`).FindStringSubmatch(lock)
		require.NotNil(t, name, lock)
		w.main.Tctl("rm", "lock/"+name[1])
		require.True(t, harness.Eventually(waitLimit, func() bool { return direct().Code == 0 }))
	})
	t.Run("expired certificate", func(t *testing.T) {
		short := harness.NewTsh(t, programs.Programs, host)
		r := short.Login(clusterPassword, good, "--proxy="+w.hub.IP+":3080", "--user=alice", "--insecure", "--ttl=2s")
		require.Zero(t, r.Code, r.Stdout)
		harness.WaitFor(t, waitLimit, "the end of the login", func() bool { return short.Run("status").Code != 0 })
		r = short.Run("ssh", w.bob.Name+"@web", "true")
		require.Equal(t, 1, r.Code)
		assert.Regexp(t, `^ERROR: not logged in: tsh login .*expired.*\n$`, r.Stderr)
		key, cert := findKey(t, short)
		mark := w.audit.Fence()
		ssh := harness.RunCommand(t, short.Other("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-i", key, "-o", "CertificateFile="+cert, "-p", "3022", w.bob.Name+"@"+w.nodeAddr("web"), "true"), "")
		require.Equal(t, 255, ssh.Code)
		records := w.refusals(mark, 2)
		require.Len(t, records, 2, harness.Show(records))
		assert.Equal(t, "certificate-has-expired", records[1].Get("reason"))
	})
	t.Run("certificate of another cluster", func(t *testing.T) {
		other := harness.NewTeleport(t, harness.TeleportConfig{Programs: programs.Programs, Wrap: w.wrap, Host: w.network.Host(), YAML: w.hubYAML(host, clusterConfig{})})
		other.Start()
		out := filepath.Join(harness.OpenDir(t), "id")
		other.Tctl("auth", "sign", "--user=alice", "--logins="+w.bob.Name, "--out="+out)
		mark := w.audit.Fence()
		ssh := harness.RunCommand(t, p.Other("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-i", out, "-p", "3022", w.bob.Name+"@"+w.nodeAddr("web"), "true"), "")
		require.Equal(t, 255, ssh.Code)
		records := w.refusals(mark, 2)
		require.Len(t, records, 2, harness.Show(records))
		assert.Equal(t, "certificate-authority-is-not-trusted", records[1].Get("reason"))
	})
}
