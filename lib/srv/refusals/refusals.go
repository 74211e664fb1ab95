// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package refusals tells the cluster's audit log of those whom a node or a proxy
// did not let in, as events of the type auth.
//
// A Teller stands between lib/srv and what takes the events:
//
//	teller, err := refusals.New(refusals.Config{Emit: events.Emit, ClusterName: cluster, By: "the proxy hub"})
//	...
//	cfg.Refused = teller.Tell
//
// Anybody who reaches a port can be refused there as often as they like, and each
// event is kept for days. So those beyond a bound have none of their own: how many
// they were is one event a minute. Strangers all together have one bound, and those
// whom the cluster knows one for each address, so that strangers hide nobody who is
// known, nor those each other. The host's audit trail has all of them.
package refusals

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/google/uuid"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"

	"teleport-auditd/lib/limits"
	"teleport-auditd/lib/notice"
	"teleport-auditd/lib/srv"
)

// Teleport's name and code of the event.
const (
	authAttemptEvent = "auth"
	authAttemptCode  = "T3007W"
)

const (
	// maxRecorded is how many refusals at once have an event of their own, and
	// recordedRate how many a second after them.
	maxRecorded  = 200
	recordedRate = 0.5
	// maxClients is how many addresses are remembered.
	maxClients = 10_000
	// maxText bounds a name in an event.
	maxText = 255
)

// Config is what New needs.
type Config struct {
	// Emit takes the events. It must not block.
	Emit func(apievents.AuditEvent)
	// ClusterName is the cluster's.
	ClusterName string
	// By names who refuses, as "the node web": the event has no other place for
	// it but the address. It may be empty.
	By string
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *Config) CheckAndSetDefaults() error {
	if c.Emit == nil {
		return trace.BadParameter("refusals.Config has no Emit")
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	return nil
}

// Teller makes events of refusals. Its methods may be called from several
// goroutines.
type Teller struct {
	cfg Config
	// strangers is of all whose certificate was not proven, and known of each
	// address from which one was.
	strangers, known bound
}

// bound is how many may have an event of their own, and what tells of the others.
type bound struct {
	rate   *limits.Rate
	beyond *notice.Notice
}

// New returns a Teller. Close must be called.
func New(cfg Config) (*Teller, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	t := &Teller{cfg: cfg}
	t.strangers, t.known = t.newBound("of strangers", 1), t.newBound("with certificates of the cluster", maxClients)
	return t, nil
}

func (t *Teller) newBound(whose string, clients int) bound {
	return bound{
		rate: limits.NewRate(recordedRate, maxRecorded, clients, t.cfg.Clock),
		beyond: notice.New(t.cfg.Clock, func(times int, last error) {
			t.emit(&apievents.AuthAttempt{
				ConnectionMetadata: apievents.ConnectionMetadata{RemoteAddr: last.Error(), Protocol: "ssh"},
				Status:             apievents.Status{Error: fmt.Sprintf("refused logins %s beside those with an event of their own: %d, the last from the address of this event", whose, times)},
			})
		}),
	}
}

// Tell tells of somebody who could not authenticate, or was not let in. It is for
// srv.Config.Refused.
func (t *Teller) Tell(r srv.Refused) {
	b, client := &t.strangers, ""
	if r.TeleportUser != "" {
		b, client = &t.known, text(r.RemoteAddr)
	}
	if !b.rate.Allow(client) {
		b.beyond.Happened(errors.New(text(r.RemoteAddr)))
		return
	}
	user := clean(r.TeleportUser)
	if r.Host {
		// The login is the host's id. As a user it would be kept for a year, and a
		// host that is locked tries again each minute.
		user = ""
	}
	t.emit(&apievents.AuthAttempt{
		UserMetadata:       apievents.UserMetadata{User: user, Login: clean(r.Login)},
		ConnectionMetadata: apievents.ConnectionMetadata{RemoteAddr: text(r.RemoteAddr), LocalAddr: text(r.LocalAddr), Protocol: "ssh"},
		Status:             apievents.Status{Error: clean(r.Reason)},
	})
}

// Close tells of those who were not told of yet.
func (t *Teller) Close() {
	t.strangers.beyond.Close()
	t.known.beyond.Close()
}

func (t *Teller) emit(event *apievents.AuthAttempt) {
	event.Metadata = apievents.Metadata{
		Type: authAttemptEvent, Code: authAttemptCode, ID: uuid.NewString(), Time: t.cfg.Clock.Now().UTC(), ClusterName: t.cfg.ClusterName,
	}
	if t.cfg.By != "" {
		event.UserMessage = "refused by " + t.cfg.By
	}
	t.cfg.Emit(event)
}

// clean makes a text fit for events, whose texts are UTF-8.
func clean(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxText)], "\uFFFD")
}

func text(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return addr.String()
}
