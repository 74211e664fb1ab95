// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/pam"
)

// TestReasonsAreDocumented: who finds a reason in the audit trail looks it up.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "records.md"))
	require.NoError(t, err)
	for file, pattern := range map[string]string{
		"login.go":             `reason[A-Z]\w+ += "([^"]+)"`,
		"session/run_linux.go": `reason: +"([^"]+)"`,
		"node/login.go":        `recordRefusal\("([^"]+)"\)`,
		"node/secondfactor.go": `Reason: "([^"]+)"`,
		"../access/access.go":  `Reason[A-Z]\w+ += "([^"]+)"`,
		"../access/decide.go":  `Reason[A-Z]\w+ += "([^"]+)"`,
	} {
		code, err := os.ReadFile(filepath.FromSlash(file))
		require.NoError(t, err)
		found := regexp.MustCompile(pattern).FindAllSubmatch(code, -1)
		require.NotEmpty(t, found, file)
		for _, m := range found {
			require.Contains(t, string(doc), "`"+string(m[1])+"`", file)
		}
	}
	// The part of PAM that refused is the rest of a reason. Closing refuses nobody.
	code, err := os.ReadFile(filepath.Join("..", "pam", "pam.go"))
	require.NoError(t, err)
	stages := regexp.MustCompile(`Stage\w+ +(?:Stage )?= "([^"]+)"`).FindAllSubmatch(code, -1)
	require.NotEmpty(t, stages)
	for _, m := range stages {
		if stage := string(m[1]); stage != string(pam.StageClose) {
			require.Contains(t, string(doc), "`pam-"+stage+"`")
		}
	}
}
