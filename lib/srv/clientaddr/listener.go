// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The node's side: which headers are believed.

package clientaddr

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/firstbytes"
	"teleport-auditd/lib/notice"
	"teleport-auditd/lib/srv"
)

const (
	// roleProxy is the role of the hosts that may say who a client is.
	roleProxy = "Proxy"
	// freshness is how far a header's time may be from the node's.
	freshness = time.Minute
	// headerTime is how long a header may take, once it has begun.
	headerTime = 5 * time.Second
	// maxSeen bounds the nonces that are remembered: more logins within two
	// minutes than any node has. While it is reached, no header is believed.
	maxSeen = 1 << 16
)

// Seen remembers which headers have been used. Listeners of the same node share
// one, so that a header is good once, whichever way it comes. The zero value is
// ready to use.
type Seen struct {
	mu     sync.Mutex
	nonces map[[nonceLength]byte]time.Time // until when
}

// add is false for a nonce that is known already; the error is
// trace.LimitExceeded.
func (s *Seen) add(nonce [nonceLength]byte, now, until time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.nonces[nonce]; ok {
		return false, nil
	}
	if len(s.nonces) >= maxSeen {
		for old, end := range s.nonces {
			if end.Before(now) {
				delete(s.nonces, old)
			}
		}
	}
	if len(s.nonces) >= maxSeen {
		return false, trace.LimitExceeded("%d headers came within two minutes, and no more can be told apart", maxSeen)
	}
	if s.nonces == nil {
		s.nonces = make(map[[nonceLength]byte]time.Time)
	}
	s.nonces[nonce] = until
	return true, nil
}

// ListenerConfig is what NewListener needs.
type ListenerConfig struct {
	// NodeID is the host id of this node.
	NodeID string
	// HostCAs returns the keys of the cluster's host authority. It is asked for
	// each header; an error closes the connection.
	HostCAs func(ctx context.Context) ([]ssh.PublicKey, error)
	// Required closes connections without a header as well. It is for a listener
	// that only proxies reach, as the one of a tunnel.
	Required bool
	// Seen is shared by the listeners of a node; one of its own where it is nil.
	Seen *Seen
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil. It hears of connections
	// that are closed, at most once a minute.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *ListenerConfig) CheckAndSetDefaults() error {
	switch {
	case c.NodeID == "":
		return trace.BadParameter("clientaddr.ListenerConfig has no NodeID")
	case c.HostCAs == nil:
		return trace.BadParameter("clientaddr.ListenerConfig has no HostCAs")
	}
	if c.Seen == nil {
		c.Seen = &Seen{}
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

type listener struct {
	net.Listener
	cfg     ListenerConfig
	refused *notice.Notice
	ctx     context.Context
	cancel  context.CancelFunc
}

// NewListener returns l with connections whose RemoteAddr is the client's, as soon
// as the first byte of it has been read, where a proxy says so; before, and
// without a proxy, it is the other end's. Accepting waits for no header, and
// writing neither. Reading a connection whose header is not believed fails, and
// the connection is closed. Closing it closes l.
func NewListener(l net.Listener, cfg ListenerConfig) (net.Listener, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &listener{
		Listener: l,
		cfg:      cfg,
		ctx:      ctx,
		cancel:   cancel,
		refused: notice.New(cfg.Clock, func(times int, last error) {
			cfg.Log.Warnf("Connections closed at once: %d, because of what they said about their client's address. The last: %v.", times, last)
		}),
	}, nil
}

func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{}
	c.Conn = firstbytes.New(accepted, firstbytes.Config{
		Decide: func(first []byte) (int, bool, error) { return l.decide(c, first) },
		Within: headerTime,
		Clock:  l.cfg.Clock,
	})
	return c, nil
}

func (l *listener) Close() error {
	err := l.Listener.Close()
	l.cancel()
	l.refused.Close()
	return err
}

// decide takes the header off, if there is one.
func (l *listener) decide(c *conn, first []byte) (skip int, more bool, err error) {
	defer func() {
		if err != nil {
			err = trace.AccessDenied("a connection from %v was closed because of its PROXY header: %v", c.Conn.RemoteAddr(), err)
			l.refused.Happened(err)
		}
	}()
	length, more, err := headerLength(first)
	if err != nil || more {
		return 0, more, err
	}
	if length == 0 {
		if l.cfg.Required {
			return 0, false, trace.BadParameter("there is none")
		}
		return 0, false, nil
	}
	client, err := l.verify(first[:length])
	if err != nil {
		return 0, false, err
	}
	c.client.Store(net.TCPAddrFromAddrPort(client))
	return length, false, nil
}

// verify returns the client's address of a whole header, if it is to be believed.
func (l *listener) verify(header []byte) (netip.AddrPort, error) {
	none := netip.AddrPort{}
	client, p, err := parse(header)
	if err != nil {
		return none, err
	}
	now, made := l.cfg.Clock.Now(), time.Unix(0, int64(p.Time))
	if age := now.Sub(made); age > freshness || age < -freshness {
		return none, trace.BadParameter("it was signed at %v, and it is %v here: set the clocks of proxy and node", made.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if len(p.Nonce) != nonceLength {
		return none, trace.BadParameter("its nonce has %d bytes", len(p.Nonce))
	}
	key, err := ssh.ParsePublicKey(p.Certificate)
	if err != nil {
		return none, trace.BadParameter("its certificate is malformed")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return none, trace.BadParameter("it has a key without a certificate")
	}
	cas, err := l.cfg.HostCAs(l.ctx)
	if err != nil {
		return none, trace.Errorf("the host authorities could not be read: %w", err)
	}
	if err := srv.CheckHostCert(cert, cas, roleProxy, now); err != nil {
		return none, err
	}
	signature, err := signatureOf(p.Signature)
	if err != nil {
		return none, err
	}
	if !slices.Contains(signatureFormats(cert.Key.Type()), signature.Format) {
		return none, trace.BadParameter("its signature is of a kind that is not accepted")
	}
	if cert.Key.Verify(p.statement(l.cfg.NodeID, client), signature) != nil {
		return none, trace.BadParameter("its signature is not the one of a proxy for this node")
	}
	added, err := l.cfg.Seen.add([nonceLength]byte(p.Nonce), now, made.Add(freshness))
	if err != nil {
		return none, err
	}
	if !added {
		return none, trace.BadParameter("it was used before")
	}
	return client, nil
}

// signatureFormats are those that a key of this type may sign with: its own, and
// for RSA those without SHA-1.
func signatureFormats(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	}
	return []string{keyType}
}

// conn is a connection that may have its client's address.
type conn struct {
	*firstbytes.Conn
	client atomic.Pointer[net.TCPAddr]
}

// RemoteAddr is the client's, where a proxy has said so.
func (c *conn) RemoteAddr() net.Addr {
	if client := c.client.Load(); client != nil {
		return client
	}
	return c.Conn.RemoteAddr()
}
