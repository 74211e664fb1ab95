// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/sqlite"
)

// openerEnv makes this test program one of several processes that open the
// cluster in the folder that it names: see TestFirstStartOfManyProcesses.
const openerEnv = "AUTH_TEST_OPENER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(openerEnv); dir != "" {
		if err := opener(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func opener(dir string) error {
	ctx := context.Background()
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := Open(ctx, Config{DataDir: dir, ClusterName: "example.com", Log: log})
	if err != nil {
		return err
	}
	users, err := s.UserCAs(ctx)
	if err != nil {
		return err
	}
	hosts, err := s.HostCAs(ctx)
	if err != nil {
		return err
	}
	fmt.Println(len(users), ssh.FingerprintSHA256(users[0]), len(hosts), ssh.FingerprintSHA256(hosts[0]))
	return s.Close()
}

func discard() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

func open(t *testing.T, cfg Config) *Server {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
	}
	if cfg.ClusterName == "" {
		cfg.ClusterName = "example.com"
	}
	if cfg.Log == nil {
		cfg.Log = discard()
	}
	s, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestFirstStartOfManyProcesses(t *testing.T) {
	const processes = 6
	dir := filepath.Join(t.TempDir(), "data")
	outputs := make([]bytes.Buffer, processes)
	var started []*exec.Cmd
	for i := range processes {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), openerEnv+"="+dir)
		cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
		require.NoError(t, cmd.Start())
		started = append(started, cmd)
	}
	for i, cmd := range started {
		require.NoError(t, cmd.Wait(), outputs[i].String())
	}
	require.Regexp(t, `^1 SHA256:\S+ 1 SHA256:\S+\n$`, outputs[0].String())
	for i := range outputs {
		require.Equal(t, outputs[0].String(), outputs[i].String(), "two processes made two clusters")
	}
	fields := strings.Fields(outputs[0].String())
	require.NotEqual(t, fields[1], fields[3], "users and hosts share an authority")
}

func TestClusterName(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")

	_, err := Open(ctx, Config{DataDir: dir, Log: discard()})
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.EqualError(t, err, "there is no cluster in "+dir+": start teleport with the auth role there first")
	require.NoDirExists(t, dir, "looking for a cluster has left something behind")

	made := open(t, Config{DataDir: dir, ClusterName: "one.example.com"})
	require.Equal(t, "one.example.com", made.ClusterName())

	_, err = Open(ctx, Config{DataDir: dir, ClusterName: "two.example.com", Log: discard()})
	require.True(t, trace.IsBadParameter(err), "%v", err)
	for _, want := range []string{`"one.example.com"`, `"two.example.com"`, "auth_service.cluster_name", "data_dir"} {
		require.ErrorContains(t, err, want)
	}

	found, err := Open(ctx, Config{DataDir: dir, Log: discard()})
	require.NoError(t, err)
	require.Equal(t, "one.example.com", found.ClusterName())
	want, err := made.UserCAs(ctx)
	require.NoError(t, err)
	got, err := found.UserCAs(ctx)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, found.Close())

	for _, bad := range []string{"a b", "*.example.com", "a,b", "!a", "a\nb", ".", "-x", "a:b", "a/b", strings.Repeat("x", 256)} {
		_, err := Open(ctx, Config{DataDir: filepath.Join(t.TempDir(), "data"), ClusterName: bad, Log: discard()})
		require.True(t, trace.IsBadParameter(err), "%q: %v", bad, err)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err = Open(ctx, Config{ClusterName: "example.com"})
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.ErrorContains(t, err, "data_dir")
}

// A store that was made and has no cluster is what a first start leaves that
// was stopped in the middle.
func TestStoppedInTheMiddle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	store, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	_, err = Open(t.Context(), Config{DataDir: dir, Log: discard()})
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, "start teleport with the auth role")
	open(t, Config{DataDir: dir})
}

func TestLostAuthority(t *testing.T) {
	ctx := t.Context()
	for _, tc := range []struct {
		name  string
		items []backend.Item
		is    func(error) bool
		want  string
	}{
		{
			name:  "no authorities",
			items: []backend.Item{{Key: clusterNameKey, Value: []byte("example.com")}},
			is:    trace.IsNotFound,
			want:  "lost its user authority",
		},
		{
			name:  "no name",
			items: []backend.Item{{Key: authorityKey(types.UserCA, "example.com"), Value: []byte("{}")}},
			want:  "incomplete",
		},
		{
			name: "not an authority",
			items: []backend.Item{
				{Key: clusterNameKey, Value: []byte("example.com")},
				{Key: authorityKey(types.UserCA, "example.com"), Value: []byte("nonsense")},
			},
			want: "cannot be read",
		},
		{
			name: "an authority without keys",
			items: []backend.Item{
				{Key: clusterNameKey, Value: []byte("example.com")},
				{Key: authorityKey(types.UserCA, "example.com"), Value: []byte("{}")},
			},
			is:   trace.IsNotFound,
			want: "lost its user authority",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			store, err := sqlite.Open(ctx, sqlite.Config{Dir: dir})
			require.NoError(t, err)
			require.NoError(t, store.Create(ctx, tc.items...))
			require.NoError(t, store.Close())
			_, err = Open(ctx, Config{DataDir: dir, ClusterName: "example.com", Log: discard()})
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "restore "+filepath.Join(dir, sqlite.FileName))
			if tc.is != nil {
				require.True(t, tc.is(err), "%v", err)
			}
		})
	}

	t.Run("lost while open", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		s := open(t, Config{DataDir: dir})
		store, err := sqlite.Open(ctx, sqlite.Config{Dir: dir})
		require.NoError(t, err)
		_, err = store.Put(ctx, backend.Item{Key: authorityKey(types.UserCA, "example.com"), Expires: time.Unix(1, 0)})
		require.NoError(t, err)
		require.NoError(t, store.Close())
		_, err = s.SignUser(ctx, userRequest(t))
		require.True(t, trace.IsNotFound(err), "%v", err)
		_, err = s.UserCAs(ctx)
		require.True(t, trace.IsNotFound(err), "%v", err)
		_, err = s.HostCAs(ctx)
		require.NoError(t, err)
	})
}

func TestAuthoritiesAreEd25519InOpenSSHFormat(t *testing.T) {
	s := open(t, Config{})
	for _, kind := range []types.CertAuthType{types.UserCA, types.HostCA} {
		authority, err := s.GetCertAuthority(t.Context(), types.CertAuthID{Type: kind, DomainName: "example.com"}, true)
		require.NoError(t, err)
		pairs := authority.GetActiveKeys().SSH
		require.Len(t, pairs, 1)
		require.Contains(t, string(pairs[0].PrivateKey), "BEGIN OPENSSH PRIVATE KEY")
		signer, err := ssh.ParsePrivateKey(pairs[0].PrivateKey)
		require.NoError(t, err)
		require.Equal(t, ssh.KeyAlgoED25519, signer.PublicKey().Type())
		public, _, _, _, err := ssh.ParseAuthorizedKey(pairs[0].PublicKey)
		require.NoError(t, err)
		require.Equal(t, signer.PublicKey().Marshal(), public.Marshal())
	}
}

// A machine without a battery starts in 1970, and is not to sign for 584 billion
// years.
func TestClockBefore1970(t *testing.T) {
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(time.Unix(5, 0))})
	cert, err := s.SignUser(t.Context(), userRequest(t))
	require.NoError(t, err)
	require.Zero(t, cert.ValidAfter)
	require.EqualValues(t, 5+3600, cert.ValidBefore)
}
