// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// TLS: the authorities' certificates, what they sign, and how the auth server and
// tctl show themselves.

package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	apiutils "github.com/gravitational/teleport/api/utils"
	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/tlsca"
)

const (
	// authorityTTL is how long an authority's TLS certificate is valid. What
	// replaces it earlier is a rotation.
	authorityTTL = 10 * 365 * 24 * time.Hour

	// adminTTL is enough for one call of tctl.
	adminTTL = time.Hour

	// certCacheTTL is how long the auth server goes by what it has read of the
	// host authority.
	certCacheTTL = time.Second

	certificateBlock = "CERTIFICATE"
)

// newTLSPair makes an authority's key and certificate, both in PEM.
func newTLSPair(clusterName string, now time.Time) (*types.TLSKeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	keyID, err := subjectKeyID(key.Public())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// Old and new authority have one subject, so that clients choose by key.
		Subject:               pkix.Name{CommonName: clusterName, Organization: []string{clusterName}},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(authorityTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		// Room for the next authority's key, see bridges.
		MaxPathLen:   1,
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		SubjectKeyId: keyID,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	private, err := keys.MarshalPrivateKey(key)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &types.TLSKeyPair{
		Cert:    pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}),
		Key:     private,
		KeyType: types.PrivateKeyType_RAW,
	}, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return serial.Add(serial, big.NewInt(1)), nil // never zero (RFC 5280, 4.1.2.2)
}

