// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const testExe = "/usr/bin/teleport"

// maxBody is where the kernel cuts a message (AUDIT_MESSAGE_TEXT_MAX).
const maxBody = 8560

func body(e Event) string { return string(appendBody(nil, testExe, &e)) }

func upperHex(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }

func uid(n uint32) *uint32 { return &n }

func TestBody(t *testing.T) {
	for name, c := range map[string]struct {
		event Event
		want  string
	}{
		"everything, in order": {
			Event{Type: AuditUserLogin, Result: Success, SystemUser: "bob", UID: uid(1001), TeleportUser: "alice",
				ConnAddress: "192.0.2.7:50122", TTYName: "/dev/pts/3", Reason: "why"},
			`op=login acct="bob" id=1001 exe="/usr/bin/teleport" hostname=192.0.2.7 addr=192.0.2.7 terminal=/dev/pts/3 rport=50122 teleportUser=alice reason="why" res=success`,
		},
		"root's uid is 0, not absent": {
			Event{Type: AuditUserEnd, Result: Success, SystemUser: "root", UID: uid(0)},
			`op=session_close acct="root" id=0 exe="/usr/bin/teleport" hostname=? addr=? terminal=teleport res=success`,
		},
		"nothing known claims nothing": {
			Event{Type: AuditUserErr},
			`op=invalid_user acct=? exe="/usr/bin/teleport" hostname=? addr=? terminal=teleport res=failed`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The NUL is what the kernel overwrites instead of the last letter.
			require.Equal(t, c.want+"\x00", body(c.event))
		})
	}
}

func TestNames(t *testing.T) {
	// want is "" for hex.
	for _, c := range []struct{ name, acct, teleportUser string }{
		{"bob", `"bob"`, "bob"},
		{"deadbeef", `"deadbeef"`, ""},
		{"DEADBEEF", `"DEADBEEF"`, ""},
		{"42", `"42"`, ""},
		{"abc", `"abc"`, "abc"}, // no hex has an odd number of digits
		{"alice@example.com", `"alice@example.com"`, "alice@example.com"},
		{"-+:/_.", `"-+:/_."`, "-+:/_."},
		{`say "hi"`, "", ""},
		{`x" res=success foo="y`, "", ""},
		{"res=success", "", ""},
		{"uid=0", "", ""},
		{"o'brien", "", ""},
		{`back\slash`, "", ""},
		{"?", "", ""},
		{"(null)", "", ""},
		{"two words", "", ""},
		{"tab\t", "", ""},
		{"line\nbreak", "", ""},
		{"nul\x00byte", "", ""},
		{"del\x7f", "", ""},
		{"\xff\xfe", "", ""},
		{"żółć", "", ""},
		{"名前", "", ""},
		{"a,b", `"a,b"`, ""},
		{"a;b", `"a;b"`, ""},
	} {
		t.Run(fmt.Sprintf("%q", c.name), func(t *testing.T) {
			if c.acct == "" {
				c.acct = upperHex(c.name)
			}
			if c.teleportUser == "" {
				c.teleportUser = upperHex(c.name)
			}
			got := body(Event{Type: AuditUserLogin, SystemUser: c.name, TeleportUser: c.name, Reason: c.name})
			require.Contains(t, got, " acct="+c.acct+" exe=")
			require.Contains(t, got, " teleportUser="+c.teleportUser+" reason="+c.acct+" res=failed\x00")
		})
	}
}

func TestAddress(t *testing.T) {
	for address, want := range map[string]struct{ addr, rport string }{
		"192.0.2.7:50122":             {"192.0.2.7", "50122"},
		"192.0.2.7":                   {"192.0.2.7", ""},
		"192.0.2.7:0":                 {"192.0.2.7", ""},
		"[2001:db8::7]:22":            {"2001:db8::7", "22"},
		"2001:db8::7":                 {"2001:db8::7", ""},
		"::1":                         {"::1", ""},
		"[fe80::1%eth0]:22":           {"fe80::1", "22"},
		"fe80::1%eth0":                {"fe80::1", ""},
		"fe80::1%x res=success":       {"fe80::1", ""},
		"[::ffff:192.0.2.7]:22":       {"192.0.2.7", "22"},
		"[::ffff:192.0.2.7%eth0]:22":  {"192.0.2.7", "22"},
		"::ffff:192.0.2.7":            {"192.0.2.7", ""},
		"":                            {"?", ""},
		"@":                           {"?", ""},
		"/run/teleport.sock":          {"?", ""},
		"example.com:22":              {"?", ""},
		"192.0.2.7:22 res=success":    {"?", ""},
		"192.0.2.7:65536":             {"?", ""},
		"192.0.2.007:22":              {"?", ""},
		"[192.0.2.7]:22":              {"?", ""},
		"2001:db8::7]:22":             {"?", ""},
		"1.2.3.4,5.6.7.8":             {"?", ""},
		strings.Repeat("1", 10_000):   {"?", ""},
		strings.Repeat(":", 10_000):   {"?", ""},
		"[" + strings.Repeat("f", 99): {"?", ""},
	} {
		t.Run(fmt.Sprintf("%.40q", address), func(t *testing.T) {
			if want.rport != "" {
				want.rport = " rport=" + want.rport
			}
			require.Contains(t, body(Event{Type: AuditUserErr, ConnAddress: address}),
				" hostname="+want.addr+" addr="+want.addr+" terminal=teleport"+want.rport+" res=failed")
		})
	}
}

