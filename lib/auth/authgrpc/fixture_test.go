// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/breaker"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/authgrpc"
)

const testCluster = "example.com"

// fixture is a cluster that is served over TCP.
type fixture struct {
	dir    string
	auth   *auth.Server
	server *authgrpc.Server
	addr   string
}

func discard() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

func newFixture(t *testing.T, change ...func(*authgrpc.Config)) *fixture {
	t.Helper()
	f := &fixture{dir: filepath.Join(t.TempDir(), "data")}
	f.auth = f.open(t, clockwork.NewRealClock())
	cfg := authgrpc.Config{
		Auth:        f.auth,
		People:      f.auth,
		Certificate: f.auth.ServerCertificate(nil),
		Version:     "1.2.3",
		Log:         discard(),
	}
	for _, each := range change {
		each(&cfg)
	}
	server, err := authgrpc.New(cfg)
	require.NoError(t, err)
	f.server = server
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f.addr = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, <-served)
	})
	return f
}

func (f *fixture) open(t *testing.T, clock clockwork.Clock) *auth.Server {
	t.Helper()
	s, err := auth.Open(t.Context(), auth.Config{DataDir: f.dir, ClusterName: testCluster, Clock: clock, Log: discard()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// dial connects with credentials, or fails within some seconds.
func (f *fixture) dial(t *testing.T, credentials client.Credentials) (*client.Client, error) {
	t.Helper()
	c, err := client.New(t.Context(), client.Config{
		Addrs:                      []string{f.addr},
		Credentials:                []client.Credentials{credentials},
		ALPNSNIAuthDialClusterName: testCluster,
		DialTimeout:                5 * time.Second,
		CircuitBreakerConfig:       breaker.NoopBreakerConfig(),
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, nil
}

func (f *fixture) connect(t *testing.T, credentials client.Credentials) *client.Client {
	t.Helper()
	c, err := f.dial(t, credentials)
	require.NoError(t, err)
	return c
}

// admin is what tctl has on the host of the auth service.
func (f *fixture) admin(t *testing.T) client.Credentials {
	t.Helper()
	config, err := f.auth.AdminTLS(t.Context())
	require.NoError(t, err)
	return client.LoadTLS(config)
}

// anonymous trusts the cluster and has no certificate.
func (f *fixture) anonymous(t *testing.T) client.Credentials {
	t.Helper()
	config, err := f.auth.AdminTLS(t.Context())
	require.NoError(t, err)
	config.Certificates = nil
	return client.LoadTLS(config)
}

// keys are a new key pair, and its public part in both formats.
type keys struct {
	private *ecdsa.PrivateKey
	ssh     []byte
	tls     []byte
}

func newKeys(t *testing.T) keys {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sshKey, err := ssh.NewPublicKey(private.Public())
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	require.NoError(t, err)
	return keys{
		private: private,
		ssh:     ssh.MarshalAuthorizedKey(sshKey),
		tls:     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	}
}

// credentials are certificates that were signed for the keys.
func (k keys) credentials(t *testing.T, certs *proto.Certs) client.Credentials {
	t.Helper()
	block, _ := pem.Decode(certs.TLS)
	require.NotNil(t, block)
	pool := x509.NewCertPool()
	for _, ca := range certs.TLSCACerts {
		require.True(t, pool.AppendCertsFromPEM(ca))
	}
	return client.LoadTLS(&tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: k.private}},
		RootCAs:      pool,
	})
}

// user returns credentials of a user of the cluster, who is made where there is
// none.
func user(t *testing.T, s *auth.Server, name string, ttl time.Duration, roles ...string) client.Credentials {
	t.Helper()
	object, err := types.NewUser(name)
	require.NoError(t, err)
	object.SetRoles(roles)
	object.SetLogins([]string{"root"})
	_, err = s.UpsertUser(t.Context(), object)
	require.NoError(t, err)
	k := newKeys(t)
	certs, err := s.GenerateUserCerts(t.Context(), proto.UserCertsRequest{
		Username: name, SSHPublicKey: k.ssh, TLSPublicKey: k.tls, Expires: time.Now().Add(ttl),
	})
	require.NoError(t, err)
	return k.credentials(t, certs)
}

// host returns credentials of a host, and its id.
func host(t *testing.T, s *auth.Server, role types.SystemRole) (client.Credentials, string) {
	t.Helper()
	k := newKeys(t)
	id := uuid.NewString()
	certs, err := s.GenerateHostCerts(context.Background(), &proto.HostCertsRequest{
		HostID: id, NodeName: "host-" + id[:4], Role: role, PublicSSHKey: k.ssh, PublicTLSKey: k.tls,
	})
	require.NoError(t, err)
	return k.credentials(t, certs), id
}
