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
	apidefaults "github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

const (
	exportUser    = "user"
	exportHost    = "host"
	exportTLSUser = "tls-user"
	exportTLSHost = "tls-host"
)

// maxPatterns bounds the length of the list of hosts in one line. Some readers
// of known_hosts stop at 64 KiB a line, older ones at 8.
const maxPatterns = 4 << 10

func (t *tctl) addExport(parent *kingpin.CmdClause, register register) {
	clause := parent.Command("export", "Print the keys of an authority: user for sshd's TrustedUserCAKeys and teleport's trusted_user_ca_keys, host for known_hosts, tls-user and tls-host in PEM.")
	var kindName string
	clause.Flag("type", "Which authority: user, host, tls-user or tls-host.").PlaceHolder("TYPE").Required().StringVar(&kindName)
	register(clause, func(ctx context.Context) error { return t.export(ctx, kindName) })
}

func (t *tctl) export(ctx context.Context, kindName string) error {
	kinds := map[string]types.CertAuthType{
		exportUser: types.UserCA, exportTLSUser: types.UserCA,
		exportHost: types.HostCA, exportTLSHost: types.HostCA,
	}
	kind, ok := kinds[kindName]
	if !ok {
		return usageError{trace.BadParameter("there is no authority %q: the types are: %s, %s, %s, %s", kindName, exportUser, exportHost, exportTLSUser, exportTLSHost)}
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	ping, err := c.Ping(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	authority, err := c.GetCertAuthority(ctx, types.CertAuthID{Type: kind, DomainName: ping.ClusterName}, false)
	if err != nil {
		return trace.Wrap(err)
	}
	var lines []string
	switch kindName {
	case exportTLSUser, exportTLSHost:
		for _, pair := range authority.GetTrustedTLSKeyPairs() {
			lines = append(lines, string(pair.Cert))
		}
	case exportUser:
		keys, err := sshKeys(authority)
		if err != nil {
			return trace.Wrap(err)
		}
		lines = trustedUserCAKeys(ping.ClusterName, keys)
	case exportHost:
		keys, err := sshKeys(authority)
		if err != nil {
			return trace.Wrap(err)
		}
		nodes, err := c.GetNodes(ctx, apidefaults.Namespace)
		if err != nil {
			return trace.Wrap(err)
		}
		thisHost, err := os.Hostname()
		if err != nil {
			return trace.Errorf("cannot read the name of this host: %v", err)
		}
		lines = knownHosts(ping.ClusterName, keys, hostPatterns(ping.ClusterName, nodes, thisHost))
	}
	return t.print(strings.Join(lines, ""))
}

// sshKeys are those that are trusted of an authority.
func sshKeys(authority types.CertAuthority) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for _, pair := range authority.GetTrustedSSHKeyPairs() {
		key, _, _, _, err := ssh.ParseAuthorizedKey(pair.PublicKey)
		if err != nil {
			return nil, trace.BadParameter("a key of the %s authority cannot be read: %v", authority.GetType(), err)
		}
		keys = append(keys, key)
	}
	return keys, nil
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
