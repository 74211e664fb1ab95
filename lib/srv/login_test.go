// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/srvtest"
	"teleport-auditd/lib/testhost"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// host is a server on the loopback, where bob has uid 1001 and nobody else lives.
type host struct {
	t        *testing.T
	server   *srv.Server
	addr     string
	clock    *clockwork.FakeClock
	recorder *auditdtest.Recorder
	log      *logtest.Hook
	ca       srvtest.Authority
	cas      *srvtest.CAs
	// conns are the identities that Handle was called with.
	conns  chan srv.Identity
	served chan error
}

// lookup is the host's user database.
func lookup(login string) (uint32, bool, error) {
	switch login {
	case "bob":
		return 1001, true, nil
	case "broken":
		return 0, false, errors.New("the directory does not answer")
	}
	return 0, false, nil
}

func newHost(t *testing.T, change ...func(*srv.Config)) *host {
	return newHostOn(t, "127.0.0.1:0", change...)
}

func newHostOn(t *testing.T, listen string, change ...func(*srv.Config)) *host {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	h := &host{
		t:        t,
		clock:    clockwork.NewFakeClockAt(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)),
		recorder: &auditdtest.Recorder{},
		log:      hook,
		ca:       srvtest.NewAuthority(t),
		cas:      &srvtest.CAs{},
		conns:    make(chan srv.Identity, 100),
		served:   make(chan error, 1),
	}
	h.cas.Trust(h.ca)
	hostKey := srvtest.NewKey(t)
	cfg := srv.Config{
		Component:     "node",
		Emitter:       h.recorder,
		FailureEvents: []auditd.EventType{auditd.AuditUserLogin, auditd.AuditUserErr},
		CAs:           h.cas,
		HostSigners:   func() []ssh.Signer { return []ssh.Signer{hostKey} },
		LookupUID:     lookup,
		Handle: func(_ context.Context, conn *srv.Conn) {
			h.conns <- conn.Identity
			go ssh.DiscardRequests(conn.Requests)
			for channel := range conn.Channels {
				_ = channel.Reject(ssh.Prohibited, "")
			}
		},
		Clock: h.clock,
		Log:   log,
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	h.server, err = srv.New(cfg)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", listen)
	require.NoError(t, err)
	h.addr = listener.Addr().String()
	go func() { h.served <- h.server.Serve(listener) }()
	t.Cleanup(func() { h.server.Close() })
	return h
}

// login tries to log in with an ordinary client.
func (h *host) login(user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", h.addr, &ssh.ClientConfig{
		User:            user,
		Auth:            auth,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		Timeout:         patience,
	})
}

// person returns a certificate to log in with, valid unless change alters it.
func (h *host) person(change ...func(*ssh.Certificate)) ssh.Signer {
	h.t.Helper()
	return h.ca.Login(h.t, h.clock.Now(), change...)
}

// refusals waits for n events, closes the server, so that nothing more can come,
// and returns what was emitted, but for the client's port.
func (h *host) refusals(n int) []auditd.Event {
	h.t.Helper()
	h.recorded(n)
	require.NoError(h.t, h.server.Close())
	return h.recorded(n)
}

// recorded waits for n events, and returns all that there are.
func (h *host) recorded(n int) []auditd.Event {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	_, err := h.recorder.Wait(ctx, n)
	require.NoError(h.t, err)
	events := h.recorder.Events()
	for i := range events {
		client, _, err := net.SplitHostPort(events[i].ConnAddress)
		require.NoError(h.t, err, "ConnAddress is what net.Addr prints")
		events[i].ConnAddress = client
	}
	return events
}

// refusal is the pair of events that one refused connection must cause.
func refusal(login, person, reason string) []auditd.Event {
	event := auditd.Event{
		Type:         auditd.AuditUserLogin,
		Result:       auditd.Failed,
		SystemUser:   login,
		TeleportUser: person,
		ConnAddress:  "127.0.0.1",
		Reason:       reason,
	}
	if uid, found, _ := lookup(login); found {
		event.UID = &uid
	}
	second := event
	second.Type = auditd.AuditUserErr
	return []auditd.Event{event, second}
}

// impostor offers a public key and signs with another one.
type impostor struct {
	ssh.Signer
	public ssh.PublicKey
}

func (i impostor) PublicKey() ssh.PublicKey { return i.public }

// shy offers a public key and then does not sign.
type shy struct{ ssh.Signer }

