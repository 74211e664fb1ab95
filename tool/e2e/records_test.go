// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// row is one line of the design's table: something happens, and exactly these
// records come of it.
type row struct {
	name string
	do   func(t *testing.T, w *world)
	want []want
	// pam is what libpam adds where PAM is on, as TYPE op result.
	pam []string
	// login says that the kernel writes LOGIN.
	login bool
}

// want is one record of our programs' own. An empty field must be absent.
type want struct {
	kind, op, res string
	sender        string // the program
	acct          string // login name
	id            string // uid
	terminal      string // a pattern
	teleportUser  string
	reason        string // a pattern
}

// success is what one login with one end leaves.
func success(u harness.User, terminal string) []want {
	start := want{
		kind: "USER_LOGIN", op: "login", res: "success", sender: "teleport-session",
		acct: u.Name, id: u.ID(), terminal: terminal, teleportUser: "alice",
	}
	end := start
	end.kind, end.op = "USER_END", "session_close"
	return []want{start, end}
}

// refused is the pair that a refusal leaves.
func refused(sender, acct, id, teleportUser, reason string) []want {
	login := want{
		kind: "USER_LOGIN", op: "login", res: "failed", sender: sender, acct: acct, id: id,
		terminal: "teleport", teleportUser: teleportUser, reason: reason,
	}
	invalid := login
	invalid.kind, invalid.op = "USER_ERR", "invalid_user"
	return []want{login, invalid}
}

const (
	noTerminal = `teleport`
	aTerminal  = `/dev/pts/\d+`
	// ghost is a login that a certificate names and no host has.
	ghost = "tpe2e-ghost"
)

// pamSuccess is what libpam writes of one login, beside ours, in its order.
var pamSuccess = []string{
	"USER_ACCT PAM:accounting success",
	"CRED_ACQ PAM:setcred success",
	"USER_START PAM:session_open success",
	"USER_END PAM:session_close success",
	"CRED_DISP PAM:setcred success",
}

func TestRecords(t *testing.T) {
	for _, mode := range []struct{ name, service string }{{"pam-off", ""}, {"pam-on", "login"}} {
		t.Run(mode.name, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: mode.service})
			for _, r := range rows(t, w) {
				t.Run(r.name, func(t *testing.T) { w.check(t, r, mode.name) })
			}
			// What is written late was written for one of the rows, and
			// belongs to none of them.
			mark := w.audit.Fence()
			w.daemon.End()
			w.audit.Fence()
			assert.Empty(t, harness.Show(w.ours(w.audit.Since(mark))), "the end of an idle daemon leaves no record")
		})
	}
}

