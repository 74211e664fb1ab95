// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The nodes that have registered, and where they are reached.

package auth

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

const (
	nodesPrefix = "/nodes/"

	// maxLabels and maxLabelBytes bound what a node says about itself: lists of
	// a thousand nodes go over the network in one answer.
	maxLabels     = 100
	maxLabelBytes = 2048
	// maxPublicAddrs bounds the other addresses of a node.
	maxPublicAddrs = 16
)

func nodeCollection() collection[*types.ServerV2] {
	return collection[*types.ServerV2]{
		noun:   "node",
		prefix: nodesPrefix,
		fresh:  func() *types.ServerV2 { return &types.ServerV2{} },
		check:  checkNode,
	}
}

// UpsertNode registers a node, or renews its registration, until its expiry.
// Its name is the host's UUID, its hostname the name under which users know it,
// and its address host:port. A node that dials out (UseTunnel) needs none.
//
// The error is trace.BadParameter for a node without these, or with a name,
// address or label that could be read as more than one.
func (s *Server) UpsertNode(ctx context.Context, node types.Server) error {
	server, ok := node.(*types.ServerV2)
	if !ok || server == nil {
		return trace.BadParameter("a node must be a types.ServerV2, and this is a %T", node)
	}
	_, _, err := nodeCollection().upsert(ctx, s.store, server)
	return trace.Wrap(err)
}

func checkNode(server *types.ServerV2) error {
	if server.GetKind() != types.KindNode {
		return trace.BadParameter("only nodes are registered, and this is of the kind %q", server.GetKind())
	}
	if sub := server.GetSubKind(); sub != "" && sub != types.SubKindTeleportNode {
		return trace.BadParameter("nodes of the kind %q are not supported: only those that run teleport", sub)
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
	if server.GetAddr() != "" || !server.GetUseTunnel() {
		if err := checkNodeAddr(server, server.GetAddr()); err != nil {
			return trace.Wrap(err)
		}
	}
	if len(server.Spec.PublicAddrs) > maxPublicAddrs {
		return trace.BadParameter("the node %q has %d public addresses, and at most %d are kept", server.GetHostname(), len(server.Spec.PublicAddrs), maxPublicAddrs)
	}
	for _, addr := range server.Spec.PublicAddrs {
		if err := checkNodeAddr(server, addr); err != nil {
			return trace.Wrap(err)
		}
	}
	if version := server.GetTeleportVersion(); version != "" {
		if err := checkName("version of the node", version); err != nil {
			return trace.Wrap(err)
		}
	}
	return checkNodeLabels(server)
}

func checkNodeAddr(server *types.ServerV2, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return trace.BadParameter("the address %q of the node %q is not host:port", cutTo(addr, MaxNameLength), server.GetHostname())
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return trace.BadParameter("the address %q of the node %q has no port from 1 to 65535", cutTo(addr, MaxNameLength), server.GetHostname())
	}
	host, _, _ = strings.Cut(host, "%") // an IPv6 address's zone
	return checkHostName("node address", host)
}

// checkNodeLabels looks at all labels: they are printed on terminals.
func checkNodeLabels(server *types.ServerV2) error {
	labels := server.GetAllLabels()
	if len(labels) > maxLabels {
		return trace.BadParameter("the node %q has %d labels, and at most %d are kept", server.GetHostname(), len(labels), maxLabels)
	}
	size := 0
	for key, value := range labels {
		size += len(key) + len(value)
		if err := checkName("label of the node", key); err != nil {
			return trace.Wrap(err)
		}
		if value == "" {
			continue
		}
		if err := checkName("value of the label "+strconv.Quote(key), value); err != nil {
			return trace.Wrap(err)
		}
	}
	if size > maxLabelBytes {
		return trace.BadParameter("the labels of the node %q take %d bytes, and at most %d are kept", server.GetHostname(), size, maxLabelBytes)
	}
	return nil
}

// GetNode returns the node with the UUID, or trace.NotFound where none is
// registered or its registration has expired.
func (s *Server) GetNode(ctx context.Context, name string) (types.Server, error) {
	node, err := nodeCollection().get(ctx, s.store, name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return node, nil
}

// Nodes returns the nodes whose registration has not expired, in the order of
// their UUIDs. One that cannot be read is left out, and named in the log: it
// must not keep users from the others.
func (s *Server) Nodes(ctx context.Context) ([]types.Server, error) {
	servers, err := nodeCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	nodes := make([]types.Server, len(servers))
	for i, server := range servers {
		nodes[i] = server
	}
	return nodes, nil
}

// DeleteNode removes the registration of a node, and forgets which keys the host
// has, in every role: it may be set up anew. The error is trace.NotFound where
// there was neither. A node that runs registers again, with the keys that it has.
func (s *Server) DeleteNode(ctx context.Context, name string) error {
	if name == "" {
		return trace.BadParameter("a node is to be removed without its name")
	}
	bound, err := s.unbindHost(ctx, name)
	if err != nil {
		return trace.Wrap(err)
	}
	err = nodeCollection().delete(ctx, s.store, name)
	if bound && trace.IsNotFound(err) {
		return nil
	}
	return trace.Wrap(err)
}

// DeleteAllNodes removes all registrations. Hosts keep their keys.
func (s *Server) DeleteAllNodes(ctx context.Context) error {
	return trace.Wrap(s.store.DeleteRange(ctx, nodesPrefix))
}
