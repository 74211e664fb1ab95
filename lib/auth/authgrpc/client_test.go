// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Teleport's own client against the server, method by method: nothing here but
// the start of the server, which is in fixture_test.go, is ours.

package authgrpc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/defaults"
	usersv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/users/v1"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"
)

func TestClientPing(t *testing.T) {
	f := newFixture(t)
	c := f.connect(t, f.admin(t))
	ping, err := c.Ping(t.Context())
	require.NoError(t, err)
	require.Equal(t, testCluster, ping.ClusterName)
	require.Equal(t, "1.2.3", ping.ServerVersion)
	name, err := c.GetDomainName(t.Context())
	require.NoError(t, err)
	require.Equal(t, testCluster, name)
	ca, err := c.GetClusterCACert(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(ca.TLSCA), "BEGIN CERTIFICATE")
}

func TestClientUsers(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))

	alice, err := types.NewUser("alice")
	require.NoError(t, err)
	alice.SetRoles([]string{"access"})
	alice.SetLogins([]string{"bob", "root"})
	created, err := c.CreateUser(ctx, alice)
	require.NoError(t, err)
	require.Equal(t, []string{"bob", "root"}, created.GetLogins())
	_, err = c.CreateUser(ctx, alice)
	require.True(t, trace.IsAlreadyExists(err), "%v", err)

	got, err := c.GetUser(ctx, "alice", false)
	require.NoError(t, err)
	require.Equal(t, created.GetRevision(), got.GetRevision())
	_, err = c.GetUser(ctx, "nobody", false)
	require.True(t, trace.IsNotFound(err), "%v", err)
	_, err = c.GetUser(ctx, "alice", true)
	require.True(t, trace.IsNotImplemented(err), "%v", err)

	stale := *got.(*types.UserV2)
	got.SetLogins([]string{"deploy"})
	_, err = c.UpdateUser(ctx, got)
	require.NoError(t, err)
	_, err = c.UpdateUser(ctx, &stale)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	got.SetRoles([]string{"access", "no-such-role"})
	_, err = c.UpsertUser(ctx, got)
	require.True(t, trace.IsNotFound(err), "%v", err)
	got.SetRoles([]string{"auditor"})
	_, err = c.UpsertUser(ctx, got)
	require.NoError(t, err)

	for i := range 4 {
		other, err := types.NewUser(fmt.Sprint("user", i))
		require.NoError(t, err)
		other.SetRoles([]string{"access"})
		_, err = c.UpsertUser(ctx, other)
		require.NoError(t, err)
	}
	all, err := c.GetUsers(ctx, false)
	require.NoError(t, err)
	require.Len(t, all, 5)
	page, err := c.ListUsers(ctx, &usersv1.ListUsersRequest{PageSize: 3})
	require.NoError(t, err)
	require.Len(t, page.Users, 3)
	page, err = c.ListUsers(ctx, &usersv1.ListUsersRequest{PageSize: 3, PageToken: page.NextPageToken})
	require.NoError(t, err)
	require.Len(t, page.Users, 2)
	require.Empty(t, page.NextPageToken)
	page, err = c.ListUsers(ctx, &usersv1.ListUsersRequest{Filter: &types.UserFilter{SearchKeywords: []string{"user2"}}})
	require.NoError(t, err)
	require.Len(t, page.Users, 1)

	require.NoError(t, c.DeleteUser(ctx, "alice"))
	require.True(t, trace.IsNotFound(c.DeleteUser(ctx, "alice")))
	_, err = c.CreateUser(ctx, &types.UserV2{})
	require.True(t, trace.IsBadParameter(err), "%v", err)
}

