// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"teleport-auditd/lib/auth/authgrpc"
)

// raw is a connection without a certificate that speaks HTTP/2 by hand.
type raw struct {
	*tls.Conn
	framer *http2.Framer
}

func (f *fixture) raw(t *testing.T, from string) *raw {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	tcp, err := dialer.Dial("tcp", f.addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tcp.Close() })
	config, err := f.auth.AdminTLS(t.Context())
	require.NoError(t, err)
	config = config.Clone()
	config.Certificates = nil
	config.ServerName = constants.APIDomain
	config.NextProtos = []string{http2.NextProtoTLS}
	conn := tls.Client(tcp, config)
	require.NoError(t, conn.Handshake())
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	r := &raw{Conn: conn, framer: http2.NewFramer(conn, conn)}
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, r.framer.WriteSettings())
	return r
}

// call begins a call, whose message is said to be longer than what is sent of it.
func (r *raw) call(t *testing.T, id uint32, method string, sent int) {
	t.Helper()
	var headers headerBlock
	encoder := hpack.NewEncoder(&headers)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", method}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	require.NoError(t, r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers, EndHeaders: true}))
	message := make([]byte, 5+sent)
	binary.BigEndian.PutUint32(message[1:], 1<<20-1)
	require.NoError(t, r.framer.WriteData(id, false, message))
}

type headerBlock []byte

func (b *headerBlock) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// status reads until the end of the call id, and returns its grpc-status.
func (r *raw) status(t *testing.T, id uint32) string {
	t.Helper()
	require.NoError(t, r.SetReadDeadline(time.Now().Add(10*time.Second)))
	for {
		frame, err := r.framer.ReadFrame()
		require.NoError(t, err)
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok && headers.StreamID == id && headers.StreamEnded() {
			for _, field := range headers.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		}
	}
}

// TestAnonymousMessagesAreNotRead: what needs a certificate is refused before its
// message has come, and what does not may send little.
func TestAnonymousMessagesAreNotRead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.raw(t, "127.0.0.1")
	const permissionDenied, resourceExhausted = "7", "8"
	for i, method := range []string{
		"/proto.AuthService/UpsertNode", "/proto.AuthService/WatchEvents", "/teleport.trust.v1.TrustService/UpsertCertAuthority", "/no/such",
	} {
		id := uint32(2*i + 1)
		r.call(t, id, method, 100)
		require.Equal(t, permissionDenied, r.status(t, id), method)
	}
	r.call(t, 11, "/proto.JoinService/RegisterUsingToken", 100)
	require.Equal(t, resourceExhausted, r.status(t, 11))
}

// isOpen tells whether the server still has the connection.
func (r *raw) isOpen(t *testing.T) bool {
	t.Helper()
	require.NoError(t, r.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	for {
		if _, err := r.framer.ReadFrame(); err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// TestAnonymousConnectionsAreBounded: those of one address make room for each
// other, and neither others nor who has a certificate notice.
func TestAnonymousConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *authgrpc.Config) { c.MaxAnonymous = 8 })
	alone := f.raw(t, "127.0.0.2")
	nodes, _ := host(t, f.auth, types.RoleNode)
	known := f.connect(t, nodes)
	var many []*raw
	for range 20 {
		many = append(many, f.raw(t, "127.0.0.1"))
	}
	for i, r := range many {
		if i < 16 {
			require.Eventually(t, func() bool { return !r.isOpen(t) }, 10*time.Second, time.Millisecond, "connection %d is open", i)
		} else {
			require.True(t, r.isOpen(t), "connection %d is closed", i)
		}
	}
	require.True(t, alone.isOpen(t))
	_, err := known.Ping(t.Context())
	require.NoError(t, err)
	_, err = f.connect(t, f.anonymous(t)).Ping(t.Context())
	require.NoError(t, err)
}

func TestIdleAnonymousConnectionsEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.raw(t, "127.0.0.1")
	began := time.Now()
	require.Eventually(t, func() bool { return !r.isOpen(t) }, 30*time.Second, 100*time.Millisecond)
	require.Greater(t, time.Since(began), 5*time.Second)
}

// TestWatchersAreBounded: a user may have some, and others theirs.
func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	watch := types.Watch{Kinds: []types.WatchKind{{Kind: types.KindNode}}}
	open := func(c *client.Client) (types.Watcher, error) {
		watcher, err := c.NewWatcher(t.Context(), watch)
		require.NoError(t, err)
		t.Cleanup(func() { _ = watcher.Close() })
		select {
		case <-watcher.Events():
			return watcher, nil
		case <-watcher.Done():
			return watcher, watcher.Error()
		case <-time.After(10 * time.Second):
			return watcher, errors.New("the watcher neither begins nor ends")
		}
	}
	bob := f.connect(t, user(t, f.auth, "bob", time.Hour, "access"))
	var first types.Watcher
	for range 16 {
		watcher, err := open(bob)
		require.NoError(t, err)
		first = watcher
	}
	_, err := open(bob)
	require.True(t, trace.IsLimitExceeded(err), "%v", err)
	require.ErrorContains(t, err, "the user bob has 16 watchers open")
	_, err = open(f.connect(t, user(t, f.auth, "eve", time.Hour, "access")))
	require.NoError(t, err)
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool {
		_, err := open(bob)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// TestRefusedJoinsAreBounded: who is refused too often is told to wait, and the
// audit log does not grow with it.
func TestRefusedJoinsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.connect(t, f.anonymous(t))
	k := newKeys(t)
	refused := map[string]int{}
	for range 100 {
		_, err := c.RegisterUsingToken(t.Context(), &types.RegisterUsingTokenRequest{
			HostID: "00000000-0000-4000-8000-000000000000", NodeName: "web", Role: types.RoleNode, Token: "0123456789abcdef",
			PublicSSHKey: k.ssh, PublicTLSKey: k.tls,
		})
		switch {
		case trace.IsAccessDenied(err):
			refused["denied"]++
		case trace.IsLimitExceeded(err):
			require.ErrorContains(t, err, "too many joins were refused to this address: try again in a minute")
			refused["limited"]++
		default:
			t.Fatal(err)
		}
	}
	require.InDelta(t, 60, refused["denied"], 5)
	require.InDelta(t, 40, refused["limited"], 5)
	events, _, err := f.auth.SearchEvents(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), nil, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	require.InDelta(t, 61, len(events), 5)
	_, err = c.Ping(t.Context())
	require.NoError(t, err)
}
