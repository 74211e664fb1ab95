// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What the certificates of users and hosts have in common: the key that signs,
// how long they are valid, and which public keys are signed.

package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

// signingKeys returns the keys of which the first signs now. Those are the
// active ones, except that hosts go on with the old key for as long as their
// clients may not know the new one (update_clients).
func signingKeys(authority *types.CertAuthorityV2) types.CAKeySet {
	rotation := authority.GetRotation()
	if authority.GetType() == types.HostCA && rotation.Phase == types.RotationPhaseUpdateClients {
		return authority.GetAdditionalTrustedKeys()
	}
	return authority.GetActiveKeys()
}

func (s *Server) signer(ctx context.Context, kind types.CertAuthType) (ssh.Signer, error) {
	authority, err := s.authority(ctx, kind)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	pairs := signingKeys(authority).SSH
	if len(pairs) == 0 {
		return nil, s.lost(kind)
	}
	signer, err := ssh.ParsePrivateKey(pairs[0].PrivateKey)
	if err != nil {
		return nil, s.unreadable(kind, err)
	}
	return signer, nil
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
	cert.ValidAfter = unixTime(now.Add(-ClockSkew))
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
		return checkRSA(rsaKey)
	}
	return trace.BadParameter("a key of the type %q cannot be signed: use Ed25519, ECDSA or RSA", key.Type())
}

func checkRSA(key *rsa.PublicKey) error {
	if bits := key.N.BitLen(); bits < minRSABits {
		return trace.BadParameter("an RSA key of %d bits is too weak to sign: use Ed25519, or RSA with %d bits or more", bits, minRSABits)
	}
	return nil
}

func cryptoKey(key ssh.PublicKey) crypto.PublicKey {
	if key, ok := key.(ssh.CryptoPublicKey); ok {
		return key.CryptoPublicKey()
	}
	return nil
}

// checkTLSPublicKey is checkPublicKey for TLS certificates.
func checkTLSPublicKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case nil:
		return trace.BadParameter("there is no public key to sign")
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
	case *rsa.PublicKey:
		return checkRSA(key)
	}
	return trace.BadParameter("a key of the type %T cannot be signed: use Ed25519, ECDSA or RSA", key)
}

// maxKeySize bounds the text of a public key: RSA of 16384 bits takes a fourth.
const maxKeySize = 16 << 10

// parseSSHKey reads one line of authorized_keys, as the network brings it.
func parseSSHKey(text []byte) (ssh.PublicKey, error) {
	if len(text) > maxKeySize {
		return nil, trace.BadParameter("the SSH public key has %d bytes, and %d are the most", len(text), maxKeySize)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, trace.BadParameter("the SSH public key cannot be read (%v): give it as a .pub file has it", err)
	}
	if err := checkPublicKey(key); err != nil {
		return nil, trace.Wrap(err)
	}
	return key, nil
}

// parseTLSKey reads a public key in PEM, as the network brings it.
func parseTLSKey(text []byte) (crypto.PublicKey, error) {
	if len(text) > maxKeySize {
		return nil, trace.BadParameter("the TLS public key has %d bytes, and %d are the most", len(text), maxKeySize)
	}
	key, err := keys.ParsePublicKey(text)
	if err != nil {
		return nil, trace.BadParameter("the TLS public key cannot be read (%v): give it in PEM", err)
	}
	if err := checkTLSPublicKey(key); err != nil {
		return nil, trace.Wrap(err)
	}
	return key, nil
}
