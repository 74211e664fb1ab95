// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Those who wait, and who of them goes when there are too many.

package limits

import (
	"container/list"
	"net/netip"
	"sync"
)

// Crowd bounds those who wait, and with Enter never refuses who comes: somebody else
// has to go. Of the client who is there most often that is the one who has waited
// longest, so that whoever comes alone is let wait for as long as it takes,
// however many others come. It may be used by several goroutines at once.
type Crowd struct {
	max, perClient int

	mu      sync.Mutex
	all     int
	clients map[netip.Prefix]*list.List // of *waiting, the oldest first
}

type waiting struct {
	evict func()
}

// NewCrowd lets max wait, and perClient of one client.
func NewCrowd(max, perClient int) *Crowd {
	return &Crowd{max: max, perClient: perClient, clients: make(map[netip.Prefix]*list.List)}
}

// Enter adds one of the client at remote. evict is called once where it has to go,
// and not after leave was; it must not call the Crowd, nor wait.
func (c *Crowd) Enter(remote string, evict func()) (leave func()) {
	client := Client(remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.clients[client]
	switch {
	case own != nil && own.Len() >= c.perClient:
		c.evictFrom(client)
	case c.all >= c.max:
		c.evictFrom(c.largest())
	}
	return c.add(client, evict)
}

// Try is Enter where somebody may be refused: one has to go only for a client who
// has fewer of them even then. Those who all come at once have to be let wait, and
// not make each other go.
func (c *Crowd) Try(remote string, evict func()) (leave func(), ok bool) {
	client := Client(remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	if own := c.clients[client]; own != nil {
		count = own.Len()
	}
	if count >= c.perClient {
		return nil, false
	}
	if c.all >= c.max {
		largest := c.largest()
		if c.clients[largest].Len() <= count+1 {
			return nil, false
		}
		c.evictFrom(largest)
	}
	return c.add(client, evict), true
}

// add adds one. The caller holds the lock.
func (c *Crowd) add(client netip.Prefix, evict func()) (leave func()) {
	own := c.clients[client]
	if own == nil {
		own = list.New()
		c.clients[client] = own
	}
	element := own.PushBack(&waiting{evict: evict})
	c.all++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.remove(client, element)
	}
}

// largest is the client who is there most often. The caller holds the lock.
func (c *Crowd) largest() netip.Prefix {
	var found netip.Prefix
	most := 0
	for client, own := range c.clients {
		if own.Len() > most {
			found, most = client, own.Len()
		}
	}
	return found
}

func (c *Crowd) evictFrom(client netip.Prefix) {
	oldest := c.clients[client].Front()
	oldest.Value.(*waiting).evict()
	c.remove(client, oldest)
}

// remove does nothing where element has gone already.
func (c *Crowd) remove(client netip.Prefix, element *list.Element) {
	own := c.clients[client]
	if own == nil {
		return
	}
	before := own.Len()
	own.Remove(element)
	c.all -= before - own.Len()
	if own.Len() == 0 {
		delete(c.clients, client)
	}
}
