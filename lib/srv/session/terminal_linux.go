// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The terminal of a channel: opened for the user, set as the client asks.

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal. Both descriptors are the owner's to close.
type terminal struct {
	master, slave int
	name          string
	// term is the terminal's kind, for TERM.
	term string
}

// openTerminal opens a terminal for the user and sets what the client asked for.
func openTerminal(p *PTY, account *Account, root bool) (*terminal, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/ptmx: %w", err)
	}
	t := &terminal{master: master, slave: -1}
	if err := t.setUp(p, account, root); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *terminal) setUp(p *PTY, account *Account, root bool) error {
	if err := unix.IoctlSetPointerInt(t.master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlocking the terminal: %w", err)
	}
	n, err := unix.IoctlGetUint32(t.master, unix.TIOCGPTN)
	if err != nil {
		return fmt.Errorf("asking for the terminal's number: %w", err)
	}
	t.name = fmt.Sprintf("/dev/pts/%d", n)
	if t.slave, err = unix.Open(t.name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("opening %s: %w", t.name, err)
	}
	if root {
		if err := t.give(account); err != nil {
			return err
		}
	}
	return t.set(p)
}

// set sets what a client asked for.
func (t *terminal) set(p *PTY) error {
	t.term = termName(p.Term)
	if err := setModes(t.slave, p.Modes); err != nil {
		return fmt.Errorf("setting the modes of %s: %w", t.name, err)
	}
	size := p.Winsize()
	if err := unix.IoctlSetWinsize(t.slave, unix.TIOCSWINSZ, &size); err != nil {
		return fmt.Errorf("setting the size of %s: %w", t.name, err)
	}
	return nil
}

// give makes the terminal the user's. Its group is that of the devpts mount,
// tty, whose members may write to it (write(1)); where the mount has none, only
// the user may.
func (t *terminal) give(account *Account) error {
	var stat unix.Stat_t
	if err := unix.Fstat(t.slave, &stat); err != nil {
		return fmt.Errorf("looking at %s: %w", t.name, err)
	}
	gid, mode := stat.Gid, uint32(0o620)
	if gid == 0 {
		gid, mode = account.GID, 0o600
	}
	if err := unix.Fchown(t.slave, int(account.UID), int(gid)); err != nil {
		return fmt.Errorf("giving %s to %q: %w", t.name, account.Name, err)
	}
	if err := unix.Fchmod(t.slave, mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", t.name, err)
	}
	return nil
}

func (t *terminal) close() {
	if t == nil {
		return
	}
	if t.slave >= 0 {
		_ = unix.Close(t.slave)
		t.slave = -1
	}
	if t.master >= 0 {
		_ = unix.Close(t.master)
		t.master = -1
	}
}

// termName returns the client's terminal kind, or dumb where it could be none:
// programs look it up as a file name, and write what they find.
func termName(s string) string {
	if s == "" || len(s) > 64 {
		return "dumb"
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z',
			c == '-', c == '_', c == '.' && i > 0, c == '+':
		default:
			return "dumb"
		}
	}
	return s
}

// setModes sets terminal modes as a client encoded them (RFC 4254, section 8).
// Modes that it does not know, or that this system does not have, are passed
// over, as the RFC has it.
func setModes(fd int, modes []byte) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	for len(modes) >= 5 && modes[0] != 0 && modes[0] < 160 {
		setMode(t, modes[0], binary.BigEndian.Uint32(modes[1:]))
		modes = modes[5:]
	}
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

func setMode(t *unix.Termios, mode byte, value uint32) {
	for _, c := range controlChars {
		if c.mode == mode {
			// 255 is how a client says that a character is switched off;
			// here that is 0 (_POSIX_VDISABLE).
			if value == 255 {
				value = 0
			}
			t.Cc[c.index] = uint8(value)
			return
		}
	}
	for _, f := range modeFlags {
		if f.mode != mode {
			continue
		}
		var field *uint32
		switch f.field {
		case 'i':
			field = &t.Iflag
		case 'o':
			field = &t.Oflag
		case 'c':
			field = &t.Cflag
		default:
			field = &t.Lflag
		}
		switch {
		case value != 0:
			*field = *field&^f.clear | f.set
		case f.clear != unix.CSIZE:
			*field &^= f.clear
		}
	}
}

// controlChars are the modes 1 to 18: characters.
var controlChars = [...]struct{ mode, index byte }{
	{1, unix.VINTR}, {2, unix.VQUIT}, {3, unix.VERASE}, {4, unix.VKILL}, {5, unix.VEOF},
	{6, unix.VEOL}, {7, unix.VEOL2}, {8, unix.VSTART}, {9, unix.VSTOP}, {10, unix.VSUSP},
	{12, unix.VREPRINT}, {13, unix.VWERASE}, {14, unix.VLNEXT}, {18, unix.VDISCARD},
}

// modeFlags are the modes 30 to 93: switches. The two character sizes share a
// field, and switched off they mean nothing. 128 and 129, the speeds, mean
// nothing to a pseudo terminal.
var modeFlags = [...]struct {
	mode, field byte
	clear, set  uint32
}{
	{30, 'i', unix.IGNPAR, unix.IGNPAR},
	{31, 'i', unix.PARMRK, unix.PARMRK},
	{32, 'i', unix.INPCK, unix.INPCK},
	{33, 'i', unix.ISTRIP, unix.ISTRIP},
	{34, 'i', unix.INLCR, unix.INLCR},
	{35, 'i', unix.IGNCR, unix.IGNCR},
	{36, 'i', unix.ICRNL, unix.ICRNL},
	{37, 'i', unix.IUCLC, unix.IUCLC},
	{38, 'i', unix.IXON, unix.IXON},
	{39, 'i', unix.IXANY, unix.IXANY},
	{40, 'i', unix.IXOFF, unix.IXOFF},
	{41, 'i', unix.IMAXBEL, unix.IMAXBEL},
	{42, 'i', unix.IUTF8, unix.IUTF8},
	{50, 'l', unix.ISIG, unix.ISIG},
	{51, 'l', unix.ICANON, unix.ICANON},
	{52, 'l', unix.XCASE, unix.XCASE},
	{53, 'l', unix.ECHO, unix.ECHO},
	{54, 'l', unix.ECHOE, unix.ECHOE},
	{55, 'l', unix.ECHOK, unix.ECHOK},
	{56, 'l', unix.ECHONL, unix.ECHONL},
	{57, 'l', unix.NOFLSH, unix.NOFLSH},
	{58, 'l', unix.TOSTOP, unix.TOSTOP},
	{59, 'l', unix.IEXTEN, unix.IEXTEN},
	{60, 'l', unix.ECHOCTL, unix.ECHOCTL},
	{61, 'l', unix.ECHOKE, unix.ECHOKE},
	{62, 'l', unix.PENDIN, unix.PENDIN},
	{70, 'o', unix.OPOST, unix.OPOST},
	{71, 'o', unix.OLCUC, unix.OLCUC},
	{72, 'o', unix.ONLCR, unix.ONLCR},
	{73, 'o', unix.OCRNL, unix.OCRNL},
	{74, 'o', unix.ONOCR, unix.ONOCR},
	{75, 'o', unix.ONLRET, unix.ONLRET},
	{90, 'c', unix.CSIZE, unix.CS7},
	{91, 'c', unix.CSIZE, unix.CS8},
	{92, 'c', unix.PARENB, unix.PARENB},
	{93, 'c', unix.PARODD, unix.PARODD},
}
