// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Who a host is in one of its roles: the certificates over its keys, kept on disk,
// and signed anew before they end, when the host's addresses change, and when the
// cluster's authority does.

package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravitational/teleport/api/breaker"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/disk"
	"teleport-auditd/lib/tlsca"
)

// lastRedial bounds the time between two tries to reach an auth server that is away.
const lastRedial = 10 * time.Second

// Signer signs host certificates: an auth server of this process, or an
// api/client of this identity.
type Signer interface {
	GenerateHostCerts(context.Context, *proto.HostCertsRequest) (*proto.Certs, error)
}

// Identity is who a host is in one role. Its methods may be called from several
// goroutines.
type Identity struct {
	role  types.SystemRole
	keys  *Keys
	path  string
	clock clockwork.Clock

	// renewing lets one renewal run at a time.
	renewing sync.Mutex
	state    atomic.Pointer[state]
	// trusted are the authorities of hosts. They move on by themselves when the
	// cluster's do.
	trusted atomic.Pointer[x509.CertPool]
	// open are the connections to auth servers.
	open connections
}

// state is never changed, only replaced.
type state struct {
	certs   *proto.Certs
	ssh     *ssh.Certificate
	signers []ssh.Signer
	tls     *tls.Certificate
	subject tlsca.Identity
	// principals are those that were asked for.
	principals []string
}

// stored is the file's form.
type stored struct {
	SSH        []byte   `json:"ssh"`
	TLS        []byte   `json:"tls"`
	TLSCAs     [][]byte `json:"tls_cas"`
	SSHCAs     [][]byte `json:"ssh_cas"`
	Principals []string `json:"principals"`
}

func identityPath(dir string, role types.SystemRole) string {
	return filepath.Join(dir, "host_identity_"+strings.ToLower(string(role))+".json")
}

// Open reads what an earlier start has left in dir. The certificates may have
// expired: see Valid.
//
// The error is trace.NotFound where the host has not joined yet, and
// trace.BadParameter for a file that cannot be used.
func Open(dir string, role types.SystemRole, keys *Keys, clock clockwork.Clock) (*Identity, error) {
	path := identityPath(dir, role)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trace.NotFound("this host has not joined a cluster as a %s yet", strings.ToLower(string(role)))
	}
	if err != nil {
		return nil, trace.AccessDenied("%s cannot be read (%v): make it readable for teleport alone", path, cause.System(err))
	}
	i := &Identity{role: role, keys: keys, path: path, clock: clock}
	var kept stored
	err = json.Unmarshal(text, &kept)
	if err == nil {
		err = i.adopt(&proto.Certs{SSH: kept.SSH, TLS: kept.TLS, TLSCACerts: kept.TLSCAs, SSHCACerts: kept.SSHCAs}, kept.Principals)
	}
	if err != nil {
		return nil, trace.BadParameter("%s cannot be used (%v): take it away, and join again with a new token", path, err)
	}
	return i, nil
}

// New keeps, in dir, the certificates that Register or a Signer returned for
// keys.
func New(dir string, role types.SystemRole, keys *Keys, certs *proto.Certs, principals []string, clock clockwork.Clock) (*Identity, error) {
	i := &Identity{role: role, keys: keys, path: identityPath(dir, role), clock: clock}
	if err := i.adopt(certs, principals); err != nil {
		return nil, trace.Wrap(err)
	}
	return i, trace.Wrap(i.store())
}

// Sign makes an identity with a signer that asks for no token: the auth server of
// the same process.
func Sign(ctx context.Context, signer Signer, dir, hostID, nodeName string, role types.SystemRole, keys *Keys, principals []string, clock clockwork.Clock) (*Identity, error) {
	certs, err := generate(ctx, signer, keys, hostID, nodeName, role, principals)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return New(dir, role, keys, certs, principals, clock)
}

func generate(ctx context.Context, signer Signer, keys *Keys, hostID, nodeName string, role types.SystemRole, principals []string) (*proto.Certs, error) {
	tlsPublic, err := keys.tlsPublic()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	certs, err := signer.GenerateHostCerts(ctx, &proto.HostCertsRequest{
		HostID:               hostID,
		NodeName:             nodeName,
		Role:                 role,
		AdditionalPrincipals: principals,
		PublicSSHKey:         keys.sshPublic(),
		PublicTLSKey:         tlsPublic,
	})
	return certs, trace.Wrap(err, "signing the certificates of the host")
}

