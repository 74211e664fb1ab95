// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The newer services of Teleport's API: users, authorities, settings and the
// audit log.

package authgrpc

import (
	"context"
	"time"

	auditlogv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/auditlog/v1"
	clusterconfigv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/clusterconfig/v1"
	trustv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/trust/v1"
	usersv1 "github.com/gravitational/teleport/api/gen/proto/go/teleport/users/v1"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type usersService struct {
	*Server
	usersv1.UnimplementedUsersServiceServer
}

// GetUser shows users themselves, and others as their roles allow.
func (s *usersService) GetUser(ctx context.Context, req *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) {
	c := callerOf(ctx)
	name := req.GetName()
	if req.GetCurrentUser() {
		user, err := s.currentUser(ctx)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		name = user.GetName()
	}
	if !c.isUser() || name != c.name {
		if err := c.may(types.KindUser, types.VerbRead); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	user, err := sent[*types.UserV2](s.cfg.Auth.GetUser(ctx, name, req.GetWithSecrets()))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &usersv1.GetUserResponse{User: user}, nil
}

func (s *usersService) ListUsers(ctx context.Context, req *usersv1.ListUsersRequest) (*usersv1.ListUsersResponse, error) {
	users, next, err := s.cfg.Auth.ListUsers(ctx, int(req.GetPageSize()), req.GetPageToken(), req.GetWithSecrets())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &usersv1.ListUsersResponse{NextPageToken: next}
	for _, each := range users {
		user, err := as[*types.UserV2](each)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		if req.Filter == nil || req.Filter.Match(user) {
			response.Users = append(response.Users, user)
		}
	}
	return response, nil
}

func (s *usersService) CreateUser(ctx context.Context, req *usersv1.CreateUserRequest) (*usersv1.CreateUserResponse, error) {
	user, err := sent[*types.UserV2](s.cfg.Auth.CreateUser(ctx, req.GetUser()))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &usersv1.CreateUserResponse{User: user}, nil
}

func (s *usersService) UpdateUser(ctx context.Context, req *usersv1.UpdateUserRequest) (*usersv1.UpdateUserResponse, error) {
	user, err := sent[*types.UserV2](s.cfg.Auth.UpdateUser(ctx, req.GetUser()))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &usersv1.UpdateUserResponse{User: user}, nil
}

func (s *usersService) UpsertUser(ctx context.Context, req *usersv1.UpsertUserRequest) (*usersv1.UpsertUserResponse, error) {
	user, err := sent[*types.UserV2](s.cfg.Auth.UpsertUser(ctx, req.GetUser()))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &usersv1.UpsertUserResponse{User: user}, nil
}

func (s *usersService) DeleteUser(ctx context.Context, req *usersv1.DeleteUserRequest) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.DeleteUser(ctx, req.GetName()))
}

type trustService struct {
	*Server
	trustv1.UnimplementedTrustServiceServer
}

// onlyAdmin lets nobody else have private keys: no role gives them.
func onlyAdmin(ctx context.Context, keys bool) error {
	if c := callerOf(ctx); keys && !c.isAdmin() {
		return trace.AccessDenied("%s may not read the private keys of authorities: run tctl on the host of the auth service", c)
	}
	return nil
}

func (s *trustService) GetCertAuthority(ctx context.Context, req *trustv1.GetCertAuthorityRequest) (*types.CertAuthorityV2, error) {
	if err := onlyAdmin(ctx, req.GetIncludeKey()); err != nil {
		return nil, trace.Wrap(err)
	}
	return sent[*types.CertAuthorityV2](s.cfg.Auth.GetCertAuthority(ctx, types.CertAuthID{
		Type:       types.CertAuthType(req.GetType()),
		DomainName: req.GetDomain(),
	}, req.GetIncludeKey()))
}

func (s *trustService) GetCertAuthorities(ctx context.Context, req *trustv1.GetCertAuthoritiesRequest) (*trustv1.GetCertAuthoritiesResponse, error) {
	if err := onlyAdmin(ctx, req.GetIncludeKey()); err != nil {
		return nil, trace.Wrap(err)
	}
	authorities, err := s.cfg.Auth.GetCertAuthorities(ctx, types.CertAuthType(req.GetType()), req.GetIncludeKey())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &trustv1.GetCertAuthoritiesResponse{}
	for _, each := range authorities {
		authority, err := as[*types.CertAuthorityV2](each)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		response.CertAuthoritiesV2 = append(response.CertAuthoritiesV2, authority)
	}
	return response, nil
}

// UpsertCertAuthority returns the authority without its private keys.
func (s *trustService) UpsertCertAuthority(ctx context.Context, req *trustv1.UpsertCertAuthorityRequest) (*types.CertAuthorityV2, error) {
	authority := req.GetCertAuthority()
	if authority == nil {
		return nil, trace.BadParameter("there is no authority in the request")
	}
	if err := s.cfg.Auth.UpsertCertAuthority(ctx, authority); err != nil {
		return nil, trace.Wrap(err)
	}
	return sent[*types.CertAuthorityV2](s.cfg.Auth.GetCertAuthority(ctx, authority.GetID(), false))
}

