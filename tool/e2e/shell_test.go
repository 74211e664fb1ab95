// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"teleport-auditd/tool/e2e/harness"
)

// TestPutty: PuTTY's programs, which are another implementation of SSH than the
// other tests' clients, log in.
func TestPutty(t *testing.T) {
	w := newWorld(t, worldConfig{})
	putty := harness.NewPutty(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	for _, route := range []harness.Route{harness.Direct, harness.ByProxy} {
		t.Run(route.String(), func(t *testing.T) {
			result := putty.Plink("some input\n", route, w.bob.Name, nil, "cat; echo err >&2; exit 3")
			assert.Equal(t, harness.Result{Stdout: "some input\n", Stderr: "err\n", Code: 3}, result)
			result = putty.Plink("echo $0; exit 4\n", route, w.bob.Name, []string{"-t"})
			assert.Contains(t, result.Stdout, "-bash\r\n")
			assert.Equal(t, 4, result.Code, result.Stderr)
		})
	}
}
