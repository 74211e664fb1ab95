// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How an item looks in etcd: a version and its exact expiry stand before its
// value.

package etcd

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gravitational/trace"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"teleport-auditd/lib/backend"
)

const (
	valueVersion = 1
	headerSize   = 1 + 8
	// never is the expiry of what does not expire, in nanoseconds since 1970.
	never = math.MaxInt64
)

func encode(item backend.Item) string {
	text := make([]byte, headerSize, headerSize+len(item.Value))
	text[0] = valueVersion
	binary.BigEndian.PutUint64(text[1:], uint64(nanos(item.Expires)))
	return string(append(text, item.Value...))
}

// item reads what encode wrote.
func (s *Store) item(kv *mvccpb.KeyValue) (backend.Item, error) {
	key := strings.TrimPrefix(string(kv.Key), s.items)
	if len(kv.Value) < headerSize || kv.Value[0] != valueVersion {
		return backend.Item{}, trace.BadParameter("what etcd has under %q was not written by this program, or by a newer version of it: delete the key with etcdctl, or run that version", kv.Key)
	}
	item := backend.Item{
		Key:     key,
		Expires: fromNanos(int64(binary.BigEndian.Uint64(kv.Value[1:]))),
	}
	if value := kv.Value[headerSize:]; len(value) > 0 {
		item.Value = value
	}
	item.Revision = formatRevision(kv.ModRevision, item.Expires)
	return item, nil
}

// formatRevision puts the expiry into the revision, so that what has expired
// compares as gone before etcd has ended its lease.
func formatRevision(n int64, expires time.Time) string {
	revision := strconv.FormatInt(n, 10)
	if !expires.IsZero() {
		revision += "." + strconv.FormatInt(nanos(expires), 10)
	}
	return revision
}

// compare returns the condition that the item under key has the revision, or
// trace.CompareFailed where it cannot have it any more.
func (s *Store) compare(key, revision string) ([]clientv3.Cmp, error) {
	number, expires, expiring := strings.Cut(revision, ".")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 { // 0 would be that of an item that is not there
		return nil, changed(key)
	}
	if expiring {
		at, err := strconv.ParseInt(expires, 10, 64)
		if err != nil || s.expired(fromNanos(at)) {
			return nil, changed(key)
		}
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.items+key), "=", n)}, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == never {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
