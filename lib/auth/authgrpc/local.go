// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The API within one process: for tctl on the host of the auth service, which
// opens the storage itself.

package authgrpc

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/gravitational/teleport/api/breaker"
	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/test/bufconn"
)

const (
	// localBuffer is how much of a message waits in memory for the other end.
	localBuffer = 256 * 1024
	// localTimeout bounds the start of the connection, which touches no network.
	localTimeout = 20 * time.Second
)

// Cluster is a cluster that this process has opened, with the means to talk to
// itself.
type Cluster interface {
	Auth
	People
	// ServerCertificate returns what gives the auth service its certificate,
	// with its authority's behind it, for names beside those that clients ask
	// for.
	ServerCertificate(names []string) func(context.Context) (*tls.Certificate, error)
	// AdminTLS returns a client's configuration with a certificate for the role
	// Admin, which is good for as long as a command may take, and the host
	// authorities to trust.
	AdminTLS(ctx context.Context) (*tls.Config, error)
}

// LocalConfig is what Local may be told.
type LocalConfig struct {
	// Version is this program's.
	Version string
	// Operator is whom audit events name. It is the system user and this host,
	// such as root@auth1, by default.
	Operator string
	// Clock and Log are as in Config.
	Clock clockwork.Clock
	Log   logrus.FieldLogger
}

// Local serves the cluster to this process alone, over memory, and returns
// Teleport's client with a certificate for the role Admin. Whoever calls close
// ends both; the cluster stays open.
func Local(ctx context.Context, cluster Cluster, cfg LocalConfig) (c *client.Client, closeAll func(), err error) {
	if cfg.Operator == "" {
		cfg.Operator = operator()
	}
	server, err := New(Config{
		Auth:        cluster,
		People:      cluster,
		Certificate: cluster.ServerCertificate(nil),
		Admin:       cfg.Operator,
		Version:     cfg.Version,
		Clock:       cfg.Clock,
		Log:         cfg.Log,
	})
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	listener := bufconn.Listen(localBuffer)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(listener); err != nil {
			server.cfg.Log.WithError(err).Error("The API within the process ended.")
		}
	}()
	stop := func() {
		server.Close()
		<-served
	}
	config, err := cluster.AdminTLS(ctx)
	if err != nil {
		stop()
		return nil, nil, trace.Wrap(err)
	}
	c, err = client.New(ctx, client.Config{
		Credentials: []client.Credentials{client.LoadTLS(config)},
		Dialer: client.ContextDialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
			return listener.DialContext(ctx)
		}),
		DialTimeout:          localTimeout,
		CircuitBreakerConfig: breaker.NoopBreakerConfig(),
	})
	if err != nil {
		stop()
		return nil, nil, trace.Wrap(err)
	}
	return c, func() {
		_ = c.Close()
		stop()
	}, nil
}

// operator is who runs this process, and where.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if current, err := user.Current(); err == nil {
		name = current.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name + "@" + host
}
