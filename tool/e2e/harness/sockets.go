// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// SocketUID returns the uid of who made the TCP socket that is bound to a local
// IPv4 address, as /proc/net/tcp has it; empty where there is none.
func SocketUID(addr net.Addr) string {
	local, err := netip.ParseAddrPort(addr.String())
	if err != nil || !local.Addr().Is4() {
		return ""
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	ip := local.Addr().As4()
	// The address is one number in the host's byte order.
	want := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], local.Port())
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == want {
			return f[7]
		}
	}
	return ""
}
