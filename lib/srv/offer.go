// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What a client offers, read before this server says what it does: the client
// decides on the cipher, and OpenSSH's takes one that costs twice the time.

package srv

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

const (
	// offerTimeout is how long a client may take to make its offer. One that
	// waits for the server's first gets that then.
	offerTimeout = time.Second
	// maxVersionLine is RFC 4253, section 4.2; maxOffer is the largest packet of
	// section 6.1.
	maxVersionLine = 255
	maxOffer       = 35000
)

// kexInit is a SSH_MSG_KEXINIT (RFC 4253, section 7.1).
type kexInit struct {
	Cookie                  [16]byte `sshtype:"20"`
	KexAlgos                []string
	ServerHostKeyAlgos      []string
	CiphersClientServer     []string
	CiphersServerClient     []string
	MACsClientServer        []string
	MACsServerClient        []string
	CompressionClientServer []string
	CompressionServerClient []string
	LanguagesClientServer   []string
	LanguagesServerClient   []string
	FirstKexFollows         bool
	Reserved                uint32
}

// hasAES tells whether this CPU does AES itself, in GCM too.
func hasAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
}

// ciphersFor returns the ciphers for a client with this offer, nil where it is not
// known. OpenSSH's client asks for ChaCha20 first, then for CTR with a MAC, and
// for GCM last, which is twice as fast as either on a CPU that does AES itself. So
// a client that knows GCM is offered nothing else there, and any other all.
func ciphersFor(offer *kexInit, aes bool) []string {
	gcm := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM}
	knows := func(list []string) bool {
		return slices.ContainsFunc(list, func(cipher string) bool { return slices.Contains(gcm, cipher) })
	}
	if aes && offer != nil && knows(offer.CiphersClientServer) && knows(offer.CiphersServerClient) {
		return gcm
	}
	return append([]string{ssh.CipherChaCha20Poly1305}, append(gcm, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR)...)
}

// greetedConn is a connection on which the version lines were exchanged: whoever
// uses it exchanges them again, but nothing of that is sent.
type greetedConn struct {
	net.Conn
	// said is what was sent, and is not sent again; read is what was received,
	// and is read again.
	said, read []byte
}

// greet sends the server's version line and reads on until it knows what the
// client offers. The offer is nil where the client makes none, or one that cannot
// be read: the key exchange is to find out what is wrong with it.
func greet(conn net.Conn, version string) (*greetedConn, *kexInit) {
	c := &greetedConn{Conn: conn, said: []byte(version + "\r\n")}
	if _, err := conn.Write(c.said); err != nil {
		return c, nil
	}
	if conn.SetReadDeadline(time.Now().Add(offerTimeout)) != nil {
		return c, nil
	}
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	buf := make([]byte, 2048)
	for {
		n, err := conn.Read(buf)
		c.read = append(c.read, buf[:n]...)
		offer, known := parseOffer(c.read)
		if err != nil || known {
			return c, offer
		}
	}
}

// parseOffer reads a version line and the first packet. known says that more
// bytes would tell no more.
func parseOffer(b []byte) (offer *kexInit, known bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return nil, len(b) > maxVersionLine
	}
	if !bytes.HasPrefix(b, []byte("SSH-")) {
		return nil, true
	}
	b = b[end+1:]
	if len(b) < 5 {
		return nil, false
	}
	length, padding := uint64(binary.BigEndian.Uint32(b)), uint64(b[4])
	if length > maxOffer || padding+1 >= length {
		return nil, true
	}
	if uint64(len(b)) < 4+length {
		return nil, false
	}
	offer = new(kexInit)
	if ssh.Unmarshal(b[5:4+length-padding], offer) != nil {
		return nil, true
	}
	return offer, true
}

func (c *greetedConn) Read(b []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

func (c *greetedConn) Write(b []byte) (int, error) {
	if c.said == nil || !bytes.HasPrefix(c.said, b) && !bytes.HasPrefix(b, c.said) {
		return c.Conn.Write(b)
	}
	again := min(len(b), len(c.said))
	if c.said = c.said[again:]; len(c.said) == 0 {
		c.said = nil
	}
	if again == len(b) {
		return again, nil
	}
	n, err := c.Conn.Write(b[again:])
	return again + n, err
}
