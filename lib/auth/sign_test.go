// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func newKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return sshKey(t, public)
}

func sshKey(t *testing.T, key any) ssh.PublicKey {
	t.Helper()
	public, err := ssh.NewPublicKey(key)
	require.NoError(t, err)
	return public
}

func userRequest(t *testing.T) UserCertRequest {
	return UserCertRequest{PublicKey: newKey(t), User: "alice", Logins: []string{"bob", "root"}, TTL: time.Hour}
}

func hostRequest(t *testing.T) HostCertRequest {
	return HostCertRequest{
		PublicKey:  newKey(t),
		HostID:     "6c1f7d3e-9a39-4d0c-8d5e-0f1e2d3c4b5a",
		NodeName:   "Web1",
		Role:       types.RoleNode,
		Principals: []string{"192.0.2.7", "2001:db8::7", "web1"},
		TTL:        time.Hour,
	}
}

// what anybody who trusts the authorities checks, at a moment.
func checker(keys []ssh.PublicKey, now time.Time) *ssh.CertChecker {
	known := func(key ssh.PublicKey) bool {
		for _, k := range keys {
			if string(k.Marshal()) == string(key.Marshal()) {
				return true
			}
		}
		return false
	}
	return &ssh.CertChecker{
		IsUserAuthority: known,
		IsHostAuthority: func(key ssh.PublicKey, _ string) bool { return known(key) },
		Clock:           func() time.Time { return now },
	}
}

func TestSignUser(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 11, 22, 11, 35, 0, 0, time.UTC)
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(now)})
	req := userRequest(t)
	cert, err := s.SignUser(ctx, req)
	require.NoError(t, err)

	require.EqualValues(t, ssh.UserCert, cert.CertType)
	require.Equal(t, "alice", cert.KeyId)
	require.Equal(t, []string{"bob", "root"}, cert.ValidPrincipals)
	require.Equal(t, req.PublicKey, cert.Key)
	require.EqualValues(t, now.Add(-time.Minute).Unix(), cert.ValidAfter)
	require.EqualValues(t, now.Add(time.Hour).Unix(), cert.ValidBefore)
	require.Empty(t, cert.CriticalOptions)
	require.Equal(t, map[string]string{
		"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "",
	}, cert.Extensions)

	again, err := s.SignUser(ctx, req)
	require.NoError(t, err)
	require.NotEqual(t, cert.Serial, again.Serial)

	users, err := s.UserCAs(ctx)
	require.NoError(t, err)
	hosts, err := s.HostCAs(ctx)
	require.NoError(t, err)
	login := func(keys []ssh.PublicKey, now time.Time, login string) error {
		_, err := checker(keys, now).Authenticate(conn{user: login}, cert)
		return err
	}
	require.NoError(t, login(users, now, "bob"))
	require.NoError(t, login(users, now.Add(-time.Minute), "root"), "a host whose clock is a minute behind")
	require.NoError(t, login(users, now.Add(time.Hour-time.Second), "root"))
	require.Error(t, login(users, now.Add(time.Hour), "bob"), "expired")
	require.Error(t, login(users, now, "alice"), "the user is no login")
	require.Error(t, login(hosts, now, "bob"), "signed by the hosts' authority")
}

// conn is the little that CertChecker asks of a connection.
type conn struct {
	ssh.ConnMetadata
	user string
}

func (c conn) User() string         { return c.user }
func (c conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }

