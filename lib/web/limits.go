// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How often one client may ask. The table of clients is bounded: where it is
// full, who asked longest ago is forgotten.

package web

import (
	"container/list"
	"net/netip"
	"sync"

	"github.com/jonboulle/clockwork"
	"golang.org/x/time/rate"
)

// Limits bounds the requests of one client, by its address: the IPv4 address,
// or the /64 that an IPv6 one is in.
type Limits struct {
	// Reads a second, and ReadsBurst at once: pages and addresses. 10 and 100
	// by default.
	Reads      rate.Limit
	ReadsBurst int
	// Writes a second, and WritesBurst at once: logins and forms. 2 and 30 by
	// default. How often a password may be guessed is for the auth service's
	// lockout to bound; this bounds the hashes that one address can cause.
	Writes      rate.Limit
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

type limiter struct {
	limit rate.Limit
	burst int
	max   int
	clock clockwork.Clock

	mu      sync.Mutex
	clients map[netip.Prefix]*list.Element
	recent  *list.List // of *limited, the latest first
}

type limited struct {
	client netip.Prefix
	bucket *rate.Limiter
}

func newLimiter(limit rate.Limit, burst, clients int, clock clockwork.Clock) *limiter {
	return &limiter{limit: limit, burst: burst, max: clients, clock: clock, clients: make(map[netip.Prefix]*list.Element), recent: list.New()}
}

// allow counts one request of the client at remote, an ip:port. All whose
// address cannot be read count as one.
func (l *limiter) allow(remote string) bool {
	client := clientPrefix(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	element, found := l.clients[client]
	if found {
		l.recent.MoveToFront(element)
	} else {
		if l.recent.Len() >= l.max {
			oldest := l.recent.Back()
			delete(l.clients, oldest.Value.(*limited).client)
			l.recent.Remove(oldest)
		}
		element = l.recent.PushFront(&limited{client: client, bucket: rate.NewLimiter(l.limit, l.burst)})
		l.clients[client] = element
	}
	return element.Value.(*limited).bucket.AllowN(l.clock.Now(), 1)
}

// clientPrefix is what one client is taken to own.
func clientPrefix(remote string) netip.Prefix {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := addr.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits) // bits suit ip
	return prefix
}
