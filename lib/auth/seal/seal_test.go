// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/testhost"
)

const place = "/authorities/user/example.com"

func makeKey(t *testing.T) (*Key, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca_key")
	key, err := ReadOrCreate(path)
	require.NoError(t, err)
	return key, path
}

func TestSealAndOpen(t *testing.T) {
	key, path := makeKey(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Regexp(t, "^[0-9a-f]{64}\n$", string(text))
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 1, "making the key has left something behind")

	again, err := ReadOrCreate(path)
	require.NoError(t, err)
	require.Equal(t, key.ID(), again.ID())
	for _, secret := range [][]byte{nil, []byte("s"), bytes.Repeat([]byte("secret"), 10000)} {
		sealed, err := key.Seal(secret, place)
		require.NoError(t, err)
		require.True(t, IsSealed(sealed))
		require.NotContains(t, string(sealed), "secret")
		got, err := again.Open(sealed, place)
		require.NoError(t, err)
		require.Equal(t, string(secret), string(got))
		other, err := key.Seal(secret, place)
		require.NoError(t, err)
		require.NotEqual(t, sealed, other, "a nonce was used twice")
	}
}

func TestOpenRefuses(t *testing.T) {
	key, _ := makeKey(t)
	another, anotherPath := makeKey(t)
	sealed, err := key.Seal([]byte("secret"), place)
	require.NoError(t, err)

	_, err = another.Open(sealed, place)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	for _, want := range []string{place, "was sealed with another key", "storage.ca_key_file", anotherPath, key.ID(), another.ID()} {
		require.ErrorContains(t, err, want)
	}

	_, err = key.Open(sealed, "/authorities/host/example.com")
	require.True(t, trace.IsBadParameter(err), "%v", err)
	_, err = key.Open([]byte("-----BEGIN OPENSSH PRIVATE KEY-----"), place)
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.ErrorContains(t, err, "is not sealed")
	for i := range sealed {
		_, err := key.Open(sealed[:i], place)
		require.True(t, trace.IsBadParameter(err), "%d: %v", i, err)
		require.NotContains(t, err.Error(), "\n")
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		_, err = key.Open(bad, place)
		require.Error(t, err, "byte %d is not covered", i)
	}
}

func TestFileRefused(t *testing.T) {
	for _, tc := range []struct {
		name    string
		root    bool
		arrange func(t *testing.T, path string)
		is      func(error) bool
		want    string
	}{
		{
			name:    "cut short",
			arrange: func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 40)) },
			is:      trace.IsBadParameter, want: "it has 40 bytes, a key is 64",
		}, {
			name:    "empty",
			arrange: func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) },
			is:      trace.IsBadParameter, want: "it has 0 bytes",
		}, {
			name: "not hexadecimal",
			arrange: func(t *testing.T, path string) {
				require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 64)), 0o600))
			},
			is: trace.IsBadParameter, want: "is not a key",
		}, {
			name:    "open to others",
			arrange: func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o640)) },
			is:      trace.IsAccessDenied, want: "chmod 600",
		}, {
			name:    "of another user",
			root:    true,
			arrange: func(t *testing.T, path string) { require.NoError(t, os.Chown(path, os.Geteuid()+1, -1)) },
			is:      trace.IsAccessDenied, want: "belongs to another user",
		}, {
			name: "a folder",
			arrange: func(t *testing.T, path string) {
				require.NoError(t, os.Remove(path))
				require.NoError(t, os.Mkdir(path, 0o700))
			},
			is: trace.IsBadParameter, want: "is not a file",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.root && os.Geteuid() != 0 {
				testhost.Skip(t, "needs root, to give a file to another user")
			}
			_, path := makeKey(t)
			tc.arrange(t, path)
			_, err := ReadOrCreate(path)
			require.True(t, tc.is(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "\n")
		})
	}

	none := filepath.Join(t.TempDir(), "none", "ca_key")
	_, err := Read(none)
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, "storage.ca_key_file")
	_, err = ReadOrCreate(none)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, none)
}

func TestManyCreateOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca_key")
	ids := make([]string, 16)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			if key, err := ReadOrCreate(path); err == nil {
				ids[i] = key.ID()
			}
		})
	}
	group.Wait()
	require.NotEmpty(t, ids[0])
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
}
