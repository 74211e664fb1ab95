// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/events/sessions"
)

// TestKilled: the sessions that were open when the daemon was killed end when it
// is there again, once, and the others do not end again.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	clock := clockwork.NewFakeClock()
	var told []apievents.AuditEvent
	open := func() *sessions.Ledger {
		ledger, err := sessions.Open(sessions.Config{Dir: dir, Clock: clock, Emit: func(e apievents.AuditEvent) { told = append(told, e) }})
		require.NoError(t, err)
		return ledger
	}
	start := func() *apievents.SessionStart {
		return &apievents.SessionStart{
			Metadata:        apievents.Metadata{Type: "session.start", Time: clock.Now().UTC(), ClusterName: "example.com"},
			UserMetadata:    apievents.UserMetadata{User: "alice", Login: "deploy"},
			SessionMetadata: apievents.SessionMetadata{SessionID: uuid.NewString()},
			ServerMetadata:  apievents.ServerMetadata{ServerLabels: map[string]string{"auditd/ses": "42"}},
			TerminalSize:    "80:24",
		}
	}
	ledger := open()
	ended, left := start(), start()
	ledger.Emit(ended)
	ledger.Emit(left)
	ledger.Emit(&apievents.AuthAttempt{})
	ledger.Emit(sessions.End(ended, apievents.Metadata{Time: clock.Now().UTC()}))
	require.Len(t, told, 4)
	// One that was being written.
	require.NoError(t, os.WriteFile(filepath.Join(dir, uuid.NewString()), []byte(`{"event":"session.st`), 0o600))

	told = nil
	clock.Advance(time.Minute)
	open()
	require.Len(t, told, 1)
	end := told[0].(*apievents.SessionEnd)
	require.Equal(t, left.SessionID, end.SessionID)
	require.Equal(t, "alice", end.User)
	require.Equal(t, "42", end.ServerLabels["auditd/ses"])
	require.Equal(t, left.Time, end.StartTime)
	require.Equal(t, clock.Now().UTC(), end.EndTime)
	require.True(t, end.Interactive)
	require.NotEmpty(t, end.ID)
	open()
	require.Len(t, told, 1, "it ends once")
}

// TestKilledInBetween: an end that may have been told already is told as it was,
// and so is one that was made up for.
func TestKilledInBetween(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	clock := clockwork.NewFakeClock()
	var told []apievents.AuditEvent
	killed := false
	open := func() (ledger *sessions.Ledger) {
		defer func() { require.Equal(t, killed, recover() != nil) }()
		ledger, err := sessions.Open(sessions.Config{Dir: dir, Clock: clock, Emit: func(e apievents.AuditEvent) {
			told = append(told, e)
			if killed {
				panic("killed")
			}
		}})
		require.NoError(t, err)
		return ledger
	}
	start := &apievents.SessionStart{
		Metadata:        apievents.Metadata{Type: "session.start", Time: clock.Now().UTC()},
		SessionMetadata: apievents.SessionMetadata{SessionID: uuid.NewString()},
	}
	ledger := open()
	ledger.Emit(start)
	clock.Advance(time.Minute)
	killed = true
	end := sessions.End(start, apievents.Metadata{ID: uuid.NewString(), Time: clock.Now().UTC()})
	require.Panics(t, func() { ledger.Emit(end) })
	clock.Advance(time.Minute)
	open()
	killed = false
	clock.Advance(time.Minute)
	open()
	require.Len(t, told, 4)
	require.Equal(t, []apievents.AuditEvent{end, end, end}, told[1:])

	told, killed = nil, false
	left := *start
	left.SessionID = uuid.NewString()
	open().Emit(&left)
	killed = true
	clock.Advance(time.Minute)
	open()
	clock.Advance(time.Minute)
	killed = false
	open()
	require.Len(t, told, 3)
	require.Equal(t, told[1], told[2])
	require.Equal(t, left.SessionID, told[1].(*apievents.SessionEnd).SessionID)
	open()
	require.Len(t, told, 3)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// TestNames: a session id is no path.
func TestNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	ledger, err := sessions.Open(sessions.Config{Dir: dir, Emit: func(apievents.AuditEvent) {}})
	require.NoError(t, err)
	ledger.Emit(&apievents.SessionStart{SessionMetadata: apievents.SessionMetadata{SessionID: "../outside"}})
	require.NoFileExists(t, filepath.Join(dir, "..", "outside"))
}
