// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// offerOf is a client's first bytes.
func offerOf(version string, ciphers ...string) []byte {
	payload := ssh.Marshal(&kexInit{CiphersClientServer: ciphers, CiphersServerClient: ciphers})
	const padding = 7
	b := binary.BigEndian.AppendUint32([]byte(version), uint32(1+len(payload)+padding))
	b = append(append(b, padding), payload...)
	return append(b, make([]byte, padding)...)
}

func TestCiphersForClients(t *testing.T) {
	openSSH := []string{
		"chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
		"aes128-gcm@openssh.com", "aes256-gcm@openssh.com",
	}
	gcm := []string{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com"}
	for _, test := range []struct {
		name    string
		ciphers []string
		aes     bool
		fast    bool
	}{
		{"OpenSSH", openSSH, true, true},
		{"OpenSSH, slow AES", openSSH, false, false},
		{"one GCM is enough", []string{"aes256-gcm@openssh.com"}, true, true},
		{"ChaCha20 alone", openSSH[:1], true, false},
		{"old", []string{"aes256-ctr", "aes256-cbc"}, true, false},
		{"none", nil, true, false},
	} {
		offer, known := parseOffer(offerOf("SSH-2.0-test\r\n", test.ciphers...))
		require.True(t, known, test.name)
		require.NotNil(t, offer, test.name)
		got := ciphersFor(offer, test.aes)
		if test.fast {
			require.Equal(t, gcm, got, test.name)
			continue
		}
		require.ElementsMatch(t, openSSH, got, test.name)
	}
	require.ElementsMatch(t, openSSH, ciphersFor(nil, true), "a client that is not understood is offered all")
	oneWay := &kexInit{CiphersClientServer: gcm, CiphersServerClient: openSSH[:2]}
	require.ElementsMatch(t, openSSH, ciphersFor(oneWay, true), "each way needs one")
}

func TestParseOffer(t *testing.T) {
	whole := offerOf("SSH-2.0-test\n", "aes128-ctr")
	for n := range whole {
		offer, known := parseOffer(whole[:n])
		require.Nil(t, offer, "%d bytes", n)
		require.False(t, known, "%d of %d bytes", n, len(whole))
	}
	for name, b := range map[string]string{
		"no SSH":            "GET / HTTP/1.1\r\n",
		"endless line":      strings.Repeat("x", maxVersionLine+1),
		"giant packet":      "SSH-2.0-x\n\xff\xff\xff\xff\x04",
		"padding alone":     "SSH-2.0-x\n\x00\x00\x00\x08\x07" + strings.Repeat("\x00", 7),
		"too much padding":  "SSH-2.0-x\n\x00\x00\x00\x08\xff" + strings.Repeat("\x00", 7),
		"empty packet":      "SSH-2.0-x\n\x00\x00\x00\x00\x00",
		"another message":   "SSH-2.0-x\n\x00\x00\x00\x06\x04\x01\x00\x00\x00\x00",
		"lists beyond it":   "SSH-2.0-x\n\x00\x00\x00\x1a\x04\x14" + strings.Repeat("\x00", 16) + "\xff\xff\xff\xff" + strings.Repeat("\x00", 4),
		"one byte too many": string(offerOf("SSH-2.0-x\n"))[:10] + string([]byte{0, 0, 0, 70, 4}) + strings.Repeat("\x14", 69),
	} {
		offer, known := parseOffer([]byte(b))
		require.Nil(t, offer, name)
		require.True(t, known, name)
	}
}

// TestGreet: who uses the connection notices nothing.
func TestGreet(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	said := offerOf("SSH-2.0-test\r\n", "aes128-gcm@openssh.com")
	heard := make(chan string)
	go func() {
		line := make([]byte, len("SSH-2.0-Teleport\r\n"))
		_, _ = io.ReadFull(theirs, line)
		// In pieces.
		_, _ = theirs.Write(said[:20])
		_, _ = theirs.Write(append(said[20:], "more"...))
		rest := make([]byte, 5)
		_, _ = io.ReadFull(theirs, rest)
		heard <- string(line) + string(rest)
	}()
	c, offer := greet(ours, "SSH-2.0-Teleport")
	require.NotNil(t, offer)
	require.Equal(t, []string{"aes128-gcm@openssh.com"}, offer.CiphersClientServer)
	for _, piece := range []string{"SSH-2.0-", "Teleport\r\nhe", "llo"} {
		n, err := c.Write([]byte(piece))
		require.NoError(t, err)
		require.Len(t, piece, n)
	}
	require.Equal(t, "SSH-2.0-Teleport\r\nhello", <-heard)
	again := make([]byte, len(said)+4)
	_, err := io.ReadFull(c, again)
	require.NoError(t, err)
	require.Equal(t, string(said)+"more", string(again))
}

func FuzzParseOffer(f *testing.F) {
	f.Add(offerOf("SSH-2.0-test\r\n", "aes128-ctr"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if offer, known := parseOffer(b); offer != nil && !known {
			t.Fatal("an offer that is not known")
		}
	})
}
