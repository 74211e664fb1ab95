// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How often garbage is collected: often while logins are idle, seldom while
// files go through.

package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
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
	// workRate is more than a daemon allocates at rest. What work of less than a
	// transfer's rate leaves behind would stay until the next collection, which at
	// rest is minutes away.
	workRate = 16 << 20
	// beginInterval is the shortest time that a rate is taken of, lookInterval the
	// time between two looks at a transfer's.
	beginInterval = 8 * time.Millisecond
	lookInterval  = time.Second
)

// collector notices transfers, and work, by the garbage that they make.
type collector struct {
	at        time.Time
	allocated uint64
	// working is set until the memory of noticed work is given back.
	working atomic.Bool
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
	rate := float64(allocated-c.allocated) / now.Sub(c.at).Seconds()
	c.at, c.allocated = now, allocated
	if rate >= beginRate {
		debug.SetGCPercent(percentFor(live))
		go func() {
			waitBelow(goingRate)
			debug.SetGCPercent(idlePercent)
			c.at = time.Now()
			c.allocated, _ = heap()
			c.watch()
			c.giveBack()
		}()
		return
	}
	if rate >= workRate {
		go c.giveBack()
	}
	c.watch()
}

// giveBack returns the memory of work that was noticed when that is over. It does
// nothing where another call is about to.
func (c *collector) giveBack() {
	if c.working.Swap(true) {
		return
	}
	waitBelow(workRate)
	c.working.Store(false)
	debug.FreeOSMemory()
}

// waitBelow waits until fewer bytes a second are allocated than the rate.
func waitBelow(rate float64) {
	before, _ := heap()
	for {
		time.Sleep(lookInterval)
		now, _ := heap()
		if float64(now-before)/lookInterval.Seconds() < rate {
			return
		}
		before = now
	}
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
