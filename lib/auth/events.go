// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The audit log of the cluster: what happened in it, who did it, in the order
// of time, kept for a year. What strangers are refused is kept for three days.

package auth

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

// The types and codes of events that are Teleport's and that its api module does
// not declare.
const (
	UserCreateEvent            = "user.create"
	UserCreateCode             = "T1002I"
	UserUpdatedEvent           = "user.update"
	UserUpdateCode             = "T1003I"
	UserDeleteEvent            = "user.delete"
	UserDeleteCode             = "T1004I"
	RoleCreatedEvent           = "role.created"
	RoleCreatedCode            = "T9000I"
	RoleDeletedEvent           = "role.deleted"
	RoleDeletedCode            = "T9001I"
	RoleUpdatedEvent           = "role.updated"
	RoleUpdatedCode            = "T9002I"
	LockCreatedEvent           = "lock.created"
	LockCreatedCode            = "TLK00I"
	LockDeletedEvent           = "lock.deleted"
	LockDeletedCode            = "TLK01I"
	TokenCreatedEvent          = "join_token.create"
	TokenCreatedCode           = "TJT00I"
	AuthPreferenceUpdatedEvent = "auth_preference.update"
	AuthPreferenceUpdatedCode  = "TCAUTH001I"
)

// The types and codes of events that Teleport has none for. They are kept as
// events.Unknown, which is what its api module has for those that it does not know:
// these are the unknown_event and the unknown_code, and data is the event in JSON.
// SearchEvents finds them by these types.
const (
	AuthorityRotatedEvent  = "cert_authority.rotate"
	AuthorityRotatedCode   = "TCAR00I"
	AuthorityReplacedEvent = "cert_authority.update"
	AuthorityReplacedCode  = "TCAU00I"
	TokenDeletedEvent      = "join_token.delete"
	TokenDeletedCode       = "TJT01I"
)

const (
	eventsPrefix = "/events/"

	// eventsKept is how long an event is kept from when it came.
	eventsKept = 365 * 24 * time.Hour
	// strangersEventsKept is how long one about a name or a token is that nobody
	// knows: anybody can cause as many as there is time for.
	strangersEventsKept = 3 * 24 * time.Hour

	// eventTimeFormat has a fixed width, so that keys sort by time.
	eventTimeFormat = "2006-01-02T15:04:05.000000000Z"
	eventDayFormat  = "2006-01-02"

	// maxEventSize is what an event is cut to.
	maxEventSize = 64 * 1024
	maxEventID   = 64
	maxEventType = 64

	// maxEvents and maxEventBytes bound one answer. Clients of gRPC take 4 MB.
	maxEvents     = 10000
	maxEventBytes = 2 << 20

	// eventChunk is how many events are read from the store at a time.
	eventChunk = 512
)

// Caller is who asks for something: a user, or a part of the system.
type Caller struct {
	// User is the name of the user, "<host id>.<cluster>" of a host, or
	// "system".
	User string
	// RemoteAddr is ip:port of the client, or empty.
	RemoteAddr string
}

// What the audit log calls those who are no users of the cluster: the daemon, and
// root on a host of the auth service, with that host's name after it.
const (
	systemUser = "system"
	rootPrefix = "root@"
)

type callerKey struct{}

// WithCaller returns a context in which whatever is done is the caller's doing:
// audit events of this package name it.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// callerFrom returns what WithCaller set, or the user "system": the daemon acts
// by itself.
func callerFrom(ctx context.Context) Caller {
	if caller, ok := ctx.Value(callerKey{}).(Caller); ok {
		return caller
	}
	return Caller{User: systemUser}
}

func (c Caller) userMetadata() apievents.UserMetadata {
	return apievents.UserMetadata{User: c.User}
}

func (c Caller) connectionMetadata() apievents.ConnectionMetadata {
	return apievents.ConnectionMetadata{RemoteAddr: c.RemoteAddr}
}

func resourceMetadata(resource types.Resource) apievents.ResourceMetadata {
	return apievents.ResourceMetadata{Name: resource.GetName(), Expires: resource.Expiry()}
}

// emit keeps an event about what was done already, so an error can only be told
// to the operator.
func (s *Server) emit(ctx context.Context, event apievents.AuditEvent) {
	if err := s.EmitAuditEvent(context.WithoutCancel(ctx), event); err != nil {
		s.log.WithError(err).WithField("event", event.GetType()).Error("An audit event could not be kept.")
	}
}

