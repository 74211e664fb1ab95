// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package tlsca says how a TLS certificate of the cluster names its owner: a
// user with roles, or a host with a role of the system.
//
// An authority puts Identity.Subject into what it signs, and whoever checked the
// chain reads it back with FromSubject:
//
//	identity, err := tlsca.FromSubject(state.PeerCertificates[0].Subject)
//
// The layout is Teleport's: the name is the common name, roles are
// organizations, logins are localities, traits are a postal code in JSON, and
// the cluster stands under an object identifier of its own.
package tlsca

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"

	"github.com/gravitational/trace"
)

// Identity is the owner of a TLS certificate.
type Identity struct {
	// Username is a user's name, or "<host UUID>.<cluster>" for a host.
	Username string
	// Groups are a user's roles, or one role of the system such as "Node".
	Groups []string
	// Principals are the logins of a user.
	Principals []string
	// Traits are those of a user.
	Traits map[string][]string
	// Cluster is the name of the cluster that signed.
	Cluster string
}

// ExtensionRole is the extension of a host's SSH certificate that says what the
// host is: "Node", "Proxy" or "Auth". Teleport's own certificates have it, but its
// api module does not declare it.
const ExtensionRole = "x-teleport-role"

// clusterOID is where Teleport's certificates name the cluster.
func clusterOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 9999, 1, 7} }

// Subject returns the identity as a certificate has it. The error is
// trace.BadParameter for one without a name, a group or a cluster.
func (i Identity) Subject() (pkix.Name, error) {
	if i.Username == "" || i.Cluster == "" || len(i.Groups) == 0 {
		return pkix.Name{}, trace.BadParameter("an identity has a name, a role and a cluster, and this one has %q, %q and %q", i.Username, i.Groups, i.Cluster)
	}
	subject := pkix.Name{
		CommonName:   i.Username,
		Organization: append([]string(nil), i.Groups...),
		Locality:     append([]string(nil), i.Principals...),
		ExtraNames:   []pkix.AttributeTypeAndValue{{Type: clusterOID(), Value: i.Cluster}},
	}
	if len(i.Traits) > 0 {
		text, err := json.Marshal(i.Traits)
		if err != nil {
			return pkix.Name{}, trace.Wrap(err)
		}
		subject.PostalCode = []string{string(text)}
	}
	return subject, nil
}

// FromSubject reads what Subject wrote. The error is trace.BadParameter for a
// subject that Subject cannot have written.
func FromSubject(subject pkix.Name) (Identity, error) {
	identity := Identity{
		Username:   subject.CommonName,
		Groups:     subject.Organization,
		Principals: subject.Locality,
	}
	for _, name := range subject.Names {
		if value, ok := name.Value.(string); ok && name.Type.Equal(clusterOID()) {
			identity.Cluster = value
		}
	}
	if len(subject.PostalCode) > 0 {
		if err := json.Unmarshal([]byte(subject.PostalCode[0]), &identity.Traits); err != nil {
			return Identity{}, trace.BadParameter("the traits of the certificate cannot be read: %v", err)
		}
	}
	if identity.Username == "" || identity.Cluster == "" || len(identity.Groups) == 0 {
		return Identity{}, trace.BadParameter("the certificate names no owner of this kind: it has the name %q, the roles %q and the cluster %q", identity.Username, identity.Groups, identity.Cluster)
	}
	return identity, nil
}

// Pin is how operators name an authority when a host joins: "sha256:" and the
// hash, in hex, of its public key as it stands in the certificate (SPKI).
func Pin(authority *x509.Certificate) string {
	sum := sha256.Sum256(authority.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}
