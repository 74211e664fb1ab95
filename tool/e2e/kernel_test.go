// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-libaudit/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/testhost"
	"teleport-auditd/tool/e2e/harness"
)

// TestAuditSwitchedOffAndOn: one daemon throughout, and no restart.
func TestAuditSwitchedOffAndOn(t *testing.T) {
	w := newWorld(t, worldConfig{})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	login := func() {
		t.Helper()
		result := client.Run(w.bob.Name+"@node", "true")
		require.Zero(t, result.Code, result.Stderr)
		require.Equal(t, 255, client.Run(w.carol.Name+"@node", "true").Code)
	}
	mark := w.audit.Fence()
	// auditd still reads what was taken before; what comes now is discarded.
	harness.Output(t, "auditctl", "-e", "0")
	login()
	harness.WaitFor(t, waitLimit, "the sessions to end", func() bool { return len(w.daemon.Sessions()) == 0 })
	harness.Output(t, "auditctl", "-e", "1")
	w.audit.Fence()
	assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))), "auditing was off")

	mark = w.audit.Fence()
	login()
	records := own(w.collect(mark, 4))
	require.Len(t, records, 4, harness.Show(records))
	assert.Equal(t, "USER_LOGIN success USER_LOGIN failed USER_ERR failed", endLess(records))
	assert.NotContains(t, w.daemon.Log(), "panic")
}

// endLess prints types and results, leaving out the end of the session, which
// may come before or after what another connection does.
func endLess(records []harness.Record) string {
	var words []string
	for _, r := range records {
		if r.Type != "USER_END" {
			words = append(words, r.Type, r.Get("res"))
		}
	}
	return strings.Join(words, " ")
}

// TestDaemonStartedWithAuditOff: the no-op that was picked at start gives way
// when auditing is switched on.
func TestDaemonStartedWithAuditOff(t *testing.T) {
	harness.NeedRoot(t)
	audit := harness.StartAudit(t, harness.AuditConfig{})
	wrap := harness.NeedUnsetLoginUID(t)
	bob := harness.NewUser(t, harness.UserConfig{})
	harness.Output(t, "auditctl", "-e", "0")
	daemon := harness.StartDaemon(t, harness.DaemonConfig{Programs: built(t), Auth: true, Node: true, Wrap: wrap})
	client := harness.NewClient(t, daemon, daemon.Sign("alice", bob.Name))
	require.Zero(t, client.Run(bob.Name+"@node", "true").Code)
	assert.Regexp(t, `(?i)audit.*(disabled|off|not enabled)`, daemon.Log(), "the log says once why nothing is recorded")
	harness.WaitFor(t, waitLimit, "the session to end", func() bool { return len(daemon.Sessions()) == 0 })
	harness.Output(t, "auditctl", "-e", "1")
	mark := audit.Fence()
	require.Zero(t, client.Run(bob.Name+"@node", "true").Code)
	pick := func(records []harness.Record) []harness.Record {
		return own(harness.Ours(records, programs.Dir, bob.UID))
	}
	records := audit.Collect(mark, pick, func(records []harness.Record) bool { return len(records) >= 2 })
	assert.Len(t, records, 2, harness.Show(records))
}

// TestModeOff: nothing is recorded, and the login works.
func TestModeOff(t *testing.T) {
	w := newWorld(t, worldConfig{daemon: harness.DaemonConfig{AuditMode: "off"}})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	mark := w.audit.Fence()
	require.Zero(t, client.Run(w.bob.Name+"@node", "true").Code)
	require.Equal(t, 255, client.Run(w.carol.Name+"@node", "true").Code)
	w.daemon.End()
	w.audit.Fence()
	assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))))
}

// TestNotPermitted: without CAP_AUDIT_WRITE no record can be written. Mode auto
// lets a login go on, and says so; mode required lets nobody in.
func TestNotPermitted(t *testing.T) {
	harness.NeedPrograms(t, "setpriv")
	for mode, let := range map[string]bool{"auto": true, "required": false} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, worldConfig{daemon: harness.DaemonConfig{
				AuditMode: mode, MayFail: true,
				Wrap: []string{"setpriv", "--bounding-set=-audit_write", "--inh-caps=-audit_write"},
			}})
			assert.Regexp(t, `(?i)CAP_AUDIT_WRITE`, w.daemon.Log(), "the log says why")
			if _, ended := w.daemon.Ended(0); ended {
				assert.False(t, let, "mode auto starts all the same")
				return
			}
			mark := w.audit.Fence()
			result := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name)).Run(w.bob.Name+"@node", "echo in")
			assert.Equal(t, map[bool]string{true: "in\n", false: ""}[let], result.Stdout)
			assert.Equal(t, let, result.Code == 0)
			w.audit.Fence()
			assert.Empty(t, harness.Show(own(w.ours(w.audit.Since(mark)))))
		})
	}
}

