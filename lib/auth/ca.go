// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The authorities: how they are made, kept and used to sign.

package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/sqlite"
)

func authorityKey(kind types.CertAuthType, clusterName string) string {
	return "/authorities/" + string(kind) + "/" + clusterName
}

// newAuthority makes an authority with a new key. It is kept as Teleport's API
// has it, with the private key in OpenSSH's format.
func newAuthority(kind types.CertAuthType, clusterName string) (backend.Item, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	block, err := ssh.MarshalPrivateKey(private, string(kind)+" authority of "+clusterName)
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	authority, err := types.NewCertAuthority(types.CertAuthoritySpecV2{
		Type:        kind,
		ClusterName: clusterName,
		ActiveKeys: types.CAKeySet{SSH: []*types.SSHKeyPair{{
			PublicKey:      ssh.MarshalAuthorizedKey(sshPublic),
			PrivateKey:     pem.EncodeToMemory(block),
			PrivateKeyType: types.PrivateKeyType_RAW,
		}}},
	})
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	value, err := json.Marshal(authority)
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	return backend.Item{Key: authorityKey(kind, clusterName), Value: value}, nil
}

// UserCAs returns the keys that sign users' certificates: whom a node trusts.
func (s *Server) UserCAs(ctx context.Context) ([]ssh.PublicKey, error) {
	return s.trusted(ctx, types.UserCA)
}

// HostCAs returns the keys that sign hosts' certificates: whom a client trusts.
func (s *Server) HostCAs(ctx context.Context) ([]ssh.PublicKey, error) {
	return s.trusted(ctx, types.HostCA)
}

func (s *Server) trusted(ctx context.Context, kind types.CertAuthType) ([]ssh.PublicKey, error) {
	authority, err := s.authority(ctx, kind)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var keys []ssh.PublicKey
	for _, pair := range authority.GetTrustedSSHKeyPairs() {
		key, _, _, _, err := ssh.ParseAuthorizedKey(pair.PublicKey)
		if err != nil {
			return nil, s.unreadable(kind, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, s.lost(kind)
	}
	return keys, nil
}

// signer returns the key that signs now: the first of the active ones.
func (s *Server) signer(ctx context.Context, kind types.CertAuthType) (ssh.Signer, error) {
	authority, err := s.authority(ctx, kind)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	pairs := authority.GetActiveKeys().SSH
	if len(pairs) == 0 {
		return nil, s.lost(kind)
	}
	signer, err := ssh.ParsePrivateKey(pairs[0].PrivateKey)
	if err != nil {
		return nil, s.unreadable(kind, err)
	}
	return signer, nil
}

func (s *Server) authority(ctx context.Context, kind types.CertAuthType) (types.CertAuthority, error) {
	item, err := s.store.Get(ctx, authorityKey(kind, s.clusterName))
	if trace.IsNotFound(err) {
		return nil, s.lost(kind)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var authority types.CertAuthorityV2
	if err := json.Unmarshal(item.Value, &authority); err != nil {
		return nil, s.unreadable(kind, err)
	}
	return &authority, nil
}

func (s *Server) lost(kind types.CertAuthType) error {
	return trace.NotFound("the cluster %q has lost its %s authority: restore %s from a backup", s.clusterName, kind, sqlite.FileName)
}

func (s *Server) unreadable(kind types.CertAuthType, err error) error {
	return trace.Errorf("the %s authority of the cluster %q cannot be read (%v): restore %s from a backup", kind, s.clusterName, err, sqlite.FileName)
}

// sign fills in what every certificate has and signs it. It is valid from a
// minute ago, for hosts whose clocks are behind.
func (s *Server) sign(ctx context.Context, kind types.CertAuthType, cert *ssh.Certificate, ttl time.Duration) error {
	signer, err := s.signer(ctx, kind)
	if err != nil {
		return trace.Wrap(err)
	}
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return trace.Wrap(err)
	}
	now := s.clock.Now()
	cert.Serial = binary.BigEndian.Uint64(serial[:])
	cert.ValidAfter = unixTime(now.Add(-clockSkew))
	cert.ValidBefore = unixTime(now.Add(ttl))
	return trace.Wrap(cert.SignCert(rand.Reader, signer))
}

// unixTime is t as certificates have it. A host whose clock was never set may
// be at 1970, and a minute before that would be the far future.
func unixTime(t time.Time) uint64 {
	return uint64(max(0, t.Unix()))
}

// checkTTL refuses what would be expired at once and what would be as good as
// for ever.
func checkTTL(ttl time.Duration) error {
	if ttl < time.Second {
		return trace.BadParameter("a certificate cannot be valid for %v: give a TTL of one second or more, such as 12h", ttl)
	}
	if ttl > MaxTTL {
		return trace.BadParameter("a certificate cannot be valid for %v: the longest TTL is %v, which is 365 days", ttl, MaxTTL)
	}
	return nil
}

// minRSABits is what OpenSSH accepts by default nowadays, and what is thought
// safe (NIST SP 800-131A).
const minRSABits = 2048

// checkPublicKey refuses keys that OpenSSH would not let in, and certificates:
// a certificate is of a key.
func checkPublicKey(key ssh.PublicKey) error {
	if key == nil {
		return trace.BadParameter("there is no public key to sign")
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		rsaKey, ok := cryptoKey(key).(*rsa.PublicKey)
		if !ok {
			return trace.BadParameter("the RSA key cannot be read: give it as ssh.ParsePublicKey returns it")
		}
		if bits := rsaKey.N.BitLen(); bits < minRSABits {
			return trace.BadParameter("an RSA key of %d bits is too weak to sign: use Ed25519, or RSA with %d bits or more", bits, minRSABits)
		}
		return nil
	}
	return trace.BadParameter("a key of the type %q cannot be signed: use Ed25519, ECDSA or RSA", key.Type())
}

func cryptoKey(key ssh.PublicKey) crypto.PublicKey {
	if key, ok := key.(ssh.CryptoPublicKey); ok {
		return key.CryptoPublicKey()
	}
	return nil
}
