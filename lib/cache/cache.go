// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package cache is what a node or a proxy knows of its cluster: whom to trust,
// which roles and locks there are, and which nodes and proxies.
//
// It answers at once and from memory, follows the auth service within about a
// second, and goes on with what was known last while that is away. A copy on disk
// lets a host start in the meantime:
//
//	known, err := cache.New(cache.Config{Client: client, Path: dataDir + "/cache_node.json"})
//	go known.Run(ctx)
//	err = known.Wait(ctx)
//	keys, err := known.UserCAs(ctx)
package cache

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"

	"teleport-auditd/lib/cause"
)

const (
	// firstRetry and lastRetry bound the time between two tries to reach the auth
	// service again, which doubles.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
	// answerTimeout is how long the auth service may take over one answer.
	answerTimeout = 20 * time.Second
	// keepNodes is how long a node or a proxy stays known that the auth service,
	// back after a while, does not list yet: they register again within this time.
	keepNodes = 2 * time.Minute
	// nodesPause is the time between two writings of nodes and proxies to the disk,
	// which register again each minute.
	nodesPause = 30 * time.Second
	// proxiesPage is how many proxies are asked for at a time.
	proxiesPage = 200
)

// Client is what the cache asks: an api/client.
type Client interface {
	GetCertAuthorities(ctx context.Context, kind types.CertAuthType, loadKeys bool) ([]types.CertAuthority, error)
	GetRoles(ctx context.Context) ([]types.Role, error)
	GetLocks(ctx context.Context, inForceOnly bool, targets ...types.LockTarget) ([]types.Lock, error)
	GetNodes(ctx context.Context, namespace string) ([]types.Server, error)
	GetAuthPreference(ctx context.Context) (types.AuthPreference, error)
	NewWatcher(ctx context.Context, watch types.Watch) (types.Watcher, error)
	// GetConnection is for what the API has and its client does not.
	GetConnection() *grpc.ClientConn
}

// Config is what New needs.
type Config struct {
	// Client reaches the auth service.
	Client Client
	// Path is the file of the copy, which is made 0600.
	Path string
	// Nodes says that nodes and the auth preference are to be known as well,
	// which proxies may.
	Nodes bool
	// Proxies says that proxies are to be known as well.
	Proxies bool
	// OnHostCAs is told of the authorities of hosts, and OnLocks of all locks,
	// when they have changed and when the auth service is reached again.
	// OnConnected comes after these when it is reached again. They are called one
	// after the other, once what they are told of is in force; what they do keeps
	// the cache from following, and ctx bounds it.
	OnHostCAs   func(ctx context.Context, cas []types.CertAuthority)
	OnLocks     func(ctx context.Context, locks []types.Lock)
	OnConnected func(ctx context.Context)
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log hears once when the auth service goes away, and once when it is back.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.Client == nil:
		return trace.BadParameter("cache.Config has no Client")
	case c.Path == "":
		return trace.BadParameter("cache.Config has no Path")
	}
	if c.OnHostCAs == nil {
		c.OnHostCAs = func(context.Context, []types.CertAuthority) {}
	}
	if c.OnLocks == nil {
		c.OnLocks = func(context.Context, []types.Lock) {}
	}
	if c.OnConnected == nil {
		c.OnConnected = func(context.Context) {}
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Cache is what is known. Its methods may be called from several goroutines; Run
// by one.
type Cache struct {
	cfg Config

	mu sync.RWMutex
	// known is nil until something is.
	known *snapshot
	// current says that the auth service tells of changes.
	current bool
	// filled is closed when known is there.
	filled chan struct{}

	// The rest is Run's.
	away bool
	// dirty says that the copy on disk is not up to date.
	dirty bool
	// unwritable is what was said last about a copy that cannot be written.
	unwritable string
}

// New returns a Cache that knows what the copy on disk has, if there is one. A
// copy that cannot be read is said in the log, and read anew.
func New(cfg Config) (*Cache, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	c := &Cache{cfg: cfg, filled: make(chan struct{})}
	known, err := readSnapshot(cfg.Path)
	switch {
	case err == nil:
		c.known = known
		close(c.filled)
	case !trace.IsNotFound(err):
		cfg.Log.Warnf("What was known of the cluster at the last start is not used: %v.", err)
	}
	return c, nil
}

// Wait returns when something is known, from the disk or from the auth service.
// The error is ctx's.
func (c *Cache) Wait(ctx context.Context) error {
	select {
	case <-c.filled:
		return nil
	case <-ctx.Done():
		return trace.Wrap(ctx.Err())
	}
}

// Current tells whether the auth service is reached, and what is known is what is.
func (c *Cache) Current() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.current
}