func TestClientRoles(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))

	role, err := types.NewRole("ops", types.RoleSpecV6{Allow: types.RoleConditions{
		Logins:     []string{"{{internal.logins}}"},
		NodeLabels: types.Labels{"env": []string{"prod"}},
	}})
	require.NoError(t, err)
	created, err := c.CreateRole(ctx, role)
	require.NoError(t, err)
	_, err = c.CreateRole(ctx, role)
	require.True(t, trace.IsAlreadyExists(err), "%v", err)
	created.SetLogins(types.Allow, []string{"deploy"})
	updated, err := c.UpdateRole(ctx, created)
	require.NoError(t, err)
	_, err = c.UpdateRole(ctx, role)
	require.NoError(t, err)
	_, err = c.UpdateRole(ctx, updated)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	_, err = c.UpsertRole(ctx, updated)
	require.NoError(t, err)
	got, err := c.GetRole(ctx, "ops")
	require.NoError(t, err)
	require.Equal(t, []string{"deploy"}, got.GetLogins(types.Allow))
	all, err := c.GetRoles(ctx)
	require.NoError(t, err)
	require.Len(t, all, 4)
	page, err := c.ListRoles(ctx, &proto.ListRolesRequest{Limit: 3})
	require.NoError(t, err)
	require.Len(t, page.Roles, 3)
	page, err = c.ListRoles(ctx, &proto.ListRolesRequest{Limit: 3, StartKey: page.NextKey})
	require.NoError(t, err)
	require.Len(t, page.Roles, 1)
	role.SetLogins(types.Allow, []string{"{{unknown.thing}}"})
	_, err = c.UpsertRole(ctx, role)
	require.True(t, trace.IsBadParameter(err), "%v", err)
	require.NoError(t, c.DeleteRole(ctx, "ops"))
	_, err = c.GetRole(ctx, "ops")
	require.True(t, trace.IsNotFound(err), "%v", err)
}

