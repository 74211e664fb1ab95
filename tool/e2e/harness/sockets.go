// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// SocketUID returns the uid of who made the TCP socket that connects the local IPv4
// address with the remote one, as /proc/net/tcp has it; empty where there is none.
// Another connection may have the same local address, and one that has ended
// (TIME_WAIT) is root's.
func SocketUID(local, remote net.Addr) string {
	wantLocal, wantRemote := tableAddr(local), tableAddr(remote)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil || wantLocal == "" || wantRemote == "" {
		return ""
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == wantLocal && f[2] == wantRemote {
			return f[7]
		}
	}
	return ""
}

// tableAddr writes an IPv4 address and port as the kernel's table does.
func tableAddr(addr net.Addr) string {
	ipPort, err := netip.ParseAddrPort(addr.String())
	if err != nil || !ipPort.Addr().Is4() {
		return ""
	}
	ip := ipPort.Addr().As4()
	// The address is one number in the host's byte order.
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], ipPort.Port())
}
