// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One tunnel of a node's: how it is made, and what comes through it.

package tunnel

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv"
)

// link is one tunnel.
type link struct {
	// proxyID is the host id of the proxy, as its certificate has it.
	proxyID  string
	log      logrus.FieldLogger
	conn     ssh.Conn
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
	// cert is what the node has logged in with, and since when it was.
	cert  []byte
	since time.Time

	mu      sync.Mutex
	conns   int
	retired bool
}

// connect makes a tunnel through the address to a proxy that may lets: it is asked
// once, before the node has said who it is.
func (a *Agent) connect(ctx context.Context, addr string, signer ssh.Signer, may func(proxyID string) error) (*link, error) {
	tcp, err := a.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, trace.Errorf("the proxy's tunnel port %v cannot be reached: %v", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	var (
		accepted []byte
		proxyID  string
		unwanted error
	)
	conn, channels, requests, err := ssh.NewClientConn(tcp, addr, &ssh.ClientConfig{
		Config:        srv.ClientAlgorithms(),
		ClientVersion: srv.ClientVersion,
		User:          a.cfg.NodeID,
		Auth:          []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			// It is called for each exchange of keys. A proxy that was let in
			// stays the one that it is when its certificate has ended.
			if accepted != nil && bytes.Equal(accepted, key.Marshal()) {
				return nil
			}
			id, err := a.checkProxy(ctx, key)
			if err != nil {
				return err
			}
			if accepted != nil && id != proxyID {
				return trace.AccessDenied("it has become another proxy")
			}
			if accepted == nil {
				if unwanted = may(id); unwanted != nil {
					return unwanted
				}
			}
			accepted, proxyID = key.Marshal(), id
			return nil
		},
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
	})
	if err == nil && !stop() {
		err = ctx.Err()
		conn.Close()
	}
	if err != nil {
		stop()
		tcp.Close()
		if unwanted != nil {
			return nil, unwanted
		}
		return nil, trace.Errorf("the proxy at %v and this node do not agree: %v", addr, err)
	}
	return &link{
		proxyID:  proxyID,
		log:      a.log.WithField("proxy", proxyID),
		conn:     conn,
		channels: channels,
		requests: requests,
		cert:     signer.PublicKey().Marshal(),
		since:    a.cfg.Clock.Now(),
	}, nil
}

// checkProxy lets the node talk to proxies of its cluster only, and returns which
// one it is.
func (a *Agent) checkProxy(ctx context.Context, key ssh.PublicKey) (proxyID string, err error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return "", trace.AccessDenied("it shows no certificate")
	}
	cas, err := a.cfg.HostCAs(ctx)
	if err != nil {
		return "", trace.Errorf("the host authorities could not be read: %v", err)
	}
	if err := srv.CheckHostCert(cert, cas, roleProxy, a.cfg.Clock.Now()); err != nil {
		return "", trace.Wrap(err)
	}
	proxyID, ok = strings.CutSuffix(cert.KeyId, "."+a.cfg.ClusterName)
	if !ok || proxyID == "" {
		return "", trace.AccessDenied("its certificate is of another cluster")
	}
	return proxyID, nil
}

// serve accepts what the proxy opens, until the tunnel or ctx has ended.
func (a *Agent) serve(ctx context.Context, l *link) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	go keepAlive(ctx, l.conn, a.cfg.Clock, a.cfg.KeepAlive)
	go ssh.DiscardRequests(l.requests)
	for channel := range l.channels {
		if channel.ChannelType() != channelConn {
			a.reject(channel, ssh.UnknownChannelType, "this node takes connections only")
			continue
		}
		if !l.acquire() {
			a.reject(channel, ssh.ResourceShortage, "the tunnel has as many connections as it may")
			continue
		}
		if !a.listener.acquire() {
			l.release()
			a.reject(channel, ssh.ResourceShortage, "the node does not take connections fast enough")
			continue
		}
		accepted, requests, err := channel.Accept()
		if err != nil {
			l.release()
			a.listener.release()
			continue // the tunnel has ended
		}
		a.listener.deliver(newConn(accepted, requests, l.conn.LocalAddr(), l.conn.RemoteAddr(), l.release))
	}
	l.conn.Close()
}

func (a *Agent) reject(channel ssh.NewChannel, reason ssh.RejectionReason, message string) {
	if err := channel.Reject(reason, message); err != nil {
		a.log.Debugf("The proxy was gone before it could be refused a connection: %v", err)
	}
}

// acquire counts a connection, unless there may be none more.
func (l *link) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= maxConns {
		return false
	}
	l.conns++
	return true
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns--
	if l.retired && l.conns == 0 {
		l.conn.Close()
	}
}

// retire has the tunnel end when nothing goes through it any more.
func (l *link) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	if l.conns == 0 {
		l.conn.Close()
	}
}
