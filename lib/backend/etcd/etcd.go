// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package etcd keeps the cluster's state in etcd, so that several auth servers
// can have it and none of them, nor one member of etcd, is missed:
//
//	store, err := etcd.Open(ctx, etcd.Config{
//		Peers:  []string{"https://etcd1:2379", "https://etcd2:2379", "https://etcd3:2379"},
//		Prefix: "/teleport",
//		...
//	})
//
// Items are below Prefix/items, so that the item /nodes/<uuid> is found with
// etcdctl as /teleport/items/nodes/<uuid>. Reads are linearizable. Every write
// is one transaction that etcd applies once, however often it has to be sent
// (see write.go).
//
// An item that expires has a lease, which is of whole seconds and counts on
// etcd's clock. Who reads goes by the exact time and his own clock, so that what
// has expired is not found, while its Delete event comes when etcd ends the
// lease: some seconds later, and after a change of etcd's leader later still.
//
// etcd keeps the history of all keys until it is told to forget it: run it with
// --auto-compaction-retention.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"teleport-auditd/lib/backend"
)

const (
	// DefaultPrefix is where a cluster is that does not share etcd with
	// another.
	DefaultPrefix = "/teleport"

	// tryTimeout is how long one member may take to answer before another is
	// asked.
	tryTimeout = 3 * time.Second
	// refusedTimeout is how long a call is tried whose tries fail at once: a
	// vote for a new leader takes some seconds.
	refusedTimeout = 10 * time.Second
	// callTimeout is how long it is tried where no answer comes: a member that
	// hangs is asked no more after pingPeriod and pingTimeout.
	callTimeout = 20 * time.Second
	// retryPause is between two tries.
	retryPause = 100 * time.Millisecond

	// A member that does not answer a ping is left for another.
	pingPeriod  = 10 * time.Second
	pingTimeout = 3 * time.Second

	// pageSize bounds the items of one answer: etcd sends it as one message.
	pageSize = 256
)

// Config says where etcd is.
type Config struct {
	// Peers are the client URLs of etcd's members, such as
	// https://etcd1:2379; http where there is no scheme.
	Peers []string
	// Prefix is that of all keys of this cluster in etcd; DefaultPrefix by
	// default. It begins with a slash.
	Prefix string
	// TLSCertFile and TLSKeyFile are the client's certificate and key in PEM,
	// if etcd asks for them: both or none.
	TLSCertFile, TLSKeyFile string
	// TLSCAFile has the authorities in PEM that etcd's certificates are from;
	// those of the system by default.
	TLSCAFile string
	// Clock decides what has expired; the real one by default.
	Clock clockwork.Clock
	// Log is told of members that fail; logrus's standard logger by default.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults refuses a Config without peers, with one that is not a
// URL of a host and a port, and with half a pair of files.
func (c *Config) CheckAndSetDefaults() error {
	if len(c.Peers) == 0 {
		return trace.BadParameter("no etcd was named: set storage.peers to the URLs of its members, such as https://etcd1:2379")
	}
	var peers []string
	secure := false
	for i, peer := range c.Peers {
		if !strings.Contains(peer, "://") {
			peer = "http://" + peer
		}
		u, err := url.Parse(peer)
		if err == nil && u.User != nil {
			return trace.BadParameter("a URL in storage.peers has a user or a password: etcd knows this server by the certificate in storage.tls_cert_file")
		}
		if err != nil || u.Host == "" || u.Port() == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" {
			return trace.BadParameter("%q in storage.peers is not a URL such as https://etcd1:2379", c.Peers[i])
		}
		if i > 0 && secure != (u.Scheme == "https") {
			return trace.BadParameter("storage.peers mixes http and https: a client of etcd uses one of them")
		}
		secure = u.Scheme == "https"
		peers = append(peers, u.Scheme+"://"+u.Host)
	}
	c.Peers = peers
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		return trace.BadParameter("storage.tls_cert_file and storage.tls_key_file belong together: set both or none")
	}
	if !secure && (c.TLSCertFile != "" || c.TLSCAFile != "") {
		return trace.BadParameter("storage.peers are http, and the storage.tls_* files would not be used: write https://, or leave the files out")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if clean := path.Clean(c.Prefix); !strings.HasPrefix(clean, "/") || clean == "/" || len(clean) > 256 {
		return trace.BadParameter("storage.prefix %q is not a path such as %s", c.Prefix, DefaultPrefix)
	}
	c.Prefix = path.Clean(c.Prefix)
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Store is an open store: a backend.Backend. Where etcd does not answer, its
// errors are trace.ConnectionProblem and name the peers.
type Store struct {
	client *clientv3.Client
	peers  string // for errors
	items  string // what the keys of items begin with in etcd
	clock  clockwork.Clock
	log    logrus.FieldLogger
	slots  *slots
	watch  *watch
}

var _ backend.Backend = (*Store)(nil)

// Open connects to etcd, and returns when it has answered.
//
// The error is trace.ConnectionProblem where none of the peers does, and
// trace.BadParameter where the Config or its files are no good.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	var secure *tls.Config
	if strings.HasPrefix(cfg.Peers[0], "https:") {
		var err error
		if secure, err = tlsConfig(cfg); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	// A member that comes back is found in seconds: gRPC's own pauses grow to two
	// minutes.
	reconnect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: tryTimeout}
	reconnect.Backoff.BaseDelay, reconnect.Backoff.MaxDelay = retryPause, tryTimeout
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Peers,
		DialKeepAliveTime:    pingPeriod,
		DialKeepAliveTimeout: pingTimeout,
		TLS:                  secure,
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(reconnect), grpc.WithChainUnaryInterceptor(failFast)},
		Logger:               zap.NewNop(), // it would write to stderr what our errors say
		MaxUnaryRetries:      1,            // read and slots.write know better what may be sent again
	})
	if err != nil {
		return nil, trace.BadParameter("etcd at %s cannot be used: %s", strings.Join(cfg.Peers, ", "), oneLine(err))
	}
	s := &Store{
		client: client,
		peers:  strings.Join(cfg.Peers, ", "),
		items:  cfg.Prefix + "/items",
		clock:  cfg.Clock,
		log:    cfg.Log,
	}
	s.slots = newSlots(s, cfg.Prefix+"/writes/")
	s.watch = newWatch(s)
	if _, err := s.read(ctx, clientv3.OpGet(s.items, clientv3.WithCountOnly())); err != nil {
		_ = client.Close() // err is what the caller needs
		return nil, trace.Wrap(err)
	}
	return s, nil
}

