// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// SSH connections: to the proxy, and through it to nodes.

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/tlsca"
	"teleport-auditd/lib/version"
)

const (
	// dialTimeout is how long a proxy or a node may take to be connected and to
	// let the user in.
	dialTimeout = 30 * time.Second
	// aliveInterval is how often a node is asked whether it is there, and
	// aliveMissed how many answers may be missing in a row.
	aliveInterval = 15 * time.Second
	aliveMissed   = 4
)

// DialConfig is what Dial needs.
type DialConfig struct {
	// Profile is a login that is valid.
	Profile *Profile
	// Login is the login that the user means to have at the node. It is used at
	// the proxy as well, where the certificate has it.
	Login string
	// Clock says whether hosts' certificates are valid.
	Clock clockwork.Clock
	// Banner is where nodes' greetings go; nil drops them.
	Banner io.Writer
	// Refresh returns the cluster's host authorities as they are now. It is asked,
	// once, when a host shows a certificate of an authority that the profile does
	// not know: they may have new keys since the login. Nil asks nobody.
	Refresh func(ctx context.Context) ([]ssh.PublicKey, error)
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *DialConfig) CheckAndSetDefaults() error {
	if c.Profile == nil {
		return trace.BadParameter("client.DialConfig has no Profile")
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Banner == nil {
		c.Banner = io.Discard
	}
	return nil
}

// Conn is a connection to a proxy, over which nodes are reached.
type Conn struct {
	cfg    DialConfig
	signer ssh.Signer
	proxy  *ssh.Client

	// mu guards what the profile trusts, which several handshakes may renew.
	mu          sync.Mutex
	authorities []ssh.PublicKey
	refreshed   bool
}

// Dial connects to the proxy of a login and checks that it is the cluster's.
// Close it after use.
func Dial(ctx context.Context, cfg DialConfig) (*Conn, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	c := &Conn{cfg: cfg}
	var err error
	if c.signer, err = cfg.Profile.Signer(); err != nil {
		return nil, trace.Wrap(err)
	}
	if c.authorities, err = cfg.Profile.HostCAs(); err != nil {
		return nil, trace.Wrap(err)
	}
	host, port, err := cfg.Profile.SSHProxyHostPort()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	netConn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, trace.ConnectionProblem(nil, "cannot reach the proxy %s: %s", addr, dialReason(ctx, err))
	}
	c.proxy, err = c.handshake(ctx, netConn, host, types.RoleProxy, cfg.Profile.proxyLogin(cfg.Login), io.Discard)
	if err != nil {
		return nil, wrapUnlessOutdated(err, "the proxy %s", addr)
	}
	return c, nil
}

// Close closes the connection and those to nodes over it.
func (c *Conn) Close() error { return trace.Wrap(c.proxy.Close()) }

// NodeAddr is which node, and as whom.
type NodeAddr struct {
	// Login is the system user.
	Login string
	// Host is the node's name, its UUID, either with the cluster's name after a
	// dot, or its address.
	Host string
	// Port is the one that the node registered. Zero is whichever it is.
	Port int
}

func (a NodeAddr) hostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// ParseLoginHost reads [login@]host. The last @ separates, since names of people
// may have one.
func ParseLoginHost(text string) (login, host string) {
	if i := strings.LastIndex(text, "@"); i >= 0 {
		return text[:i], text[i+1:]
	}
	return "", text
}

// OpenStream opens the bytes to a node: what its SSH server and an SSH client
// say to each other. The error is the proxy's where it refuses.
func (c *Conn) OpenStream(ctx context.Context, addr NodeAddr) (net.Conn, error) {
	conn, err := c.proxy.DialContext(ctx, "tcp", addr.hostPort())
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		return nil, trace.ConnectionProblem(nil, "the proxy does not connect to %q: %s", addr.Host, Clean(refused.Message))
	}
	if err != nil {
		return nil, trace.ConnectionProblem(nil, "cannot reach %q: %s", addr.Host, dialReason(ctx, err))
	}
	return conn, nil
}

// DialNode logs in at a node, and checks that it is the node that was meant.
// Close the client after use. It is closed when the node has been silent for
// about a minute.
func (c *Conn) DialNode(ctx context.Context, addr NodeAddr) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stream, err := c.OpenStream(ctx, addr)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	client, err := c.handshake(ctx, stream, addr.Host, types.RoleNode, addr.Login, c.cfg.Banner)
	if err != nil {
		return nil, wrapUnlessOutdated(err, "node %q", Clean(addr.Host))
	}
	go stayAlive(client, c.cfg.Clock)
	return client, nil
}

