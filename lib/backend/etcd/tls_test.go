// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/etcd/etcdtest"
)

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	serverCert, serverKey := ca.issue(t, "server")
	clientCert, clientKey := ca.issue(t, "client")
	strangerCert, strangerKey := other.issue(t, "stranger")

	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	cluster := etcdtest.Start(t, 1, etcdtest.WithTLS(serverCert, serverKey, ca.file, &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}},
	}))
	ctx := t.Context()
	s, err := Open(ctx, Config{Peers: cluster.Peers(), TLSCAFile: ca.file, TLSCertFile: clientCert, TLSKeyFile: clientKey, Log: discard()})
	require.NoError(t, err)
	require.NoError(t, s.Create(ctx, backend.Item{Key: "/a"}))
	require.NoError(t, s.Close())

	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no authority", Config{TLSCertFile: clientCert, TLSKeyFile: clientKey}, "certificate signed by unknown authority"},
		{"another authority", Config{TLSCAFile: other.file, TLSCertFile: clientCert, TLSKeyFile: clientKey}, "certificate signed by unknown authority"},
		{"no certificate", Config{TLSCAFile: ca.file}, "storage.peers and the TLS files"},
		{"another's certificate", Config{TLSCAFile: ca.file, TLSCertFile: strangerCert, TLSKeyFile: strangerKey}, "storage.peers and the TLS files"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // each waits for an etcd that might come
			tc.cfg.Peers, tc.cfg.Log = cluster.Peers(), discard()
			_, err := Open(ctx, tc.cfg)
			require.True(t, trace.IsConnectionProblem(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := certificate("authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	a.file, _ = a.write(t, "authority", template)
	return a
}

func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	template := certificate(name)
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return a.write(t, name, template)
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// write signs the certificate, the authority's own with its own key.
func (a *authority) write(t *testing.T, name string, template *x509.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	if a.cert == nil {
		a.key = key
		a.cert, err = x509.ParseCertificate(der)
		require.NoError(t, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	}
	return certFile, keyFile
}
