// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Names and addresses as the books have them.

//go:build linux && cgo

package books

import (
	"net/netip"
	"strings"
)

const (
	// notTTY is the terminal in btmp, as sshd has it.
	notTTY = "ssh:notty"
	// devices is what the books leave out of a terminal's path.
	devices = "/dev/"
	// maxLine is the length of a terminal's name in the books.
	maxLine = 32
)

// safe makes a text fit for those who print it.
func safe(s string, size int) string {
	b := []byte(s[:min(len(s), size)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// lineOf returns a terminal's name as the books have it.
func lineOf(path string) string { return safe(strings.TrimPrefix(path, devices), maxLine) }

// idOf returns what tells an entry in utmp from the others: the end of the
// terminal's name.
func idOf(line string) string { return line[max(0, len(line)-4):] }

// addrOf reads an IP or IP:port. It is not valid where there is none.
func addrOf(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// hostOf returns an address as the books have it, empty for none.
func hostOf(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// words returns an address as the books have it: an IPv4 one in the first word.
func words(addr netip.Addr) (out [4][4]byte) {
	switch {
	case addr.Is4():
		out[0] = addr.As4()
	case addr.Is6():
		b := addr.As16()
		for i := range out {
			out[i] = [4]byte(b[4*i:])
		}
	}
	return out
}
