// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// wire is an SSH client that sends what x/crypto/ssh's does not: another login
// name with each attempt, attempts that are broken off, and no sense at all. It
// speaks curve25519-sha256 and aes128-gcm and trusts every host.
type wire struct {
	t         *testing.T
	conn      net.Conn
	serverKex serverKexInit
	session   []byte
	in, out   *gcm
}

// serverKexInit is what a server offers (RFC 4253, section 7.1).
type serverKexInit struct {
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

// gcm is one direction of aes128-gcm@openssh.com (RFC 5647).
type gcm struct {
	aead  cipher.AEAD
	nonce []byte
}

func (g *gcm) next() []byte {
	nonce := append([]byte(nil), g.nonce...)
	binary.BigEndian.PutUint64(g.nonce[4:], binary.BigEndian.Uint64(g.nonce[4:])+1)
	return nonce
}

// newWire connects, exchanges keys and asks for authentication.
func newWire(t *testing.T, addr string) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	w := &wire{t: t, conn: conn}

	const version = "SSH-2.0-wire"
	_, err = fmt.Fprintf(conn, "%s\r\n", version)
	require.NoError(t, err)
	serverVersion := w.line()

	clientInit := ssh.Marshal(&serverKexInit{
		KexAlgos:                []string{"curve25519-sha256"},
		ServerHostKeyAlgos:      []string{"ssh-ed25519"},
		CiphersClientServer:     []string{"aes128-gcm@openssh.com"},
		CiphersServerClient:     []string{"aes128-gcm@openssh.com"},
		MACsClientServer:        []string{"hmac-sha2-256"},
		MACsServerClient:        []string{"hmac-sha2-256"},
		CompressionClientServer: []string{"none"},
		CompressionServerClient: []string{"none"},
	})
	w.write(clientInit)
	serverInit := w.read()
	require.NoError(t, ssh.Unmarshal(serverInit, &w.serverKex))

	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	w.write(ssh.Marshal(&struct {
		Public []byte `sshtype:"30"`
	}{private.PublicKey().Bytes()}))
	var reply struct {
		HostKey   []byte `sshtype:"31"`
		Public    []byte
		Signature []byte
	}
	require.NoError(t, ssh.Unmarshal(w.read(), &reply))
	serverPublic, err := ecdh.X25519().NewPublicKey(reply.Public)
	require.NoError(t, err)
	shared, err := private.ECDH(serverPublic)
	require.NoError(t, err)
	secret := ssh.Marshal(&struct{ K *big.Int }{new(big.Int).SetBytes(shared)})

	exchange := sha256.New()
	exchange.Write(ssh.Marshal(&struct{ A, B, C, D, E, F, G []byte }{
		[]byte(version), serverVersion, clientInit, serverInit,
		reply.HostKey, private.PublicKey().Bytes(), reply.Public,
	}))
	exchange.Write(secret)
	w.session = exchange.Sum(nil)

	require.Equal(t, []byte{21}, w.read())
	w.write([]byte{21})
	direction := func(iv, key byte) *gcm {
		derive := func(letter byte) []byte {
			h := sha256.New()
			h.Write(secret)
			h.Write(w.session)
			h.Write([]byte{letter})
			h.Write(w.session)
			return h.Sum(nil)
		}
		block, err := aes.NewCipher(derive(key)[:16])
		require.NoError(t, err)
		aead, err := cipher.NewGCM(block)
		require.NoError(t, err)
		return &gcm{aead: aead, nonce: derive(iv)[:12]}
	}
	w.out, w.in = direction('A', 'C'), direction('B', 'D')

	w.write(ssh.Marshal(&struct {
		Service string `sshtype:"5"`
	}{"ssh-userauth"}))
	require.Equal(t, byte(6), w.read()[0])
	return w
}

func (w *wire) line() []byte {
	var line []byte
	for one := make([]byte, 1); ; line = append(line, one[0]) {
		_, err := io.ReadFull(w.conn, one)
		require.NoError(w.t, err)
		if one[0] == '\n' {
			return line[:len(line)-1]
		}
	}
}

func (w *wire) write(payload []byte) {
	w.t.Helper()
	require.NoError(w.t, w.tryWrite(payload))
}

func (w *wire) tryWrite(payload []byte) error {
	block, head := 8, 5
	if w.out != nil {
		block, head = 16, 1
	}
	padding := block - (head+len(payload))%block
	if padding < 4 {
		padding += block
	}
	body := append([]byte{byte(padding)}, payload...)
	body = append(body, make([]byte, padding)...)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	if w.out != nil {
		body = w.out.aead.Seal(nil, w.out.next(), body, length)
	}
	_, err := w.conn.Write(append(length, body...))
	return err
}

func (w *wire) read() []byte {
	w.t.Helper()
	packet, err := w.tryRead()
	require.NoError(w.t, err)
	return packet
}

func (w *wire) tryRead() ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(w.conn, length); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length)
	if w.in != nil {
		size += 16
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(w.conn, body); err != nil {
		return nil, err
	}
	if w.in != nil {
		var err error
		if body, err = w.in.aead.Open(nil, w.in.next(), body, length); err != nil {
			return nil, err
		}
	}
	return body[1 : len(body)-int(body[0])], nil
}

// The first bytes of what a server answers (RFC 4252, section 6).
const (
	msgFailure = 51
	msgSuccess = 52
	msgKeyOK   = 60
)

// request sends one request without waiting for the answer.
func (w *wire) request(user, method string, rest []byte) {
	w.t.Helper()
	w.write(ssh.Marshal(&struct {
		User    string `sshtype:"50"`
		Service string
		Method  string
		Rest    []byte `ssh:"rest"`
	}{user, "ssh-connection", method, rest}))
}

// ask sends one request and returns the first byte of the answer.
func (w *wire) ask(user, method string, rest []byte) byte {
	w.t.Helper()
	w.request(user, method, rest)
	return w.read()[0]
}

// offer asks whether a key may be proven, without proving it.
func (w *wire) offer(user string, key ssh.PublicKey) byte {
	w.t.Helper()
	return w.ask(user, "publickey", ssh.Marshal(&struct {
		Signed bool
		Algo   string
		Key    []byte
	}{false, key.Type(), key.Marshal()}))
}

// prove signs the request for user, or for another name where signedUser is one.
func (w *wire) prove(user, signedUser string, signer ssh.Signer) {
	w.t.Helper()
	key := signer.PublicKey()
	body := ssh.Marshal(&struct {
		Session []byte
		Type    byte
		User    string
		Service string
		Method  string
		Signed  bool
		Algo    string
		Key     []byte
	}{w.session, 50, signedUser, "ssh-connection", "publickey", true, key.Type(), key.Marshal()})
	signature, err := signer.Sign(rand.Reader, body)
	require.NoError(w.t, err)
	w.request(user, "publickey", ssh.Marshal(&struct {
		Signed    bool
		Algo      string
		Key       []byte
		Signature []byte
	}{true, key.Type(), key.Marshal(), ssh.Marshal(signature)}))
}

// end waits until the server has closed the connection.
func (w *wire) end() {
	w.t.Helper()
	for {
		if _, err := w.tryRead(); err != nil {
			return
		}
	}
}
