// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package clientaddr carries a client's address from the proxy to the node, so
// that the node's records name the client and not the proxy.
//
// The proxy's Signer makes a header, which are the first bytes of a connection
// to a node:
//
//	signer := clientaddr.NewSigner(host.Signers)
//	header, err := signer.Header(client.RemoteAddr(), nodeID, clock.Now())
//
// The node's NewListener takes it off again, and the connections that it accepts
// have the client's address as RemoteAddr:
//
//	listener, err := clientaddr.NewListener(listener, clientaddr.ListenerConfig{
//		NodeID:  hostID,
//		HostCAs: authorities.HostCAs,
//	})
//
// # The header
//
// It is a PROXY protocol header, version 2, with one TLV of the private type
// 0xE0, which holds the proxy's host certificate, the time, a nonce, and the
// proxy's signature over these, the client's address and the node's id. A node
// believes it where the cluster's host authority has certified the key for a
// proxy, the time is within a minute of its own, the id is its own, and the nonce
// is new. It closes the connection over any other PROXY header, of whichever
// version: who sends one wants to be taken for somebody else. A connection
// without a header is its sender's own.
package clientaddr

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/gravitational/trace"
	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/crypto/ssh"
)

const (
	// tlvType is the first of those for everybody's own use.
	tlvType = proxyproto.PP2_TYPE_MIN_CUSTOM
	// statementContext sets these signatures apart from all others of the host key.
	statementContext = "teleport-auditd client address v1"
	// maxHeader bounds a header: a certificate of a host with all the names that
	// it may have is shorter.
	maxHeader = 32 << 10
	// prefixLength is up to and with the length of what follows.
	prefixLength = 16
	// nonceLength makes a nonce unique without anybody counting.
	nonceLength = 16
)

// proof is the TLV's value. Time is in nanoseconds since 1970.
type proof struct {
	Certificate []byte
	Time        uint64
	Nonce       []byte
	Signature   []byte
}

// statement is what the proxy signs. Each field has its length, so that no two
// statements have the same bytes.
type statement struct {
	Context string
	NodeID  string
	Client  string
	Time    uint64
	Nonce   []byte
}

func (p *proof) statement(nodeID string, client netip.AddrPort) []byte {
	return ssh.Marshal(statement{
		Context: statementContext,
		NodeID:  nodeID,
		Client:  client.String(),
		Time:    p.Time,
		Nonce:   p.Nonce,
	})
}

// Signer makes the headers of one proxy.
type Signer struct {
	signers func() []ssh.Signer
}

// NewSigner returns a Signer that uses the first of signers that has a
// certificate. It asks each time, so that a renewed one is used at once.
func NewSigner(signers func() []ssh.Signer) *Signer {
	return &Signer{signers: signers}
}

// Header returns what to send, before anything else, on a connection to the node
// with this id, for a client at this TCP address. The error is trace.BadParameter
// for an address that is not TCP, and trace.NotFound while the proxy has no
// certificate.
func (s *Signer) Header(client net.Addr, nodeID string, now time.Time) ([]byte, error) {
	address, err := addrPort(client)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	signer, cert := s.certified()
	if cert == nil {
		return nil, trace.NotFound("the proxy has no host certificate yet, and nodes would not believe it a client's address")
	}
	p := proof{
		Certificate: cert.Marshal(),
		Time:        uint64(now.UnixNano()),
		Nonce:       make([]byte, nonceLength),
	}
	if _, err := rand.Read(p.Nonce); err != nil {
		return nil, trace.Wrap(err)
	}
	signature, err := signer.Sign(rand.Reader, p.statement(nodeID, address))
	if err != nil {
		return nil, trace.Errorf("signing a client's address: %w", err)
	}
	p.Signature = ssh.Marshal(signature)
	return format(address, p)
}

func (s *Signer) certified() (ssh.Signer, *ssh.Certificate) {
	for _, signer := range s.signers() {
		if cert, ok := signer.PublicKey().(*ssh.Certificate); ok {
			return signer, cert
		}
	}
	return nil, nil
}

