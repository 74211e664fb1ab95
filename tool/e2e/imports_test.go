// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// deps lists what a package is built from.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	harness.NeedPrograms(t, "go")
	root, err := harness.ModuleRoot()
	require.NoError(t, err)
	cmd := exec.Command("go", "list", "-deps", pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err, "go list -deps %s", pkg)
	return strings.Fields(string(out))
}

// TestImports: the program that runs as root for each login stays small, and
// packages know only what is below them.
func TestImports(t *testing.T) {
	const module = "teleport-auditd/"
	for _, test := range []struct {
		pkg       string
		forbidden []string
		// ours, where set, are the only packages of this module allowed.
		ours []string
	}{
		{
			pkg: "./tool/teleport-session",
			forbidden: []string{
				"google.golang.org/grpc", "github.com/gravitational/teleport/api", "modernc.org/sqlite",
				module + "lib/service", module + "lib/auth", module + "lib/config",
			},
		},
		{pkg: "./lib/auditd", ours: []string{"lib/auditd"}},
		{pkg: "./lib/pam", ours: []string{"lib/pam"}},
		{pkg: "./lib/srv", forbidden: []string{module + "lib/service", module + "lib/auth", module + "lib/config", module + "tool/"}},
		{pkg: "./lib/srv/node", forbidden: []string{module + "lib/service", module + "lib/auth", module + "lib/config", module + "tool/"}},
		{pkg: "./lib/srv/proxy", forbidden: []string{module + "lib/service", module + "lib/auth", module + "lib/config", module + "lib/srv/node", module + "tool/"}},
		{pkg: "./lib/auth", forbidden: []string{module + "lib/service", module + "lib/srv", module + "tool/"}},
		{pkg: "./lib/auth/authgrpc", forbidden: []string{module + "lib/service", module + "lib/srv", module + "tool/"}},
		{pkg: "./lib/service", forbidden: []string{module + "tool/"}},
	} {
		t.Run(test.pkg, func(t *testing.T) {
			for _, dep := range deps(t, test.pkg) {
				for _, forbidden := range test.forbidden {
					assert.False(t, strings.HasPrefix(dep, forbidden), "%s imports %s", test.pkg, dep)
				}
				if own, ok := strings.CutPrefix(dep, module); ok && test.ours != nil {
					assert.Contains(t, test.ours, own, "%s imports %s", test.pkg, dep)
				}
			}
		})
	}
}