// subjectKeyID is a hash of the key, as RFC 7093 has it.
func subjectKeyID(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

// parseTLSAuthority reads one certificate of an authority.
func parseTLSAuthority(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != certificateBlock || len(bytes.TrimSpace(rest)) > 0 {
		return nil, trace.BadParameter("a TLS certificate of an authority must be one certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, trace.BadParameter("a TLS certificate of an authority cannot be read: %v", err)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid {
		return nil, trace.BadParameter("a TLS certificate of an authority may not sign others")
	}
	return cert, nil
}

// openTLSPair reads the certificate and the private key of one that signs.
func openTLSPair(pair *types.TLSKeyPair) (*x509.Certificate, crypto.Signer, error) {
	cert, err := parseTLSAuthority(pair.Cert)
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	key, err := keys.ParsePrivateKey(pair.Key)
	if err != nil {
		return nil, nil, trace.BadParameter("a TLS private key cannot be read: %v", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, nil, trace.BadParameter("a TLS private key is not that of its certificate")
	}
	return cert, key, nil
}

// trustedTLS returns the certificates of an authority that are trusted, the
// active ones first.
func (s *Server) trustedTLS(ctx context.Context, kind types.CertAuthType) ([]*x509.Certificate, error) {
	authority, err := s.sealedAuthority(ctx, kind)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var certs []*x509.Certificate
	for _, pair := range authority.GetTrustedTLSKeyPairs() {
		cert, err := parseTLSAuthority(pair.Cert)
		if err != nil {
			return nil, s.unreadable(kind, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, s.lost(kind)
	}
	return certs, nil
}

// tlsRequest is what signTLS signs.
type tlsRequest struct {
	kind    types.CertAuthType
	key     crypto.PublicKey
	subject tlsca.Identity
	// names and addresses are those of a server.
	names     []string
	addresses []netip.Addr
	server    bool
	ttl       time.Duration
}

// signTLS returns the certificate and that of the authority. It is valid from a
// minute ago, and no longer than the authority's.
func (s *Server) signTLS(ctx context.Context, req tlsRequest) (leaf, authority *x509.Certificate, err error) {
	ca, err := s.authority(ctx, req.kind)
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	pairs := signingKeys(ca).TLS
	if len(pairs) == 0 {
		return nil, nil, s.lost(req.kind)
	}
	authority, signer, err := openTLSPair(pairs[0])
	if err != nil {
		return nil, nil, s.unreadable(req.kind, err)
	}
	subject, err := req.subject.Subject()
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	now := s.clock.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(req.ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:              req.names,
	}
	if template.NotAfter.After(authority.NotAfter) {
		template.NotAfter = authority.NotAfter
	}
	if req.server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, addr := range req.addresses {
		template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, req.key, signer)
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	leaf, err = x509.ParseCertificate(der)
	return leaf, authority, trace.Wrap(err)
}

func encodeCert(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: cert.Raw})
}

// sanNames divides names into those that can stand in a TLS certificate: DNS
// names, which are ASCII, and addresses. The first and only of each is taken.
func sanNames(all []string) (names []string, addresses []netip.Addr) {
	for _, name := range all {
		if addr, err := netip.ParseAddr(name); err == nil {
			addr = addr.Unmap().WithZone("")
			if !slices.Contains(addresses, addr) {
				addresses = append(addresses, addr)
			}
			continue
		}
		ascii := strings.IndexFunc(name, func(r rune) bool { return r > '~' || r == ':' }) < 0
		name = strings.ToLower(name)
		if ascii && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, addresses
}

// serverNames are the names by which clients ask for an auth server.
func (s *Server) serverNames(names []string) []string {
	return append([]string{
		constants.APIDomain,
		apiutils.EncodeClusterName(s.clusterName),
		"localhost", "127.0.0.1", "::1",
	}, names...)
}

// AuthServerTLS makes a key and a certificate, valid for HostCertTTL, with which
// the auth server shows itself under the names that api/client asks for, and
// under names: its node name and addresses. The chain ends with the authority's
// certificate, by which a joining host knows the cluster's pin.
//
// The error is trace.BadParameter for a name that cannot stand in a certificate.
func (s *Server) AuthServerTLS(ctx context.Context, names []string) (*tls.Certificate, error) {
	for _, name := range names {
		if err := checkHostName("name of the auth server", name); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	return s.ownTLS(ctx, types.RoleAuth, s.serverNames(names), HostCertTTL)
}

// AdminTLS is what tctl needs, in the process that opened the cluster, to be its
// administrator through api/client: client.LoadTLS takes it. It is good for an
// hour.
func (s *Server) AdminTLS(ctx context.Context) (*tls.Config, error) {
	cert, err := s.ownTLS(ctx, types.RoleAdmin, nil, adminTTL)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	hosts, err := s.trustedTLS(ctx, types.HostCA)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{*cert},
		RootCAs:      poolOf(hosts),
		ServerName:   constants.APIDomain,
		Time:         s.clock.Now,
	}, nil
}

// ownTLS makes a key that never leaves this process, and a certificate of the
// host authority for it.
func (s *Server) ownTLS(ctx context.Context, role types.SystemRole, san []string, ttl time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	names, addresses := sanNames(san)
	leaf, authority, err := s.signTLS(ctx, tlsRequest{
		kind: types.HostCA,
		key:  key.Public(),
		subject: tlsca.Identity{
			Username: s.inCluster(uuid.NewString()),
			Groups:   []string{string(role)},
			Cluster:  s.clusterName,
		},
		names:     names,
		addresses: addresses,
		server:    len(san) > 0,
		ttl:       ttl,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	bridges, err := s.bridges(ctx, authority)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &tls.Certificate{Certificate: slices.Concat([][]byte{leaf.Raw, authority.Raw}, bridges), PrivateKey: key, Leaf: leaf}, nil
}

// bridges returns, while the host authority is rotated and its new key signs, a
// certificate of that key by the old one, with the old one's own behind it. Who
// knows only the old key checks the auth server by that, and learns of the new one
// there: people who logged in before the rotation, and hosts that were off.
func (s *Server) bridges(ctx context.Context, signing *x509.Certificate) ([][]byte, error) {
	ca, err := s.authority(ctx, types.HostCA)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	// The old key signs for the new one, and never the other way round: what is shown
	// here is anybody's to keep, and would make the old key trusted for as long as
	// the new one is.
	if ca.GetRotation().Phase != types.RotationPhaseUpdateServers {
		return nil, nil
	}
	var chain [][]byte
	for _, pair := range ca.GetAdditionalTrustedKeys().TLS {
		if len(pair.Key) == 0 {
			continue
		}
		other, signer, err := openTLSPair(pair)
		if err != nil {
			return nil, s.unreadable(types.HostCA, err)
		}
		serial, err := newSerial()
		if err != nil {
			return nil, trace.Wrap(err)
		}
		template := &x509.Certificate{
			SerialNumber:          serial,
			Subject:               signing.Subject,
			NotBefore:             signing.NotBefore,
			NotAfter:              signing.NotAfter,
			IsCA:                  true,
			BasicConstraintsValid: true,
			MaxPathLenZero:        true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
			SubjectKeyId:          signing.SubjectKeyId,
		}
		bridge, err := x509.CreateCertificate(rand.Reader, template, other, signing.PublicKey, signer)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		chain = append(chain, bridge, other.Raw)
	}
	return chain, nil
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// ServerCertificate returns what gives the auth server its certificate at each
// handshake: one as AuthServerTLS makes it, which is made anew at half of its
// time and when the host authority changes.
func (s *Server) ServerCertificate(names []string) func(context.Context) (*tls.Certificate, error) {
	cache := &serverCertificate{server: s, names: slices.Clone(names)}
	return cache.get
}

// serverCertificate keeps the certificate, and what it has read of the authority
// for some seconds: a handshake must not wait for the store each time.
type serverCertificate struct {
	server *Server
	names  []string

	mutex        sync.Mutex
	cert         *tls.Certificate
	read, signed time.Time
	// authority is what the certificate goes by.
	authority *types.CertAuthorityV2
}

func (c *serverCertificate) get(ctx context.Context) (*tls.Certificate, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := c.server.clock.Now()
	if c.cert != nil && now.Sub(c.read) < certCacheTTL && !now.Before(c.read) {
		return c.cert, nil
	}
	err := c.refresh(ctx, now)
	if err == nil {
		return c.cert, nil
	}
	// What was good a moment ago is better than no cluster while the store
	// cannot be read.
	if c.cert == nil || ctx.Err() != nil || now.After(c.cert.Leaf.NotAfter) {
		return nil, trace.Wrap(err)
	}
	c.server.log.WithError(err).Warn("The certificate of the auth server cannot be checked against the host authority, and stays as it is.")
	c.read = now
	return c.cert, nil
}

func (c *serverCertificate) refresh(ctx context.Context, now time.Time) error {
	authority, err := c.server.sealedAuthority(ctx, types.HostCA)
	if err != nil {
		return trace.Wrap(err)
	}
	same := c.authority != nil && c.authority.GetRevision() == authority.GetRevision()
	if same && now.Sub(c.signed) < HostCertTTL/2 && !now.Before(c.signed) {
		c.read = now
		return nil
	}
	cert, err := c.server.AuthServerTLS(ctx, c.names)
	if err != nil {
		return trace.Wrap(err)
	}
	c.cert, c.authority, c.read, c.signed = cert, authority, now, now
	return nil
}
