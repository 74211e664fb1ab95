// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package sessions sees to it that each session of a node that has begun in the
// cluster's audit log also ends there, whatever becomes of the daemon.
//
// A Ledger stands before what takes the events:
//
//	ledger, err := sessions.Open(sessions.Config{Dir: dir, Emit: spool.Emit})
//	...
//	cfg.Events = ledger.Emit
//
// What has begun is noted in a file of its own until it has ended. What Open finds
// there was open when the daemon was killed: its teleport-session has ended the
// login since, with the host's own record, and the event is made up for. The event
// of an end is noted as well before anybody has it: told again it is the same, and
// kept once.
package sessions

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
)

// The name and code that Teleport gives the end of a session.
const (
	endEvent = "session.end"
	endCode  = "T2004I"
)

// endSuffix is that of the file of a session's end, beside the file of its start.
const endSuffix = ".end"

// End returns the event of the end of a session at the time of metadata, which
// says the rest of what is this event's own.
func End(start *apievents.SessionStart, metadata apievents.Metadata) *apievents.SessionEnd {
	metadata.Type, metadata.Code = endEvent, endCode
	end := &apievents.SessionEnd{
		Metadata:           metadata,
		UserMetadata:       start.UserMetadata,
		SessionMetadata:    start.SessionMetadata,
		ServerMetadata:     start.ServerMetadata,
		ConnectionMetadata: start.ConnectionMetadata,
		Interactive:        start.TerminalSize != "",
		Participants:       []string{start.User},
		StartTime:          start.Time,
		EndTime:            metadata.Time,
		InitialCommand:     start.InitialCommand,
	}
	// Nobody gets a map that somebody else has.
	end.ServerLabels = maps.Clone(start.ServerLabels)
	return end
}

// Config is what Open needs.
type Config struct {
	// Dir is a folder of the ledger's own. It is made where it is not there.
	Dir string
	// Emit takes all events, and must keep them when it returns.
	Emit func(apievents.AuditEvent)
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.Dir == "":
		return trace.BadParameter("sessions.Config has no Dir")
	case c.Emit == nil:
		return trace.BadParameter("sessions.Config has no Emit")
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Ledger is the sessions that are open. Emit may be called from several goroutines.
type Ledger struct{ cfg Config }

// Open ends the sessions that were open when the last Ledger of this folder was
// left. The error is the file system's.
func Open(cfg Config) (*Ledger, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	l := &Ledger{cfg: cfg}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	made := map[string]bool{}
	for _, entry := range entries {
		path := filepath.Join(cfg.Dir, strings.TrimSuffix(entry.Name(), endSuffix))
		if !made[path] {
			made[path] = true
			l.makeUp(path)
		}
	}
	return l, nil
}

// makeUp ends a session that was left open, or whose end may not have been told. A
// file that was not written to its end is of an event that nobody has heard of
// either.
func (l *Ledger) makeUp(path string) {
	var start apievents.SessionStart
	var end apievents.SessionEnd
	err := errors.Join(read(path, &start), read(path+endSuffix, &end))
	switch {
	case err != nil:
		l.cfg.Log.Warnf("A session that was open when teleport was killed cannot be ended in the cluster's audit log: %v.", err)
		return
	case end.SessionID != "":
		l.cfg.Emit(&end)
	case start.SessionID != "":
		l.end(path, End(&start, apievents.Metadata{ID: uuid.NewString(), Time: l.cfg.Clock.Now().UTC(), ClusterName: start.ClusterName}))
	}
	l.forget(path)
}

// read leaves an event as it is where the file is not there, or not whole.
func read[T any](path string, event *T) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var whole T
	if err == nil && json.Unmarshal(text, &whole) == nil {
		*event = whole
	}
	return err
}

// note writes an event down. The session itself must not depend on it.
func (l *Ledger) note(path string, event apievents.AuditEvent, without string) {
	text, err := json.Marshal(event)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		l.cfg.Log.Warnf("If teleport is killed now, the cluster's audit log %s: %v.", without, err)
	}
}

// end tells the end of the session that is noted at path.
func (l *Ledger) end(path string, event *apievents.SessionEnd) {
	l.note(path+endSuffix, event, "hears twice of the end of the session "+event.SessionID)
	l.cfg.Emit(event)
}

// forget removes what is noted of a session: its end last, which is the same event
// if it has to be told again.
func (l *Ledger) forget(path string) {
	l.remove(path)
	l.remove(path + endSuffix)
}

// Emit notes what the event begins or ends, and passes it on.
func (l *Ledger) Emit(event apievents.AuditEvent) {
	switch e := event.(type) {
	case *apievents.SessionStart:
		if path, ok := l.path(e.SessionID); ok {
			l.note(path, e, "does not hear of the end of the session "+e.SessionID)
		}
		l.cfg.Emit(event)
	case *apievents.SessionEnd:
		path, ok := l.path(e.SessionID)
		if !ok {
			l.cfg.Emit(event)
			return
		}
		l.end(path, e)
		l.forget(path)
	default:
		l.cfg.Emit(event)
	}
}

// path is where a session is noted. Only UUIDs name files.
func (l *Ledger) path(session string) (string, bool) {
	id, err := uuid.Parse(session)
	return filepath.Join(l.cfg.Dir, id.String()), err == nil
}

func (l *Ledger) remove(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.cfg.Log.Warnf("The end of a session will be told to the cluster's audit log again: %v.", err)
	}
}
