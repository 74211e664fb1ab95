// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package clientaddr

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	proxyproto "github.com/pires/go-proxyproto"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv/srvtest"
)

const (
	nodeID   = "0b54bdf1-a1a5-4b6d-9f0a-000000000001"
	patience = 20 * time.Second
)

func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// node is a node's listener behind NewListener.
type node struct {
	listener net.Listener
	clock    *clockwork.FakeClock
	ca       srvtest.Authority
	cas      *srvtest.CAs
	log      *logtest.Hook
}

func newNode(t *testing.T, change ...func(*ListenerConfig)) *node {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	n := &node{clock: clockwork.NewFakeClockAt(noon()), ca: srvtest.NewAuthority(t), cas: &srvtest.CAs{}, log: hook}
	n.cas.Trust(n.ca)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cfg := ListenerConfig{NodeID: nodeID, HostCAs: n.cas.UserCAs, Clock: n.clock, Log: log}
	for _, f := range change {
		f(&cfg)
	}
	n.listener, err = NewListener(tcp, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { n.listener.Close() })
	return n
}

// connect returns both ends of a new connection.
func (n *node) connect(t *testing.T) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", n.listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err = n.listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	require.NoError(t, server.SetDeadline(time.Now().Add(patience)))
	return client, server
}

// proxy is a host of the authority, with the role Proxy but for changes.
func proxyHost(t *testing.T, ca srvtest.Authority, change ...func(*ssh.Certificate)) *Signer {
	t.Helper()
	signer := ca.Login(t, noon(), append([]func(*ssh.Certificate){func(c *ssh.Certificate) {
		c.CertType = ssh.HostCert
		c.KeyId = "uuid-of-proxy.example.com"
		c.Permissions = ssh.Permissions{Extensions: map[string]string{"x-teleport-role": "Proxy"}}
	}}, change...)...)
	// A bare key may stand before it.
	return NewSigner(func() []ssh.Signer { return []ssh.Signer{srvtest.NewKey(t), signer} })
}

func tcpAddr(t *testing.T, addr string) *net.TCPAddr {
	t.Helper()
	parsed, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	return parsed
}

func header(t *testing.T, s *Signer, addr string) []byte {
	t.Helper()
	text, err := s.Header(tcpAddr(t, addr), nodeID, noon())
	require.NoError(t, err)
	return text
}

func TestAddressOfTheClient(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	s := proxyHost(t, n.ca)
	for given, want := range map[string]string{
		"192.0.2.1:50000":            "192.0.2.1:50000",
		"[2001:db8::1]:50000":        "[2001:db8::1]:50000",
		"[::ffff:192.0.2.1]:1":       "192.0.2.1:1",
		"[fe80::1%lo]:65535":         "[fe80::1]:65535",
		"255.255.255.255:0":          "255.255.255.255:0",
		"[::ffff:0:192.0.2.1]:50000": "[::ffff:0:c000:201]:50000",
	} {
		client, server := n.connect(t)
		require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String(), "the header has not been read")
		_, err := client.Write(append(header(t, s, given), "SSH-2.0-"...))
		require.NoError(t, err)
		got := make([]byte, 8)
		_, err = io.ReadFull(server, got)
		require.NoError(t, err)
		require.Equal(t, "SSH-2.0-", string(got))
		require.Equal(t, want, server.RemoteAddr().String())
		require.IsType(t, &net.TCPAddr{}, server.RemoteAddr())

		_, err = server.Write([]byte("answer"))
		require.NoError(t, err)
		_ = client.(*net.TCPConn).CloseWrite()
		rest, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Empty(t, rest)
	}
	require.Empty(t, n.log.AllEntries())
}

// TestManyNames: hosts with many addresses have long certificates.
func TestManyNames(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	s := proxyHost(t, n.ca, func(c *ssh.Certificate) {
		for range 150 {
			c.ValidPrincipals = append(c.ValidPrincipals, strings.Repeat("a", 100))
		}
	})
	client, server := n.connect(t)
	go func() { _, _ = client.Write(append(header(t, s, "192.0.2.1:5"), 'x')) }()
	_, err := server.Read(make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1:5", server.RemoteAddr().String())

	long := proxyHost(t, n.ca, func(c *ssh.Certificate) {
		for range 300 {
			c.ValidPrincipals = append(c.ValidPrincipals, strings.Repeat("a", 200))
		}
	})
	_, err = long.Header(tcpAddr(t, "192.0.2.1:5"), nodeID, noon())
	require.ErrorContains(t, err, "so many names")
}

func TestNoHeader(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"SSH-2.0-OpenSSH_9.2\r\n", "\n", "P", "\rX"} {
		n := newNode(t)
		client, server := n.connect(t)
		// The server may speak first, and its client may wait for that.
		_, err := server.Write([]byte("SSH-2.0-Teleport\r\n"))
		require.NoError(t, err)
		_, err = io.ReadFull(client, make([]byte, 18))
		require.NoError(t, err)
		_, err = client.Write([]byte(first + "rest"))
		require.NoError(t, err)
		_ = client.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, first+"rest", string(got))
		require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
	}

	n := newNode(t, func(c *ListenerConfig) { c.Required = true })
	client, server := n.connect(t)
	_, err := client.Write([]byte("SSH-2.0-x\r\n"))
	require.NoError(t, err)
	requireRefused(t, n, client, server, "there is none")
}