func (shy) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("the owner did not touch the key")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	principals := func(names ...string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.ValidPrincipals = names }
	}
	option := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions[name] = value }
	}
	signers := func(s ...ssh.Signer) []ssh.AuthMethod { return []ssh.AuthMethod{ssh.PublicKeys(s...)} }
	rsaSigner := func(t *testing.T, bits int) ssh.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		signer, err := ssh.NewSignerFromKey(key)
		require.NoError(t, err)
		return signer
	}
	certified := func(t *testing.T, h *host, ca srvtest.Authority, key ssh.Signer) ssh.Signer {
		signer, err := ssh.NewCertSigner(ca.Certificate(t, key.PublicKey(), h.clock.Now()), key)
		require.NoError(t, err)
		return signer
	}

	for _, tt := range []struct {
		name   string
		login  string // bob where it is empty
		auth   func(t *testing.T, h *host) []ssh.AuthMethod
		person string // alice where the certificate was proven
		reason string
	}{
		{
			name:   "nothing offered",
			auth:   func(*testing.T, *host) []ssh.AuthMethod { return nil },
			reason: "no-certificate-was-offered",
		}, {
			name: "a password",
			auth: func(*testing.T, *host) []ssh.AuthMethod {
				return []ssh.AuthMethod{ssh.Password("hunter2")}
			},
			reason: "no-certificate-was-offered",
		}, {
			name: "a key without a certificate",
			auth: func(t *testing.T, _ *host) []ssh.AuthMethod {
				return signers(srvtest.NewKey(t))
			},
			reason: "key-is-not-a-certificate",
		}, {
			name: "the authority's own key",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.ca.Signer)
			},
			reason: "key-is-not-a-certificate",
		}, {
			name: "an authority that nobody trusts",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				return signers(srvtest.NewAuthority(t).Login(t, h.clock.Now()))
			},
			reason: "certificate-authority-is-not-trusted",
		}, {
			name: "a certificate that its authority did not sign",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				key := srvtest.NewKey(t)
				cert := srvtest.NewAuthority(t).Certificate(t, key.PublicKey(), h.clock.Now())
				cert.SignatureKey = h.ca.PublicKey()
				signer, err := ssh.NewCertSigner(cert, key)
				require.NoError(t, err)
				return signers(signer)
			},
			reason: "certificate-signature-does-not-verify",
		}, {
			name: "a certificate that was altered",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				key := srvtest.NewKey(t)
				cert := h.ca.Certificate(t, key.PublicKey(), h.clock.Now())
				cert.KeyId = "root"
				signer, err := ssh.NewCertSigner(cert, key)
				require.NoError(t, err)
				return signers(signer)
			},
			reason: "certificate-signature-does-not-verify",
		}, {
			name: "no authority can be read",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				h.cas.Fail(errors.New("disk on fire"))
				return signers(h.person())
			},
			reason: "certificate-authorities-could-not-be-read",
		}, {
			name: "an RSA authority that is too short",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				ca := srvtest.Authority{Signer: rsaSigner(t, 1024)}
				h.cas.Trust(ca)
				return signers(ca.Login(t, h.clock.Now()))
			},
			reason: "certificate-authority-RSA-key-is-shorter-than-2048-bits",
		}, {
			name: "an RSA authority that signs with SHA-1",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				old, err := ssh.NewSignerWithAlgorithms(rsaSigner(t, 2048).(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
				require.NoError(t, err)
				ca := srvtest.Authority{Signer: old}
				h.cas.Trust(ca)
				return signers(ca.Login(t, h.clock.Now()))
			},
			reason: "certificate-authority-signature-algorithm-is-not-accepted",
		}, {
			name: "a host certificate",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }))
			},
			reason: "certificate-is-not-a-user-certificate",
		}, {
			name: "an RSA key that is too short",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				return signers(certified(t, h, h.ca, rsaSigner(t, 1024)))
			},
			reason: "RSA-key-is-shorter-than-2048-bits",
		}, {
			name: "RSA with SHA-1",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				old, err := ssh.NewSignerWithAlgorithms(rsaSigner(t, 2048).(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
				require.NoError(t, err)
				return signers(certified(t, h, h.ca, old))
			},
			reason: "key-or-signature-algorithm-is-not-accepted",
		}, {
			name: "offered but not proven",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(shy{h.person()})
			},
			reason: "certificate-was-offered-but-its-key-was-not-proven",
		}, {
			name: "somebody else's certificate",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				return signers(impostor{Signer: srvtest.NewKey(t), public: h.person().PublicKey()})
			},
			reason: "signature-does-not-verify",
		}, {
			name: "somebody else's expired certificate",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				expired := h.person(func(c *ssh.Certificate) { c.ValidBefore = uint64(h.clock.Now().Unix()) })
				return signers(impostor{Signer: srvtest.NewKey(t), public: expired.PublicKey()})
			},
			reason: "signature-does-not-verify",
		}, {
			name: "expired this second",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(func(c *ssh.Certificate) { c.ValidBefore = uint64(h.clock.Now().Unix()) }))
			},
			person: "alice",
			reason: "certificate-has-expired",
		}, {
			name: "valid from the next second",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(func(c *ssh.Certificate) { c.ValidAfter = uint64(h.clock.Now().Unix()) + 1 }))
			},
			person: "alice",
			reason: "certificate-is-not-yet-valid",
		}, {
			name: "valid from a time past 2^63",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 1<<63, ssh.CertTimeInfinity }))
			},
			person: "alice",
			reason: "certificate-is-not-yet-valid",
		}, {
			name: "no principals, which x/crypto/ssh takes for everybody",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(principals()))
			},
			person: "alice",
			reason: "certificate-has-no-principals",
		}, {
			name: "another's principals",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(principals("root", "Bob", "bob ")))
			},
			person: "alice",
			reason: "login-is-not-among-the-principals",
		}, {
			name: "a login that does not exist here",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(principals("ghost")))
			},
			login:  "ghost",
			person: "alice",
			reason: "no-such-user-on-this-host",
		}, {
			name: "a login that C would cut to another",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(principals("bob\x00x")))
			},
			login:  "bob\x00x",
			person: "alice",
			reason: "no-such-user-on-this-host",
		}, {
			name: "a login that cannot be looked up",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(principals("broken")))
			},
			login:  "broken",
			person: "alice",
			reason: "user-database-could-not-be-read",
		}, {
			name: "a critical option that is not known",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(option("no-such-option", "")))
			},
			person: "alice",
			reason: "critical-option-no-such-option-is-not-supported",
		}, {
			name: "a critical option that OpenSSH knows and this server does not",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(option("verify-required", "")))
			},
			person: "alice",
			reason: "critical-option-verify-required-is-not-supported",
		}, {
			name: "a critical option with an endless name",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(option(strings.Repeat("x", 10000), "")))
			},
			person: "alice",
			reason: "critical-option-" + strings.Repeat("x", 64) + "-is-not-supported",
		}, {
			name: "a forced command of nothing, which would force nothing",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(option("force-command", "")))
			},
			person: "alice",
			reason: "critical-option-force-command-is-empty",
		}, {
			name: "roles that nobody can read",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(func(c *ssh.Certificate) { c.Extensions["teleport-roles"] = `["access"` }))
			},
			person: "alice",
			reason: "roles-cannot-be-read",
		}, {
			name: "roles of another version",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(func(c *ssh.Certificate) { c.Extensions["teleport-roles"] = `{"version":"v9","roles":["access"]}` }))
			},
			person: "alice",
			reason: "roles-cannot-be-read",
		}, {
			name: "from elsewhere",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(option("source-address", "192.0.2.0/24,2001:db8::/32")))
			},
			person: "alice",
			reason: "source-address-is-not-allowed",
		}, {
			name: "from here, but the list is malformed",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(option("source-address", "127.0.0.1,localhost")))
			},
			person: "alice",
			reason: "critical-option-source-address-is-malformed",
		}, {
			name:   "a name that tries to write a record of its own",
			auth:   func(*testing.T, *host) []ssh.AuthMethod { return nil },
			login:  "x\" res=success\x00\ntype=USER_LOGIN",
			reason: "no-certificate-was-offered",
		}, {
			name: "a key id that tries the same",
			auth: func(_ *testing.T, h *host) []ssh.AuthMethod {
				return signers(h.person(principals("root"), func(c *ssh.Certificate) { c.KeyId = "x\" res=success\x00\n" }))
			},
			person: "x\" res=success\x00\n",
			reason: "login-is-not-among-the-principals",
		}, {
			name: "seven keys and one certificate that has expired",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				tried := []ssh.Signer{h.person(func(c *ssh.Certificate) { c.ValidBefore = uint64(h.clock.Now().Unix()) })}
				for range 7 {
					tried = append(tried, srvtest.NewKey(t))
				}
				return signers(tried...)
			},
			person: "alice",
			reason: "certificate-has-expired",
		}, {
			name: "an untrusted certificate and then keys",
			auth: func(t *testing.T, h *host) []ssh.AuthMethod {
				return signers(srvtest.NewAuthority(t).Login(t, h.clock.Now()), srvtest.NewKey(t), srvtest.NewKey(t))
			},
			reason: "certificate-authority-is-not-trusted",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if tt.login == "" {
				tt.login = "bob"
			}
			_, err := h.login(tt.login, tt.auth(t, h)...)
			require.Error(t, err)
			require.NotContains(t, err.Error(), tt.reason, "the client must not be told why")
			require.Equal(t, refusal(tt.login, tt.person, tt.reason), h.refusals(2))
			require.Empty(t, h.conns, "Handle must not see who was refused")
		})
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*ssh.Certificate)
		want   func(*srv.Identity)
		warns  bool
	}{
		{
			name:   "as ssh-keygen signs by default",
			change: func(*ssh.Certificate) {},
			want:   func(*srv.Identity) {},
		}, {
			name: "with nothing permitted, a forced command, for ever",
			change: func(c *ssh.Certificate) {
				c.Extensions = nil
				c.CriticalOptions["force-command"] = "uptime"
				c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity
			},
			want: func(i *srv.Identity) {
				i.ForceCommand = "uptime"
				i.ValidBefore = time.Time{}
				i.PermitPTY, i.PermitPortForwarding, i.PermitAgentForwarding, i.PermitX11Forwarding, i.PermitUserRC = false, false, false, false, false
			},
		}, {
			name:   "until a time past 2^63",
			change: func(c *ssh.Certificate) { c.ValidBefore = 1<<63 + 1 },
			want:   func(i *srv.Identity) { i.ValidBefore = time.Time{} },
		}, {
			name:   "from one of several allowed places",
			change: func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "2001:db8::/32,192.0.2.1,127.0.0.0/8" },
			want:   func(*srv.Identity) {},
		}, {
			name: "with roles",
			change: func(c *ssh.Certificate) {
				c.Extensions["teleport-roles"] = `{"version":"v1","roles":["access","editor"]}`
			},
			want: func(i *srv.Identity) { i.Roles = []string{"access", "editor"} },
		}, {
			name:   "with a list of roles that is empty",
			change: func(c *ssh.Certificate) { c.Extensions["teleport-roles"] = `{"version":"v1"}` },
			want:   func(i *srv.Identity) { i.Roles = []string{} },
		}, {
			name: "with traits",
			change: func(c *ssh.Certificate) {
				c.ValidPrincipals = []string{"bob", "deploy"}
				c.Extensions["teleport-traits"] = `{"team":["db","web"],"none":[],"null":null}`
			},
			want: func(i *srv.Identity) {
				i.Principals = []string{"bob", "deploy"}
				i.Traits = map[string][]string{"team": {"db", "web"}, "none": {}, "null": nil}
			},
		}, {
			name:   "with traits that nobody can read",
			change: func(c *ssh.Certificate) { c.Extensions["teleport-traits"] = `{"team":"db"}` },
			want:   func(*srv.Identity) {},
			warns:  true,
		}, {
			name: "with more traits than anybody has",
			change: func(c *ssh.Certificate) {
				c.Extensions["teleport-traits"] = `{"team":["` + strings.Repeat(`","`, 5000) + `"]}`
			},
			want:  func(*srv.Identity) {},
			warns: true,
		}, {
			name:   "with a key id of any bytes",
			change: func(c *ssh.Certificate) { c.KeyId = "\x00\n\"" + strings.Repeat("Ω", 5000) },
			want:   func(i *srv.Identity) { i.TeleportUser = "\x00\n\"" + strings.Repeat("Ω", 5000) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			client, err := h.login("bob", ssh.PublicKeys(h.person(tt.change)))
			require.NoError(t, err)
			want := srv.Identity{
				Login:                 "bob",
				UID:                   1001,
				TeleportUser:          "alice",
				Principals:            []string{"bob"},
				Serial:                7,
				CA:                    ssh.FingerprintSHA256(h.ca.PublicKey()),
				ValidBefore:           time.Unix(h.clock.Now().Add(time.Hour).Unix(), 0),
				PermitPTY:             true,
				PermitPortForwarding:  true,
				PermitAgentForwarding: true,
				PermitX11Forwarding:   true,
				PermitUserRC:          true,
			}
			tt.want(&want)
			require.Equal(t, want, <-h.conns)
			client.Close()
			require.Empty(t, h.refusals(0), "a success has no failure")
			warned := false
			for _, entry := range h.log.AllEntries() {
				warned = warned || entry.Level == logrus.WarnLevel
				require.NotContains(t, entry.Message, "\x00")
			}
			require.Equal(t, tt.warns, warned)
		})
	}
}