// TestAddresses: addr is an IP alone, whatever the client came by.
func TestAddresses(t *testing.T) {
	if conn, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		testhost.Skip(t, "this host has no IPv6: %v", err)
	} else {
		require.NoError(t, conn.Close())
	}
	_, port, err := net.SplitHostPort(harness.FreeAddr(t))
	require.NoError(t, err)
	w := newWorld(t, worldConfig{daemon: harness.DaemonConfig{
		DropNodeAddr: true, SSH: []string{`listen_addr: "[::]:` + port + `"`},
	}})
	identity := harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name))
	for _, host := range []string{"::1", "127.0.0.1", "127.0.0.2"} {
		mark := w.audit.Fence()
		client := harness.MustDial(t, net.JoinHostPort(host, port), w.bob.Name, identity)
		_, err := harness.Exec(client, "true")
		require.NoError(t, err)
		require.NoError(t, client.Close())
		_, err = harness.Dial(t, net.JoinHostPort(host, port), w.carol.Name, identity)
		require.Error(t, err)
		// 127.0.0.2 is reached from 127.0.0.1.
		want := map[string]string{"::1": "::1", "127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.1"}[host]
		records := own(w.collect(mark, 4))
		require.Len(t, records, 4)
		for _, r := range records {
			assert.Equal(t, want, r.Get("addr"), r.String())
			assert.Equal(t, want, r.Get("hostname"), r.String())
		}
	}
}

// TestMulticast: a reader of the multicast group sees what auditd would.
func TestMulticast(t *testing.T) {
	w := newWorld(t, worldConfig{audit: harness.AuditConfig{NoDaemon: true}})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	mark := w.audit.Fence()
	require.Zero(t, client.Run(w.bob.Name+"@node", "true").Code)
	records := w.collect(mark, 2)
	got := own(records)
	require.Len(t, got, 2, harness.Show(records))
	for i, want := range success(w.bob, noTerminal) {
		w.checkOwn(t, want, got[i])
	}
	assert.Contains(t, w.audit.Search("-i", "-m", "USER_LOGIN"), "acct="+w.bob.Name)
}

// floodEnv makes the test program a sender of audit messages.
const floodEnv = "E2E_FLOOD"

// flood sends user messages until its stdin ends, and says so each time that
// the kernel made it wait.
func flood() int {
	client, err := libaudit.NewNetlinkClient(syscall.NETLINK_AUDIT, 0, nil, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	const auditUser = 1005
	body := []byte("text=teleport-e2e-flood\x00")
	for {
		began := time.Now()
		_, err := client.Send(syscall.NetlinkMessage{
			Header: syscall.NlMsghdr{Type: auditUser, Flags: syscall.NLM_F_REQUEST}, Data: body,
		})
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if time.Since(began) > 500*time.Millisecond {
			fmt.Println("waited")
		}
	}
}

// TestStuckAuditd: with auditd stopped and the kernel's backlog full, the kernel
// holds every sender of a record. Those who send none must not notice, nor those
// who are refused at the proxy.
func TestStuckAuditd(t *testing.T) {
	w := newWorld(t, worldConfig{audit: harness.AuditConfig{
		Backlog: 64,
		// In ticks of 4 ms at the usual HZ=250: 3 s for each record, which is
		// long beside the second that a handshake may take.
		BacklogWait: 750,
	}})
	if w.audit.Pid == 0 {
		testhost.Skip(t, "the host runs an auditd of its own, which is not ours to stop")
	}
	alice := w.daemon.Sign("alice", w.bob.Name)
	identity := harness.ReadIdentity(t, alice)
	client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, identity)
	session, err := client.NewSession()
	require.NoError(t, err)
	in, err := session.StdinPipe()
	require.NoError(t, err)
	out, err := session.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, session.Start("cat"))
	reader := bufio.NewReader(out)
	echo := func(text string) {
		t.Helper()
		began := time.Now()
		_, err := io.WriteString(in, text+"\n")
		require.NoError(t, err)
		line, err := reader.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, text+"\n", line)
		assert.Less(t, time.Since(began), time.Second, "an open session echoes at once")
	}
	echo("before")

	require.NoError(t, syscall.Kill(w.audit.Pid, syscall.SIGSTOP))
	sender := exec.Command(os.Args[0])
	sender.Env = append(os.Environ(), floodEnv+"=1")
	sender.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stop, err := sender.StdinPipe()
	require.NoError(t, err)
	said, err := sender.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, sender.Start())
	resume := func() {
		_ = syscall.Kill(w.audit.Pid, syscall.SIGCONT)
		stop.Close()
	}
	t.Cleanup(func() {
		resume()
		_ = sender.Wait()
	})
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "waited\n", line, "the backlog is full")

	foreign := harness.NewCA(t).Sign(t, harness.Cert{KeyID: "mallory", Logins: []string{w.bob.Name}})
	for i := range 10 {
		echo(fmt.Sprintf("meanwhile %d", i))
		for name, addr := range map[string]string{"proxy": w.daemon.ProxyAddr, "node": w.daemon.NodeAddr} {
			began := time.Now()
			_, err := harness.Dial(t, addr, w.bob.Name, foreign)
			require.Error(t, err)
			require.Contains(t, err.Error(), "unable to authenticate")
			assert.Less(t, time.Since(began), time.Second, "a failed handshake at the %s", name)
		}
	}
	status := harness.AuditStatus(t)
	t.Logf("backlog %s of 64, %s waited, lost %s", status["backlog"], status["backlog_wait_time_actual"], status["lost"])

	resume()
	echo("after")
	require.NoError(t, in.Close())
	require.NoError(t, session.Wait())
	client.Close()
	// And the trail goes on.
	require.NoError(t, sender.Wait())
	mark := w.audit.Fence()
	result := harness.NewClient(t, w.daemon, alice).Run(w.bob.Name+"@node", "true")
	require.Zero(t, result.Code, result.Stderr)
	w.audit.Collect(mark, w.ours, func(records []harness.Record) bool {
		for _, r := range records {
			if r.Type == "USER_LOGIN" && r.Get("res") == "success" {
				return true
			}
		}
		return false
	})
}
