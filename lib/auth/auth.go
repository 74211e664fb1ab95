// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package auth is the cluster's authority: it keeps the keys that sign the
// certificates of users and hosts, and knows which nodes there are.
//
// Open opens the cluster in a folder, and makes one on first start; SignUser
// and SignHost sign; UserCAs and HostCAs say whom to trust:
//
//	server, err := auth.Open(ctx, auth.Config{DataDir: "/var/lib/teleport", ClusterName: "example.com"})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	defer server.Close()
//	cert, err := server.SignUser(ctx, auth.UserCertRequest{
//		PublicKey: key,
//		User:      "alice",
//		Logins:    []string{"bob", "root"},
//		TTL:       12 * time.Hour,
//	})
//
// The daemon and tctl may have the same folder open at the same time.
package auth

import (
	"context"
	"path/filepath"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auth/seal"
	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/sqlite"
)

const (
	// MaxTTL is how long a certificate may be valid at most.
	MaxTTL = 365 * 24 * time.Hour

	// MaxNameLength bounds the name of a user, login, host or cluster, in
	// bytes: that of a file, so that each can name one.
	MaxNameLength = 255

	// MaxPrincipals bounds the logins or host names of one certificate, at
	// OpenSSH's own limit (SSHKEY_CERT_MAX_PRINCIPALS in sshkey.h). It reads no
	// certificate that has more.
	MaxPrincipals = 256

	// ClockSkew is how far the clock of a host may be behind ours that is to
	// accept a certificate at once: certificates begin so much before they are
	// signed.
	ClockSkew = time.Minute
)

const (
	// clusterNameKey is where the store has the cluster's name.
	clusterNameKey = "/cluster_name"

	// caKeyName is the file in Config.DataDir of the key that seals the
	// authorities' private keys.
	caKeyName = "ca_key"
)

// Config says which cluster to open.
type Config struct {
	// DataDir is the folder of the store. It may be used by the user alone that
	// this process runs as, and is made so where it is not there.
	DataDir string
	// Backend is where the cluster's state is, instead of a store in DataDir.
	// The Server closes it, also where Open fails.
	Backend backend.Backend
	// CAKeyFile has the key that seals the authorities' private keys: ca_key in
	// DataDir by default. It is made where there is no cluster yet. All auth
	// servers of a cluster need the same.
	CAKeyFile string
	// ClusterName is the name for a cluster that is made, and must be that of
	// one that is there. Empty opens the one that is there, whatever its name.
	ClusterName string
	// Clock decides from when and until when a certificate is valid; the real
	// one by default.
	Clock clockwork.Clock
	// Log is told of each certificate that is signed; logrus's standard logger
	// by default.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults refuses a Config that lacks DataDir where it is needed, and
// a ClusterName that cannot stand in a host's name.
func (c *Config) CheckAndSetDefaults() error {
	if c.DataDir == "" && (c.Backend == nil || c.CAKeyFile == "") {
		return trace.BadParameter("no folder was given for the cluster: set teleport.data_dir")
	}
	if c.CAKeyFile == "" {
		c.CAKeyFile = filepath.Join(c.DataDir, caKeyName)
	}
	if c.ClusterName != "" {
		if err := checkClusterName(c.ClusterName); err != nil {
			return trace.Wrap(err)
		}
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// where names the place of the cluster for errors.
func (c *Config) where() string {
	if c.Backend != nil {
		return "the storage"
	}
	return c.DataDir
}

// Server is an open cluster. Its methods may be called from several goroutines.
type Server struct {
	// Credentials are what the cluster's users log in with.
	*Credentials

	store backend.Backend
	// place names the store in errors.
	place       string
	seal        *seal.Key
	clusterName string
	clock       clockwork.Clock
	log         logrus.FieldLogger
	joins       *joinLimits
}

// Open opens the cluster in cfg.Backend or cfg.DataDir. Where there is none and
// cfg.ClusterName names one, it makes it: a user and a host authority, each with
// SSH and TLS keys, and the preset roles. Processes that do so at the same moment
// get the same cluster.
// The authorities of a cluster that an earlier version made get what they lack.
//
// The error is trace.NotFound where there is no cluster and ClusterName is
// empty, or a cluster and no key that opens its authorities,
// trace.AccessDenied where that is another cluster's key,
// trace.BadParameter where the cluster has another name, and what
// sqlite.Open says where the store cannot be used.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		if cfg.Backend != nil {
			_ = cfg.Backend.Close() // err is what the caller needs
		}
		return nil, trace.Wrap(err)
	}
	s := &Server{store: cfg.Backend, place: cfg.where(), clock: cfg.Clock, log: cfg.Log}
	if s.store == nil {
		store, err := sqlite.Open(ctx, sqlite.Config{
			Dir:       cfg.DataDir,
			MustExist: cfg.ClusterName == "",
			Clock:     cfg.Clock,
		})
		if trace.IsNotFound(err) {
			return nil, noCluster(cfg.DataDir)
		}
		if err != nil {
			return nil, trace.Wrap(err)
		}
		s.store, s.place = store, filepath.Join(cfg.DataDir, sqlite.FileName)
	}
	s.joins = newJoinLimits(s)
	if err := s.openCluster(ctx, cfg); err != nil {
		_ = s.store.Close() // err is what the caller needs
		return nil, trace.Wrap(err)
	}
	return s, nil
}

