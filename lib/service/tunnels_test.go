// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"testing"

	"github.com/gravitational/teleport/api/types"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/srv"
)

type lockSource []types.Lock

func (l lockSource) Locks(context.Context) ([]types.Lock, error) { return l, nil }
func (lockSource) Roles(context.Context, []string) (map[string]types.Role, error) {
	return nil, nil
}

func TestLockedNodesHaveNoTunnel(t *testing.T) {
	var locks lockSource
	for name, target := range map[string]types.LockTarget{"node": {ServerID: "taken-over"}, "user": {User: "alice", ServerID: "other"}} {
		lock, err := types.NewLock(name, types.LockSpecV2{Target: target})
		require.NoError(t, err)
		locks = append(locks, lock)
	}
	people := errors.New("the one about people")
	authorize := authorizeTunnels(locks, func(context.Context, srv.Identity) error { return people }, clockwork.NewRealClock())

	var refusal *srv.Refusal
	require.ErrorAs(t, authorize(t.Context(), srv.Identity{HostID: "taken-over", Login: "taken-over"}), &refusal)
	require.Equal(t, "node-is-locked", refusal.Reason)
	require.NoError(t, authorize(t.Context(), srv.Identity{HostID: "other", Login: "other"}))
	check := checkNode(locks, clockwork.NewRealClock())
	require.EqualError(t, check(t.Context(), "taken-over"), "this host is locked")
	require.NoError(t, check(t.Context(), "other"))
	require.Equal(t, people, authorize(t.Context(), srv.Identity{Login: "root", TeleportUser: "alice"}))
}