func TestSignHost(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 11, 22, 11, 35, 0, 0, time.UTC)
	s := open(t, Config{Clock: clockwork.NewFakeClockAt(now)})
	cert, err := s.SignHost(ctx, hostRequest(t))
	require.NoError(t, err)

	require.EqualValues(t, ssh.HostCert, cert.CertType)
	require.Equal(t, "6c1f7d3e-9a39-4d0c-8d5e-0f1e2d3c4b5a.example.com", cert.KeyId)
	require.Equal(t, []string{
		"Web1", "web1",
		"Web1.example.com", "web1.example.com",
		"6c1f7d3e-9a39-4d0c-8d5e-0f1e2d3c4b5a",
		"6c1f7d3e-9a39-4d0c-8d5e-0f1e2d3c4b5a.example.com",
		"192.0.2.7", "2001:db8::7",
	}, cert.ValidPrincipals)
	require.Equal(t, map[string]string{"x-teleport-role": "Node", "x-teleport-authority": "example.com"}, cert.Extensions)
	require.EqualValues(t, now.Add(-time.Minute).Unix(), cert.ValidAfter)
	require.EqualValues(t, now.Add(time.Hour).Unix(), cert.ValidBefore)

	users, err := s.UserCAs(ctx)
	require.NoError(t, err)
	hosts, err := s.HostCAs(ctx)
	require.NoError(t, err)
	require.NoError(t, checker(hosts, now).CheckHostKey("web1.example.com:3022", &net.TCPAddr{}, cert))
	require.Error(t, checker(hosts, now).CheckHostKey("web2:3022", &net.TCPAddr{}, cert))
	require.Error(t, checker(users, now).CheckHostKey("web1:3022", &net.TCPAddr{}, cert), "signed by the users' authority")
}

func TestNamesOfUsersInAnyScript(t *testing.T) {
	s := open(t, Config{})
	for _, user := range []string{
		"a", "alice@example.com", "o'brien", `he said "hi"`, "Ada Lovelace", "=x", "-rf", "a,b", `back\slash`,
		"Zoë", "Ζωή", "Жанна", "שרה", "سارة", "अनीता", "王芳", "ひろし", "지우", "🦀", "6162",
		strings.Repeat("ж", 127), strings.Repeat("x", 255),
	} {
		req := userRequest(t)
		req.User = user
		cert, err := s.SignUser(t.Context(), req)
		require.NoError(t, err, "%q", user)
		require.Equal(t, user, cert.KeyId)
	}
}