// adopt takes certs into use, once they are seen to be ours.
func (i *Identity) adopt(certs *proto.Certs, principals []string) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey(certs.SSH)
	if err != nil {
		return trace.BadParameter("the SSH certificate of the host cannot be read: %v", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return trace.BadParameter("what was signed for the host is no SSH certificate")
	}
	signer, err := ssh.NewCertSigner(cert, i.keys.SSH)
	if err != nil {
		return trace.BadParameter("the SSH certificate of the host is not for its key: %v", err)
	}
	leaf, err := parseCertificate(certs.TLS)
	if err != nil {
		return trace.Wrap(err)
	}
	if !i.keys.tls.PublicKey.Equal(leaf.PublicKey) {
		return trace.BadParameter("the TLS certificate of the host is not for its key")
	}
	subject, err := tlsca.FromSubject(leaf.Subject)
	if err != nil {
		return trace.Wrap(err)
	}
	pool := x509.NewCertPool()
	for _, authority := range certs.TLSCACerts {
		if !pool.AppendCertsFromPEM(authority) {
			return trace.BadParameter("an authority's certificate cannot be read")
		}
	}
	i.trusted.Store(pool)
	i.state.Store(&state{
		certs:      certs,
		ssh:        cert,
		signers:    []ssh.Signer{signer, i.keys.SSH},
		tls:        &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: i.keys.tls, Leaf: leaf},
		subject:    subject,
		principals: slices.Clone(principals),
	})
	return nil
}