func rows(t *testing.T, w *world) []row {
	alice := w.daemon.Sign("alice", w.bob.Name, ghost)
	good := harness.NewClient(t, w.daemon, alice)
	identity := harness.ReadIdentity(t, alice)
	signed := func(i harness.Identity) *harness.Client {
		return harness.NewClient(t, w.daemon, i.Write(t, filepath.Join(harness.OpenDir(t), "id")))
	}
	foreign := harness.NewCA(t).Sign(t, harness.Cert{KeyID: "mallory", Logins: []string{w.bob.Name}})
	late := w.expired(t, "alice", w.bob.Name)
	in := func(args ...string) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			result := good.Run(args...)
			require.Zero(t, result.Code, "ssh %v: %s", args, result.Stderr)
		}
	}
	out := func(c *harness.Client, args ...string) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			result := c.Run(args...)
			require.Equal(t, 255, result.Code, "ssh %v must be refused: %s", args, result.Stdout)
			require.Contains(t, result.Stderr, "Permission denied")
		}
	}
	bob, carol := w.bob, w.carol
	node := func(login string) string { return login + "@node" }
	proxy := func(login string) string { return login + "@proxy" }
	proxyRefused := func(acct, teleportUser, reason string) []want {
		return refused("teleport", acct, "", teleportUser, reason)[1:]
	}
	return []row{
		{
			name: "exec", do: in(node(bob.Name), "true"),
			want: success(bob, noTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "shell",
			do: func(t *testing.T, w *world) {
				result := good.RunWith("exit 7\n", node(bob.Name))
				require.Equal(t, 7, result.Code, result.Stderr)
			},
			want: success(bob, noTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "terminal", do: in("-tt", node(bob.Name), "true"),
			want: success(bob, aTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "shell-on-a-terminal",
			do: func(t *testing.T, w *world) {
				result := good.RunWith("exit 7\n", "-tt", node(bob.Name))
				require.Equal(t, 7, result.Code, result.Stderr)
			},
			want: success(bob, aTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "command-that-fails",
			do: func(t *testing.T, w *world) {
				require.Equal(t, 3, good.Run(node(bob.Name), "exit 3").Code)
			},
			want: success(bob, noTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "untrusted", do: out(signed(foreign), node(bob.Name)),
			want: refused("teleport", bob.Name, bob.ID(), "", `(?i)authority|trust`),
		},
		{
			name: "expired", do: out(signed(late), node(bob.Name)),
			want: refused("teleport", bob.Name, bob.ID(), "alice", `(?i)expired`),
		},
		{
			name: "wrong-principal", do: out(good, node(carol.Name)),
			want: refused("teleport", carol.Name, carol.ID(), "alice", `(?i)principal|login`),
		},
		{
			name: "no-certificate", do: out(signed(harness.PlainKey(t)), node(bob.Name)),
			want: refused("teleport", bob.Name, bob.ID(), "", `(?i)certificate`),
		},
		{
			name: "no-key", do: out(harness.NewClient(t, w.daemon, ""), node(bob.Name)),
			want: refused("teleport", bob.Name, bob.ID(), "", `(?i)certificate`),
		},
		{
			name: "many-keys",
			do: func(t *testing.T, w *world) {
				_, err := harness.Dial(t, w.daemon.NodeAddr, bob.Name, harness.PlainKey(t), foreign, harness.PlainKey(t), harness.PlainKey(t))
				require.Error(t, err)
			},
			want: refused("teleport", bob.Name, bob.ID(), "", `.`),
		},
		{
			name: "wrong-key-then-right",
			do: func(t *testing.T, w *world) {
				client := harness.MustDial(t, w.daemon.NodeAddr, bob.Name, harness.PlainKey(t), foreign, identity)
				_, err := harness.Exec(client, "true")
				require.NoError(t, err)
				require.NoError(t, client.Close())
			},
			want: success(bob, noTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "no-such-user", do: out(good, node(ghost)),
			want: refused("teleport", ghost, "", "alice", `(?i)exist|no.such|unknown`),
		},
		{name: "probe-by-connecting", do: probe(w.daemon.NodeAddr)},
		{name: "probe-by-keyscan", do: keyscan(w.daemon.NodeAddr)},
		{
			name: "connection-without-a-channel",
			do: func(t *testing.T, w *world) {
				client := harness.MustDial(t, w.daemon.NodeAddr, bob.Name, identity)
				_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
				require.NoError(t, err)
				require.NoError(t, client.Close())
			},
		},
		{
			name: "through-the-proxy", do: in("-J", proxy(bob.Name), bob.Name+"@byname", "true"),
			want: success(bob, noTerminal), pam: pamSuccess, login: true,
		},
		{
			name: "refused-behind-the-proxy",
			do: func(t *testing.T, w *world) {
				result := good.Run("-J", proxy(bob.Name), carol.Name+"@byname", "true")
				require.Equal(t, 255, result.Code)
				require.Contains(t, result.Stderr, "Permission denied")
			},
			want: refused("teleport", carol.Name, carol.ID(), "alice", `(?i)principal|login`),
		},
		{name: "proxy-lets-a-login-pass-that-it-does-not-know", do: proxySession(good, ghost)},
		{
			name: "proxy-untrusted", do: out(signed(foreign), proxy(bob.Name)),
			want: proxyRefused(bob.Name, "", `(?i)authority|trust`),
		},
		{
			name: "proxy-expired", do: out(signed(late), proxy(bob.Name)),
			want: proxyRefused(bob.Name, "alice", `(?i)expired`),
		},
		{
			name: "proxy-wrong-principal", do: out(good, proxy(carol.Name)),
			want: proxyRefused(carol.Name, "alice", `(?i)principal|login`),
		},
		{
			name: "proxy-no-certificate", do: out(signed(harness.PlainKey(t)), proxy(bob.Name)),
			want: proxyRefused(bob.Name, "", `(?i)certificate`),
		},
		{name: "proxy-probe-by-connecting", do: probe(w.daemon.ProxyAddr)},
		{name: "proxy-probe-by-keyscan", do: keyscan(w.daemon.ProxyAddr)},
	}
}

// probe connects, reads the version line and goes away, as a port scan does.
func probe(addr string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		line := make([]byte, 8)
		_, err = conn.Read(line)
		require.NoError(t, err)
		require.Equal(t, "SSH-2.0-", string(line))
	}
}

func keyscan(addr string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		harness.NeedPrograms(t, "ssh-keyscan")
		host, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		require.Contains(t, harness.Output(t, "ssh-keyscan", "-T", "20", "-p", port, host), "ssh-ed25519")
	}
}

// proxySession asks the proxy for a session, which it has none of.
func proxySession(c *harness.Client, login string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		result := c.Run(login+"@proxy", "true")
		require.NotZero(t, result.Code)
		require.NotContains(t, result.Stderr, "Permission denied", "the login is authenticated")
		require.Regexp(t, `(?i)proxy|jump`, result.Stderr, "the proxy says that it runs no sessions")
	}
}

// check does what the row says and compares the records.
func (w *world) check(t *testing.T, r row, mode string) {
	mark := w.audit.Fence()
	r.do(t, w)
	expected := len(r.want)
	var wantPAM []string
	if mode == "pam-on" {
		wantPAM = r.pam
	}
	records := w.audit.Collect(mark, w.ours, func(records []harness.Record) bool {
		return len(own(records)) >= expected && len(pamRecords(records)) >= len(wantPAM)
	})
	defer func() {
		if t.Failed() {
			t.Logf("the records:\n%s", harness.Show(records))
		}
	}()

	got := own(records)
	require.Len(t, got, expected, "records of our own")
	for i, want := range r.want {
		w.checkOwn(t, want, got[i])
	}
	assert.Equal(t, wantPAM, pamLines(records), "records of libpam's")
	logins := harness.OfType(records, "LOGIN")
	if !r.login {
		assert.Empty(t, logins, "the kernel's LOGIN records")
		for _, record := range got {
			assert.Equal(t, harness.Unset, record.Kernel["auid"])
			assert.Equal(t, harness.Unset, record.Kernel["ses"])
			assert.Equal(t, strconv.Itoa(w.daemon.Pid), record.Kernel["pid"])
		}
	} else {
		require.Len(t, logins, 1, "the kernel's LOGIN records")
		w.checkLogin(t, logins[0], got, records)
	}
	if len(records) > 0 {
		keep(t, r.name+"-"+mode, records)
	}
}

// checkLogin holds the records of one login to each other.
func (w *world) checkLogin(t *testing.T, login harness.Record, got, records []harness.Record) {
	assert.Equal(t, harness.Unset, login.Kernel["old-auid"], "a fresh login")
	assert.Equal(t, "1", login.Kernel["res"])
	start, end := got[0], got[1]
	assert.Equal(t, start.Get("id"), login.Kernel["auid"])
	for _, record := range []harness.Record{start, end} {
		for _, name := range []string{"pid", "ses"} {
			assert.Equal(t, login.Kernel[name], record.Kernel[name], "%s of %s", name, record)
		}
		assert.Equal(t, login.Kernel["auid"], record.Kernel["auid"], "auid of %s", record)
		assert.Equal(t, "0", record.Kernel["uid"])
		assert.Equal(t, start.Get("terminal"), record.Get("terminal"), "one terminal from start to end")
	}
	assert.Less(t, login.Serial, start.Serial, "the kernel's LOGIN comes before USER_LOGIN")
	for _, record := range pamRecords(records) {
		assert.Equal(t, "127.0.0.1", record.Get("addr"), "PAM_RHOST is set: %s", record)
		assert.NotEqual(t, "?", record.Get("terminal"), "PAM_TTY is set: %s", record)
		assert.Equal(t, start.Get("acct"), record.Get("acct"))
		switch record.Type {
		case "USER_START":
			assert.Less(t, record.Serial, start.Serial, "USER_LOGIN follows PAM's session_open, as sshd's does")
		case "USER_END", "CRED_DISP":
			assert.Greater(t, record.Serial, start.Serial)
		}
	}
}

// checkOwn compares one record of our own with what the row wants.
func (w *world) checkOwn(t *testing.T, want want, got harness.Record) {
	assert.Equal(t, want.kind, got.Type)
	names := []string{"op", "acct"}
	if want.id != "" {
		names = append(names, "id")
	}
	names = append(names, "exe", "hostname", "addr", "terminal")
	if got.Get("rport") != "" {
		names = append(names, "rport")
		_, err := strconv.ParseUint(got.Get("rport"), 10, 16)
		assert.NoError(t, err, "rport of %s", got)
	}
	if want.teleportUser != "" {
		names = append(names, "teleportUser")
	}
	if want.reason != "" {
		names = append(names, "reason")
	}
	names = append(names, "res")
	assert.Equal(t, names, got.Names(), "fields of %s", got)
	assert.Equal(t, want.op, got.Get("op"))
	assert.Equal(t, want.res, got.Get("res"))
	assert.Equal(t, want.acct, got.Get("acct"))
	assert.Equal(t, want.id, got.Get("id"))
	assert.Equal(t, filepath.Join(programs.Dir, want.sender), got.Get("exe"))
	assert.Equal(t, "127.0.0.1", got.Get("hostname"))
	assert.Equal(t, "127.0.0.1", got.Get("addr"))
	assert.Regexp(t, "^"+want.terminal+"$", got.Get("terminal"))
	assert.Equal(t, want.teleportUser, got.Get("teleportUser"))
	if want.reason != "" {
		assert.Regexp(t, want.reason, got.Get("reason"))
	}
}

var pamOp = regexp.MustCompile(`^PAM:`)

func pamRecords(records []harness.Record) []harness.Record {
	var picked []harness.Record
	for _, r := range records {
		if pamOp.MatchString(r.Get("op")) {
			picked = append(picked, r)
		}
	}
	return picked
}

func pamLines(records []harness.Record) []string {
	var lines []string
	for _, r := range pamRecords(records) {
		lines = append(lines, fmt.Sprintf("%s %s %s", r.Type, r.Get("op"), r.Get("res")))
	}
	return lines
}

// TestPAMRefuses: what PAM refuses is a failed login, never one that began.
func TestPAMRefuses(t *testing.T) {
	for _, test := range []struct {
		service string
		pam     []string
	}{
		{"deny-account", []string{"USER_ACCT PAM:accounting failed"}},
		{"deny-session", []string{
			"USER_ACCT PAM:accounting success",
			"CRED_ACQ PAM:setcred success",
			"USER_START PAM:session_open failed",
			"CRED_DISP PAM:setcred success",
		}},
	} {
		t.Run(test.service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: test.service})
			client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
			for _, terminal := range []string{"-T", "-tt"} {
				mark := w.audit.Fence()
				result := client.Run(terminal, w.bob.Name+"@node", "echo it ran")
				assert.NotZero(t, result.Code)
				assert.NotContains(t, result.Stdout, "it ran")
				// PAM's own records go on after ours.
				records := w.audit.Collect(mark, w.ours, func(records []harness.Record) bool {
					return len(own(records)) >= 2 && len(pamLines(records)) >= len(test.pam)
				})
				got := own(records)
				require.Len(t, got, 2, harness.Show(records))
				for i, want := range refused(filepath.Base(got[0].Get("exe")), w.bob.Name, w.bob.ID(), "alice", `.`) {
					want.terminal = noTerminal + "|" + aTerminal
					w.checkOwn(t, want, got[i])
				}
				assert.Equal(t, test.pam, pamLines(records))
				keep(t, test.service+map[string]string{"-T": "", "-tt": "-terminal"}[terminal]+"-pam-on", records)
			}
			assert.True(t, harness.Eventually(waitLimit, func() bool { return len(w.daemon.Sessions()) == 0 }),
				"no teleport-session is left behind")
		})
	}
}

