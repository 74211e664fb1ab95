// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSourceAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		list      string
		remote    string
		allowed   bool
		malformed bool
	}{
		{list: "192.0.2.7", remote: "192.0.2.7", allowed: true},
		{list: "192.0.2.7", remote: "192.0.2.8"},
		{list: "192.0.2.0/24", remote: "192.0.2.200", allowed: true},
		{list: "192.0.2.0/24", remote: "192.0.3.1"},
		{list: "0.0.0.0/0", remote: "203.0.113.9", allowed: true},
		{list: "0.0.0.0/0", remote: "2001:db8::1"},
		{list: "10.0.0.0/8,192.0.2.7", remote: "192.0.2.7", allowed: true},
		// A socket that serves both protocols shows a v4 client so.
		{list: "192.0.2.0/24", remote: "::ffff:192.0.2.1", allowed: true},
		{list: "::ffff:192.0.2.0/120", remote: "192.0.2.1", allowed: true},
		{list: "::ffff:192.0.2.1", remote: "192.0.2.1", allowed: true},
		{list: "2001:db8::/32", remote: "2001:db8:1::1", allowed: true},
		{list: "2001:db8::/32", remote: "2001:db9::1"},
		{list: "fe80::/10", remote: "fe80::1%eth0", allowed: true},
		{list: "", malformed: true},
		{list: ",192.0.2.7", malformed: true},
		{list: "192.0.2.7,", malformed: true},
		{list: "192.0.2.7, 192.0.2.8", malformed: true},
		{list: "192.0.2.7/24", malformed: true},
		{list: "192.0.2.0/33", malformed: true},
		{list: "192.0.2.0/024", malformed: true},
		{list: "192.0.2", malformed: true},
		{list: "fe80::1%eth0", malformed: true},
		{list: "example.com", malformed: true},
		{list: "!192.0.2.7", malformed: true},
		{list: "192.0.2.7\x00", malformed: true},
	} {
		allowed, err := parseSourceAddress(tt.list)
		require.Equal(t, tt.malformed, err != nil, "%q: %v", tt.list, err)
		if tt.malformed {
			continue
		}
		remote := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(tt.remote), 50000))
		require.Equal(t, tt.allowed, allowsAddress(allowed, remote), "%q from %v", tt.list, remote)
		require.False(t, allowsAddress(allowed, &net.UnixAddr{Name: "/run/x", Net: "unix"}))
	}
}

func FuzzParseSourceAddress(f *testing.F) {
	f.Add("192.0.2.0/24,::1")
	f.Fuzz(func(t *testing.T, list string) {
		allowed, err := parseSourceAddress(list)
		if err == nil && len(allowed) == 0 {
			t.Fatalf("%q allows nothing, and is no error", list)
		}
	})
}