// requireRefused: reading fails, the connection is closed, and the log says why.
func requireRefused(t *testing.T, n *node, client, server net.Conn, why string) {
	t.Helper()
	_, err := server.Read(make([]byte, 1))
	require.ErrorContains(t, err, why)
	_, err = server.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = server.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(patience)))
	_, err = client.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
	entry := n.log.LastEntry()
	require.NotNil(t, entry)
	require.Equal(t, logrus.WarnLevel, entry.Level)
	require.Contains(t, entry.Message, why)
	require.NotContains(t, entry.Message, "\n")
}

func TestRefusedHeaders(t *testing.T) {
	t.Parallel()
	const client = "192.0.2.1:50000"
	// resigned makes a header whose proof is changed after it was signed.
	changed := func(t *testing.T, s *Signer, change func(*proof)) []byte {
		addr, p, err := parse(header(t, s, client))
		require.NoError(t, err)
		change(&p)
		text, err := format(addr, p)
		require.NoError(t, err)
		return text
	}
	plain := func(t *testing.T, version byte, addr string, tlvs ...proxyproto.TLV) []byte {
		h := proxyproto.HeaderProxyFromAddrs(version, tcpAddr(t, addr), tcpAddr(t, addr))
		require.NoError(t, h.SetTLVs(tlvs))
		text, err := h.Format()
		require.NoError(t, err)
		return text
	}
	for name, tt := range map[string]struct {
		make func(t *testing.T, n *node) []byte
		why  string
	}{
		"nothing but the address": {func(t *testing.T, n *node) []byte { return plain(t, 2, client) }, "not signed"},
		"version 1":               {func(t *testing.T, n *node) []byte { return plain(t, 1, client) }, "version 1"},
		"another TLV": {func(t *testing.T, n *node) []byte {
			return plain(t, 2, client, proxyproto.TLV{Type: 0xE1, Value: []byte("x")})
		}, "not signed"},
		"nonsense in the TLV": {func(t *testing.T, n *node) []byte {
			return plain(t, 2, client, proxyproto.TLV{Type: 0xE0, Value: []byte("x")})
		}, "malformed"},
		"a TLV too many": {func(t *testing.T, n *node) []byte {
			text := append(header(t, proxyHost(t, n.ca), client), 0xE1, 0, 0)
			binary.BigEndian.PutUint16(text[14:], uint16(len(text)-16))
			return text
		}, "not signed"},
		"a TLV cut short": {func(t *testing.T, n *node) []byte {
			text := append(header(t, proxyHost(t, n.ca), client), 0xE1, 0)
			binary.BigEndian.PutUint16(text[14:], uint16(len(text)-16))
			return text
		}, "malformed"},
		"for nobody": {func(t *testing.T, n *node) []byte {
			text := header(t, proxyHost(t, n.ca), client)
			text[12] = byte(proxyproto.LOCAL)
			return text
		}, "for no client"},
		"for UDP": {func(t *testing.T, n *node) []byte {
			text := header(t, proxyHost(t, n.ca), client)
			text[13] = byte(proxyproto.UDPv4)
			return text
		}, "not for TCP"},
		"IPv6 in the space of IPv4": {func(t *testing.T, n *node) []byte {
			text := plain(t, 2, client)
			text[13] = byte(proxyproto.TCPv6)
			return text
		}, "too short"},
		"another address": {func(t *testing.T, n *node) []byte {
			text := header(t, proxyHost(t, n.ca), client)
			text[16]++
			return text
		}, "not the one of a proxy for this node"},
		"another port": {func(t *testing.T, n *node) []byte {
			text := header(t, proxyHost(t, n.ca), client)
			text[24]++
			return text
		}, "not the one of a proxy for this node"},
		"another node's": {func(t *testing.T, n *node) []byte {
			text, err := proxyHost(t, n.ca).Header(tcpAddr(t, client), "another", noon())
			require.NoError(t, err)
			return text
		}, "not the one of a proxy for this node"},
		"too old": {func(t *testing.T, n *node) []byte {
			n.clock.Advance(time.Minute + time.Nanosecond)
			return header(t, proxyHost(t, n.ca), client)
		}, "set the clocks"},
		"of the future": {func(t *testing.T, n *node) []byte {
			text, err := proxyHost(t, n.ca).Header(tcpAddr(t, client), nodeID, noon().Add(time.Minute+time.Nanosecond))
			require.NoError(t, err)
			return text
		}, "set the clocks"},
		"a time that overflows": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Time = 1 << 63 })
		}, "set the clocks"},
		"a later time than was signed": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Time++ })
		}, "not the one of a proxy for this node"},
		"another nonce": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Nonce[0]++ })
		}, "not the one of a proxy for this node"},
		"a short nonce": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Nonce = p.Nonce[1:] })
		}, "nonce"},
		"no signature": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Signature = nil })
		}, "malformed"},
		"a signature of another kind": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) {
				p.Signature = ssh.Marshal(&ssh.Signature{Format: "ssh-rsa", Blob: make([]byte, 256)})
			})
		}, "not accepted"},
		"somebody else's certificate": {func(t *testing.T, n *node) []byte {
			other, err := ssh.ParsePublicKey(func() []byte {
				_, p, err := parse(header(t, proxyHost(t, n.ca), client))
				require.NoError(t, err)
				return p.Certificate
			}())
			require.NoError(t, err)
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Certificate = other.Marshal() })
		}, "not the one of a proxy for this node"},
		"a key": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Certificate = n.ca.PublicKey().Marshal() })
		}, "without a certificate"},
		"nonsense for a certificate": {func(t *testing.T, n *node) []byte {
			return changed(t, proxyHost(t, n.ca), func(p *proof) { p.Certificate = []byte("x") })
		}, "certificate is malformed"},
		"another authority": {func(t *testing.T, n *node) []byte {
			return header(t, proxyHost(t, srvtest.NewAuthority(t)), client)
		}, "certificate-authority-is-not-trusted"},
		"a node's certificate": {func(t *testing.T, n *node) []byte {
			return header(t, proxyHost(t, n.ca, func(c *ssh.Certificate) { c.Extensions["x-teleport-role"] = "Node" }), client)
		}, "host-certificate-is-of-another-role"},
		"no role": {func(t *testing.T, n *node) []byte {
			return header(t, proxyHost(t, n.ca, func(c *ssh.Certificate) { c.Extensions = nil }), client)
		}, "host-certificate-is-of-another-role"},
		"a user's certificate": {func(t *testing.T, n *node) []byte {
			return header(t, proxyHost(t, n.ca, func(c *ssh.Certificate) { c.CertType = ssh.UserCert }), client)
		}, "certificate-is-not-a-host-certificate"},
		"an expired certificate": {func(t *testing.T, n *node) []byte {
			return header(t, proxyHost(t, n.ca, func(c *ssh.Certificate) { c.ValidBefore = uint64(noon().Unix()) }), client)
		}, "certificate-has-expired"},
		"a critical option": {func(t *testing.T, n *node) []byte {
			return header(t, proxyHost(t, n.ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "192.0.2.1"} }), client)
		}, "critical-options"},
		"authorities that cannot be read": {func(t *testing.T, n *node) []byte {
			n.cas.Fail(errors.New("disk on fire"))
			return header(t, proxyHost(t, n.ca), client)
		}, "disk on fire"},
		"too long": {func(t *testing.T, n *node) []byte {
			return append(append(bytes.Clone(proxyproto.SIGV2), 0x21, 0x11, 0xff, 0xff), make([]byte, 12)...)
		}, "and may be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			client, server := n.connect(t)
			_, err := client.Write(tt.make(t, n))
			require.NoError(t, err)
			requireRefused(t, n, client, server, tt.why)
		})
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	seen := &Seen{}
	n := newNode(t, func(c *ListenerConfig) { c.Seen = seen })
	s := proxyHost(t, n.ca)
	text := header(t, s, "192.0.2.1:5")
	client, server := n.connect(t)
	_, err := client.Write(append(bytes.Clone(text), 'x'))
	require.NoError(t, err)
	_, err = server.Read(make([]byte, 1))
	require.NoError(t, err)
	for _, after := range []time.Duration{0, time.Minute} {
		n.clock.Advance(after)
		client, server := n.connect(t)
		_, err = client.Write(text)
		require.NoError(t, err)
		_, err = server.Read(make([]byte, 1))
		require.ErrorContains(t, err, "it was used before")
	}
	// The node's other listener knows of it.
	other := newNode(t, func(c *ListenerConfig) { c.Seen, c.HostCAs = seen, n.cas.UserCAs })
	client, server = other.connect(t)
	_, err = client.Write(text)
	require.NoError(t, err)
	requireRefused(t, other, client, server, "it was used before")
}

