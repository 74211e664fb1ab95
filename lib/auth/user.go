// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates of users, SSH and TLS, as whoever decided on them wants them.

package auth

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/tlsca"
)

const (
	// ExtensionRoles is the extension of a user's certificate with the names of
	// the user's roles, and ExtensionTraits the one with the traits: JSON, as in
	// Teleport's own certificates. The api module does not declare them.
	ExtensionRoles  = "teleport-roles"
	ExtensionTraits = "teleport-traits"

	// rolesVersion is the version of what ExtensionRoles has.
	rolesVersion = "v1"

	// maxIdentitySize bounds the roles and traits of one certificate, in bytes
	// of JSON: clients and servers refuse certificates that are too long.
	maxIdentitySize = 16 << 10
)

// UserCertRequest asks for a user's certificate.
type UserCertRequest struct {
	// PublicKey is the user's: Ed25519, ECDSA, RSA of 2048 bits or more, or one
	// of the first two on a security key. It is what SignUser signs.
	PublicKey ssh.PublicKey
	// TLSPublicKey is what SignUserTLS signs: Ed25519, ECDSA, or RSA of 2048
	// bits or more.
	TLSPublicKey crypto.PublicKey
	// User is the person, in any script: at most MaxNameLength bytes of UTF-8
	// without control or invisible characters. It becomes the certificate's key
	// id, and is the teleportUser of audit records.
	User string
	// Logins are the system users that the person may be: at least one, at most
	// MaxPrincipals, each once, without spaces, commas and quotes and not
	// beginning with a dash. A person with Roles may have none.
	Logins []string
	// Roles are the names of the person's roles, and Traits what they refer to.
	// Without roles a certificate is good for its logins on every node.
	Roles  []string
	Traits map[string][]string
	// Permits is what the certificate allows beside terminals: everything where
	// it is nil.
	Permits *Permits
	// TTL is how long the certificate is valid from now: from one second to
	// MaxTTL.
	TTL time.Duration
}

// Permits is what a certificate allows on the hosts that let its owner in.
type Permits struct {
	PortForwarding, AgentForwarding bool
}

// CheckAndSetDefaults refuses, with trace.BadParameter, what SignUser and
// SignUserTLS would: a request has one of the two keys, or both. There are no
// defaults.
func (r *UserCertRequest) CheckAndSetDefaults() error {
	if r.TLSPublicKey == nil || r.PublicKey != nil {
		if err := checkPublicKey(r.PublicKey); err != nil {
			return trace.Wrap(err)
		}
	}
	if r.TLSPublicKey != nil {
		if err := checkTLSPublicKey(r.TLSPublicKey); err != nil {
			return trace.Wrap(err)
		}
		if len(r.Roles) == 0 {
			return trace.BadParameter("a TLS certificate is for the API, which decides by roles, and the user %q is given none", clip(r.User, MaxNameLength))
		}
	}
	if err := checkUser(r.User); err != nil {
		return trace.Wrap(err)
	}
	if len(r.Logins) > 0 || len(r.Roles) == 0 {
		if err := checkLogins(r.Logins); err != nil {
			return trace.Wrap(err)
		}
	}
	for i, role := range r.Roles {
		if err := checkName("role name", role); err != nil {
			return trace.Wrap(err)
		}
		if slices.Contains(r.Roles[:i], role) {
			return trace.BadParameter("the role %q is given twice: give it once", role)
		}
	}
	if roles, traits, err := r.identity(); err != nil {
		return trace.Wrap(err)
	} else if size := len(roles) + len(traits); size > maxIdentitySize {
		return trace.BadParameter("the roles and traits of the user %q take %d bytes, and a certificate holds at most %d: give the user less of them", r.User, size, maxIdentitySize)
	}
	return checkTTL(r.TTL)
}

// identity returns the roles and traits as certificates have them.
func (r *UserCertRequest) identity() (roles, traits []byte, err error) {
	if len(r.Roles) > 0 {
		roles, err = json.Marshal(types.CertRoles{Version: rolesVersion, Roles: r.Roles})
		if err != nil {
			return nil, nil, trace.Wrap(err)
		}
	}
	if len(r.Traits) > 0 {
		traits, err = json.Marshal(r.Traits)
		if err != nil {
			return nil, nil, trace.Wrap(err)
		}
	}
	return roles, traits, nil
}

// principals are the logins. A certificate without any would be good for all of
// them, to some servers, so it then has one that is nobody's.
func (r *UserCertRequest) principals() []string {
	if len(r.Logins) == 0 {
		return []string{constants.NoLoginPrefix + uuid.NewString()}
	}
	return slices.Clone(r.Logins)
}

// SignUser signs an SSH certificate with which the user may have terminals, and
// what req.Permits says, as any of the logins.
//
// The error is trace.BadParameter for a request that cannot be granted, and
// trace.NotFound where the cluster has lost its user authority.
func (s *Server) SignUser(ctx context.Context, req UserCertRequest) (*ssh.Certificate, error) {
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	if req.PublicKey == nil {
		return nil, trace.BadParameter("there is no public key to sign")
	}
	roles, traits, err := req.identity()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	extensions := map[string]string{"permit-pty": ""}
	if req.Permits == nil || req.Permits.PortForwarding {
		extensions["permit-port-forwarding"] = ""
	}
	if req.Permits == nil || req.Permits.AgentForwarding {
		extensions["permit-agent-forwarding"] = ""
	}
	if roles != nil {
		extensions[ExtensionRoles] = string(roles)
	}
	if traits != nil {
		extensions[ExtensionTraits] = string(traits)
	}
	cert := &ssh.Certificate{
		Key:             req.PublicKey,
		CertType:        ssh.UserCert,
		KeyId:           req.User,
		ValidPrincipals: req.principals(),
		Permissions:     ssh.Permissions{Extensions: extensions},
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

// SignUserTLS signs a TLS certificate with which the user may use the cluster's
// API, as far as the roles allow. Errors are those of SignUser.
func (s *Server) SignUserTLS(ctx context.Context, req UserCertRequest) (*x509.Certificate, error) {
	if req.TLSPublicKey == nil {
		return nil, trace.BadParameter("there is no public key to sign")
	}
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	cert, _, err := s.signTLS(ctx, tlsRequest{
		kind: types.UserCA,
		key:  req.TLSPublicKey,
		subject: tlsca.Identity{
			Username:   req.User,
			Groups:     req.Roles,
			Principals: req.principals(),
			Traits:     req.Traits,
			Cluster:    s.clusterName,
		},
		ttl: req.TTL,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	s.log.WithField("serial", cert.SerialNumber).Infof("Signed a TLS certificate for the user %q with the roles %q, valid for %v.", req.User, req.Roles, req.TTL)
	return cert, nil
}
