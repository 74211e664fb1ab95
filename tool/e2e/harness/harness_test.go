// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseRecord(t *testing.T) {
	r, err := ParseRecord("type=USER_LOGIN msg=audit(1795343992.931:203644): pid=13491 uid=0 auid=1001 ses=368 msg='op=login acct=6F276272 id=1001 exe=\"/usr/sbin/sshd\" hostname=? addr=127.0.0.1 terminal=/dev/pts/0 res=success'\x1dUID=\"root\" AUID=\"bob\"")
	require.NoError(t, err)
	require.NoError(t, r.BodyErr)
	assert.Equal(t, "USER_LOGIN", r.Type)
	assert.Equal(t, uint64(203644), r.Serial)
	assert.Equal(t, "368", r.Kernel["ses"])
	assert.Equal(t, "o'br", r.Get("acct"))
	assert.Equal(t, "/usr/sbin/sshd", r.Get("exe"))
	assert.Equal(t, []string{"op", "acct", "id", "exe", "hostname", "addr", "terminal", "res"}, r.Names())

	for _, body := range []string{
		`op=login acct="x" y" res=failed`, // a quote inside a quote
		`op=login acct="x`,                // a quote that does not close
		`op=login acct="x"y res=failed`,   // text after a quote
		`op=login acct=two words res=failed`,
		`op=login  res=failed`,
		`op=login res=failed `,
	} {
		r, err := ParseRecord("type=USER_LOGIN msg=audit(1.0:1): pid=1 msg='" + body + "'")
		require.NoError(t, err)
		assert.Error(t, r.BodyErr, body)
	}
	r, err = ParseRecord("type=USER_LOGIN msg=audit(1.0:1): pid=1 msg='op=login res=succes")
	require.NoError(t, err)
	assert.Error(t, r.BodyErr, "a torn body")
}

// TestStartAudit: a test has the kernel's audit state, and gives it back.
func TestStartAudit(t *testing.T) {
	NeedRoot(t)
	NeedPrograms(t, "auditctl")
	for _, config := range []AuditConfig{{}, {NoDaemon: true}, {Backlog: 99, BacklogWait: 500}} {
		// Under the lock, so that what is compared is this test's doing.
		var before, after string
		t.Run("before", func(t *testing.T) {
			lockAudit(t)
			before = settings(t)
		})
		t.Run("with", func(t *testing.T) {
			a := StartAudit(t, config)
			mark := a.Fence()
			a.Rule("always,exit", "-F", "arch=b64", "-S", "execve", "-F", "auid=4242", "-k", "teleport-e2e")
			Output(t, "auditctl", "-m", "hello")
			a.Fence()
			assert.Contains(t, Show(a.Since(mark)), "text=hello")
			assert.Contains(t, a.Search("-m", "USER"), "hello")
		})
		t.Run("after", func(t *testing.T) {
			lockAudit(t)
			after = settings(t)
		})
		assert.Equal(t, before, after)
	}
}

// settings is the audit state that a test may change.
func settings(t *testing.T) string {
	status := AuditStatus(t)
	return strings.Join([]string{
		status["enabled"], status["pid"], status["backlog_limit"], status["backlog_wait_time"], status["failure"],
		Output(t, "auditctl", "-l"),
	}, " ")
}

// TestUndo: what a test did to the host is undone even when the test process is
// killed.
func TestUndo(t *testing.T) {
	NeedRoot(t)
	if os.Getenv("HARNESS_DIES") == "1" {
		u := NewUser(t, UserConfig{})
		_, err := os.Stdout.WriteString("user " + u.Name + "\n")
		require.NoError(t, err)
		self, err := os.FindProcess(os.Getpid())
		require.NoError(t, err)
		require.NoError(t, self.Kill())
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUndo$")
	cmd.Env = append(os.Environ(), "HARNESS_DIES=1", "TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	require.Error(t, err)
	_, name, ok := strings.Cut(string(out), "user ")
	require.True(t, ok, "%s", out)
	name, _, _ = strings.Cut(name, "\n")
	WaitFor(t, 20*time.Second, "the user to be gone", func() bool {
		_, err := user.Lookup(name)
		return err != nil
	})
}

// TestNewUser: users and groups are there during the test and not after it.
func TestNewUser(t *testing.T) {
	NeedRoot(t)
	var u User
	var group, service string
	t.Run("with", func(t *testing.T) {
		group, _ = NewGroup(t)
		u = NewUser(t, UserConfig{Groups: []string{group}})
		assert.GreaterOrEqual(t, u.UID, uint32(1000))
		assert.Equal(t, strings.TrimSpace(Output(t, "id", "-u", u.Name)), u.ID())
		// A user whose uid and gid differ, and one for whom they are alike.
		alike := NewUser(t, UserConfig{})
		assert.Equal(t, strings.TrimSpace(Output(t, "id", "-u", alike.Name)), alike.ID())
		info, err := os.Stat(u.Home)
		require.NoError(t, err)
		assert.True(t, info.IsDir())
		cmd := exec.Command("setpriv", "--reuid", u.Name, "--clear-groups", "sleep", "600")
		require.NoError(t, cmd.Start())
		WaitFor(t, 20*time.Second, "a process of the user's", func() bool { return len(u.Processes()) == 1 })
		go func() { _ = cmd.Wait() }()
		service = filepath.Join("/etc/pam.d", PAMService(t, "login", "/some/folder"))
		text, err := os.ReadFile(service)
		require.NoError(t, err)
		assert.Contains(t, string(text), "/some/folder/motd")
	})
	_, err := user.Lookup(u.Name)
	assert.Error(t, err)
	_, err = user.LookupGroup(group)
	assert.Error(t, err)
	assert.Empty(t, u.Processes())
	assert.NoDirExists(t, u.Home)
	assert.NoFileExists(t, service)
}

// TestStartSSHD: the host's sshd lets in whom the certificate names, and asks the
// PAM service that the test named.
func TestStartSSHD(t *testing.T) {
	NeedRoot(t)
	bob := NewUser(t, UserConfig{})
	SSHDLogin(t, bob)
	ca := NewCA(t)
	dir := OpenDir(t)
	trust := ca.WriteTrust(t, dir)
	identity := ca.Sign(t, Cert{KeyID: "alice", Logins: []string{bob.Name}}).Write(t, filepath.Join(dir, "id"))
	for _, test := range []struct {
		name   string
		config SSHDConfig
		code   int
	}{
		{"PAM off", SSHDConfig{Extra: "SetEnv FROM=test"}, 0},
		{"PAM on", SSHDConfig{PAM: true, Extra: "SetEnv FROM=test"}, 0},
		{"a service that refuses", SSHDConfig{PAM: true, Service: PAMService(t, "deny-account", dir)}, 255},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.Trust, test.config.Wrap = trust, NeedUnsetLoginUID(t)
			s := StartSSHD(t, test.config)
			assert.Contains(t, Output(t, "readlink", "/proc/"+strconv.Itoa(s.Pid)+"/exe"), s.Program)
			result := NewSSHDClient(t, s, identity).Run(bob.Name+"@sshd", "echo $FROM")
			assert.Equal(t, test.code, result.Code, "%s", result.Stderr)
			if test.code == 0 {
				assert.Equal(t, "test\n", result.Stdout)
			}
		})
	}
}