// read calls f with what is known, which f must not keep or change.
func (c *Cache) read(f func(*snapshot)) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.known == nil {
		return trace.ConnectionProblem(nil, "nothing is known of the cluster yet: the auth service has not answered since the first start")
	}
	f(c.known)
	return nil
}

// UserCAs returns the keys that sign users' certificates, among them those that
// are trusted while a rotation goes on. It implements srv.CAs.
func (c *Cache) UserCAs(context.Context) ([]ssh.PublicKey, error) {
	return c.sshKeys(types.UserCA)
}

// HostCAs is UserCAs for the certificates of hosts.
func (c *Cache) HostCAs(context.Context) ([]ssh.PublicKey, error) {
	return c.sshKeys(types.HostCA)
}

func (c *Cache) sshKeys(kind types.CertAuthType) (keys []ssh.PublicKey, err error) {
	readErr := c.read(func(known *snapshot) {
		for _, ca := range known.Authorities {
			if ca.GetType() != kind {
				continue
			}
			for _, pair := range ca.GetTrustedSSHKeyPairs() {
				key, _, _, _, parseErr := ssh.ParseAuthorizedKey(pair.PublicKey)
				if parseErr != nil {
					err = trace.BadParameter("a key of the %s authority cannot be read: %v", kind, parseErr)
					return
				}
				keys = append(keys, key)
			}
		}
	})
	if readErr != nil {
		return nil, trace.Wrap(readErr)
	}
	return keys, trace.Wrap(err)
}

// Authorities returns the authorities of a kind, without private keys.
func (c *Cache) Authorities(kind types.CertAuthType) (cas []types.CertAuthority, err error) {
	err = c.read(func(known *snapshot) { cas = known.authorities(kind) })
	return cas, trace.Wrap(err)
}

// Roles returns those of the named roles that exist, by name. They must not be
// changed. It implements access.Source.
func (c *Cache) Roles(_ context.Context, names []string) (map[string]types.Role, error) {
	roles := make(map[string]types.Role, len(names))
	err := c.read(func(known *snapshot) {
		for _, role := range known.Roles {
			if slices.Contains(names, role.GetName()) {
				roles[role.GetName()] = role
			}
		}
	})
	return roles, trace.Wrap(err)
}

// Locks returns all locks, in force or not. They must not be changed.
func (c *Cache) Locks(context.Context) (locks []types.Lock, err error) {
	err = c.read(func(known *snapshot) { locks = known.locks() })
	return locks, trace.Wrap(err)
}

// Nodes returns the registered nodes, where Config.Nodes is set. They must not be
// changed. While the auth service is away registrations do not end.
func (c *Cache) Nodes(context.Context) (nodes []types.Server, err error) {
	now := c.cfg.Clock.Now()
	current := c.Current()
	err = c.read(func(known *snapshot) { nodes = registered(known.Nodes, current, now) })
	return nodes, trace.Wrap(err)
}

// Proxies returns the registered proxies, where Config.Proxies is set, as Nodes
// returns nodes.
func (c *Cache) Proxies() (proxies []types.Server, err error) {
	now := c.cfg.Clock.Now()
	current := c.Current()
	err = c.read(func(known *snapshot) { proxies = registered(known.Proxies, current, now) })
	return proxies, trace.Wrap(err)
}

// registered are those whose registration has not ended, or cannot be renewed.
func registered(all []*types.ServerV2, current bool, now time.Time) (servers []types.Server) {
	for _, server := range all {
		if !current || server.Expiry().IsZero() || server.Expiry().After(now) {
			servers = append(servers, server)
		}
	}
	return servers
}

