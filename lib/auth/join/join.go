// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package join is how a host becomes a member of a cluster, and stays one: it
// joins with a token, keeps what it got on disk, connects to the auth servers
// with it, and has it signed anew in time.
//
// A host without certificates registers; one that has been here before opens what
// it has:
//
//	keys, err := join.OpenKeys(dataDir, types.RoleNode)
//	identity, err := join.Open(dataDir, types.RoleNode, keys, clock)
//	if trace.IsNotFound(err) {
//		certs, err := join.Register(ctx, join.Params{Keys: keys, Token: token, Pins: pins, ...})
//		identity, err = join.New(dataDir, types.RoleNode, keys, certs, clock)
//	}
//	client, err := identity.Connect(ctx, addresses)
//
// Keys are made once and stay: a token is bound to the first host that uses it,
// and a host whose answer was lost on the way may ask again with the same keys.
package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/breaker"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/tlsca"
)

const (
	// dialTimeout is how long one auth server may take to answer.
	dialTimeout = 10 * time.Second
	// registerTimeout is how long an auth server may take over a join.
	registerTimeout = 30 * time.Second
	// backdated is how long before its making a certificate is valid.
	backdated = time.Minute
	// tolerated is how far apart two clocks may be without a word about it.
	tolerated = time.Minute
)