func TestClientTokensAndLocks(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))

	token, err := types.NewProvisionToken("0123456789abcdef", types.SystemRoles{types.RoleNode}, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.NoError(t, c.CreateToken(ctx, token))
	require.True(t, trace.IsAlreadyExists(c.CreateToken(ctx, token)))
	require.NoError(t, c.UpsertToken(ctx, token))
	got, err := c.GetToken(ctx, "0123456789abcdef")
	require.NoError(t, err)
	require.Equal(t, types.SystemRoles{types.RoleNode}, got.GetRoles())
	all, err := c.GetTokens(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.NoError(t, c.DeleteToken(ctx, "0123456789abcdef"))
	_, err = c.GetToken(ctx, "0123456789abcdef")
	require.True(t, trace.IsNotFound(err), "%v", err)

	lock, err := types.NewLock("l1", types.LockSpecV2{Target: types.LockTarget{User: "alice"}, Message: "on leave"})
	require.NoError(t, err)
	require.NoError(t, c.UpsertLock(ctx, lock))
	kept, err := c.GetLock(ctx, "l1")
	require.NoError(t, err)
	require.Equal(t, "on leave", kept.Message())
	require.NotEmpty(t, kept.CreatedBy())
	locks, err := c.GetLocks(ctx, true, types.LockTarget{User: "bob"})
	require.NoError(t, err)
	require.Empty(t, locks)
	locks, err = c.GetLocks(ctx, true, types.LockTarget{User: "alice"})
	require.NoError(t, err)
	require.Len(t, locks, 1)
	require.NoError(t, c.DeleteLock(ctx, "l1"))
	require.True(t, trace.IsNotFound(c.DeleteLock(ctx, "l1")))
}

func newNode(t *testing.T, id, name string, labels map[string]string) types.Server {
	t.Helper()
	node, err := types.NewNode(id, types.SubKindTeleportNode, types.ServerSpecV2{Hostname: name, Addr: "192.0.2.1:3022"}, labels)
	require.NoError(t, err)
	return node
}

func TestClientNodes(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))
	const count = 250
	for i := range count {
		env := []string{"prod", "dev"}[i%2]
		node := newNode(t, fmt.Sprintf("id-%03d", i), fmt.Sprintf("web-%03d", count-i), map[string]string{"env": env})
		node.SetExpiry(time.Now().Add(time.Hour))
		alive, err := c.UpsertNode(ctx, node)
		require.NoError(t, err)
		require.Equal(t, node.GetName(), alive.Name)
	}
	node, err := c.GetNode(ctx, defaults.Namespace, "id-007")
	require.NoError(t, err)
	require.Equal(t, "web-243", node.GetHostname())
	_, err = c.GetNode(ctx, defaults.Namespace, "id-999")
	require.True(t, trace.IsNotFound(err), "%v", err)
	all, err := c.GetNodes(ctx, defaults.Namespace)
	require.NoError(t, err)
	require.Len(t, all, count)

	// Pages of every size give each node once, in order.
	for _, tc := range []struct {
		name string
		req  proto.ListResourcesRequest
		want int
		less func(a, b types.Server) bool
	}{
		{"by name", proto.ListResourcesRequest{Limit: 60}, count, func(a, b types.Server) bool { return a.GetName() < b.GetName() }},
		{"with labels", proto.ListResourcesRequest{Limit: 7, Labels: map[string]string{"env": "prod"}}, count / 2, func(a, b types.Server) bool { return a.GetName() < b.GetName() }},
		{
			"by host name, backwards", proto.ListResourcesRequest{Limit: 100, SortBy: types.SortBy{Field: types.ResourceSpecHostname, IsDesc: true}}, count,
			func(a, b types.Server) bool { return a.GetHostname() > b.GetHostname() },
		},
		{"with a word", proto.ListResourcesRequest{Limit: 10, SearchKeywords: []string{"web-01"}}, 10, func(a, b types.Server) bool { return a.GetName() < b.GetName() }},
		{"all at once", proto.ListResourcesRequest{}, count, func(a, b types.Server) bool { return a.GetName() < b.GetName() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := tc.req
			req.ResourceType, req.NeedTotalCount = types.KindNode, true
			var found []types.Server
			for {
				page, err := c.ListResources(ctx, req)
				require.NoError(t, err)
				require.Equal(t, tc.want, page.TotalCount)
				for _, resource := range page.Resources {
					found = append(found, resource.(types.Server))
				}
				if req.StartKey = page.NextKey; req.StartKey == "" {
					break
				}
				require.Len(t, page.Resources, int(tc.req.Limit))
			}
			require.Len(t, found, tc.want)
			for i := 1; i < len(found); i++ {
				require.True(t, tc.less(found[i-1], found[i]))
			}
		})
	}
	_, err = c.ListResources(ctx, proto.ListResourcesRequest{ResourceType: types.KindApp})
	require.True(t, trace.IsNotImplemented(err), "%v", err)
	_, err = c.ListResources(ctx, proto.ListResourcesRequest{ResourceType: types.KindNode, PredicateExpression: "true"})
	require.True(t, trace.IsNotImplemented(err), "%v", err)

	// What is not renewed is gone.
	short := newNode(t, "short", "short", nil)
	short.SetExpiry(time.Now().Add(300 * time.Millisecond))
	_, err = c.UpsertNode(ctx, short)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := c.GetNode(ctx, defaults.Namespace, "short")
		return trace.IsNotFound(err)
	}, 20*time.Second, 50*time.Millisecond)

	require.NoError(t, c.DeleteNode(ctx, defaults.Namespace, "id-000"))
	require.True(t, trace.IsNotFound(c.DeleteNode(ctx, defaults.Namespace, "id-000")))
	require.NoError(t, c.DeleteAllNodes(ctx, defaults.Namespace))
	all, err = c.GetNodes(ctx, defaults.Namespace)
	require.NoError(t, err)
	require.Empty(t, all)
}

