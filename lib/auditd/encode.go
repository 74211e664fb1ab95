// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// How many bytes of each value go into a record. The kernel cuts a message after
// 8,560 bytes (AUDIT_MESSAGE_TEXT_MAX in kernel/audit.c), from the end, where
// res= stands. A value doubles when it is written in hex, and all of them
// together stay below that.
const (
	maxNameLen     = 1024
	maxExeLen      = 1024
	maxReasonLen   = 256
	maxTerminalLen = 64
)

// appendBody appends the message of one record to dst: the text, and the NUL
// that the kernel overwrites anyway and that must be there so that it does not
// overwrite the last letter of the result. It allocates nothing but the growth
// of dst.
func appendBody(dst []byte, exe string, e *Event) []byte {
	dst = append(dst, "op="...)
	dst = append(dst, e.Type.op()...)
	dst = append(dst, " acct="...)
	dst = appendUntrusted(dst, cut(e.SystemUser, maxNameLen))
	if e.UID != nil {
		dst = append(dst, " id="...)
		dst = strconv.AppendUint(dst, uint64(*e.UID), 10)
	}
	dst = append(dst, " exe="...)
	dst = appendUntrusted(dst, cut(exe, maxExeLen))

	addr, port := parseAddress(e.ConnAddress)
	dst = append(dst, " hostname="...)
	dst = appendAddress(dst, addr)
	dst = append(dst, " addr="...)
	dst = appendAddress(dst, addr)
	dst = append(dst, " terminal="...)
	dst = append(dst, terminal(e.TTYName)...)
	if port != 0 {
		dst = append(dst, " rport="...)
		dst = strconv.AppendUint(dst, uint64(port), 10)
	}
	if e.TeleportUser != "" {
		dst = append(dst, " teleportUser="...)
		dst = appendTeleportUser(dst, cut(e.TeleportUser, maxNameLen))
	}
	if e.Reason != "" {
		dst = append(dst, " reason="...)
		dst = appendUntrusted(dst, cut(e.Reason, maxReasonLen))
	}
	dst = append(dst, " res="...)
	dst = append(dst, e.Result.String()...)
	return append(dst, 0)
}

// appendUntrusted writes a value that somebody else chose, as libaudit does
// (audit_encode_nv_string): in quotes where that is unambiguous, else in hex,
// which every reader decodes. What libaudit leaves in quotes and some reader
// mistakes goes to hex as well:
//   - ' and \ are quoting to go-libaudit;
//   - = makes a field for ausearch and aureport, which look for "res=" and
//     "uid=" without regard to quotes: acct="uid=0" hid a record from
//     ausearch -ua 0, and reason="x-res=success" made a failure a success;
//   - go-libaudit drops the values "?" and "(null)".
func appendUntrusted(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, '?')
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < 0x21, c > 0x7e, c == '"', c == '\'', c == '\\', c == '=', c == '?', c == '(':
			return appendHex(dst, s)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// appendTeleportUser writes the person's name bare where no reader can take it
// for anything else, so that grep teleportUser=bob finds bob, and in hex
// otherwise.
func appendTeleportUser(dst []byte, s string) []byte {
	allHex := true
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
		case 'g' <= c && c <= 'z', 'G' <= c && c <= 'Z',
			c == '.', c == '_', c == '@', c == '+', c == ':', c == '/', c == '-':
			allHex = false
		default:
			return appendHex(dst, s)
		}
	}
	// An odd number of digits is no hex: appendHex writes two for each byte.
	if allHex && len(s)%2 == 0 {
		return appendHex(dst, s)
	}
	return append(dst, s...)
}

func appendHex(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		dst = append(dst, digits[s[i]>>4], digits[s[i]&0xf])
	}
	return dst
}

// parseAddress takes "IP" or "IP:port" as net.Addr prints it. Anything else is
// the zero Addr: a name or a path never reaches the record.
func parseAddress(s string) (netip.Addr, uint16) {
	var addr netip.Addr
	var port uint16
	// Looked at first, since the parser that fails makes garbage.
	if strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1 {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			addr, port = ap.Addr(), ap.Port()
		}
	} else if a, err := netip.ParseAddr(s); err == nil {
		addr = a
	}
	return addr.Unmap().WithZone(""), port
}

func appendAddress(dst []byte, addr netip.Addr) []byte {
	if !addr.IsValid() {
		return append(dst, '?')
	}
	return addr.AppendTo(dst)
}

// terminal returns what the bare terminal field may carry.
func terminal(name string) string {
	if name == "" || len(name) > maxTerminalLen {
		return UnknownTTY
	}
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z',
			c == '/', c == '.', c == '_', c == '-', c == ':':
		default:
			return UnknownTTY
		}
	}
	return name
}

// cut returns at most n bytes of s, and no half of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}
