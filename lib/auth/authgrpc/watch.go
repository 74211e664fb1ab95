// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Watchers over the network.

package authgrpc

import (
	"context"
	"slices"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// hostKinds are what every host may watch, to go on while the auth service is
// away, and nodes to dial out to all proxies; proxies also watch nodes.
func hostKinds() []string {
	return []string{
		types.KindCertAuthority, types.KindRole, types.KindLock, types.KindProxy, types.KindClusterName, types.KindClusterAuthPreference,
		types.KindClusterNetworkingConfig, types.KindSessionRecordingConfig, types.KindClusterAuditConfig,
	}
}

// mayWatch returns trace.AccessDenied for a kind that the caller may not read.
func (c *caller) mayWatch(kind types.WatchKind) error {
	if c.isAdmin() {
		return nil
	}
	if !c.isUser() {
		if slices.Contains(hostKinds(), kind.Kind) || kind.Kind == types.KindNode && c.role != types.RoleNode {
			return nil
		}
		return trace.AccessDenied("%s may not watch resources of the kind %q", c, kind.Kind)
	}
	switch kind.Kind {
	case types.KindNode: // those that the roles show
		return nil
	case types.KindCertAuthority:
		return c.may(kind.Kind, types.VerbList, types.VerbReadNoSecrets)
	}
	return c.may(kind.Kind, types.VerbList, types.VerbRead)
}

// WatchEvents sends changes until the client, the watcher or the server ends.
func (s *authService) WatchEvents(watch *proto.Watch, stream proto.AuthService_WatchEventsServer) error {
	ctx := stream.Context()
	c := callerOf(ctx)
	allowed := types.Watch{Name: c.name, AllowPartialSuccess: watch.AllowPartialSuccess}
	for _, kind := range watch.Kinds {
		if err := c.mayWatch(kind); err != nil {
			if watch.AllowPartialSuccess {
				continue
			}
			return trace.Wrap(err)
		}
		allowed.Kinds = append(allowed.Kinds, kind)
	}
	most := maxHostWatchers
	if c.isUser() {
		most = maxUserWatchers
	}
	if !s.watchers.Enter(c.String(), most) {
		return trace.LimitExceeded("%s has %d watchers open, and may have no more: end one of them first", c, most)
	}
	defer s.watchers.Leave(c.String())
	watcher, err := s.cfg.Auth.NewWatcher(ctx, allowed)
	if err != nil {
		return trace.Wrap(err)
	}
	defer watcher.Close() //nolint:errcheck // it is over either way
	for {
		select {
		case <-ctx.Done():
			return trace.Wrap(context.Cause(ctx))
		case <-watcher.Done():
			if err := watcher.Error(); err != nil && ctx.Err() == nil {
				return trace.ConnectionProblem(err, "the watcher ended: watch anew (%v)", err)
			}
			return trace.Wrap(context.Cause(ctx))
		case event := <-watcher.Events():
			if !c.seesEvent(event) {
				continue
			}
			message, err := client.EventToGRPC(event)
			if err != nil {
				return trace.Wrap(err)
			}
			if err := stream.Send(message); err != nil {
				return trace.Wrap(err)
			}
		}
	}
}

// seesEvent hides nodes that the caller's roles do not show. That one of them is
// gone says only its id.
func (c *caller) seesEvent(event types.Event) bool {
	node, ok := event.Resource.(types.Server)
	return !ok || node.GetKind() != types.KindNode || c.sees(node)
}
