// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl auth sign: a key and certificates for a user.

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/identityfile"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
)

// What is written: files for ssh, one identity file for tctl and api/client, or
// files for TLS.
const (
	formatOpenSSH = "openssh"
	formatFile    = "file"
	formatTLS     = "tls"
	defaultTTL    = "12h"
)

type signFlags struct {
	user      string
	logins    []string
	loginsSet bool
	ttl       string
	format    string
	out       string
	overwrite bool
}

func (t *tctl) addSign(parent *kingpin.CmdClause, register register) {
	clause := parent.Command("sign", "Make a key and certificates for a user.")
	f := &signFlags{}
	clause.Flag("user", "The person: what audit records call teleportUser.").
		PlaceHolder("NAME").Required().StringVar(&f.user)
	clause.Flag("logins", "The system users that the person may be, with commas between them, whatever roles say: for somebody who is no user of the cluster. On the host of the auth service only.").
		PlaceHolder("LOGIN,...").IsSetByUser(&f.loginsSet).StringsVar(&f.logins)
	clause.Flag("ttl", fmt.Sprintf("How long the certificate is valid, such as 90m or 12h; %.0fh at most, and no longer than the user's roles say.", auth.MaxTTL.Hours())).
		Default(defaultTTL).StringVar(&f.ttl)
	clause.Flag("format", fmt.Sprintf("How it is written: %s (OUT, OUT.pub, OUT-cert.pub), %s (one identity file) or %s (OUT.key, OUT.crt, OUT.cas).", formatOpenSSH, formatFile, formatTLS)).
		Default(formatOpenSSH).StringVar(&f.format)
	clause.Flag("out", "Name of the file, or what the names of the files begin with.").
		Short('o').PlaceHolder("OUT").Required().StringVar(&f.out)
	clause.Flag("overwrite", "Replace the files where they are there already.").
		BoolVar(&f.overwrite)
	register(clause, func(ctx context.Context) error { return t.sign(ctx, f) })
}

// signed is what the authorities said.
type signed struct {
	private crypto.Signer
	public  ssh.PublicKey
	ssh     *ssh.Certificate
	tls     []byte
	// sshCAs and tlsCAs are whom to trust as hosts.
	sshCAs, tlsCAs [][]byte
	cluster        string
}

