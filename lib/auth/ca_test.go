// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/sqlite"
)

// The day of the tests.
func today() time.Time { return time.Date(2026, 11, 22, 11, 35, 0, 0, time.UTC) }

func caID(kind types.CertAuthType) types.CertAuthID {
	return types.CertAuthID{Type: kind, DomainName: "example.com"}
}

func withKeys(t *testing.T, s *Server, kind types.CertAuthType) *types.CertAuthorityV2 {
	t.Helper()
	authority, err := s.GetCertAuthority(t.Context(), caID(kind), true)
	require.NoError(t, err)
	return authority.(*types.CertAuthorityV2)
}

// onDisk is all that a thief of the data directory's database has.
func onDisk(t *testing.T, dir string) string {
	t.Helper()
	var all []byte
	for _, suffix := range []string{"", "-wal"} {
		text, err := os.ReadFile(filepath.Join(dir, sqlite.FileName+suffix))
		if err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
			continue
		}
		all = append(all, text...)
	}
	require.NotEmpty(t, all)
	return string(all)
}

func TestPrivateKeysAreSealedOnDisk(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, Config{DataDir: dir})
	require.NoError(t, s.RotateCertAuthority(ctx, types.RotateRequest{TargetPhase: types.RotationPhaseInit}))
	require.NoError(t, s.UpsertCertAuthority(ctx, withKeys(t, s, types.UserCA)))
	require.NotContains(t, onDisk(t, dir), "PRIVATE KEY")
	// JSON has them in base64.
	require.NotContains(t, onDisk(t, dir), "LS0tLS1CRUdJTiBPUEVOU1NIIFBSSVZBVEUg")
	require.NotContains(t, onDisk(t, dir), "LS0tLS1CRUdJTiBQUklWQVRFIEtFW")
	info, err := os.Stat(filepath.Join(dir, "ca_key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	for _, kind := range authorityKinds() {
		authority := withKeys(t, s, kind)
		for _, set := range []types.CAKeySet{authority.GetActiveKeys(), authority.GetAdditionalTrustedKeys()} {
			require.Contains(t, string(set.SSH[0].PrivateKey), "PRIVATE KEY")
			require.Contains(t, string(set.TLS[0].Key), "PRIVATE KEY")
		}
		all, err := s.GetCertAuthorities(ctx, kind, false)
		require.NoError(t, err)
		require.Len(t, all, 1)
		for _, set := range []types.CAKeySet{all[0].GetActiveKeys(), all[0].GetAdditionalTrustedKeys()} {
			require.Empty(t, set.SSH[0].PrivateKey)
			require.Empty(t, set.TLS[0].Key)
			require.NotEmpty(t, set.TLS[0].Cert)
		}
	}
	none, err := s.GetCertAuthorities(ctx, types.DatabaseCA, false)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestSealingKey(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	keyFile := filepath.Join(t.TempDir(), "shared_key")
	s, err := Open(ctx, Config{DataDir: dir, ClusterName: "example.com", CAKeyFile: keyFile, Log: discard()})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoFileExists(t, filepath.Join(dir, "ca_key"))

	t.Run("lost", func(t *testing.T) {
		_, err := Open(ctx, Config{DataDir: dir, ClusterName: "example.com", Log: discard()})
		require.True(t, trace.IsNotFound(err), "%v", err)
		require.ErrorContains(t, err, "storage.ca_key_file")
		require.NoFileExists(t, filepath.Join(dir, "ca_key"), "a key was made that opens nothing")
	})
	t.Run("of another cluster", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "data")
		open(t, Config{DataDir: other})
		_, err := Open(ctx, Config{DataDir: dir, CAKeyFile: filepath.Join(other, "ca_key"), Log: discard()})
		require.True(t, trace.IsAccessDenied(err), "%v", err)
		require.ErrorContains(t, err, "was sealed with another key")
		require.NotContains(t, err.Error(), "\n")
	})
	s, err = Open(ctx, Config{DataDir: dir, CAKeyFile: keyFile, Log: discard()})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// Auth servers on hosts of their own share a storage, and need the same key.