func TestSeenIsBounded(t *testing.T) {
	t.Parallel()
	s := &Seen{}
	now := noon()
	for i := range maxSeen {
		var nonce [nonceLength]byte
		binary.BigEndian.PutUint64(nonce[:], uint64(i))
		added, err := s.add(nonce, now, now.Add(time.Minute))
		require.NoError(t, err)
		require.True(t, added)
	}
	_, err := s.add([nonceLength]byte{15: 1}, now.Add(time.Minute), now)
	require.Error(t, err, "it must not forget one that is still good")
	added, err := s.add([nonceLength]byte{15: 1}, now.Add(time.Minute+1), now.Add(2*time.Minute))
	require.NoError(t, err)
	require.True(t, added)
	require.Len(t, s.nonces, 1)
}

// TestSlowly: a header may come in pieces, whatever the reader's deadlines, but
// not for ever.
func TestSlowly(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	text := append(header(t, proxyHost(t, n.ca), "192.0.2.1:5"), "SSH"...)

	client, server := n.connect(t)
	go func() {
		for i := range text {
			if _, err := client.Write(text[i : i+1]); err != nil {
				return
			}
		}
	}()
	var got []byte
	buf := make([]byte, 2)
	for len(got) < 3 {
		require.NoError(t, server.SetReadDeadline(time.Now().Add(time.Millisecond)))
		k, err := server.Read(buf)
		got = append(got, buf[:k]...)
		if err != nil {
			var timeout net.Error
			require.ErrorAs(t, err, &timeout)
			require.True(t, timeout.Timeout())
		}
	}
	require.Equal(t, "SSH", string(got))
	require.Equal(t, "192.0.2.1:5", server.RemoteAddr().String())

	client, server = n.connect(t)
	_, err := client.Write(text[:100])
	require.NoError(t, err)
	failed := make(chan error, 1)
	go func() {
		_, err := server.Read(make([]byte, 1))
		failed <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, n.clock.BlockUntilContext(ctx, 1))
	n.clock.Advance(headerTime)
	require.Error(t, <-failed)

	// One that breaks off is refused, and no address is believed of it.
	client, server = n.connect(t)
	_, err = client.Write(header(t, proxyHost(t, n.ca), "192.0.2.1:5")[:300])
	require.NoError(t, err)
	_ = client.(*net.TCPConn).CloseWrite()
	nothing, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Empty(t, nothing)
	require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
	// A slow one keeps nobody else from being accepted.
	_, _ = n.connect(t)
}

