// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// proto.AuthService: what of Teleport's oldest service is implemented here. The
// table of rules has let the caller in already; what depends on the request is
// decided here.

package authgrpc

import (
	"context"
	"slices"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"google.golang.org/protobuf/types/known/emptypb"
)

type authService struct {
	*Server
	proto.UnimplementedAuthServiceServer
}

// as turns what the cluster returns into the message that goes out.
func as[T any](value any) (T, error) {
	message, ok := value.(T)
	if !ok {
		var none T
		return none, trace.BadParameter("a %T cannot be sent as a %T", value, none)
	}
	return message, nil
}

func sent[T any](value any, err error) (T, error) {
	if err != nil {
		var none T
		return none, trace.Wrap(err)
	}
	return as[T](value)
}

func nothing(err error) (*emptypb.Empty, error) {
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &emptypb.Empty{}, nil
}

// Ping says what the cluster is called, and how to reach it.
func (s *authService) Ping(ctx context.Context, _ *proto.PingRequest) (*proto.PingResponse, error) {
	preference, err := s.cfg.Auth.GetAuthPreference(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &proto.PingResponse{
		ClusterName:             s.cfg.Auth.ClusterName(),
		ServerVersion:           s.cfg.Version,
		ServerFeatures:          &proto.Features{},
		ProxyPublicAddr:         s.cfg.Auth.ProxyAddr(ctx),
		RemoteAddr:              remoteAddr(ctx),
		SignatureAlgorithmSuite: preference.GetSignatureAlgorithmSuite(),
	}, nil
}

func (s *authService) GetDomainName(context.Context, *emptypb.Empty) (*proto.GetDomainNameResponse, error) {
	return &proto.GetDomainNameResponse{DomainName: s.cfg.Auth.ClusterName()}, nil
}

// GetClusterCACert returns the certificates of the host authority: two while it
// is rotated.
func (s *authService) GetClusterCACert(ctx context.Context, _ *emptypb.Empty) (*proto.GetClusterCACertResponse, error) {
	authority, err := s.cfg.Auth.GetCertAuthority(ctx, types.CertAuthID{Type: types.HostCA, DomainName: s.cfg.Auth.ClusterName()}, false)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &proto.GetClusterCACertResponse{}
	for _, pair := range authority.GetTrustedTLSKeyPairs() {
		response.TLSCA = append(response.TLSCA, pair.Cert...)
	}
	return response, nil
}

// Roles.

// GetRole shows everybody the roles that they have.
func (s *authService) GetRole(ctx context.Context, req *proto.GetRoleRequest) (*types.RoleV6, error) {
	if c := callerOf(ctx); c.isUser() {
		user, err := s.cfg.Auth.GetUser(ctx, c.name, false)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		if !slices.Contains(user.GetRoles(), req.GetName()) {
			if err := c.may(types.KindRole, types.VerbRead); err != nil {
				return nil, trace.Wrap(err)
			}
		}
	}
	return sent[*types.RoleV6](s.cfg.Auth.GetRole(ctx, req.GetName()))
}

func (s *authService) GetCurrentUserRoles(_ *emptypb.Empty, stream proto.AuthService_GetCurrentUserRolesServer) error {
	ctx := stream.Context()
	user, err := s.currentUser(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	for _, name := range user.GetRoles() {
		role, err := sent[*types.RoleV6](s.cfg.Auth.GetRole(ctx, name))
		if err != nil {
			return trace.Wrap(err)
		}
		if err := stream.Send(role); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// currentUser is the caller, who must be a user.
func (s *Server) currentUser(ctx context.Context) (types.User, error) {
	c := callerOf(ctx)
	if !c.isUser() {
		return nil, trace.BadParameter("%s is no user of the cluster", c)
	}
	return s.cfg.Auth.GetUser(ctx, c.name, false)
}

const maxRolesPage = 200

// ListRoles pages by name: StartKey is the first of the page.
func (s *authService) ListRoles(ctx context.Context, req *proto.ListRolesRequest) (*proto.ListRolesResponse, error) {
	all, err := s.cfg.Auth.GetRoles(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	limit := int(req.GetLimit())
	if limit <= 0 || limit > maxRolesPage {
		limit = maxRolesPage
	}
	response := &proto.ListRolesResponse{}
	for _, each := range all {
		role, err := as[*types.RoleV6](each)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		if role.GetName() < req.GetStartKey() || req.Filter != nil && !req.Filter.Match(role) {
			continue
		}
		if len(response.Roles) == limit {
			response.NextKey = role.GetName()
			break
		}
		response.Roles = append(response.Roles, role)
	}
	return response, nil
}

func (s *authService) CreateRole(ctx context.Context, req *proto.CreateRoleRequest) (*types.RoleV6, error) {
	return sent[*types.RoleV6](s.cfg.Auth.CreateRole(ctx, req.GetRole()))
}

func (s *authService) UpdateRole(ctx context.Context, req *proto.UpdateRoleRequest) (*types.RoleV6, error) {
	return sent[*types.RoleV6](s.cfg.Auth.UpdateRole(ctx, req.GetRole()))
}

func (s *authService) UpsertRoleV2(ctx context.Context, req *proto.UpsertRoleRequest) (*types.RoleV6, error) {
	return sent[*types.RoleV6](s.cfg.Auth.UpsertRole(ctx, req.GetRole()))
}

func (s *authService) DeleteRole(ctx context.Context, req *proto.DeleteRoleRequest) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.DeleteRole(ctx, req.GetName()))
}

// Tokens.

func (s *authService) GetToken(ctx context.Context, req *types.ResourceRequest) (*types.ProvisionTokenV2, error) {
	return sent[*types.ProvisionTokenV2](s.cfg.Auth.GetToken(ctx, req.Name))
}

func (s *authService) GetTokens(ctx context.Context, _ *emptypb.Empty) (*types.ProvisionTokenV2List, error) {
	tokens, err := s.cfg.Auth.GetTokens(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	list := &types.ProvisionTokenV2List{}
	for _, each := range tokens {
		token, err := as[*types.ProvisionTokenV2](each)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		list.ProvisionTokens = append(list.ProvisionTokens, token)
	}
	return list, nil
}

func (s *authService) CreateTokenV2(ctx context.Context, req *proto.CreateTokenV2Request) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.CreateToken(ctx, req.GetV2()))
}

func (s *authService) UpsertTokenV2(ctx context.Context, req *proto.UpsertTokenV2Request) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.UpsertToken(ctx, req.GetV2()))
}