// handshake is SSH over conn, with a host that has to show a certificate for
// host and of the role. It closes conn where it fails.
func (c *Conn) handshake(ctx context.Context, conn net.Conn, host string, role types.SystemRole, login string, banner io.Writer) (*ssh.Client, error) {
	// A channel of SSH has no deadlines: closing it ends what waits for it.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	refused := ""
	var outdated *OutdatedError
	// A host shows its key again at each exchange of keys, when its certificate,
	// which was good at the beginning, may have ended.
	var accepted []byte
	config := &ssh.ClientConfig{
		User:              login,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(c.signer)},
		HostKeyAlgorithms: certificateAlgorithms(),
		ClientVersion:     "SSH-2.0-tsh_" + version.Version,
		HostKeyCallback: func(_ string, remote net.Addr, key ssh.PublicKey) error {
			if accepted != nil && bytes.Equal(accepted, key.Marshal()) {
				return nil
			}
			err := c.checkHostKey(ctx, host, role, remote, key)
			if err != nil {
				refused = err.Error()
				errors.As(err, &outdated)
				return err
			}
			accepted = key.Marshal()
			return nil
		},
		BannerCallback: func(message string) error {
			_, _ = io.WriteString(banner, CleanLines(message))
			return nil
		},
	}
	sshConn, channels, requests, err := ssh.NewClientConn(conn, host, config)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err == nil {
		return ssh.NewClient(sshConn, channels, requests), nil
	}
	_ = conn.Close()
	switch {
	case outdated != nil:
		return nil, trace.Wrap(outdated)
	case refused != "":
		return nil, trace.AccessDenied("does not show a certificate of this cluster for this name: %s", Clean(strings.TrimPrefix(refused, "ssh: ")))
	case ctx.Err() != nil:
		return nil, trace.ConnectionProblem(nil, "%s", dialReason(ctx, ctx.Err()))
	case strings.Contains(err.Error(), "unable to authenticate"):
		// The host says nothing more; it has recorded the reason. Whether it was the
		// authority the cluster tells in TLS.
		if role == types.RoleProxy {
			if err := CheckLogin(ctx, c.cfg.Profile); err != nil {
				return nil, trace.Wrap(err)
			}
		}
		user, logins := Clean(c.cfg.Profile.Username), c.cfg.Profile.Logins()
		if !slices.Contains(logins, login) {
			return nil, trace.AccessDenied("refuses the login %q of %s, whose logins are %s", login, user, Clean(strings.Join(logins, ", ")))
		}
		return nil, trace.AccessDenied("refuses the login %q of %s: the roles may not allow it there, a lock may hold, or the certificate is no longer good, and tsh login --ttl brings a new one", login, user)
	}
	return nil, trace.ConnectionProblem(nil, "ended the connection: %s", Clean(strings.TrimPrefix(err.Error(), "ssh: handshake failed: ")))
}

// checkHostKey takes certificates alone, for a name that stands in them, of a host
// that is what it should be: a node must not stand in for the proxy.
func (c *Conn) checkHostKey(ctx context.Context, host string, role types.SystemRole, remote net.Addr, key ssh.PublicKey) error {
	cert, ok := key.(*ssh.Certificate)
	if ok && len(cert.ValidPrincipals) == 0 {
		return errors.New("the certificate is for no name")
	}
	if ok && !c.trusts(cert.SignatureKey) {
		err := c.refresh(ctx)
		var outdated *OutdatedError
		if errors.As(err, &outdated) {
			return outdated
		}
		if err != nil {
			return fmt.Errorf("its authority is not known here, and the cluster could not be asked for new ones: %s", Clean(trace.UserMessage(err)))
		}
	}
	checker := ssh.CertChecker{
		Clock:           c.cfg.Clock.Now,
		IsHostAuthority: func(authority ssh.PublicKey, _ string) bool { return c.trusts(authority) },
	}
	if err := checker.CheckHostKey(net.JoinHostPort(principal(host), "0"), remote, key); err != nil {
		return err
	}
	if is := cert.Extensions[tlsca.ExtensionRole]; is != string(role) {
		return fmt.Errorf("the certificate is that of a %q, and not of a %q", is, role)
	}
	return nil
}

func (c *Conn) trusts(authority ssh.PublicKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.authorities, func(trusted ssh.PublicKey) bool {
		return bytes.Equal(trusted.Marshal(), authority.Marshal())
	})
}

// refresh asks for the authorities, once.
func (c *Conn) refresh(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refreshed || c.cfg.Refresh == nil {
		return nil
	}
	c.refreshed = true
	authorities, err := c.cfg.Refresh(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	c.authorities = authorities
	return nil
}

// principal is a host as certificates name it.
func principal(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return strings.ToLower(host)
}

func certificateAlgorithms() []string {
	return []string{
		ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
	}
}

// stayAlive closes a connection whose other end has gone without a word.
func stayAlive(client *ssh.Client, clock clockwork.Clock) {
	ticker := clock.NewTicker(aliveInterval)
	defer ticker.Stop()
	ended := make(chan struct{})
	go func() {
		_ = client.Wait()
		close(ended)
	}()
	answered := make(chan struct{}, 1)
	missed, asked := 0, false
	for {
		select {
		case <-ended:
			return
		case <-answered:
			missed, asked = 0, false
		case <-ticker.Chan():
			if asked {
				if missed++; missed >= aliveMissed {
					_ = client.Close()
					return
				}
				continue
			}
			asked = true
			go func() {
				// Any answer is a sign of life, also a refusal.
				if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answered <- struct{}{}
				}
			}()
		}
	}
}

// dialReason is why nothing was connected, without addresses.
func dialReason(ctx context.Context, err error) string {
	var (
		dns     *net.DNSError
		timeout net.Error
		errno   syscall.Errno
	)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return "interrupted"
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.As(err, &dns):
		return "its name cannot be looked up"
	case errors.Is(err, io.EOF):
		return "the connection was closed"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return Clean(fmt.Sprint(err))
}
