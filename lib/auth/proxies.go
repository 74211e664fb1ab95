// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The proxies that have registered: where people find the cluster.

package auth

import (
	"context"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

const proxiesPrefix = "/proxies/"

// TunnelAddrLabel is the label of a proxy's registration that says where nodes dial
// in, host:port: types.ServerSpecV2 has no field for it. Without it they do not.
const TunnelAddrLabel = types.TeleportInternalLabelPrefix + "tunnel-addr"

func proxyCollection() collection[*types.ServerV2] {
	return collection[*types.ServerV2]{
		noun:   "proxy",
		prefix: proxiesPrefix,
		fresh:  func() *types.ServerV2 { return &types.ServerV2{} },
		check:  checkProxy,
	}
}

// UpsertProxy registers a proxy, or renews its registration, until its expiry. Its
// name is the host's UUID, its address host:port of its web address, and the label
// TunnelAddrLabel that of its port for tunnels.
//
// The error is trace.BadParameter for a proxy without these, or with a name or
// address that could be read as more than one.
func (s *Server) UpsertProxy(ctx context.Context, proxy types.Server) error {
	server, ok := proxy.(*types.ServerV2)
	if !ok || server == nil {
		return trace.BadParameter("a proxy must be a types.ServerV2, and this is a %T", proxy)
	}
	_, _, err := proxyCollection().upsert(ctx, s.store, server)
	return trace.Wrap(err)
}

func checkProxy(server *types.ServerV2) error {
	if server.GetKind() != types.KindProxy {
		return trace.BadParameter("a proxy is of the kind %q, and this is of the kind %q", types.KindProxy, server.GetKind())
	}
	if err := server.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("proxy id", server.GetName()); err != nil {
		return trace.Wrap(err)
	}
	if err := checkHostName("proxy name", server.GetHostname()); err != nil {
		return trace.Wrap(err)
	}
	if err := checkNodeAddr(server, server.GetAddr()); err != nil {
		return trace.Wrap(err)
	}
	if addr, ok := server.GetLabel(TunnelAddrLabel); ok {
		if err := checkNodeAddr(server, addr); err != nil {
			return trace.Wrap(err)
		}
	}
	return checkNodeLabels(server)
}

// Proxies returns the proxies whose registration has not expired, in the order of
// their UUIDs. One that cannot be read is left out, and named in the log.
func (s *Server) Proxies(ctx context.Context) ([]types.Server, error) {
	servers, err := proxyCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	proxies := make([]types.Server, len(servers))
	for i, server := range servers {
		proxies[i] = server
	}
	return proxies, nil
}

// ProxyAddr returns the web address, host:port, of a proxy that is registered, the
// first by its UUID, so that all links of a cluster look alike; an empty string
// where there is none.
func (s *Server) ProxyAddr(ctx context.Context) string {
	proxies, err := proxyCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		// Links without an address are better than none.
		s.log.WithError(err).Warn("The proxies cannot be read.")
		return ""
	}
	for _, proxy := range proxies {
		return proxy.GetAddr()
	}
	return ""
}
