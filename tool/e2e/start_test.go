// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/testhost"
	"teleport-auditd/tool/e2e/harness"
)

// TestStartRefuses: what keeps the daemon from starting is one clear line.
func TestStartRefuses(t *testing.T) {
	harness.NeedRoot(t)
	alone := harness.OpenDir(t)
	harness.CopyFile(t, built(t).Teleport, alone+"/teleport")
	withoutSession := built(t)
	withoutSession.Teleport = alone + "/teleport"

	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()

	for _, test := range []struct {
		name  string
		with  harness.DaemonConfig
		wants []string
	}{
		{
			name:  "teleport-session is missing",
			with:  harness.DaemonConfig{Programs: withoutSession, Auth: true, Node: true},
			wants: []string{"teleport-session"},
		},
		{
			name:  "the port is in use",
			with:  harness.DaemonConfig{Programs: built(t), Auth: true, Node: true, SSH: []string{"listen_addr: " + busy.Addr().String()}},
			wants: []string{busy.Addr().String(), "uses the port"},
		},
		{
			name:  "the CA file is missing",
			with:  harness.DaemonConfig{Programs: built(t), Node: true, TrustedUserCAKeys: "/nonexistent/ca.pub"},
			wants: []string{"/nonexistent/ca.pub"},
		},
		{
			name:  "an unknown key",
			with:  harness.DaemonConfig{Programs: built(t), Auth: true, Node: true, SSH: []string{"max_sesions: 3"}},
			wants: []string{"max_sesions", "max_sessions", "teleport.yaml"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.with.MayFail = true
			if test.name == "the port is in use" {
				test.with.DropNodeAddr = true
			}
			daemon := harness.StartDaemon(t, test.with)
			failure, ended := daemon.Ended(waitLimit)
			require.True(t, ended, "the daemon must not run:\n%s", daemon.Log())
			require.Error(t, failure)
			lines := strings.Split(strings.TrimSpace(daemon.Log()), "\n")
			last := lines[len(lines)-1]
			for _, want := range test.wants {
				assert.Contains(t, last, want)
			}
			assert.NotContains(t, daemon.Log(), "goroutine ", "no stack")
			assert.NotContains(t, last, ".go:", "no trace, but in the log of a daemon that debugs")
		})
	}
}

// TestLoginUIDWarning: a daemon that was started from a login says what the
// guide says about it.
func TestLoginUIDWarning(t *testing.T) {
	harness.NeedRoot(t)
	harness.NeedUnsetLoginUID(t)
	if _, err := os.Stat("/proc/self/loginuid"); err != nil {
		testhost.Skip(t, "the kernel is built without auditing: %v", err)
	}
	daemon := harness.StartDaemon(t, harness.DaemonConfig{
		Programs: built(t), Auth: true, Node: true,
		Wrap: []string{"/bin/sh", "-c", `echo 4242 >/proc/self/loginuid && exec "$@"`, "sh"},
	})
	harness.WaitFor(t, waitLimit, "the warning", func() bool {
		return strings.Contains(daemon.Log(), "4294967295") || strings.Contains(daemon.Log(), "4242")
	})
	assert.Regexp(t, `(?i)login ?uid.*4242|4242.*login ?uid`, daemon.Log())
	assert.Regexp(t, `(?i)systemd|service`, daemon.Log(), "the guide's remedy")

	quiet := harness.StartDaemon(t, harness.DaemonConfig{Programs: built(t), Auth: true, Node: true, Wrap: harness.NeedUnsetLoginUID(t)})
	assert.NotRegexp(t, `(?i)level=warn\S* .*login ?uid`, quiet.Log())
}

// TestWithoutRoot: the daemon says what it cannot do and why.
func TestWithoutRoot(t *testing.T) {
	harness.NeedRoot(t)
	user := harness.NewUser(t, harness.UserConfig{})
	other := harness.NewUser(t, harness.UserConfig{})
	daemon := harness.StartDaemon(t, harness.DaemonConfig{
		Programs: built(t), Auth: true, Node: true, User: &user, Wrap: harness.NeedUnsetLoginUID(t),
	})
	assert.Regexp(t, `(?i)root`, daemon.Log())
	assert.Regexp(t, `(?i)audit`, daemon.Log())
	client := harness.NewClient(t, daemon, daemon.Sign("alice", user.Name, other.Name))
	// Whoever it cannot become is refused, and never served as somebody else.
	result := client.Run(other.Name+"@node", "id -un")
	assert.NotZero(t, result.Code)
	assert.Empty(t, result.Stdout)
	result = client.Run(user.Name+"@node", "id -un")
	assert.Contains(t, []string{user.Name + "\n", ""}, result.Stdout)
}

// TestStart: what a fresh start leaves in the data folder.
func TestStart(t *testing.T) {
	harness.NeedRoot(t)
	daemon := harness.StartDaemon(t, harness.DaemonConfig{Programs: built(t), Auth: true, Proxy: true, Node: true})
	info, err := os.Stat(daemon.DataDir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(daemon.DataDir)
	require.NoError(t, err)
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		assert.Zero(t, info.Mode().Perm()&0o077, "%s is readable by others", entry.Name())
	}
	// A second start finds the same authorities and the same host.
	authorities := daemon.Tctl("auth", "export", "--type=user") + daemon.Tctl("auth", "export", "--type=host")
	uuid, err := os.ReadFile(daemon.DataDir + "/host_uuid")
	require.NoError(t, err)
	daemon.Restart()
	assert.Equal(t, authorities, daemon.Tctl("auth", "export", "--type=user")+daemon.Tctl("auth", "export", "--type=host"))
	again, err := os.ReadFile(daemon.DataDir + "/host_uuid")
	require.NoError(t, err)
	assert.Equal(t, uuid, again)
	// tctl does not overwrite an identity unless told to.
	path := daemon.Sign("alice", "bob")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = daemon.TryTctl("auth", "sign", "--user=alice", "--logins=bob", "--ttl=1h", "--format=openssh", "--out="+path)
	assert.Error(t, err)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	_, err = daemon.TryTctl("auth", "sign", "--user=alice", "--logins=bob", "--ttl=1h", "--format=openssh", "--out="+path, "--overwrite")
	assert.NoError(t, err)
}
