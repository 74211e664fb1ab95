// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"teleport-auditd/tool/e2e/harness"
)

// TestMixedLogins does 200 logins of several kinds, 20 at a time: commands,
// terminals, files, forwarding, refusals. It finds each one's records again: none
// lost, none doubled, none with a piece of another connection's.
func TestMixedLogins(t *testing.T) {
	ca := harness.NewCA(t)
	// 60 of the logins fail; unauthenticated connections are bounded by
	// default at five times what is open here.
	w := newWorld(t, worldConfig{ca: &ca})
	const total, together = 200, 20
	foreign := harness.NewCA(t)

	// The user's own view of one login that was let in; ses and auid are empty
	// where it cannot see them.
	type view struct{ person, login, ses, auid, terminal string }
	uids := map[string]string{w.bob.Name: w.bob.ID(), w.carol.Name: w.carol.ID()}
	var mu sync.Mutex
	views := map[string]view{}
	failures := map[string]int{}

	echo := echoServer(t)
	mark := w.audit.Fence()
	before := w.daemon.Descriptors()
	var group errgroup.Group
	group.SetLimit(together)
	for i := range total {
		person := fmt.Sprintf("person-%d", i)
		login := []harness.User{w.bob, w.carol}[i%2]
		group.Go(func() error {
			cert := harness.Cert{KeyID: person, Logins: []string{login.Name, ghost}}
			name, signer := login.Name, ca
			kind := i % 10
			switch kind {
			case 7:
				signer = foreign
			case 8:
				cert.Logins = []string{"somebody-else"}
			case 9:
				name = ghost
			}
			client, err := ssh.Dial("tcp", w.daemon.NodeAddr, harness.ClientConfig(name, signer.Sign(t, cert)))
			if kind >= 7 {
				if err == nil {
					client.Close()
					return fmt.Errorf("%s was let in", person)
				}
				mu.Lock()
				failures[fmt.Sprintf("%d %s", kind, name)]++
				mu.Unlock()
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", person, err)
			}
			defer client.Close()
			look := view{person: person, login: login.Name, terminal: "teleport"}
			switch kind {
			case 3:
				look.ses, look.auid, err = lookBySFTP(client)
			case 4:
				err = lookByForwarding(client, echo, login)
			default:
				terminal := kind >= 5
				look.ses, look.auid, look.terminal, err = lookByCommand(client, terminal, login, person)
			}
			if err != nil {
				return fmt.Errorf("%s as %s: %w", person, login.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			views[person] = look
			return nil
		})
	}
	require.NoError(t, group.Wait())
	assert.True(t, harness.Eventually(waitLimit, func() bool { return w.daemon.Descriptors() <= before+2 }),
		"the daemon had %d descriptors open before, and %d after", before, w.daemon.Descriptors())
	assert.True(t, harness.Eventually(waitLimit, func() bool { return len(w.daemon.Sessions()) == 0 }), "every teleport-session has ended")
	const succeeded, failed = total / 10 * 7, total / 10 * 3
	require.Len(t, views, succeeded)

	records := w.collect(mark, succeeded*2+failed*2)
	grep := func(pattern string) int {
		// As an operator counts: with grep, in the file.
		out, _ := exec.Command("grep", "-c", pattern, w.audit.Log).Output()
		var n int
		_, err := fmt.Sscan(string(out), &n)
		require.NoError(t, err)
		return n
	}
	exe := `exe="` + programs.Dir
	assert.Equal(t, succeeded, grep(`^type=USER_LOGIN .*`+exe+`.*res=success'`), "successful logins")
	assert.Equal(t, failed, grep(`^type=USER_LOGIN .*`+exe+`.*res=failed'`), "failed logins")
	assert.Equal(t, failed, grep(`^type=USER_ERR .*`+exe+`.*res=failed'`))
	assert.Equal(t, succeeded, grep(`^type=USER_END .*`+exe+`.*res=success'`))
	assert.Len(t, harness.OfType(records, "LOGIN"), succeeded)

	bySession := map[string][]harness.Record{}
	gone := map[string]int{}
	for _, r := range records {
		switch {
		case r.Type == "SYSCALL" || r.Type == "PROCTITLE":
		case r.Kernel["ses"] != harness.Unset:
			bySession[r.Kernel["ses"]] = append(bySession[r.Kernel["ses"]], r)
		default:
			gone[r.Type+" "+r.Get("acct")+" "+r.Get("teleportUser")]++
		}
	}
	require.Len(t, bySession, succeeded)
	pids := map[string]bool{}
	sessionOf := map[string]string{}
	for ses, records := range bySession {
		for _, r := range records {
			if r.Type == "USER_LOGIN" {
				sessionOf[r.Get("teleportUser")] = ses
			}
		}
	}
	for person, view := range views {
		ses := sessionOf[person]
		if view.ses != "" {
			assert.Equal(t, view.ses, ses, "what the user's process and the record say of %s", person)
		}
		got := bySession[ses]
		require.Len(t, got, 3, "session %s:\n%s", ses, harness.Show(got))
		login, start, end := got[0], got[1], got[2]
		assert.Equal(t, []string{"LOGIN", "USER_LOGIN", "USER_END"}, []string{login.Type, start.Type, end.Type})
		pids[login.Kernel["pid"]] = true
		for _, r := range got {
			assert.Equal(t, login.Kernel["pid"], r.Kernel["pid"], r.String())
			assert.Equal(t, uids[view.login], r.Kernel["auid"], r.String())
			if view.auid != "" {
				assert.Equal(t, view.auid, r.Kernel["auid"], r.String())
			}
		}
		for _, r := range []harness.Record{start, end} {
			assert.Equal(t, view.person, r.Get("teleportUser"), r.String())
			assert.Equal(t, view.login, r.Get("acct"), r.String())
			assert.Equal(t, uids[view.login], r.Get("id"), r.String())
			assert.Equal(t, view.terminal, r.Get("terminal"), r.String())
		}
	}
	assert.Len(t, pids, succeeded, "each login has a process of its own")
	for key, n := range gone {
		assert.LessOrEqual(t, n, total/10, "%s", key)
	}
	assert.Equal(t, map[string]int{
		"7 " + w.carol.Name: total / 10, "8 " + w.bob.Name: total / 10, "9 " + ghost: total / 10,
	}, failures)
	assert.Equal(t, total/10, gone["USER_LOGIN "+w.carol.Name+" "], "an untrusted name is not written")
	persons := 0
	for key := range gone {
		if strings.HasPrefix(key, "USER_LOGIN ") && strings.Contains(key, " person-") {
			persons++
		}
	}
	assert.Equal(t, 2*total/10, persons, "each trusted name once")
}

// lookByCommand asks a shell what it is.
func lookByCommand(client *ssh.Client, terminal bool, login harness.User, person string) (ses, auid, tty string, err error) {
	session, err := client.NewSession()
	if err != nil {
		return "", "", "", err
	}
	defer session.Close()
	if terminal {
		if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
			return "", "", "", err
		}
	}
	out, err := session.Output(`echo $(cat /proc/self/sessionid) $(cat /proc/self/loginuid) $(id -un) $SSH_TELEPORT_USER ${SSH_TTY:-teleport}`)
	if err != nil {
		return "", "", "", fmt.Errorf("%w: %s", err, out)
	}
	words := strings.Fields(string(out))
	if len(words) != 5 || words[2] != login.Name || words[3] != person {
		return "", "", "", fmt.Errorf("the session says %q", out)
	}
	return words[0], words[1], words[4], nil
}

// lookBySFTP reads what the process that serves the files is.
func lookBySFTP(client *ssh.Client) (ses, auid string, err error) {
	files, err := sftp.NewClient(client)
	if err != nil {
		return "", "", err
	}
	defer files.Close()
	var read [2]string
	for i, name := range []string{"sessionid", "loginuid"} {
		f, err := files.Open("/proc/self/" + name)
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", name, err)
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", name, err)
		}
		read[i] = string(b)
	}
	return read[0], read[1], nil
}

// lookByForwarding goes to the echo server and back, and looks whose socket that
// was.
func lookByForwarding(client *ssh.Client, echo string, login harness.User) error {
	conn, err := client.Dial("tcp", echo)
	if err != nil {
		return err
	}
	defer conn.Close()
	line := fmt.Sprintf("%d\n", login.UID)
	if _, err := io.WriteString(conn, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || answer != line {
		return fmt.Errorf("the echo of %q is %q: %w", line, answer, err)
	}
	return nil
}

// echoServer answers each line with the uid of who sent it, as the kernel has it.
func echoServer(t *testing.T) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					fmt.Fprintf(conn, "%s\n", harness.SocketUID(conn.RemoteAddr(), conn.LocalAddr()))
				}
			}()
		}
	}()
	return listener.Addr().String()
}
