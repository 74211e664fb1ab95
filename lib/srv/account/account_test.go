// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/srv/account"
	"teleport-auditd/lib/srv/session/sessiontest"
)

func TestNoSuchUser(t *testing.T) {
	for _, name := range []string{
		"",
		"no-such-user-here",
		"root\x00",
		"root\x00x",
		"\x00root",
		"root:x",
		"root\n",
		"root\nroot",
		"../root",
		"root/",
		"Root",
		"ROOT",
		" root",
		"root ",
		"+",
		"-",
		"0",
		"rööt",
		strings.Repeat("x", 300),
		strings.Repeat("x", 1<<20),
		"root" + strings.Repeat("\x00", 300),
	} {
		_, err := account.UID(name)
		require.True(t, trace.IsNotFound(err), "%.80q: %v", name, err)
		_, err = account.Lookup(name)
		require.True(t, trace.IsNotFound(err), "%.80q: %v", name, err)
		require.Less(t, len(err.Error()), 400, "an error quotes no more than a name's worth")
	}
}

func TestRoot(t *testing.T) {
	uid, err := account.UID("root")
	require.NoError(t, err)
	require.Zero(t, uid)
	a, err := account.Lookup("root")
	require.NoError(t, err)
	require.Equal(t, "root", a.Name)
	require.Zero(t, a.UID)
	require.Zero(t, a.GID)
	require.Contains(t, a.Groups, uint32(0))
	require.True(t, strings.HasPrefix(a.Home, "/"), a.Home)
	require.NotEmpty(t, a.Shell)
}

func TestUser(t *testing.T) {
	u := sessiontest.NewUser(t, "daemon", "bin")
	a, err := account.Lookup(u.Name)
	require.NoError(t, err)
	require.Equal(t, u.Name, a.Name)
	require.Equal(t, u.UID, a.UID)
	require.Equal(t, u.GID, a.GID)
	require.Equal(t, u.Home, a.Home)
	require.Equal(t, "/bin/sh", a.Shell)
	require.Len(t, a.Groups, 3)
	require.ElementsMatch(t, u.Groups, a.Groups)
	uid, err := account.UID(u.Name)
	require.NoError(t, err)
	require.Equal(t, u.UID, uid)
}

// TestUnreadable: a daemon that can open no file does not know who is not there.
func TestUnreadable(t *testing.T) {
	if os.Getenv("TEST_UNREADABLE") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUnreadable$")
		cmd.Env = append(os.Environ(), "TEST_UNREADABLE=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: 3}))
	_, err := account.UID("root")
	require.Error(t, err)
	require.False(t, trace.IsNotFound(err), "%v", err)
}