func (t *tctl) sign(ctx context.Context, f *signFlags) error {
	suffixes, ok := map[string][]string{
		formatOpenSSH: {"", ".pub", "-cert.pub"},
		formatFile:    {""},
		formatTLS:     {".key", ".crt", ".cas"},
	}[f.format]
	if !ok {
		return usageError{trace.BadParameter("there is no format %q: the formats are: %s, %s, %s", f.format, formatOpenSSH, formatFile, formatTLS)}
	}
	if f.out == "" {
		return usageError{trace.BadParameter("--out is empty: give the name of a file")}
	}
	ttl, err := time.ParseDuration(f.ttl)
	if err != nil {
		return usageError{trace.BadParameter("--ttl=%q is no duration: give one such as 90m or 12h", f.ttl)}
	}
	if f.loginsSet && f.format != formatOpenSSH {
		return usageError{trace.BadParameter("--logins signs for ssh alone: use --format=%s, or add a user (tctl users add) and leave --logins out", formatOpenSSH)}
	}
	made := &signed{}
	if made.private, err = newKey(f.format); err != nil {
		return trace.Wrap(err)
	}
	if made.public, err = ssh.NewPublicKey(made.private.Public()); err != nil {
		return trace.Wrap(err)
	}
	explicit := auth.UserCertRequest{PublicKey: made.public, User: f.user, Logins: splitAll(f.logins), TTL: ttl}
	if f.loginsSet {
		if err := explicit.CheckAndSetDefaults(); err != nil {
			return usageError{err}
		}
	} else if ttl < time.Second {
		return usageError{trace.BadParameter("--ttl=%q is shorter than a second: give a duration such as 90m or 12h", f.ttl)}
	}

	out := newOutput(f.out, f.overwrite, suffixes...)
	// Better no certificate than one that finds no place.
	if err := out.check(); err != nil {
		return trace.Wrap(err)
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	if f.loginsSet {
		if c.server == nil {
			return usageError{trace.BadParameter("--logins gives what no role does, which is for root on the host of the auth service: leave it out, and the user's roles decide")}
		}
		if made.ssh, err = c.server.SignUser(ctx, explicit); err != nil {
			return trace.Wrap(err)
		}
	} else if err := c.signByRoles(ctx, f.user, ttl, made); err != nil {
		return trace.Wrap(err)
	}
	contents, err := made.contents(f.format, f.user)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := out.write(contents...); err != nil {
		return trace.Wrap(err)
	}
	until := time.Unix(int64(made.ssh.ValidBefore), 0).UTC()
	return t.print(fmt.Sprintf("Wrote %s, valid until %s.\n", strings.Join(out.names(), ", "), until.Format(time.RFC3339)))
}

// newKey is Ed25519 for ssh. TLS libraries of some years ago do not know that.
func newKey(format string) (crypto.Signer, error) {
	if format == formatOpenSSH {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, trace.Wrap(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return private, trace.Wrap(err)
}

// signByRoles has certificates signed for a user of the cluster.
func (c *cluster) signByRoles(ctx context.Context, user string, ttl time.Duration, made *signed) error {
	tlsPublic, err := x509.MarshalPKIXPublicKey(made.private.Public())
	if err != nil {
		return trace.Wrap(err)
	}
	ping, err := c.Ping(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	certs, err := c.GenerateUserCerts(ctx, proto.UserCertsRequest{
		Username:       user,
		SSHPublicKey:   ssh.MarshalAuthorizedKey(made.public),
		TLSPublicKey:   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: tlsPublic}),
		Expires:        time.Now().Add(ttl).UTC(),
		RouteToCluster: ping.ClusterName,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(certs.SSH)
	if err != nil {
		return trace.BadParameter("the auth service answered with a certificate that cannot be read: %v", err)
	}
	certificate, ok := key.(*ssh.Certificate)
	if !ok {
		return trace.BadParameter("the auth service answered with a key in place of a certificate")
	}
	hosts, err := c.GetCertAuthority(ctx, types.CertAuthID{Type: types.HostCA, DomainName: ping.ClusterName}, false)
	if err != nil {
		return trace.Wrap(err)
	}
	made.ssh, made.tls, made.cluster = certificate, certs.TLS, ping.ClusterName
	for _, pair := range hosts.GetTrustedSSHKeyPairs() {
		made.sshCAs = append(made.sshCAs, pair.PublicKey)
	}
	for _, pair := range hosts.GetTrustedTLSKeyPairs() {
		made.tlsCAs = append(made.tlsCAs, pair.Cert)
	}
	return nil
}

// contents are those of the files, in the order of their suffixes.
func (s *signed) contents(format, user string) ([][]byte, error) {
	if format == formatOpenSSH {
		block, err := ssh.MarshalPrivateKey(s.private, user)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		return [][]byte{pem.EncodeToMemory(block), publicLine(s.public, user), publicLine(s.ssh, user)}, nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.private)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if format == formatTLS {
		return [][]byte{private, s.tls, slices.Concat(s.tlsCAs...)}, nil
	}
	identity := &identityfile.IdentityFile{
		PrivateKey: private,
		Certs:      identityfile.Certs{SSH: ssh.MarshalAuthorizedKey(s.ssh), TLS: s.tls},
		CACerts:    identityfile.CACerts{TLS: s.tlsCAs},
	}
	for _, key := range s.sshCAs {
		identity.CACerts.SSH = append(identity.CACerts.SSH, []byte(fmt.Sprintf("@cert-authority %s,*.%s %s", s.cluster, s.cluster, key)))
	}
	text, err := identityfile.Encode(identity)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return [][]byte{text}, nil
}

// splitAll takes --logins=a,b as well as --logins=a --logins=b. What is empty
// stays, to be refused.
func splitAll(lists []string) []string {
	var all []string
	for _, list := range lists {
		all = append(all, strings.Split(list, ",")...)
	}
	return all
}

// publicLine is a key or certificate as it stands in a .pub file. The comment
// has no line breaks: auth refuses them in names.
func publicLine(key ssh.PublicKey, comment string) []byte {
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
	return []byte(line + " " + comment + "\n")
}
