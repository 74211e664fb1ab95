// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// defaultPort is where ssh goes when it was given no port.
const defaultPort = 22

// maxShownHost is how much of a destination a message repeats.
const maxShownHost = 100

// find returns the node that a client means by host and port. The error is one
// line for the client.
func find(nodes []types.Server, cluster, host string, port uint32) (types.Server, error) {
	var found []types.Server
	for _, node := range nodes {
		if node.GetName() == host && fitsPort(node, port) {
			// A UUID is one node's, whatever others call themselves.
			return node, nil
		}
		if isNamed(node, cluster, host) && fitsPort(node, port) || isAddressed(node, host, port) {
			found = append(found, node)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, trace.NotFound("no node is registered as %q port %d", short(host), port)
	}
	return nil, trace.BadParameter("%d nodes are registered as %q port %d; use the UUID of the one that you mean, or its address and port", len(found), short(host), port)
}

// isNamed tells whether host is the node's name, or its name and the cluster's.
// As in DNS, case means nothing.
func isNamed(node types.Server, cluster, host string) bool {
	name := node.GetHostname()
	return name != "" && (strings.EqualFold(name, host) || strings.EqualFold(name+"."+cluster, host))
}

// fitsPort tells whether a client that gives the node's name may mean it with
// this port.
func fitsPort(node types.Server, port uint32) bool {
	if port == 0 || port == defaultPort {
		return true
	}
	_, registered, ok := address(node)
	return ok && port == registered
}

// isAddressed tells whether host and port are those that the node registered.
// An IP address may be written in several ways. A name is compared only: looking
// it up would let clients make the proxy ask for names of their choice.
func isAddressed(node types.Server, host string, port uint32) bool {
	registeredHost, registeredPort, ok := address(node)
	if !ok || port != registeredPort {
		return false
	}
	if registered, err := netip.ParseAddr(registeredHost); err == nil {
		given, err := netip.ParseAddr(host)
		return err == nil && given.Unmap() == registered.Unmap()
	}
	return registeredHost != "" && strings.EqualFold(registeredHost, host)
}

// address splits what the node registered.
func address(node types.Server) (host string, port uint32, ok bool) {
	host, text, err := net.SplitHostPort(node.GetAddr())
	if err != nil {
		return "", 0, false
	}
	number, err := strconv.ParseUint(text, 10, 16)
	return host, uint32(number), err == nil
}

// short returns at most maxShownHost bytes of what a client gave.
func short(text string) string {
	return text[:min(len(text), maxShownHost)]
}
