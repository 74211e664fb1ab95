// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Whose certificates are taken, and how TLS is spoken.

package authgrpc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/teleport/api/utils"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/net/http2"
)

// trustFor is how long the authorities are remembered: a handshake of each of a
// thousand nodes need not read them, and a rotation is not waited for.
const trustFor = time.Second

// trustLonger is how long they are, where the store cannot be read: what was
// trusted a moment ago is better than no cluster.
const trustLonger = time.Minute

// authorities are those whose certificates are taken at one moment.
type authorities struct {
	pool *x509.CertPool
	// kinds says of each, by the hash of its certificate, whom it signs.
	kinds map[[sha256.Size]byte]types.CertAuthType
	read  time.Time
}

// trust reads the authorities and remembers them for a moment.
type trust struct {
	auth  Auth
	clock clockwork.Clock

	mu     sync.Mutex
	latest *authorities
}

func (t *trust) current(ctx context.Context) (*authorities, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	if t.latest != nil && now.Sub(t.latest.read) < trustFor && !now.Before(t.latest.read) {
		return t.latest, nil
	}
	fresh, err := t.readAll(ctx)
	if err != nil {
		if t.latest != nil && now.Sub(t.latest.read) < trustLonger && !now.Before(t.latest.read) {
			return t.latest, nil
		}
		return nil, trace.Wrap(err)
	}
	fresh.read = now
	t.latest = fresh
	return fresh, nil
}

func (t *trust) readAll(ctx context.Context) (*authorities, error) {
	fresh := &authorities{pool: x509.NewCertPool(), kinds: map[[sha256.Size]byte]types.CertAuthType{}}
	for _, kind := range []types.CertAuthType{types.UserCA, types.HostCA} {
		all, err := t.auth.GetCertAuthorities(ctx, kind, false)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		for _, authority := range all {
			for _, pair := range authority.GetTrustedTLSKeyPairs() {
				certs, err := parseCertificates(pair.Cert)
				if err != nil {
					return nil, trace.Wrap(err, "reading the %s authority", kind)
				}
				for _, cert := range certs {
					fresh.pool.AddCert(cert)
					fresh.kinds[sha256.Sum256(cert.Raw)] = kind
				}
			}
		}
	}
	return fresh, nil
}

func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, trace.BadParameter("there is no certificate")
	}
	return certs, nil
}

// tlsConfig asks for everything anew at each handshake: authorities rotate, and
// the server's own certificate is renewed, without a restart.
func (s *Server) tlsConfig() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// A host that joins has no certificate yet.
		ClientAuth: tls.VerifyClientCertIfGiven,
		NextProtos: []string{http2.NextProtoTLS, constants.ALPNSNIAuthProtocol + utils.EncodeClusterName(s.cfg.Auth.ClusterName())},
		Time:       s.cfg.Clock.Now,
		// A resumed session would skip the check of the certificate.
		SessionTicketsDisabled: true,
	}
	outer := base.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		ctx, cancel := context.WithTimeout(hello.Context(), handshakeTimeout)
		defer cancel()
		trusted, err := s.trust.current(ctx)
		if err != nil {
			s.cfg.Log.WithError(err).Error("A connection was refused: the authorities of the cluster cannot be read.")
			return nil, trace.Wrap(err)
		}
		certificate, err := s.cfg.Certificate(ctx)
		if err != nil {
			s.cfg.Log.WithError(err).Error("A connection was refused: the auth service has no certificate.")
			return nil, trace.Wrap(err)
		}
		config := base.Clone()
		config.ClientCAs = trusted.pool
		config.Certificates = []tls.Certificate{*certificate}
		return config, nil
	}
	return outer
}