func TestSeveralAuthServers(t *testing.T) {
	ctx := t.Context()
	storage := filepath.Join(t.TempDir(), "storage")
	openHost := func(dir string) (*Server, error) {
		store, err := sqlite.Open(ctx, sqlite.Config{Dir: storage})
		require.NoError(t, err)
		return Open(ctx, Config{DataDir: dir, Backend: store, ClusterName: "example.com", Log: discard()})
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	servers, errs := make([]*Server, 2), make([]error, 2)
	var group sync.WaitGroup
	for i := range dirs {
		group.Go(func() { servers[i], errs[i] = openHost(dirs[i]) })
	}
	group.Wait()
	first, second := 0, 1
	if errs[0] != nil {
		first, second = 1, 0
	}
	require.NoError(t, errs[first], "no host made the cluster")
	defer servers[first].Close() //nolint:errcheck // a test's end
	// It had made a key of its own by then, or was late enough to make none.
	require.True(t, trace.IsAccessDenied(errs[second]) || trace.IsNotFound(errs[second]), "%v", errs[second])
	require.ErrorContains(t, errs[second], "storage.ca_key_file")

	key, err := os.ReadFile(filepath.Join(dirs[first], "ca_key"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dirs[second], "ca_key"), key, 0o600))
	joined, err := openHost(dirs[second])
	require.NoError(t, err)
	defer joined.Close() //nolint:errcheck // a test's end
	require.Equal(t, withKeys(t, servers[first], types.HostCA).GetActiveKeys(), withKeys(t, joined, types.HostCA).GetActiveKeys())

	// Another that has no key at all is told, and makes none.
	third := t.TempDir()
	_, err = openHost(third)
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, "copy it from an auth server of this cluster")
	require.NoFileExists(t, filepath.Join(third, "ca_key"))
}

// What the first version wrote: SSH keys alone, in the clear.
func TestAuthoritiesOfAnEarlierVersionAreCompleted(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	store, err := sqlite.Open(ctx, sqlite.Config{Dir: dir})
	require.NoError(t, err)
	items := []backend.Item{{Key: clusterNameKey, Value: []byte("example.com")}}
	before := map[types.CertAuthType]string{}
	for _, kind := range authorityKinds() {
		pair, err := newSSHPair(kind, "example.com")
		require.NoError(t, err)
		before[kind] = string(pair.PrivateKey)
		authority, err := types.NewCertAuthority(types.CertAuthoritySpecV2{
			Type: kind, ClusterName: "example.com",
			ActiveKeys: types.CAKeySet{SSH: []*types.SSHKeyPair{pair}},
		})
		require.NoError(t, err)
		value, err := json.Marshal(authority)
		require.NoError(t, err)
		items = append(items, backend.Item{Key: authorityKey(kind, "example.com"), Value: value})
	}
	require.NoError(t, store.Create(ctx, items...))

	// Whoever is first, tctl or the daemon: all see the same afterwards.
	servers, errs := make([]*Server, 6), make([]error, 6)
	var group sync.WaitGroup
	for i := range servers {
		group.Go(func() { servers[i], errs[i] = Open(ctx, Config{DataDir: dir, Log: discard()}) })
	}
	group.Wait()
	for i := range servers {
		require.NoError(t, errs[i])
		defer servers[i].Close() //nolint:errcheck // a test's end
	}
	for _, kind := range authorityKinds() {
		item, err := store.Get(ctx, authorityKey(kind, "example.com"))
		require.NoError(t, err)
		require.NotContains(t, string(item.Value), "LS0tLS1CRUdJTiBPUEVOU1NI", "a private key is in the clear")
		authority := withKeys(t, servers[0], kind)
		require.Equal(t, before[kind], string(authority.GetActiveKeys().SSH[0].PrivateKey))
		require.Len(t, authority.GetActiveKeys().TLS, 1)
		for _, server := range servers {
			require.Equal(t, authority.GetActiveKeys(), withKeys(t, server, kind).GetActiveKeys())
		}
	}
	require.NoError(t, store.Close())
}

