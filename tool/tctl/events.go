// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl events: the audit log of the cluster. A session's events carry the audit
// session (ses) and login uid (auid) of the host's kernel, with which the host's
// own trail goes on: ausearch --session SES.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	apidefaults "github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/cli"
)

const (
	defaultSince = "24h"
	// nodeRefusal is the event of a node that let somebody not in.
	nodeRefusal = "auth"
	// eventPage is how many events are asked for at once.
	eventPage = 500
)

type eventsQuery struct {
	kinds         []string
	user, session string
	since, until  string
	limit         int
	format        string
}

func (t *tctl) addEvents(app *kingpin.Application, register register) {
	clause := app.Command("events", "The audit log of the cluster.").Command("ls", "List events, the oldest first.")
	var q eventsQuery
	clause.Flag("type", "Only events of these types, such as user.login or session.start; with commas between several.").PlaceHolder("TYPE,...").StringsVar(&q.kinds)
	clause.Flag("user", "Only events of this user.").PlaceHolder("NAME").StringVar(&q.user)
	clause.Flag("session", "Only events of this session, by its id or by the audit session (ses) of the host's kernel.").PlaceHolder("ID").StringVar(&q.session)
	clause.Flag("since", "From when on: a time such as 2026-12-31T18:00:00Z, or how long ago, such as 90m.").Default(defaultSince).StringVar(&q.since)
	clause.Flag("until", "Until when, as --since. Without it, until now.").StringVar(&q.until)
	cli.Number(clause.Flag("limit", "The newest so many events; 0 is all.").Default("0"), &q.limit, "a number of events", 0, math.MaxInt32)
	addFormat(clause, &q.format)
	register(clause, func(ctx context.Context) error { return t.listEvents(ctx, q) })
}

func (t *tctl) listEvents(ctx context.Context, q eventsQuery) error {
	now := time.Now().UTC()
	from, err := parseMoment("since", q.since, now)
	if err != nil {
		return trace.Wrap(err)
	}
	// What is written while this runs is part of now.
	to := now.Add(time.Minute)
	if q.until != "" {
		if to, err = parseMoment("until", q.until, now); err != nil {
			return trace.Wrap(err)
		}
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	found, err := q.search(ctx, c, from, to)
	if err != nil {
		return trace.Wrap(err)
	}
	return t.show(q.format, eventFieldsOf(found), func() string {
		if len(found) == 0 {
			return fmt.Sprintf("There are no such events between %s and %s.\n", when(from), when(to))
		}
		rows := make([][]string, 0, len(found))
		for _, event := range found {
			fields := fieldsOf(event)
			rows = append(rows, []string{when(event.GetTime()), fields.text("event"), fields.text("code"), fields.user(), fields.describe()})
		}
		return table([]string{"Time", "Type", "Code", "User", "Details"}, rows)
	})
}

// search returns the newest events that fit, oldest first.
func (q eventsQuery) search(ctx context.Context, c *cluster, from, to time.Time) ([]apievents.AuditEvent, error) {
	var found []apievents.AuditEvent
	start := ""
	for {
		page, next, err := c.SearchEvents(ctx, from, to, apidefaults.Namespace, splitList(q.kinds), eventPage, types.EventOrderDescending, start)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		for _, event := range page {
			if !q.wants(event) {
				continue
			}
			found = append(found, event)
			if q.limit > 0 && len(found) == q.limit {
				slices.Reverse(found)
				return found, nil
			}
		}
		if next == "" {
			slices.Reverse(found)
			return found, nil
		}
		start = next
	}
}

func (q eventsQuery) wants(event apievents.AuditEvent) bool {
	fields := fieldsOf(event)
	if q.user != "" && fields.user() != q.user {
		return false
	}
	return q.session == "" || fields.text("sid") == q.session || fields.label("auditd/ses") == q.session
}

// fields are an event as its JSON has them.
type fields map[string]any

func fieldsOf(event apievents.AuditEvent) fields {
	text, err := json.Marshal(event)
	if err != nil {
		return fields{}
	}
	found := fields{}
	if json.Unmarshal(text, &found) != nil {
		return fields{}
	}
	if unknown, ok := event.(*apievents.Unknown); ok {
		return fieldsOfUnknown(found, unknown)
	}
	return found
}

// fieldsOfUnknown are those of an event that the api module has no type for: it is
// in the data, and around that is only what all events have.
func fieldsOfUnknown(around fields, event *apievents.Unknown) fields {
	found := fields{}
	if json.Unmarshal([]byte(event.Data), &found) != nil || found == nil {
		return around
	}
	for _, name := range []string{"data", "unknown_event", "unknown_code"} {
		delete(around, name)
	}
	maps.Copy(found, around)
	found["event"], found["code"] = event.UnknownType, event.UnknownCode
	return found
}

func eventFieldsOf(events []apievents.AuditEvent) []fields {
	all := make([]fields, 0, len(events))
	for _, event := range events {
		all = append(all, fieldsOf(event))
	}
	return all
}

func (f fields) text(name string) string {
	switch value := f[name].(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

// user is who did it, or whom a certificate is for: its event names nobody else.
func (f fields) user() string {
	if user := f.text("user"); user != "" {
		return user
	}
	return f.inside("identity").text("user")
}

// inside are the fields of one of them.
func (f fields) inside(name string) fields {
	found, _ := f[name].(map[string]any)
	return found
}

func (f fields) list(name string) string {
	all, _ := f[name].([]any)
	words := make([]string, 0, len(all))
	for _, word := range all {
		words = append(words, fmt.Sprint(word))
	}
	return strings.Join(words, ",")
}

func (f fields) label(name string) string {
	return f.inside("server_labels").text(name)
}

// describe puts what tells most of an event into a line.
func (f fields) describe() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	for _, name := range []string{"login", "name", "phase", "node_name", "role", "server_hostname", "addr.remote", "sid"} {
		add(strings.TrimSuffix(name, ".remote"), f.text(name))
	}
	add("roles", f.list("roles"))
	for kind, name := range f.inside("lock").inside("target") {
		add("target", fmt.Sprintf("%s:%v", kind, name))
	}
	add("logins", f.inside("identity").list("logins"))
	if until, err := time.Parse(time.RFC3339, f.inside("identity").text("expires")); err == nil {
		add("until", when(until))
	}
	add("ses", f.label("auditd/ses"))
	add("auid", f.label("auditd/auid"))
	if success, ok := f["success"].(bool); ok {
		add("success", fmt.Sprint(success))
	}
	add("error", f.text("error"))
	if f.text("event") == nodeRefusal {
		// Which node it was stands nowhere else.
		if message := f.text("message"); message != "" {
			parts = append(parts, "("+message+")")
		}
	}
	return strings.Join(parts, " ")
}

// parseMoment takes a time, or how long ago it was.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		// A day is its beginning, as times are printed: in UTC.
		at, err = time.Parse(time.DateOnly, text)
	}
	if err != nil {
		return time.Time{}, usageError{trace.BadParameter("--%s=%q is neither a time nor a duration: give one such as 2026-12-31T18:00:00Z, 2026-12-31 or 90m", flag, text)}
	}
	return at.UTC(), nil
}
