// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Locks: users, roles, logins and nodes that are shut out, now or until a time.

package auth

import (
	"context"

	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
)

const locksPrefix = "/locks/"

func lockCollection() collection[*types.LockV2] {
	return collection[*types.LockV2]{
		noun:   "lock",
		prefix: locksPrefix,
		fresh:  func() *types.LockV2 { return &types.LockV2{} },
		check:  checkLock,
	}
}

// checkLock takes targets that are enforced, and no others: a lock that locks
// nobody is worse than none.
func checkLock(lock *types.LockV2) error {
	if err := checkName("lock name", lock.GetName()); err != nil {
		return trace.Wrap(err)
	}
	if err := lock.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	target := lock.Target()
	//nolint:staticcheck // the older name of server_id is still what programs send
	if node := target.Node; node != "" {
		if target.ServerID != "" && target.ServerID != node {
			return trace.BadParameter("the lock %q names two nodes: %q and %q", lock.GetName(), node, target.ServerID)
		}
		target.Node, target.ServerID = "", node //nolint:staticcheck // as above
		lock.SetTarget(target)
	}
	if target.MFADevice != "" || target.WindowsDesktop != "" || target.AccessRequest != "" || target.Device != "" {
		return trace.BadParameter("the lock %q has a target that nothing here enforces: use user, role, login or server_id", lock.GetName())
	}
	for _, part := range []struct{ what, name string }{
		{"user of the lock", target.User},
		{"role of the lock", target.Role},
		{"login of the lock", target.Login},
		{"server id of the lock", target.ServerID},
	} {
		if part.name == "" {
			continue
		}
		if err := checkName(part.what, part.name); err != nil {
			return trace.Wrap(err)
		}
	}
	if len(lock.Message()) > maxLockMessage {
		return trace.BadParameter("the message of the lock %q is %d bytes long, and at most %d are kept", lock.GetName(), len(lock.Message()), maxLockMessage)
	}
	// A lock that is over is of no use to anybody.
	if expiry := lock.LockExpiry(); expiry != nil && lock.Expiry().IsZero() {
		lock.SetExpiry(*expiry)
	}
	return nil
}

const maxLockMessage = 1024

// UpsertLock puts a lock in force, or changes the one of this name. All parts of
// its target must match for it to hold. The error is trace.BadParameter for a
// lock without a target, with one that is not enforced, or that is over already.
func (s *Server) UpsertLock(ctx context.Context, lock types.Lock) error {
	v2, ok := lock.(*types.LockV2)
	if !ok || v2 == nil {
		return trace.BadParameter("a lock must be a types.LockV2, and this is a %T", lock)
	}
	stamped := *v2
	if expiry := stamped.LockExpiry(); expiry != nil {
		if err := s.notExpired("the lock", *expiry); err != nil {
			return trace.Wrap(err)
		}
		stamped.SetExpiry(*expiry)
	}
	if stamped.CreatedAt().IsZero() {
		stamped.SetCreatedAt(s.clock.Now().UTC())
	}
	if stamped.CreatedBy() == "" {
		stamped.SetCreatedBy(callerFrom(ctx).User)
	}
	kept, _, err := lockCollection().upsert(ctx, s.store, &stamped)
	if err != nil {
		return trace.Wrap(err)
	}
	s.emit(ctx, &apievents.LockCreate{
		Metadata:         apievents.Metadata{Type: LockCreatedEvent, Code: LockCreatedCode},
		UserMetadata:     callerFrom(ctx).userMetadata(),
		ResourceMetadata: resourceMetadata(kept),
		Lock:             apievents.LockMetadata{Target: kept.Target()},
	})
	return nil
}

// GetLock returns trace.NotFound where there is no such lock.
func (s *Server) GetLock(ctx context.Context, name string) (types.Lock, error) {
	lock, err := lockCollection().get(ctx, s.store, name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return lock, nil
}

// GetLocks returns the locks that match one of the targets, or all where none is
// given; with inForceOnly, those in force now.
func (s *Server) GetLocks(ctx context.Context, inForceOnly bool, targets ...types.LockTarget) ([]types.Lock, error) {
	locks, err := lockCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var out []types.Lock
	for _, lock := range locks {
		if inForceOnly && !lock.IsInForce(s.clock.Now()) {
			continue
		}
		if len(targets) > 0 && !matchesAny(lock, targets) {
			continue
		}
		out = append(out, lock)
	}
	return out, nil
}

func matchesAny(lock types.Lock, targets []types.LockTarget) bool {
	for _, target := range targets {
		if target.Match(lock) {
			return true
		}
	}
	return false
}

// DeleteLock ends a lock. The error is trace.NotFound where there is none.
func (s *Server) DeleteLock(ctx context.Context, name string) error {
	lock, err := lockCollection().get(ctx, s.store, name)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := lockCollection().delete(ctx, s.store, name); err != nil {
		return trace.Wrap(err)
	}
	s.emit(ctx, &apievents.LockDelete{
		Metadata:         apievents.Metadata{Type: LockDeletedEvent, Code: LockDeletedCode},
		UserMetadata:     callerFrom(ctx).userMetadata(),
		ResourceMetadata: resourceMetadata(lock),
		Lock:             apievents.LockMetadata{Target: lock.Target()},
	})
	return nil
}
