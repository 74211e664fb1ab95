// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates of users.

package auth

import (
	"context"
	"slices"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"
)

// UserCertRequest asks for a user's certificate.
type UserCertRequest struct {
	// PublicKey is the user's: Ed25519, ECDSA, RSA of 2048 bits or more, or one
	// of the first two on a security key.
	PublicKey ssh.PublicKey
	// User is the person, in any script: at most MaxNameLength bytes of UTF-8
	// without control or invisible characters. It becomes the certificate's key
	// id, and is the teleportUser of audit records.
	User string
	// Logins are the system users that the person may be: at least one, at most
	// MaxPrincipals, each once, without spaces, commas and quotes and not
	// beginning with a dash.
	Logins []string
	// TTL is how long the certificate is valid from now: from one second to
	// MaxTTL.
	TTL time.Duration
}

// CheckAndSetDefaults refuses, with trace.BadParameter, what SignUser would.
// There are no defaults.
func (r *UserCertRequest) CheckAndSetDefaults() error {
	if err := checkPublicKey(r.PublicKey); err != nil {
		return trace.Wrap(err)
	}
	if err := checkUser(r.User); err != nil {
		return trace.Wrap(err)
	}
	if err := checkLogins(r.Logins); err != nil {
		return trace.Wrap(err)
	}
	return checkTTL(r.TTL)
}

// SignUser signs a certificate with which the user may have terminals and
// forward ports and agents, as any of the logins.
//
// The error is trace.BadParameter for a request that cannot be granted, and
// trace.NotFound where the cluster has lost its user authority.
func (s *Server) SignUser(ctx context.Context, req UserCertRequest) (*ssh.Certificate, error) {
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	cert := &ssh.Certificate{
		Key:             req.PublicKey,
		CertType:        ssh.UserCert,
		KeyId:           req.User,
		ValidPrincipals: slices.Clone(req.Logins),
		Permissions: ssh.Permissions{Extensions: map[string]string{
			"permit-pty":              "",
			"permit-port-forwarding":  "",
			"permit-agent-forwarding": "",
		}},
	}
	if err := s.sign(ctx, types.UserCA, cert, req.TTL); err != nil {
		return nil, trace.Wrap(err)
	}
	s.log.WithFields(logrus.Fields{
		"serial": cert.Serial,
		"key":    ssh.FingerprintSHA256(req.PublicKey),
	}).Infof("Signed a certificate for the user %q with the logins %q, valid for %v.", req.User, req.Logins, req.TTL)
	return cert, nil
}
