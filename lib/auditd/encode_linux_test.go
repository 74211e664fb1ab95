// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/elastic/go-libaudit/v2/auparse"
	"github.com/stretchr/testify/require"
)

// What go-libaudit, which Auditbeat and others are made of, reads out of our
// records. It decodes acct and nothing else.
func TestGoLibauditReadsTheRecord(t *testing.T) {
	for _, c := range []struct {
		login, want string
	}{
		{"bob", "bob"},
		{"DEADBEEF", "DEADBEEF"},
		{"o'brien", "o'brien"},
		{`"o'brien"`, `"o'brien"`},
		{`a\"b`, `a\"b`},
		{`x" res=success foo="y`, `x" res=success foo="y`},
		{"res=success", "res=success"},
		{"?", "?"},
		{"(null)", "(null)"},
		{"two words", "two words"},
		{"line\nbreak", "line\nbreak"},
		{"nul\x00byte", "nul byte"}, // it takes NUL as the end of a list item
		{"名前", "名前"},
		{strings.Repeat("x", 10_000), strings.Repeat("x", maxNameLen)},
		{strings.Repeat(" ", 10_000), strings.Repeat(" ", maxNameLen)},
	} {
		t.Run(fmt.Sprintf("%.40q", c.login), func(t *testing.T) {
			text := strings.TrimSuffix(body(Event{
				Type: AuditUserLogin, SystemUser: c.login, UID: uid(1001), TeleportUser: "alice",
				ConnAddress: "[::ffff:192.0.2.7]:50122", TTYName: "/dev/pts/3", Reason: c.login,
			}), "\x00")
			line := "type=USER_LOGIN msg=audit(1795343991.899:203630): pid=13477 uid=0 auid=4294967295 ses=4294967295 msg='" +
				text + "'\x1dUID=\"root\" AUID=\"unset\""
			msg, err := auparse.ParseLogLine(line)
			require.NoError(t, err)
			got, err := msg.Data()
			require.NoError(t, err)
			delete(got, "reason")
			require.Equal(t, map[string]string{
				"pid": "13477", "uid": "0", "auid": "unset", "ses": "unset",
				"op": "login", "acct": c.want, "id": "1001", "exe": testExe,
				"hostname": "192.0.2.7", "addr": "192.0.2.7", "terminal": "/dev/pts/3", "rport": "50122",
				// Its field names have no capitals.
				"ser": "alice", "result": "fail",
			}, got)
		})
	}
}