func (s *authService) DeleteToken(ctx context.Context, req *types.ResourceRequest) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.DeleteToken(ctx, req.Name))
}

// Locks.

func (s *authService) GetLock(ctx context.Context, req *proto.GetLockRequest) (*types.LockV2, error) {
	return sent[*types.LockV2](s.cfg.Auth.GetLock(ctx, req.Name))
}

func (s *authService) GetLocks(ctx context.Context, req *proto.GetLocksRequest) (*proto.GetLocksResponse, error) {
	var targets []types.LockTarget
	for _, target := range req.Targets {
		if target != nil {
			targets = append(targets, *target)
		}
	}
	locks, err := s.cfg.Auth.GetLocks(ctx, req.InForceOnly, targets...)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &proto.GetLocksResponse{}
	for _, each := range locks {
		lock, err := as[*types.LockV2](each)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		response.Locks = append(response.Locks, lock)
	}
	return response, nil
}

// UpsertLock says itself who made the lock.
func (s *authService) UpsertLock(ctx context.Context, lock *types.LockV2) (*emptypb.Empty, error) {
	lock.SetCreatedBy("")
	return nothing(s.cfg.Auth.UpsertLock(ctx, lock))
}

func (s *authService) DeleteLock(ctx context.Context, req *proto.DeleteLockRequest) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.DeleteLock(ctx, req.Name))
}

// Settings that api/client asks for here.

func (s *authService) GetClusterAuditConfig(ctx context.Context, _ *emptypb.Empty) (*types.ClusterAuditConfigV2, error) {
	return sent[*types.ClusterAuditConfigV2](s.cfg.Auth.GetClusterAuditConfig(ctx))
}

