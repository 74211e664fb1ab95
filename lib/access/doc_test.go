// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/gravitational/teleport/api/types"

	"teleport-auditd/lib/access"
)

// TestDocumentedExample: docs/roles.md says what its roles decide.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "roles.md"))
	if err != nil {
		t.Fatal(err)
	}
	var roles []types.Role
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		data, err := yaml.YAMLToJSON(block[1])
		if err != nil {
			t.Fatal(err)
		}
		role, err := access.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		roles = append(roles, role)
	}
	checker := access.NewChecker(roles, map[string][]string{"logins": {"alice"}, "team": {"web"}})
	_, example, _ := strings.Cut(string(text), "## An example")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^`]+)` \\| (gets in|`([^`]+)`)").FindAllStringSubmatch(example, -1)
	if len(roles) != 2 || len(rows) < 5 {
		t.Fatalf("%d roles and %d rows", len(roles), len(rows))
	}
	for _, row := range rows {
		labels := map[string]string{}
		for _, pair := range strings.Fields(row[2]) {
			key, value, _ := strings.Cut(pair, "=")
			labels[key] = value
		}
		if got := reasonOf(t, checker.CheckNode(row[1], labels)); got != row[4] {
			t.Errorf("%s on %s: the reason is %q, and should be %q", row[1], row[2], got, row[4])
		}
	}
}
