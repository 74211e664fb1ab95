// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"crypto/rsa"
	"slices"
	"strings"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

// serverVersion is what the server calls itself before the first key exchange.
const serverVersion = "SSH-2.0-Teleport"

// ClientVersion is what a program of the cluster calls itself towards a Server.
const ClientVersion = serverVersion

// minRSABits is the shortest RSA key that may prove or sign anything (NIST SP
// 800-131A allows none below).
const minRSABits = 2048

// rekeyBytes is how much a connection carries under one key, in each direction:
// the 1 GiB of RFC 4253, section 9.
const rekeyBytes = 1 << 30

// transportAlgorithms are what a connection may use, best first. There is no
// SHA-1, no CBC and no compression. x/crypto/ssh adds strict key exchange by
// itself.
func transportAlgorithms(ciphers []string) ssh.Config {
	return ssh.Config{
		KeyExchanges: []string{
			ssh.KeyExchangeMLKEM768X25519,
			ssh.KeyExchangeCurve25519,
			"curve25519-sha256@libssh.org", // the same, under its older name
			ssh.KeyExchangeECDHP256,
			ssh.KeyExchangeECDHP384,
			ssh.KeyExchangeECDHP521,
		},
		Ciphers:        ciphers,
		RekeyThreshold: rekeyBytes,
		MACs: []string{
			ssh.HMACSHA256ETM,
			ssh.HMACSHA512ETM,
			ssh.HMACSHA256,
			ssh.HMACSHA512,
		},
	}
}

// ClientAlgorithms are what a program of the cluster uses towards a Server, best
// first.
func ClientAlgorithms() ssh.Config {
	ciphers := ciphersFor(nil, false)
	if hasAES() {
		slices.SortStableFunc(ciphers, func(a, b string) int { return gcmFirst(a) - gcmFirst(b) })
	}
	return transportAlgorithms(ciphers)
}

func gcmFirst(cipher string) int {
	if strings.Contains(cipher, "-gcm") {
		return 0
	}
	return 1
}

// signatureAlgorithms are what a user, and an authority, may sign with. "ssh-rsa"
// is not among them, since it is RSA with SHA-1.
func signatureAlgorithms() []string {
	return []string{
		ssh.KeyAlgoED25519,
		ssh.KeyAlgoSKED25519,
		ssh.KeyAlgoECDSA256,
		ssh.KeyAlgoECDSA384,
		ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoRSASHA256,
		ssh.KeyAlgoRSASHA512,
	}
}

// isKeyType tells whether a key of this type (ssh.PublicKey.Type) can make one
// of signatureAlgorithms.
func isKeyType(keyType string) bool {
	return keyType == ssh.KeyAlgoRSA || slices.Contains(signatureAlgorithms(), keyType)
}

// isShortRSA tells whether key is an RSA key below minRSABits.
func isShortRSA(key ssh.PublicKey) bool {
	wrapped, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return false
	}
	rsaKey, ok := wrapped.CryptoPublicKey().(*rsa.PublicKey)
	return ok && rsaKey.N.BitLen() < minRSABits
}

// addHostKeys gives config the host's keys, at least one.
func addHostKeys(config *ssh.ServerConfig, signers []ssh.Signer) error {
	if len(signers) == 0 {
		return trace.BadParameter("this host has no host key")
	}
	for _, signer := range signers {
		switch keyType := signer.PublicKey().Type(); keyType {
		case ssh.KeyAlgoED25519, ssh.CertAlgoED25519v01:
			config.AddHostKey(signer)
		default:
			return trace.BadParameter("a host key is of type %s; host keys must be Ed25519", keyType)
		}
	}
	return nil
}
