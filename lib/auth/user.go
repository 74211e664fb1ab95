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
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/teleport/api/types/wrappers"
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

	// CertCreateEvent and CertCreateCode are of the event of a user's
	// certificate.
	CertCreateEvent     = "cert.create"
	CertCreateCode      = "TC000I"
	certificateTypeUser = "user"

	// rolesVersion is the version of what ExtensionRoles has.
	rolesVersion = "v1"

	// maxIdentitySize bounds the roles and traits of one certificate, in bytes
	// of JSON: clients and servers refuse certificates that are too long.
	maxIdentitySize = 16 << 10
)

// UserCertRequest asks for a user's certificate.
type UserCertRequest struct {
	// PublicKey is the user's: Ed25519, ECDSA, RSA of 2048 bits or more, or one
	// of the first two on a security key.
	PublicKey ssh.PublicKey
	// TLSPublicKey is for a TLS certificate, which is signed beside that for SSH
	// by GenerateUserCerts alone: Ed25519, ECDSA, or RSA of 2048 bits or more.
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

	// principals are the same in both certificates.
	principals []string
	// TTL is how long the certificate is valid from now: from one second to
	// MaxTTL.
	TTL time.Duration
}

// Permits is what a certificate allows on the hosts that let its owner in.
type Permits struct {
	PortForwarding, AgentForwarding bool
}

// CheckAndSetDefaults refuses, with trace.BadParameter, what is not signed: a
// request has one of the two keys, or both. There are no defaults.
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
			return trace.BadParameter("a TLS certificate is for the API, which decides by roles, and the user %q is given none", cutTo(r.User, MaxNameLength))
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

// logins are the principals. A certificate without any would be good for all of
// them, to some servers, so it then has one that is nobody's.
func (r *UserCertRequest) logins() []string {
	if len(r.Logins) == 0 {
		return []string{constants.NoLoginPrefix + uuid.NewString()}
	}
	return r.Logins
}

// SignUser signs an SSH certificate with which the user may have terminals, and
// what req.Permits says, as any of the logins.
//
// The error is trace.BadParameter for a request that cannot be granted, and
// trace.NotFound where the cluster has lost its user authority. Without an event
// in the audit log there is no certificate.
func (s *Server) SignUser(ctx context.Context, req UserCertRequest) (*ssh.Certificate, error) {
	req.TLSPublicKey = nil
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	req.principals = req.logins()
	cert, err := s.signUserSSH(ctx, req)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.certCreated(ctx, req); err != nil {
		return nil, trace.Wrap(err)
	}
	return cert, nil
}

func (s *Server) signUserSSH(ctx context.Context, req UserCertRequest) (*ssh.Certificate, error) {
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
		ValidPrincipals: slices.Clone(req.principals),
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

// signUserTLS signs a certificate with which the user may use the cluster's API,
// as far as the roles allow.
func (s *Server) signUserTLS(ctx context.Context, req UserCertRequest) (*x509.Certificate, error) {
	cert, _, err := s.signTLS(ctx, tlsRequest{
		kind: types.UserCA,
		key:  req.TLSPublicKey,
		subject: tlsca.Identity{
			Username:   req.User,
			Groups:     req.Roles,
			Principals: req.principals,
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

// certCreated writes what was signed to the audit log. Where it cannot, what was
// signed must not be handed out.
func (s *Server) certCreated(ctx context.Context, req UserCertRequest) error {
	identity := &apievents.Identity{
		User:            req.User,
		Roles:           req.Roles,
		Logins:          req.Logins,
		Traits:          wrappers.Traits(req.Traits),
		Expires:         s.clock.Now().Add(req.TTL).UTC(),
		TeleportCluster: s.clusterName,
	}
	caller := callerFrom(ctx)
	if caller.User != req.User {
		identity.Impersonator = caller.User
	}
	if addr := remoteIP(caller.RemoteAddr); addr.IsValid() {
		identity.ClientIP = addr.String()
	}
	err := s.EmitAuditEvent(ctx, &apievents.CertificateCreate{
		Metadata:        apievents.Metadata{Type: CertCreateEvent, Code: CertCreateCode},
		CertificateType: certificateTypeUser,
		Identity:        identity,
	})
	return trace.Wrap(err, "writing the certificate to the audit log")
}
