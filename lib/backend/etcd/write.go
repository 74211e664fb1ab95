// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Writes that etcd applies once. An answer may be lost with the member that
// would have given it, and a request may reach etcd long after its sender gave
// it up. So each write also writes a key that is its sender's alone, a slot, on
// the condition that the slot is as the sender knows it: of a write that is sent
// twice one is applied, and the slot tells whether it was.

package etcd

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/trace"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"teleport-auditd/lib/backend"
)

const (
	// slotTTL is how long a slot outlives its last write. It is much longer
	// than a write may take.
	slotTTL = 10 * time.Minute
	// maxTTL is the longest lease that etcd grants, in seconds.
	maxTTL = 9_000_000_000
)

// write is a transaction: where all of compare is true, it writes the items and
// does what is in remove.
type write struct {
	compare []clientv3.Cmp
	items   []backend.Item
	remove  []clientv3.Op
	// otherwise are the keys that are read where compare is not true.
	otherwise []string
}

type result struct {
	applied  bool
	revision int64              // of what was written
	removed  []*mvccpb.KeyValue // where WithPrevKV asks for it, and the answer was not lost
	found    []*mvccpb.KeyValue // of otherwise
}

// slot is a key for one write at a time.
type slot struct {
	key      string
	revision int64 // of its last write; 0 where it was not used
}

// slots has the slots of one Store.
type slots struct {
	store  *Store
	prefix string

	mu      sync.Mutex
	free    []slot
	made    int
	lease   clientv3.LeaseID
	renewed time.Time // when the lease was granted, by the monotonic clock
}

func newSlots(s *Store, prefix string) *slots {
	return &slots{store: s, prefix: prefix + uuid.NewString() + "/"}
}

// write does w once. Where the error is not nil, it may have been done or not.
func (l *slots) write(ctx context.Context, w write) (result, error) {
	lease, err := l.currentLease(ctx)
	if err != nil {
		return result{}, trace.Wrap(err)
	}
	slot := l.take()
	id := uuid.NewString()
	resent := false
	leases := map[int64]clientv3.LeaseID{}
	var done result
	err = l.store.retry(ctx, func(ctx context.Context) error {
		puts, err := l.store.puts(ctx, w.items, leases)
		if err != nil {
			return err
		}
		otherwise := []clientv3.Op{clientv3.OpGet(slot.key)}
		for _, key := range w.otherwise {
			otherwise = append(otherwise, clientv3.OpGet(key))
		}
		if resent {
			// Unless an earlier try was applied, all of them that are still on
			// their way come to nothing from here on: this answer holds.
			otherwise = append(otherwise, clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Value(slot.key), "=", id)}, nil,
				[]clientv3.Op{clientv3.OpPut(slot.key, "fence", clientv3.WithLease(lease))}))
		}
		resent = true
		answer, err := l.store.client.Txn(ctx).
			If(append([]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(slot.key), "=", slot.revision)}, w.compare...)...).
			Then(append(append(append([]clientv3.Op{}, w.remove...), puts...), clientv3.OpPut(slot.key, id, clientv3.WithLease(lease)))...).
			Else(otherwise...).
			Commit()
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			// A lease ended before it was used. Nothing was written.
			clear(leases)
			if lease, err = l.newLease(ctx); err != nil {
				return err
			}
			return rpctypes.ErrTimeout // which is tried again
		}
		if err != nil {
			return err
		}
		if answer.Succeeded {
			done = result{applied: true, revision: answer.Header.Revision}
			for _, response := range answer.Responses {
				if deleted := response.GetResponseDeleteRange(); deleted != nil {
					done.removed = append(done.removed, deleted.PrevKvs...)
				}
			}
			slot.revision = answer.Header.Revision
			return nil
		}
		state, fenced, found := slotState(answer)
		if state.value == id {
			// An earlier try was applied, and its answer lost.
			done = result{applied: true, revision: state.revision}
			slot.revision = state.revision
			return nil
		}
		known := state.revision == slot.revision
		slot.revision = state.revision
		if fenced {
			slot.revision = answer.Header.Revision
		}
		if !known {
			// The slot has ended with its lease, or an earlier fence was put
			// and its answer lost. Nothing was applied, and the write starts
			// anew.
			return rpctypes.ErrTimeout
		}
		done = result{found: found}
		return nil
	})
	if err != nil {
		// What was sent may still arrive, so nothing is known of the slot.
		return result{}, trace.Wrap(err)
	}
	l.put(slot, lease)
	return done, nil
}

type slotContent struct {
	revision int64
	value    string
}

// slotState is what the else branch of a write found: the slot as it was, whether
// it was fenced off, and the keys that were asked for.
func slotState(answer *clientv3.TxnResponse) (state slotContent, fenced bool, found []*mvccpb.KeyValue) {
	for i, response := range answer.Responses {
		switch {
		case response.GetResponseTxn() != nil:
			fenced = !response.GetResponseTxn().Succeeded
		case i > 0:
			found = append(found, response.GetResponseRange().GetKvs()...)
		default:
			for _, kv := range response.GetResponseRange().GetKvs() {
				state = slotContent{revision: kv.ModRevision, value: string(kv.Value)}
			}
		}
	}
	return state, fenced, found
}

// puts returns what writes the items. Those that expire get a lease of whole
// seconds; leases has those that were granted, by their seconds.
func (s *Store) puts(ctx context.Context, items []backend.Item, leases map[int64]clientv3.LeaseID) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	for _, item := range items {
		if item.Expires.IsZero() {
			ops = append(ops, clientv3.OpPut(s.items+item.Key, encode(item)))
			continue
		}
		left := item.Expires.Sub(s.clock.Now())
		ttl := min(max(1, int64((left+time.Second-1)/time.Second)), maxTTL)
		lease, granted := leases[ttl]
		if !granted {
			answer, err := s.client.Grant(ctx, ttl)
			if err != nil {
				return nil, err
			}
			lease = answer.ID
			leases[ttl] = lease
		}
		ops = append(ops, clientv3.OpPut(s.items+item.Key, encode(item), clientv3.WithLease(lease)))
	}
	return ops, nil
}

// take returns a slot that no other write uses.
func (l *slots) take() slot {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		taken := l.free[n-1]
		l.free = l.free[:n-1]
		return taken
	}
	l.made++
	return slot{key: l.prefix + strconv.Itoa(l.made)}
}

// put gives a slot back whose state is known, unless its lease is an old one,
// with which it may end at any time.
func (l *slots) put(used slot, lease clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lease == l.lease {
		l.free = append(l.free, used)
	}
}

// currentLease returns the lease of the slots, which is replaced at half its
// time together with them.
func (l *slots) currentLease(ctx context.Context) (clientv3.LeaseID, error) {
	l.mu.Lock()
	lease, renewed := l.lease, l.renewed
	l.mu.Unlock()
	if lease != 0 && time.Since(renewed) < slotTTL/2 {
		return lease, nil
	}
	err := l.store.retry(ctx, func(ctx context.Context) error {
		var err error
		lease, err = l.newLease(ctx)
		return err
	})
	return lease, trace.Wrap(err)
}

func (l *slots) newLease(ctx context.Context) (clientv3.LeaseID, error) {
	asked := time.Now()
	answer, err := l.store.client.Grant(ctx, int64(slotTTL/time.Second))
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease, l.renewed, l.free = answer.ID, asked, nil
	return answer.ID, nil
}
