// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/srvtest"
)

// pub is a key as it stands in a .pub file.
func pub(key ssh.PublicKey) string {
	return string(ssh.MarshalAuthorizedKey(key))
}

func TestCAFile(t *testing.T) {
	t.Parallel()
	first, second := srvtest.NewAuthority(t), srvtest.NewAuthority(t)
	shortKey, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	short, err := ssh.NewPublicKey(&shortKey.PublicKey)
	require.NoError(t, err)
	certificate := first.Certificate(t, srvtest.NewKey(t).PublicKey(), time.Now())

	for _, tt := range []struct {
		name string
		text string
		keys []srvtest.Authority
		err  string
	}{
		{name: "one key", text: pub(first.PublicKey()), keys: []srvtest.Authority{first}},
		{
			name: "comments, empty lines, spaces, the other system's line ends, no end of the last line",
			text: "# ours\r\n\r\n  " + strings.TrimSpace(pub(first.PublicKey())) + " user CA of 2026\r\n\t# theirs\n" + strings.TrimSpace(pub(second.PublicKey())),
			keys: []srvtest.Authority{first, second},
		},
		{name: "nothing", text: "", err: "holds no CA public key"},
		{name: "nothing but comments", text: "# later\n", err: "holds no CA public key"},
		{name: "words", text: pub(first.PublicKey()) + "\ntrust me\n", err: ":3: this is no public key"},
		{name: "half a key", text: pub(first.PublicKey())[:40], err: ":1: this is no public key"},
		{name: "a private key", text: "-----BEGIN OPENSSH PRIVATE KEY-----\n", err: ":1: this is no public key"},
		{name: "options", text: "cert-authority " + pub(first.PublicKey()), err: ":1: options before a key mean nothing here"},
		{name: "a line for known_hosts", text: "@cert-authority * " + pub(first.PublicKey()), err: ":1: this is a line for known_hosts"},
		{name: "a certificate", text: "# x\n" + pub(certificate), err: ":2: a certificate cannot be an authority"},
		{name: "a short RSA key", text: pub(short), err: ":1: the RSA key is shorter than 2048 bits"},
		{name: "too much", text: strings.Repeat("#", 1<<20+1), err: "longer than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ca.pub")
			require.NoError(t, os.WriteFile(path, []byte(tt.text), 0o600))
			file, err := srv.NewCAFile(path)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				require.ErrorContains(t, err, path)
				require.NotContains(t, err.Error(), "\n", "one line to the operator")
				return
			}
			require.NoError(t, err)
			keys, err := file.UserCAs(t.Context())
			require.NoError(t, err)
			require.Len(t, keys, len(tt.keys))
			for i := range keys {
				require.Equal(t, tt.keys[i].PublicKey().Marshal(), keys[i].Marshal())
			}
		})
	}

	t.Run("no file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "ca.pub")
		_, err := srv.NewCAFile(path)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, path)
	})
	t.Run("a pipe, which would wait for ever", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "ca.pub")
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, err := srv.NewCAFile(path)
		require.ErrorContains(t, err, "not a regular file")
	})
}

func TestCAFileIsReadAgain(t *testing.T) {
	t.Parallel()
	first, second := srvtest.NewAuthority(t), srvtest.NewAuthority(t)
	path := filepath.Join(t.TempDir(), "ca.pub")
	write := func(text string, at time.Time) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
	}
	old := time.Now().Add(-time.Hour)
	write(pub(first.PublicKey()), old)
	file, err := srv.NewCAFile(path)
	require.NoError(t, err)
	trusts := func(authority srvtest.Authority) {
		t.Helper()
		keys, err := file.UserCAs(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.Equal(t, authority.PublicKey().Marshal(), keys[0].Marshal())
	}
	trusts(first)

	write(pub(second.PublicKey()), old.Add(time.Second))
	trusts(second) // another time stamp

	write(pub(first.PublicKey()), time.Now())
	trusts(first)
	write(pub(second.PublicKey()), time.Now())
	trusts(second) // perhaps within the same tick of the file system's clock

	other := path + ".new"
	require.NoError(t, os.WriteFile(other, []byte(pub(first.PublicKey())), 0o600))
	require.NoError(t, os.Chtimes(other, old, old))
	require.NoError(t, os.Rename(other, path))
	trusts(first) // another inode, an older time stamp

	// What is broken trusts nobody, each time that it is asked.
	write("# gone\nnonsense\n", old.Add(2*time.Second))
	for range 2 {
		_, err = file.UserCAs(t.Context())
		require.ErrorContains(t, err, path+":2: this is no public key")
	}
	require.NoError(t, os.Remove(path))
	_, err = file.UserCAs(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	write(pub(second.PublicKey()), old)
	trusts(second)
}