func TestClientAuthorities(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))
	id := types.CertAuthID{Type: types.HostCA, DomainName: testCluster}

	public, err := c.GetCertAuthority(ctx, id, false)
	require.NoError(t, err)
	require.Empty(t, public.GetActiveKeys().SSH[0].PrivateKey)
	require.Empty(t, public.GetActiveKeys().TLS[0].Key)
	whole, err := c.GetCertAuthority(ctx, id, true)
	require.NoError(t, err)
	require.NotEmpty(t, whole.GetActiveKeys().TLS[0].Key)
	_, err = c.GetCertAuthority(ctx, types.CertAuthID{Type: types.HostCA, DomainName: "other"}, false)
	require.True(t, trace.IsNotFound(err), "%v", err)
	all, err := c.GetCertAuthorities(ctx, types.UserCA, false)
	require.NoError(t, err)
	require.Len(t, all, 1)

	back, err := c.UpsertCertAuthority(ctx, whole)
	require.NoError(t, err)
	require.Empty(t, back.GetActiveKeys().TLS[0].Key)
	require.True(t, trace.IsBadParameter(c.DeleteCertAuthority(ctx, id)), "the cluster's own authority was removed")
	require.NoError(t, c.RotateCertAuthority(ctx, types.RotateRequest{Type: types.UserCA, TargetPhase: types.RotationPhaseInit, Mode: types.RotationModeManual}))
	rotated, err := c.GetCertAuthority(ctx, types.CertAuthID{Type: types.UserCA, DomainName: testCluster}, false)
	require.NoError(t, err)
	require.Equal(t, types.RotationPhaseInit, rotated.GetRotation().Phase)
}

func TestClientSettings(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))

	preference, err := c.GetAuthPreference(ctx)
	require.NoError(t, err)
	require.True(t, preference.IsSecondFactorTOTPAllowed())
	preference, err = c.UpsertAuthPreference(ctx, &types.AuthPreferenceV2{Spec: types.AuthPreferenceSpecV2{SecondFactor: constants.SecondFactorOff}})
	require.NoError(t, err)
	require.False(t, preference.IsSecondFactorEnabled())
	require.NoError(t, c.ResetAuthPreference(ctx))
	_, err = c.UpdateAuthPreference(ctx, preference)
	require.True(t, trace.IsCompareFailed(err), "%v", err)
	preference, err = c.GetAuthPreference(ctx)
	require.NoError(t, err)
	require.True(t, preference.IsSecondFactorTOTPAllowed())

	_, err = c.GetClusterNetworkingConfig(ctx)
	require.NoError(t, err)
	recording, err := c.GetSessionRecordingConfig(ctx)
	require.NoError(t, err)
	require.Equal(t, types.RecordOff, recording.GetMode())
	_, err = c.GetClusterAuditConfig(ctx)
	require.NoError(t, err)
}