// ownEvent is what the data of an event has that is kept as events.Unknown.
type ownEvent struct {
	// User is who did it, Name what it was done to.
	User string `json:"user"`
	Name string `json:"name"`
	// Phase is that of a rotation.
	Phase string `json:"phase,omitempty"`
}

// emitOwn is emit for an event of a type of our own.
func (s *Server) emitOwn(ctx context.Context, eventType, code string, event ownEvent) {
	event.User = callerFrom(ctx).User
	data, err := json.Marshal(event)
	if err != nil {
		s.log.WithError(err).WithField("event", eventType).Error("An audit event could not be kept.")
		return
	}
	s.emit(ctx, &apievents.Unknown{
		Metadata:    apievents.Metadata{Type: apievents.UnknownEvent, Code: apievents.UnknownCode},
		UnknownType: eventType,
		UnknownCode: code,
		Data:        string(data),
	})
}

// searchedType is the type by which an event is found.
func searchedType(event apievents.AuditEvent) string {
	if unknown, ok := event.(*apievents.Unknown); ok && unknown.UnknownType != "" {
		return unknown.UnknownType
	}
	return event.GetType()
}

// storedEvent is an event as it is kept: its type beside it, so that searches
// need not read all of it.
type storedEvent struct {
	Type string `json:"type"`
	// Event is a protobuf events.OneOf.
	Event []byte `json:"event"`
}

// EmitAuditEvent keeps an event. It must have a type and a code. An id, the time
// and the cluster's name are filled in where they are missing; one of another
// cluster is refused. Sent twice with the same id and time it is kept once. What
// is too long of it is cut. One about a login that was refused to somebody whom
// nobody knows is kept for three days, and all others for a year.
//
// The error is trace.BadParameter for an event that cannot be kept: whoever
// sends it again will get the same answer.
func (s *Server) EmitAuditEvent(ctx context.Context, event apievents.AuditEvent) error {
	kept := eventsKept
	// Hosts tell of all whom they refuse, and a name is there only where its
	// certificate was proven.
	if attempt, ok := event.(*apievents.AuthAttempt); ok && attempt != nil && !attempt.Success && attempt.User == "" {
		kept = strangersEventsKept
	}
	return trace.Wrap(s.keepEvent(ctx, event, kept))
}

// EmitStrangersEvent is EmitAuditEvent for an event about a name or a token that
// nobody knows. It is kept for three days.
func (s *Server) EmitStrangersEvent(ctx context.Context, event apievents.AuditEvent) error {
	return trace.Wrap(s.keepEvent(ctx, event, strangersEventsKept))
}

func (s *Server) keepEvent(ctx context.Context, event apievents.AuditEvent, kept time.Duration) error {
	if event == nil {
		return trace.BadParameter("there is no event")
	}
	if err := s.checkEvent(event); err != nil {
		return trace.Wrap(err)
	}
	if event.Size() > maxEventSize {
		event = event.TrimToMaxSize(maxEventSize)
	}
	oneOf, err := apievents.ToOneOf(event)
	if err != nil {
		return trace.BadParameter("an event of the type %q is not known: %v", event.GetType(), err)
	}
	packed, err := oneOf.Marshal()
	if err != nil {
		return trace.BadParameter("the event %s cannot be written: %v", event.GetID(), err)
	}
	// Trimming leaves alone what is common to events.
	if len(packed) > 2*maxEventSize {
		return trace.BadParameter("the event %s takes %d bytes, and at most %d are kept", event.GetID(), len(packed), 2*maxEventSize)
	}
	value, err := json.Marshal(storedEvent{Type: searchedType(event), Event: packed})
	if err != nil {
		return trace.Wrap(err)
	}
	err = s.store.Create(ctx, backend.Item{
		Key:     eventKey(event.GetTime()) + "/" + event.GetID(),
		Value:   value,
		Expires: s.clock.Now().Add(kept).UTC(),
	})
	if trace.IsAlreadyExists(err) {
		return nil
	}
	return trace.Wrap(err)
}

