// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Which keys a host has, and whose names a node must not have. A token says that
// some host may join, not which: without this, whoever has one could join as a
// host that is there already.

package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

// hostBindingsPrefix is followed by the role and the host's id.
const hostBindingsPrefix = "/host_bindings/"

// hostBinding is what is kept of a host that was certified in a role. It stays
// until an operator removes the host.
type hostBinding struct {
	// Keys is the hash of both public keys.
	Keys string `json:"keys"`
	// Names are those of the latest certificates, which end at Until. They are
	// kept of proxies and auth servers, whose names no node may have.
	Names []string  `json:"names,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

func bindingKey(role types.SystemRole, hostID string) string {
	return hostBindingsPrefix + strings.ToLower(string(role)) + "/" + escapeKey(strings.ToLower(hostID))
}

// infrastructure are the roles whose names are theirs alone.
func infrastructure() []types.SystemRole { return []types.SystemRole{types.RoleProxy, types.RoleAuth} }

// keysHash does not depend on how the keys were written.
func (h *hostCerts) keysHash() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(h.tlsKey)
	if err != nil {
		return "", trace.Wrap(err)
	}
	hash := sha256.New()
	for _, key := range [][]byte{h.ssh.PublicKey.Marshal(), der} {
		sum := sha256.Sum256(key)
		hash.Write(sum[:])
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// otherKeys is the error for a host that comes with other keys than before.
func otherKeys(req HostCertRequest) error {
	return trace.AccessDenied("a %s with the host id %s has joined before, with other keys: if this is that host, an operator removes the old one with tctl rm node/%s, and else take away host_uuid in this host's data_dir, and the next start makes one",
		strings.ToLower(string(req.Role)), req.HostID, req.HostID)
}

func isOtherKeys(err error) bool {
	return trace.IsAccessDenied(err) && strings.Contains(err.Error(), "has joined before, with other keys")
}

// binding returns trace.NotFound for a host that was never certified in the role.
func (s *Server) binding(ctx context.Context, role types.SystemRole, hostID string) (hostBinding, backend.Item, error) {
	item, err := s.store.Get(ctx, bindingKey(role, hostID))
	if err != nil {
		return hostBinding{}, backend.Item{}, trace.Wrap(err)
	}
	var bound hostBinding
	if err := json.Unmarshal(item.Value, &bound); err != nil || bound.Keys == "" {
		// It has keys: which is not known.
		return hostBinding{}, backend.Item{}, trace.AccessDenied("which keys the host %s has cannot be read: remove it with tctl rm node/%s", hostID, hostID)
	}
	return bound, item, nil
}

// checkBinding refuses a host that comes with other keys than before. It writes
// nothing: a token is not to be spent on a refusal.
func (s *Server) checkBinding(ctx context.Context, req *hostCerts) error {
	keys, err := req.keysHash()
	if err != nil {
		return trace.Wrap(err)
	}
	bound, _, err := s.binding(ctx, req.ssh.Role, req.ssh.HostID)
	if trace.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return trace.Wrap(err)
	}
	if bound.Keys != keys {
		return otherKeys(req.ssh)
	}
	return nil
}

// checkSameHost refuses a node that joins under the id of a proxy or an auth
// server, unless the same token let that in: nothing else shows that both are one
// host.
func (s *Server) checkSameHost(ctx context.Context, token *types.ProvisionTokenV2, req HostCertRequest) error {
	if req.Role != types.RoleNode {
		return nil
	}
	if _, _, err := s.binding(ctx, req.Role, req.HostID); !trace.IsNotFound(err) {
		return trace.Wrap(err) // its keys have shown who it is
	}
	for _, role := range infrastructure() {
		_, _, err := s.binding(ctx, role, req.HostID)
		if trace.IsNotFound(err) {
			continue
		}
		if err != nil {
			return trace.Wrap(err)
		}
		item, err := s.store.Get(ctx, tokensUsedPrefix+escapeKey(token.GetName()))
		if err != nil && !trace.IsNotFound(err) {
			return trace.Wrap(err)
		}
		if err == nil {
			if use, err := readTokenUse(item); err == nil && use.HostID == req.HostID && use.Keys[role] != "" {
				return nil
			}
		}
		return trace.AccessDenied("the host id %s is that of a %s, and this token did not let it in: if this is the same host, an operator lets it join anew after tctl rm node/%s", req.HostID, strings.ToLower(string(role)), req.HostID)
	}
	return nil
}

// bindHost writes down the keys of a host before the first certificate for them.
// Of two that come at once with different keys the store takes one.
func (s *Server) bindHost(ctx context.Context, req *hostCerts) error {
	keys, err := req.keysHash()
	if err != nil {
		return trace.Wrap(err)
	}
	wanted := hostBinding{Keys: keys}
	if req.ssh.Role != types.RoleNode {
		wanted.Names = slices.Concat(s.hostPrincipals(req.ssh), req.names)
		wanted.Until = s.clock.Now().Add(req.ssh.TTL).UTC()
	}
	value, err := json.Marshal(wanted)
	if err != nil {
		return trace.Wrap(err)
	}
	key := bindingKey(req.ssh.Role, req.ssh.HostID)
	for range maxRaces {
		bound, item, err := s.binding(ctx, req.ssh.Role, req.ssh.HostID)
		switch {
		case trace.IsNotFound(err):
			err = s.store.Create(ctx, backend.Item{Key: key, Value: value})
		case err != nil:
			return trace.Wrap(err)
		case bound.Keys != keys:
			return otherKeys(req.ssh)
		case req.ssh.Role == types.RoleNode:
			return nil
		default:
			item.Value = value
			_, err = s.store.CompareAndSwap(ctx, item)
		}
		if err == nil {
			return nil
		}
		if !trace.IsAlreadyExists(err) && !trace.IsCompareFailed(err) {
			return trace.Wrap(err)
		}
	}
	return trace.LimitExceeded("many ask for certificates of the host %s at once: try again", req.ssh.HostID)
}

// unbindHost forgets a host's keys in all roles, and tells whether there were any.
func (s *Server) unbindHost(ctx context.Context, hostID string) (bool, error) {
	found := false
	for _, role := range append(infrastructure(), types.RoleNode) {
		err := s.store.Delete(ctx, bindingKey(role, hostID))
		if err != nil && !trace.IsNotFound(err) {
			return found, trace.Wrap(err)
		}
		found = found || err == nil
	}
	return found, nil
}

// checkNames refuses a node that asks for a name of a proxy or an auth server on
// another host. Their addresses are left out: hosts behind one NAT have the same,
// and one may be a bridge that every host has. Nodes may be named alike.
func (s *Server) checkNames(ctx context.Context, req *hostCerts) error {
	if req.ssh.Role != types.RoleNode {
		return nil
	}
	taken, err := s.namesTaken(ctx, req.ssh.HostID)
	if err != nil {
		return trace.Wrap(err)
	}
	isTaken := func(name string) bool { return taken[canonicalName(name)] != "" }
	leave := func(name string) bool { return isAddress(name) && isTaken(name) }
	if out := slices.Concat(req.ssh.Principals, req.names); slices.ContainsFunc(out, leave) {
		s.log.Infof("The certificate of the node %q is not for the addresses that it shares with a proxy.", req.ssh.NodeName)
	}
	req.ssh.Principals = slices.DeleteFunc(slices.Clone(req.ssh.Principals), leave)
	req.names = slices.DeleteFunc(slices.Clone(req.names), leave)
	for _, name := range slices.Concat(s.hostPrincipals(req.ssh), req.names) {
		if isTaken(name) {
			return trace.AccessDenied("the name %q is that of a proxy or an auth server on another host, %s, and cannot be a node's: give the node another nodename or public_addr, or, where that host is gone, remove it with tctl rm node/%s",
				name, taken[canonicalName(name)], taken[canonicalName(name)])
		}
	}
	return nil
}

// namesTaken are the names of proxies and auth servers, with the ids of their
// hosts, except those of the host itself and those that every host has.
func (s *Server) namesTaken(ctx context.Context, hostID string) (map[string]string, error) {
	taken := map[string]string{}
	take := func(owner string, names ...string) {
		if strings.EqualFold(owner, hostID) {
			return
		}
		for _, name := range names {
			if name = canonicalName(name); !isLocal(name) {
				taken[name] = owner
			}
		}
	}
	for _, role := range infrastructure() {
		prefix := bindingKey(role, "")
		items, err := s.store.Range(ctx, prefix, "", 0)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		for _, item := range items {
			var bound hostBinding
			owner, err := unescapeKey(strings.TrimPrefix(item.Key, prefix))
			if err != nil || json.Unmarshal(item.Value, &bound) != nil || s.clock.Now().After(bound.Until) {
				continue
			}
			take(owner, bound.Names...)
		}
	}
	proxies, err := proxyCollection().all(ctx, s.store, s.leftOut)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	for _, proxy := range proxies {
		names := []string{proxy.GetName(), s.inCluster(proxy.GetName()), proxy.GetHostname(), s.inCluster(proxy.GetHostname())}
		if host, _, err := net.SplitHostPort(proxy.GetAddr()); err == nil {
			names = append(names, host)
		}
		take(proxy.GetName(), names...)
	}
	return taken, nil
}

// checkUUIDs refuses names that look like the id of another host.
func (s *Server) checkUUIDs(req *hostCerts) error {
	for _, name := range slices.Concat(s.hostPrincipals(req.ssh), req.names) {
		id, _ := strings.CutSuffix(canonicalName(name), "."+strings.ToLower(s.clusterName))
		if _, err := uuid.Parse(id); err == nil && len(id) == len(uuid.Nil.String()) && !strings.EqualFold(id, req.ssh.HostID) {
			return trace.BadParameter("the name %q is a host id, and not that of this host, %s: give it another name", name, req.ssh.HostID)
		}
	}
	return nil
}

func canonicalName(name string) string {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// isLocal tells of names and addresses by which every host means itself.
func isLocal(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast()
	}
	return name == "localhost" || strings.HasPrefix(name, "localhost.")
}

// emitOtherKeys writes down that somebody asked for the certificates of a host
// with keys that are not the host's.
func (s *Server) emitOtherKeys(ctx context.Context, req *proto.HostCertsRequest, err error) {
	s.emit(ctx, &apievents.InstanceJoin{
		Metadata:           apievents.Metadata{Type: InstanceJoinEvent, Code: InstanceJoinFailureCode},
		Status:             apievents.Status{Error: trace.UserMessage(err)},
		HostID:             eventText(req.HostID),
		NodeName:           eventText(req.NodeName),
		Role:               eventText(string(req.Role)),
		ConnectionMetadata: apievents.ConnectionMetadata{RemoteAddr: eventText(req.RemoteAddr)},
	})
}