// Params is what Register needs.
type Params struct {
	// Servers are host:port of the auth servers, or of a proxy's HTTPS, which
	// are tried in turn.
	Servers []string
	// Token is what tctl tokens add printed.
	Token string
	// Pins are those of the authority that must answer, as tlsca.Pin has them.
	// Any may match.
	Pins []string
	// HostID is the host's UUID, NodeName the name under which users know it.
	HostID, NodeName string
	// Role is types.RoleNode or types.RoleProxy.
	Role types.SystemRole
	// Principals are further names and addresses of the host.
	Principals []string
	// Keys are those of this role.
	Keys *Keys
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (p *Params) CheckAndSetDefaults() error {
	switch {
	case len(p.Servers) == 0:
		return trace.BadParameter("nothing says where the cluster's auth servers are: set teleport.auth_server (--auth-server) or teleport.proxy_server")
	case p.Token == "":
		return trace.BadParameter("this host has not joined the cluster yet, which needs a token: have one made on the auth server with tctl tokens add, and set teleport.auth_token (--token)")
	case len(p.Pins) == 0:
		return trace.BadParameter("this host has not joined the cluster yet, and nothing says which authority it may believe: set teleport.ca_pin (--ca-pin) to what tctl status prints on the auth server")
	case p.Keys == nil:
		return trace.BadParameter("join.Params has no Keys")
	case p.HostID == "" || p.NodeName == "" || p.Role == "":
		return trace.BadParameter("join.Params has no HostID, NodeName or Role")
	}
	if p.Clock == nil {
		p.Clock = clockwork.NewRealClock()
	}
	return nil
}

// Register joins the host with a token, and returns its certificates.
//
// The error is trace.ConnectionProblem where no auth server answers, or one has too
// much to do, so that another try may help. Any other is final and says, in one line, what the
// operator must change: trace.AccessDenied for a token or a pin that is wrong,
// trace.BadParameter for what is missing, trace.CompareFailed for clocks that are
// too far apart.
func Register(ctx context.Context, p Params) (*proto.Certs, error) {
	if err := p.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	tlsPublic, err := p.Keys.tlsPublic()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	request := &types.RegisterUsingTokenRequest{
		HostID:               p.HostID,
		NodeName:             p.NodeName,
		Role:                 p.Role,
		Token:                p.Token,
		AdditionalPrincipals: p.Principals,
		PublicSSHKey:         p.Keys.sshPublic(),
		PublicTLSKey:         tlsPublic,
	}
	// One server after the other, and not whichever connects: each says in its
	// own words why it cannot be joined.
	var errs []error
	for _, server := range p.Servers {
		certs, err := registerAt(ctx, p, server, request)
		if err == nil {
			return certs, trace.Wrap(checkClock(certs, p.Clock.Now()))
		}
		if !trace.IsConnectionProblem(err) || ctx.Err() != nil {
			return nil, trace.Wrap(err)
		}
		errs = append(errs, err)
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = trace.UserMessage(err)
	}
	return nil, trace.ConnectionProblem(nil, "%s", strings.Join(texts, "; "))
}

func registerAt(ctx context.Context, p Params, server string, request *types.RegisterUsingTokenRequest) (*proto.Certs, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	var seen handshake
	auth, err := client.New(ctx, client.Config{
		Credentials: []client.Credentials{client.LoadTLS(&tls.Config{
			MinVersion: tls.VersionTLS12,
			ServerName: constants.APIDomain,
			// VerifyConnection checks the chain by the pins, as nothing else is
			// known of the cluster.
			InsecureSkipVerify: true,
			VerifyConnection: func(state tls.ConnectionState) error {
				return seen.verdict(checkPinned(state, p.Pins, p.Clock.Now()))
			},
			// A proxy leads all that asks for an auth server there. The name of
			// the cluster is not known yet.
			NextProtos: []string{constants.ALPNSNIAuthProtocol + constants.APIDomain},
		})},
		Dialer:               dialer(&seen, func() []string { return []string{server} }),
		DialInBackground:     true,
		CircuitBreakerConfig: breaker.NoopBreakerConfig(),
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	defer auth.Close()
	certs, err := auth.RegisterUsingToken(ctx, request)
	refused, unreachable := seen.result()
	switch {
	case err == nil:
		return certs, nil
	case refused != nil:
		return nil, trace.Wrap(refused)
	case unreachable != nil:
		return nil, trace.ConnectionProblem(unreachable, "the auth server %s cannot be reached: %v", server, describe(unreachable))
	case trace.IsLimitExceeded(err):
		return nil, trace.ConnectionProblem(err, "the auth server %s has this host wait: %s", server, cause.RPC(err))
	case trace.IsAccessDenied(err), trace.IsBadParameter(err), trace.IsNotFound(err), trace.IsAlreadyExists(err), trace.IsCompareFailed(err), trace.IsNotImplemented(err):
		return nil, trace.Wrap(err)
	}
	return nil, trace.ConnectionProblem(err, "the auth server %s does not answer: %s", server, cause.RPC(err))
}

// handshake remembers what grpc would make a long line of.
type handshake struct {
	mu                   sync.Mutex
	refused, unreachable error
}

func (h *handshake) verdict(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused = err
	return err
}

func (h *handshake) dialled(err error) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unreachable = err
}

func (h *handshake) result() (refused, unreachable error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused, h.unreachable
}

// dialer connects to the first server that answers. It starts with the one after
// that which answered last, so that a connection that was lost leads to another
// server.
func dialer(seen *handshake, servers func() []string) client.ContextDialer {
	var mu sync.Mutex
	first := 0
	return client.ContextDialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		mu.Lock()
		start := first
		mu.Unlock()
		var errs []error
		servers := servers()
		for i := range servers {
			at := (start + i) % len(servers)
			dial := net.Dialer{Timeout: dialTimeout}
			conn, err := dial.DialContext(ctx, "tcp", servers[at])
			if err == nil {
				mu.Lock()
				first = (at + 1) % len(servers)
				mu.Unlock()
				seen.dialled(nil)
				return conn, nil
			}
			errs = append(errs, err)
		}
		err := errors.Join(errs...)
		seen.dialled(err)
		return nil, err
	})
}

// Dialer returns what opens a connection to one of the addresses, in turn: a
// proxy's way to the auth servers for others.
func Dialer(servers []string) func(ctx context.Context) (net.Conn, error) {
	dial := dialer(nil, func() []string { return servers })
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dial.DialContext(ctx, "tcp", "")
		return conn, trace.ConvertSystemError(err)
	}
}

// connections are those that are open.
type connections struct {
	mu   sync.Mutex
	open map[*connection]struct{}
}

type connection struct {
	net.Conn
	all *connections
}

func (c *connection) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// track has those that dialer opens among the connections.
func (c *connections) track(dialer client.ContextDialer) client.ContextDialer {
	return client.ContextDialerFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tracked := &connection{Conn: conn, all: c}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open == nil {
			c.open = map[*connection]struct{}{}
		}
		c.open[tracked] = struct{}{}
		return tracked, nil
	})
}

func (c *connections) closeAll() {
	c.mu.Lock()
	open := slices.Collect(maps.Keys(c.open))
	c.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close() // its user finds it closed
	}
}

// describe is what the system said, without the address, which stands before it.
func describe(err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return errors.New("its name cannot be resolved")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Timeout() {
			return errors.New("it did not answer in time")
		}
		return op.Err
	}
	return err
}