// The audit log.

// EmitAuditEvent takes of hosts what happened on them. Events of the cluster
// itself are written by the auth service alone.
func (s *authService) EmitAuditEvent(ctx context.Context, req *apievents.OneOf) (*emptypb.Empty, error) {
	event, err := apievents.FromOneOf(*req)
	if err != nil {
		return nil, trace.BadParameter("the event cannot be read: %v", err)
	}
	if c := callerOf(ctx); !c.isAdmin() {
		if err := mayEmit(c, event); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	return nothing(s.cfg.Auth.EmitAuditEvent(ctx, event))
}

// hostEvent is the type and the code of an event that hosts write. What is stored
// is found by these, so an event of one kind must not have another's.
type hostEvent struct{ eventType, code string }

// hostEventOf is what a host says happened on it.
func hostEventOf(event apievents.AuditEvent) (hostEvent, bool) {
	switch event.(type) {
	case *apievents.SessionStart:
		return hostEvent{"session.start", "T2000I"}, true
	case *apievents.SessionEnd:
		return hostEvent{"session.end", "T2004I"}, true
	case *apievents.AuthAttempt:
		return hostEvent{"auth", "T3007W"}, true
	}
	return hostEvent{}, false
}

// mayEmit takes of hosts the logins on them, and names the host in events that
// leave it open. AuthAttempt has no place for it.
func mayEmit(c *caller, event apievents.AuditEvent) error {
	kind, ok := hostEventOf(event)
	if !ok || kind != (hostEvent{event.GetType(), event.GetCode()}) {
		return trace.AccessDenied("%s may not write events of the type %q with the code %q", c, event.GetType(), event.GetCode())
	}
	onServer, ok := event.(interface {
		GetServerID() string
		SetServerID(string)
	})
	if !ok {
		return nil
	}
	switch onServer.GetServerID() {
	case "":
		onServer.SetServerID(c.hostID)
	case c.hostID:
	default:
		return trace.AccessDenied("%s may write events about itself, and this is about %q", c, onServer.GetServerID())
	}
	return nil
}

func (s *authService) GetEvents(ctx context.Context, req *proto.GetEventsRequest) (*proto.Events, error) {
	found, next, err := s.cfg.Auth.SearchEvents(ctx, req.StartDate, req.EndDate, req.EventTypes, int(req.Limit), types.EventOrder(req.Order), req.StartKey)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &proto.Events{LastKey: next}
	for _, event := range found {
		oneOf, err := apievents.ToOneOf(event)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		response.Items = append(response.Items, oneOf)
	}
	return response, nil
}

// People.

func (s *authService) CreateResetPasswordToken(ctx context.Context, req *proto.CreateResetPasswordTokenRequest) (*types.UserTokenV3, error) {
	return sent[*types.UserTokenV3](s.cfg.People.CreateResetPasswordToken(ctx, req.Name, req.Type, time.Duration(req.TTL), callerOf(ctx).name))
}

func (s *authService) GetResetPasswordToken(ctx context.Context, req *proto.GetResetPasswordTokenRequest) (*types.UserTokenV3, error) {
	return sent[*types.UserTokenV3](s.cfg.People.GetResetPasswordToken(ctx, req.TokenID))
}

func (s *authService) CreateRegisterChallenge(ctx context.Context, req *proto.CreateRegisterChallengeRequest) (*proto.MFARegisterChallenge, error) {
	if req.DeviceType != proto.DeviceType_DEVICE_TYPE_TOTP && req.DeviceType != proto.DeviceType_DEVICE_TYPE_UNSPECIFIED {
		return nil, trace.NotImplemented("only devices that show one-time codes (TOTP) can be registered")
	}
	return s.cfg.People.CreateRegisterChallenge(ctx, req.TokenID)
}

func (s *authService) ChangeUserAuthentication(ctx context.Context, req *proto.ChangeUserAuthenticationRequest) (*proto.ChangeUserAuthenticationResponse, error) {
	return s.cfg.People.ChangeUserAuthentication(ctx, req)
}
