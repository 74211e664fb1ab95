// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package backend says how the cluster's state is kept: items under keys such
// as /nodes/<uuid>, which several processes read, write and watch at the same
// time. Package sqlite keeps them in a file, package etcd in an etcd cluster;
// package backendtest holds both to the contracts here.
package backend

import (
	"context"
	"time"

	"github.com/gravitational/trace"
)

// What one call may write. They are bounds that every store can hold to.
const (
	// MaxKeySize bounds a key, in bytes.
	MaxKeySize = 1024
	// MaxItems bounds the items of one Create.
	MaxItems = 64
	// MaxValueSize bounds the values of one call, in bytes, taken together.
	MaxValueSize = 1 << 20
)

// Item is one value under its key.
type Item struct {
	// Key is a path such as /nodes/<uuid>. It may have any bytes.
	Key string
	// Value is the item's content. An empty one is read back as nil.
	Value []byte
	// Expires is when the item ceases to be found. Zero means never.
	Expires time.Time
	// Revision changes with every write of the item, also where it is deleted
	// and made again. It is set on what is read, and means nothing but that
	// two are the same or not.
	Revision string
}

// EventType says what happened to an item.
type EventType int

const (
	// Put is for an item that was made or written anew.
	Put EventType = iota + 1
	// Delete is for an item that was deleted or has expired.
	Delete
)

// String names the type for records and tests.
func (t EventType) String() string {
	switch t {
	case Put:
		return "put"
	case Delete:
		return "delete"
	}
	return "unknown"
}

// Event is one change of one item.
type Event struct {
	Type EventType
	// Item is the item as it was written. Of one that was deleted it has the
	// Key alone.
	Item Item
}

// Backend is an open store. Its methods may be called from several goroutines,
// and several processes may have the same store open. What a call wrote is on
// disk when it returns, and every later call of any process finds it.
//
// A write is refused with trace.BadParameter or trace.LimitExceeded, before
// anything is written, where its items go beyond the bounds of this package
// (see CheckItems). An expired item is as good as none: it is not found, does
// not hold its key, and is deleted with an event.
//
// Where the store cannot be reached or used, errors are what its package says.
// Where ctx ends first, the error is that of ctx, and a write may have happened
// or not.
type Backend interface {
	// Create writes all items, or none where one of the keys is taken: the
	// error is then trace.AlreadyExists. Of several that create the same key,
	// one succeeds. The keys must differ.
	Create(ctx context.Context, items ...Item) error

	// Put writes the item, whether or not the key is taken, and returns the
	// revision that it now has.
	Put(ctx context.Context, item Item) (revision string, err error)

	// CompareAndSwap writes the item where the stored one has item.Revision,
	// and returns the revision that it now has. The error is
	// trace.CompareFailed where the stored one has another, or there is none.
	CompareAndSwap(ctx context.Context, item Item) (revision string, err error)

	// CompareAndDelete deletes the item where it has the revision. The error
	// is trace.CompareFailed where it has another, or there is none.
	CompareAndDelete(ctx context.Context, key, revision string) error

	// Get returns the item under key, or trace.NotFound.
	Get(ctx context.Context, key string) (Item, error)

	// Range returns the items whose keys begin with prefix and come after
	// after, in the order of the keys' bytes: limit of them at most, or all
	// where limit is 0. To page, pass the last key of one page as the next
	// one's after.
	Range(ctx context.Context, prefix, after string, limit int) ([]Item, error)

	// Delete deletes the item under key, or returns trace.NotFound.
	Delete(ctx context.Context, key string) error

	// DeleteRange deletes the items whose keys begin with prefix, if any.
	DeleteRange(ctx context.Context, prefix string) error

	// Watch tells of what happens, from when it returns, to the items whose
	// keys begin with one of the prefixes: all items where none is given. It
	// tells of the writes of every process, in the order in which they were
	// made, and of each once. The Watcher ends with ctx, too.
	Watch(ctx context.Context, prefixes ...string) (Watcher, error)

	// Close releases the store and ends its Watchers. Nothing may be called
	// after it.
	Close() error
}

// Watcher tells of changes. One that cannot tell of all, because its reader is
// too slow or the store has forgotten them, ends with an error instead: who
// keeps a copy then watches anew, and reads everything again.
type Watcher interface {
	// Events has the changes. It is closed when the Watcher ends.
	Events() <-chan Event
	// Err says why the Watcher ended: the error of Watch's context, what went
	// wrong with the store, or nil after Close and while it has not ended.
	Err() error
	// Close ends the Watcher. It may be called more than once.
	Close() error
}

// CheckItems refuses what a store need not take: no or an overlong key, the
// same key twice, too many items, too much in their values. Stores call it
// before they write.
func CheckItems(items ...Item) error {
	if len(items) == 0 {
		return trace.BadParameter("there is nothing to write")
	}
	if len(items) > MaxItems {
		return trace.LimitExceeded("%d items are too many to write at once: %d is the most", len(items), MaxItems)
	}
	size := 0
	keys := make(map[string]bool, len(items))
	for _, item := range items {
		if err := CheckKey(item.Key); err != nil {
			return trace.Wrap(err)
		}
		if keys[item.Key] {
			return trace.BadParameter("%q is to be written twice at once", item.Key)
		}
		keys[item.Key] = true
		size += len(item.Value)
	}
	if size > MaxValueSize {
		return trace.LimitExceeded("%d bytes are too many to write at once, to %q: %d is the most", size, items[0].Key, MaxValueSize)
	}
	return nil
}

// CheckKey refuses a key that no store has: an empty one, or one above
// MaxKeySize.
func CheckKey(key string) error {
	if key == "" {
		return trace.BadParameter("the key of an item is empty")
	}
	if len(key) > MaxKeySize {
		return trace.LimitExceeded("the key of an item has %d bytes: %d is the most", len(key), MaxKeySize)
	}
	return nil
}

// PrefixEnd returns the key that comes after every key with the prefix, for
// stores that read from one key up to another. It is empty where there is no
// such key: the prefix is empty, or has no byte but 0xff.
func PrefixEnd(prefix string) string {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return string(end[:i+1])
		}
	}
	return ""
}
