// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Watchers: who is told of changes to resources as they happen.

package auth

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

// watched is how the changes of one kind of resource are read from the store.
type watched struct {
	kind string
	// prefix is that of the keys. It is empty for settings that never change.
	prefix string
	// read returns the resource of an item.
	read func(backend.Item) (types.Resource, error)
	// name returns the name and the sub kind of what had the key.
	name func(part string) (name, subKind string, err error)
}

func watchedKinds() []watched {
	return []watched{
		watchedCollection(types.KindUser, userCollection()),
		watchedCollection(types.KindRole, roleCollection()),
		watchedCollection(types.KindToken, tokenCollection()),
		watchedCollection(types.KindNode, nodeCollection()),
		watchedCollection(types.KindProxy, proxyCollection()),
		watchedCollection(types.KindLock, lockCollection()),
		{kind: types.KindCertAuthority, prefix: authoritiesPrefix, read: readAuthority, name: authorityName},
		{kind: types.KindClusterName, prefix: clusterNameKey, read: readClusterName, name: fixedName(types.MetaNameClusterName)},
		{
			kind:   types.KindClusterAuthPreference,
			prefix: clusterConfigPrefix + authPreferenceName,
			read:   readAny(authPreferenceCollection()),
			name:   fixedName(types.MetaNameClusterAuthPreference),
		},
		{kind: types.KindClusterNetworkingConfig},
		{kind: types.KindSessionRecordingConfig},
		{kind: types.KindClusterAuditConfig},
	}
}

// authoritiesPrefix is where the store has the authorities.
const authoritiesPrefix = "/authorities/"

func watchedCollection[T types.Resource](kind string, c collection[T]) watched {
	return watched{kind: kind, prefix: c.prefix, read: readAny(c), name: func(part string) (string, string, error) {
		name, err := unescapeKey(part)
		return name, "", trace.Wrap(err)
	}}
}

func readAny[T types.Resource](c collection[T]) func(backend.Item) (types.Resource, error) {
	return func(item backend.Item) (types.Resource, error) {
		resource, err := c.decode(item)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		return resource, nil
	}
}

func fixedName(name string) func(string) (string, string, error) {
	return func(string) (string, string, error) { return name, "", nil }
}

// readAuthority leaves the private keys out, sealed as they are.
func readAuthority(item backend.Item) (types.Resource, error) {
	authority := &types.CertAuthorityV2{}
	if err := json.Unmarshal(item.Value, authority); err != nil {
		return nil, trace.Wrap(err)
	}
	types.RemoveCASecrets(authority)
	if err := authority.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	authority.SetRevision(item.Revision)
	return authority, nil
}

func authorityName(part string) (name, subKind string, err error) {
	kind, cluster, ok := strings.Cut(part, "/")
	if !ok {
		return "", "", trace.BadParameter("the key %q of an authority cannot be read", part)
	}
	name, err = unescapeKey(cluster)
	return name, kind, trace.Wrap(err)
}

func readClusterName(item backend.Item) (types.Resource, error) {
	return clusterNameResource(string(item.Value)), nil
}