// TestKeys logs in with each kind of key that a file can hold.
func TestKeys(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	keys := map[string]any{ssh.KeyAlgoRSASHA256: rsaKey, ssh.KeyAlgoRSASHA512: rsaKey}
	for name, curve := range map[string]elliptic.Curve{
		ssh.KeyAlgoECDSA256: elliptic.P256(), ssh.KeyAlgoECDSA384: elliptic.P384(), ssh.KeyAlgoECDSA521: elliptic.P521(),
	} {
		keys[name], err = ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
	}
	for algorithm, key := range keys {
		plain, err := ssh.NewSignerFromKey(key)
		require.NoError(t, err)
		plain, err = ssh.NewSignerWithAlgorithms(plain.(ssh.AlgorithmSigner), []string{algorithm})
		require.NoError(t, err)

		// As the user's key, and as the authority's.
		signer, err := ssh.NewCertSigner(h.ca.Certificate(t, plain.PublicKey(), h.clock.Now()), plain)
		require.NoError(t, err)
		authority := srvtest.Authority{Signer: plain}
		h.cas.Trust(h.ca, authority)
		for _, signer := range []ssh.Signer{signer, authority.Login(t, h.clock.Now())} {
			client, err := h.login("bob", ssh.PublicKeys(signer))
			require.NoError(t, err, algorithm)
			<-h.conns
			client.Close()
		}
	}
	require.Empty(t, h.refusals(0))
}

