// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Rotation: how the keys of an authority are replaced, while everybody goes on.
//
// An operator leads an authority through the phases, and gives hosts and users
// the time to follow:
//
//	phase            users' certificates   hosts' certificates   trusted
//	standby          old                   old                   old
//	init             old                   old                   old and new
//	update_clients   new                   old                   old and new
//	update_servers   new                   new                   old and new
//	standby          new                   new                   new
//
// In init all learn of the new keys. In update_clients users log in again and
// hosts' clients learn whom to trust; a host that shows a new certificate before
// that would look like a stranger. In update_servers hosts get new certificates.
// From each of these, rollback goes back to the old keys, and standby after it
// forgets the new ones.

package auth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// rotationSteps are the phases that may follow each phase.
func rotationSteps() map[string][]string {
	return map[string][]string{
		types.RotationPhaseStandby:       {types.RotationPhaseInit},
		types.RotationPhaseInit:          {types.RotationPhaseUpdateClients, types.RotationPhaseRollback},
		types.RotationPhaseUpdateClients: {types.RotationPhaseUpdateServers, types.RotationPhaseRollback},
		types.RotationPhaseUpdateServers: {types.RotationPhaseStandby, types.RotationPhaseRollback},
		types.RotationPhaseRollback:      {types.RotationPhaseStandby},
	}
}

// RotateCertAuthority leads the authority of req.Type, or each where it is empty
// or "all", to req.TargetPhase. Of both, one that is in the phase already is left
// there: so a call that was interrupted between the two can be repeated.
//
// The grace period and the schedule of req are kept with the state, for people
// to read: phases are always the operator's step.
//
// The error is trace.BadParameter for the mode "auto", for a phase that does not
// exist and for one that does not follow the present one, and
// trace.CompareFailed where another operator was faster.
func (s *Server) RotateCertAuthority(ctx context.Context, req types.RotateRequest) error {
	kinds, err := rotationKinds(req.Type)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := checkRotation(req); err != nil {
		return trace.Wrap(err)
	}
	// All are checked before one is changed.
	var next []*types.CertAuthorityV2
	for _, kind := range kinds {
		authority, err := s.authority(ctx, kind)
		if err != nil {
			return trace.Wrap(err)
		}
		if len(kinds) > 1 && phaseOf(authority) == req.TargetPhase {
			continue
		}
		if err := s.advance(authority, req); err != nil {
			return trace.Wrap(err)
		}
		next = append(next, authority)
	}
	if len(next) == 0 {
		return trace.BadParameter("all authorities are in the phase %s already", req.TargetPhase)
	}
	for _, authority := range next {
		item, err := s.encodeAuthority(authority)
		if err != nil {
			return trace.Wrap(err)
		}
		_, err = s.store.CompareAndSwap(ctx, item)
		if trace.IsCompareFailed(err) {
			return trace.CompareFailed("the %s authority was rotated or changed by somebody else meanwhile: see tctl status for its phase", authority.GetType())
		}
		if err != nil {
			return trace.Wrap(err)
		}
		s.emitOwn(ctx, AuthorityRotatedEvent, AuthorityRotatedCode, ownEvent{Name: string(authority.GetType()), Phase: req.TargetPhase})
		s.log.Infof("The %s authority is now in the phase %s of its rotation.", authority.GetType(), req.TargetPhase)
	}
	return nil
}

func rotationKinds(kind types.CertAuthType) ([]types.CertAuthType, error) {
	if kind == "" || kind == "all" {
		return authorityKinds(), nil
	}
	if err := checkAuthorityKind(kind); err != nil {
		return nil, trace.Wrap(err)
	}
	return []types.CertAuthType{kind}, nil
}

func checkRotation(req types.RotateRequest) error {
	switch req.Mode {
	case "", types.RotationModeManual:
	default:
		return trace.BadParameter("a rotation in the mode %q is not done here: give the phases one by one, with tctl auth rotate --phase=init and so on", cutTo(req.Mode, 32))
	}
	if !slices.Contains(types.RotatePhases, req.TargetPhase) {
		return trace.BadParameter("there is no phase %q: the phases are %s", cutTo(req.TargetPhase, 32), strings.Join(types.RotatePhases, ", "))
	}
	if req.GracePeriod != nil && *req.GracePeriod < 0 {
		return trace.BadParameter("the grace period %v is negative: give one such as 30h", *req.GracePeriod)
	}
	return nil
}

// phaseOf is the phase of an authority; standby for one that never rotated.
func phaseOf(authority *types.CertAuthorityV2) string {
	rotation := authority.GetRotation()
	if rotation.Phase == "" {
		return types.RotationPhaseStandby
	}
	return rotation.Phase
}

// advance changes the authority to what it is in the target phase.
func (s *Server) advance(authority *types.CertAuthorityV2, req types.RotateRequest) error {
	phase, kind := phaseOf(authority), authority.GetType()
	if allowed := rotationSteps()[phase]; !slices.Contains(allowed, req.TargetPhase) {
		return trace.BadParameter("the %s authority is in the phase %s, and %s cannot follow: what can is %s",
			kind, phase, req.TargetPhase, strings.Join(allowed, " or "))
	}
	now := s.clock.Now().UTC()
	rotation := authority.GetRotation()
	active, additional := authority.GetActiveKeys(), authority.GetAdditionalTrustedKeys()
	switch req.TargetPhase {
	case types.RotationPhaseInit:
		fresh, err := newKeySet(kind, s.clusterName, now)
		if err != nil {
			return trace.Wrap(err)
		}
		additional = fresh
		rotation = startedRotation(req, rotation, now)
	case types.RotationPhaseUpdateClients:
		if len(additional.SSH) == 0 || len(additional.TLS) == 0 {
			return trace.BadParameter("the %s authority has lost its new keys: go back with the phase rollback", kind)
		}
		active, additional = additional, active
	case types.RotationPhaseRollback:
		// Until update_clients the old keys are the active ones.
		if phase != types.RotationPhaseInit {
			active, additional = additional, active
		}
	case types.RotationPhaseStandby:
		additional = types.CAKeySet{}
		if phase != types.RotationPhaseRollback {
			rotation.LastRotated = now
		}
		rotation.State = types.RotationStateStandby
		rotation.Started = time.Time{}
		rotation.Schedule = types.RotationSchedule{}
	}
	rotation.Phase = req.TargetPhase
	if err := authority.SetActiveKeys(active); err != nil {
		return trace.Wrap(err)
	}
	if err := authority.SetAdditionalTrustedKeys(additional); err != nil {
		return trace.Wrap(err)
	}
	authority.SetRotation(rotation)
	return trace.Wrap(s.checkAuthority(authority))
}

func startedRotation(req types.RotateRequest, last types.Rotation, now time.Time) types.Rotation {
	rotation := types.Rotation{
		State:       types.RotationStateInProgress,
		Mode:        types.RotationModeManual,
		CurrentID:   uuid.NewString(),
		Started:     now,
		LastRotated: last.LastRotated,
	}
	if req.GracePeriod != nil {
		rotation.GracePeriod = types.NewDuration(*req.GracePeriod)
	}
	if req.Schedule != nil {
		rotation.Schedule = *req.Schedule
	}
	return rotation
}
