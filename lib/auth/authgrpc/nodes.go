// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Nodes and proxies: their registration, and the lists of them.

package authgrpc

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"google.golang.org/protobuf/types/known/emptypb"
)

// maxListBytes bounds one page: clients take 4 MB.
const maxListBytes = 3 << 20

// checkNamespace takes the one namespace that there is, under both its names.
func checkNamespace(namespace string) error {
	if namespace != "" && namespace != defaults.Namespace {
		return trace.NotFound("there is no namespace %q: there is only %q", namespace, defaults.Namespace)
	}
	return nil
}

// UpsertNode lets a node or a proxy register itself, and nobody else. It must come
// again before its registration expires. Teleport's client has no call of its own
// for proxies, and passes on what it is given.
func (s *authService) UpsertNode(ctx context.Context, node *types.ServerV2) (*types.KeepAlive, error) {
	if err := checkNamespace(node.GetNamespace()); err != nil {
		return nil, trace.Wrap(err)
	}
	upsert := s.cfg.Auth.UpsertNode
	if node.GetKind() == types.KindProxy {
		upsert = s.cfg.Auth.UpsertProxy
	}
	if c := callerOf(ctx); !c.isAdmin() && !c.isUser() || node.GetKind() == types.KindProxy {
		kinds := map[types.SystemRole]string{types.RoleNode: types.KindNode, types.RoleProxy: types.KindProxy}
		if !c.isAdmin() && (kinds[c.role] != node.GetKind() || node.GetName() != c.hostID) {
			return nil, trace.AccessDenied("%s may register itself, and not the %s %q", c, node.GetKind(), node.GetName())
		}
		latest := s.cfg.Clock.Now().Add(defaults.ServerAnnounceTTL).UTC()
		if node.Expiry().IsZero() || node.Expiry().After(latest) {
			node.SetExpiry(latest)
		}
	}
	if err := upsert(ctx, node); err != nil {
		return nil, trace.Wrap(err)
	}
	return &types.KeepAlive{
		Type:      types.KeepAlive_NODE,
		Name:      node.GetName(),
		Namespace: defaults.Namespace,
		Expires:   node.Expiry(),
	}, nil
}

// GetNode answers for a node that the caller cannot see as for one that is not
// there.
func (s *authService) GetNode(ctx context.Context, req *types.ResourceInNamespaceRequest) (*types.ServerV2, error) {
	if err := checkNamespace(req.Namespace); err != nil {
		return nil, trace.Wrap(err)
	}
	node, err := sent[*types.ServerV2](s.cfg.Auth.GetNode(ctx, req.Name))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if !callerOf(ctx).sees(node) {
		return nil, trace.NotFound("the node %q was not found", req.Name)
	}
	return node, nil
}

// sees tells whether a list may show the node to the caller.
func (c *caller) sees(node types.Server) bool {
	return !c.isUser() || c.checker.CanSeeNode(node.GetAllLabels())
}

func (s *authService) DeleteNode(ctx context.Context, req *types.ResourceInNamespaceRequest) (*emptypb.Empty, error) {
	if err := checkNamespace(req.Namespace); err != nil {
		return nil, trace.Wrap(err)
	}
	return nothing(s.cfg.Auth.DeleteNode(ctx, req.Name))
}

func (s *authService) DeleteAllNodes(ctx context.Context, req *types.ResourcesInNamespaceRequest) (*emptypb.Empty, error) {
	if err := checkNamespace(req.Namespace); err != nil {
		return nil, trace.Wrap(err)
	}
	return nothing(s.cfg.Auth.DeleteAllNodes(ctx))
}

