// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend"
)

// openCluster opens a new cluster with the preset roles.
func openCluster(t *testing.T, clock clockwork.Clock) *Server {
	t.Helper()
	s := open(t, Config{Clock: clock})
	require.NoError(t, s.EnsurePresets(t.Context()))
	return s
}

func newUser(t *testing.T, name string, roles ...string) types.User {
	t.Helper()
	user, err := types.NewUser(name)
	require.NoError(t, err)
	user.SetRoles(roles)
	return user
}

func newToken(t *testing.T, name string, expires time.Time, roles ...types.SystemRole) *types.ProvisionTokenV2 {
	t.Helper()
	token, err := types.NewProvisionToken(name, roles, expires)
	require.NoError(t, err)
	return token.(*types.ProvisionTokenV2)
}

func TestUsers(t *testing.T) {
	ctx := WithCaller(t.Context(), Caller{User: "root@auth1"})
	s := openCluster(t, clockwork.NewRealClock())

	// Names of any script go through keys and back.
	created, err := s.CreateUser(ctx, newUser(t, "Zoë Ω:x", "access"))
	require.NoError(t, err)
	require.NotEmpty(t, created.GetRevision())
	require.Equal(t, "root@auth1", created.GetCreatedBy().User.Name)
	_, err = s.CreateUser(ctx, newUser(t, "Zoë Ω:x", "access"))
	require.True(t, trace.IsAlreadyExists(err), "%v", err)
	for i := range 5 {
		_, err := s.CreateUser(ctx, newUser(t, fmt.Sprintf("user%d", i), "access"))
		require.NoError(t, err)
	}

	var names []string
	token := ""
	for {
		users, next, err := s.ListUsers(ctx, 4, token, false)
		require.NoError(t, err)
		require.LessOrEqual(t, len(users), 4)
		for _, user := range users {
			names = append(names, user.GetName())
		}
		if token = next; token == "" {
			break
		}
	}
	require.Equal(t, []string{"Zoë Ω:x", "user0", "user1", "user2", "user3", "user4"}, names)

	// Of two who read the same user, the second to write is told.
	first, err := s.GetUser(ctx, "user0", false)
	require.NoError(t, err)
	second, err := s.GetUser(ctx, "user0", false)
	require.NoError(t, err)
	first.SetLogins([]string{"bob"})
	updated, err := s.UpdateUser(ctx, first)
	require.NoError(t, err)
	require.NotEqual(t, second.GetRevision(), updated.GetRevision())
	_, err = s.UpdateUser(ctx, second)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	second.SetRevision("")
	_, err = s.UpdateUser(ctx, second)
	require.NoError(t, err, "an update without a revision")
	_, err = s.UpsertUser(ctx, newUser(t, "user0", "access", "editor"))
	require.NoError(t, err)

	_, err = s.UpdateUser(ctx, newUser(t, "nobody", "access"))
	require.True(t, trace.IsNotFound(err), "%v", err)
	_, err = s.GetUser(ctx, "nobody", false)
	require.True(t, trace.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, `the user "nobody" was not found`)
	_, err = s.GetUser(ctx, "user0", true)
	require.True(t, trace.IsNotImplemented(err), "%v", err)

	// With the user goes what the user logs in with.
	for _, key := range []string{"/passwords/user0", "/otp/user0", "/otp_used/user0/12", "/login_attempts/user0"} {
		_, err := s.store.Put(ctx, backend.Item{Key: key, Value: []byte("x")})
		require.NoError(t, err)
	}
	_, err = s.store.Put(ctx, backend.Item{Key: "/passwords/user00", Value: []byte("x")})
	require.NoError(t, err)
	require.NoError(t, s.DeleteUser(ctx, "user0"))
	require.True(t, trace.IsNotFound(s.DeleteUser(ctx, "user0")))
	for _, prefix := range []string{"/passwords/", "/otp/", "/otp_used/", "/login_attempts/"} {
		items, err := s.store.Range(ctx, prefix, "", 0)
		require.NoError(t, err)
		for _, item := range items {
			require.Equal(t, "/passwords/user00", item.Key)
		}
	}

	created, err = s.UpsertUser(ctx, newUser(t, "late", "access"))
	require.NoError(t, err)
	events, _, err := s.SearchEvents(ctx, time.Time{}, time.Now().Add(time.Hour), []string{UserCreateEvent}, 0, types.EventOrderDescending, "")
	require.NoError(t, err)
	require.Len(t, events, 7)
	require.Equal(t, created.GetName(), events[0].(*apievents.UserCreate).Name, "a user that was upserted was not created")

	events, _, err = s.SearchEvents(ctx, time.Time{}, time.Now().Add(time.Hour), []string{UserDeleteEvent}, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	require.Len(t, events, 1)
	deleted := events[0].(*apievents.UserDelete)
	require.Equal(t, "root@auth1", deleted.User)
	require.Equal(t, "user0", deleted.Name)
	require.Equal(t, "example.com", deleted.ClusterName)
	require.NotEmpty(t, deleted.ID)
}

func TestResourcesRefused(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClock()
	s := openCluster(t, clock)
	withSecrets := newUser(t, "alice", "access")
	withSecrets.SetLocalAuth(&types.LocalAuthSecrets{PasswordHash: []byte("x")})
	iam := newToken(t, "longenough", time.Time{}, types.RoleNode)
	iam.Spec.JoinMethod, iam.Spec.Allow = types.JoinMethodIAM, []*types.TokenRule{{AWSAccount: "1"}}
	past := clock.Now().Add(-time.Second)
	lock := func(target types.LockTarget, expires *time.Time) error {
		made, err := types.NewLock("l", types.LockSpecV2{Target: target, Expires: expires})
		require.NoError(t, err)
		return s.UpsertLock(ctx, made)
	}
	otherRole := func(change func(*types.RoleV6)) error {
		role := &types.RoleV6{Version: types.V7, Metadata: types.Metadata{Name: "r"}}
		change(role)
		_, err := s.CreateRole(ctx, role)
		return err
	}
	createUser := func(user types.User) error {
		_, err := s.CreateUser(ctx, user)
		return err
	}
	preference := func(spec types.AuthPreferenceSpecV2) error {
		return s.SetAuthPreference(ctx, &types.AuthPreferenceV2{Spec: spec})
	}
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"no user", createUser((*types.UserV2)(nil)), "UserV2"},
		{"user without roles", createUser(newUser(t, "alice")), "no roles"},
		{"user with a control character", createUser(newUser(t, "a\x1b[2J", "access")), "U+001B"},
		{"user with the daemon's name", createUser(newUser(t, "system", "access")), "audit log"},
		{"user with root's name", func() error {
			_, err := s.UpsertUser(ctx, newUser(t, "root@auth1", "editor"))
			return err
		}(), "audit log"},
		{"user with a host's name", createUser(newUser(t, "e13c8944-ffa8-4298-af53-6c9ea51f766b."+s.clusterName, "access")), "audit log"},
		{"user with a password", createUser(withSecrets), "tctl users reset"},
		{"role with an unknown variable", otherRole(func(r *types.RoleV6) { r.Spec.Allow.Logins = []string{"{{nonsense}}"} }), "spec.allow.logins"},
		{"role with a comma", otherRole(func(r *types.RoleV6) { r.Metadata.Name = "a,b" }), `','`},
		{"something else as a role", otherRole(func(r *types.RoleV6) { r.Kind = "user" }), `"user"`},
		{"role that a user has", func() error {
			require.NoError(t, createUser(newUser(t, "bob", "auditor")))
			return s.DeleteRole(ctx, "auditor")
		}(), `user "bob"`},
		{"short token", s.CreateToken(ctx, newToken(t, "secret7", time.Time{}, types.RoleNode)), "7 characters"},
		{"token with a line", s.CreateToken(ctx, newToken(t, "longenough\n", time.Time{}, types.RoleNode)), "control character"},
		{"expired token", s.CreateToken(ctx, newToken(t, "longenough", past, types.RoleNode)), "expired"},
		{"token for a bot", s.CreateToken(ctx, newToken(t, "longenough", time.Time{}, types.RoleApp)), `"App"`},
		{"token of another method", s.UpsertToken(ctx, iam), `"iam"`},
		{"lock of a device", lock(types.LockTarget{Device: "d"}, nil), "server_id"},
		{"lock of two nodes", lock(types.LockTarget{Node: "a", ServerID: "b"}, nil), "two nodes"}, //nolint:staticcheck // the older name
		{"lock of the past", lock(types.LockTarget{User: "a"}, &past), "expired"},
		{"webauthn", preference(types.AuthPreferenceSpecV2{SecondFactor: constants.SecondFactorOn}), "otp"},
		{"device trust", preference(types.AuthPreferenceSpecV2{DeviceTrust: &types.DeviceTrust{Mode: "off"}}), "nothing else"},
		{"no local users", preference(types.AuthPreferenceSpecV2{AllowLocalAuth: types.NewBoolOption(false)}), "nothing else"},
		{"event without a type", s.EmitAuditEvent(ctx, &apievents.UserLogin{}), "give both"},
		{"event of another cluster", s.EmitAuditEvent(ctx, &apievents.UserLogin{Metadata: apievents.Metadata{Type: "user.login", Code: "T1000I", ClusterName: "other"}}), `"other"`},
		{"event with a path as id", s.EmitAuditEvent(ctx, &apievents.UserLogin{Metadata: apievents.Metadata{Type: "user.login", Code: "T1000I", ID: "../x"}}), "UUID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.True(t, trace.IsBadParameter(tc.err), "%v", tc.err)
			require.ErrorContains(t, tc.err, tc.want)
		})
	}
	require.NoError(t, createUser(newUser(t, "carol@"+s.clusterName, "access")))
	err := createUser(newUser(t, "alice", "unknown"))
	require.True(t, trace.IsNotFound(err), "%v", err)
}

