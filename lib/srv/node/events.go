// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What the cluster's audit log hears of logins. The kernel's session id and login
// uid stand in each event, and so lead to the host's own audit trail.

package node

import (
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
	apievents "github.com/gravitational/teleport/api/types/events"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/events/sessions"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/session"
	"teleport-auditd/lib/version"
)

// Teleport's name and code of the event.
const sessionStartEvent, sessionStartCode = "session.start", "T2000I"

// The labels that lead to the host's audit trail, among a server's in an event.
const (
	labelSession  = "auditd/ses"
	labelLoginUID = "auditd/auid"
	labelPID      = "auditd/pid"
)

const (
	// maxEventText bounds a name in an event, and maxEventCommand a command.
	maxEventText    = 255
	maxEventCommand = 4096
)

// loginEvents is what was told of one login.
type loginEvents struct {
	// started is the session that has begun, and has not ended; nil for none.
	started *apievents.SessionStart
	// refused says that the refusal was told.
	refused bool
}

// clean makes a text of at most n bytes fit for events, whose texts are UTF-8.
func clean(text string, n int) string {
	return strings.ToValidUTF8(text[:min(len(text), n)], "\uFFFD")
}

func (s *Server) eventMetadata(event, code string) apievents.Metadata {
	return apievents.Metadata{
		Type: event, Code: code, ID: uuid.NewString(), Time: s.cfg.Clock.Now().UTC(), ClusterName: s.cfg.ClusterName,
	}
}

func connectionMetadata(remote, local net.Addr) apievents.ConnectionMetadata {
	return apievents.ConnectionMetadata{RemoteAddr: remote.String(), LocalAddr: local.String(), Protocol: "ssh"}
}

// tellStart tells that the login was made, with its first process. The caller
// holds the lock.
func (l *login) tellStart(first *session.Start) {
	cfg := &l.server.cfg
	if cfg.Events == nil || l.events.started != nil || l.loggedIn == nil {
		return
	}
	labels := make(map[string]string, len(cfg.Labels)+3)
	maps.Copy(labels, cfg.Labels)
	pid := l.teleportSession.Pid
	labels[labelPID] = strconv.Itoa(pid)
	for label, file := range map[string]string{labelSession: "sessionid", labelLoginUID: "loginuid"} {
		// The node's own labels are anybody's word.
		delete(labels, label)
		if id, ok := l.kernelID(pid, file); ok {
			labels[label] = id
		}
	}
	id := &l.identity
	event := &apievents.SessionStart{
		Metadata: l.server.eventMetadata(sessionStartEvent, sessionStartCode),
		UserMetadata: apievents.UserMetadata{
			User: clean(id.TeleportUser, maxEventText), Login: clean(id.Login, maxEventText), UserKind: apievents.UserKind_USER_KIND_HUMAN,
		},
		SessionMetadata: apievents.SessionMetadata{SessionID: uuid.NewString()},
		ServerMetadata: apievents.ServerMetadata{
			ServerNamespace: "default", ServerID: cfg.HostUUID, ServerHostname: cfg.Hostname,
			ServerAddr: l.local.String(), ServerLabels: labels, ServerVersion: version.Version,
		},
		ConnectionMetadata: connectionMetadata(l.remote, l.local),
	}
	if first.PTY != nil {
		event.TerminalSize = fmt.Sprintf("%d:%d", first.PTY.Columns, first.PTY.Rows)
	}
	if first.Program == session.Command && first.Command != "" {
		event.InitialCommand = []string{clean(first.Command, maxEventCommand)}
	}
	l.events.started = event
	cfg.Events(event)
}

// kernelID reads an id that the kernel keeps of a process, and leaves out one
// that was never set.
func (l *login) kernelID(pid int, file string) (string, bool) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	text, err := os.ReadFile(path)
	if err != nil {
		// A kernel without audit has none.
		l.log.Debugf("The session's event lacks what %s says: %v.", path, err)
		return "", false
	}
	id := strings.TrimSpace(string(text))
	return id, id != "" && id != strconv.FormatUint(uint64(auditd.UnsetLoginUID), 10)
}

// tellEnd tells that a login that was told of has ended, once. The caller holds
// the lock.
func (l *login) tellEnd() {
	start := l.events.started
	if start == nil {
		return
	}
	l.events.started = nil
	l.server.cfg.Events(sessions.End(start, l.server.eventMetadata("", "")))
}

// tellHostRefused tells of a login that PAM or the host did not make.
func (l *login) tellHostRefused(m *session.Refused) {
	if m.Word != "" {
		l.tellAttempt(m.Word)
		return
	}
	l.tellAttempt(m.Reason)
}

// tellAttempt tells of a login that was not made although the client has
// authenticated, once. The caller holds the lock.
func (l *login) tellAttempt(reason string) {
	if l.server.refusals == nil || l.events.refused || l.loggedIn != nil {
		return
	}
	l.events.refused = true
	l.server.refusals.Tell(srv.Refused{
		Login: l.identity.Login, TeleportUser: l.identity.TeleportUser, Reason: reason, RemoteAddr: l.remote, LocalAddr: l.local,
	})
}
