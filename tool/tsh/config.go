// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tsh config and tsh proxy ssh: the cluster for other programs.

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/client"
)

type configCommand struct {
	clause *kingpin.CmdClause
}

func newConfigCommand(app *kingpin.Application) *configCommand {
	return &configCommand{clause: app.Command("config", "Print what ~/.ssh/config needs, so that ssh, scp, rsync and ansible reach the nodes.")}
}

func (c *configCommand) clauseName() string { return c.clause.FullCommand() }

func (c *configCommand) run(_ context.Context, t *tsh) error {
	p, err := t.profile()
	if err != nil {
		return trace.Wrap(err)
	}
	executable, err := os.Executable()
	if err != nil {
		return trace.Wrap(err, "the path of tsh cannot be found")
	}
	var args []string
	if t.home != "" {
		home, err := filepath.Abs(t.home)
		if err != nil {
			return trace.ConvertSystemError(err)
		}
		args = append(args, "--home="+home)
	}
	args = append(args, "--proxy="+p.WebProxyAddr)
	text, err := client.SSHConfig(p, executable, args)
	if err != nil {
		return trace.Wrap(err)
	}
	return t.print(text)
}

type proxySSHCommand struct {
	clause          *kingpin.CmdClause
	cluster, target string
}

func newProxySSHCommand(parent *kingpin.CmdClause) *proxySSHCommand {
	c := &proxySSHCommand{clause: parent.Command("ssh", "Join standard input and output with a node: ssh's ProxyCommand.")}
	c.clause.Flag("cluster", "Cluster of the node. Without it, that of the login.").PlaceHolder("NAME").StringVar(&c.cluster)
	c.clause.Arg("node", "[LOGIN@]NODE:PORT.").Required().StringVar(&c.target)
	return c
}

func (c *proxySSHCommand) clauseName() string { return c.clause.FullCommand() }

func (c *proxySSHCommand) run(ctx context.Context, t *tsh) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	addr, err := parseTarget(c.target)
	if err != nil {
		return usageError{err}
	}
	p, err := c.profile(t)
	if err != nil {
		return trace.Wrap(err)
	}
	conn, err := client.Dial(ctx, client.DialConfig{Profile: p, Login: addr.Login, Clock: t.clock, Refresh: t.refresh(p)})
	if err != nil {
		return trace.Wrap(err)
	}
	defer conn.Close()
	stream, err := conn.OpenStream(ctx, addr)
	if err != nil {
		return trace.Wrap(err)
	}
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer end()
	return client.Pipe(stream, t.stdin, t.stdout)
}

func (c *proxySSHCommand) profile(t *tsh) (*client.Profile, error) {
	store, err := t.store()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if t.proxy == "" && c.cluster != "" {
		return store.LoadCluster(c.cluster)
	}
	p, err := store.LoadValid(t.proxy)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if c.cluster != "" && c.cluster != p.SiteName {
		return nil, trace.NotFound("the login at %s is for the cluster %q, not for %q", p.WebProxyAddr, p.SiteName, c.cluster)
	}
	return p, nil
}

// parseTarget reads [login@]host[:port].
func parseTarget(text string) (client.NodeAddr, error) {
	login, rest := client.ParseLoginHost(text)
	addr := client.NodeAddr{Login: login, Host: rest}
	if host, port, err := net.SplitHostPort(rest); err == nil {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return client.NodeAddr{}, trace.BadParameter("%q has no port between 0 and 65535: give it as [LOGIN@]NODE:PORT", text)
		}
		addr.Host, addr.Port = host, int(number)
	}
	if addr.Host == "" {
		return client.NodeAddr{}, trace.BadParameter("%q names no node: give it as [LOGIN@]NODE:PORT", text)
	}
	return addr, nil
}
