// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auth"
	"teleport-auditd/tool/e2e/harness"
)

// TestClusterAuditLog holds that a login through the proxy is in the cluster's
// audit log with the kernel's session, and that a lock ends it and keeps its
// user out.
func TestClusterAuditLog(t *testing.T) {
	w := newWorld(t, worldConfig{})
	ctx := t.Context()
	cluster, err := auth.Open(ctx, auth.Config{DataDir: w.daemon.DataDir})
	require.NoError(t, err)
	defer func() { require.NoError(t, cluster.Close()) }()
	began := time.Now().Add(-time.Minute)
	found := func(kind string) []apievents.AuditEvent {
		all, _, err := cluster.SearchEvents(ctx, began, time.Now().Add(time.Minute), []string{kind}, 0, types.EventOrderAscending, "")
		require.NoError(t, err)
		return all
	}

	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	result := client.Run(w.bob.Name+"@node", "cat /proc/self/sessionid /proc/self/loginuid | tr '\\n' ' '; echo; cat /proc/self/sessionid")
	require.Equal(t, 0, result.Code, result.Stderr)
	session := strings.TrimSpace(result.Stdout)
	require.NotEmpty(t, session)
	harness.WaitFor(t, waitLimit, "the events of the login", func() bool { return len(found("session.end")) == 1 })
	started := found("session.start")
	require.Len(t, started, 1)
	start := started[0].(*apievents.SessionStart)
	end := found("session.end")[0].(*apievents.SessionEnd)
	require.Equal(t, "alice", start.User)
	require.Equal(t, w.bob.Name, start.Login)
	require.Equal(t, start.SessionID, end.SessionID)
	require.Equal(t, w.daemon.NodeName, start.ServerHostname)
	require.Equal(t, w.bob.ID(), start.ServerLabels["auditd/auid"])
	require.Contains(t, session, start.ServerLabels["auditd/ses"])

	// A lock ends what alice has open, and lets nothing new in.
	open := harness.MustDial(t, w.daemon.NodeAddr, w.bob.Name, harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name)))
	shell, err := open.NewSession()
	require.NoError(t, err)
	require.NoError(t, shell.Start("sleep 1000"))
	lock, err := types.NewLock(uuid.NewString(), types.LockSpecV2{Target: types.LockTarget{User: "alice"}, Message: "on leave"})
	require.NoError(t, err)
	require.NoError(t, cluster.UpsertLock(ctx, lock))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = open.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(waitLimit):
		t.Fatal("the lock has not ended the login")
	}
	_, err = harness.Dial(t, w.daemon.NodeAddr, w.bob.Name, harness.ReadIdentity(t, w.daemon.Sign("alice", w.bob.Name)))
	require.Error(t, err)
	harness.WaitFor(t, waitLimit, "the event of the refusal", func() bool {
		for _, event := range found("auth") {
			if attempt := event.(*apievents.AuthAttempt); attempt.User == "alice" && attempt.Error == "user-is-locked" {
				return true
			}
		}
		return false
	})
}