func TestPresetsStayAsTheyWereChanged(t *testing.T) {
	ctx := t.Context()
	s := openCluster(t, clockwork.NewRealClock())
	role, err := s.GetRole(ctx, "access")
	require.NoError(t, err)
	role.SetLogins(types.Allow, []string{"deploy"})
	_, err = s.UpdateRole(ctx, role)
	require.NoError(t, err)
	require.NoError(t, s.DeleteRole(ctx, "auditor"))
	require.NoError(t, s.EnsurePresets(ctx))
	roles, err := s.GetRoles(ctx)
	require.NoError(t, err)
	require.Len(t, roles, 3)
	require.Equal(t, []string{"deploy"}, roles[0].GetLogins(types.Allow))
}

func TestTokensExpireAndKeepTheirSecret(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClock()
	s := openCluster(t, clock)
	token := newToken(t, "verysecrettoken", clock.Now().Add(time.Hour).UTC(), types.RoleNode)
	require.NoError(t, s.CreateToken(ctx, token))
	err := s.CreateToken(ctx, token)
	require.True(t, trace.IsAlreadyExists(err))
	require.NotContains(t, err.Error(), "verysecret")
	got, err := s.GetToken(ctx, "verysecrettoken")
	require.NoError(t, err)
	require.Equal(t, types.SystemRoles{types.RoleNode}, got.GetRoles())

	clock.Advance(time.Hour)
	_, err = s.GetToken(ctx, "verysecrettoken")
	require.True(t, trace.IsNotFound(err))
	require.NotContains(t, err.Error(), "verysecret")
	tokens, err := s.GetTokens(ctx)
	require.NoError(t, err)
	require.Empty(t, tokens)

	events, _, err := s.SearchEvents(ctx, time.Time{}, clock.Now(), []string{TokenCreatedEvent}, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.NotContains(t, fmt.Sprint(events[0]), "verysecret")

	// A new one in the place of one that expired is nobody's removal.
	require.NoError(t, s.CreateToken(ctx, newToken(t, "verysecrettoken", clock.Now().Add(time.Hour).UTC(), types.RoleNode)))
	require.Empty(t, ownEvents(t, s, TokenDeletedEvent))
	require.NoError(t, s.DeleteToken(WithCaller(ctx, Caller{User: "alice"}), "verysecrettoken"))
	require.Error(t, s.DeleteToken(ctx, "verysecrettoken"))
	require.Equal(t, []string{`TJT01I {"user":"alice","name":"***************"}`}, ownEvents(t, s, TokenDeletedEvent))
}

// ownEvents are the codes and data of the events of a type of our own.
func ownEvents(t *testing.T, s *Server, eventType string) []string {
	t.Helper()
	events, _, err := s.SearchEvents(t.Context(), time.Time{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), []string{eventType}, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	var found []string
	for _, event := range events {
		unknown, ok := event.(*apievents.Unknown)
		require.True(t, ok, "%T", event)
		require.Equal(t, eventType, unknown.UnknownType)
		require.Equal(t, apievents.UnknownEvent, unknown.GetType())
		found = append(found, unknown.UnknownCode+" "+unknown.Data)
	}
	return found
}

func TestLocks(t *testing.T) {
	ctx := WithCaller(t.Context(), Caller{User: "admin"})
	clock := clockwork.NewFakeClock()
	s := openCluster(t, clock)
	until := clock.Now().Add(time.Hour).UTC()
	for name, spec := range map[string]types.LockSpecV2{
		"a": {Target: types.LockTarget{User: "alice"}, Message: "on leave"},
		"b": {Target: types.LockTarget{Node: "n1"}, Expires: &until}, //nolint:staticcheck // the older name
	} {
		lock, err := types.NewLock(name, spec)
		require.NoError(t, err)
		require.NoError(t, s.UpsertLock(ctx, lock))
	}
	locks, err := s.GetLocks(ctx, true, types.LockTarget{User: "alice"})
	require.NoError(t, err)
	require.Len(t, locks, 1)
	require.Equal(t, "on leave", locks[0].Message())
	require.Equal(t, "admin", locks[0].CreatedBy())
	locks, err = s.GetLocks(ctx, true, types.LockTarget{ServerID: "n1"})
	require.NoError(t, err)
	require.Len(t, locks, 1)
	clock.Advance(time.Hour)
	locks, err = s.GetLocks(ctx, false)
	require.NoError(t, err)
	require.Len(t, locks, 1, "a lock that is over is kept")
	require.NoError(t, s.DeleteLock(ctx, "a"))
	require.True(t, trace.IsNotFound(s.DeleteLock(ctx, "a")))
}

func TestTunnelNodesNeedNoAddress(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{})
	server := node("a", "behind-nat", "")
	server.Spec.UseTunnel = true
	require.NoError(t, s.UpsertNode(ctx, server))
	got, err := s.GetNode(ctx, "a")
	require.NoError(t, err)
	require.True(t, got.GetUseTunnel())
	server.Metadata.Labels = map[string]string{"env": "a\x1b[31m"}
	require.ErrorContains(t, s.UpsertNode(ctx, server), "U+001B")
	server.Metadata.Labels = map[string]string{"env": strings.Repeat("x", MaxNameLength)}
	for i := range 10 {
		server.Metadata.Labels[fmt.Sprint("l", i)] = strings.Repeat("x", MaxNameLength)
	}
	require.ErrorContains(t, s.UpsertNode(ctx, server), "2048")
	require.NoError(t, s.DeleteNode(ctx, "a"))
	require.True(t, trace.IsNotFound(s.DeleteNode(ctx, "a")))
}

func TestAuthPreference(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{})
	preference, err := s.GetAuthPreference(ctx)
	require.NoError(t, err)
	require.True(t, preference.IsSecondFactorTOTPAllowed())
	off := &types.AuthPreferenceV2{Spec: types.AuthPreferenceSpecV2{SecondFactor: constants.SecondFactorOff}}
	require.NoError(t, s.SetAuthPreference(ctx, off))
	require.NoError(t, s.SetAuthPreference(ctx, off))
	preference, err = s.GetAuthPreference(ctx)
	require.NoError(t, err)
	require.False(t, preference.IsSecondFactorEnabled())
	stale := preference.Clone()
	require.NoError(t, s.ResetAuthPreference(ctx))
	require.True(t, trace.IsCompareFailed(s.SetAuthPreference(ctx, stale)))
	events, _, err := s.SearchEvents(ctx, time.Time{}, time.Now(), []string{AuthPreferenceUpdatedEvent}, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	require.Len(t, events, 2, "saying the same again is no change")
}

func TestSearchEvents(t *testing.T) {
	ctx := t.Context()
	start := time.Date(2026, 3, 1, 22, 30, 0, 0, time.UTC)
	clock := clockwork.NewFakeClockAt(start.Add(100 * time.Hour))
	s := open(t, Config{Clock: clock})
	// Some in the same instant, over hours and days, one of tomorrow's clock.
	var ids []string
	emit := func(id string, at time.Time, kind string) {
		event := &apievents.UserLogin{Metadata: apievents.Metadata{Type: kind, Code: "T1000I", ID: id, Time: at}}
		require.NoError(t, s.EmitAuditEvent(ctx, event))
	}
	for i := range 60 {
		id := fmt.Sprintf("id-%02d", i)
		emit(id, start.Add(time.Duration(i/2)*97*time.Minute), "user.login")
		ids = append(ids, id)
	}
	emit("ahead", start.Add(1000*time.Hour), "user.login")
	ids = append(ids, "ahead")
	emit("other", start, "auth")
	emit("id-05", start.Add(2*97*time.Minute), "user.login") // sent again
	end := start.Add(2000 * time.Hour)

	reversed := make([]string, len(ids))
	for i, id := range ids {
		reversed[len(ids)-1-i] = id
	}
	for _, tc := range []struct {
		order types.EventOrder
		want  []string
	}{{types.EventOrderAscending, ids}, {types.EventOrderDescending, reversed}} {
		for _, limit := range []int{0, 1, 7, 61} {
			var got []string
			key := ""
			for {
				events, next, err := s.SearchEvents(ctx, start, end, []string{"user.login"}, limit, tc.order, key)
				require.NoError(t, err)
				for _, event := range events {
					got = append(got, event.GetID())
				}
				if key = next; key == "" {
					break
				}
				require.Len(t, events, limit)
			}
			require.Equal(t, tc.want, got, "order %d, limit %d", tc.order, limit)
		}
	}
	events, _, err := s.SearchEvents(ctx, start, start, nil, 0, types.EventOrderDescending, "")
	require.NoError(t, err)
	require.Len(t, events, 3, "both ends are included")
	_, _, err = s.SearchEvents(ctx, start, end, nil, 0, types.EventOrderAscending, "nonsense")
	require.True(t, trace.IsBadParameter(err))

	emit("of-1970", time.Unix(1, 0), "user.login")
	events, _, err = s.SearchEvents(ctx, time.Time{}, end, []string{"user.login"}, 0, types.EventOrderDescending, "")
	require.NoError(t, err)
	require.Len(t, events, len(ids)+1)
	require.Equal(t, "of-1970", events[len(ids)].GetID(), "a host's clock was never set")

	clock.Advance(eventsKept)
	events, _, err = s.SearchEvents(ctx, time.Time{}, end.Add(eventsKept), nil, 0, types.EventOrderDescending, "")
	require.NoError(t, err)
	require.Empty(t, events, "events are kept for a year")
}

// TestRefusedStrangers: what hosts tell of those whom nobody knows, anybody can
// cause, and it does not stay for long.
func TestRefusedStrangers(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(today())
	s := open(t, Config{Clock: clock})
	for _, user := range []string{"", "alice"} {
		require.NoError(t, s.EmitAuditEvent(ctx, &apievents.AuthAttempt{
			Metadata: apievents.Metadata{Type: "auth", Code: "T3007W"}, UserMetadata: apievents.UserMetadata{User: user, Login: "root"},
		}))
	}
	clock.Advance(strangersEventsKept)
	events, _, err := s.SearchEvents(ctx, time.Time{}, clock.Now(), []string{"auth"}, 0, types.EventOrderDescending, "")
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, "alice", events[0].(*apievents.AuthAttempt).User)
}

