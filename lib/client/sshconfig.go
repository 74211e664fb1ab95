// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What ssh's own client needs in ~/.ssh/config.

package client

import (
	"fmt"
	"net"
	"strings"

	"github.com/gravitational/trace"
)

// SSHConfig returns lines for ~/.ssh/config with which ssh, and what uses it,
// reaches NODE.CLUSTER with the login of p. tsh is the absolute path of tsh, and
// args are what it has to be called with before its command.
func SSHConfig(p *Profile, tsh string, args []string) (string, error) {
	host, port, err := p.SSHProxyHostPort()
	if err != nil {
		return "", trace.Wrap(err)
	}
	files := map[string]string{}
	for key, path := range map[string]string{
		"UserKnownHostsFile": p.KnownHostsPath(),
		"IdentityFile":       p.UserSSHKeyPath(),
		"CertificateFile":    p.SSHCertPath(),
	} {
		if files[key], err = sshQuote(path); err != nil {
			return "", trace.Wrap(err)
		}
	}
	command := []string{tsh}
	command = append(command, args...)
	command = append(command, "proxy", "ssh", "--cluster="+p.SiteName)
	for i, word := range command {
		if command[i], err = shellQuote(word); err != nil {
			return "", trace.Wrap(err)
		}
	}
	// ssh fills in %r, %h and %p, and leaves the rest to the shell.
	proxyCommand := strings.Join(command, " ") + " '%r@%h:%p'"
	notProxy := ""
	if strings.HasSuffix(host, "."+p.SiteName) {
		notProxy = " !" + host
	}
	jump := p.SiteName
	if host != p.SiteName && net.ParseIP(host) == nil {
		jump += " " + host
	}

	var b strings.Builder
	fmt.Fprintf(&b, "# Begin of what tsh config wrote for the cluster %s: append it to ~/.ssh/config.\n", p.SiteName)
	fmt.Fprintf(&b, "\n# Nodes, as ssh LOGIN@NODE.%s\n", p.SiteName)
	fmt.Fprintf(&b, "Host *.%s%s\n", p.SiteName, notProxy)
	common := func() {
		for _, key := range []string{"UserKnownHostsFile", "IdentityFile", "CertificateFile"} {
			fmt.Fprintf(&b, "    %s %s\n", key, files[key])
		}
		b.WriteString("    IdentitiesOnly yes\n    StrictHostKeyChecking yes\n")
	}
	common()
	fmt.Fprintf(&b, "    ProxyCommand %s\n", proxyCommand)
	fmt.Fprintf(&b, "\n# The proxy itself, as a jump host: ssh -J LOGIN@%s LOGIN@NODE.%s\n", p.SiteName, p.SiteName)
	fmt.Fprintf(&b, "Host %s\n", jump)
	fmt.Fprintf(&b, "    HostName %s\n    Port %d\n    HostKeyAlias %s\n", host, port, host)
	common()
	fmt.Fprintf(&b, "\n# End of what tsh config wrote for the cluster %s.\n", p.SiteName)
	return b.String(), nil
}

// sshQuote is a path as ssh_config reads it: between quotes, where % begins what
// ssh fills in.
func sshQuote(path string) (string, error) {
	if err := checkConfigPath(path); err != nil {
		return "", trace.Wrap(err)
	}
	if strings.ContainsAny(path, `"\`) || strings.Contains(path, "${") {
		return "", trace.BadParameter("the path %q has a character that ssh_config cannot have: use another folder, with TELEPORT_HOME", path)
	}
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

// shellQuote is a word of a ProxyCommand, which ssh and then a shell reads.
func shellQuote(word string) (string, error) {
	if err := checkConfigPath(word); err != nil {
		return "", trace.Wrap(err)
	}
	word = strings.ReplaceAll(word, "%", "%%")
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-=:@%+,"
	if word != "" && strings.Trim(word, plain) == "" {
		return word, nil
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'", nil
}

func checkConfigPath(path string) error {
	if Clean(path) != path {
		return trace.BadParameter("the path %q has control or invisible characters, which ssh_config cannot have", path)
	}
	return nil
}