func (s *Server) checkEvent(event apievents.AuditEvent) error {
	if event.GetType() == "" || event.GetCode() == "" {
		return trace.BadParameter("the event has the type %q and the code %q: give both", cutTo(event.GetType(), maxEventType), cutTo(event.GetCode(), maxEventType))
	}
	if !plainWord(event.GetType(), maxEventType) || !plainWord(event.GetCode(), maxEventType) {
		return trace.BadParameter("the event has the type %q and the code %q: use letters, digits, dots, dashes and underscores", cutTo(event.GetType(), maxEventType), cutTo(event.GetCode(), maxEventType))
	}
	switch event.GetClusterName() {
	case "":
		event.SetClusterName(s.clusterName)
	case s.clusterName:
	default:
		return trace.BadParameter("the event is of the cluster %q, and this is %q", cutTo(event.GetClusterName(), MaxNameLength), s.clusterName)
	}
	if event.GetID() == "" {
		event.SetID(uuid.NewString())
	}
	if !plainWord(event.GetID(), maxEventID) {
		return trace.BadParameter("the event's id %q is none: use a UUID", cutTo(event.GetID(), maxEventID))
	}
	if event.GetTime().IsZero() {
		event.SetTime(s.clock.Now().UTC())
	}
	if year := event.GetTime().UTC().Year(); year < 1970 || year > 9999 {
		return trace.BadParameter("the event %s is of the year %d", event.GetID(), year)
	}
	event.SetTime(event.GetTime().UTC())
	return nil
}

