// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Who may call what: one table. A method that is not in it is for Admin alone,
// and answers the others as one that does not exist.

package authgrpc

import (
	"slices"

	auditlogv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/auditlog/v1"
	clusterconfigv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/clusterconfig/v1"
	trustv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/trust/v1"
	usersv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/users/v1"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth/login"
)

// The methods of the services whose names the api module does not declare.
const (
	authMethods = "/proto.AuthService/"
	joinMethods = "/proto.JoinService/"
)

// rule says who may call one method. Admin always may.
type rule struct {
	// anonymous lets connections without a certificate.
	anonymous bool
	// hosts are the roles of the system that may.
	hosts []types.SystemRole
	// everyUser lets users, whatever their roles: the method itself looks at
	// what it is asked for.
	everyUser bool
	// resource and verbs are what a user's roles must allow, all of them. Users
	// may not where resource is empty.
	resource string
	verbs    []string
}

// check returns trace.AccessDenied for who may not, and trace.NotImplemented
// where the method is not in the table: there is nothing behind it.
func (r rule) check(c *caller, method string, known bool) error {
	switch {
	case c == nil && known && r.anonymous:
		return nil
	case c == nil:
		return trace.AccessDenied("there is no client certificate: log in, or join the cluster, first")
	case c.isAdmin():
		return nil
	case !known:
		return trace.NotImplemented("%s is not implemented", method)
	case !c.isUser():
		if slices.Contains(r.hosts, c.role) {
			return nil
		}
		return trace.AccessDenied("%s may not call %s", c, method)
	case r.everyUser:
		return nil
	case r.resource == "":
		return trace.AccessDenied("%s may not call %s", c, method)
	}
	return c.may(r.resource, r.verbs...)
}

// may returns trace.AccessDenied unless the caller's roles allow all the verbs.
// Admin may, and other hosts may not.
func (c *caller) may(resource string, verbs ...string) error {
	if c.isAdmin() {
		return nil
	}
	if !c.isUser() {
		return trace.AccessDenied("%s may not use resources of the kind %q so", c, resource)
	}
	for _, verb := range verbs {
		if err := c.checker.CheckRule(resource, verb); err != nil {
			return trace.AccessDenied("%s: %v", c, err)
		}
	}
	return nil
}

