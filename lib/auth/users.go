// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The cluster's users: who they are and which roles they have. Passwords and
// second factors are kept elsewhere and are no part of a user object.

package auth

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
)

const usersPrefix = "/users/"

func userCollection() collection[*types.UserV2] {
	return collection[*types.UserV2]{
		noun:   "user",
		prefix: usersPrefix,
		fresh:  func() *types.UserV2 { return &types.UserV2{} },
		check:  checkUserObject,
	}
}

func checkUserObject(user *types.UserV2) error {
	if user.Spec.LocalAuth != nil {
		return trace.BadParameter("the user %q comes with passwords or second factors, and they are not set this way: the user sets them with a link from tctl users add or tctl users reset", cutTo(user.GetName(), MaxNameLength))
	}
	if err := checkUser(user.GetName()); err != nil {
		return trace.Wrap(err)
	}
	if err := user.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if len(user.GetRoles()) == 0 {
		return trace.BadParameter("the user %q has no roles: give at least one, such as access", user.GetName())
	}
	for i, role := range user.GetRoles() {
		if err := access.CheckRoleName(role); err != nil {
			return trace.Wrap(err)
		}
		if slices.Contains(user.GetRoles()[:i], role) {
			return trace.BadParameter("the user %q has the role %q twice: give it once", user.GetName(), role)
		}
	}
	return nil
}

// checkNewUser keeps out names that the audit log has for others. What such a user
// does would be written down as the daemon's, root's or a host's.
func (s *Server) checkNewUser(name string) error {
	hostID, isHost := strings.CutSuffix(name, "."+s.clusterName)
	if name == systemUser || strings.HasPrefix(name, rootPrefix) || isHost && uuid.Validate(hostID) == nil {
		return trace.BadParameter("the user name %q is one that the audit log has for the cluster's own programs and for root: use another", cutTo(name, MaxNameLength))
	}
	return nil
}

// userV2 takes the one implementation of types.User that can be kept.
func userV2(user types.User) (*types.UserV2, error) {
	v2, ok := user.(*types.UserV2)
	if !ok || v2 == nil {
		return nil, trace.BadParameter("a user must be a types.UserV2, and this is a %T", user)
	}
	return v2, nil
}

// CreateUser keeps a new user, and returns it with its revision. The error is
// trace.AlreadyExists where the name is taken, trace.NotFound where a role does
// not exist, and trace.BadParameter for a user that cannot be: without roles,
// with a name that checkUser or checkNewUser refuses, or with secrets.
func (s *Server) CreateUser(ctx context.Context, user types.User) (types.User, error) {
	v2, err := userV2(user)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.checkNewUser(v2.GetName()); err != nil {
		return nil, trace.Wrap(err)
	}
	v2 = s.createdByCaller(ctx, v2)
	if err := s.checkUserRoles(ctx, v2); err != nil {
		return nil, trace.Wrap(err)
	}
	created, err := userCollection().create(ctx, s.store, v2)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	s.userCreated(ctx, created)
	return created, nil
}

// localConnector is what events name as the source of users with passwords.
const localConnector = "local"