// device is a security key in software (PROTOCOL.u2f): its owner may touch it.
type device struct {
	private ed25519.PrivateKey
	touched bool
}

func (d device) PublicKey() ssh.PublicKey {
	key, err := ssh.ParsePublicKey(ssh.Marshal(&struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, d.private.Public().(ed25519.PublicKey), "ssh:"}))
	if err != nil {
		panic(err)
	}
	return key
}

func (d device) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	state := make([]byte, 5) // flags and a counter
	if d.touched {
		state[0] = 1
	}
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	return &ssh.Signature{
		Format: ssh.KeyAlgoSKED25519,
		Blob:   ed25519.Sign(d.private, slices.Concat(application[:], state, message[:])),
		Rest:   state,
	}, nil
}

func TestSecurityKeys(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, tt := range []struct {
		name    string
		touched bool
		change  func(*ssh.Certificate)
		want    []auditd.Event
	}{
		{"touched", true, func(*ssh.Certificate) {}, nil},
		{"not touched", false, func(*ssh.Certificate) {}, refusal("bob", "", "signature-does-not-verify")},
		{"not touched, as the authority allows", false, func(c *ssh.Certificate) { c.Extensions["no-touch-required"] = "" }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			d := device{private: private, touched: tt.touched}
			signer, err := ssh.NewCertSigner(h.ca.Certificate(t, d.PublicKey(), h.clock.Now(), tt.change), d)
			require.NoError(t, err)
			client, err := h.login("bob", ssh.PublicKeys(signer))
			if tt.want == nil {
				require.NoError(t, err)
				<-h.conns
				client.Close()
			}
			require.Equal(t, tt.want, h.refusals(len(tt.want)))
		})
	}
}

