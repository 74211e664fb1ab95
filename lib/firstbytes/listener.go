// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// For when a connection cannot be handed out before its first bytes are known.

package firstbytes

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"

	"teleport-auditd/lib/limits"
)

// defaultWaiting bounds the connections that nothing is known of yet.
const defaultWaiting = 512

// GreetConfig is what Listen needs.
type GreetConfig struct {
	// Greet looks at a connection and returns what to hand out in its place, or
	// nil where it has closed it or keeps it. It is called on a goroutine of its
	// own. inTime says that Within has not passed, and ctx has not ended; it is
	// called once, when enough was read: from then on the connection is not
	// closed by the listener any more, but for one of too many.
	Greet func(ctx context.Context, conn net.Conn, inTime func() bool) net.Conn
	// Within is how long a connection may take until inTime. It is closed then.
	Within time.Duration
	// Clock measures it; the real one where it is nil.
	Clock clockwork.Clock
	// MaxWaiting bounds the connections that Greet is busy with, or that nobody
	// has accepted yet. For each that comes while it is reached another is closed:
	// that which has waited longest of the client who has most of them, as
	// limits.Crowd does. 512 where it is zero.
	MaxWaiting int
}

// greeter is a listener whose connections are greeted before they are accepted.
type greeter struct {
	net.Listener
	cfg GreetConfig

	accepted chan result
	waiting  *limits.Crowd
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	// err is set before failed is closed.
	err    error
	failed chan struct{}
}

type result struct {
	conn net.Conn
	err  error
}

// Listen accepts from l at once, and hands out what becomes of each connection.
// Closing it closes l and the connections that were not handed out, ends Greet's
// context, and waits for Greet. The error is trace.BadParameter.
func Listen(l net.Listener, cfg GreetConfig) (net.Listener, error) {
	if cfg.Greet == nil || cfg.Within <= 0 || cfg.MaxWaiting < 0 {
		return nil, trace.BadParameter("firstbytes.GreetConfig needs Greet and Within, and no negative MaxWaiting")
	}
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = defaultWaiting
	}
	g := &greeter{
		Listener: l,
		cfg:      cfg,
		accepted: make(chan result),
		waiting:  limits.NewCrowd(cfg.MaxWaiting, cfg.MaxWaiting),
		failed:   make(chan struct{}),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.running.Go(g.run)
	return g, nil
}

func (g *greeter) run() {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				g.err = err
				close(g.failed)
				return
			}
			// Whoever accepts decides whether to go on.
			select {
			case g.accepted <- result{err: err}:
			case <-g.ctx.Done():
				return
			}
			continue
		}
		greeting, evicted := context.WithCancel(g.ctx)
		leave := g.waiting.Enter(conn.RemoteAddr().String(), func() {
			evicted()
			conn.Close()
		})
		g.running.Go(func() {
			defer evicted()
			defer leave()
			g.greet(greeting, conn)
		})
	}
}

// greet sees one connection to the one who accepts. waiting ends where the
// connection is one of too many.
func (g *greeter) greet(waiting context.Context, conn net.Conn) {
	stop := context.AfterFunc(g.ctx, func() { conn.Close() })
	timer := g.cfg.Clock.AfterFunc(g.cfg.Within, func() { conn.Close() })
	inTime := func() bool { return timer.Stop() && stop() }
	handed := g.cfg.Greet(g.ctx, conn, inTime)
	stop()
	timer.Stop()
	if handed == nil {
		return
	}
	select {
	case g.accepted <- result{conn: handed}:
	case <-waiting.Done():
		handed.Close()
	}
}

func (g *greeter) Accept() (net.Conn, error) {
	select {
	case r := <-g.accepted:
		return r.conn, r.err
	case <-g.failed:
		return nil, g.err
	case <-g.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (g *greeter) Close() error {
	err := g.Listener.Close()
	g.cancel()
	g.running.Wait()
	return err
}