// AuthPreference returns how users log in, where Config.Nodes is set.
func (c *Cache) AuthPreference(context.Context) (preference types.AuthPreference, err error) {
	readErr := c.read(func(known *snapshot) {
		if known.Preference == nil {
			err = trace.NotFound("the auth preference is not known yet")
			return
		}
		preference = known.Preference
	})
	if readErr != nil {
		return nil, trace.Wrap(readErr)
	}
	return preference, trace.Wrap(err)
}

// Run follows the auth service until ctx ends.
func (c *Cache) Run(ctx context.Context) {
	retry := firstRetry
	for ctx.Err() == nil {
		began, err := c.follow(ctx)
		c.setCurrent(false)
		if ctx.Err() != nil {
			break
		}
		if began {
			retry = firstRetry
			c.cfg.Log.Debugf("The auth service is not followed any more: %v. Trying again.", cause.RPC(err))
		} else if !c.away {
			c.away = true
			c.cfg.Log.Warnf("The auth service cannot be followed: %v. Going on with what is known; trying goes on.", cause.RPC(err))
		} else {
			c.cfg.Log.Debugf("The auth service still cannot be followed: %v.", cause.RPC(err))
		}
		select {
		case <-ctx.Done():
		case <-c.cfg.Clock.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
	c.write(true)
}

// follow reads everything, and then what changes. began says that the first was
// done.
func (c *Cache) follow(ctx context.Context) (began bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kinds := []types.WatchKind{{Kind: types.KindCertAuthority}, {Kind: types.KindRole}, {Kind: types.KindLock}}
	if c.cfg.Nodes {
		kinds = append(kinds, types.WatchKind{Kind: types.KindNode}, types.WatchKind{Kind: types.KindClusterAuthPreference})
	}
	if c.cfg.Proxies {
		kinds = append(kinds, types.WatchKind{Kind: types.KindProxy})
	}
	watcher, err := c.cfg.Client.NewWatcher(ctx, types.Watch{Name: "cache", Kinds: kinds})
	if err != nil {
		return false, trace.Wrap(err)
	}
	defer watcher.Close()
	select {
	case event := <-watcher.Events():
		if event.Type != types.OpInit {
			return false, trace.BadParameter("the first event of the auth service is %v, and not that it begins", event.Type)
		}
	case <-watcher.Done():
		return false, trace.Wrap(ended(watcher))
	case <-c.cfg.Clock.After(answerTimeout):
		return false, trace.ConnectionProblem(nil, "the auth service has not begun to tell of changes within %v", answerTimeout)
	case <-ctx.Done():
		return false, trace.Wrap(ctx.Err())
	}
	known, err := c.readAll(ctx)
	if trace.IsAccessDenied(err) {
		c.readLocks(ctx)
	}
	if err != nil {
		return false, trace.Wrap(err)
	}
	c.replace(known)
	c.write(true)
	if c.away {
		c.away = false
		c.cfg.Log.Info("The auth service is followed again.")
	}
	c.cfg.OnHostCAs(ctx, known.authorities(types.HostCA))
	c.cfg.OnLocks(ctx, known.locks())
	c.cfg.OnConnected(ctx)

	ticker := c.cfg.Clock.NewTicker(nodesPause)
	defer ticker.Stop()
	for {
		select {
		case event := <-watcher.Events():
			c.apply(ctx, event)
		case <-ticker.Chan():
			c.write(false)
		case <-watcher.Done():
			return true, trace.Wrap(ended(watcher))
		case <-ctx.Done():
			return true, trace.Wrap(ctx.Err())
		}
	}
}

func ended(watcher types.Watcher) error {
	if err := watcher.Error(); err != nil {
		return err
	}
	return trace.ConnectionProblem(nil, "the connection has ended")
}

func (c *Cache) readAll(ctx context.Context) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	known := &snapshot{}
	for _, kind := range []types.CertAuthType{types.UserCA, types.HostCA} {
		cas, err := c.cfg.Client.GetCertAuthorities(ctx, kind, false)
		if err != nil {
			return nil, trace.Wrap(err, "reading the %s authority", kind)
		}
		for _, ca := range cas {
			known.put(ca)
		}
	}
	roles, err := c.cfg.Client.GetRoles(ctx)
	if err != nil {
		return nil, trace.Wrap(err, "reading the roles")
	}
	for _, role := range roles {
		known.put(role)
	}
	locks, err := c.cfg.Client.GetLocks(ctx, false)
	if err != nil {
		return nil, trace.Wrap(err, "reading the locks")
	}
	for _, lock := range locks {
		known.put(lock)
	}
	if c.cfg.Proxies {
		if err := c.readProxies(ctx, known); err != nil {
			return nil, trace.Wrap(err, "reading the proxies")
		}
	}
	if !c.cfg.Nodes {
		return known, nil
	}
	nodes, err := c.cfg.Client.GetNodes(ctx, defaults.Namespace)
	if err != nil {
		return nil, trace.Wrap(err, "reading the nodes")
	}
	for _, node := range nodes {
		known.put(node)
	}
	preference, err := c.cfg.Client.GetAuthPreference(ctx)
	if err != nil {
		return nil, trace.Wrap(err, "reading the auth preference")
	}
	known.put(preference)
	return known, nil
}

// readProxies asks for proxies itself: Teleport's client has no call for them.
func (c *Cache) readProxies(ctx context.Context, known *snapshot) error {
	request := &proto.ListResourcesRequest{ResourceType: types.KindProxy, Namespace: defaults.Namespace, Limit: proxiesPage}
	for {
		page, err := proto.NewAuthServiceClient(c.cfg.Client.GetConnection()).ListResources(ctx, request)
		if err != nil {
			return trace.Wrap(err)
		}
		for _, resource := range page.Resources {
			if proxy := resource.GetNode(); proxy != nil {
				known.put(proxy)
			}
		}
		if request.StartKey = page.NextKey; request.StartKey == "" {
			return nil
		}
	}
}

// readLocks brings the locks alone up to date. A node that is locked may read
// nothing else, and must know that it is.
func (c *Cache) readLocks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	locks, err := c.cfg.Client.GetLocks(ctx, false)
	if err != nil {
		c.cfg.Log.Debugf("The locks cannot be read either: %v.", cause.RPC(err))
		return
	}
	c.mu.Lock()
	if c.known == nil {
		c.mu.Unlock()
		return // nobody is let in
	}
	next := c.known.clone()
	next.LockList = nil
	for _, lock := range locks {
		next.put(lock)
	}
	c.known = next
	c.mu.Unlock()
	c.write(true)
	c.cfg.OnLocks(ctx, next.locks())
}

