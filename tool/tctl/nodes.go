// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl nodes: the hosts that can be logged in to.

package main

import (
	"context"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	apidefaults "github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// dialsOut stands for the address of a node that is reached through the tunnel
// that it has opened itself.
const dialsOut = "(dials out)"

func (t *tctl) addNodes(app *kingpin.Application, register register) {
	clause := app.Command("nodes", "The nodes of the cluster.").Command("ls", "List the nodes.")
	var format, wanted string
	addFormat(clause, &format)
	clause.Arg("labels", "Only nodes with these labels: key=value,...").StringVar(&wanted)
	register(clause, func(ctx context.Context) error {
		set, err := parseLabels(wanted)
		if err != nil {
			return trace.Wrap(err)
		}
		c, err := t.connect(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		defer c.Close()
		nodes, err := c.GetNodes(ctx, apidefaults.Namespace)
		if err != nil {
			return trace.Wrap(err)
		}
		nodes = slices.DeleteFunc(nodes, func(node types.Server) bool { return !types.MatchLabels(node, set) })
		slices.SortFunc(nodes, func(a, b types.Server) int {
			return strings.Compare(a.GetHostname()+"\x00"+a.GetName(), b.GetHostname()+"\x00"+b.GetName())
		})
		return t.show(format, nodes, func() string {
			rows := make([][]string, 0, len(nodes))
			for _, node := range nodes {
				rows = append(rows, []string{node.GetHostname(), node.GetName(), nodeAddress(node), labels(node.GetAllLabels()), node.GetTeleportVersion()})
			}
			return table([]string{"Host", "UUID", "Address", "Labels", "Version"}, rows)
		})
	})
}

// findNode returns the node of a UUID, or else of a host name that one node has
// alone. The error is trace.NotFound where there is none, and trace.BadParameter
// where several have the name: which is meant is the operator's to say, as nodes
// choose their names themselves.
func (c *cluster) findNode(ctx context.Context, name string) (types.Server, error) {
	node, err := c.GetNode(ctx, apidefaults.Namespace, name)
	if err == nil || !trace.IsNotFound(err) {
		return node, trace.Wrap(err)
	}
	nodes, listErr := c.GetNodes(ctx, apidefaults.Namespace)
	if listErr != nil {
		return nil, trace.Wrap(listErr)
	}
	nodes = slices.DeleteFunc(nodes, func(node types.Server) bool { return node.GetHostname() != name })
	switch len(nodes) {
	case 0:
		return nil, trace.Wrap(err)
	case 1:
		return nodes[0], nil
	}
	ids := make([]string, 0, len(nodes))
	for _, node := range nodes {
		ids = append(ids, node.GetName())
	}
	slices.Sort(ids)
	return nil, trace.BadParameter("%d nodes have the name %q: give the UUID of the one that you mean: %s", len(nodes), name, strings.Join(ids, ", "))
}

func nodeAddress(node types.Server) string {
	if node.GetUseTunnel() || node.GetAddr() == "" {
		return dialsOut
	}
	return node.GetAddr()
}
