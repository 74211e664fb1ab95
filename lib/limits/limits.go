// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package limits bounds what strangers can cause, by where they come from: a Rate
// bounds how often one client may ask for something, a Count how much it may have
// at a time, and a Crowd how many may wait, where those who are there in numbers
// make room for the others.
//
// A client is an IPv4 address, or the /64 that an IPv6 one is in. All whose
// address cannot be read are one.
package limits

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
)

// Client is what one client at remote, an ip:port or ip, is taken to own.
func Client(remote string) netip.Prefix {
	ip, err := netip.ParseAddr(remote)
	if addr, portErr := netip.ParseAddrPort(remote); portErr == nil {
		ip, err = addr.Addr(), nil
	}
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits) // bits suit ip
	return prefix
}

// Rate bounds how often each client may. Its table of clients is bounded: where it
// is full, who asked longest ago is forgotten. It may be used by several
// goroutines at once.
type Rate struct {
	perSecond, burst float64
	max              int
	clock            clockwork.Clock

	mu      sync.Mutex
	clients map[netip.Prefix]*list.Element
	recent  *list.List // of *bucket, the latest first
}

// bucket is what one client has left.
type bucket struct {
	client netip.Prefix
	left   float64
	at     time.Time
}

// NewRate lets each client do burst at once, and perSecond in the long run, and
// remembers as many clients as clients says.
func NewRate(perSecond float64, burst, clients int, clock clockwork.Clock) *Rate {
	return &Rate{perSecond: perSecond, burst: float64(burst), max: clients, clock: clock, clients: make(map[netip.Prefix]*list.Element), recent: list.New()}
}

// Allow counts one of the client at remote, and tells whether it may.
func (r *Rate) Allow(remote string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bucket(Client(remote))
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// Return takes one that was allowed back: it is not to count.
func (r *Rate) Return(remote string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bucket(Client(remote))
	b.left = min(b.left+1, r.burst)
}

// bucket returns the client's as it is now. The caller holds the lock.
func (r *Rate) bucket(client netip.Prefix) *bucket {
	now := r.clock.Now()
	if element, found := r.clients[client]; found {
		r.recent.MoveToFront(element)
		b := element.Value.(*bucket)
		// A clock that was set back gives nothing.
		b.left = min(b.left+max(now.Sub(b.at), 0).Seconds()*r.perSecond, r.burst)
		b.at = now
		return b
	}
	if r.recent.Len() >= r.max {
		oldest := r.recent.Back()
		delete(r.clients, oldest.Value.(*bucket).client)
		r.recent.Remove(oldest)
	}
	b := &bucket{client: client, left: r.burst, at: now}
	r.clients[client] = r.recent.PushFront(b)
	return b
}

// Count bounds how many there are of each key, and of all together: one more is
// refused. It may be used by several goroutines at once.
type Count[K comparable] struct {
	max int

	mu  sync.Mutex
	all int
	of  map[K]int
}

// NewCount lets there be max in all.
func NewCount[K comparable](max int) *Count[K] {
	return &Count[K]{max: max, of: make(map[K]int)}
}

// Enter counts one more of key unless there are as many as may, of it (most) or in
// all. Each that has entered has to Leave.
func (c *Count[K]) Enter(key K, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.max || c.of[key] >= most {
		return false
	}
	c.all++
	c.of[key]++
	return true
}

// Leave undoes one Enter.
func (c *Count[K]) Leave(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.of[key]--; c.of[key] == 0 {
		delete(c.of, key)
	}
}