// replace puts known in force.
func (c *Cache) replace(known *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		close(c.filled)
	} else {
		known.keepNodes(c.known, c.cfg.Clock.Now().Add(keepNodes))
	}
	c.known, c.current = known, true
}

func (c *Cache) setCurrent(current bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = current
}

// apply takes one change.
func (c *Cache) apply(ctx context.Context, event types.Event) {
	if event.Resource == nil {
		return
	}
	var kind string
	c.mu.Lock()
	// Readers have had the slices of the snapshot that is there.
	next := c.known.clone()
	switch event.Type {
	case types.OpPut:
		kind = next.put(event.Resource)
	case types.OpDelete:
		kind = next.remove(event.Resource)
	}
	if kind != "" {
		c.known = next
	}
	c.mu.Unlock()
	switch kind {
	case "":
		return
	case types.KindNode, types.KindProxy:
		c.dirty = true
		return
	}
	c.write(true)
	switch kind {
	case types.KindCertAuthority:
		c.cfg.OnHostCAs(ctx, next.authorities(types.HostCA))
	case types.KindLock:
		c.cfg.OnLocks(ctx, next.locks())
	}
}

// write brings the copy on disk up to date: at once, or where only nodes have
// changed since.
func (c *Cache) write(always bool) {
	if !always && !c.dirty {
		return
	}
	c.mu.RLock()
	known := c.known
	c.mu.RUnlock()
	if known == nil {
		return
	}
	c.dirty = false
	if err := known.write(c.cfg.Path); err != nil {
		c.dirty = true
		if text := err.Error(); text != c.unwritable {
			c.unwritable = text
			c.cfg.Log.Warnf("What is known of the cluster cannot be kept for the next start: %v.", err)
		}
		return
	}
	c.unwritable = ""
}
