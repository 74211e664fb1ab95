// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package session

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session/sessiontest"
)

func TestParseStat(t *testing.T) {
	for stat, want := range map[string]process{
		"7 (bash) S 6 5 4 0 -1":            {'S', 6, 5, 4},
		"7 (a) R 1 1 1 (b) S 6 5 4 0":      {'S', 6, 5, 4},
		"7 (a\n8 (b) S 1 1 1) Z 6 5 4 0\n": {'Z', 6, 5, 4},
		"7 () X 0 -1 0":                    {'X', 0, -1, 0},
	} {
		p, err := parseStat([]byte(stat))
		require.NoError(t, err, stat)
		require.Equal(t, want, p)
	}
	for _, stat := range []string{"", "7 (bash", "7 (bash)", "7 (bash) S 6 5", "7 (bash) S six 5 4", "7 (bash) SS 6 5 4", "7 (bash) S 6 5 4x"} {
		_, err := parseStat([]byte(stat))
		require.Error(t, err, stat)
	}
}

// family is a process that leads a session and has one child of each sort.
const family = `
printf 'a) Z 1 1 1\n(' > /proc/$$/comm
setsid sh -c 'echo detached $$; exec sleep 1000' &
setsid sh -c '(sh -c "echo orphan \$\$; exec sleep 1000" &)'
(sh -c 'echo background $$; exec sleep 1000' &)
sh -c 'sleep 0.2 & echo zombie $!; echo parent $$; exec sleep 1000' &
echo leader $$
wait
`

func startFamily(t *testing.T) (pids map[string]int, leader *exec.Cmd) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	cmd := exec.Command("sh", "-c", family)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, Members{Ancestor: os.Getpid()}.Kill(sessiontest.Patience))
		_ = cmd.Wait()
		for {
			if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
				break
			}
		}
		require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
	})
	pids = make(map[string]int)
	lines := bufio.NewScanner(out)
	for len(pids) < 6 && lines.Scan() {
		var name string
		var pid int
		_, err := fmt.Sscan(lines.Text(), &name, &pid)
		require.NoError(t, err, lines.Text())
		pids[name] = pid
	}
	require.Len(t, pids, 6)
	require.Eventually(t, func() bool {
		all, err := processes()
		require.NoError(t, err)
		return all[pids["zombie"]].state == 'Z' && all[pids["orphan"]].parent == os.Getpid() && all[pids["background"]].parent == os.Getpid()
	}, sessiontest.Patience, time.Millisecond)
	return pids, cmd
}

func TestMembers(t *testing.T) {
	pids, leader := startFamily(t)
	self := os.Getpid()
	list := func(m Members, names ...string) {
		t.Helper()
		var want []int
		for _, name := range names {
			want = append(want, pids[name])
		}
		got, err := m.List()
		require.NoError(t, err)
		require.ElementsMatch(t, want, got)
	}
	list(Members{})
	list(Members{Ancestor: self}, "leader", "detached", "orphan", "background", "parent")
	list(Members{Ancestor: pids["leader"]}, "detached", "parent")
	list(Members{Ancestor: pids["parent"]})
	list(Members{Leaders: map[int]bool{pids["leader"]: true}}, "leader", "background", "parent")
	list(Members{Leaders: map[int]bool{}})
	list(Members{Leaders: map[int]bool{pids["detached"]: true, 1 << 30: true}}, "detached")
	list(Members{Ancestor: pids["leader"], Leaders: map[int]bool{pids["leader"]: true}}, "parent")
	list(Members{Leaders: map[int]bool{pids["leader"]: false}})
	list(Members{AuditSession: 4294967294})
	list(Members{AuditSession: 4294967295})
	list(Members{AuditSession: 4294967295, Leaders: map[int]bool{pids["detached"]: true}}, "detached")
	list(Members{AuditSession: 4294967294, Leaders: map[int]bool{pids["leader"]: true}})

	// The leader's session outlives it.
	require.NoError(t, leader.Process.Kill())
	_ = leader.Wait()
	list(Members{Leaders: map[int]bool{pids["leader"]: false}}, "background", "parent")

	require.NoError(t, Members{Leaders: map[int]bool{pids["leader"]: false}}.Kill(sessiontest.Patience))
	list(Members{Ancestor: self}, "detached", "orphan")

	// Nobody is given up without having been killed, however slow the host is.
	_ = Members{Ancestor: self}.Kill(-time.Second)
	require.Eventually(t, func() bool {
		pids, err := Members{Ancestor: self}.List()
		require.NoError(t, err)
		return len(pids) == 0
	}, sessiontest.Patience, time.Millisecond)
}
