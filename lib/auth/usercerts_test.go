// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/identityfile"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/tlsca"
)

// keyPair is one key in the forms that requests have.
type keyPair struct {
	private  crypto.Signer
	ssh, tls []byte
}

func newKeyPair(t *testing.T) keyPair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tlsKey, err := keys.MarshalPublicKey(private.Public())
	require.NoError(t, err)
	return keyPair{private: private, ssh: ssh.MarshalAuthorizedKey(sshKey(t, private.Public())), tls: tlsKey}
}

func parseSSHCert(t *testing.T, text []byte) *ssh.Certificate {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	require.NoError(t, err)
	cert, ok := key.(*ssh.Certificate)
	require.True(t, ok)
	return cert
}

func parseTLSCert(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(text)
	require.NotNil(t, block)
	require.Empty(t, rest)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

func addRole(t *testing.T, s *Server, name string, spec types.RoleSpecV6) {
	t.Helper()
	role, err := types.NewRoleWithVersion(name, types.V7, spec)
	require.NoError(t, err)
	_, err = s.UpsertRole(t.Context(), role)
	require.NoError(t, err)
}

func addUser(t *testing.T, s *Server, name string, traits map[string][]string, roles ...string) {
	t.Helper()
	user, err := types.NewUser(name)
	require.NoError(t, err)
	user.SetRoles(roles)
	user.SetTraits(traits)
	_, err = s.UpsertUser(t.Context(), user)
	require.NoError(t, err)
}

func eventsOf[T apievents.AuditEvent](t *testing.T, s *Server) []T {
	t.Helper()
	all, _, err := s.SearchEvents(t.Context(), time.Unix(0, 0), today().Add(1000*time.Hour), nil, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	var found []T
	for _, event := range all {
		if event, ok := event.(T); ok {
			found = append(found, event)
		}
	}
	return found
}

func TestGenerateUserCerts(t *testing.T) {
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	addRole(t, s, "dba", types.RoleSpecV6{
		//lint:ignore SA1019 its successor, ssh_port_forwarding, is refused
		Options: types.RoleOptions{MaxSessionTTL: types.NewDuration(8 * time.Hour), ForwardAgent: types.NewBool(true), PortForwarding: types.NewBoolOption(false)}, //nolint:staticcheck // as above
		Allow:   types.RoleConditions{Logins: []string{"postgres", "{{internal.logins}}"}, NodeLabels: types.Labels{"*": {"*"}}},
		Deny:    types.RoleConditions{Logins: []string{"root"}},
	})
	addRole(t, s, "long", types.RoleSpecV6{
		Options: types.RoleOptions{MaxSessionTTL: types.NewDuration(20 * time.Hour), ForwardAgent: types.NewBool(true)},
		Allow:   types.RoleConditions{Logins: []string{"bob"}, NodeLabels: types.Labels{"*": {"*"}}},
	})
	addUser(t, s, "alice", map[string][]string{"logins": {"alice", "root"}}, "dba", "long")
	key := newKeyPair(t)
	ctx := WithCaller(t.Context(), Caller{User: "operator", RemoteAddr: "192.0.2.9:4711"})
	certs, err := s.GenerateUserCerts(ctx, proto.UserCertsRequest{
		Username: "alice", SSHPublicKey: key.ssh, TLSPublicKey: key.tls, Expires: today().Add(100 * time.Hour), RouteToCluster: "example.com",
	})
	require.NoError(t, err)

	sshCert := parseSSHCert(t, certs.SSH)
	require.Equal(t, "alice", sshCert.KeyId)
	require.Equal(t, []string{"alice", "bob", "postgres"}, sshCert.ValidPrincipals)
	require.EqualValues(t, today().Add(8*time.Hour).Unix(), sshCert.ValidBefore, "not cut to the strictest role")
	require.Equal(t, map[string]string{
		"permit-pty":              "",
		"permit-agent-forwarding": "",
		"teleport-roles":          `{"version":"v1","roles":["dba","long"]}`,
		"teleport-traits":         `{"logins":["alice","root"]}`,
	}, sshCert.Extensions)
	users, err := s.UserCAs(ctx)
	require.NoError(t, err)
	_, err = checker(users, today()).Authenticate(conn{user: "postgres"}, sshCert)
	require.NoError(t, err)

	tlsCert := parseTLSCert(t, certs.TLS)
	require.Equal(t, today().Add(8*time.Hour), tlsCert.NotAfter)
	require.Equal(t, today().Add(-time.Minute), tlsCert.NotBefore)
	authorities, err := s.trustedTLS(ctx, types.UserCA)
	require.NoError(t, err)
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	_, err = tlsCert.Verify(x509.VerifyOptions{Roots: poolOf(authorities), CurrentTime: today(), KeyUsages: usages})
	require.NoError(t, err)
	_, err = tlsCert.Verify(x509.VerifyOptions{Roots: poolOf(authorities), CurrentTime: today()})
	require.Error(t, err, "a user's certificate is good for a server")
	hosts, err := s.trustedTLS(ctx, types.HostCA)
	require.NoError(t, err)
	_, err = tlsCert.Verify(x509.VerifyOptions{Roots: poolOf(hosts), CurrentTime: today(), KeyUsages: usages})
	require.Error(t, err, "a user's certificate is one of a host")
	identity, err := tlsca.FromSubject(tlsCert.Subject)
	require.NoError(t, err)
	slices.Sort(identity.Principals) // X.509 has its own order
	require.Equal(t, tlsca.Identity{
		Username: "alice", Groups: []string{"dba", "long"}, Principals: []string{"alice", "bob", "postgres"},
		Traits: map[string][]string{"logins": {"alice", "root"}}, Cluster: "example.com",
	}, identity)

	require.Equal(t, [][]byte{withKeys(t, s, types.HostCA).GetActiveKeys().TLS[0].Cert}, certs.TLSCACerts)
	require.Equal(t, [][]byte{withKeys(t, s, types.HostCA).GetActiveKeys().SSH[0].PublicKey}, certs.SSHCACerts)

	created := eventsOf[*apievents.CertificateCreate](t, s)
	require.Len(t, created, 1, "one event for both certificates")
	require.Equal(t, "TC000I", created[0].Code)
	require.Equal(t, "alice", created[0].Identity.User)
	require.Equal(t, "operator", created[0].Identity.Impersonator)
	require.Equal(t, "192.0.2.9", created[0].Identity.ClientIP)
	require.Equal(t, []string{"dba", "long"}, created[0].Identity.Roles)
	require.Equal(t, today().Add(8*time.Hour), created[0].Identity.Expires)

	t.Run("an identity file for api/client", func(t *testing.T) {
		private, err := keys.MarshalPrivateKey(key.private)
		require.NoError(t, err)
		known := []byte("@cert-authority *.example.com " + string(certs.SSHCACerts[0]))
		text, err := identityfile.Encode(&identityfile.IdentityFile{
			PrivateKey: private,
			Certs:      identityfile.Certs{SSH: certs.SSH, TLS: certs.TLS},
			CACerts:    identityfile.CACerts{SSH: [][]byte{known}, TLS: certs.TLSCACerts},
		})
		require.NoError(t, err)
		read, err := identityfile.FromString(string(text))
		require.NoError(t, err)
		config, err := read.TLSConfig()
		require.NoError(t, err)
		require.Len(t, config.Certificates, 1)
		sshConfig, err := read.SSHClientConfig()
		require.NoError(t, err)
		require.NotEmpty(t, sshConfig.Auth)
		expires, ok := read.Expiry()
		require.True(t, ok)
		require.Equal(t, today().Add(8*time.Hour), expires)
	})

	t.Run("shorter than the roles allow", func(t *testing.T) {
		certs, err := s.GenerateUserCerts(ctx, proto.UserCertsRequest{Username: "alice", SSHPublicKey: key.ssh, Expires: today().Add(time.Hour)})
		require.NoError(t, err)
		require.EqualValues(t, today().Add(time.Hour).Unix(), parseSSHCert(t, certs.SSH).ValidBefore)
		require.Empty(t, certs.TLS)
	})
	t.Run("one key for both, of older clients", func(t *testing.T) {
		//lint:ignore SA1019 it is what they send
		req := proto.UserCertsRequest{Username: "alice", PublicKey: key.ssh} //nolint:staticcheck // as above
		certs, err := s.GenerateUserCerts(ctx, req)
		require.NoError(t, err)
		require.NotEmpty(t, certs.SSH)
		require.Equal(t, key.private.Public(), parseTLSCert(t, certs.TLS).PublicKey)
	})
	t.Run("no login", func(t *testing.T) {
		addUser(t, s, "bookkeeper", nil, "auditor")
		certs, err := s.GenerateUserCerts(ctx, proto.UserCertsRequest{Username: "bookkeeper", SSHPublicKey: key.ssh, TLSPublicKey: key.tls})
		require.NoError(t, err)
		principals := parseSSHCert(t, certs.SSH).ValidPrincipals
		require.Len(t, principals, 1)
		require.True(t, strings.HasPrefix(principals[0], constants.NoLoginPrefix), principals[0])
		require.Equal(t, principals, parseTLSCert(t, certs.TLS).Subject.Locality)
	})
}

func TestGenerateUserCertsRefused(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	addUser(t, s, "alice", nil, "access")
	key := newKeyPair(t)
	weak := `ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAIQDPNmZCKvd4J6XiWLZLWkAQfZ4Nzw4LJJfA9PHlGzUmSw==`
	for _, tc := range []struct {
		name   string
		change func(*proto.UserCertsRequest)
		is     func(error) bool
		want   string
	}{
		{"unknown user", func(r *proto.UserCertsRequest) { r.Username = "mallory" }, trace.IsNotFound, `"mallory"`},
		{"no key", func(r *proto.UserCertsRequest) { r.SSHPublicKey, r.TLSPublicKey = nil, nil }, trace.IsBadParameter, "no public key"},
		{"no SSH key", func(r *proto.UserCertsRequest) { r.SSHPublicKey = []byte("nonsense") }, trace.IsBadParameter, "SSH public key cannot be read"},
		{"no TLS key", func(r *proto.UserCertsRequest) { r.TLSPublicKey = []byte("nonsense") }, trace.IsBadParameter, "TLS public key cannot be read"},
		{"a weak key", func(r *proto.UserCertsRequest) { r.SSHPublicKey = []byte(weak) }, trace.IsBadParameter, ""},
		{"a key of a megabyte", func(r *proto.UserCertsRequest) { r.SSHPublicKey = make([]byte, 1<<20) }, trace.IsBadParameter, "16384 are the most"},
		{"an expiry that has passed", func(r *proto.UserCertsRequest) { r.Expires = today().Add(-time.Hour) }, trace.IsBadParameter, "one second"},
		{"another cluster", func(r *proto.UserCertsRequest) { r.RouteToCluster = "two.example.com" }, trace.IsBadParameter, "two.example.com"},
		{"an access request", func(r *proto.UserCertsRequest) { r.AccessRequests = []string{"x"} }, trace.IsBadParameter, "access requests"},
		{"other roles", func(r *proto.UserCertsRequest) { r.RoleRequests = []string{"editor"} }, trace.IsBadParameter, "roles"},
		{"a database", func(r *proto.UserCertsRequest) { r.Usage = proto.UserCertsRequest_Database }, trace.IsBadParameter, "databases"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := proto.UserCertsRequest{Username: "alice", SSHPublicKey: key.ssh, TLSPublicKey: key.tls}
			tc.change(&req)
			certs, err := s.GenerateUserCerts(ctx, req)
			require.True(t, tc.is(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
			require.Nil(t, certs)
		})
	}
	require.Empty(t, eventsOf[*apievents.CertificateCreate](t, s))

	t.Run("locked", func(t *testing.T) {
		clock := clockwork.NewFakeClockAt(today())
		s := open(t, Config{Clock: clock})
		addUser(t, s, "alice", nil, "access", "auditor")
		sign := func() error {
			_, err := s.GenerateUserCerts(ctx, proto.UserCertsRequest{Username: "alice", SSHPublicKey: key.ssh})
			return err
		}
		for _, tc := range []struct {
			target types.LockTarget
			locked bool
		}{
			{types.LockTarget{User: "alice"}, true},
			{types.LockTarget{Role: "auditor"}, true},
			{types.LockTarget{User: "bob"}, false},
			{types.LockTarget{Role: "editor"}, false},
			{types.LockTarget{User: "alice", Login: "root"}, false},
			{types.LockTarget{Login: "root"}, false},
		} {
			expires := clock.Now().Add(time.Hour)
			lock, err := types.NewLock("a-lock", types.LockSpecV2{Target: tc.target, Message: "until we know more", Expires: &expires})
			require.NoError(t, err)
			require.NoError(t, s.UpsertLock(ctx, lock))
			err = sign()
			if !tc.locked {
				require.NoError(t, err, "%v", tc.target)
				continue
			}
			require.True(t, trace.IsAccessDenied(err), "%v", err)
			require.EqualError(t, err, login.LockedPrefix+": until we know more")
			clock.Advance(2 * time.Hour)
			require.NoError(t, sign(), "the lock has expired")
		}
	})
}

// tctl auth sign --logins is an operator's explicit act, without any role.
func TestExplicitLoginsCarryNoRoles(t *testing.T) {
	s := open(t, Config{})
	req := userRequest(t)
	req.TLSPublicKey = newKeyPair(t).private.Public()
	require.ErrorContains(t, req.CheckAndSetDefaults(), "decides by roles")
	cert, err := s.SignUser(t.Context(), userRequest(t))
	require.NoError(t, err)
	require.NotContains(t, cert.Extensions, ExtensionRoles)
	require.Len(t, eventsOf[*apievents.CertificateCreate](t, s), 1)
}

func TestRolesAndTraitsAreBounded(t *testing.T) {
	s := open(t, Config{})
	req := userRequest(t)
	req.Roles = []string{"access", "access"}
	_, err := s.SignUser(t.Context(), req)
	require.ErrorContains(t, err, "twice")
	req.Roles = []string{"access"}
	req.Traits = map[string][]string{"team": {strings.Repeat("x", maxIdentitySize)}}
	_, err = s.SignUser(t.Context(), req)
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.ErrorContains(t, err, "give the user less")
	req.Traits = map[string][]string{"team": {"db", `"},"roles":["x"]`}}
	cert, err := s.SignUser(t.Context(), req)
	require.NoError(t, err)
	var traits map[string][]string
	require.NoError(t, json.Unmarshal([]byte(cert.Extensions[ExtensionTraits]), &traits))
	require.Equal(t, req.Traits, traits)
}

// noEvents is a store that has no room for events.
type noEvents struct{ backend.Backend }

func (n noEvents) Create(ctx context.Context, items ...backend.Item) error {
	if strings.HasPrefix(items[0].Key, eventsPrefix) {
		return trace.LimitExceeded("the disk is full")
	}
	return n.Backend.Create(ctx, items...)
}

func TestNothingIsSignedWithoutItsEvent(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(today())})
	addUser(t, s, "alice", nil, "access")
	addToken(t, s, "a-token-of-an-hour", time.Hour, types.RoleNode)
	s.store = noEvents{s.store}
	key := newKeyPair(t)
	cert, err := s.SignUser(ctx, userRequest(t))
	require.ErrorContains(t, err, "to the audit log")
	require.Nil(t, cert)
	certs, err := s.GenerateUserCerts(ctx, proto.UserCertsRequest{Username: "alice", SSHPublicKey: key.ssh})
	require.ErrorContains(t, err, "to the audit log")
	require.Nil(t, certs)
	certs, err = s.RegisterUsingToken(ctx, joinRequest(t, "a-token-of-an-hour"))
	require.ErrorContains(t, err, "to the audit log")
	require.Nil(t, certs)
}
