// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/elastic/go-libaudit/v2/auparse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// hostile are names that an attacker would choose. They stand as login names,
// which anybody may send, and as key ids, which an authority has signed.
var hostile = []struct{ name, text string }{
	{"forges a result", `x" res=success foo="y`},
	{"forges a result in single quotes", `x' res=success foo='y`},
	{"single quote", `o'brien`},
	{"double quote", `say "hello"`},
	{"lone double quote", `"`},
	{"backslash", `back\slash\"`},
	{"space", "two words"},
	{"spaces at the ends", "  x  "},
	{"equals", "acct=root"},
	{"whole fields", "x id=0 res=success"},
	{"newline", "one\ntype=USER_LOGIN msg=audit(1.0:1): x"},
	{"carriage return", "one\rtwo"},
	{"NUL", "root\x00bob"},
	{"escape sequence", "\x1b[2Jx"},
	{"group separator", "x\x1dUID=\"root\""},
	{"Greek", "Αλίκη"},
	{"Chinese", "爱丽丝"},
	{"right to left", "\u202eecila"},
	{"invalid UTF-8", "x\xff\xfe"},
	{"hex look-alike", "deadbeef"},
	{"short hex look-alike", "beef"},
	{"upper-case hex look-alike", "CAFE"},
	{"digits", "1234"},
	{"odd digits", "123"},
	{"absent", "?"},
	{"null", "(null)"},
	{"kernel's none", "(none)"},
	{"percent", "%s%n%d"},
	{"comma", "a,b"},
	{"shell", "$(id);`id`"},
	{"long", strings.Repeat("x", 10000)},
	{"long and quoted", strings.Repeat(`"`, 10000)},
	{"long in another script", strings.Repeat("爱", 3333)},
}

// TestHostileLoginNames: whatever the login name is, one pair of records says
// so, and says nothing else.
func TestHostileLoginNames(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca})
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			mark := w.audit.Fence()
			_, err := harness.Dial(t, w.daemon.NodeAddr, h.text, ca.Sign(t, harness.Cert{KeyID: "alice", Logins: []string{h.text}}))
			require.Error(t, err)
			records := w.collect(mark, 2)
			require.Len(t, records, 2, harness.Show(records))
			for i, kind := range []string{"USER_LOGIN", "USER_ERR"} {
				checkHostile(t, w, records[i], kind, "failed", "acct", h.text)
				assert.Empty(t, records[i].Get("id"), "there is no such login")
			}
			if len(h.text) < 1000 {
				found := w.audit.Search("-i", "-m", "USER_LOGIN", "-a", fmt.Sprint(records[0].Serial))
				assert.Contains(t, found, "acct="+asAusearchPrints(h.text)+" ", "ausearch -i shows the name")
			}
		})
	}
	t.Run("aureport", func(t *testing.T) {
		rows := regexp.MustCompile(`(?m)^\d+\. .*$`)
		assert.Len(t, rows.FindAllString(w.audit.Report("-l", "--failed"), -1), len(hostile))
		assert.Empty(t, rows.FindAllString(w.audit.Report("-l", "--success"), -1), "nobody was let in")
		csv := w.audit.Search("--format", "csv", "-m", "USER_LOGIN")
		assert.Equal(t, len(hostile), strings.Count(csv, ",failed,"), csv)
		assert.NotContains(t, csv, ",success,")
	})
}

