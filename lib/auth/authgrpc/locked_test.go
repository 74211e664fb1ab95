// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc_test

import (
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
)

// A node that is locked takes no part in the cluster, but its events come and it
// hears of locks.
func TestLockedNode(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	credentials, id := host(t, f.auth, types.RoleNode)
	node := f.connect(t, credentials)
	watcher, err := node.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{{Kind: types.KindLock}}})
	require.NoError(t, err)
	defer watcher.Close()
	require.Equal(t, types.OpInit, (<-watcher.Events()).Type)
	server, err := types.NewServer(id, types.KindNode, types.ServerSpecV2{Hostname: "web", Addr: "192.0.2.7:3022"})
	require.NoError(t, err)
	_, err = node.UpsertNode(ctx, server)
	require.NoError(t, err)

	lock, err := types.NewLock("stolen", types.LockSpecV2{Target: types.LockTarget{ServerID: id}, Message: "taken over"})
	require.NoError(t, err)
	require.NoError(t, f.auth.UpsertLock(ctx, lock))
	_, err = node.UpsertNode(ctx, server)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "is locked by an administrator: taken over")
	_, err = node.GetRoles(ctx)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	_, err = node.GetCertAuthorities(ctx, types.UserCA, false)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	locks, err := node.GetLocks(ctx, false)
	require.NoError(t, err)
	require.Len(t, locks, 1)
	require.NoError(t, node.EmitAuditEvent(ctx, &apievents.SessionStart{
		Metadata:       apievents.Metadata{Type: "session.start", Code: "T2000I", ID: "1", Time: time.Now()},
		ServerMetadata: apievents.ServerMetadata{ServerID: id},
	}))
	require.Equal(t, types.OpPut, (<-watcher.Events()).Type)

	require.NoError(t, f.auth.DeleteLock(ctx, "stolen"))
	require.Equal(t, types.OpDelete, (<-watcher.Events()).Type)
	_, err = node.UpsertNode(ctx, server)
	require.NoError(t, err)

	// A proxy goes on: it is people who get no further there.
	credentials, id = host(t, f.auth, types.RoleProxy)
	lock, err = types.NewLock("proxy", types.LockSpecV2{Target: types.LockTarget{ServerID: id}})
	require.NoError(t, err)
	require.NoError(t, f.auth.UpsertLock(ctx, lock))
	_, err = f.connect(t, credentials).GetRoles(ctx)
	require.NoError(t, err)
}

// Whoever had the name before a user was made is somebody else.
func TestCertificateOfAnEarlierUser(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	past := f.open(t, clockwork.NewFakeClockAt(time.Now().Add(-time.Hour)))
	k := newKeys(t)
	alice, err := types.NewUser("alice")
	require.NoError(t, err)
	alice.SetRoles([]string{"access"})
	alice.SetLogins([]string{"root"})
	_, err = past.UpsertUser(ctx, alice)
	require.NoError(t, err)
	certs, err := past.GenerateUserCerts(ctx, proto.UserCertsRequest{Username: "alice", SSHPublicKey: k.ssh, TLSPublicKey: k.tls, Expires: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	old := f.connect(t, k.credentials(t, certs))
	_, err = old.GetCurrentUser(ctx)
	require.NoError(t, err)
	// A change is no new user, also where it does not say who made the user.
	_ = user(t, f.auth, "alice", time.Hour, "access")
	_, err = old.GetCurrentUser(ctx)
	require.NoError(t, err)

	require.NoError(t, f.auth.DeleteUser(ctx, "alice"))
	fresh := f.connect(t, user(t, f.auth, "alice", time.Hour, "access"))
	_, err = old.GetCurrentUser(ctx)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.ErrorContains(t, err, "is older than the user of this name")
	_, err = fresh.GetCurrentUser(ctx)
	require.NoError(t, err)
}