func TestClientCertificates(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))

	// A user's own, not beyond the certificate at hand, and nobody else's.
	alice := f.connect(t, user(t, f.auth, "alice", time.Hour, "access"))
	_ = user(t, f.auth, "bob", time.Hour, "access")
	k := newKeys(t)
	request := proto.UserCertsRequest{Username: "alice", SSHPublicKey: k.ssh, TLSPublicKey: k.tls, Expires: time.Now().Add(20 * time.Hour)}
	certs, err := alice.GenerateUserCerts(ctx, request)
	require.NoError(t, err)
	again := f.connect(t, k.credentials(t, certs))
	current, err := again.GetCurrentUser(ctx)
	require.NoError(t, err)
	require.Equal(t, "alice", current.GetName())
	roles, err := again.GetCurrentUserRoles(ctx)
	require.NoError(t, err)
	require.Len(t, roles, 1)
	require.WithinDuration(t, time.Now().Add(time.Hour), notAfter(t, certs.TLS), time.Minute)
	request.Username = "bob"
	_, err = alice.GenerateUserCerts(ctx, request)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	certs, err = admin.GenerateUserCerts(ctx, request)
	require.NoError(t, err)
	require.NotEmpty(t, certs.SSH)
	request.Username = "nobody"
	_, err = admin.GenerateUserCerts(ctx, request)
	require.True(t, trace.IsNotFound(err), "%v", err)

	// A host's own, for its role.
	hostRequest := &proto.HostCertsRequest{HostID: uuid.NewString(), NodeName: "web", Role: types.RoleNode, PublicSSHKey: k.ssh, PublicTLSKey: k.tls}
	certs, err = f.auth.GenerateHostCerts(ctx, hostRequest)
	require.NoError(t, err)
	node := f.connect(t, k.credentials(t, certs))
	certs, err = node.GenerateHostCerts(ctx, hostRequest)
	require.NoError(t, err)
	_, err = f.connect(t, k.credentials(t, certs)).Ping(ctx)
	require.NoError(t, err)
	for _, tc := range []struct {
		name   string
		change func(*proto.HostCertsRequest)
		is     func(error) bool
	}{
		{"another host", func(r *proto.HostCertsRequest) { r.HostID = uuid.NewString() }, trace.IsAccessDenied},
		{"other keys", func(r *proto.HostCertsRequest) { r.PublicSSHKey = newKeys(t).ssh }, trace.IsAccessDenied},
		{"another role", func(r *proto.HostCertsRequest) { r.Role = types.RoleAuth }, trace.IsAccessDenied},
		{"named as the auth service", func(r *proto.HostCertsRequest) { r.DNSNames = []string{constants.APIDomain} }, trace.IsBadParameter},
		{"several roles", func(r *proto.HostCertsRequest) { r.SystemRoles = []types.SystemRole{types.RoleAuth} }, trace.IsBadParameter},
	} {
		changed := *hostRequest
		tc.change(&changed)
		_, err := node.GenerateHostCerts(ctx, &changed)
		require.True(t, tc.is(err), "%s: %v", tc.name, err)
	}
}

