// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The cluster's roles.

package auth

import (
	"context"
	"slices"

	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
)

const rolesPrefix = "/roles/"

func roleCollection() collection[*types.RoleV6] {
	return collection[*types.RoleV6]{
		noun:   "role",
		prefix: rolesPrefix,
		fresh:  func() *types.RoleV6 { return &types.RoleV6{} },
		check:  checkRole,
	}
}

func checkRole(role *types.RoleV6) error {
	if role.Kind != "" && role.Kind != types.KindRole {
		return trace.BadParameter("a role has the kind %q, and this has %q", types.KindRole, role.Kind)
	}
	return trace.Wrap(access.Validate(role))
}

func roleV6(role types.Role) (*types.RoleV6, error) {
	v6, ok := role.(*types.RoleV6)
	if !ok || v6 == nil {
		return nil, trace.BadParameter("a role must be a types.RoleV6, and this is a %T", role)
	}
	return v6, nil
}

// CreateRole keeps a new role, and returns it with its revision. The error is
// trace.AlreadyExists where the name is taken, and trace.BadParameter for a role
// that access.Validate refuses.
func (s *Server) CreateRole(ctx context.Context, role types.Role) (types.Role, error) {
	v6, err := roleV6(role)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	created, err := roleCollection().create(ctx, s.store, v6)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	s.roleCreated(ctx, created)
	return created, nil
}

// UpdateRole replaces a role. Where role has a revision, it must be that of the
// role that is kept: else the error is trace.CompareFailed. It is trace.NotFound
// where there is none.
func (s *Server) UpdateRole(ctx context.Context, role types.Role) (types.Role, error) {
	v6, err := roleV6(role)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	updated, err := roleCollection().update(ctx, s.store, v6)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	s.roleUpdated(ctx, updated)
	return updated, nil
}

// UpsertRole keeps the role, new or not, whatever its revision.
func (s *Server) UpsertRole(ctx context.Context, role types.Role) (types.Role, error) {
	v6, err := roleV6(role)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	kept, isNew, err := roleCollection().upsert(ctx, s.store, v6)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if isNew {
		s.roleCreated(ctx, kept)
	} else {
		s.roleUpdated(ctx, kept)
	}
	return kept, nil
}

func (s *Server) roleCreated(ctx context.Context, role *types.RoleV6) {
	s.emit(ctx, &apievents.RoleCreate{
		Metadata:           apievents.Metadata{Type: RoleCreatedEvent, Code: RoleCreatedCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		ResourceMetadata:   resourceMetadata(role),
	})
}

func (s *Server) roleUpdated(ctx context.Context, role *types.RoleV6) {
	s.emit(ctx, &apievents.RoleUpdate{
		Metadata:           apievents.Metadata{Type: RoleUpdatedEvent, Code: RoleUpdatedCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		ResourceMetadata:   resourceMetadata(role),
	})
}

// GetRole returns trace.NotFound where there is no such role.
func (s *Server) GetRole(ctx context.Context, name string) (types.Role, error) {
	role, err := roleCollection().get(ctx, s.store, name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return role, nil
}

// GetRoles returns all roles, in the order of their names.
func (s *Server) GetRoles(ctx context.Context) ([]types.Role, error) {
	roles, err := roleCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	out := make([]types.Role, len(roles))
	for i, role := range roles {
		out[i] = role
	}
	return out, nil
}

// DeleteRole removes a role. The error is trace.NotFound where there is none,
// and trace.BadParameter where a user has it.
func (s *Server) DeleteRole(ctx context.Context, name string) error {
	role, err := roleCollection().get(ctx, s.store, name)
	if err != nil {
		return trace.Wrap(err)
	}
	users, err := userCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return trace.Wrap(err)
	}
	for _, user := range users {
		if slices.Contains(user.GetRoles(), name) {
			return trace.BadParameter("the role %q is one of the user %q: take it from the user first", name, user.GetName())
		}
	}
	if err := roleCollection().delete(ctx, s.store, name); err != nil {
		return trace.Wrap(err)
	}
	s.emit(ctx, &apievents.RoleDelete{
		Metadata:           apievents.Metadata{Type: RoleDeletedEvent, Code: RoleDeletedCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		ResourceMetadata:   resourceMetadata(role),
	})
	return nil
}

// EnsurePresets creates the preset roles that are not there. One that was
// changed stays as it is.
func (s *Server) EnsurePresets(ctx context.Context) error {
	for _, preset := range access.Presets() {
		v6, err := roleV6(preset)
		if err != nil {
			return trace.Wrap(err)
		}
		_, err = s.store.Get(ctx, roleCollection().key(v6.GetName()))
		if err == nil {
			continue
		}
		if !trace.IsNotFound(err) {
			return trace.Wrap(err)
		}
		if _, err := roleCollection().create(ctx, s.store, v6); err != nil && !trace.IsAlreadyExists(err) {
			return trace.Wrap(err, "creating the preset role %q", v6.GetName())
		}
	}
	return nil
}
