// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates of hosts.

package auth

import (
	"context"
	"crypto"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/tlsca"
)

const (
	// HostCertTTL is how long the certificates of GenerateHostCerts are valid.
	// It is short, as nothing takes a certificate back; hosts ask for the next
	// one at half of it, and when the host authority changes its phase.
	HostCertTTL = 7 * 24 * time.Hour

	// ExtensionRole is the extension of a host's certificate that says what the
	// host is.
	ExtensionRole = tlsca.ExtensionRole
	// ExtensionAuthority is the extension of a host's certificate that names
	// the cluster, as Teleport's do.
	ExtensionAuthority = "x-teleport-authority"
)

// HostCertRequest asks for a host's certificate.
type HostCertRequest struct {
	// PublicKey is the host's, of a kind that UserCertRequest.PublicKey allows.
	PublicKey ssh.PublicKey
	// HostID is the host's unique id, as a rule a UUID.
	HostID string
	// NodeName is the name under which users know the host.
	NodeName string
	// Role is types.RoleNode, types.RoleProxy or types.RoleAuth.
	Role types.SystemRole
	// Principals are other names and IP addresses that clients connect to, with
	// neither port nor brackets.
	Principals []string
	// TTL is how long the certificate is valid from now: from one second to
	// MaxTTL.
	TTL time.Duration
}

// CheckAndSetDefaults refuses, with trace.BadParameter, what SignHost would.
// There are no defaults.
func (r *HostCertRequest) CheckAndSetDefaults() error {
	if err := checkPublicKey(r.PublicKey); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("host id", r.HostID); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("node name", r.NodeName); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostRole(r.Role); err != nil {
		return trace.Wrap(err)
	}
	for _, principal := range r.Principals {
		if err := checkHostName("host principal", principal); err != nil {
			return trace.Wrap(err)
		}
	}
	return checkTTL(r.TTL)
}

func checkHostRole(role types.SystemRole) error {
	switch role {
	case types.RoleNode, types.RoleProxy, types.RoleAuth:
		return nil
	}
	return trace.BadParameter("a host certificate is for the role %q, %q or %q, not for %q", types.RoleNode, types.RoleProxy, types.RoleAuth, cutTo(string(role), 32))
}

// SignHost signs a certificate with which the host shows itself as req.NodeName
// and req.HostID, alone and followed by the cluster's name, and as each of
// req.Principals. The key id is "<HostID>.<cluster>". Names with capitals stand
// there in small letters too, which is how ssh asks for them.
//
// The error is trace.BadParameter for a request that cannot be granted, and
// trace.NotFound where the cluster has lost its host authority.
func (s *Server) SignHost(ctx context.Context, req HostCertRequest) (*ssh.Certificate, error) {
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	principals := s.hostPrincipals(req)
	if len(principals) > MaxPrincipals {
		return nil, trace.BadParameter("the host %q has %d names and addresses, and a certificate holds at most %d", req.NodeName, len(principals), MaxPrincipals)
	}
	cert := &ssh.Certificate{
		Key:             req.PublicKey,
		CertType:        ssh.HostCert,
		KeyId:           s.inCluster(req.HostID),
		ValidPrincipals: principals,
		Permissions: ssh.Permissions{Extensions: map[string]string{
			ExtensionRole:      string(req.Role),
			ExtensionAuthority: s.clusterName,
		}},
	}
	if err := s.sign(ctx, types.HostCA, cert, req.TTL); err != nil {
		return nil, trace.Wrap(err)
	}
	s.log.WithFields(logrus.Fields{
		"serial": cert.Serial,
		"key":    ssh.FingerprintSHA256(req.PublicKey),
	}).Infof("Signed a certificate for the %s %q, valid for %v.", strings.ToLower(string(req.Role)), req.NodeName, req.TTL)
	return cert, nil
}