func (s *Server) openCluster(ctx context.Context, cfg Config) error {
	err := s.readClusterName(ctx)
	if trace.IsNotFound(err) {
		if cfg.ClusterName == "" {
			return noCluster(cfg.where())
		}
		if err := s.createCluster(ctx, cfg); err != nil {
			return trace.Wrap(err)
		}
		err = s.readClusterName(ctx)
	}
	if trace.IsNotFound(err) {
		// Create found a part of a cluster, so it did not make one.
		return trace.Errorf("the cluster in %s is incomplete, it has authorities and no name: restore %s from a backup", cfg.where(), s.place)
	}
	if err != nil {
		return trace.Wrap(err)
	}
	if cfg.ClusterName != "" && cfg.ClusterName != s.clusterName {
		return trace.BadParameter("%s holds the cluster %q, and the configuration names it %q: set auth_service.cluster_name to %q, or set another data_dir to start a new cluster with authorities of its own",
			s.place, s.clusterName, cfg.ClusterName, s.clusterName)
	}
	if err := s.readSeal(ctx, cfg.CAKeyFile); err != nil {
		return trace.Wrap(err)
	}
	for _, kind := range authorityKinds() {
		if err := s.completeAuthority(ctx, kind); err != nil {
			return trace.Wrap(err)
		}
		// What cannot sign is said now, not to the first user.
		if _, err := s.signer(ctx, kind); err != nil {
			return trace.Wrap(err)
		}
	}
	s.Credentials, err = NewCredentials(CredentialsConfig{
		Backend:   s.store,
		Sealer:    s.seal,
		Cluster:   s,
		ProxyAddr: s.ProxyAddr,
		Clock:     cfg.Clock,
		Log:       cfg.Log,
	})
	if err != nil {
		return trace.Wrap(err)
	}
	if cfg.ClusterName == "" {
		return nil // whoever only looks at the cluster does not bring back a role that was removed
	}
	return trace.Wrap(s.EnsurePresets(ctx))
}

// readSeal reads the key of the authorities. It is made only where nothing was
// sealed yet: a new one would open nothing.
func (s *Server) readSeal(ctx context.Context, file string) error {
	read := seal.ReadOrCreate
	for _, kind := range authorityKinds() {
		authority, err := s.sealedAuthority(ctx, kind)
		if err != nil {
			return trace.Wrap(err)
		}
		if hasSealed(authority) {
			read = seal.Read
		}
	}
	key, err := read(file)
	if err != nil {
		return trace.Wrap(err)
	}
	s.seal = key
	return nil
}

func (s *Server) readClusterName(ctx context.Context) error {
	item, err := s.store.Get(ctx, clusterNameKey)
	if err != nil {
		return trace.Wrap(err)
	}
	s.clusterName = string(item.Value)
	return nil
}

// createCluster writes the name and both authorities in one step. Where another
// process was faster it writes nothing, and its authorities are forgotten.
func (s *Server) createCluster(ctx context.Context, cfg Config) error {
	key, err := seal.ReadOrCreate(cfg.CAKeyFile)
	if err != nil {
		return trace.Wrap(err)
	}
	s.seal = key
	items := []backend.Item{{Key: clusterNameKey, Value: []byte(cfg.ClusterName)}}
	for _, kind := range authorityKinds() {
		authority, err := newAuthority(kind, cfg.ClusterName, s.clock.Now())
		if err != nil {
			return trace.Wrap(err)
		}
		item, err := s.encodeAuthority(authority)
		if err != nil {
			return trace.Wrap(err)
		}
		items = append(items, item)
	}
	err = s.store.Create(ctx, items...)
	if trace.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return trace.Wrap(err)
	}
	s.log.WithField("cluster", cfg.ClusterName).Infof("Created a new cluster with a user and a host authority in %s.", s.place)
	return nil
}

func noCluster(dir string) error {
	return trace.NotFound("there is no cluster in %s: start teleport with the auth role there first", dir)
}

// Close closes the store. The Server must not be used after it.
func (s *Server) Close() error {
	s.joins.beyond.Close()
	return trace.Wrap(s.store.Close())
}

// ClusterName returns the name that the cluster was made with.
func (s *Server) ClusterName() string {
	return s.clusterName
}