// NewWatcher tells of changes to the kinds of resources that watch names: user,
// role, token, node, proxy, lock, cert_authority, cluster_name and the settings of the
// cluster. The first event is OpInit, with the kinds that are watched, and what
// is read from the store after it is not older than what the watcher tells of.
// Of what was removed or has expired, the event has a types.ResourceHeader.
//
// The error is trace.NotImplemented for another kind, which is left out where
// watch.AllowPartialSuccess is set, and for secrets: authorities come without
// their private keys. A watcher whose reader is too slow ends with an error.
func (s *Server) NewWatcher(ctx context.Context, watch types.Watch) (types.Watcher, error) {
	var kinds []types.WatchKind
	var sources []watched
	var prefixes []string
	known := map[string]watched{}
	for _, each := range watchedKinds() {
		known[each.kind] = each
	}
	for _, kind := range watch.Kinds {
		source, ok := known[kind.Kind]
		switch {
		case ok && !kind.LoadSecrets:
		case watch.AllowPartialSuccess:
			continue
		case ok:
			return nil, trace.NotImplemented("a watcher of %q carries no secrets: watch without them", kind.Kind)
		default:
			return nil, trace.NotImplemented("resources of the kind %q cannot be watched", cutTo(kind.Kind, MaxNameLength))
		}
		kinds = append(kinds, kind)
		if source.prefix != "" {
			sources = append(sources, source)
			prefixes = append(prefixes, source.prefix)
		}
	}
	if len(kinds) == 0 {
		return nil, trace.BadParameter("a watcher is to watch nothing: name a kind of resource")
	}
	if len(prefixes) == 0 {
		// None of these change, and none given would be all.
		prefixes = []string{clusterConfigPrefix + authPreferenceName}
	}
	ctx, cancel := context.WithCancel(ctx)
	changes, err := s.store.Watch(ctx, prefixes...)
	if err != nil {
		cancel()
		return nil, trace.Wrap(err)
	}
	w := &watcher{
		kinds:   kinds,
		sources: sources,
		changes: changes,
		events:  make(chan types.Event),
		done:    make(chan struct{}),
		cancel:  cancel,
		leftOut: s.leftOut,
	}
	go w.run(ctx)
	return w, nil
}

type watcher struct {
	kinds   []types.WatchKind
	sources []watched
	changes backend.Watcher
	events  chan types.Event
	done    chan struct{}
	cancel  context.CancelFunc
	leftOut func(error)

	mu  sync.Mutex
	err error
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	defer w.changes.Close() //nolint:errcheck // Err has said why it ended
	defer w.cancel()
	w.end(w.forward(ctx))
}

func (w *watcher) forward(ctx context.Context) error {
	if !w.send(ctx, types.Event{Type: types.OpInit, Resource: types.NewWatchStatus(w.kinds)}) {
		return ctx.Err()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case change, ok := <-w.changes.Events():
			if !ok {
				if err := w.changes.Err(); err != nil {
					return trace.Wrap(err)
				}
				return trace.ConnectionProblem(nil, "the store was closed")
			}
			event, err := w.read(change)
			if err != nil {
				w.leftOut(trace.Wrap(err, "reading the change of %q", change.Item.Key))
				continue
			}
			if event.Resource == nil || !w.wanted(event) {
				continue
			}
			if !w.send(ctx, event) {
				return ctx.Err()
			}
		}
	}
}

func (w *watcher) send(ctx context.Context, event types.Event) bool {
	select {
	case w.events <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

// read returns no resource for a key that is none of ours.
func (w *watcher) read(change backend.Event) (types.Event, error) {
	for _, source := range w.sources {
		part, ok := strings.CutPrefix(change.Item.Key, source.prefix)
		if !ok {
			continue
		}
		if change.Type == backend.Put {
			resource, err := source.read(change.Item)
			if err != nil {
				return types.Event{}, trace.Wrap(err)
			}
			return types.Event{Type: types.OpPut, Resource: resource}, nil
		}
		name, subKind, err := source.name(part)
		if err != nil {
			return types.Event{}, trace.Wrap(err)
		}
		return types.Event{Type: types.OpDelete, Resource: &types.ResourceHeader{
			Kind:     source.kind,
			SubKind:  subKind,
			Version:  types.V2,
			Metadata: types.Metadata{Name: name},
		}}, nil
	}
	return types.Event{}, nil
}

// wanted also lets through what a filter cannot be applied to.
func (w *watcher) wanted(event types.Event) bool {
	for _, kind := range w.kinds {
		if matches, err := kind.Matches(event); err != nil || matches {
			return true
		}
	}
	return false
}

func (w *watcher) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// Events returns the channel of events. It is never closed: see Done.
func (w *watcher) Events() <-chan types.Event { return w.events }

// Done returns a channel that is closed when the watcher has ended.
func (w *watcher) Done() <-chan struct{} { return w.done }

// Error returns why the watcher ended, and nil before.
func (w *watcher) Error() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close ends the watcher, and returns when it has.
func (w *watcher) Close() error {
	w.cancel()
	<-w.done
	return nil
}
