// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// messages has one of each kind with everything set, and those whose fields
// decide what else is there.
var messages = []Message{
	&Login{
		Account: Account{
			Name: "bob", UID: 1001, GID: math.MaxUint32, Groups: []uint32{1001, 0, math.MaxUint32},
			Home: "/home/bob", Shell: "/bin/bash",
		},
		TeleportUser: "alice \x00 \xff \"", Roles: []string{"access", "", "editor"},
		ClientAddr: "192.0.2.7:50122", ServerAddr: "[2001:db8::1%eth0]:3022",
		HostUUID: "f00f", ClusterName: "example.com",
		PAM: PAM{Enabled: true, Service: "sshd", Authenticate: true, Env: []string{"TEAM=db"}}, AuditMode: "required", KeepDetached: true,
		UserProgram: "/usr/local/bin/teleport-user", UserEnvironment: true, UserRC: true, SystemRC: true,
	},
	&Login{},
	&Start{ID: 1, Command: "ls -l", Env: []string{"LANG=C", "="}},
	&Start{ID: 9, Program: Files, Command: "-R", AgentSocket: "/tmp/a"},
	&Start{Program: Forward},
	&Start{ID: math.MaxUint32, Program: Shell, PTY: &PTY{}},
	&Start{Program: Shell, PTY: &PTY{Term: "xterm", Columns: 80, Rows: 24, Width: 640, Height: math.MaxUint32, Modes: []byte{53, 0, 0, 0, 1, 0}}},
	&Signal{ID: 7, Name: "TERM"},
	&LoggedIn{AuditSession: 42, Fresh: true, TTY: "/dev/pts/3"},
	&Refused{Reason: "PAM said no", Word: "pam", Text: "Go away.\n", Recorded: true},
	&Prompt{Echo: true, Instruction: "Hello.\n", Text: "Code: "},
	&Prompt{},
	&Answer{OK: true, Text: "12\x0034"},
	&Answer{},
	&Authenticated{Text: "Welcome.\n"},
	&Started{ID: 2, PID: 4194304, TTY: "/dev/pts/1", Text: "hello"},
	&Failed{ID: 3, Text: "no such file"},
	&Exited{ID: 4, Status: 255},
	&Exited{ID: 4, Signal: "SEGV", CoreDumped: true},
	&Note{Unrecorded: true, Text: "queue is full"},
	&Ended{},
}

func TestRoundTrip(t *testing.T) {
	for _, m := range messages {
		b, err := Encode(m)
		require.NoError(t, err)
		got, err := Decode(b)
		require.NoError(t, err)
		require.Equal(t, m, got)

		for n := range b {
			_, err := Decode(b[:n])
			require.Error(t, err, "%T cut to %d of %d bytes", m, n, len(b))
		}
		_, err = Decode(append(b, 0))
		require.Error(t, err, "%T with a byte too many", m)
	}
}

func TestMalformed(t *testing.T) {
	_, err := Decode(nil)
	require.ErrorIs(t, err, errMalformed)
	for name, b := range map[string]string{
		"version alone":              "",
		"kind zero":                  "\x00",
		"kind unknown":               "\xff",
		"string beyond the end":      string(rune(kindFailed)) + "\x01\xff\xff\xff\xff\x0f",
		"number above 32 bits":       string(rune(kindStarted)) + "\xff\xff\xff\xff\x1f\x00\x00\x00\x00",
		"number without an end":      string(rune(kindStarted)) + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"switch that is neither":     string(rune(kindNote)) + "\x02\x00",
		"list of four thousand mega": string(rune(kindStart)) + "\x00\x00\x00\x00\xff\xff\xff\xff\x0f",
	} {
		_, err := Decode(append([]byte{version}, b...))
		require.ErrorIs(t, err, errMalformed, name)
	}
}

func TestOtherVersion(t *testing.T) {
	b, err := Encode(&Ended{})
	require.NoError(t, err)
	b[0] = version + 1
	_, err = Decode(b)
	require.ErrorContains(t, err, fmt.Sprintf("different versions (%d and %d): restart teleport", version, version+1))
}

func TestMaxMessage(t *testing.T) {
	overhead, err := Encode(&Start{})
	require.NoError(t, err)
	// Two more bytes for the length of so long a string.
	most := MaxMessage - len(overhead) - 2
	b, err := Encode(&Start{Command: strings.Repeat("x", most)})
	require.NoError(t, err)
	require.Len(t, b, MaxMessage)
	for _, n := range []int{most + 1, MaxMessage + 1, 10 * MaxMessage} {
		_, err = Encode(&Start{Command: strings.Repeat("x", n)})
		require.ErrorIs(t, err, errTooLong)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages {
		b, err := Encode(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte("\x01\x02\x00\x00\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := Decode(b)
		runtime.ReadMemStats(&after)
		// An element of a list takes a byte at least, and 16 in memory.
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<16+64*len(b)), "one who lies about lengths gets memory")
		if err != nil {
			return
		}
		again, err := Encode(m)
		if len(b) <= MaxMessage {
			require.NoError(t, err)
		} else if err != nil {
			return
		}
		twin, err := Decode(again)
		require.NoError(t, err)
		require.Equal(t, m, twin)
		third, err := Encode(twin)
		require.NoError(t, err)
		require.True(t, bytes.Equal(again, third))
	})
}

func TestWinsize(t *testing.T) {
	size := (&PTY{Columns: 80, Rows: 24, Width: math.MaxUint16 + 1, Height: math.MaxUint32}).Winsize()
	require.Equal(t, []uint16{80, 24, math.MaxUint16, math.MaxUint16}, []uint16{size.Col, size.Row, size.Xpixel, size.Ypixel})
}