// TestHostileKeyIDs: the same for the person's name, on logins that succeed.
func TestHostileKeyIDs(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca})
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			mark := w.audit.Fence()
			client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, ca.Sign(t, harness.Cert{KeyID: h.text, Logins: []string{w.bob.Name}}))
			result, err := harness.Exec(client, `printf %s "$SSH_TELEPORT_USER"`)
			require.NoError(t, err)
			require.Zero(t, result.Code, result.Stderr)
			if !strings.Contains(h.text, "\x00") && len(h.text) < 1000 {
				assert.Equal(t, h.text, result.Stdout)
			}
			require.NoError(t, client.Close())
			records := own(w.collect(mark, 2))
			require.Len(t, records, 2, harness.Show(records))
			for i, kind := range []string{"USER_LOGIN", "USER_END"} {
				checkHostile(t, w, records[i], kind, "success", "teleportUser", h.text)
				assert.Equal(t, w.bob.Name, records[i].Get("acct"))
				assert.Equal(t, w.bob.ID(), records[i].Get("id"))
			}
			plain := regexp.MustCompile(`^[A-Za-z0-9._@+:/-]+$`).MatchString(h.text)
			hex := regexp.MustCompile(`^([0-9A-Fa-f]{2})+$`).MatchString(h.text)
			if plain && !hex {
				assert.Contains(t, records[0].Body, " teleportUser="+h.text[:min(len(h.text), 64)], "grep finds a plain name")
			} else {
				assert.Regexp(t, ` teleportUser=([0-9A-F]{2})+ `, records[0].Body, "anything else is hex")
			}
		})
	}
	t.Run("no other field is forged", func(t *testing.T) {
		rows := regexp.MustCompile(`(?m)^\d+\. .*$`)
		assert.Empty(t, rows.FindAllString(w.audit.Report("-l", "--failed"), -1))
		assert.Len(t, rows.FindAllString(w.audit.Report("-l", "--success"), -1), len(hostile))
	})
}

// checkHostile looks at one record with three readers.
func checkHostile(t *testing.T, w *world, r harness.Record, kind, res, field, text string) {
	t.Helper()
	assert.Equal(t, kind, r.Type)
	require.NoError(t, r.BodyErr)
	got := r.Get(field)
	if len(text) >= 1000 {
		assert.NotEmpty(t, got)
		assert.True(t, strings.HasPrefix(text, got), "a long name is cut at its end, not elsewhere")
	} else {
		assert.Equal(t, text, got)
	}
	seen := map[string]bool{}
	for _, name := range r.Names() {
		assert.False(t, seen[name], "%s stands twice in %s", name, r)
		seen[name] = true
	}
	assert.True(t, strings.HasSuffix(r.Body, " res="+res), "res is whole and last: %.300s", r)
	message, err := auparse.ParseLogLine(r.String())
	require.NoError(t, err)
	data, err := message.Data()
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"success": "success", "failed": "fail"}[res], data["result"], "go-libaudit's reading")
	assert.Equal(t, "127.0.0.1", data["addr"])
	// It decodes acct in USER_LOGIN only.
	if kind == "USER_LOGIN" && field == "acct" && len(text) < 1000 && !strings.Contains(text, "\x00") && text != "?" && text != "(null)" {
		assert.Equal(t, text, data["acct"], "go-libaudit's reading")
	}
}

// asAusearchPrints is ausearch's escaping for a terminal: what could move the
// cursor is shown in octal. A name ends at a NUL for it.
func asAusearchPrints(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// TestBodyLengths: the kernel overwrites the last byte of a message that does
// not end in NUL, and padding hides that for three lengths in four.
func TestBodyLengths(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca})
	lengths := map[int]bool{}
	mark := w.audit.Fence()
	const tries = 8
	for i := range tries {
		person := "p" + strings.Repeat("z", i)
		_, err := harness.Dial(t, w.daemon.NodeAddr, w.carol.Name, ca.Sign(t, harness.Cert{KeyID: person, Logins: []string{"other"}}))
		require.Error(t, err)
		client := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, ca.Sign(t, harness.Cert{KeyID: person, Logins: []string{w.bob.Name}}))
		_, err = harness.Exec(client, "true")
		require.NoError(t, err)
		require.NoError(t, client.Close())
	}
	records := own(w.collect(mark, tries*4))
	require.Len(t, records, tries*4)
	for _, r := range records {
		assert.Regexp(t, ` res=(success|failed)$`, r.Body)
		lengths[len(r.Body)%4] = true
	}
	assert.Len(t, lengths, 4, "all four lengths modulo 4 were seen")
}
