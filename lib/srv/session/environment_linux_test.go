// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnvironment(t *testing.T) {
	base := Login{
		Account:      Account{Name: "bob", UID: 1001, GID: 1001, Home: "/home/bob", Shell: "/bin/zsh"},
		TeleportUser: "alice",
		ClientAddr:   "192.0.2.7:50122",
		ServerAddr:   "198.51.100.1:3022",
		HostUUID:     "f00f",
		ClusterName:  "example.com",
	}
	for _, test := range []struct {
		name   string
		change func(*Login)
		client []string
		pam    []string
		term   *terminal
		// want are variables as they must be, without = those that must not be.
		want []string
	}{
		{
			name: "without a terminal",
			want: []string{
				"HOME=/home/bob", "USER=bob", "LOGNAME=bob", "SHELL=/bin/zsh", "MAIL=/var/mail/bob", "PATH=" + userPath,
				"SSH_CLIENT=192.0.2.7 50122 3022", "SSH_CONNECTION=192.0.2.7 50122 198.51.100.1 3022",
				"SSH_TELEPORT_USER=alice", "SSH_TELEPORT_HOST_UUID=f00f", "SSH_TELEPORT_CLUSTER_NAME=example.com",
				"SSH_TTY", "TERM", "LANG",
			},
		},
		{
			name: "with a terminal",
			term: &terminal{name: "/dev/pts/3", term: "xterm"},
			want: []string{"SSH_TTY=/dev/pts/3", "TERM=xterm"},
		},
		{
			name:   "root",
			change: func(l *Login) { l.Account.UID = 0 },
			want:   []string{"PATH=" + rootPath},
		},
		{
			name:   "no shell in the user database",
			change: func(l *Login) { l.Account.Shell = "" },
			want:   []string{"SHELL=/bin/sh"},
		},
		{
			name:   "IPv6",
			change: func(l *Login) { l.ClientAddr, l.ServerAddr = "[2001:db8::7]:50122", "[2001:db8::1]:3022" },
			want:   []string{"SSH_CLIENT=2001:db8::7 50122 3022", "SSH_CONNECTION=2001:db8::7 50122 2001:db8::1 3022"},
		},
		{
			name:   "IPv4 over a socket for both",
			change: func(l *Login) { l.ClientAddr, l.ServerAddr = "[::ffff:192.0.2.7]:50122", "[::ffff:198.51.100.1]:3022" },
			want:   []string{"SSH_CLIENT=192.0.2.7 50122 3022", "SSH_CONNECTION=192.0.2.7 50122 198.51.100.1 3022"},
		},
		{
			name:   "link-local",
			change: func(l *Login) { l.ClientAddr, l.ServerAddr = "[fe80::7%eth0]:50122", "[fe80::1%eth0]:3022" },
			want:   []string{"SSH_CLIENT=fe80::7%eth0 50122 3022"},
		},
		{
			name:   "no address",
			change: func(l *Login) { l.ClientAddr = "@" },
			pam:    []string{"SSH_CLIENT=forged", "SSH_CONNECTION=forged"},
			want:   []string{"SSH_CLIENT", "SSH_CONNECTION"},
		},
		{
			name:   "the client's",
			client: []string{"LANG=de_DE.UTF-8", "SSH_ORIGINAL_COMMAND=rm -rf / = x"},
			want:   []string{"LANG=de_DE.UTF-8", "SSH_ORIGINAL_COMMAND=rm -rf / = x"},
		},
		{
			name:   "the later wins",
			client: []string{"LANG=C", "LANG=de_DE.UTF-8", "HOME=/forged", "PATH=/forged", "SHELL=/forged"},
			want:   []string{"LANG=de_DE.UTF-8", "HOME=/home/bob", "PATH=" + userPath, "SHELL=/bin/zsh"},
		},
		{
			name:   "PAM's win over the client's and ours",
			client: []string{"LANG=C"},
			pam:    []string{"LANG=de_DE.UTF-8", "PATH=/opt/bin", "MAIL=/srv/mail/bob", "EMPTY="},
			want:   []string{"LANG=de_DE.UTF-8", "PATH=/opt/bin", "MAIL=/srv/mail/bob", "EMPTY="},
		},
		{
			name: "nobody's win over what names the login",
			change: func(l *Login) {
				l.ClusterName = ""
			},
			client: []string{"SSH_TELEPORT_USER=mallory", "SSH_TTY=/dev/pts/9"},
			pam:    []string{"SSH_TELEPORT_USER=mallory", "SSH_TELEPORT_CLUSTER_NAME=elsewhere", "SSH_CONNECTION=forged", "SSH_TTY=/dev/pts/9"},
			want:   []string{"SSH_TELEPORT_USER=alice", "SSH_TELEPORT_CLUSTER_NAME", "SSH_CONNECTION=192.0.2.7 50122 198.51.100.1 3022", "SSH_TTY"},
		},
		{
			name:   "terminal of PAM's",
			term:   &terminal{name: "/dev/pts/3", term: "xterm"},
			pam:    []string{"SSH_TTY=/dev/pts/9", "TERM=vt52"},
			client: []string{"SSH_TTY=/dev/pts/9"},
			want:   []string{"SSH_TTY=/dev/pts/3", "TERM=xterm"},
		},
		{
			name: "NUL",
			change: func(l *Login) {
				l.TeleportUser = "alice\x00root"
			},
			client: []string{"LANG=C\x00LD_PRELOAD=/evil.so", "LC_ALL\x00=x"},
			pam:    []string{"SSH_TELEPORT_USER=mallory"},
			want:   []string{"LANG", "LC_ALL", "SSH_TELEPORT_USER"},
		},
		{
			name:   "no pair",
			client: []string{"", "=", "=x", "LONELY"},
			want:   []string{"", "LONELY"},
		},
		{
			name:   "newlines and equal signs stay where they are",
			change: func(l *Login) { l.TeleportUser = "a=b\nLD_PRELOAD=/evil.so" },
			want:   []string{"SSH_TELEPORT_USER=a=b\nLD_PRELOAD=/evil.so", "LD_PRELOAD"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			request := base
			if test.change != nil {
				test.change(&request)
			}
			l := &login{request: &request, pamEnv: test.pam}
			got := make(map[string]string)
			for _, pair := range l.environment(&Start{Env: test.client}, test.term) {
				require.NotContains(t, pair, "\x00")
				name, value, ok := strings.Cut(pair, "=")
				require.True(t, ok)
				require.NotContains(t, got, name, "each name once")
				got[name] = value
			}
			for _, want := range test.want {
				name, value, ok := strings.Cut(want, "=")
				if !ok {
					require.NotContains(t, got, name)
					continue
				}
				require.Contains(t, got, name)
				require.Equal(t, value, got[name])
			}
		})
	}
}

func TestSignalName(t *testing.T) {
	for number, want := range map[int]string{1: "HUP", 9: "KILL", 15: "TERM", 11: "SEGV", 31: "SYS@teleport", 7: "BUS@teleport", 40: "40@teleport"} {
		require.Equal(t, want, signalName(syscall.Signal(number)))
	}
	for _, name := range []string{"", "SIGTERM", "term", "STOP", "CONT", "TERM\x00"} {
		_, ok := signalOf(name)
		require.False(t, ok, "%q", name)
	}
}

func TestPrintable(t *testing.T) {
	require.Equal(t, `/home/b\x1b]0;x\a`, printable("/home/b\x1b]0;x\a"))
	require.Equal(t, "/home/bob", printable("/home/bob"))
}
