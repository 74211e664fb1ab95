// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The nodes that have registered, and where they are reached.

package auth

import (
	"context"
	"encoding/json"
	"net"
	"strconv"
	"strings"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

const nodesPrefix = "/nodes/"

// UpsertNode registers a node, or renews its registration, until its expiry.
// Its name is the host's UUID, its hostname the name under which users know it,
// and its address host:port.
//
// The error is trace.BadParameter for a node without these, or with a name or
// address that could be read as more than one.
func (s *Server) UpsertNode(ctx context.Context, node types.Server) error {
	server, ok := node.(*types.ServerV2)
	if !ok {
		return trace.BadParameter("a node must be a types.ServerV2, and this is a %T", node)
	}
	server = server.DeepCopy().(*types.ServerV2)
	if err := checkNode(server); err != nil {
		return trace.Wrap(err)
	}
	value, err := json.Marshal(server)
	if err != nil {
		return trace.Wrap(err)
	}
	_, err = s.store.Put(ctx, backend.Item{
		Key:     nodesPrefix + server.GetName(),
		Value:   value,
		Expires: server.Expiry(),
	})
	return trace.Wrap(err)
}

func checkNode(server *types.ServerV2) error {
	if server.GetKind() != types.KindNode {
		return trace.BadParameter("only nodes are registered, and this is of the kind %q", server.GetKind())
	}
	if err := server.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("node id", server.GetName()); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("node name", server.GetHostname()); err != nil {
		return trace.Wrap(err)
	}
	host, port, err := net.SplitHostPort(server.GetAddr())
	if err != nil {
		return trace.BadParameter("the address %q of the node %q is not host:port", server.GetAddr(), server.GetHostname())
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return trace.BadParameter("the address %q of the node %q has no port from 1 to 65535", server.GetAddr(), server.GetHostname())
	}
	host, _, _ = strings.Cut(host, "%") // an IPv6 address's zone
	return checkHostName("node address", host)
}

// Nodes returns the nodes whose registration has not expired, in the order of
// their UUIDs. One that cannot be read is left out, and named in the log: it
// must not keep users from the others.
func (s *Server) Nodes(ctx context.Context) ([]types.Server, error) {
	items, err := s.store.Range(ctx, nodesPrefix, "", 0)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	nodes := make([]types.Server, 0, len(items))
	for _, item := range items {
		var server types.ServerV2
		err := json.Unmarshal(item.Value, &server)
		if err == nil {
			err = checkNode(&server)
		}
		if err != nil {
			s.log.WithError(err).Warnf("The registration %q cannot be read and is left out.", item.Key)
			continue
		}
		nodes = append(nodes, &server)
	}
	return nodes, nil
}
