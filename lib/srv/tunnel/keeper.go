// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// That there is a tunnel, and that there is one again when it has ended.

package tunnel

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/notice"
)

// errHave is why a dial was broken off that led to a proxy which there is a tunnel
// to already.
var errHave = errors.New("there is a tunnel to it already")

// keeper keeps the tunnels to the proxies behind one address: the configured one, or
// one that proxies are registered with.
type keeper struct {
	agent *Agent
	addr  func(context.Context) (string, error)
	// name is the address for the log; empty for the configured one, which is asked
	// for anew each time.
	name string
	// stop ends the keeper of an address that nobody is registered with any more.
	stop context.CancelFunc

	// What follows is guarded by Agent.mu.

	// ids are the proxies that are registered with the address. At the configured
	// one it is nil: whichever proxy answers there is right.
	ids map[string]bool
	// led is where the configured address has led to last.
	led string
	// short says that a tunnel has ended soon after it was made.
	short bool

	// said is what the log has been told last of an address that fails.
	said string
}

func newKeeper(a *Agent, name string, addr func(context.Context) (string, error)) *keeper {
	return &keeper{agent: a, name: name, addr: addr, stop: func() {}}
}

// lacks tells whether there is a tunnel to be made, and returns what is closed when
// that may have changed.
func (k *keeper) lacks() (bool, <-chan struct{}) {
	a := k.agent
	cert := a.certificate()
	a.mu.Lock()
	defer a.mu.Unlock()
	if k.ids == nil {
		return !a.has(k.led, cert), a.changed
	}
	for id := range k.ids {
		if !a.has(id, cert) {
			return true, a.changed
		}
	}
	return false, a.changed
}

// untilLacking waits until there is a tunnel to be made. It returns false where ctx
// has ended.
func (k *keeper) untilLacking(ctx context.Context) bool {
	ticker := k.agent.cfg.Clock.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		lacks, changed := k.lacks()
		if lacks {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ticker.Chan():
		case <-ctx.Done():
			return false
		}
	}
}

// run makes what is lacking until ctx ends. The tunnels last as long as agent.
func (k *keeper) run(ctx, agent context.Context) {
	a := k.agent
	trouble := notice.New(a.cfg.Clock, func(times int, last error) {
		a.log.Warnf("No tunnel to the proxy: %v. Times since the last such line: %d. Trying goes on.", last, times)
	})
	defer trouble.Close()
	delay, failed := firstDelay, false
	var tried time.Time
	for k.untilLacking(ctx) {
		if !tried.IsZero() {
			if a.cfg.Clock.Since(tried) > lastDelay {
				delay = firstDelay // it went well for a while
			}
			if !a.pause(ctx, delay) {
				return
			}
			// One that ends at once each time is made no more often than one that
			// cannot be made.
			if short := k.wasShort(); short || failed {
				delay = min(2*delay, lastDelay)
			}
			failed = false
			if lacks, _ := k.lacks(); !lacks {
				continue
			}
		}
		tried = a.cfg.Clock.Now()
		err := k.make(ctx, agent)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			k.said = ""
			continue
		case errors.Is(err, errHave):
			a.log.Debugf("Dialling %s has led to a proxy that there is a tunnel to already.", k.name)
			if k.name == "" {
				continue
			}
			if delay == lastDelay {
				k.say(trace.NotFound("the address leads to proxies only that there are tunnels to already"))
			}
		case k.name == "":
			trouble.Happened(err)
		default:
			k.say(err)
		}
		failed = true
	}
}

// wasShort tells, once, that a tunnel has ended soon after it was made.
func (k *keeper) wasShort() bool {
	k.agent.mu.Lock()
	defer k.agent.mu.Unlock()
	short := k.short
	k.short = false
	return short
}

// pause waits between half and all of a time, so that nodes do not come all at once
// when a proxy is there again. It returns false where ctx has ended.
func (a *Agent) pause(ctx context.Context, delay time.Duration) bool {
	timer := a.cfg.Clock.NewTimer(delay/2 + rand.N(delay/2+1))
	defer timer.Stop()
	select {
	case <-timer.Chan():
		return true
	case <-ctx.Done():
		return false
	}
}

// say says why there is no tunnel to a proxy that is registered, once for each
// reason: one that is gone stays registered for a while.
func (k *keeper) say(err error) {
	if text := err.Error(); text != k.said {
		k.said = text
		k.agent.log.Warnf("No tunnel to a proxy that is registered at %s: %v. Trying goes on.", k.name, err)
	}
}

// make dials once. The error is errHave where that has led to a proxy which there is
// a tunnel to.
func (k *keeper) make(ctx, agent context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	a := k.agent
	signer := a.certified()
	if signer == nil {
		return trace.NotFound("this node has no certificate yet")
	}
	addr, err := k.addr(ctx)
	if err != nil {
		return trace.Errorf("finding the proxy's tunnel address: %v", err)
	}
	making := ""
	l, err := a.connect(ctx, addr, signer, func(proxyID string) error {
		if err := k.reserve(proxyID, signer.PublicKey().Marshal()); err != nil {
			return err
		}
		making = proxyID
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if making != "" {
		delete(a.making, making)
		defer a.notify()
	}
	if err != nil {
		return err
	}
	if k.ids != nil && !k.ids[l.proxyID] {
		l.conn.Close()
		return trace.NotFound("its registration has ended meanwhile")
	}
	l.log.Infof("There is a tunnel to the proxy at %v.", l.conn.RemoteAddr())
	a.once.Do(func() { close(a.connected) })
	if old := a.links[l.proxyID]; old != nil {
		// What goes through it may go on.
		old.retire()
	}
	a.links[l.proxyID] = l
	a.sweep()
	a.running.Go(func() {
		a.serve(agent, l)
		k.ended(agent, l)
	})
	return nil
}

// reserve tells whether this keeper may make a tunnel to the proxy, and keeps the
// others from making one, too.
func (k *keeper) reserve(proxyID string, cert []byte) error {
	a := k.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case k.ids == nil:
		k.led = proxyID
	case !k.ids[proxyID]:
		return trace.AccessDenied("the proxy %s answers there, which is not registered with this address", proxyID)
	}
	if a.has(proxyID, cert) {
		return errHave
	}
	a.making[proxyID] = true
	return nil
}

// ended forgets a tunnel that has ended.
func (k *keeper) ended(agent context.Context, l *link) {
	a := k.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.links[l.proxyID] != l {
		return // it was retired
	}
	delete(a.links, l.proxyID)
	k.short = a.cfg.Clock.Since(l.since) <= lastDelay
	if agent.Err() == nil {
		l.log.Warnf("The tunnel to the proxy at %v has ended.", l.conn.RemoteAddr())
	}
	a.notify()
}