func TestUpsertCertAuthority(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	other := open(t, Config{Clock: clock})

	exported := withKeys(t, other, types.UserCA)
	exported.SetRevision("")
	require.NoError(t, s.UpsertCertAuthority(WithCaller(ctx, Caller{User: "mallory"}), exported))
	require.Equal(t, []string{`TCAU00I {"user":"mallory","name":"user"}`}, ownEvents(t, s, AuthorityReplacedEvent))
	want, err := other.UserCAs(ctx)
	require.NoError(t, err)
	got, err := s.UserCAs(ctx)
	require.NoError(t, err)
	require.Equal(t, want, got)
	cert, err := s.SignUser(ctx, userRequest(t))
	require.NoError(t, err)
	_, err = checker(want, today()).Authenticate(conn{user: "bob"}, cert)
	require.NoError(t, err)

	stale := withKeys(t, s, types.UserCA)
	require.NoError(t, s.UpsertCertAuthority(ctx, stale), "its revision is the stored one's")
	err = s.UpsertCertAuthority(ctx, stale)
	require.True(t, trace.IsCompareFailed(err), "%v", err)

	for _, tc := range []struct {
		name   string
		change func(*types.CertAuthorityV2)
		want   string
	}{
		{"of another cluster", func(a *types.CertAuthorityV2) { a.SetName("two.example.com"); a.Spec.ClusterName = "two.example.com" }, "two.example.com"},
		{"of another type", func(a *types.CertAuthorityV2) { a.Spec.Type = types.DatabaseCA }, "the types are user and host"},
		{"without its private keys", func(a *types.CertAuthorityV2) { types.RemoveCASecrets(a) }, "with its secrets"},
		{"without TLS keys", func(a *types.CertAuthorityV2) { a.Spec.ActiveKeys.TLS = nil }, "0 active TLS keys"},
		{"without SSH keys", func(a *types.CertAuthorityV2) { a.Spec.ActiveKeys.SSH = nil }, "0 active SSH keys"},
		{"with another SSH private key", func(a *types.CertAuthorityV2) {
			a.Spec.ActiveKeys.SSH[0].PrivateKey = withKeys(t, s, types.HostCA).Spec.ActiveKeys.SSH[0].PrivateKey
		}, "not that of its public key"},
		{"with another TLS private key", func(a *types.CertAuthorityV2) {
			a.Spec.ActiveKeys.TLS[0].Key = withKeys(t, s, types.HostCA).Spec.ActiveKeys.TLS[0].Key
		}, "not that of its certificate"},
		{"with a certificate that is none", func(a *types.CertAuthorityV2) { a.Spec.ActiveKeys.TLS[0].Cert = []byte("nonsense") }, "one certificate in PEM"},
		{"with JWT keys", func(a *types.CertAuthorityV2) {
			a.Spec.ActiveKeys.JWT = []*types.JWTKeyPair{{PublicKey: []byte("x")}}
		}, "JWT"},
		{"that expires", func(a *types.CertAuthorityV2) { a.SetExpiry(today().Add(time.Hour)) }, "metadata.expires"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad := withKeys(t, s, types.UserCA)
			tc.change(bad)
			err := s.UpsertCertAuthority(ctx, bad)
			require.True(t, trace.IsBadParameter(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestAuthoritiesAreNotDeleted(t *testing.T) {
	s := open(t, Config{})
	err := s.DeleteCertAuthority(t.Context(), caID(types.HostCA))
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.EqualError(t, err, "the host authority is the cluster's own and cannot be removed: replace its keys with tctl auth rotate --type=host")
	other := types.CertAuthID{Type: types.UserCA, DomainName: "two.example.com"}
	err = s.DeleteCertAuthority(t.Context(), other)
	require.True(t, trace.IsNotFound(err), "%v", err)
	_, err = s.GetCertAuthority(t.Context(), other, false)
	require.True(t, trace.IsNotFound(err), "%v", err)
}
