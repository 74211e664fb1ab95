// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gravitational/teleport/api/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"teleport-auditd/lib/config"
	"teleport-auditd/lib/testhost"
)

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                        "plain",
		"outer\n\tmiddle\n\t\tinner\n": "outer: middle: inner",
		"names in any script: 王芳, Жанна":     "names in any script: 王芳, Жанна",
		"clear \x1b[2J the screen\rERROR":    `clear \x1b[2J the screen\rERROR`,
		"turned \u202earound":                `turned \u202earound`,
		"no UTF-8 \xff, tab\there, NUL \x00": "no UTF-8 \ufffd, tab\\there, NUL \\x00",
	} {
		require.Equal(t, want, oneLine(text))
	}
}

// What an argument or a path says stays in its line.
func TestHostileArguments(t *testing.T) {
	for _, args := range [][]string{
		{"auth", "sign", "--user=alice\nERROR: forged", "--logins=bob", "--out=a"},
		{"auth", "sign", "--user=alice", "--logins=bob\x1b[2J", "--out=a"},
		{"auth", "sign", "--user=\xff", "--logins=bob", "--out=a"},
		{"auth", "sign", "--user=" + strings.Repeat("x", 1<<20), "--logins=bob", "--out=a"},
		{"auth", "sign", "--user=alice", "--logins=" + strings.Repeat("a,", 1000) + "b", "--out=a"},
		{"auth", "sign", "--user=alice", "--logins=bob", "--out=a", "--ttl=1h\n"},
		{"auth", "sign", "--user=alice", "--logins=bob", "--out=a", "--format=\n"},
		{"auth", "export", "--type=\x07"},
		{"auth", "rotate", "--phase=\x1b[2J"},
		{"users", "ls", "--format=" + strings.Repeat("x", 1<<20)},
		{"non\nsense"},
		{"--data-dir=/no/such\nplace", "auth", "export", "--type=user"},
		{"--config=/no/such\nplace", "auth", "export", "--type=user"},
	} {
		var stdout, stderr bytes.Buffer
		status := (&tctl{stdout: &stdout, stderr: &stderr}).run(t.Context(), args)
		require.NotZero(t, status)
		require.Empty(t, stdout.String())
		require.Regexp(t, `^ERROR: [^\x00-\x1f\x7f]+\n$`, stderr.String())
		require.Less(t, stderr.Len(), 2000)
	}
}

func TestFindSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "teleport.yaml")
	find := func() (string, error) {
		settings, err := (&tctl{defaultConfig: file}).settings()
		if err != nil {
			return "", err
		}
		return settings.DataDir, nil
	}

	found, err := find()
	require.NoError(t, err)
	require.Equal(t, config.DefaultDataDir, found, "without a file")

	require.NoError(t, os.WriteFile(file, []byte("teleport:\n  data_dir: /srv/teleport\n"), 0o600))
	found, err = find()
	require.NoError(t, err)
	require.Equal(t, "/srv/teleport", found)

	require.NoError(t, os.WriteFile(file, []byte("ssh_service:\n  enabled: true\n"), 0o600))
	found, err = find()
	require.NoError(t, err)
	require.Equal(t, config.DefaultDataDir, found, "with a file that does not say")

	require.NoError(t, os.WriteFile(file, []byte("teleport: ["), 0o600))
	_, err = find()
	require.ErrorContains(t, err, file, "a file that cannot be read is passed over")
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.Symlink(filepath.Join(dir, "none"), file))
	_, err = find()
	require.ErrorContains(t, err, file, "a link to nowhere is passed over")
}

func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testhost.Skip(t, "it needs /dev/full")
	}
	defer full.Close() //nolint:errcheck // nothing was written
	var stderr bytes.Buffer
	require.Equal(t, 1, (&tctl{stdout: full, stderr: &stderr}).run(t.Context(), []string{"version"}))
	require.Equal(t, "ERROR: cannot write to standard output: no space left on device\n", stderr.String())
}

// A cluster of a thousand nodes is still read by every reader of known_hosts.
func TestManyNodes(t *testing.T) {
	var nodes []types.Server
	for i := range 1000 {
		nodes = append(nodes, &types.ServerV2{Spec: types.ServerSpecV2{
			Hostname: fmt.Sprintf("node-%04d-with-a-name-of-some-length", i),
			Addr:     fmt.Sprintf("192.0.%d.%d:3022", i/250, i%250),
		}})
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	authority, err := ssh.NewSignerFromSigner(private)
	require.NoError(t, err)
	lines := knownHosts("example.com", []ssh.PublicKey{authority.PublicKey()}, hostPatterns("example.com", nodes, "elsewhere"))
	require.Greater(t, len(lines), 1)
	for _, line := range lines {
		require.Less(t, len(line), 8<<10)
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600))
	callback, err := knownhosts.New(file)
	require.NoError(t, err)
	for _, host := range []string{"node-0000-with-a-name-of-some-length", "192.0.3.249", "other.example.com"} {
		cert := &ssh.Certificate{
			Key:             authority.PublicKey(),
			CertType:        ssh.HostCert,
			ValidPrincipals: []string{host},
			ValidBefore:     ssh.CertTimeInfinity,
		}
		require.NoError(t, cert.SignCert(rand.Reader, authority))
		require.NoError(t, callback(host+":22", &net.TCPAddr{}, cert), host)
	}
}