func (s *Server) hostPrincipals(req HostCertRequest) []string {
	names := append([]string{req.NodeName, s.inCluster(req.NodeName), req.HostID, s.inCluster(req.HostID)}, req.Principals...)
	var principals []string
	for _, name := range names {
		for _, spelt := range []string{name, strings.ToLower(name)} {
			if !slices.Contains(principals, spelt) {
				principals = append(principals, spelt)
			}
		}
	}
	return principals
}

func (s *Server) inCluster(name string) string {
	return name + "." + s.clusterName
}

// hostCerts is a request for both certificates of a host that was checked.
type hostCerts struct {
	ssh    HostCertRequest
	tlsKey crypto.PublicKey
	// names are those of the TLS certificate alone.
	names []string
}

// GenerateHostCerts signs the SSH and the TLS certificate of a host, valid for
// HostCertTTL, and returns them with all authorities of hosts that are trusted.
// A principal that stands for all addresses, such as 0.0.0.0, is replaced by
// RemoteAddr. Where Rotation is set, the host authority must be in that state.
//
// Whoever calls it has decided that the caller may be the host: for another host
// authgrpc refuses, and a new one has a token.
//
// The error is trace.BadParameter for keys, names and roles that are not signed,
// trace.AccessDenied for a node that is locked or asks for a proxy's name, and for
// other keys than the host had before in this role, and trace.CompareFailed for
// another state of rotation.
func (s *Server) GenerateHostCerts(ctx context.Context, req *proto.HostCertsRequest) (*proto.Certs, error) {
	checked, err := s.checkHostCerts(req)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if req.Rotation != nil {
		authority, err := s.sealedAuthority(ctx, types.HostCA)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		if rotation := authority.GetRotation(); !rotation.Matches(*req.Rotation) {
			return nil, trace.CompareFailed("the host authority is %s, and the host takes it for %s: read it again", rotation.PhaseDescription(), req.Rotation.PhaseDescription())
		}
	}
	if err := s.checkHostLocks(ctx, checked.ssh); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.checkNames(ctx, checked); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.bindHost(ctx, checked); err != nil {
		if isOtherKeys(err) {
			s.emitOtherKeys(ctx, req, err)
		}
		return nil, trace.Wrap(err)
	}
	return s.signHostCerts(ctx, checked)
}

// checkHostLocks refuses a node that a lock in force shuts out. The auth service
// and proxies on the same host go on.
func (s *Server) checkHostLocks(ctx context.Context, req HostCertRequest) error {
	if req.Role != types.RoleNode {
		return nil
	}
	locks, err := s.GetLocks(ctx, true)
	if err != nil {
		return trace.Wrap(err)
	}
	for _, lock := range locks {
		target := lock.Target()
		rest := target
		rest.ServerID = ""
		if target.ServerID != req.HostID || !rest.IsEmpty() {
			continue
		}
		if message := lock.Message(); message != "" {
			return trace.AccessDenied("the node %q is locked by an administrator: %s", req.NodeName, message)
		}
		return trace.AccessDenied("the node %q is locked by an administrator", req.NodeName)
	}
	return nil
}

