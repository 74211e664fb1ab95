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
// login since, with the host's own record, and the event is made up for.
package sessions

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

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
	for _, entry := range entries {
		l.makeUp(filepath.Join(cfg.Dir, entry.Name()))
	}
	return l, nil
}

// makeUp ends a session that was left open. A file that was not written to its end
// is of a session whose start nobody has heard of either.
func (l *Ledger) makeUp(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		l.cfg.Log.Warnf("A session that was open when teleport was killed cannot be ended in the cluster's audit log: %v.", err)
		return
	}
	var start apievents.SessionStart
	if json.Unmarshal(text, &start) == nil && start.SessionID != "" {
		// The same event, if teleport is killed again before the file has gone.
		id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(start.SessionID+" "+endEvent)).String()
		l.cfg.Emit(End(&start, apievents.Metadata{ID: id, Time: l.cfg.Clock.Now().UTC(), ClusterName: start.ClusterName}))
	}
	l.remove(path)
}

// Emit notes what the event begins or ends, and passes it on.
func (l *Ledger) Emit(event apievents.AuditEvent) {
	switch e := event.(type) {
	case *apievents.SessionStart:
		if path, ok := l.path(e.SessionID); ok {
			text, err := json.Marshal(e)
			if err == nil {
				err = os.WriteFile(path, text, 0o600)
			}
			if err != nil {
				// The session itself must not depend on it.
				l.cfg.Log.Warnf("If teleport is killed now, the cluster's audit log does not hear of the end of the session %s: %v.", e.SessionID, err)
			}
		}
		l.cfg.Emit(event)
	case *apievents.SessionEnd:
		l.cfg.Emit(event)
		if path, ok := l.path(e.SessionID); ok {
			l.remove(path)
		}
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
