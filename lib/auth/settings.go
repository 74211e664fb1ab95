// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The cluster that a configuration file names, for the daemon and for tctl.

package auth

import (
	"context"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/backend/etcd"
	"teleport-auditd/lib/backend/sqlite"
	"teleport-auditd/lib/config"
)

// StoreFile is the name of the embedded store's file in the data directory.
const StoreFile = sqlite.FileName

// OpenSettings is Open for the storage of settings, which have passed
// CheckAndSetDefaults. cfg says the rest; its DataDir, Backend and CAKeyFile are
// set here, and ClusterName is cfg's: empty opens the cluster that is there.
//
// The error is Open's, or etcd.Open's.
func OpenSettings(ctx context.Context, settings *config.Config, cfg Config) (*Server, error) {
	cfg.DataDir, cfg.CAKeyFile = settings.DataDir, settings.Storage.CAKeyFile
	if settings.Storage.Type == config.StorageEtcd {
		store, err := etcd.Open(ctx, etcd.Config{
			Peers:       settings.Storage.Peers,
			Prefix:      settings.Storage.Prefix,
			TLSCertFile: settings.Storage.TLSCertFile,
			TLSKeyFile:  settings.Storage.TLSKeyFile,
			TLSCAFile:   settings.Storage.TLSCAFile,
			Clock:       cfg.Clock,
			Log:         cfg.Log,
		})
		if err != nil {
			return nil, trace.Wrap(err)
		}
		cfg.Backend = store
	}
	return Open(ctx, cfg)
}
