// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session/sessiontest"
)

// mode is one terminal mode as a client encodes it.
func mode(opcode byte, value uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{opcode}, value)
}

func open(t *testing.T, p *PTY) *terminal {
	t.Helper()
	self := sessiontest.Self(t)
	term, err := openTerminal(p, &Account{Name: self.Name, UID: self.UID, GID: self.GID}, os.Geteuid() == 0)
	require.NoError(t, err)
	t.Cleanup(term.close)
	return term
}

func termios(t *testing.T, term *terminal) *unix.Termios {
	t.Helper()
	modes, err := unix.IoctlGetTermios(term.slave, unix.TCGETS)
	require.NoError(t, err)
	return modes
}

func TestModes(t *testing.T) {
	for _, test := range []struct {
		name  string
		modes [][]byte
		check func(t *testing.T, before, after *unix.Termios)
	}{
		{"none", nil, func(t *testing.T, before, after *unix.Termios) {
			require.Equal(t, before, after)
		}},
		{"echo off", [][]byte{mode(53, 0)}, func(t *testing.T, before, after *unix.Termios) {
			before.Lflag &^= unix.ECHO
			require.Equal(t, before, after)
		}},
		{"on is any number but 0", [][]byte{mode(42, 4), mode(58, 1<<31)}, func(t *testing.T, before, after *unix.Termios) {
			require.NotZero(t, after.Iflag&unix.IUTF8)
			require.NotZero(t, after.Lflag&unix.TOSTOP)
		}},
		{"raw", [][]byte{mode(50, 0), mode(51, 0), mode(36, 0), mode(38, 0), mode(70, 0)}, func(t *testing.T, before, after *unix.Termios) {
			require.Zero(t, after.Lflag&(unix.ISIG|unix.ICANON))
			require.Zero(t, after.Iflag&(unix.ICRNL|unix.IXON))
			require.Zero(t, after.Oflag&unix.OPOST)
		}},
		{"characters", [][]byte{mode(1, 24), mode(3, 8), mode(12, 18)}, func(t *testing.T, before, after *unix.Termios) {
			before.Cc[unix.VINTR], before.Cc[unix.VERASE], before.Cc[unix.VREPRINT] = 24, 8, 18
			require.Equal(t, before, after)
		}},
		{"character switched off", [][]byte{mode(1, 255), mode(6, 255)}, func(t *testing.T, before, after *unix.Termios) {
			before.Cc[unix.VINTR], before.Cc[unix.VEOL] = 0, 0
			require.Equal(t, before, after)
		}},
		{"unknown ones and the speeds are passed over", [][]byte{mode(99, 1), mode(11, 1), mode(17, 1), mode(128, 9600), mode(129, 9600), mode(53, 0)}, func(t *testing.T, before, after *unix.Termios) {
			before.Lflag &^= unix.ECHO
			require.Equal(t, before, after)
		}},
		{"nothing counts after the end", [][]byte{mode(53, 0), {0}, mode(50, 0)}, func(t *testing.T, before, after *unix.Termios) {
			before.Lflag &^= unix.ECHO
			require.Equal(t, before, after)
		}},
		{"nothing counts after what the RFC leaves undefined", [][]byte{mode(53, 0), mode(160, 1), mode(50, 0)}, func(t *testing.T, before, after *unix.Termios) {
			before.Lflag &^= unix.ECHO
			require.Equal(t, before, after)
		}},
		{"cut off", [][]byte{mode(53, 0), mode(50, 0)[:4]}, func(t *testing.T, before, after *unix.Termios) {
			before.Lflag &^= unix.ECHO
			require.Equal(t, before, after)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := termios(t, open(t, &PTY{}))
			var modes []byte
			for _, m := range test.modes {
				modes = append(modes, m...)
			}
			test.check(t, before, termios(t, open(t, &PTY{Modes: modes})))
		})
	}
}

// TestModesAreTheKernels: every mode that is known changes what it says.
func TestModesAreTheKernels(t *testing.T) {
	for _, f := range modeFlags {
		if 90 <= f.mode && f.mode <= 92 {
			continue // A pseudo terminal has eight bits without parity.
		}
		on, off := termios(t, open(t, &PTY{Modes: mode(f.mode, 1)})), termios(t, open(t, &PTY{Modes: mode(f.mode, 0)}))
		require.NotEqual(t, on, off, "mode %d", f.mode)
	}
	for _, c := range controlChars {
		require.EqualValues(t, 7, termios(t, open(t, &PTY{Modes: mode(c.mode, 7)})).Cc[c.index], "mode %d", c.mode)
	}
}

func TestLineModes(t *testing.T) {
	modes := &unix.Termios{Cflag: unix.CS6 | unix.CREAD}
	for _, step := range []struct {
		mode  byte
		value uint32
		want  uint32
	}{
		{90, 0, unix.CS6 | unix.CREAD},
		{91, 0, unix.CS6 | unix.CREAD},
		{91, 1, unix.CS8 | unix.CREAD},
		{90, 1, unix.CS7 | unix.CREAD},
		{91, 0, unix.CS7 | unix.CREAD},
		{92, 1, unix.CS7 | unix.CREAD | unix.PARENB},
		{93, 1, unix.CS7 | unix.CREAD | unix.PARENB | unix.PARODD},
		{92, 0, unix.CS7 | unix.CREAD | unix.PARODD},
	} {
		setMode(modes, step.mode, step.value)
		require.Equal(t, step.want, modes.Cflag, "after %v", step)
	}
}

func TestTerminal(t *testing.T) {
	term := open(t, &PTY{Columns: 132, Rows: 1 << 20, Width: 1, Height: 2})
	size, err := unix.IoctlGetWinsize(term.master, unix.TIOCGWINSZ)
	require.NoError(t, err)
	require.Equal(t, unix.Winsize{Col: 132, Row: 65535, Xpixel: 1, Ypixel: 2}, *size)

	var byName, bySlave unix.Stat_t
	require.NoError(t, unix.Stat(term.name, &byName))
	require.NoError(t, unix.Fstat(term.slave, &bySlave))
	require.Equal(t, bySlave.Rdev, byName.Rdev)
	require.EqualValues(t, os.Geteuid(), byName.Uid)
	require.Zero(t, byName.Mode&0o057, "others may neither read nor write, the group may not read")

	term.close()
	term.close()
	(*terminal)(nil).close()
}

func TestTermName(t *testing.T) {
	for name, want := range map[string]string{
		"xterm-256color":        "xterm-256color",
		"screen.xterm-new":      "screen.xterm-new",
		"rxvt+unicode_X":        "rxvt+unicode_X",
		"":                      "dumb",
		"../../etc/passwd":      "dumb",
		".hidden":               "dumb",
		"xterm\x00":             "dumb",
		"xterm\x1b]0;x\a":       "dumb",
		"xterm\nFOO=bar":        "dumb",
		"xtérm":                 "dumb",
		strings.Repeat("x", 64): strings.Repeat("x", 64),
		strings.Repeat("x", 65): "dumb",
	} {
		require.Equal(t, want, termName(name), "%q", name)
	}
}