// format is the inverse of parse.
func format(client netip.AddrPort, p proof) ([]byte, error) {
	transport, destination := proxyproto.TCPv4, netip.IPv4Unspecified()
	if client.Addr().Is6() {
		transport, destination = proxyproto.TCPv6, netip.IPv6Unspecified()
	}
	header := &proxyproto.Header{
		Version:           2,
		Command:           proxyproto.PROXY,
		TransportProtocol: transport,
		SourceAddr:        net.TCPAddrFromAddrPort(client),
		// The node knows where it is.
		DestinationAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(destination, 0)),
	}
	if err := header.SetTLVs([]proxyproto.TLV{{Type: tlvType, Value: ssh.Marshal(p)}}); err != nil {
		return nil, trace.Wrap(err)
	}
	text, err := header.Format()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if len(text) > maxHeader {
		return nil, trace.LimitExceeded("the proxy's host certificate has so many names that the header of a client's address is %d bytes long, and nodes take %d: have it certified for fewer addresses", len(text), maxHeader)
	}
	return text, nil
}

// addrPort is the one form that an address is signed in: without a zone, which
// means something to one host only, and IPv4 as such.
func addrPort(addr net.Addr) (netip.AddrPort, error) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, trace.BadParameter("%v is not a TCP address", addr)
	}
	parsed := tcp.AddrPort()
	if !parsed.IsValid() {
		return netip.AddrPort{}, trace.BadParameter("%v is not a TCP address", addr)
	}
	return netip.AddrPortFrom(parsed.Addr().Unmap().WithZone(""), parsed.Port()), nil
}

// headerLength tells from the first bytes of a connection how long its header
// is: 0 where there is none. more says that the bytes do not tell yet.
func headerLength(first []byte) (length int, more bool, err error) {
	if begins(first, proxyproto.SIGV1) {
		if len(first) < len(proxyproto.SIGV1) {
			return 0, true, nil
		}
		return 0, false, trace.BadParameter("it is of version 1, which nobody can sign")
	}
	if !begins(first, proxyproto.SIGV2) {
		return 0, false, nil
	}
	if len(first) < prefixLength {
		return 0, true, nil
	}
	length = prefixLength + int(binary.BigEndian.Uint16(first[prefixLength-2:]))
	if length > maxHeader {
		return 0, false, trace.BadParameter("it is %d bytes long, and may be %d", length, maxHeader)
	}
	return length, len(first) < length, nil
}

// begins tells whether b and signature are the same as far as both go.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// parse reads a header of which headerLength has told the length.
func parse(header []byte) (client netip.AddrPort, p proof, err error) {
	var addresses int
	switch proxyproto.AddressFamilyAndProtocol(header[13]) {
	case proxyproto.TCPv4:
		addresses = 12
	case proxyproto.TCPv6:
		addresses = 36
	default:
		return client, p, trace.BadParameter("it is not for TCP")
	}
	if len(header) < prefixLength+addresses {
		return client, p, trace.BadParameter("it is too short for its addresses")
	}
	// The library takes shorter headers than a certificate can make.
	head := bytes.Clone(header[:prefixLength+addresses])
	binary.BigEndian.PutUint16(head[prefixLength-2:], uint16(addresses))
	parsed, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return client, p, trace.BadParameter("it is malformed: %v", err)
	}
	if parsed.Command != proxyproto.PROXY {
		return client, p, trace.BadParameter("it is for no client")
	}
	if client, err = addrPort(parsed.SourceAddr); err != nil {
		return client, p, trace.Wrap(err)
	}
	tlvs, err := proxyproto.SplitTLVs(header[prefixLength+addresses:])
	if err != nil {
		return client, p, trace.BadParameter("it is malformed: %v", err)
	}
	if len(tlvs) != 1 || tlvs[0].Type != tlvType {
		return client, p, trace.BadParameter("it is not signed")
	}
	if err := ssh.Unmarshal(tlvs[0].Value, &p); err != nil {
		return client, p, trace.BadParameter("its signature is malformed")
	}
	return client, p, nil
}

// signatureOf reads what ssh.Marshal made of a signature.
func signatureOf(b []byte) (*ssh.Signature, error) {
	signature := new(ssh.Signature)
	if err := ssh.Unmarshal(b, signature); err != nil {
		return nil, trace.BadParameter("its signature is malformed")
	}
	return signature, nil
}

// Write sends the header on a connection within the time that a node takes it.
func Write(conn net.Conn, header []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(headerTime)); err != nil {
		return trace.Wrap(err)
	}
	if _, err := io.Copy(conn, bytes.NewReader(header)); err != nil {
		return trace.Wrap(err)
	}
	return trace.Wrap(conn.SetWriteDeadline(time.Time{}))
}
