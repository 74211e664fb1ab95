// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// defaultPort is where ssh goes when it was given no port.
const defaultPort = 22

// maxShownHost is how much of a destination a message repeats.
const maxShownHost = 100

// maxTerms bounds the labels that one destination may ask for.
const maxTerms = 16

// find returns the node that a client means by host and port. The error is one
// line for the client.
func find(nodes []types.Server, cluster, host string, port uint32) (types.Server, error) {
	terms, err := parseLabels(host)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var found []types.Server
	for _, node := range nodes {
		if node.GetName() == host && fitsPort(node, port) {
			// A UUID is one node's, whatever others call themselves.
			return node, nil
		}
		if isNamed(node, cluster, host) && fitsPort(node, port) || isAddressed(node, host, port) || isLabelled(node, terms) && fitsPort(node, port) {
			found = append(found, node)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if _, err := netip.ParseAddr(host); err == nil && port == 0 {
			return nil, trace.NotFound("no node is registered as %s: give the port of its address, too", shown(host, port))
		}
		return nil, trace.NotFound("no node is registered as %s", shown(host, port))
	}
	return nil, trace.BadParameter("%d nodes are registered as %s; use the UUID of the one that you mean, or its address and port", len(found), shown(host, port))
}

// shown is a destination as its client knows it: port 0 is how tsh says that the
// user gave none.
func shown(host string, port uint32) string {
	if port == 0 {
		return strconv.Quote(short(host))
	}
	return fmt.Sprintf("%q port %d", short(host), port)
}

// term is a label that a node must have.
type term struct{ key, value string }

// parseLabels reads a destination of the form key=value, or several with commas or
// pluses between them: newer versions of ssh let no comma through. A plus that no
// key and '=' follow is part of a value. It returns none where host has no '=',
// which is in no name.
func parseLabels(host string) ([]term, error) {
	if !strings.Contains(host, "=") {
		return nil, nil
	}
	var texts []string
	for list := range strings.SplitSeq(host, ",") {
		for i, text := range strings.Split(list, "+") {
			if i > 0 && !strings.Contains(text, "=") {
				texts[len(texts)-1] += "+" + text
			} else {
				texts = append(texts, text)
			}
		}
	}
	var terms []term
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, trace.BadParameter("%q is not a list of labels; give them as key=value,key=value", short(host))
		}
		if len(terms) == maxTerms {
			return nil, trace.BadParameter("a node is found by at most %d labels, and %q has more", maxTerms, short(host))
		}
		terms = append(terms, term{key, value})
	}
	return terms, nil
}

// isLabelled tells whether a node has all the labels that are asked for, if any
// are. ssh turns a host into small letters before it asks, so case means nothing.
func isLabelled(node types.Server, terms []term) bool {
	if len(terms) == 0 {
		return false
	}
	labels := node.GetAllLabels()
	return !slices.ContainsFunc(terms, func(want term) bool { return !hasLabel(labels, want) })
}

func hasLabel(labels map[string]string, want term) bool {
	for key, value := range labels {
		if strings.EqualFold(key, want.key) && strings.EqualFold(value, want.value) {
			return true
		}
	}
	return false
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