func rules() map[string]rule {
	everyHost := []types.SystemRole{types.RoleAuth, types.RoleProxy, types.RoleNode}
	proxies := []types.SystemRole{types.RoleAuth, types.RoleProxy}

	users := func(resource string, verbs ...string) rule { return rule{resource: resource, verbs: verbs} }
	hosts := func(roles []types.SystemRole, resource string, verbs ...string) rule {
		return rule{hosts: roles, resource: resource, verbs: verbs}
	}
	// everybody is every host and every user.
	everybody := rule{hosts: everyHost, everyUser: true}

	return map[string]rule{
		authMethods + "Ping":          {anonymous: true, hosts: everyHost, everyUser: true},
		authMethods + "GetDomainName": everybody,
		// What is public of the host authority.
		authMethods + "GetClusterCACert": everybody,

		joinMethods + "RegisterUsingToken": {anonymous: true, hosts: everyHost, everyUser: true},

		usersv1.UsersService_GetUser_FullMethodName:    {everyUser: true}, // oneself, else as the roles say
		usersv1.UsersService_ListUsers_FullMethodName:  users(types.KindUser, types.VerbList, types.VerbRead),
		usersv1.UsersService_CreateUser_FullMethodName: users(types.KindUser, types.VerbCreate),
		usersv1.UsersService_UpdateUser_FullMethodName: users(types.KindUser, types.VerbUpdate),
		usersv1.UsersService_UpsertUser_FullMethodName: users(types.KindUser, types.VerbCreate, types.VerbUpdate),
		usersv1.UsersService_DeleteUser_FullMethodName: users(types.KindUser, types.VerbDelete),

		authMethods + "GetCurrentUserRoles": {everyUser: true},
		authMethods + "GetRole":             {hosts: everyHost, everyUser: true}, // one's own, else as the roles say
		authMethods + "ListRoles":           hosts(everyHost, types.KindRole, types.VerbList, types.VerbRead),
		authMethods + "CreateRole":          users(types.KindRole, types.VerbCreate),
		authMethods + "UpdateRole":          users(types.KindRole, types.VerbUpdate),
		authMethods + "UpsertRoleV2":        users(types.KindRole, types.VerbCreate, types.VerbUpdate),
		authMethods + "DeleteRole":          users(types.KindRole, types.VerbDelete),

		authMethods + "GetToken":      users(types.KindToken, types.VerbRead),
		authMethods + "GetTokens":     users(types.KindToken, types.VerbList, types.VerbRead),
		authMethods + "CreateTokenV2": users(types.KindToken, types.VerbCreate),
		authMethods + "UpsertTokenV2": users(types.KindToken, types.VerbCreate, types.VerbUpdate),
		authMethods + "DeleteToken":   users(types.KindToken, types.VerbDelete),

		// A node or a proxy for itself; users see the nodes that their roles show,
		// and nodes no nodes, but where the proxies are.
		authMethods + "UpsertNode":     hosts([]types.SystemRole{types.RoleNode, types.RoleProxy}, types.KindNode, types.VerbCreate, types.VerbUpdate),
		authMethods + "GetNode":        {hosts: proxies, everyUser: true},
		authMethods + "ListResources":  everybody,
		authMethods + "DeleteNode":     users(types.KindNode, types.VerbDelete),
		authMethods + "DeleteAllNodes": users(types.KindNode, types.VerbDelete),

		authMethods + "GetLock":    hosts(everyHost, types.KindLock, types.VerbRead),
		authMethods + "GetLocks":   hosts(everyHost, types.KindLock, types.VerbList, types.VerbRead),
		authMethods + "UpsertLock": users(types.KindLock, types.VerbCreate, types.VerbUpdate),
		authMethods + "DeleteLock": users(types.KindLock, types.VerbDelete),

		// Everybody for oneself: a user until the certificate at hand expires, a
		// host with its own id and role.
		authMethods + "GenerateUserCerts": {everyUser: true},
		authMethods + "GenerateHostCerts": {hosts: everyHost},

		// Without private keys, whoever asks: everybody checks certificates by them.
		// With them Admin alone.
		trustv1.TrustService_GetCertAuthority_FullMethodName:   everybody,
		trustv1.TrustService_GetCertAuthorities_FullMethodName: everybody,
		// Whoever chooses an authority's keys can sign for Admin: Admin alone.
		trustv1.TrustService_UpsertCertAuthority_FullMethodName: {},
		trustv1.TrustService_DeleteCertAuthority_FullMethodName: users(types.KindCertAuthority, types.VerbDelete),
		trustv1.TrustService_RotateCertAuthority_FullMethodName: users(types.KindCertAuthority, types.VerbCreate, types.VerbUpdate),

		// How to log in and the like is no secret.
		clusterconfigv1.ClusterConfigService_GetAuthPreference_FullMethodName:          everybody,
		clusterconfigv1.ClusterConfigService_UpdateAuthPreference_FullMethodName:       users(types.KindClusterAuthPreference, types.VerbUpdate),
		clusterconfigv1.ClusterConfigService_UpsertAuthPreference_FullMethodName:       users(types.KindClusterAuthPreference, types.VerbUpdate),
		clusterconfigv1.ClusterConfigService_ResetAuthPreference_FullMethodName:        users(types.KindClusterAuthPreference, types.VerbUpdate),
		clusterconfigv1.ClusterConfigService_GetClusterNetworkingConfig_FullMethodName: everybody,
		clusterconfigv1.ClusterConfigService_GetSessionRecordingConfig_FullMethodName:  everybody,
		clusterconfigv1.ClusterConfigService_GetClusterAuditConfig_FullMethodName:      hosts(everyHost, types.KindClusterAuditConfig, types.VerbRead),
		authMethods + "GetClusterAuditConfig":                                          hosts(everyHost, types.KindClusterAuditConfig, types.VerbRead),

		// Hosts about themselves, and the kinds that they need.
		authMethods + "EmitAuditEvent": {hosts: everyHost},
		authMethods + "WatchEvents":    everybody,

		authMethods + "GetEvents": users(types.KindEvent, types.VerbList, types.VerbRead),
		auditlogv1.AuditLogService_GetUnstructuredEvents_FullMethodName: users(types.KindEvent, types.VerbList, types.VerbRead),

		authMethods + "CreateResetPasswordToken": users(types.KindUser, types.VerbUpdate),
		authMethods + "GetResetPasswordToken":    {hosts: proxies},
		authMethods + "CreateRegisterChallenge":  {hosts: proxies},
		authMethods + "ChangeUserAuthentication": {hosts: proxies},
		login.FullMethod:                         {hosts: proxies},
	}
}
