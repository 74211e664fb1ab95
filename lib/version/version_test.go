// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLine(t *testing.T) {
	stamp := func(settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Settings: settings}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	unmodified := debug.BuildSetting{Key: "vcs.modified", Value: "false"}

	for _, tc := range []struct {
		name   string
		gitref string
		info   *debug.BuildInfo
		want   string
	}{
		{"set by the linker", "v0.1.0-3-g0123456", stamp(revision, modified), "v0.1.0-3-g0123456"},
		{"stamped by go build", "", stamp(revision, unmodified), "0123456"},
		{"changed sources are named, in either order", "", stamp(modified, revision), "0123456-dirty"},
		{"a short revision stays whole", "", stamp(debug.BuildSetting{Key: "vcs.revision", Value: "abc"}), "abc"},
		{"built outside a repository", "", stamp(), "unknown"},
		{"built without build information", "", nil, "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, "Teleport v0.1.0 git:"+tc.want+" "+runtime.Version(), line(tc.gitref, tc.info))
		})
	}
	require.Regexp(t, `^Teleport v\d+\.\d+\.\d+ git:\S+ go1\.\S+`, Line())
}
