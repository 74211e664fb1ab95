// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What is known at one moment, in memory and on disk.

package cache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/disk"
)

// snapshot is never changed once it is in force, only replaced. The slices are
// sorted by name.
type snapshot struct {
	Authorities []*types.CertAuthorityV2 `json:"authorities"`
	Roles       []*types.RoleV6          `json:"roles"`
	LockList    []*types.LockV2          `json:"locks"`
	Nodes       []*types.ServerV2        `json:"nodes"`
	Proxies     []*types.ServerV2        `json:"proxies,omitempty"`
	Preference  *types.AuthPreferenceV2  `json:"preference,omitempty"`
}

func (s *snapshot) clone() *snapshot {
	return &snapshot{
		Authorities: slices.Clone(s.Authorities),
		Roles:       slices.Clone(s.Roles),
		LockList:    slices.Clone(s.LockList),
		Nodes:       slices.Clone(s.Nodes),
		Proxies:     slices.Clone(s.Proxies),
		Preference:  s.Preference,
	}
}

func (s *snapshot) authorities(kind types.CertAuthType) []types.CertAuthority {
	var cas []types.CertAuthority
	for _, ca := range s.Authorities {
		if ca.GetType() == kind {
			cas = append(cas, ca)
		}
	}
	return cas
}

func (s *snapshot) locks() []types.Lock {
	locks := make([]types.Lock, len(s.LockList))
	for i, lock := range s.LockList {
		locks[i] = lock
	}
	return locks
}

// servers is where those of a kind are, nil for a kind that is not kept.
func (s *snapshot) servers(kind string) *[]*types.ServerV2 {
	switch kind {
	case types.KindNode:
		return &s.Nodes
	case types.KindProxy:
		return &s.Proxies
	}
	return nil
}

// put adds or replaces a resource, and returns its kind; empty for one that is
// not kept.
func (s *snapshot) put(resource types.Resource) string {
	switch resource := resource.(type) {
	case *types.CertAuthorityV2:
		s.Authorities = insert(s.Authorities, resource, authorityID(resource))
		return types.KindCertAuthority
	case *types.RoleV6:
		s.Roles = insert(s.Roles, resource, named[*types.RoleV6](resource.GetName()))
		return types.KindRole
	case *types.LockV2:
		s.LockList = insert(s.LockList, resource, named[*types.LockV2](resource.GetName()))
		return types.KindLock
	case *types.ServerV2:
		servers := s.servers(resource.GetKind())
		if servers == nil {
			return ""
		}
		*servers = insert(*servers, resource, named[*types.ServerV2](resource.GetName()))
		return resource.GetKind()
	case *types.AuthPreferenceV2:
		s.Preference = resource
		return types.KindClusterAuthPreference
	}
	return ""
}

// remove takes away what the header of an event names.
func (s *snapshot) remove(header types.Resource) string {
	name := header.GetName()
	switch header.GetKind() {
	case types.KindCertAuthority:
		id := header.GetSubKind() + "/" + name
		s.Authorities = without(s.Authorities, func(ca *types.CertAuthorityV2) int {
			return strings.Compare(string(ca.GetType())+"/"+ca.GetClusterName(), id)
		})
	case types.KindRole:
		s.Roles = without(s.Roles, named[*types.RoleV6](name))
	case types.KindLock:
		s.LockList = without(s.LockList, named[*types.LockV2](name))
	case types.KindNode, types.KindProxy:
		servers := s.servers(header.GetKind())
		*servers = without(*servers, named[*types.ServerV2](name))
	default:
		return ""
	}
	return header.GetKind()
}

func named[T types.Resource](name string) func(T) int {
	return func(other T) int { return strings.Compare(other.GetName(), name) }
}

func authorityID(ca *types.CertAuthorityV2) func(*types.CertAuthorityV2) int {
	id := string(ca.GetType()) + "/" + ca.GetClusterName()
	return func(other *types.CertAuthorityV2) int {
		return strings.Compare(string(other.GetType())+"/"+other.GetClusterName(), id)
	}
}

// find is where what compare has as 0 stands, or would.
func find[T any](all []T, compare func(T) int) (int, bool) {
	return slices.BinarySearchFunc(all, struct{}{}, func(other T, _ struct{}) int { return compare(other) })
}

func insert[T any](all []T, one T, compare func(T) int) []T {
	at, found := find(all, compare)
	if found {
		all[at] = one
		return all
	}
	return slices.Insert(all, at, one)
}

func without[T any](all []T, compare func(T) int) []T {
	if at, found := find(all, compare); found {
		return slices.Delete(all, at, at+1)
	}
	return all
}

// keepNodes takes over the nodes and proxies of old that are not listed any more, for
// a while: their registrations may have ended while there was nobody to renew them
// with.
func (s *snapshot) keepNodes(old *snapshot, until time.Time) {
	for _, node := range slices.Concat(old.Nodes, old.Proxies) {
		if _, found := find(*s.servers(node.GetKind()), named[*types.ServerV2](node.GetName())); found {
			continue
		}
		kept := node.DeepCopy().(*types.ServerV2)
		kept.SetExpiry(until)
		s.put(kept)
	}
}

func (s *snapshot) write(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return trace.Wrap(err)
	}
	return trace.Wrap(disk.Replace(path, text, 0o600))
}

// readSnapshot reads what write wrote. The error is trace.NotFound where there is
// none.
func readSnapshot(path string) (*snapshot, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trace.NotFound("%s does not exist", path)
	}
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	var kept snapshot
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, trace.BadParameter("%s cannot be read: %v", path, err)
	}
	// As if each had just come, so that all is in order and whole.
	known := &snapshot{}
	for _, ca := range kept.Authorities {
		if err := ca.CheckAndSetDefaults(); err != nil {
			return nil, trace.BadParameter("%s has an authority that cannot be used: %v", path, err)
		}
		known.put(ca)
	}
	for _, role := range kept.Roles {
		if err := role.CheckAndSetDefaults(); err != nil {
			return nil, trace.BadParameter("%s has a role that cannot be used: %v", path, err)
		}
		known.put(role)
	}
	for _, lock := range kept.LockList {
		if err := lock.CheckAndSetDefaults(); err != nil {
			return nil, trace.BadParameter("%s has a lock that cannot be used: %v", path, err)
		}
		known.put(lock)
	}
	for _, node := range slices.Concat(kept.Nodes, kept.Proxies) {
		if err := node.CheckAndSetDefaults(); err != nil {
			return nil, trace.BadParameter("%s has a node or a proxy that cannot be used: %v", path, err)
		}
		known.put(node)
	}
	if kept.Preference != nil {
		if err := kept.Preference.CheckAndSetDefaults(); err != nil {
			return nil, trace.BadParameter("%s has an auth preference that cannot be used: %v", path, err)
		}
		known.put(kept.Preference)
	}
	if len(known.Authorities) == 0 {
		return nil, trace.BadParameter("%s has no authorities", path)
	}
	return known, nil
}
