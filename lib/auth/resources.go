// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How resources are kept: one key and one JSON value each, with the store's
// revision in what is handed out, so that of two who change the same one the
// second is told.

package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend"
)

const (
	// maxPage bounds what one call that lists resources returns.
	maxPage = 1000

	// maxResourceSize bounds a resource as it is kept. etcd refuses values of
	// 1.5 MB, and gRPC clients answers of 4 MB.
	maxResourceSize = 256 * 1024

	// updateAttempts is how often an update without a revision is tried anew
	// when another writer was faster.
	updateAttempts = 8
)

// collection is the resources of one kind.
type collection[T types.Resource] struct {
	// noun is what an error calls one, such as "role".
	noun string
	// prefix is that of the keys, with a slash at the end.
	prefix string
	// fresh returns an empty one to read into.
	fresh func() T
	// check refuses what must not be kept, and fills in defaults.
	check func(T) error
	// keepExpired is how long one is kept after its expiry, so that it can be
	// said that it expired.
	keepExpired time.Duration
	// secretNames is set where the name is a secret and belongs in no error.
	secretNames bool
}

// escapeKey makes one part of a key of any name: a name cannot reach outside
// its part, and what stands there looks like the name.
func escapeKey(name string) string {
	var out strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '@', c == '-':
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// unescapeKey reads what escapeKey wrote.
func unescapeKey(part string) (string, error) {
	name, err := url.PathUnescape(part)
	if err != nil {
		return "", trace.BadParameter("the key %q cannot be read: %v", part, err)
	}
	return name, nil
}

func (c collection[T]) key(name string) string {
	return c.prefix + escapeKey(name)
}

func (c collection[T]) called(name string) string {
	if c.secretNames {
		return "the " + c.noun
	}
	return fmt.Sprintf("the %s %q", c.noun, name)
}

// prepare returns a checked copy of resource, and its item without a revision.
func (c collection[T]) prepare(resource T) (T, backend.Item, error) {
	var none T
	text, err := json.Marshal(resource)
	if err != nil {
		return none, backend.Item{}, trace.BadParameter("the %s cannot be written: %v", c.noun, err)
	}
	checked := c.fresh()
	if err := json.Unmarshal(text, checked); err != nil {
		return none, backend.Item{}, trace.BadParameter("the %s cannot be read back: %v", c.noun, err)
	}
	checked.SetRevision("")
	if err := c.check(checked); err != nil {
		return none, backend.Item{}, trace.Wrap(err)
	}
	value, err := json.Marshal(checked)
	if err != nil {
		return none, backend.Item{}, trace.Wrap(err)
	}
	if len(value) > maxResourceSize {
		return none, backend.Item{}, trace.BadParameter("%s takes %d bytes, and at most %d are kept", c.called(cutTo(checked.GetName(), 64)), len(value), maxResourceSize)
	}
	item := backend.Item{Key: c.key(checked.GetName()), Value: value, Expires: checked.Expiry()}
	if !item.Expires.IsZero() {
		item.Expires = item.Expires.Add(c.keepExpired)
	}
	return checked, item, nil
}

// decode reads an item. What it returns has the item's revision and expiry.
func (c collection[T]) decode(item backend.Item) (T, error) {
	resource := c.fresh()
	err := json.Unmarshal(item.Value, resource)
	if err == nil {
		err = c.check(resource)
	}
	if err != nil {
		var none T
		return none, trace.Errorf("what is kept of %s cannot be read (%v): restore it from a backup, or remove it and create it anew", c.called(strings.TrimPrefix(item.Key, c.prefix)), err)
	}
	resource.SetRevision(item.Revision)
	return resource, nil
}

// create returns trace.AlreadyExists where the name is taken.
func (c collection[T]) create(ctx context.Context, store backend.Backend, resource T) (T, error) {
	var none T
	checked, item, err := c.prepare(resource)
	if err != nil {
		return none, trace.Wrap(err)
	}
	err = store.Create(ctx, item)
	if trace.IsAlreadyExists(err) {
		return none, trace.AlreadyExists("%s exists already", c.called(checked.GetName()))
	}
	if err != nil {
		return none, trace.Wrap(err)
	}
	return c.get(ctx, store, checked.GetName())
}

// update replaces what is there: where resource has a revision, only that one.
// The error is trace.NotFound or trace.CompareFailed.
func (c collection[T]) update(ctx context.Context, store backend.Backend, resource T) (T, error) {
	var none T
	wanted := resource.GetRevision()
	checked, item, err := c.prepare(resource)
	if err != nil {
		return none, trace.Wrap(err)
	}
	for range updateAttempts {
		var current backend.Item
		current, err = store.Get(ctx, item.Key)
		if trace.IsNotFound(err) {
			return none, c.notFound(checked.GetName())
		}
		if err != nil {
			return none, trace.Wrap(err)
		}
		item.Revision = current.Revision
		if wanted != "" && wanted != current.Revision {
			return none, c.changed(checked.GetName())
		}
		var revision string
		revision, err = store.CompareAndSwap(ctx, item)
		if err == nil {
			checked.SetRevision(revision)
			return checked, nil
		}
		if !trace.IsCompareFailed(err) {
			return none, trace.Wrap(err)
		}
	}
	return none, c.changed(checked.GetName())
}

// upsert writes whatever is there, and tells whether nothing was.
func (c collection[T]) upsert(ctx context.Context, store backend.Backend, resource T) (kept T, isNew bool, err error) {
	var none T
	checked, item, err := c.prepare(resource)
	if err != nil {
		return none, false, trace.Wrap(err)
	}
	_, err = store.Get(ctx, item.Key)
	if err != nil && !trace.IsNotFound(err) {
		return none, false, trace.Wrap(err)
	}
	isNew = err != nil
	revision, err := store.Put(ctx, item)
	if err != nil {
		return none, false, trace.Wrap(err)
	}
	checked.SetRevision(revision)
	return checked, isNew, nil
}

// get returns trace.NotFound where there is none.
func (c collection[T]) get(ctx context.Context, store backend.Backend, name string) (T, error) {
	var none T
	if name == "" {
		return none, trace.BadParameter("a %s is asked for without its name", c.noun)
	}
	item, err := store.Get(ctx, c.key(name))
	if trace.IsNotFound(err) {
		return none, c.notFound(name)
	}
	if err != nil {
		return none, trace.Wrap(err)
	}
	return c.decode(item)
}

// page returns at most size resources after token, in the order of their keys,
// and the token of the next page, which is empty at the end. One that cannot be
// read is handed to unreadable and left out: it must not hide the others.
func (c collection[T]) page(ctx context.Context, store backend.Backend, size int, token string, unreadable func(error)) ([]T, string, error) {
	if size <= 0 || size > maxPage {
		size = maxPage
	}
	after := ""
	if token != "" {
		after = c.prefix + token
	}
	items, err := store.Range(ctx, c.prefix, after, size+1)
	if err != nil {
		return nil, "", trace.Wrap(err)
	}
	next := ""
	if len(items) > size {
		items = items[:size]
		next = strings.TrimPrefix(items[size-1].Key, c.prefix)
	}
	resources := make([]T, 0, len(items))
	for _, item := range items {
		resource, err := c.decode(item)
		if err != nil {
			unreadable(err)
			continue
		}
		resources = append(resources, resource)
	}
	return resources, next, nil
}

// all returns every resource of the kind.
func (c collection[T]) all(ctx context.Context, store backend.Backend, unreadable func(error)) ([]T, error) {
	var out []T
	token := ""
	for {
		resources, next, err := c.page(ctx, store, 0, token, unreadable)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		out = append(out, resources...)
		if next == "" {
			return out, nil
		}
		token = next
	}
}

// delete returns trace.NotFound where there is none.
func (c collection[T]) delete(ctx context.Context, store backend.Backend, name string) error {
	if name == "" {
		return trace.BadParameter("a %s is to be removed without its name", c.noun)
	}
	err := store.Delete(ctx, c.key(name))
	if trace.IsNotFound(err) {
		return c.notFound(name)
	}
	return trace.Wrap(err)
}

func (c collection[T]) notFound(name string) error {
	return trace.NotFound("%s was not found", c.called(cutTo(name, MaxNameLength)))
}

func (c collection[T]) changed(name string) error {
	return trace.CompareFailed("%s was changed by somebody else meanwhile: read it again and repeat the change", c.called(name))
}

// cutTo keeps an error about a name of a megabyte short.
func cutTo(name string, length int) string {
	if len(name) > length {
		return name[:length]
	}
	return name
}

// leftOut logs what a list leaves out.
func (s *Server) leftOut(err error) {
	s.log.WithError(err).Warn("A resource cannot be read and is left out.")
}

// notExpired refuses an expiry that has passed.
func (s *Server) notExpired(what string, expiry time.Time) error {
	if !expiry.IsZero() && !expiry.After(s.clock.Now()) {
		return trace.BadParameter("%s expired at %s: give a time to come", what, expiry.UTC().Format(time.RFC3339))
	}
	return nil
}