func TestLargeEventsAreCutAndPaged(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{})
	for range 60 {
		require.NoError(t, s.EmitAuditEvent(ctx, &apievents.Exec{
			Metadata:        apievents.Metadata{Type: "exec", Code: "T3002I"},
			CommandMetadata: apievents.CommandMetadata{Command: strings.Repeat("x", 1<<20)},
		}))
	}
	total, key := 0, ""
	for {
		events, next, err := s.SearchEvents(ctx, time.Time{}, time.Now(), []string{"exec"}, 0, types.EventOrderAscending, key)
		require.NoError(t, err)
		size := 0
		for _, event := range events {
			size += event.Size()
		}
		require.Less(t, size, 3<<20, "gRPC clients take 4 MB")
		total += len(events)
		if key = next; key == "" {
			break
		}
	}
	require.Equal(t, 60, total)
}

func TestWatcher(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewRealClock()
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, Config{DataDir: dir, Clock: clock})
	require.NoError(t, s.EnsurePresets(ctx))
	other := open(t, Config{DataDir: dir, Clock: clock})

	_, err := s.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{{Kind: types.KindApp}}})
	require.True(t, trace.IsNotImplemented(err), "%v", err)
	_, err = s.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{{Kind: types.KindCertAuthority, LoadSecrets: true}}})
	require.True(t, trace.IsNotImplemented(err), "%v", err)

	w, err := s.NewWatcher(ctx, types.Watch{
		AllowPartialSuccess: true,
		Kinds: []types.WatchKind{
			{Kind: types.KindUser}, {Kind: types.KindApp}, {Kind: types.KindRole, Name: "ops"}, {Kind: types.KindCertAuthority},
			{Kind: types.KindNode}, {Kind: types.KindLock, Filter: map[string]string{"user": "alice"}},
			{Kind: types.KindClusterNetworkingConfig},
		},
	})
	require.NoError(t, err)
	next := func() types.Event {
		t.Helper()
		select {
		case event := <-w.Events():
			return event
		case <-w.Done():
			require.Fail(t, "the watcher ended", "%v", w.Error())
		case <-time.After(30 * time.Second):
			require.Fail(t, "no event came")
		}
		return types.Event{}
	}
	event := next()
	require.Equal(t, types.OpInit, event.Type)
	require.Len(t, event.Resource.(types.WatchStatus).GetKinds(), 6)

	_, err = other.CreateUser(ctx, newUser(t, "a:b", "access"))
	require.NoError(t, err)
	event = next()
	require.Equal(t, types.OpPut, event.Type)
	require.Equal(t, "a:b", event.Resource.GetName())
	require.NotEmpty(t, event.Resource.GetRevision())

	// Another role, and a lock of another user, are none of the watcher's.
	_, err = other.CreateRole(ctx, &types.RoleV6{Version: types.V7, Metadata: types.Metadata{Name: "dev"}})
	require.NoError(t, err)
	lock, err := types.NewLock("l", types.LockSpecV2{Target: types.LockTarget{User: "bob"}})
	require.NoError(t, err)
	require.NoError(t, other.UpsertLock(ctx, lock))
	require.NoError(t, other.DeleteUser(ctx, "a:b"))
	event = next()
	require.Equal(t, types.OpDelete, event.Type)
	require.Equal(t, types.KindUser, event.Resource.GetKind())
	require.Equal(t, "a:b", event.Resource.GetName())

	// A registration that is not renewed is told of as a removal.
	short := node("n", "web", "192.0.2.1:22")
	short.SetExpiry(time.Now().Add(time.Second).UTC())
	require.NoError(t, other.UpsertNode(ctx, short))
	require.Equal(t, types.OpPut, next().Type)
	event = next()
	require.Equal(t, types.OpDelete, event.Type)
	require.Equal(t, types.KindNode, event.Resource.GetKind())
	require.Equal(t, "n", event.Resource.GetName())

	authority, err := s.store.Get(ctx, authorityKey(types.UserCA, s.clusterName))
	require.NoError(t, err)
	_, err = s.store.Put(ctx, authority)
	require.NoError(t, err)
	event = next()
	ca := event.Resource.(types.CertAuthority)
	require.NotEmpty(t, ca.GetActiveKeys().SSH[0].PublicKey)
	require.Empty(t, ca.GetActiveKeys().SSH[0].PrivateKey, "a watcher shows private keys")

	require.NoError(t, w.Close())
	<-w.Done()
	require.Error(t, w.Error())
}
