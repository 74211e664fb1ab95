// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// How tctl reaches the cluster: as root on the host of the auth service through
// its storage, and from anywhere else through the auth service.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/breaker"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/identityfile"
	"github.com/gravitational/teleport/api/profile"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/authgrpc"
	"teleport-auditd/lib/cause"
	tshclient "teleport-auditd/lib/client"
	"teleport-auditd/lib/config"
	"teleport-auditd/lib/version"
)

// dialTimeout bounds how long an auth service may take to answer.
const dialTimeout = 15 * time.Second

// cluster is the connection to a cluster. Close must be called.
type cluster struct {
	*client.Client
	// server is the cluster itself, where this is the host of the auth service,
	// and settings what it runs by; else both are nil.
	server   *auth.Server
	settings *config.Config
	// proxyAddr is the web address of the proxy that tsh has logged in at, where
	// it is known.
	proxyAddr string
	close     []func()
}

// Close ends the connection. All that was to be read has been read, and what was
// written is acknowledged.
func (c *cluster) Close() {
	for i := len(c.close) - 1; i >= 0; i-- {
		c.close[i]()
	}
}

// remove removes each of names, and says so with the words of done.
func (t *tctl) remove(ctx context.Context, names []string, done string, remove func(*cluster, context.Context, string) error) error {
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	for _, name := range splitList(names) {
		if err := remove(c, ctx, name); err != nil {
			return trace.Wrap(err)
		}
		if err := t.print(fmt.Sprintf(done, printable(name))); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// connect connects to the cluster: with the identity file where one is given,
// through the storage of this host where it has one, and else as whom tsh has
// logged in.
func (t *tctl) connect(ctx context.Context) (*cluster, error) {
	if t.identity != "" {
		if len(t.authServers) == 0 {
			return nil, usageError{trace.BadParameter("--identity needs to know where to go: give --auth-server=HOST:PORT")}
		}
		if err := checkIdentity(t.identity, time.Now()); err != nil {
			return nil, trace.Wrap(err)
		}
		return t.dial(ctx, client.LoadIdentityFile(t.identity), t.authServers, "", "have a new identity file made with tctl auth sign --format=file")
	}
	if len(t.authServers) > 0 {
		return nil, usageError{trace.BadParameter("--auth-server is for an identity file: give --identity too")}
	}
	settings, err := t.settings()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	asked := t.configFileSet || t.dataDirSet
	if asked || hasCluster(settings) {
		return t.openLocal(ctx, settings)
	}
	dir := profile.FullProfilePath(os.Getenv("TELEPORT_HOME"))
	current, err := profile.FromDir(dir, "")
	if trace.IsNotFound(err) {
		return nil, trace.NotFound("there is no cluster in %s on this host, and nobody has logged in with tsh: run tctl as root on the host of the auth service, or log in first: tsh login --proxy=HOST", settings.DataDir)
	}
	if err != nil {
		return nil, trace.Wrap(err, "reading the profile of tsh in %s", dir)
	}
	if expires, ok := current.Expiry(); ok && !time.Now().Before(expires) {
		return nil, trace.AccessDenied("the login of %q has expired at %s: log in again: tsh login --proxy=%s", current.Username, expires.UTC().Format(time.RFC3339), current.WebProxyAddr)
	}
	return t.dial(ctx, client.LoadProfile(dir, current.Name()), []string{current.WebProxyAddr}, current.SiteName, "log in again: tsh login --proxy="+current.WebProxyAddr)
}

// checkIdentity tells what is wrong with an identity file by itself, which the api
// module says no more of than that there is no connection.
func checkIdentity(path string, now time.Time) error {
	read, err := identityfile.ReadFile(path)
	if err != nil {
		return trace.BadParameter("the identity file %s cannot be read: %v", path, trace.UserMessage(cause.System(err)))
	}
	certificate, err := parseCertificate(read.Certs.TLS)
	if err != nil {
		return trace.BadParameter("the identity file %s has no certificate for TLS: have one made with tctl auth sign --format=file", path)
	}
	if !now.Before(certificate.NotAfter) {
		return trace.AccessDenied("the certificate in the identity file %s has expired at %s: have a new one made with tctl auth sign --format=file", path, when(certificate.NotAfter))
	}
	return nil
}

// dial goes to the auth service, directly or through a proxy's web port. renew is
// what to do about credentials that are older than the cluster's authorities.
func (t *tctl) dial(ctx context.Context, credentials client.Credentials, addrs []string, clusterName, renew string) (*cluster, error) {
	if clusterName == "" {
		// A proxy needs to see for whom the connection is; the auth service does
		// not mind.
		clusterName = "cluster"
	}
	c, err := client.New(ctx, client.Config{
		Addrs:                      addrs,
		Credentials:                []client.Credentials{credentials},
		ALPNSNIAuthDialClusterName: clusterName,
		CircuitBreakerConfig:       breaker.NoopBreakerConfig(),
		DialTimeout:                dialTimeout,
	})
	if err != nil {
		if t.debug {
			return nil, trace.Wrap(err)
		}
		for _, addr := range addrs {
			switch reason := tshclient.Handshake(ctx, addr, clusterName, credentials); {
			case errors.Is(reason, tshclient.ErrStranger):
				// A rotation looks like this, and so does a man in the middle.
				return nil, trace.AccessDenied("what answers at %s does not prove to be the cluster: its authority is not one that is known here. Either the cluster's authorities were replaced, or somebody stands in between: ask who runs the cluster which it is, and if they were replaced, %s", addr, renew)
			case errors.Is(reason, tshclient.ErrRefused):
				return nil, trace.AccessDenied("the cluster takes this certificate no more, as its authority was replaced since: %s", renew)
			}
		}
		return nil, trace.ConnectionProblem(err, "no connection to the auth service at %s: see that it runs and can be reached (--debug says more)", strings.Join(addrs, ", "))
	}
	found := &cluster{Client: c, close: []func(){func() { _ = c.Close() }}}
	if len(addrs) == 1 {
		found.proxyAddr = addrs[0]
	}
	return found, nil
}

// openLocal opens the storage, and the auth service on it in this process.
func (t *tctl) openLocal(ctx context.Context, settings *config.Config) (*cluster, error) {
	log := logrus.New()
	log.SetOutput(t.stderr)
	log.SetLevel(logrus.WarnLevel)
	if t.debug {
		log.SetLevel(logrus.DebugLevel)
	}
	server, err := auth.OpenSettings(ctx, settings, auth.Config{Log: log, Clock: clockwork.NewRealClock()})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	c, closeClient, err := authgrpc.Local(ctx, server, authgrpc.LocalConfig{Version: version.Version, Log: log})
	if err != nil {
		_ = server.Close()
		return nil, trace.Wrap(err)
	}
	return &cluster{
		Client:   c,
		server:   server,
		settings: settings,
		close:    []func(){func() { _ = server.Close() }, closeClient},
	}, nil
}

// hasCluster tells whether this host seems to be one of the auth service's that
// this user may use.
func hasCluster(settings *config.Config) bool {
	if settings.Storage.Type == config.StorageEtcd {
		return settings.Auth.Enabled
	}
	_, err := os.Lstat(filepath.Join(settings.DataDir, auth.StoreFile))
	return err == nil || !errors.Is(err, fs.ErrNotExist) && os.Geteuid() == 0
}

// settings are those of the configuration file, or of none.
func (t *tctl) settings() (*config.Config, error) {
	file := ""
	switch {
	case t.configFileSet && t.dataDirSet:
		return nil, usageError{trace.BadParameter("--config and --data-dir both name the folder of the cluster: give one of them")}
	case t.dataDirSet:
		if t.dataDir == "" {
			return nil, usageError{trace.BadParameter("--data-dir is empty: give the folder of the cluster")}
		}
	case t.configFileSet:
		if t.configFile == "" {
			return nil, usageError{trace.BadParameter("--config is empty: give a configuration file of teleport")}
		}
		file = t.configFile
	default:
		if _, err := os.Lstat(t.defaultConfig); !errors.Is(err, fs.ErrNotExist) {
			file = t.defaultConfig
		}
	}
	if file == "" {
		settings := config.Default()
		if t.dataDirSet {
			settings.DataDir = t.dataDir
		}
		return settings, nil
	}
	settings, err := config.ReadFile(file)
	return settings, trace.Wrap(err)
}