func TestTerminal(t *testing.T) {
	for tty, want := range map[string]string{
		"":                                   UnknownTTY,
		"/dev/pts/3":                         "/dev/pts/3",
		"ssh":                                "ssh",
		":0":                                 ":0",
		"/dev/pts/3 res=success":             UnknownTTY,
		"pts=3":                              UnknownTTY,
		"pts\n3":                             UnknownTTY,
		`"pts"`:                              UnknownTTY,
		"?":                                  UnknownTTY,
		"/dev/" + strings.Repeat("p", 10000): UnknownTTY,
	} {
		t.Run(fmt.Sprintf("%.20q", tty), func(t *testing.T) {
			require.Contains(t, body(Event{Type: AuditUserErr, TTYName: tty}), " terminal="+want+" res=")
		})
	}
}

// The kernel aligns messages to 4 bytes, so a sender that forgets the NUL loses
// the last letter for some lengths only.
func TestEveryLengthModulo4(t *testing.T) {
	seen := map[int]bool{}
	for n := 1; n <= 4; n++ {
		got := body(Event{Type: AuditUserLogin, SystemUser: strings.Repeat("x", n)})
		require.True(t, strings.HasSuffix(got, " res=failed\x00"), "%q", got)
		require.Equal(t, 1, strings.Count(got, "\x00"))
		seen[len(got)%4] = true
	}
	require.Len(t, seen, 4)
}

func TestLongValuesAreCutAndTheResultIsNot(t *testing.T) {
	for name, unit := range map[string]string{"in quotes": "x", "in hex": " ", "characters of 3 bytes": "名", "no characters": "\x80"} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat(unit, 10_000)
			got := string(appendBody(nil, long, &Event{
				Type: AuditUserLogin, SystemUser: long, UID: uid(UnsetLoginUID), TeleportUser: long,
				ConnAddress: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
				TTYName:     strings.Repeat("p", maxTerminalLen), Reason: long,
			}))
			require.LessOrEqual(t, len(got), maxBody)
			require.True(t, strings.HasSuffix(got, " res=failed\x00"))

			acct := regexp.MustCompile(` acct=(\S+) `).FindStringSubmatch(got)[1]
			name := strings.Trim(acct, `"`)
			if acct == name {
				b, err := hex.DecodeString(acct)
				require.NoError(t, err)
				name = string(b)
			}
			require.True(t, strings.HasPrefix(long, name))
			require.Greater(t, len(name), maxNameLen-utf8.UTFMax)
			require.Equal(t, utf8.ValidString(long), utf8.ValidString(name), "a character was cut in two")
		})
	}
}

func TestBodyDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, maxBody)
	for _, address := range []string{"192.0.2.7:50122", "[2001:db8::7]:22", "192.0.2.7", "[::ffff:192.0.2.7]:22"} {
		e := Event{Type: AuditUserLogin, Result: Success, SystemUser: "o'brien", UID: uid(1001), TeleportUser: "alice smith",
			ConnAddress: address, TTYName: "/dev/pts/3", Reason: "x"}
		require.Zero(t, testing.AllocsPerRun(100, func() { buf = appendBody(buf[:0], testExe, &e) }), address)
	}
}

// wholeBody is the grammar of a record. A value is quoted, hex or an absent
// mark, and none can hold a space, a quote or a = that starts another field.
var wholeBody = regexp.MustCompile(`^op=[a-z_]+` +
	` acct=(\?|"[^"'\\ =]+"|([0-9A-F]{2})+)` +
	`( id=[0-9]+)?` +
	` exe="/usr/bin/teleport"` +
	` hostname=(\?|[0-9a-f.:]+)` +
	` addr=(\?|[0-9a-f.:]+)` +
	` terminal=[0-9A-Za-z/._:-]+` +
	`( rport=[0-9]+)?` +
	`( teleportUser=[0-9A-Za-z._@+:/-]+)?` +
	`( reason=("[^"'\\ =]+"|([0-9A-F]{2})+))?` +
	` res=(success|failed)\x00$`)

func FuzzBody(f *testing.F) {
	f.Add("bob", "alice", "192.0.2.7:22", "/dev/pts/0", "because", uint32(1), true)
	f.Add(`x" res=success foo="y`, "res=success", "::1%\x00", "a res=success", "a\nb", uint32(0), false)
	f.Add("\x00", "\xff", "[::ffff:1.2.3.4%a b]:9", "名", strings.Repeat("ż", 500), uint32(UnsetLoginUID), false)
	f.Fuzz(func(t *testing.T, login, person, address, tty, reason string, id uint32, result bool) {
		e := Event{Type: AuditUserLogin, Result: Result(result), SystemUser: login, TeleportUser: person,
			ConnAddress: address, TTYName: tty, Reason: reason}
		if id != 0 {
			e.UID = &id
		}
		got := body(e)
		require.LessOrEqual(t, len(got), maxBody)
		require.Regexp(t, wholeBody, got)
		require.True(t, strings.HasSuffix(got, " res="+e.Result.String()+"\x00"))
		// Readers look for these without regard to quotes.
		require.Equal(t, 1, strings.Count(got, "res="))
		require.Equal(t, 1, strings.Count(got, "acct="))
		require.Zero(t, strings.Count(got, "uid="))
	})
}
