// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session/sessiontest"
)

// environmentLines are what is found in hosts' /etc/environment, and what may be.
const environmentLines = `# a comment
PATH="/usr/local/bin:/usr/bin"
E2E_PLAIN=plain
	E2E_INDENTED=x
export E2E_EXPORTED=y
E2E_SINGLE='a b'
E2E_SPACES=a b  c
E2E_COMMENT=value # why
E2E_HASH="a#b"
E2E_INNER=a"b"c
E2E_WITHIN="a"b"c"
E2E_OPEN="open
E2E_EQUALS=a=b
E2E_EMPTY_QUOTES=""
E2E_TWICE=1
E2E_TWICE=2
E2E_NOVALUE
E2E-BAD=x
E2E BAD=x
=x

E2E_LAST=no newline`

func TestHostEnvironment(t *testing.T) {
	path := filepath.Join(sessiontest.OpenDir(t), "environment")
	require.NoError(t, os.WriteFile(path, []byte(environmentLines), 0o644))
	ours := map[string]string{}
	for _, pair := range hostEnvironment(path) {
		name, value, _ := strings.Cut(pair, "=")
		ours[name] = value
	}
	require.Equal(t, map[string]string{
		"PATH": "/usr/local/bin:/usr/bin", "E2E_PLAIN": "plain", "E2E_INDENTED": "x", "E2E_EXPORTED": "y", "E2E_SINGLE": "a b",
		"E2E_SPACES": "a b  c", "E2E_COMMENT": "value", "E2E_HASH": "a", "E2E_INNER": `a"b"c`, "E2E_WITHIN": `a"b"c`,
		"E2E_OPEN": "open", "E2E_EQUALS": "a=b", "E2E_EMPTY_QUOTES": "", "E2E_TWICE": "2", "E2E_LAST": "no newline",
	}, ours)

	// As PAM's module reads the same file.
	service := sessiontest.NewPAMService(t, "auth required pam_permit.so", "account required pam_permit.so",
		"session required pam_env.so readenv=1 conffile=/dev/null envfile="+path)
	u := sessiontest.NewUser(t)
	login := loginOf(u)
	login.PAM = PAM{Enabled: true, Service: service}
	d := startProgram(t)
	d.send(login, &Start{ID: 1, Command: "cat /proc/self/environ"})
	await(d, func(m *Started) bool { return m.ID == 1 })
	env, err := io.ReadAll(d.files[1][1])
	require.NoError(t, err)
	theirs := map[string]string{}
	for _, pair := range strings.Split(string(env), "\x00") {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "E2E") || name == "PATH" {
			// Some versions keep the space before a comment.
			theirs[name] = strings.TrimRight(value, " ")
		}
	}
	require.Equal(t, theirs, ours, "pam_env and we")
}

func TestHostFiles(t *testing.T) {
	dir := t.TempDir()
	long, short, pipe := filepath.Join(dir, "long"), filepath.Join(dir, "short"), filepath.Join(dir, "pipe")
	require.NoError(t, os.WriteFile(long, []byte(strings.Repeat("x", maxHostFile+1)), 0o600))
	require.NoError(t, os.WriteFile(short, []byte("Hello\nA=b\x00c\nC=d\r\n"), 0o600))
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	require.Len(t, messageOfTheDay(long), maxHostFile+1, "cut, and its line ended")
	require.True(t, strings.HasPrefix(messageOfTheDay(short), "Hello\n"))
	require.Equal(t, []string{"C=d"}, hostEnvironment(short), "no NUL, and no line end of another system")
	for _, none := range []string{pipe, dir, "/dev/zero", filepath.Join(dir, "none")} {
		require.Empty(t, messageOfTheDay(none), none)
		require.Empty(t, hostEnvironment(none), none)
	}
}
