// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The settings of the cluster. How users log in can be set; the others are what
// clients of Teleport's API ask for, and have the values that hold here.

package auth

import (
	"bytes"
	"context"
	"reflect"
	"slices"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
)

const (
	clusterConfigPrefix = "/cluster_config/"
	authPreferenceName  = "auth_preference"
)

func authPreferenceCollection() collection[*types.AuthPreferenceV2] {
	return collection[*types.AuthPreferenceV2]{
		noun:   "setting",
		prefix: clusterConfigPrefix,
		fresh:  func() *types.AuthPreferenceV2 { return &types.AuthPreferenceV2{} },
		check:  checkAuthPreference,
	}
}

// checkAuthPreference takes local users with a second factor of otp or off, and
// refuses what else a preference may say in Teleport: a setting that is kept and
// does nothing is one that somebody relies on.
func checkAuthPreference(preference *types.AuthPreferenceV2) error {
	if slices.Equal(preference.Spec.SecondFactors, []types.SecondFactorType{types.SecondFactorType_SECOND_FACTOR_TYPE_OTP}) && preference.Spec.SecondFactor == "" {
		preference.Spec.SecondFactors = nil
		preference.Spec.SecondFactor = constants.SecondFactorOTP
	}
	if len(preference.Spec.SecondFactors) > 0 {
		return trace.BadParameter("second_factors may only be otp here")
	}
	switch preference.Spec.SecondFactor {
	case "", constants.SecondFactorOTP, constants.SecondFactorOff:
	default:
		return trace.BadParameter("the second factor %q is not supported: use %q or %q", preference.Spec.SecondFactor, constants.SecondFactorOTP, constants.SecondFactorOff)
	}
	if err := preference.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	plain := &types.AuthPreferenceV2{Spec: types.AuthPreferenceSpecV2{
		SecondFactor: preference.Spec.SecondFactor,
		// Which keys clients make: all of them are signed.
		SignatureAlgorithmSuite: preference.Spec.SignatureAlgorithmSuite,
	}}
	if err := plain.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if !reflect.DeepEqual(preference.Spec, plain.Spec) {
		return trace.BadParameter("the auth preference sets more than type, second_factor and signature_algorithm_suite, and nothing else of it is supported: leave it out")
	}
	return nil
}

// GetAuthPreference says how users log in: with otp, where nothing was set.
func (s *Server) GetAuthPreference(ctx context.Context) (types.AuthPreference, error) {
	preference, err := authPreferenceCollection().get(ctx, s.store, authPreferenceName)
	if trace.IsNotFound(err) {
		return types.DefaultAuthPreference(), nil
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return preference, nil
}

// SetAuthPreference sets how users log in: second_factor is otp or off. The
// error is trace.BadParameter for all that is not supported. Where preference
// has a revision, it must be that of what is kept: else the error is
// trace.CompareFailed.
func (s *Server) SetAuthPreference(ctx context.Context, preference types.AuthPreference) error {
	v2, ok := preference.(*types.AuthPreferenceV2)
	if !ok || v2 == nil {
		return trace.BadParameter("an auth preference must be a types.AuthPreferenceV2, and this is a %T", preference)
	}
	c := authPreferenceCollection()
	checked, item, err := c.prepare(v2)
	if err != nil {
		return trace.Wrap(err)
	}
	item.Key = c.key(authPreferenceName)
	current, err := s.store.Get(ctx, item.Key)
	switch {
	case err == nil && bytes.Equal(current.Value, item.Value) && (v2.GetRevision() == "" || v2.GetRevision() == current.Revision):
		return nil // a daemon says the same at each start
	case err == nil && v2.GetRevision() != "":
		item.Revision = v2.GetRevision()
		_, err = s.store.CompareAndSwap(ctx, item)
		if trace.IsCompareFailed(err) {
			return trace.CompareFailed("the auth preference was changed by somebody else meanwhile: read it again and repeat the change")
		}
	case err == nil || trace.IsNotFound(err):
		_, err = s.store.Put(ctx, item)
	}
	if err != nil {
		return trace.Wrap(err)
	}
	s.log.Infof("Users log in with the second factor %q from now on.", checked.Spec.SecondFactor)
	s.emit(ctx, &apievents.AuthPreferenceUpdate{
		Metadata:           apievents.Metadata{Type: AuthPreferenceUpdatedEvent, Code: AuthPreferenceUpdatedCode},
		UserMetadata:       callerFrom(ctx).userMetadata(),
		ConnectionMetadata: callerFrom(ctx).connectionMetadata(),
		Status:             apievents.Status{Success: true},
	})
	return nil
}

// ResetAuthPreference goes back to the default, which is otp.
func (s *Server) ResetAuthPreference(ctx context.Context) error {
	return trace.Wrap(s.SetAuthPreference(ctx, types.DefaultAuthPreference()))
}

// GetClusterNetworkingConfig returns Teleport's defaults: what they say of idle
// connections is for roles to set.
func (s *Server) GetClusterNetworkingConfig(context.Context) (types.ClusterNetworkingConfig, error) {
	return types.DefaultClusterNetworkingConfig(), nil
}

// GetSessionRecordingConfig says that sessions are not recorded: the kernel's
// audit trail is the record.
func (s *Server) GetSessionRecordingConfig(context.Context) (types.SessionRecordingConfig, error) {
	config := types.DefaultSessionRecordingConfig()
	config.SetMode(types.RecordOff)
	return config, nil
}

// GetClusterAuditConfig says that the audit log is kept with the cluster's state.
func (s *Server) GetClusterAuditConfig(context.Context) (types.ClusterAuditConfig, error) {
	return types.DefaultClusterAuditConfig(), nil
}

// clusterNameResource is the cluster's name as Teleport's API has it. Its id is
// made of the name, which never changes.
func clusterNameResource(name string) *types.ClusterNameV2 {
	cluster := &types.ClusterNameV2{Spec: types.ClusterNameSpecV2{
		ClusterName: name,
		ClusterID:   uuid.NewSHA1(uuid.NameSpaceDNS, []byte(name)).String(),
	}}
	cluster.Kind, cluster.Version, cluster.Metadata.Name = types.KindClusterName, types.V2, types.MetaNameClusterName
	return cluster
}
