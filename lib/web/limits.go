// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How often one client may ask.

package web

// Limits bounds the requests of one client, by its address: the IPv4 address,
// or the /64 that an IPv6 one is in.
type Limits struct {
	// Reads a second, and ReadsBurst at once: pages and addresses. 10 and 100
	// by default.
	Reads      float64
	ReadsBurst int
	// Writes a second, and WritesBurst at once: logins and forms. 2 and 30 by
	// default. How often a password may be guessed is for the auth service's
	// lockout to bound; this bounds the hashes that one address can cause.
	Writes      float64
	WritesBurst int
	// Clients is how many addresses are remembered, 10,000 by default.
	Clients int
}

func (l *Limits) setDefaults() {
	if l.Reads == 0 {
		l.Reads = 10
	}
	if l.ReadsBurst == 0 {
		l.ReadsBurst = 100
	}
	if l.Writes == 0 {
		l.Writes = 2
	}
	if l.WritesBurst == 0 {
		l.WritesBurst = 30
	}
	if l.Clients == 0 {
		l.Clients = 10_000
	}
}
