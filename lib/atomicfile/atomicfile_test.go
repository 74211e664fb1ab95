// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplaceAndCreate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	is := func(text string, mode fs.FileMode) {
		t.Helper()
		found, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(found))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm())
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "something was left beside the file")
	}
	require.NoError(t, Create(path, []byte("one"), 0o600))
	is("one", 0o600)
	require.NoError(t, Create(path, []byte("two"), 0o600))
	is("one", 0o600)
	require.NoError(t, Replace(path, []byte("three"), 0o644))
	is("three", 0o644)
}

func TestNothingIsLeftOfAFailure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	require.NoError(t, os.Mkdir(path, 0o700))
	require.Error(t, Replace(path, []byte("text"), 0o600))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	for _, write := range []func(string, []byte, fs.FileMode) error{Replace, Create} {
		err := write(filepath.Join(dir, "none", "file"), nil, 0o600)
		require.True(t, errors.Is(err, fs.ErrNotExist), "%v", err)
	}
}