// failFast has a call say why no member can be reached, where etcd's client would
// wait for one until the time is up.
func failFast(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, conn, append(opts, grpc.WaitForReady(false))...)
}

// Close ends the watchers and the connections to etcd. The Store must not be
// used after it.
func (s *Store) Close() error {
	s.watch.close()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return trace.Wrap(err, "closing the connections to etcd at %s", s.peers)
	}
	return nil
}

// Get returns the item under key, or trace.NotFound.
func (s *Store) Get(ctx context.Context, key string) (backend.Item, error) {
	answer, err := s.read(ctx, clientv3.OpGet(s.items+key))
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	if len(answer.Get().Kvs) == 0 {
		return backend.Item{}, s.notFound(key)
	}
	item, err := s.item(answer.Get().Kvs[0])
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	if s.expired(item.Expires) {
		return backend.Item{}, s.notFound(key)
	}
	return item, nil
}

// Range returns the items whose keys begin with prefix and come after after. All
// are as they were at the same moment.
func (s *Store) Range(ctx context.Context, prefix, after string, limit int) ([]backend.Item, error) {
	from, end := s.items+prefix, backend.PrefixEnd(s.items+prefix)
	if next := s.items + after + "\x00"; after != "" && next > from {
		from = next
	}
	var items []backend.Item
	var revision int64 // 0, for the first page, is the newest
	for from < end {
		answer, err := s.read(ctx, clientv3.OpGet(from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision)))
		if err != nil {
			return nil, trace.Wrap(err)
		}
		page := answer.Get()
		revision = page.Header.Revision
		for _, kv := range page.Kvs {
			from = string(kv.Key) + "\x00"
			item, err := s.item(kv)
			if err != nil {
				return nil, trace.Wrap(err)
			}
			if s.expired(item.Expires) {
				continue
			}
			items = append(items, item)
			if limit > 0 && len(items) == limit {
				return items, nil
			}
		}
		if !page.More {
			break
		}
	}
	return items, nil
}

