// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	for name, test := range map[string]struct {
		events []string
		want   string
		failed bool
	}{
		"passed": {events: []string{
			`{"Action":"run","Package":"p","Test":"A"}`,
			`{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:3: noise\n"}`,
			`{"Action":"pass","Package":"p","Test":"A"}`,
			`{"Action":"output","Package":"p","Output":"ok  \tp\t0.01s\n"}`,
			`{"Action":"pass","Package":"p"}`,
		}, want: "ok  \tp\t0.01s\n"},
		"failed": {events: []string{
			`{"Action":"output","Package":"p","Test":"A","Output":"--- FAIL: A\n"}`,
			`{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:3: no\n"}`,
			`{"Action":"fail","Package":"p","Test":"A"}`,
			`{"Action":"output","Package":"p","Output":"FAIL\tp\t0.01s\n"}`,
			`{"Action":"fail","Package":"p"}`,
		}, want: "--- FAIL: A\n    a_test.go:3: no\nFAIL\tp\t0.01s\n", failed: true},
		"skipped, by reason": {events: []string{
			`{"Action":"output","Package":"m/p","Test":"A","Output":"=== RUN   A\n"}`,
			`{"Action":"output","Package":"m/p","Test":"A","Output":"    a_test.go:2: noise\n"}`,
			`{"Action":"output","Package":"m/p","Test":"A","Output":"    a_test.go:3: needs root:\n"}`,
			`{"Action":"output","Package":"m/p","Test":"A","Output":"        to log in\n"}`,
			`{"Action":"output","Package":"m/p","Test":"A","Output":"--- SKIP: A (0.00s)\n"}`,
			`{"Action":"skip","Package":"m/p","Test":"A"}`,
			`{"Action":"output","Package":"m/p","Test":"B/script","Output":"    cmd.go:380: needs ssh\n"}`,
			`{"Action":"output","Package":"m/p","Test":"B/script","Output":"    testscript.go:609: WORK=$WORK\n"}`,
			`{"Action":"output","Package":"m/p","Test":"B/script","Output":"        PATH=/bin\n"}`,
			`{"Action":"skip","Package":"m/p","Test":"B/script"}`,
			`{"Action":"output","Package":"m/p","Output":"ok  \tp\t0.01s\n"}`,
			`{"Action":"pass","Package":"m/p"}`,
			`{"Action":"output","Package":"m/q","Test":"C","Output":"    c_test.go:3: needs root: to log in\n"}`,
			`{"Action":"skip","Package":"m/q","Test":"C"}`,
			`{"Action":"skip","Package":"m/q","Test":"D"}`,
			`{"Action":"output","Package":"m/r","Output":"?   \tr\t[no test files]\n"}`,
			`{"Action":"skip","Package":"m/r"}`,
		}, want: "ok  \tp\t0.01s\n\nSkipped, 4 in all:\n- needs root: to log in\n  p.A, q.C\n- needs ssh\n  p.B/script\n- no reason given\n  q.D\n"},
		"does not compile": {events: []string{
			`{"ImportPath":"p","Action":"build-output","Output":"# p\n"}`,
			`{"ImportPath":"p","Action":"build-fail"}`,
		}, want: "# p\n", failed: true},
		"killed by a timeout": {events: []string{
			`{"Action":"output","Package":"p","Test":"A","Output":"panic: test timed out\n"}`,
			`{"Action":"fail","Package":"p"}`,
		}, want: "panic: test timed out\n", failed: true},
		"words of the go command": {events: []string{"go: no such module"}, want: "go: no such module\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			failed, err := report(strings.NewReader(strings.Join(test.events, "\n")+"\n"), &out)
			require.NoError(t, err)
			require.Equal(t, test.failed, failed)
			require.Equal(t, test.want, out.String())
		})
	}
}