// checkHostCerts refuses what signHostCerts would, before anything is changed.
func (s *Server) checkHostCerts(req *proto.HostCertsRequest) (*hostCerts, error) {
	if req == nil {
		return nil, trace.BadParameter("there is no request for certificates of a host")
	}
	if len(req.SystemRoles) > 0 {
		return nil, trace.BadParameter("a host certificate has one role, and no list of them: ask once for each")
	}
	if len(req.AdditionalPrincipals) > MaxPrincipals || len(req.DNSNames) > MaxPrincipals {
		return nil, trace.BadParameter("the host %q has %d principals and %d DNS names, and a certificate holds at most %d of each",
			cutTo(req.NodeName, MaxNameLength), len(req.AdditionalPrincipals), len(req.DNSNames), MaxPrincipals)
	}
	sshKey, err := parseSSHKey(req.PublicSSHKey)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	tlsKey, err := parseTLSKey(req.PublicTLSKey)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	out := &hostCerts{
		ssh: HostCertRequest{
			PublicKey:  sshKey,
			HostID:     req.HostID,
			NodeName:   req.NodeName,
			Role:       req.Role,
			Principals: principalsWith(req.AdditionalPrincipals, req.RemoteAddr),
			TTL:        HostCertTTL,
		},
		tlsKey: tlsKey,
		names:  req.DNSNames,
	}
	if err := out.ssh.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	for _, name := range out.names {
		if err := checkHostName("DNS name", name); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	if err := s.checkUUIDs(out); err != nil {
		return nil, trace.Wrap(err)
	}
	// Under these names api/client asks for the auth server: who may have them
	// can stand in for it.
	if req.Role != types.RoleAuth {
		for _, name := range slices.Concat(s.hostPrincipals(out.ssh), out.names) {
			if isAuthName(name) {
				return nil, trace.BadParameter("the name %q is the auth server's, and cannot be that of a %s", name, strings.ToLower(string(req.Role)))
			}
		}
	}
	if count := len(s.hostPrincipals(out.ssh)); count > MaxPrincipals {
		return nil, trace.BadParameter("the host %q has %d names and addresses, and a certificate holds at most %d", req.NodeName, count, MaxPrincipals)
	}
	return out, nil
}

func isAuthName(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == constants.APIDomain || strings.HasSuffix(name, "."+constants.APIDomain)
}

// principalsWith puts the address that the host connects from in the place of
// those that stand for all addresses.
func principalsWith(principals []string, remote string) []string {
	addr := remoteIP(remote)
	var out []string
	for _, principal := range principals {
		if ip, err := netip.ParseAddr(principal); err == nil && ip.IsUnspecified() {
			if !addr.IsValid() {
				continue
			}
			principal = addr.String()
		}
		if !slices.Contains(out, principal) {
			out = append(out, principal)
		}
	}
	return out
}

// remoteIP reads an address with or without a port. It is not valid for what is
// no address, such as that of a pipe.
func remoteIP(remote string) netip.Addr {
	if addrPort, err := netip.ParseAddrPort(remote); err == nil {
		return addrPort.Addr().Unmap().WithZone("")
	}
	addr, _ := netip.ParseAddr(remote)
	return addr.Unmap().WithZone("")
}

func (s *Server) signHostCerts(ctx context.Context, req *hostCerts) (*proto.Certs, error) {
	sshCert, err := s.SignHost(ctx, req.ssh)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	san := slices.Concat(s.hostPrincipals(req.ssh), req.names)
	if req.ssh.Role == types.RoleAuth {
		san = s.serverNames(san)
	}
	names, addresses := sanNames(san)
	tlsCert, _, err := s.signTLS(ctx, tlsRequest{
		kind: types.HostCA,
		key:  req.tlsKey,
		subject: tlsca.Identity{
			Username: s.inCluster(req.ssh.HostID),
			Groups:   []string{string(req.ssh.Role)},
			Cluster:  s.clusterName,
		},
		names:     names,
		addresses: addresses,
		server:    true,
		ttl:       req.ssh.TTL,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	certs := &proto.Certs{SSH: ssh.MarshalAuthorizedKey(sshCert), TLS: encodeCert(tlsCert)}
	certs.SSHCACerts, certs.TLSCACerts, err = s.hostAuthorities(ctx)
	return certs, trace.Wrap(err)
}

// hostAuthorities returns whom to trust as hosts: lines of authorized_keys, and
// certificates in PEM.
func (s *Server) hostAuthorities(ctx context.Context) (sshKeys, tlsCerts [][]byte, err error) {
	authority, err := s.sealedAuthority(ctx, types.HostCA)
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	for _, pair := range authority.GetTrustedSSHKeyPairs() {
		sshKeys = append(sshKeys, pair.PublicKey)
	}
	for _, pair := range authority.GetTrustedTLSKeyPairs() {
		tlsCerts = append(tlsCerts, pair.Cert)
	}
	return sshKeys, tlsCerts, nil
}