func (s *trustService) DeleteCertAuthority(ctx context.Context, req *trustv1.DeleteCertAuthorityRequest) (*emptypb.Empty, error) {
	return nothing(s.cfg.Auth.DeleteCertAuthority(ctx, types.CertAuthID{
		Type:       types.CertAuthType(req.GetType()),
		DomainName: req.GetDomain(),
	}))
}

func (s *trustService) RotateCertAuthority(ctx context.Context, req *trustv1.RotateCertAuthorityRequest) (*trustv1.RotateCertAuthorityResponse, error) {
	request := types.RotateRequest{
		Type:        types.CertAuthType(req.GetType()),
		TargetPhase: req.GetTargetPhase(),
		Mode:        req.GetMode(),
	}
	if req.GracePeriod != nil {
		grace := req.GracePeriod.AsDuration()
		request.GracePeriod = &grace
	}
	if schedule := req.Schedule; schedule != nil {
		request.Schedule = &types.RotationSchedule{
			UpdateClients: asTime(schedule.UpdateClients),
			UpdateServers: asTime(schedule.UpdateServers),
			Standby:       asTime(schedule.Standby),
		}
	}
	if err := s.cfg.Auth.RotateCertAuthority(ctx, request); err != nil {
		return nil, trace.Wrap(err)
	}
	return &trustv1.RotateCertAuthorityResponse{}, nil
}

// asTime is the zero time for one that was not sent.
func asTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

type clusterConfigService struct {
	*Server
	clusterconfigv1.UnimplementedClusterConfigServiceServer
}

func (s *clusterConfigService) GetAuthPreference(ctx context.Context, _ *clusterconfigv1.GetAuthPreferenceRequest) (*types.AuthPreferenceV2, error) {
	return sent[*types.AuthPreferenceV2](s.cfg.Auth.GetAuthPreference(ctx))
}

// UpdateAuthPreference changes the one with the revision that is given, and
// UpsertAuthPreference whatever there is.
func (s *clusterConfigService) UpdateAuthPreference(ctx context.Context, req *clusterconfigv1.UpdateAuthPreferenceRequest) (*types.AuthPreferenceV2, error) {
	return s.setAuthPreference(ctx, req.GetAuthPreference())
}

func (s *clusterConfigService) UpsertAuthPreference(ctx context.Context, req *clusterconfigv1.UpsertAuthPreferenceRequest) (*types.AuthPreferenceV2, error) {
	preference := req.GetAuthPreference()
	if preference != nil {
		preference.SetRevision("")
	}
	return s.setAuthPreference(ctx, preference)
}

func (s *clusterConfigService) setAuthPreference(ctx context.Context, preference *types.AuthPreferenceV2) (*types.AuthPreferenceV2, error) {
	if err := s.cfg.Auth.SetAuthPreference(ctx, preference); err != nil {
		return nil, trace.Wrap(err)
	}
	return sent[*types.AuthPreferenceV2](s.cfg.Auth.GetAuthPreference(ctx))
}

func (s *clusterConfigService) ResetAuthPreference(ctx context.Context, _ *clusterconfigv1.ResetAuthPreferenceRequest) (*types.AuthPreferenceV2, error) {
	if err := s.cfg.Auth.ResetAuthPreference(ctx); err != nil {
		return nil, trace.Wrap(err)
	}
	return sent[*types.AuthPreferenceV2](s.cfg.Auth.GetAuthPreference(ctx))
}

func (s *clusterConfigService) GetClusterNetworkingConfig(ctx context.Context, _ *clusterconfigv1.GetClusterNetworkingConfigRequest) (*types.ClusterNetworkingConfigV2, error) {
	return sent[*types.ClusterNetworkingConfigV2](s.cfg.Auth.GetClusterNetworkingConfig(ctx))
}

func (s *clusterConfigService) GetSessionRecordingConfig(ctx context.Context, _ *clusterconfigv1.GetSessionRecordingConfigRequest) (*types.SessionRecordingConfigV2, error) {
	return sent[*types.SessionRecordingConfigV2](s.cfg.Auth.GetSessionRecordingConfig(ctx))
}

func (s *clusterConfigService) GetClusterAuditConfig(ctx context.Context, _ *clusterconfigv1.GetClusterAuditConfigRequest) (*types.ClusterAuditConfigV2, error) {
	return sent[*types.ClusterAuditConfigV2](s.cfg.Auth.GetClusterAuditConfig(ctx))
}

type auditLogService struct {
	*Server
	auditlogv1.UnimplementedAuditLogServiceServer
}

func (s *auditLogService) GetUnstructuredEvents(ctx context.Context, req *auditlogv1.GetUnstructuredEventsRequest) (*auditlogv1.EventsUnstructured, error) {
	found, next, err := s.cfg.Auth.SearchEvents(ctx, asTime(req.GetStartDate()), asTime(req.GetEndDate()), req.GetEventTypes(), int(req.GetLimit()), types.EventOrder(req.GetOrder()), req.GetStartKey())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &auditlogv1.EventsUnstructured{LastKey: next}
	for _, event := range found {
		item, err := apievents.ToUnstructured(event)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		response.Items = append(response.Items, item)
	}
	return response, nil
}
