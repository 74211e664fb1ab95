// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"
)

func contents(word string) [][]byte {
	return [][]byte{[]byte(word + " private"), []byte(word + " public"), []byte(word + " certificate")}
}

// state is what a folder holds, by name.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	held := map[string]string{}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		held[entry.Name()] = string(content)
	}
	return held
}

// failAt makes the rename fail that comes after n others.
func failAt(n int) func(from, to string) error {
	return func(from, to string) error {
		if n--; n < 0 {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.EIO}
		}
		return os.Rename(from, to)
	}
}

func TestAllOrNothing(t *testing.T) {
	for _, tc := range []struct {
		name      string
		before    map[string]string
		overwrite bool
	}{
		{"nothing there", map[string]string{}, false},
		{"nothing there, to overwrite", map[string]string{}, true},
		{"all there", map[string]string{"a": "1", "a.pub": "2", "a-cert.pub": "3"}, true},
		{"some there", map[string]string{"a.pub": "2"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for step := range 3 {
				dir := t.TempDir()
				for name, content := range tc.before {
					require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
				}
				out := newOutput(filepath.Join(dir, "a"), tc.overwrite, "", ".pub", "-cert.pub")
				out.rename = failAt(step)
				err := out.write(contents("new")...)
				require.ErrorContains(t, err, "cannot write "+out.files[step].path+": input/output error")
				require.Equal(t, tc.before, state(t, dir), "step %d", step)
			}

			dir := t.TempDir()
			for name, content := range tc.before {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
			}
			require.NoError(t, newOutput(filepath.Join(dir, "a"), tc.overwrite, "", ".pub", "-cert.pub").write(contents("new")...))
			require.Equal(t, map[string]string{"a": "new private", "a.pub": "new public", "a-cert.pub": "new certificate"}, state(t, dir))
		})
	}
}

// Two operators who choose the same name at the same moment get one key between
// them, whole, and one refusal.
func TestAtTheSameTime(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		path := filepath.Join(dir, "a")
		results := make(chan error)
		for _, word := range []string{"one", "two"} {
			go func() { results <- newOutput(path, false, "", ".pub", "-cert.pub").write(contents(word)...) }()
		}
		errs := []error{<-results, <-results}
		if errs[0] == nil {
			errs[0], errs[1] = errs[1], errs[0]
		}
		require.True(t, trace.IsAlreadyExists(errs[0]), "%v", errs[0])
		if errs[1] != nil { // each had taken a name that the other needed
			require.True(t, trace.IsAlreadyExists(errs[1]), "%v", errs[1])
			require.Empty(t, state(t, dir))
			continue
		}
		held := state(t, dir)
		word := held["a"][:3]
		require.Equal(t, map[string]string{"a": word + " private", "a.pub": word + " public", "a-cert.pub": word + " certificate"}, held)
	}
}

func TestOutputModes(t *testing.T) {
	for _, tc := range []struct {
		umask           int
		private, public os.FileMode
	}{
		{0, 0o600, 0o644},
		{0o022, 0o600, 0o644},
		{0o077, 0o600, 0o600},
	} {
		dir := t.TempDir()
		old := syscall.Umask(tc.umask)
		err := newOutput(filepath.Join(dir, "a"), false, "", ".pub", "-cert.pub").write(contents("new")...)
		syscall.Umask(old)
		require.NoError(t, err)
		for name, want := range map[string]os.FileMode{"a": tc.private, "a.pub": tc.public, "a-cert.pub": tc.public} {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, want, info.Mode().Perm(), "%s under the umask %03o", name, tc.umask)
		}
	}
}