func TestClientJoin(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	token, err := types.NewProvisionToken("0123456789abcdef", types.SystemRoles{types.RoleNode}, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.NoError(t, admin.CreateToken(ctx, token))

	joining := f.connect(t, f.anonymous(t))
	k := newKeys(t)
	request := &types.RegisterUsingTokenRequest{
		HostID: uuid.NewString(), NodeName: "web", Role: types.RoleNode, Token: "0123456789abcdef",
		PublicSSHKey: k.ssh, PublicTLSKey: k.tls,
	}
	certs, err := joining.RegisterUsingToken(ctx, request)
	require.NoError(t, err)
	node := f.connect(t, k.credentials(t, certs))
	_, err = node.UpsertNode(ctx, newNode(t, request.HostID, "web", nil))
	require.NoError(t, err)

	other := *request
	other.HostID = uuid.NewString()
	_, err = joining.RegisterUsingToken(ctx, &other)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	unknown := *request
	unknown.Token = "ffffffffffffffff"
	_, err = joining.RegisterUsingToken(ctx, &unknown)
	require.True(t, trace.IsAccessDenied(err), "%v", err)

	// Nothing else is open without a certificate.
	_, err = joining.Ping(ctx)
	require.NoError(t, err)
	_, err = joining.GetNodes(ctx, defaults.Namespace)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	_, err = joining.GetUsers(ctx, false)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	_, err = joining.GetApps(ctx)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	_, err = joining.GetCertAuthority(ctx, types.CertAuthID{Type: types.HostCA, DomainName: testCluster}, false)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
}

func TestClientEvents(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	admin := f.connect(t, f.admin(t))
	credentials, id := host(t, f.auth, types.RoleNode)
	node := f.connect(t, credentials)

	start := &apievents.SessionStart{
		Metadata:        apievents.Metadata{Type: "session.start", Code: "T2000I", ID: uuid.NewString(), Time: time.Now().UTC()},
		UserMetadata:    apievents.UserMetadata{User: "alice", Login: "bob"},
		SessionMetadata: apievents.SessionMetadata{SessionID: uuid.NewString()},
		ServerMetadata:  apievents.ServerMetadata{ServerID: id, ServerLabels: map[string]string{"auditd/ses": "12"}},
	}
	require.NoError(t, node.EmitAuditEvent(ctx, start))
	require.NoError(t, node.EmitAuditEvent(ctx, start), "an event that is sent again")
	found, next, err := admin.SearchEvents(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), defaults.Namespace, []string{"session.start"}, 10, types.EventOrderDescending, "")
	require.NoError(t, err)
	require.Empty(t, next)
	require.Len(t, found, 1)
	got := found[0].(*apievents.SessionStart)
	require.Equal(t, "12", got.ServerLabels["auditd/ses"])
	require.Equal(t, testCluster, got.ClusterName)
	require.Equal(t, start.Time, got.Time)
	loose, _, err := admin.SearchUnstructuredEvents(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), defaults.Namespace, []string{"session.start"}, 10, types.EventOrderAscending, "")
	require.NoError(t, err)
	require.Len(t, loose, 1)
	require.Equal(t, start.ID, loose[0].Id)

	// A failed authentication names no server; the host may tell of it.
	require.NoError(t, node.EmitAuditEvent(ctx, &apievents.AuthAttempt{Metadata: apievents.Metadata{Type: "auth", Code: "T3007W"}}))
	// About others, and of the cluster, a node may say nothing.
	start.ServerID, start.ID = "other", uuid.NewString()
	err = node.EmitAuditEvent(ctx, start)
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	err = node.EmitAuditEvent(ctx, &apievents.UserLogin{Metadata: apievents.Metadata{Type: "user.login", Code: "T1000I"}})
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	err = node.EmitAuditEvent(ctx, &apievents.AuthAttempt{Metadata: apievents.Metadata{Type: "user.login", Code: "T1000I"}})
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	// Nor in the dress of what it may write: searches go by type and code.
	for _, metadata := range []apievents.Metadata{{Type: "user.login", Code: "T1000I"}, {Type: "session.start", Code: "T1000I"}, {Type: "session.end", Code: "T2004I"}} {
		err = node.EmitAuditEvent(ctx, &apievents.SessionStart{Metadata: metadata})
		require.True(t, trace.IsAccessDenied(err), "%v", err)
	}

	for i := range 30 {
		require.NoError(t, admin.EmitAuditEvent(ctx, &apievents.UserLogin{Metadata: apievents.Metadata{
			Type: "user.login", Code: "T1000I", ID: fmt.Sprintf("e%02d", i), Time: time.Now().Add(-time.Duration(i) * 10 * time.Minute).UTC(),
		}}))
	}
	var ids []string
	key := ""
	for {
		page, next, err := admin.SearchEvents(ctx, time.Now().Add(-24*time.Hour), time.Now(), defaults.Namespace, []string{"user.login"}, 7, types.EventOrderDescending, key)
		require.NoError(t, err)
		for _, event := range page {
			ids = append(ids, event.GetID())
		}
		if key = next; key == "" {
			break
		}
	}
	require.Len(t, ids, 30)
	require.IsIncreasing(t, ids)

	// Who did it is in the events of the cluster.
	editor := f.connect(t, user(t, f.auth, "erin", time.Hour, "access", "editor"))
	created, err := types.NewUser("new")
	require.NoError(t, err)
	created.SetRoles([]string{"access"})
	_, err = editor.CreateUser(ctx, created)
	require.NoError(t, err)
	found, _, err = editor.SearchEvents(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), defaults.Namespace, []string{"user.create"}, 10, types.EventOrderAscending, "")
	require.NoError(t, err)
	require.Len(t, found, 2)
	made := found[1].(*apievents.UserCreate)
	require.Equal(t, "new", made.Name)
	require.Equal(t, "erin", made.User)
	require.Contains(t, made.RemoteAddr, "127.0.0.1:")
}