func TestSourceAddressOverIPv6(t *testing.T) {
	t.Parallel()
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		testhost.Skip(t, "this host has no IPv6 loopback: %v", err)
	}
	probe.Close()
	for list, allowed := range map[string]bool{
		"::1":                     true,
		"::/64":                   true,
		"2001:db8::/32":           false,
		"127.0.0.1":               false,
		"192.0.2.1,0:0:0:0:0::01": true,
	} {
		h := newHostOn(t, "[::1]:0")
		_, err := h.login("bob", ssh.PublicKeys(h.person(func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = list })))
		require.Equal(t, allowed, err == nil, "%s: %v", list, err)
		if !allowed {
			events := h.refusals(2)
			require.Len(t, events, 2)
			require.Equal(t, "source-address-is-not-allowed", events[0].Reason)
			require.Equal(t, "::1", events[0].ConnAddress)
		}
	}
}

func TestSuccessAfterFailuresIsSilent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	expired := h.person(func(c *ssh.Certificate) { c.ValidBefore = uint64(h.clock.Now().Unix()) })
	client, err := h.login("bob", ssh.PublicKeys(
		srvtest.NewKey(t), srvtest.NewAuthority(t).Login(t, h.clock.Now()), expired, h.person()))
	require.NoError(t, err)
	require.Equal(t, "alice", (<-h.conns).TeleportUser)
	client.Close()
	require.Empty(t, h.refusals(0))
}

