// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEmptyList: a list without elements is one in both formats, however it came
// about.
func TestEmptyList(t *testing.T) {
	for _, list := range [][]string{nil, {}} {
		text, err := toJSON(list)
		require.NoError(t, err)
		assert.Equal(t, "[]\n", text)
		text, err = toYAML(list)
		require.NoError(t, err)
		assert.Equal(t, "[]\n", text)
	}
}