func (i *Identity) store() error {
	s := i.state.Load()
	text, err := json.Marshal(stored{SSH: s.certs.SSH, TLS: s.certs.TLS, TLSCAs: s.certs.TLSCACerts, SSHCAs: s.certs.SSHCACerts, Principals: s.principals})
	if err != nil {
		return trace.Wrap(err)
	}
	if err := disk.Replace(i.path, text, 0o600); err != nil {
		return trace.AccessDenied("%s cannot be written (%v): make the data directory writable", i.path, cause.System(err))
	}
	return nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != certificateBlock {
		return nil, trace.BadParameter("the TLS certificate of the host is not in PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, trace.BadParameter("the TLS certificate of the host cannot be read: %v", err)
	}
	return leaf, nil
}

// Signers are what to show to the next SSH client: the certificate, and the bare
// key for those who know that.
func (i *Identity) Signers() []ssh.Signer { return i.state.Load().signers }

// ClusterName is the cluster's, as the certificate has it.
func (i *Identity) ClusterName() string { return i.state.Load().subject.Cluster }

// HostID is the host's UUID, as the certificate has it.
func (i *Identity) HostID() string {
	return strings.TrimSuffix(i.state.Load().subject.Username, "."+i.ClusterName())
}

// Path is the file that the certificates are kept in.
func (i *Identity) Path() string { return i.path }

// TLSCertificate is what to show to the next TLS server or client.
func (i *Identity) TLSCertificate() *tls.Certificate { return i.state.Load().tls }

// Valid refuses certificates that are not valid now, with trace.CompareFailed and
// a line that says what to do.
func (i *Identity) Valid() error {
	now := i.clock.Now()
	leaf := i.TLSCertificate().Leaf
	switch {
	case now.After(leaf.NotAfter):
		return trace.CompareFailed("the certificate of this host expired at %s, as it was away from the cluster for long: take %s away, and join again with a new token", stamp(leaf.NotAfter), i.path)
	case now.Before(leaf.NotBefore):
		return trace.CompareFailed("the certificate of this host is not valid before %s, and its clock says %s: it is at least %v behind. Set the clock (NTP)", stamp(leaf.NotBefore), stamp(now), leaf.NotBefore.Sub(now).Round(time.Second))
	}
	return nil
}

// Refresh has the certificates signed anew if half of their time has gone, or if
// the host has got other names and addresses than principals. nodeName is the
// name that users know it by.
func (i *Identity) Refresh(ctx context.Context, signer Signer, nodeName string, principals []string) (renewed bool, err error) {
	s := i.state.Load()
	leaf := s.tls.Leaf
	half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	if i.clock.Now().Before(half) && slices.Equal(principals, s.principals) {
		return false, nil
	}
	return true, trace.Wrap(i.renew(ctx, signer, nodeName, principals))
}

// Follow takes what the cluster's host authorities are now: connections are
// checked by them at once, and the certificates are signed anew where the
// authority that signed them does so no more.
func (i *Identity) Follow(ctx context.Context, signer Signer, nodeName string, hostCAs []types.CertAuthority) (renewed bool, err error) {
	pool := x509.NewCertPool()
	s := i.state.Load()
	current, found := false, false
	for _, ca := range hostCAs {
		if ca.GetClusterName() != s.subject.Cluster {
			continue
		}
		for _, pair := range ca.GetTrustedTLSKeyPairs() {
			found = pool.AppendCertsFromPEM(pair.Cert) || found
		}
		current = current || i.signedBy(ca)
	}
	if !found {
		return false, trace.NotFound("the cluster has shown no authority of hosts")
	}
	i.trusted.Store(pool)
	if current {
		return false, nil
	}
	return true, trace.Wrap(i.renew(ctx, signer, nodeName, s.principals))
}

// signedBy tells whether the authority would sign with the keys again that signed
// what is there.
func (i *Identity) signedBy(ca types.CertAuthority) bool {
	keys := ca.GetActiveKeys()
	if ca.GetRotation().Phase == types.RotationPhaseUpdateClients {
		// Hosts go on with the old ones while clients learn the new.
		keys = ca.GetAdditionalTrustedKeys()
	}
	s := i.state.Load()
	bySSH := slices.ContainsFunc(keys.SSH, func(pair *types.SSHKeyPair) bool {
		key, _, _, _, err := ssh.ParseAuthorizedKey(pair.PublicKey)
		return err == nil && bytes.Equal(key.Marshal(), s.ssh.SignatureKey.Marshal())
	})
	byTLS := slices.ContainsFunc(keys.TLS, func(pair *types.TLSKeyPair) bool {
		authority, err := parseCertificate(pair.Cert)
		return err == nil && s.tls.Leaf.CheckSignatureFrom(authority) == nil
	})
	return bySSH && byTLS
}

func (i *Identity) renew(ctx context.Context, signer Signer, nodeName string, principals []string) error {
	i.renewing.Lock()
	defer i.renewing.Unlock()
	certs, err := generate(ctx, signer, i.keys, i.HostID(), nodeName, i.role, principals)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := i.adopt(certs, principals); err != nil {
		return trace.Wrap(err)
	}
	// Connections go by the certificate that they were made with, which ends
	// before they do. grpc makes new ones by itself.
	i.open.closeAll()
	return trace.Wrap(i.store())
}

// ClientTLS is for connections to auth servers. It shows the certificate that is
// current when a connection is made, and believes the authorities of then.
func (i *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: constants.APIDomain,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.TLSCertificate(), nil
		},
		// The pool of a tls.Config cannot change, so VerifyConnection checks all
		// that crypto/tls would.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return trace.AccessDenied("the auth server has shown no certificate")
			}
			return trace.Wrap(verify(state.PeerCertificates[0], i.trusted.Load(), behind(state), i.clock.Now(), "auth server's"))
		},
		Time: i.clock.Now,
	}
}

// Connect returns a client of the auth servers at these addresses, or of those
// behind a proxy's HTTPS. It does not wait for a connection, and finds another
// server by itself when the one that it has is gone. Close must be called.
func (i *Identity) Connect(ctx context.Context, servers []string) (*client.Client, error) {
	return i.ConnectAny(ctx, func() []string { return servers })
}

// ConnectAny is Connect for addresses that change. They are asked for at each dial,
// and need not be trusted: whoever answers there has to be an auth server.
func (i *Identity) ConnectAny(ctx context.Context, servers func() []string) (*client.Client, error) {
	c, err := client.New(ctx, client.Config{
		Credentials:                []client.Credentials{client.LoadTLS(i.ClientTLS())},
		Dialer:                     i.open.track(dialer(nil, servers)),
		DialInBackground:           true,
		ALPNSNIAuthDialClusterName: i.ClusterName(),
		// A breaker would refuse calls for a while after the auth servers are back.
		CircuitBreakerConfig: breaker.NoopBreakerConfig(),
		// gRPC would wait for up to two minutes between its tries.
		DialOpts: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: lastRedial},
			MinConnectTimeout: lastRedial,
		})},
	})
	return c, trace.Wrap(err)
}
