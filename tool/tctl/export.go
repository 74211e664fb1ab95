// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl auth export: whom to trust, as OpenSSH's files have it.

package main

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

const (
	exportUser = "user"
	exportHost = "host"
)

// maxPatterns bounds the length of the list of hosts in one line. Some readers
// of known_hosts stop at 64 KiB a line, older ones at 8.
const maxPatterns = 4 << 10

type exportCommand struct {
	clause *kingpin.CmdClause
	kind   string
}

func newExportCommand(parent *kingpin.CmdClause) *exportCommand {
	c := &exportCommand{clause: parent.Command("export", "Print the keys of an authority: user for sshd's TrustedUserCAKeys and teleport's trusted_user_ca_keys, host for known_hosts.")}
	c.clause.Flag("type", "Which authority: user or host.").
		PlaceHolder("TYPE").Required().StringVar(&c.kind)
	return c
}

func (c *exportCommand) run(ctx context.Context, t *tctl) error {
	if c.kind != exportUser && c.kind != exportHost {
		return usageError{trace.BadParameter("there is no authority %q: the types are: %s, %s", c.kind, exportUser, exportHost)}
	}
	server, err := t.open(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer server.Close() //nolint:errcheck // all that was to be read has been read

	var lines []string
	if c.kind == exportUser {
		keys, err := server.UserCAs(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		lines = trustedUserCAKeys(server.ClusterName(), keys)
	} else {
		keys, err := server.HostCAs(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		nodes, err := server.Nodes(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		thisHost, err := os.Hostname()
		if err != nil {
			return trace.Errorf("cannot read the name of this host: %v", err)
		}
		lines = knownHosts(server.ClusterName(), keys, hostPatterns(server.ClusterName(), nodes, thisHost))
	}
	return t.print(strings.Join(lines, ""))
}

func trustedUserCAKeys(cluster string, keys []ssh.PublicKey) []string {
	var lines []string
	for _, key := range keys {
		lines = append(lines, string(publicLine(key, cluster+" user authority")))
	}
	return lines
}

func knownHosts(cluster string, keys []ssh.PublicKey, patterns []string) []string {
	var lines []string
	for _, key := range keys {
		for _, list := range lists(patterns, maxPatterns) {
			lines = append(lines, "@cert-authority "+list+" "+string(publicLine(key, cluster+" host authority")))
		}
	}
	return lines
}

// lists joins the patterns with commas to lists of at most limit bytes, or of a
// single pattern.
func lists(patterns []string, limit int) []string {
	var lists []string
	for _, pattern := range patterns {
		if last := len(lists) - 1; last >= 0 && len(lists[last])+1+len(pattern) <= limit {
			lists[last] += "," + pattern
		} else {
			lists = append(lists, pattern)
		}
	}
	return lists
}

// hostPatterns are the names under which users reach the hosts of the cluster,
// without ports: ssh looks for certificate authorities without the port, too.
// auth has let no names in that could be read as more than one.
func hostPatterns(cluster string, nodes []types.Server, thisHost string) []string {
	names := map[string]bool{}
	for _, node := range nodes {
		names[node.GetHostname()] = true
		host, _, err := net.SplitHostPort(node.GetAddr())
		if err != nil {
			continue
		}
		host, _, _ = strings.Cut(host, "%") // ssh is given a zone by the user
		ip := net.ParseIP(host)
		if ip == nil || !ip.IsUnspecified() {
			names[host] = true
		}
		if strings.EqualFold(node.GetHostname(), thisHost) || host == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
			for _, loopback := range []string{"localhost", "127.0.0.1", "::1"} {
				names[loopback] = true
			}
		}
	}
	delete(names, "")
	patterns := make([]string, 0, len(names)+1)
	for name := range names {
		patterns = append(patterns, name)
	}
	slices.Sort(patterns)
	return append([]string{"*." + cluster}, patterns...)
}