func TestSigner(t *testing.T) {
	t.Parallel()
	_, err := NewSigner(func() []ssh.Signer { return []ssh.Signer{srvtest.NewKey(t)} }).Header(tcpAddr(t, "192.0.2.1:5"), nodeID, noon())
	require.ErrorContains(t, err, "no host certificate")
	_, err = proxyHost(t, srvtest.NewAuthority(t)).Header(&net.UnixAddr{Name: "x", Net: "unix"}, nodeID, noon())
	require.ErrorContains(t, err, "not a TCP address")

	// Keys that are not Ed25519 do as well.
	n := newNode(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	key, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	certified, err := ssh.NewCertSigner(n.ca.Certificate(t, key.PublicKey(), noon(), func(c *ssh.Certificate) {
		c.CertType = ssh.HostCert
		c.Permissions = ssh.Permissions{Extensions: map[string]string{"x-teleport-role": "Proxy"}}
	}), key)
	require.NoError(t, err)
	client, server := n.connect(t)
	go func() {
		_, _ = client.Write(append(header(t, NewSigner(func() []ssh.Signer { return []ssh.Signer{certified} }), "192.0.2.1:5"), 'x'))
	}()
	_, err = server.Read(make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1:5", server.RemoteAddr().String())
}

func FuzzParse(f *testing.F) {
	f.Add(proxyproto.SIGV2)
	f.Add(append(bytes.Clone(proxyproto.SIGV2), 0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
	f.Fuzz(func(t *testing.T, b []byte) {
		length, more, err := headerLength(b)
		if err == nil && !more && length > 0 {
			_, _, _ = parse(b[:length])
		}
	})
}
