// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How often garbage is collected: often while logins are idle, seldom while
// files go through.

package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// idlePercent is the growth of the heap between two collections. Most of
	// what a daemon holds for an idle login is garbage of the login's beginning:
	// half as much of it costs less than a hundredth of a login's time.
	idlePercent = 50
	// maxPercent and maxGarbage bound that growth while much goes through. Each
	// packet is garbage once it is sent, and collecting at every few MiB takes a
	// third of a transfer's time.
	maxPercent = 400
	maxGarbage = 48 << 20
	// beginRate, in bytes a second, is what logins do not allocate even at once,
	// and a transfer does from its beginning; goingRate is what keeps it one.
	beginRate = 256 << 20
	goingRate = 64 << 20
	// beginInterval is the shortest time that a rate is taken of, lookInterval the
	// time between two looks at a transfer's.
	beginInterval = 8 * time.Millisecond
	lookInterval  = time.Second
)

// collector notices transfers by the garbage that they make.
type collector struct {
	at        time.Time
	allocated uint64
}

// paceCollections takes care of the collections of this process from here on. It
// does nothing while nothing is collected.
func paceCollections() {
	debug.SetGCPercent(idlePercent)
	c := &collector{at: time.Now()}
	c.allocated, _ = heap()
	c.watch()
}

// collected is garbage by the next collection, which so makes itself known. Tiny
// values without pointers share their memory, and may stay.
type collected struct{ _ [64]byte }

func (c *collector) watch() {
	runtime.AddCleanup(new(collected), func(c *collector) { c.look() }, c)
}

// look is called after a collection.
func (c *collector) look() {
	now := time.Now()
	allocated, live := heap()
	if now.Sub(c.at) < beginInterval {
		c.watch()
		return
	}
	busy := c.rate(now, allocated) >= beginRate
	c.at, c.allocated = now, allocated
	if !busy {
		c.watch()
		return
	}
	debug.SetGCPercent(percentFor(live))
	go func() {
		for busy {
			time.Sleep(lookInterval)
			now := time.Now()
			allocated, _ := heap()
			busy = c.rate(now, allocated) >= goingRate
			c.at, c.allocated = now, allocated
		}
		debug.SetGCPercent(idlePercent)
		debug.FreeOSMemory()
		c.watch()
	}()
}

// rate is how many bytes a second were allocated since the last look.
func (c *collector) rate(now time.Time, allocated uint64) float64 {
	return float64(allocated-c.allocated) / now.Sub(c.at).Seconds()
}

// percentFor returns the growth for a transfer on a heap with so much in use.
func percentFor(live uint64) int {
	return int(min(max(100*maxGarbage/max(live, 1), idlePercent), maxPercent))
}

// heap returns what was allocated since the start, and what the last collection
// left.
func heap() (allocated, live uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}