// TestSessionProgramFails: a login whose teleport-session cannot start is
// refused, and told as refused.
func TestSessionProgramFails(t *testing.T) {
	harness.NeedRoot(t)
	// A copy, since the program is taken away while the daemon runs.
	dir := harness.OpenDir(t)
	copied := harness.Programs{Dir: dir, Teleport: dir + "/teleport", Session: dir + "/teleport-session", User: dir + "/teleport-user", Tctl: dir + "/tctl"}
	for from, to := range map[string]string{built(t).Teleport: copied.Teleport, built(t).Session: copied.Session, built(t).User: copied.User, built(t).Tctl: copied.Tctl} {
		harness.CopyFile(t, from, to)
	}
	audit := harness.StartAudit(t, harness.AuditConfig{})
	bob := harness.NewUser(t, harness.UserConfig{})
	daemon := harness.StartDaemon(t, harness.DaemonConfig{
		Programs: copied, Auth: true, Node: true, Wrap: harness.NeedUnsetLoginUID(t),
	})
	client := harness.NewClient(t, daemon, daemon.Sign("alice", bob.Name))
	require.NoError(t, os.Remove(copied.Session))
	mark := audit.Fence()
	result := client.Run(bob.Name+"@node", "true")
	assert.NotZero(t, result.Code)
	pick := func(records []harness.Record) []harness.Record { return harness.Ours(records, dir, bob.UID) }
	records := audit.Collect(mark, pick, func(records []harness.Record) bool { return len(own(records)) >= 2 })
	require.Len(t, records, 2, harness.Show(records))
	for i, kind := range []string{"USER_LOGIN", "USER_ERR"} {
		assert.Equal(t, kind, records[i].Type)
		assert.Equal(t, "failed", records[i].Get("res"))
		assert.Equal(t, bob.Name, records[i].Get("acct"))
		assert.Equal(t, "alice", records[i].Get("teleportUser"))
	}
	// The daemon lives on.
	_, ended := daemon.Ended(0)
	assert.False(t, ended)
}