// createdAsBefore keeps when and by whom a user was created, where a change of the
// user does not say: certificates from before that time are another's.
func (s *Server) createdAsBefore(ctx context.Context, user *types.UserV2) (*types.UserV2, error) {
	if !user.Spec.CreatedBy.Time.IsZero() {
		return user, nil
	}
	kept, err := userCollection().get(ctx, s.store, user.GetName())
	if trace.IsNotFound(err) {
		return user, nil
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	out := *user
	out.Spec.CreatedBy = kept.Spec.CreatedBy
	return &out, nil
}

func (s *Server) createdByCaller(ctx context.Context, user *types.UserV2) *types.UserV2 {
	out := *user
	if out.Spec.CreatedBy.Time.IsZero() {
		out.Spec.CreatedBy = types.CreatedBy{
			User: types.UserRef{Name: callerFrom(ctx).User},
			Time: s.clock.Now().UTC(),
		}
	}
	return &out
}

// UpdateUser replaces a user. Where user has a revision, it must be that of the
// user that is kept: else the error is trace.CompareFailed. It is trace.NotFound
// where the user or a role does not exist.
func (s *Server) UpdateUser(ctx context.Context, user types.User) (types.User, error) {
	v2, err := userV2(user)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if v2, err = s.createdAsBefore(ctx, v2); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.checkUserRoles(ctx, v2); err != nil {
		return nil, trace.Wrap(err)
	}
	updated, err := userCollection().update(ctx, s.store, v2)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	s.userUpdated(ctx, updated)
	return updated, nil
}

// UpsertUser keeps the user, new or not, whatever its revision.
func (s *Server) UpsertUser(ctx context.Context, user types.User) (types.User, error) {
	v2, err := userV2(user)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.checkNewUser(v2.GetName()); err != nil {
		return nil, trace.Wrap(err)
	}
	if v2, err = s.createdAsBefore(ctx, v2); err != nil {
		return nil, trace.Wrap(err)
	}
	v2 = s.createdByCaller(ctx, v2)
	if err := s.checkUserRoles(ctx, v2); err != nil {
		return nil, trace.Wrap(err)
	}
	kept, isNew, err := userCollection().upsert(ctx, s.store, v2)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if isNew {
		s.userCreated(ctx, kept)
	} else {
		s.userUpdated(ctx, kept)
	}
	return kept, nil
}

func (s *Server) userCreated(ctx context.Context, user *types.UserV2) {
	s.emit(ctx, &apievents.UserCreate{
		Metadata:           apievents.Metadata{Type: UserCreateEvent, Code: UserCreateCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		ResourceMetadata:   resourceMetadata(user),
		Roles:              user.GetRoles(),
		Connector:          localConnector,
	})
}

func (s *Server) userUpdated(ctx context.Context, user *types.UserV2) {
	s.emit(ctx, &apievents.UserUpdate{
		Metadata:           apievents.Metadata{Type: UserUpdatedEvent, Code: UserUpdateCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		ResourceMetadata:   resourceMetadata(user),
		Roles:              user.GetRoles(),
		Connector:          localConnector,
	})
}

func (s *Server) checkUserRoles(ctx context.Context, user *types.UserV2) error {
	for _, name := range user.GetRoles() {
		if _, err := s.GetRole(ctx, name); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// GetUser returns trace.NotFound where there is no such user. Passwords and
// second factors do not leave the auth service: withSecrets is refused with
// trace.NotImplemented.
func (s *Server) GetUser(ctx context.Context, name string, withSecrets bool) (types.User, error) {
	if withSecrets {
		return nil, secretsStay()
	}
	user, err := userCollection().get(ctx, s.store, name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return user, nil
}

func secretsStay() error {
	return trace.NotImplemented("passwords and second factors do not leave the auth service: ask for users without secrets")
}

// ListUsers returns users in the order of their names, at most pageSize of them
// (zero or too much is 1000), and what to give as pageToken for more, which is
// empty at the end. withSecrets is as with GetUser.
func (s *Server) ListUsers(ctx context.Context, pageSize int, pageToken string, withSecrets bool) ([]types.User, string, error) {
	if withSecrets {
		return nil, "", secretsStay()
	}
	users, next, err := userCollection().page(ctx, s.store, pageSize, pageToken, s.leftOut)
	if err != nil {
		return nil, "", trace.Wrap(err)
	}
	out := make([]types.User, len(users))
	for i, user := range users {
		out[i] = user
	}
	return out, next, nil
}

// DeleteUser removes a user with password, second factor and open invitations.
// The error is trace.NotFound where there is no such user. Certificates that
// the user has stay valid at hosts until they expire: a lock ends them. The API
// refuses them at once, also when there is a new user of the name.
func (s *Server) DeleteUser(ctx context.Context, name string) error {
	user, err := userCollection().get(ctx, s.store, name)
	if err != nil {
		return trace.Wrap(err)
	}
	// The secrets go first: what is left of an interrupted removal must not be
	// the password of the next user of this name.
	if err := s.DeleteUserSecrets(ctx, name); err != nil {
		return trace.Wrap(err)
	}
	if err := userCollection().delete(ctx, s.store, name); err != nil {
		return trace.Wrap(err)
	}
	// A second time, for a password that was set in between.
	if err := s.DeleteUserSecrets(ctx, name); err != nil {
		return trace.Wrap(err)
	}
	s.emit(ctx, &apievents.UserDelete{
		Metadata:           apievents.Metadata{Type: UserDeleteEvent, Code: UserDeleteCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		ResourceMetadata:   resourceMetadata(user),
	})
	return nil
}