func TestClientWatcher(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	c := f.connect(t, f.admin(t))
	w, err := c.NewWatcher(ctx, types.Watch{Kinds: []types.WatchKind{
		{Kind: types.KindUser}, {Kind: types.KindNode}, {Kind: types.KindCertAuthority}, {Kind: types.KindLock}, {Kind: types.KindToken},
	}})
	require.NoError(t, err)
	require.Equal(t, types.OpInit, nextEvent(t, w).Type)

	object, err := types.NewUser("alice")
	require.NoError(t, err)
	object.SetRoles([]string{"access"})
	_, err = c.CreateUser(ctx, object)
	require.NoError(t, err)
	event := nextEvent(t, w)
	require.Equal(t, types.OpPut, event.Type)
	require.Equal(t, "alice", event.Resource.(types.User).GetName())
	require.NoError(t, c.DeleteUser(ctx, "alice"))
	event = nextEvent(t, w)
	require.Equal(t, types.OpDelete, event.Type)
	require.Equal(t, types.KindUser, event.Resource.GetKind())

	node := newNode(t, "n", "web", nil)
	node.SetExpiry(time.Now().Add(time.Second))
	_, err = c.UpsertNode(ctx, node)
	require.NoError(t, err)
	require.Equal(t, "web", nextEvent(t, w).Resource.(types.Server).GetHostname())
	event = nextEvent(t, w)
	require.Equal(t, types.OpDelete, event.Type)
	require.Equal(t, "n", event.Resource.GetName())

	require.NoError(t, c.RotateCertAuthority(ctx, types.RotateRequest{Type: types.UserCA, TargetPhase: types.RotationPhaseInit, Mode: types.RotationModeManual}))
	authority := nextEvent(t, w).Resource.(types.CertAuthority)
	require.Equal(t, types.RotationPhaseInit, authority.GetRotation().Phase)
	require.Empty(t, authority.GetActiveKeys().SSH[0].PrivateKey)
	require.NoError(t, w.Close())

	_, err = watchOnce(t, c, types.KindApp)
	require.True(t, trace.IsNotImplemented(err), "%v", err)
}

// watchOnce returns the first event of a new watcher, or why it ended.
func watchOnce(t *testing.T, c *client.Client, kind string) (types.Event, error) {
	t.Helper()
	w, err := c.NewWatcher(t.Context(), types.Watch{Kinds: []types.WatchKind{{Kind: kind}}})
	if err != nil {
		return types.Event{}, err
	}
	defer w.Close() //nolint:errcheck // the test has what it wants
	select {
	case event := <-w.Events():
		return event, nil
	case <-w.Done():
		return types.Event{}, w.Error()
	case <-time.After(20 * time.Second):
		require.Fail(t, "the watcher says nothing")
	}
	return types.Event{}, nil
}

func nextEvent(t *testing.T, w types.Watcher) types.Event {
	t.Helper()
	select {
	case event := <-w.Events():
		return event
	case <-w.Done():
		require.Fail(t, "the watcher ended", "%v", w.Error())
	case <-time.After(20 * time.Second):
		require.Fail(t, "no event came")
	}
	return types.Event{}
}

func TestClientNotImplemented(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	alice := f.connect(t, user(t, f.auth, "alice", time.Hour, "access"))
	for _, c := range []*client.Client{f.connect(t, f.admin(t)), alice} {
		_, err := c.GetApps(ctx)
		require.True(t, trace.IsNotImplemented(err), "%v", err)
		_, err = c.GetRemoteClusters(ctx)
		require.True(t, trace.IsNotImplemented(err), "%v", err)
		_, err = c.ListNotifications(ctx, nil)
		require.True(t, trace.IsNotImplemented(err), "%v", err)
		_, err = c.GetActiveSessionTrackers(ctx)
		require.True(t, trace.IsNotImplemented(err), "%v", err)
	}
}