func TestUserNameChangesBetweenAttempts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(h *host, w *wire)
		want func() []auditd.Event
	}{
		{
			name: "the first name, which is the only one",
			do: func(_ *host, w *wire) {
				require.EqualValues(w.t, msgFailure, w.ask("root", "none", nil))
				w.request("bob", "none", nil)
				w.end()
			},
			want: func() []auditd.Event { return refusal("root", "", "no-certificate-was-offered") },
		}, {
			name: "the name of the certificate that was proven, whatever came after it",
			do: func(h *host, w *wire) {
				require.EqualValues(w.t, msgFailure, w.ask("root", "none", nil))
				signer := h.person()
				require.EqualValues(w.t, msgKeyOK, w.offer("root", signer.PublicKey()))
				w.prove("root", "root", signer)
				require.EqualValues(w.t, msgFailure, w.read()[0])
				// It would be let in as bob.
				w.prove("bob", "bob", signer)
				w.end()
			},
			want: func() []auditd.Event {
				return refusal("root", "alice", "login-is-not-among-the-principals")
			},
		}, {
			name: "an offer for one name does not let in another",
			do: func(h *host, w *wire) {
				signer := h.person()
				require.EqualValues(w.t, msgKeyOK, w.offer("root", signer.PublicKey()))
				w.prove("bob", "bob", signer)
				w.end()
			},
			want: func() []auditd.Event {
				return refusal("root", "", "certificate-was-offered-but-its-key-was-not-proven")
			},
		}, {
			name: "a signature for one name does not let in another",
			do: func(h *host, w *wire) {
				signer := h.person(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob", "root"} })
				w.prove("bob", "root", signer)
				w.end()
			},
			want: func() []auditd.Event { return refusal("bob", "", "signature-does-not-verify") },
		}, {
			name: "the same key twice, refused from memory the second time",
			do: func(_ *host, w *wire) {
				key := srvtest.NewKey(w.t)
				require.EqualValues(w.t, msgFailure, w.offer("bob", key.PublicKey()))
				require.EqualValues(w.t, msgFailure, w.offer("bob", key.PublicKey()))
			},
			want: func() []auditd.Event { return refusal("bob", "", "key-is-not-a-certificate") },
		}, {
			name: "a certificate offered for one name, a bad signature for the next key of another",
			do: func(h *host, w *wire) {
				require.EqualValues(w.t, msgKeyOK, w.offer("bob", h.person().PublicKey()))
				stranger := impostor{Signer: srvtest.NewKey(w.t), public: srvtest.NewKey(w.t).PublicKey()}
				w.prove("root", "root", stranger)
				w.end()
			},
			want: func() []auditd.Event {
				return refusal("bob", "", "certificate-was-offered-but-its-key-was-not-proven")
			},
		}, {
			name: "a first request that is broken off",
			do: func(_ *host, w *wire) {
				w.request("bob", "publickey", nil)
				w.end()
			},
			want: func() []auditd.Event { return refusal("bob", "", "no-certificate-was-offered") },
		}, {
			name: "a key that is no key",
			do: func(_ *host, w *wire) {
				require.EqualValues(w.t, msgFailure, w.ask("bob", "publickey", ssh.Marshal(&struct {
					Signed bool
					Algo   string
					Key    []byte
				}{false, ssh.CertAlgoED25519v01, []byte("garbage")})))
			},
			want: func() []auditd.Event { return refusal("bob", "", "key-or-signature-algorithm-is-not-accepted") },
		}, {
			name: "more attempts than anybody needs",
			do: func(_ *host, w *wire) {
				for range 6 {
					require.EqualValues(w.t, msgFailure, w.ask("bob", "none", nil))
				}
				w.request("root", "none", nil)
				w.end()
			},
			want: func() []auditd.Event { return refusal("bob", "", "no-certificate-was-offered") },
		}, {
			name: "the empty name",
			do: func(_ *host, w *wire) {
				require.EqualValues(w.t, msgFailure, w.ask("", "none", nil))
			},
			want: func() []auditd.Event { return refusal("", "", "no-certificate-was-offered") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			w := newWire(t, h.addr)
			tt.do(h, w)
			w.conn.Close()
			require.Equal(t, tt.want(), h.refusals(2))
		})
	}
}