// plainWord tells whether text can stand in a key and a line as it is.
func plainWord(text string, limit int) bool {
	if text == "" || len(text) > limit {
		return false
	}
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func eventKey(t time.Time) string {
	return eventsPrefix + t.UTC().Format(eventTimeFormat)
}

// eventSearch is one page of a search while it is gathered.
type eventSearch struct {
	types []string
	limit int
	// from and below are keys: those from from on and smaller than below.
	from, below string
}

// foundEvent is an event with its key, not yet unpacked.
type foundEvent struct {
	key    string
	packed []byte
}

// SearchEvents returns the events from one time to another (both included), of
// one of the types (all where none is given), oldest first or newest first. It
// returns at most limit of them (0 and too many are 10000), fewer where they are
// large, and what to give as startKey for more, which is empty at the end.
func (s *Server) SearchEvents(ctx context.Context, from, to time.Time, eventTypes []string, limit int, order types.EventOrder, startKey string) ([]apievents.AuditEvent, string, error) {
	if limit <= 0 || limit > maxEvents {
		limit = maxEvents
	}
	from, to = clampTime(from), clampTime(to)
	if to.Before(from) {
		return nil, "", trace.BadParameter("events are asked for from %s to %s, which is before: exchange them", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	search := eventSearch{
		types: eventTypes,
		limit: limit,
		from:  eventKey(from),
		// The slash before the id sorts before a zero.
		below: eventKey(to) + "0",
	}
	if startKey != "" {
		if _, err := parseEventKey(eventsPrefix + startKey); err != nil {
			return nil, "", trace.Wrap(err)
		}
	}
	var found []foundEvent
	var err error
	switch order {
	case types.EventOrderAscending:
		after := search.from
		if startKey != "" {
			after = max(after, eventsPrefix+startKey)
		}
		found, err = s.ascending(ctx, search, after)
	case types.EventOrderDescending:
		if startKey != "" {
			search.below = min(search.below, eventsPrefix+startKey)
		}
		found, err = s.descending(ctx, search)
	default:
		return nil, "", trace.BadParameter("the order %d of events is not known", order)
	}
	if err != nil {
		return nil, "", trace.Wrap(err)
	}
	return s.unpack(found, limit)
}

// unpack takes as many of the events as go into one answer. There is one more
// in found than asked for where there are more.
func (s *Server) unpack(found []foundEvent, limit int) ([]apievents.AuditEvent, string, error) {
	events := make([]apievents.AuditEvent, 0, min(limit, len(found)))
	size, last := 0, ""
	for i, each := range found {
		if i == limit || i > 0 && size+len(each.packed) > maxEventBytes {
			return events, strings.TrimPrefix(last, eventsPrefix), nil
		}
		size += len(each.packed)
		last = each.key
		var oneOf apievents.OneOf
		err := oneOf.Unmarshal(each.packed)
		if err == nil {
			var event apievents.AuditEvent
			if event, err = apievents.FromOneOf(oneOf); err == nil {
				events = append(events, event)
				continue
			}
		}
		s.leftOut(trace.Wrap(err, "reading the event %s", each.key))
	}
	return events, "", nil
}

func (s *Server) ascending(ctx context.Context, search eventSearch, after string) ([]foundEvent, error) {
	var found []foundEvent
	size := 0
	err := s.scanEvents(ctx, search, after, func(event foundEvent) bool {
		found = append(found, event)
		size += len(event.packed)
		return len(found) <= search.limit && size <= maxEventBytes
	})
	return found, trace.Wrap(err)
}

// descending goes back day by day and hour by hour: the store reads upwards
// only, and newest events are what people ask for.
func (s *Server) descending(ctx context.Context, search eventSearch) ([]foundEvent, error) {
	oldest, err := s.store.Range(ctx, eventsPrefix, "", 1)
	if err != nil || len(oldest) == 0 {
		return nil, trace.Wrap(err)
	}
	first, err := parseEventKey(oldest[0].Key)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var found []foundEvent
	size := 0
	// take adds what lies between two times, newest first, and tells whether
	// there is room for more.
	take := func(from, to time.Time) (bool, error) {
		part := search
		part.from = max(search.from, eventKey(from))
		part.below = min(search.below, eventKey(to))
		if part.from >= part.below {
			return true, nil
		}
		var bucket []foundEvent
		err := s.scanEvents(ctx, part, part.from, func(event foundEvent) bool {
			bucket = append(bucket, event)
			if len(bucket) > 2*search.limit+eventChunk {
				// The oldest of a busy hour are not on this page.
				bucket = slices.Clone(bucket[len(bucket)-search.limit-1:])
			}
			return true
		})
		if err != nil {
			return false, trace.Wrap(err)
		}
		for _, event := range slices.Backward(bucket) {
			found = append(found, event)
			size += len(event.packed)
			if len(found) > search.limit || size > maxEventBytes {
				return false, nil
			}
		}
		return true, nil
	}

	// Clocks of hosts may be ahead: what is beyond tomorrow is one bucket.
	day := s.clock.Now().UTC().Truncate(24 * time.Hour).Add(48 * time.Hour)
	if more, err := take(day, clampTime(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))); err != nil || !more {
		return found, trace.Wrap(err)
	}
	// Hosts whose clocks were never set write of 1970: what is older than events
	// are kept is one bucket, too, and not a look at each day since.
	floor := s.clock.Now().UTC().Truncate(24 * time.Hour).Add(-eventsKept - 24*time.Hour)
	for day = day.Add(-24 * time.Hour); !day.Before(floor) && !day.Before(first.Truncate(24*time.Hour)); day = day.Add(-24 * time.Hour) {
		if eventKey(day) >= search.below {
			continue
		}
		if eventKey(day.Add(24*time.Hour)) <= search.from {
			break
		}
		some, err := s.store.Range(ctx, eventsPrefix+day.Format(eventDayFormat), "", 1)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		if len(some) == 0 {
			continue
		}
		for hour := 23; hour >= 0; hour-- {
			from := day.Add(time.Duration(hour) * time.Hour)
			if more, err := take(from, from.Add(time.Hour)); err != nil || !more {
				return found, trace.Wrap(err)
			}
		}
	}
	if first.Before(floor) {
		if _, err := take(clampTime(time.Time{}), floor); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	return found, nil
}

// scanEvents hands over the events that match, oldest first, until visit
// returns false.
func (s *Server) scanEvents(ctx context.Context, search eventSearch, after string, visit func(foundEvent) bool) error {
	for {
		items, err := s.store.Range(ctx, eventsPrefix, after, eventChunk)
		if err != nil {
			return trace.Wrap(err)
		}
		for _, item := range items {
			if item.Key >= search.below {
				return nil
			}
			var event storedEvent
			if err := json.Unmarshal(item.Value, &event); err != nil {
				s.leftOut(trace.Wrap(err, "reading the event %s", item.Key))
				continue
			}
			if len(search.types) > 0 && !slices.Contains(search.types, event.Type) {
				continue
			}
			if !visit(foundEvent{key: item.Key, packed: event.Event}) {
				return nil
			}
		}
		if len(items) < eventChunk {
			return nil
		}
		after = items[len(items)-1].Key
	}
}

// parseEventKey returns the time of a key, and refuses what is none.
func parseEventKey(key string) (time.Time, error) {
	text, id, ok := strings.Cut(strings.TrimPrefix(key, eventsPrefix), "/")
	t, err := time.Parse(eventTimeFormat, text)
	if !ok || err != nil || !plainWord(id, maxEventID) {
		return time.Time{}, trace.BadParameter("%q is not where a search for events can go on: use what the last one returned", cutTo(key, 2*maxEventID))
	}
	return t, nil
}

// clampTime keeps times within what keys can have.
func clampTime(t time.Time) time.Time {
	t = t.UTC()
	if t.Year() < 1970 {
		return time.Unix(0, 0).UTC()
	}
	if t.Year() > 9999 {
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}