func TestUserRequestsRefused(t *testing.T) {
	s := open(t, Config{})
	user := func(name string) func(*UserCertRequest) {
		return func(r *UserCertRequest) { r.User = name }
	}
	logins := func(names ...string) func(*UserCertRequest) {
		return func(r *UserCertRequest) { r.Logins = names }
	}
	ttl := func(d time.Duration) func(*UserCertRequest) {
		return func(r *UserCertRequest) { r.TTL = d }
	}
	var many []string
	for i := range MaxPrincipals + 1 {
		many = append(many, fmt.Sprintf("login%d", i))
	}
	for _, tc := range []struct {
		name   string
		change func(*UserCertRequest)
		want   string
	}{
		{"no user", user(""), "user name is empty"},
		{"user of 256 bytes", user(strings.Repeat("x", 256)), "256 bytes long"},
		{"user of a megabyte", user(strings.Repeat("x", 1<<20)), "at most 255"},
		{"user with a newline", user("alice\nroot"), "U+000A"},
		{"user with a NUL", user("alice\x00"), "U+0000"},
		{"user with an escape sequence", user("\x1b[2Jalice"), "U+001B"},
		{"user with a C1 control", user("alice\u009b"), "U+009B"},
		{"user that turns the text around", user("alice\u202ebob"), "U+202E"},
		{"user with an invisible space", user("ali\u200bce"), "U+200B"},
		{"user with a no-break space", user("alice\u00a0"), "U+00A0"},
		{"user in no encoding", user("alice\xff"), "not UTF-8"},
		{"user of one space", user(" "), "space"},
		{"user with a space at the end", user("alice "), "space"},

		{"no logins", logins(), "no logins"},
		{"empty login", logins("bob", ""), "login is empty"},
		{"login of 256 bytes", logins(strings.Repeat("x", 256)), "256 bytes long"},
		{"login with a newline", logins("bob\nroot"), "U+000A"},
		{"login with a NUL", logins("bob\x00"), "U+0000"},
		{"login with a comma", logins("bob,root"), `"bob,root"`},
		{"login with a space", logins("bob root"), "space"},
		{"login with a tab", logins("bob\troot"), "U+0009"},
		{"login with a double quote", logins(`bob"`), "quote"},
		{"login with a single quote", logins("bob'"), "quote"},
		{"login with a back quote", logins("`id`"), "quote"},
		{"login like an option", logins("-oProxyCommand=x"), "dash"},
		{"login in no encoding", logins("bob\xc3"), "not UTF-8"},
		{"login twice", logins("bob", "root", "bob"), "twice"},
		{"257 logins", logins(many...), "at most 256"},

		{"TTL of nothing", ttl(0), "one second"},
		{"negative TTL", ttl(-time.Hour), "one second"},
		{"TTL below the certificate's unit", ttl(time.Millisecond), "one second"},
		{"TTL of more than a year", ttl(MaxTTL + time.Second), "365 days"},
		{"the longest TTL there is", ttl(1<<63 - 1), "365 days"},

		{"no key", func(r *UserCertRequest) { r.PublicKey = nil }, "no public key"},
		{"a certificate for a key", func(r *UserCertRequest) {
			cert, err := s.SignUser(t.Context(), userRequest(t))
			require.NoError(t, err)
			r.PublicKey = cert
		}, "cert-v01@openssh.com"},
		{"RSA of 1024 bits", func(r *UserCertRequest) {
			modulus := new(big.Int).Lsh(big.NewInt(1), 1023)
			r.PublicKey = sshKey(t, &rsa.PublicKey{N: modulus.Add(modulus, big.NewInt(1)), E: 65537})
		}, "1024 bits"},
		{"DSA", func(r *UserCertRequest) {
			wire := ssh.Marshal(struct {
				Type       string
				P, Q, G, Y *big.Int
			}{"ssh-dss", new(big.Int).Lsh(big.NewInt(1), 1023), new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(2), big.NewInt(5)})
			key, err := ssh.ParsePublicKey(wire)
			require.NoError(t, err)
			r.PublicKey = key
		}, "ssh-dss"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := userRequest(t)
			tc.change(&req)
			cert, err := s.SignUser(t.Context(), req)
			require.True(t, trace.IsBadParameter(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.Nil(t, cert)
			require.Less(t, len(err.Error()), 2000)
			require.NotContains(t, err.Error(), "\n")
		})
	}

	t.Run("256 logins, a year, and the other kinds of keys", func(t *testing.T) {
		curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		for _, key := range []ssh.PublicKey{sshKey(t, &curve.PublicKey), sshKey(t, &rsaKey.PublicKey)} {
			req := UserCertRequest{PublicKey: key, User: "alice", Logins: many[:MaxPrincipals], TTL: MaxTTL}
			_, err := s.SignUser(t.Context(), req)
			require.NoError(t, err)
		}
	})
}

func TestHostRequestsRefused(t *testing.T) {
	s := open(t, Config{})
	principal := func(name string) func(*HostCertRequest) {
		return func(r *HostCertRequest) { r.Principals = []string{name} }
	}
	var many []string
	for i := range MaxPrincipals {
		many = append(many, fmt.Sprintf("host%d", i))
	}
	for _, tc := range []struct {
		name   string
		change func(*HostCertRequest)
		want   string
	}{
		{"no host id", func(r *HostCertRequest) { r.HostID = "" }, "host id is empty"},
		{"no node name", func(r *HostCertRequest) { r.NodeName = "" }, "node name is empty"},
		{"node name with a space", func(r *HostCertRequest) { r.NodeName = "web 1" }, `' '`},
		{"node name like an option", func(r *HostCertRequest) { r.NodeName = "-web" }, `begins with "-"`},
		{"any host", principal("*"), `'*'`},
		{"any host of one letter", principal("we?"), `'?'`},
		{"two hosts", principal("a,b"), `','`},
		{"address in brackets", principal("[::1]"), `'['`},
		{"newline", principal("a\nb"), "U+000A"},
		{"empty", principal(""), "empty"},
		{"of 256 bytes", principal(strings.Repeat("x", 256)), "256 bytes"},
		{"too many", func(r *HostCertRequest) { r.Principals = many }, "at most 256"},
		{"no role", func(r *HostCertRequest) { r.Role = "" }, "role"},
		{"another role", func(r *HostCertRequest) { r.Role = types.RoleAdmin }, `"Admin"`},
		{"no key", func(r *HostCertRequest) { r.PublicKey = nil }, "no public key"},
		{"no TTL", func(r *HostCertRequest) { r.TTL = 0 }, "one second"},
		{"too long a TTL", func(r *HostCertRequest) { r.TTL = MaxTTL + 1 }, "365 days"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := hostRequest(t)
			tc.change(&req)
			_, err := s.SignHost(t.Context(), req)
			require.True(t, trace.IsBadParameter(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
		})
	}
}
