// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The list of nodes, from the auth service through the proxy.

package client

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode"

	apiclient "github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// NodeFilter is which nodes are meant: those that have all labels, and all words
// somewhere in their names and labels. The zero value is all nodes.
type NodeFilter struct {
	Labels map[string]string
	Search []string
}

// ParseLabels reads labels as users write them: key=value, several with commas
// between them or one after the other. The error is trace.BadParameter.
func ParseLabels(texts []string) (map[string]string, error) {
	labels := make(map[string]string)
	for _, text := range texts {
		for pair := range strings.SplitSeq(text, ",") {
			key, value, ok := strings.Cut(pair, "=")
			key, value = strings.TrimSpace(key), strings.TrimSpace(value)
			if !ok || key == "" || strings.ContainsFunc(pair, unicode.IsControl) {
				return nil, trace.BadParameter("%q is not a label: give it as key=value", pair)
			}
			if before, twice := labels[key]; twice && before != value {
				return nil, trace.BadParameter("the label %q is to be %q and %q: no node has both", key, before, value)
			}
			labels[key] = value
		}
	}
	return labels, nil
}

// OpenAPI connects to the auth service with the login of p: through the web port
// of the proxy, which hands it on, and with the cluster's own authorities. Close
// the client after use.
func OpenAPI(ctx context.Context, p *Profile) (*apiclient.Client, error) {
	client, err := apiclient.New(ctx, apiclient.Config{
		Addrs:                      []string{p.WebProxyAddr},
		Credentials:                []apiclient.Credentials{apiclient.LoadProfile(p.Dir, p.Name())},
		ALPNSNIAuthDialClusterName: p.SiteName,
		// One way to connect, and its error, in place of one for each that could
		// be tried.
		DialInBackground: true,
		Context:          ctx,
	})
	return client, trace.Wrap(err)
}

// ListNodes returns the nodes that the user may see and the filter lets through,
// by name. The error is an OutdatedError where the login is older than the
// cluster's authorities.
func ListNodes(ctx context.Context, p *Profile, filter NodeFilter) ([]types.Server, error) {
	client, err := OpenAPI(ctx, p)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, defaults.DefaultIOTimeout)
	defer cancel()
	nodes, err := apiclient.GetAllResources[types.Server](ctx, client, &proto.ListResourcesRequest{
		ResourceType:   types.KindNode,
		Namespace:      defaults.Namespace,
		Labels:         filter.Labels,
		SearchKeywords: filter.Search,
	})
	if trace.IsConnectionProblem(err) {
		if err := CheckLogin(ctx, p); err != nil {
			return nil, trace.Wrap(err)
		}
		return nil, trace.ConnectionProblem(nil, "cannot ask the cluster for its nodes through %s: %s", p.WebProxyAddr, Clean(lastReason(trace.UserMessage(err))))
	}
	if err != nil {
		return nil, trace.Wrap(err, "the cluster does not list its nodes")
	}
	slices.SortStableFunc(nodes, func(a, b types.Server) int {
		if order := strings.Compare(a.GetHostname(), b.GetHostname()); order != 0 {
			return order
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
	return nodes, nil
}

// lastReason is the end of a chain of errors as gRPC writes it, which is where
// the cause stands.
func lastReason(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	for _, mark := range []string{"desc = ", "Error while dialing: ", "transport: "} {
		if i := strings.LastIndex(text, mark); i >= 0 {
			text = text[i+len(mark):]
		}
	}
	text = strings.Trim(strings.TrimSpace(text), `"`)
	if strings.HasSuffix(text, ": EOF") {
		// The proxy has nobody to hand the connection on to.
		return "the auth service does not answer"
	}
	return text
}

// NodeLabels are a node's labels as text, sorted: "env=prod,os=debian".
func NodeLabels(node types.Server) string {
	labels := node.GetAllLabels()
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}