// Create writes all items, or none where one of the keys is taken.
func (s *Store) Create(ctx context.Context, items ...backend.Item) error {
	if err := backend.CheckItems(items...); err != nil {
		return trace.Wrap(err)
	}
	for {
		w := write{items: items}
		for _, item := range items {
			w.compare = append(w.compare, clientv3.Compare(clientv3.CreateRevision(s.items+item.Key), "=", 0))
			w.otherwise = append(w.otherwise, s.items+item.Key)
		}
		result, err := s.slots.write(ctx, w)
		if err != nil {
			return trace.Wrap(err)
		}
		if result.applied {
			return nil
		}
		for _, kv := range result.found {
			if item, err := s.item(kv); err != nil || !s.expired(item.Expires) {
				return trace.AlreadyExists("etcd has %q already", strings.TrimPrefix(string(kv.Key), s.items))
			}
		}
		// What is there has expired and only waits for its lease to end.
		for _, kv := range result.found {
			_, err := s.slots.write(ctx, write{
				compare: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision)},
				remove:  []clientv3.Op{clientv3.OpDelete(string(kv.Key))},
			})
			if err != nil {
				return trace.Wrap(err)
			}
		}
	}
}

// Put writes the item, whether or not the key is taken.
func (s *Store) Put(ctx context.Context, item backend.Item) (revision string, err error) {
	if err := backend.CheckItems(item); err != nil {
		return "", trace.Wrap(err)
	}
	result, err := s.slots.write(ctx, write{items: []backend.Item{item}})
	if err != nil {
		return "", trace.Wrap(err)
	}
	return formatRevision(result.revision, item.Expires), nil
}

// CompareAndSwap writes the item where the stored one has item.Revision.
func (s *Store) CompareAndSwap(ctx context.Context, item backend.Item) (revision string, err error) {
	if err := backend.CheckItems(item); err != nil {
		return "", trace.Wrap(err)
	}
	compare, err := s.compare(item.Key, item.Revision)
	if err != nil {
		return "", trace.Wrap(err)
	}
	result, err := s.slots.write(ctx, write{compare: compare, items: []backend.Item{item}})
	if err != nil {
		return "", trace.Wrap(err)
	}
	if !result.applied {
		return "", changed(item.Key)
	}
	return formatRevision(result.revision, item.Expires), nil
}

// CompareAndDelete deletes the item where it has the revision.
func (s *Store) CompareAndDelete(ctx context.Context, key, revision string) error {
	compare, err := s.compare(key, revision)
	if err != nil {
		return trace.Wrap(err)
	}
	result, err := s.slots.write(ctx, write{compare: compare, remove: []clientv3.Op{clientv3.OpDelete(s.items + key)}})
	if err != nil {
		return trace.Wrap(err)
	}
	if !result.applied {
		return changed(key)
	}
	return nil
}

// Delete deletes the item under key, or returns trace.NotFound.
func (s *Store) Delete(ctx context.Context, key string) error {
	result, err := s.slots.write(ctx, write{
		compare: []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.items+key), ">", 0)},
		remove:  []clientv3.Op{clientv3.OpDelete(s.items+key, clientv3.WithPrevKV())},
	})
	if err != nil {
		return trace.Wrap(err)
	}
	if !result.applied {
		return s.notFound(key)
	}
	for _, kv := range result.removed {
		if item, err := s.item(kv); err == nil && s.expired(item.Expires) {
			return s.notFound(key)
		}
	}
	return nil
}

// DeleteRange deletes the items whose keys begin with prefix.
func (s *Store) DeleteRange(ctx context.Context, prefix string) error {
	_, err := s.slots.write(ctx, write{
		remove: []clientv3.Op{clientv3.OpDelete(s.items+prefix, clientv3.WithRange(backend.PrefixEnd(s.items+prefix)))},
	})
	return trace.Wrap(err)
}

// Watch tells of what any process writes from when it returns.
func (s *Store) Watch(ctx context.Context, prefixes ...string) (backend.Watcher, error) {
	return s.watch.add(ctx, prefixes)
}

// read asks etcd until a member answers.
func (s *Store) read(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	var answer clientv3.OpResponse
	err := s.retry(ctx, func(ctx context.Context) error {
		var err error
		answer, err = s.client.Do(ctx, op)
		return err
	})
	return answer, trace.Wrap(err)
}

func (s *Store) expired(at time.Time) bool {
	return !at.IsZero() && !at.After(s.clock.Now())
}

func (s *Store) notFound(key string) error {
	return trace.NotFound("etcd has no %q", key)
}

func changed(key string) error {
	return trace.CompareFailed("%q has been changed or deleted in the meantime", key)
}