// TestEndlessName is bounded in the event and in the log, and never looked up.
func TestEndlessName(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *srv.Config) {
		cfg.LookupUID = func(login string) (uint32, bool, error) {
			t.Errorf("a name of %d bytes was looked up", len(login))
			return 0, false, nil
		}
	})
	name := strings.Repeat("é", 5000)
	_, err := h.login(name)
	require.Error(t, err)
	require.Equal(t, refusal(name[:4096], "", "no-certificate-was-offered"), h.refusals(2))
	for _, entry := range h.log.AllEntries() {
		require.Less(t, len(entry.Message), 1000)
	}
}

func TestProbesAreSilent(t *testing.T) {
	t.Parallel()
	for name, probe := range map[string]func(t *testing.T, h *host){
		"nothing": func(t *testing.T, h *host) {
			conn, err := net.Dial("tcp", h.addr)
			require.NoError(t, err)
			conn.Close()
		},
		"another protocol": func(t *testing.T, h *host) {
			conn, err := net.Dial("tcp", h.addr)
			require.NoError(t, err)
			_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			conn.Close()
		},
		"the host key, as ssh-keyscan asks for it": func(t *testing.T, h *host) {
			newWire(t, h.addr).conn.Close()
		},
		"a service that is not there": func(t *testing.T, h *host) {
			w := newWire(t, h.addr)
			w.write(ssh.Marshal(&struct {
				User    string `sshtype:"50"`
				Service string
				Method  string
			}{"bob", "ssh-nonsense", "none"}))
			w.end()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			probe(t, h)
			require.Eventually(t, func() bool { return len(h.log.AllEntries()) > 0 }, patience, time.Millisecond)
			require.Equal(t, logrus.DebugLevel, h.log.LastEntry().Level, "a port scan must not fill the log")
			require.Empty(t, h.refusals(0))
		})
	}
}

func TestLoginGraceTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(h *host, w *wire)
		want func() []auditd.Event
	}{
		{"without a name", func(*host, *wire) {}, func() []auditd.Event { return nil }},
		{"after a name", func(_ *host, w *wire) {
			w.ask("bob", "none", nil)
		}, func() []auditd.Event { return refusal("bob", "", "login-grace-time-is-over") }},
		{"while the owner looks for the key", func(h *host, w *wire) {
			w.offer("bob", h.person().PublicKey())
		}, func() []auditd.Event { return refusal("bob", "", "login-grace-time-is-over") }},
		{"after something that tells more", func(_ *host, w *wire) {
			w.offer("bob", srvtest.NewKey(w.t).PublicKey())
		}, func() []auditd.Event { return refusal("bob", "", "key-is-not-a-certificate") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			w := newWire(t, h.addr)
			tt.do(h, w)
			h.clock.Advance(2*time.Minute - time.Second)
			if tt.want() != nil {
				require.EqualValues(t, msgFailure, w.ask("bob", "none", nil), "there is a second left")
			}
			h.clock.Advance(time.Second)
			w.end()
			require.Equal(t, tt.want(), h.refusals(len(tt.want())))
		})
	}

	t.Run("not for who has logged in", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		client, err := h.login("bob", ssh.PublicKeys(h.person()))
		require.NoError(t, err)
		<-h.conns
		h.clock.Advance(time.Hour)
		_, _, err = client.SendRequest("keepalive@openssh.com", true, nil)
		require.NoError(t, err)
		require.Empty(t, h.refusals(0))
	})
}

