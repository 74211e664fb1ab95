// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One login as it is kept: where it was made, for whom, until when.

package client

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/profile"
	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/gravitational/teleport/api/utils/sshutils"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/tlsca"
)

// Profile is a login that is kept in a Store.
type Profile struct {
	*profile.Profile
	// SSH and TLS are the certificates.
	SSH *ssh.Certificate
	TLS *x509.Certificate
	// Identity is what the TLS certificate says of the user.
	Identity tlsca.Identity
}

// newProfile reads the certificates of p. The error is trace.NotFound where
// there are none.
func newProfile(p *profile.Profile) (*Profile, error) {
	text, err := os.ReadFile(p.SSHCertPath())
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	sshCert, err := sshutils.ParseCertificate(text)
	if err != nil {
		return nil, trace.BadParameter("%s is not a certificate: %v", p.SSHCertPath(), err)
	}
	text, err = os.ReadFile(p.TLSCertPath())
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	tlsCert, err := parseCertificate(text)
	if err != nil {
		return nil, trace.BadParameter("%s is not a certificate: %v", p.TLSCertPath(), err)
	}
	identity, err := tlsca.FromSubject(tlsCert.Subject)
	if err != nil {
		return nil, trace.Wrap(err, "%s", p.TLSCertPath())
	}
	return &Profile{Profile: p, SSH: sshCert, TLS: tlsCert, Identity: identity}, nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, trace.BadParameter("there is no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return cert, trace.Wrap(err)
}

// ValidUntil is when the login ends: when the first of its certificates expires.
func (p *Profile) ValidUntil() time.Time {
	return earliest(p.SSH, p.TLS)
}

func earliest(sshCert *ssh.Certificate, tlsCert *x509.Certificate) time.Time {
	until := tlsCert.NotAfter
	if sshCert.ValidBefore != ssh.CertTimeInfinity {
		// What does not fit is later than any TLS certificate lasts.
		if seconds := int64(sshCert.ValidBefore); seconds >= 0 && time.Unix(seconds, 0).Before(until) {
			until = time.Unix(seconds, 0)
		}
	}
	return until.UTC()
}

// Logins are the system users that the certificate is good for.
func (p *Profile) Logins() []string { return p.SSH.ValidPrincipals }

// Signer is the user's key with the SSH certificate.
func (p *Profile) Signer() (ssh.Signer, error) {
	key, err := keys.LoadPrivateKey(p.UserSSHKeyPath())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if !bytes.Equal(key.SSHPublicKey().Marshal(), p.SSH.Key.Marshal()) {
		return nil, trace.BadParameter("the key %s and the certificate %s do not belong together: log in again", p.UserSSHKeyPath(), p.SSHCertPath())
	}
	signer, err := sshutils.SSHSigner(p.SSH, key.Signer)
	return signer, trace.Wrap(err)
}

// HostCAs are the keys that sign for hosts of this cluster, and no other's: those
// that came with a login at this proxy. Another proxy may say that it is of a
// cluster of the same name.
func (p *Profile) HostCAs() ([]ssh.PublicKey, error) {
	text, err := os.ReadFile(p.KnownHostsPath())
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	var authorities []ssh.PublicKey
	for line := range strings.Lines(string(text)) {
		marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
		if err == nil && marker == markerAuthority && hosts[0] == p.Name() && slices.Contains(hosts, p.SiteName) {
			authorities = append(authorities, key)
		}
	}
	if len(authorities) == 0 {
		return nil, trace.NotFound("%s names no authority of the cluster %q: log in again", p.KnownHostsPath(), p.SiteName)
	}
	return authorities, nil
}

// SSHProxyHostPort is where the proxy speaks SSH.
func (p *Profile) SSHProxyHostPort() (host string, port int, err error) {
	host, text, err := net.SplitHostPort(p.SSHProxyAddr)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || checkHost("name of the proxy", host) != nil || port < 1 || port > 65535 {
		return "", 0, trace.BadParameter("the profile has the address %q for SSH, which is none: log in again", p.SSHProxyAddr)
	}
	return host, port, nil
}

// proxyLogin is the login to use at the proxy, which knows no logins and only
// asks that the certificate names it.
func (p *Profile) proxyLogin(wanted string) string {
	if len(p.SSH.ValidPrincipals) == 0 {
		return p.Username
	}
	if slices.Contains(p.SSH.ValidPrincipals, wanted) {
		return wanted
	}
	return p.SSH.ValidPrincipals[0]
}

// Permits are the names of the permissions in the SSH certificate, sorted, such
// as permit-pty.
func (p *Profile) Permits() []string {
	var permits []string
	for name := range p.SSH.Extensions {
		if strings.HasPrefix(name, "permit-") {
			permits = append(permits, name)
		}
	}
	slices.Sort(permits)
	return permits
}