// ListResources lists nodes or proxies: those that the caller sees, with all the
// labels and search words, by name or as SortBy says, page by page. Proxies come as
// nodes of their own kind, since the answer has no other place for them; Teleport's
// client asks for them with a call that its API has not declared.
func (s *authService) ListResources(ctx context.Context, req *proto.ListResourcesRequest) (*proto.ListResourcesResponse, error) {
	if err := req.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := checkListRequest(req); err != nil {
		return nil, trace.Wrap(err)
	}
	order, err := nodeOrder(req.SortBy)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	c := callerOf(ctx)
	if err := c.mayList(req.ResourceType); err != nil {
		return nil, trace.Wrap(err)
	}
	list, sees := s.cfg.Auth.Nodes, func(node types.Server) bool { return c.sees(node) && node.MatchSearch(req.SearchKeywords) }
	if req.ResourceType == types.KindProxy {
		list, sees = s.cfg.Auth.Proxies, func(types.Server) bool { return true }
	}
	all, err := list(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var nodes []*types.ServerV2
	for _, each := range all {
		node, err := as[*types.ServerV2](each)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		if sees(node) && types.MatchLabels(node, req.Labels) {
			nodes = append(nodes, node)
		}
	}
	slices.SortFunc(nodes, func(a, b *types.ServerV2) int { return order.compare(order.place(a), order.place(b)) })
	return s.nodePage(c, req, order, nodes)
}

// mayList returns trace.AccessDenied for a kind that the caller may not list.
func (c *caller) mayList(kind string) error {
	switch {
	case c.isUser() && kind == types.KindProxy:
		return c.may(kind, types.VerbList, types.VerbRead)
	case c.role == types.RoleNode && kind == types.KindNode:
		return trace.AccessDenied("%s may not list nodes", c)
	}
	return nil
}

func checkListRequest(req *proto.ListResourcesRequest) error {
	switch {
	case req.ResourceType != types.KindNode && req.ResourceType != types.KindProxy:
		return trace.NotImplemented("resources of the kind %q cannot be listed: there are only nodes and proxies", req.ResourceType)
	case req.ResourceType == types.KindProxy && len(req.SearchKeywords) > 0:
		return trace.NotImplemented("proxies are not found by words: use labels")
	case req.PredicateExpression != "":
		return trace.NotImplemented("predicate expressions are not supported: use labels and search keywords")
	case req.UseSearchAsRoles, req.UsePreviewAsRoles:
		return trace.NotImplemented("resources that could be requested are not listed: nothing can be requested")
	}
	return checkNamespace(req.Namespace)
}

func (s *authService) nodePage(c *caller, req *proto.ListResourcesRequest, order nodeSort, nodes []*types.ServerV2) (*proto.ListResourcesResponse, error) {
	response := &proto.ListResourcesResponse{}
	if req.NeedTotalCount {
		response.TotalCount = int32(len(nodes)) //nolint:gosec // more nodes than that there are not
	}
	limit := min(int(req.Limit), defaults.DefaultChunkSize)
	size := 0
	if req.StartKey != "" {
		start, err := order.parse(req.StartKey)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		nodes = nodes[slices.IndexFunc(append(nodes, nil), func(node *types.ServerV2) bool {
			return node == nil || order.compare(order.place(node), start) >= 0
		}):]
	}
	for i, node := range nodes {
		size += node.Size()
		if i == limit || i > 0 && size > maxListBytes {
			response.NextKey = order.place(node).String()
			break
		}
		resource := &proto.PaginatedResource{Resource: &proto.PaginatedResource_Node{Node: node}}
		if req.IncludeLogins && c.isUser() && node.GetKind() == types.KindNode {
			for _, login := range c.checker.Logins() {
				if c.checker.CheckNode(login, node.GetAllLabels()) == nil {
					resource.Logins = append(resource.Logins, login)
				}
			}
		}
		response.Resources = append(response.Resources, resource)
	}
	return response, nil
}

// place is where a node stands in a list: by what the list is sorted by, and
// then by its name, which no two share.
type place struct{ value, name string }

// String is how a place is named as the start of the next page. Names of nodes
// have no slash.
func (p place) String() string { return p.value + "/" + p.name }

type nodeSort struct {
	value      func(*types.ServerV2) string
	descending bool
}

func nodeOrder(by types.SortBy) (nodeSort, error) {
	order := nodeSort{descending: by.IsDesc}
	switch by.Field {
	case "", types.ResourceMetadataName:
		order.value = func(*types.ServerV2) string { return "" }
	case types.ResourceSpecHostname:
		order.value = (*types.ServerV2).GetHostname
	case types.ResourceSpecAddr:
		order.value = (*types.ServerV2).GetAddr
	default:
		return nodeSort{}, trace.NotImplemented("nodes cannot be sorted by %q: use %s, %s or %s", by.Field, types.ResourceMetadataName, types.ResourceSpecHostname, types.ResourceSpecAddr)
	}
	return order, nil
}

func (o nodeSort) place(node *types.ServerV2) place {
	return place{value: o.value(node), name: node.GetName()}
}

func (o nodeSort) parse(key string) (place, error) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return place{}, trace.BadParameter("%q is not where a list can go on: use what the last page returned", key)
	}
	return place{value: key[:i], name: key[i+1:]}, nil
}

func (o nodeSort) compare(a, b place) int {
	result := cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.name, b.name))
	if o.descending {
		return -result
	}
	return result
}