func TestRotation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	next := srvtest.NewAuthority(t)
	oldPerson, newPerson := h.person(), next.Login(t, h.clock.Now())
	mayLogin := func(signer ssh.Signer) bool {
		client, err := h.login("bob", ssh.PublicKeys(signer))
		if err == nil {
			client.Close()
		}
		return err == nil
	}
	require.True(t, mayLogin(oldPerson))
	require.False(t, mayLogin(newPerson))
	h.cas.Trust(h.ca, next)
	require.True(t, mayLogin(oldPerson))
	require.True(t, mayLogin(newPerson))
	h.cas.Trust(next)
	require.False(t, mayLogin(oldPerson))
	require.True(t, mayLogin(newPerson))

	// An authority that goes between the offer and the proof.
	w := newWire(t, h.addr)
	require.EqualValues(t, msgKeyOK, w.offer("bob", newPerson.PublicKey()))
	h.cas.Trust()
	w.prove("bob", "bob", newPerson)
	require.EqualValues(t, msgFailure, w.read()[0])
}

func TestAlgorithms(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	offered := newWire(t, h.addr).serverKex
	require.Equal(t, []string{
		"mlkem768x25519-sha256",
		"curve25519-sha256",
		"curve25519-sha256@libssh.org",
		"ecdh-sha2-nistp256",
		"ecdh-sha2-nistp384",
		"ecdh-sha2-nistp521",
		"kex-strict-s-v00@openssh.com",
	}, offered.KexAlgos)
	require.Equal(t, []string{"ssh-ed25519"}, offered.ServerHostKeyAlgos)
	require.Subset(t, []string{
		"chacha20-poly1305@openssh.com",
		"aes128-gcm@openssh.com",
		"aes256-gcm@openssh.com",
		"aes128-ctr",
		"aes192-ctr",
		"aes256-ctr",
	}, offered.CiphersClientServer)
	require.Equal(t, offered.CiphersClientServer, offered.CiphersServerClient)
	require.Equal(t, []string{
		"hmac-sha2-256-etm@openssh.com",
		"hmac-sha2-512-etm@openssh.com",
		"hmac-sha2-256",
		"hmac-sha2-512",
	}, offered.MACsClientServer)
	require.Equal(t, offered.MACsClientServer, offered.MACsServerClient)
	require.Equal(t, []string{"none"}, offered.CompressionClientServer)
	require.Equal(t, []string{"none"}, offered.CompressionServerClient)
}

func TestHostKeys(t *testing.T) {
	t.Parallel()
	key := srvtest.NewKey(t)
	hostCA := srvtest.NewAuthority(t)
	certificate, err := ssh.NewCertSigner(hostCA.Certificate(t, key.PublicKey(), time.Now(), func(c *ssh.Certificate) {
		c.CertType = ssh.HostCert
		c.ValidPrincipals = []string{"127.0.0.1"}
	}), key)
	require.NoError(t, err)
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	wrong, err := ssh.NewSignerFromKey(ecdsaKey)
	require.NoError(t, err)

	for _, tt := range []struct {
		name    string
		signers []ssh.Signer
		check   ssh.HostKeyCallback
		log     string
	}{
		{name: "a key", signers: []ssh.Signer{key}, check: ssh.FixedHostKey(key.PublicKey())},
		{name: "a certificate and its key", signers: []ssh.Signer{certificate, key}, check: (&ssh.CertChecker{
			IsHostAuthority: func(ca ssh.PublicKey, _ string) bool {
				return string(ca.Marshal()) == string(hostCA.PublicKey().Marshal())
			},
		}).CheckHostKey},
		{name: "none", check: ssh.FixedHostKey(key.PublicKey()), log: "this host has no host key"},
		{name: "one that is not Ed25519", signers: []ssh.Signer{key, wrong}, check: ssh.FixedHostKey(key.PublicKey()), log: "a host key is of type ecdsa-sha2-nistp256; host keys must be Ed25519"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, func(cfg *srv.Config) {
				cfg.HostSigners = func() []ssh.Signer { return tt.signers }
			})
			client, err := ssh.Dial("tcp", h.addr, &ssh.ClientConfig{
				User:            "bob",
				Auth:            []ssh.AuthMethod{ssh.PublicKeys(h.person())},
				HostKeyCallback: tt.check,
			})
			if tt.log == "" {
				require.NoError(t, err)
				require.Equal(t, "SSH-2.0-Teleport", string(client.ServerVersion()))
				client.Close()
				return
			}
			require.ErrorContains(t, err, "handshake failed")
			require.Empty(t, h.refusals(0))
			require.NotNil(t, h.log.LastEntry(), "%v", err)
			require.Equal(t, logrus.ErrorLevel, h.log.LastEntry().Level)
			require.Contains(t, h.log.LastEntry().Message, tt.log)
		})
	}
}