// checkPinned holds a server's chain to the pins: one of its authorities has such
// a public key, and signed the server's certificate, or during a rotation the key
// that did. The certificate is an auth server's and valid now.
func checkPinned(state tls.ConnectionState, pins []string, now time.Time) error {
	if len(state.PeerCertificates) == 0 {
		return trace.AccessDenied("the server has shown no certificate, so it is no auth server: set teleport.auth_server to one")
	}
	leaf := state.PeerCertificates[0]
	roots := x509.NewCertPool()
	var shown []string
	found := false
	for _, cert := range state.PeerCertificates[1:] {
		pin := tlsca.Pin(cert)
		if slices.Contains(pins, pin) {
			roots.AddCert(cert)
			found = true
		}
		if !slices.Contains(shown, pin) {
			shown = append(shown, pin)
		}
	}
	if !found {
		if len(shown) == 0 {
			return trace.AccessDenied("the server has shown a certificate without its authority, so it is no auth server of this kind: set teleport.auth_server to one")
		}
		return trace.AccessDenied("the pin does not match: the server's authority is %s, and teleport.ca_pin (--ca-pin) names another. If tctl status prints this one on the auth server, set it; if not, somebody stands between this host and the cluster", strings.Join(shown, ", "))
	}
	return trace.Wrap(verify(leaf, roots, behind(state), now, "auth server's"))
}

// behind are the certificates that a server has shown behind its own.
func behind(state tls.ConnectionState) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		pool.AddCert(cert)
	}
	return pool
}

// verify checks the certificate of an auth server, and says what is wrong with
// the clocks where these are what is wrong.
func verify(leaf *x509.Certificate, roots, others *x509.CertPool, now time.Time, whose string) error {
	switch {
	case now.Before(leaf.NotBefore):
		return trace.CompareFailed("the %s certificate is not valid before %s, and this host's clock says %s: it is at least %v behind. Set the clocks of both hosts (NTP)",
			whose, stamp(leaf.NotBefore), stamp(now), leaf.NotBefore.Sub(now).Round(time.Second))
	case now.After(leaf.NotAfter):
		return trace.CompareFailed("the %s certificate was valid until %s, and this host's clock says %s: it is at least %v ahead, if the auth server runs. Set the clocks of both hosts (NTP)",
			whose, stamp(leaf.NotAfter), stamp(now), now.Sub(leaf.NotAfter).Round(time.Second))
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: constants.APIDomain, CurrentTime: now})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return trace.CompareFailed("the authority of the %s certificate is not valid at %s, which is what this host's clock says: set the clocks of both hosts (NTP)", whose, stamp(now))
	}
	if err != nil {
		return trace.AccessDenied("the %s certificate cannot be believed: %v", whose, err)
	}
	identity, err := tlsca.FromSubject(leaf.Subject)
	if err != nil || !slices.Equal(identity.Groups, []string{string(types.RoleAuth)}) {
		return trace.AccessDenied("the server is another host of the cluster, and no auth server: its certificate is that of %q", leaf.Subject.CommonName)
	}
	return nil
}

// checkClock looks whether what was just signed is valid here.
func checkClock(certs *proto.Certs, now time.Time) error {
	leaf, err := parseCertificate(certs.TLS)
	if err != nil {
		return trace.Wrap(err)
	}
	signed := leaf.NotBefore.Add(backdated)
	switch {
	case now.Before(leaf.NotBefore):
		return trace.CompareFailed("this host's clock says %s, and the auth server's %s: it is %v behind, so that its new certificate is not valid yet. Set the clock (NTP)",
			stamp(now), stamp(signed), signed.Sub(now).Round(time.Second))
	case now.After(leaf.NotAfter):
		return trace.CompareFailed("this host's clock says %s, and the auth server's %s: it is %v ahead, so that its new certificate has expired already. Set the clock (NTP)",
			stamp(now), stamp(signed), now.Sub(signed).Round(time.Second))
	}
	return nil
}

// Skew is how far this host's clock is ahead of that of the auth server that just
// signed certs; zero where that means nothing.
func Skew(certs *proto.Certs, now time.Time) time.Duration {
	leaf, err := parseCertificate(certs.TLS)
	if err != nil {
		return 0
	}
	skew := now.Sub(leaf.NotBefore.Add(backdated))
	if skew.Abs() <= tolerated {
		return 0
	}
	return skew
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
