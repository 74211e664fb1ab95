// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package config

// Which keys there are, and which field each one sets.

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/pam/pamenv"
)

// key is one key of the file: a section, names of the operator's own with their
// values, or a value.
type key struct {
	name    string
	section []key
	names   *names
	// each returns the keys of one more element of a list, bound to it.
	each func() []key
	// set reads the value. Its error reads after "key: ".
	set func(ast.Node) error
}

// names is a mapping whose keys are the operator's own.
type names struct {
	into *map[string]string
	// one and many say what these are: "a label", "labels".
	one, many string
	most      int
	// checkName's error stands alone, checkValue's reads after "key: ".
	checkName, checkValue func(string) error
}

func labels(into *map[string]string) *names {
	return &names{into, "a label", "labels", maxLabels, checkLabelKey, checkLabelValue}
}

func variables(into *map[string]string) *names {
	return &names{into, "a variable", "variables", pamenv.MaxVariables, pamenv.CheckName, pamenv.CheckValue}
}

// schema is every key, bound to the fields of c.
func schema(c *Config) []key {
	return []key{
		{name: "teleport", section: []key{
			{name: "nodename", set: text(&c.NodeName, checkName)},
			{name: "data_dir", set: text(&c.DataDir, checkPath)},
			{name: "pid_file", set: text(&c.PIDFile, checkPath)},
			{name: "log", section: []key{
				{name: "output", set: text(&c.Log.Output, checkLogOutput)},
				{name: "severity", set: func(n ast.Node) error {
					word, err := textOf(n)
					if err == nil {
						c.Log.Severity, err = parseSeverity(word)
					}
					return err
				}},
				{name: "format", section: []key{
					{name: "output", set: text(&c.Log.Format, checkLogFormat)},
				}},
			}},
			{name: "auditd", section: []key{
				{name: "mode", set: func(n ast.Node) error { return setMode(&c.AuditMode, n) }},
			}},
			{name: "auth_server", set: func(n ast.Node) error { return setAuthServers(&c.AuthServers, n, false) }},
			{name: "auth_servers", set: func(n ast.Node) error { return setAuthServers(&c.AuthServers, n, true) }},
			{name: "proxy_server", set: address(&c.ProxyServer, DefaultWebPort)},
			{name: "auth_token", set: text(&c.AuthToken, checkToken)},
			{name: "ca_pin", set: texts(&c.CAPins, false, parsePin)},
			{name: "storage", section: []key{
				{name: "type", set: text(&c.Storage.Type, checkStorage)},
				{name: "peers", set: texts(&c.Storage.Peers, true, parsePeer)},
				{name: "prefix", set: text(&c.Storage.Prefix, checkEtcdPrefix)},
				{name: "tls_cert_file", set: text(&c.Storage.TLSCertFile, checkPath)},
				{name: "tls_key_file", set: text(&c.Storage.TLSKeyFile, checkPath)},
				{name: "tls_ca_file", set: text(&c.Storage.TLSCAFile, checkPath)},
				{name: "ca_key_file", set: text(&c.Storage.CAKeyFile, checkPath)},
			}},
		}},
		{name: "auth_service", section: []key{
			{name: "enabled", set: boolean(&c.Auth.Enabled)},
			{name: "cluster_name", set: text(&c.Auth.ClusterName, checkName)},
			{name: "listen_addr", set: listenAddr(&c.Auth.ListenAddr, DefaultAuthPort)},
			{name: "public_addr", set: address(&c.Auth.PublicAddr, DefaultAuthPort)},
			{name: "authentication", section: []key{
				{name: "second_factor", set: func(n ast.Node) error { return setSecondFactor(&c.Auth.SecondFactor, n) }},
			}},
		}},
		{name: "proxy_service", section: []key{
			{name: "enabled", set: boolean(&c.Proxy.Enabled)},
			{name: "listen_addr", set: listenAddr(&c.Proxy.ListenAddr, DefaultProxyPort)},
			{name: "web_listen_addr", set: listenAddr(&c.Proxy.WebListenAddr, DefaultWebPort)},
			{name: "tunnel_listen_addr", set: listenAddr(&c.Proxy.TunnelListenAddr, DefaultTunnelPort)},
			{name: "public_addr", set: address(&c.Proxy.PublicAddr, DefaultWebPort)},
			{name: "ssh_public_addr", set: address(&c.Proxy.SSHPublicAddr, DefaultProxyPort)},
			{name: "tunnel_public_addr", set: address(&c.Proxy.TunnelPublicAddr, DefaultTunnelPort)},
			{name: "https_keypairs", each: func() []key {
				// The keys of an element are read before the next one is asked
				// for, so that the slice may move.
				c.Proxy.KeyPairs = append(c.Proxy.KeyPairs, KeyPair{})
				pair := &c.Proxy.KeyPairs[len(c.Proxy.KeyPairs)-1]
				return []key{
					{name: "key_file", set: text(&pair.KeyFile, checkPath)},
					{name: "cert_file", set: text(&pair.CertFile, checkPath)},
				}
			}},
			{name: "proxy_protocol", set: boolean(&c.Proxy.ProxyProtocol)},
			{name: "max_startups", set: count(&c.Proxy.MaxStartups)},
			{name: "login_grace_time", set: duration(&c.Proxy.LoginGraceTime, parseGraceTime)},
		}},
		{name: "ssh_service", section: []key{
			{name: "enabled", set: boolean(&c.SSH.Enabled)},
			{name: "listen_addr", set: listenAddr(&c.SSH.ListenAddr, DefaultSSHPort)},
			{name: "public_addr", set: address(&c.SSH.PublicAddr, DefaultSSHPort)},
			{name: "labels", names: labels(&c.SSH.Labels)},
			{name: "trusted_user_ca_keys", set: text(&c.SSH.TrustedUserCAKeys, checkPath)},
			{name: "pam", section: []key{
				{name: "enabled", set: boolean(&c.SSH.PAM.Enabled)},
				{name: "service_name", set: text(&c.SSH.PAM.ServiceName, checkPAMService)},
				{name: "use_pam_auth", set: boolean(&c.SSH.PAM.UseAuth)},
				{name: "environment", names: variables(&c.SSH.PAM.Environment)},
			}},
			{name: "max_sessions", set: count(&c.SSH.MaxSessions)},
			{name: "max_startups", set: count(&c.SSH.MaxStartups)},
			{name: "login_grace_time", set: duration(&c.SSH.LoginGraceTime, parseGraceTime)},
			{name: "keep_alive_interval", set: duration(&c.SSH.KeepAliveInterval, parseKeepAlive)},
			{name: "client_idle_timeout", set: duration(&c.SSH.ClientIdleTimeout, parseIdleTimeout)},
			{name: "disconnect_expired_cert", set: boolean(&c.SSH.DisconnectExpiredCert)},
			{name: "banner", set: text(&c.SSH.Banner, checkPath)},
			{name: "ssh_file_copy", set: refusal(&c.SSH.RefuseFileCopy)},
			{name: "port_forwarding", set: refusal(&c.SSH.RefuseForwarding)},
			{name: "gateway_ports", set: func(n ast.Node) error { return setGatewayPorts(&c.SSH.GatewayPorts, n) }},
			{name: "permit_user_env", set: boolean(&c.SSH.PermitUserEnv)},
			{name: "keep_detached_processes", set: boolean(&c.SSH.KeepDetached)},
		}},
	}
}

func findKey(known []key, name string) *key {
	for i := range known {
		if known[i].name == name {
			return &known[i]
		}
	}
	return nil
}

func text(field *string, check func(string) error) func(ast.Node) error {
	return func(n ast.Node) error {
		value, err := textOf(n)
		if err != nil {
			return err
		}
		*field = value
		return check(value)
	}
}

func boolean(field *bool) func(ast.Node) error {
	return func(n ast.Node) (err error) {
		*field, err = boolOf(n)
		return err
	}
}

func count(field *int) func(ast.Node) error {
	return func(n ast.Node) (err error) {
		*field, err = countOf(n)
		return err
	}
}

func listenAddr(field *string, defaultPort string) func(ast.Node) error {
	return func(n ast.Node) error {
		if number, ok := n.(*ast.IntegerNode); ok {
			return fmt.Errorf("expects an address, and has %s: for a port alone write \":%s\"", describe(n), number.GetToken().Value)
		}
		value, err := textOf(n)
		if err == nil {
			*field, err = parseListenAddr(value, defaultPort)
		}
		return err
	}
}

// address reads one that others are to dial.
func address(field *string, defaultPort string) func(ast.Node) error {
	return func(n ast.Node) error {
		value, err := textOf(n)
		if err == nil {
			*field, err = parseAddr(value, defaultPort)
		}
		return err
	}
}

// texts reads a list, or one word where it need not be a list.
func texts(field *[]string, onlyList bool, parse func(string) (string, error)) func(ast.Node) error {
	return func(n ast.Node) error {
		nodes := []ast.Node{n}
		list, isList := n.(*ast.SequenceNode)
		switch {
		case isList:
			nodes = list.Values
		case onlyList:
			return fmt.Errorf("expects a list, such as [\"a\", \"b\"], and has %s", describe(n))
		}
		if len(nodes) == 0 || len(nodes) > maxList {
			return fmt.Errorf("expects from 1 to %d values, and has %d", maxList, len(nodes))
		}
		*field = nil
		for _, node := range nodes {
			value, err := textOf(node)
			if err == nil {
				value, err = parse(value)
			}
			if err != nil {
				return err
			}
			*field = append(*field, value)
		}
		return nil
	}
}

// setAuthServers reads auth_server and auth_servers, of which a file has one.
func setAuthServers(field *[]string, n ast.Node, list bool) error {
	if len(*field) > 0 {
		return fmt.Errorf("auth_server and auth_servers are the same: take one of them out")
	}
	if _, isList := n.(*ast.SequenceNode); isList && !list {
		return fmt.Errorf("expects one address, and has a list: write it as auth_servers")
	}
	return texts(field, list, func(text string) (string, error) { return parseAddr(text, DefaultAuthPort) })(n)
}

// setSecondFactor takes YAML's false for the word off.
func setSecondFactor(field *string, n ast.Node) error {
	if word, ok := n.(*ast.StringNode); ok && checkSecondFactor(strings.ToLower(word.Value)) == nil {
		*field = strings.ToLower(word.Value)
		return nil
	}
	if on, err := boolOf(n); err == nil && !on {
		*field = SecondFactorOff
		return nil
	}
	return fmt.Errorf("expects otp or off, and has %s", describe(n))
}

// duration reads a time with its unit, by parse.
func duration(field *time.Duration, parse func(string) (time.Duration, error)) func(ast.Node) error {
	return func(n ast.Node) error {
		if number, ok := n.(*ast.IntegerNode); ok {
			return fmt.Errorf("expects a time with its unit: write %ss for seconds", number.GetToken().Value)
		}
		value, err := textOf(n)
		if err == nil {
			*field, err = parse(value)
		}
		return err
	}
}

// refusal reads yes or no for a field that says the opposite.
func refusal(field *bool) func(ast.Node) error {
	return func(n ast.Node) error {
		allowed, err := boolOf(n)
		*field = !allowed
		return err
	}
}

// setGatewayPorts takes YAML's booleans for the words yes and no.
func setGatewayPorts(field *string, n ast.Node) error {
	word, ok := n.(*ast.StringNode)
	if ok && strings.EqualFold(word.Value, gatewayClient) {
		*field = gatewayClient
		return nil
	}
	if all, err := boolOf(n); err == nil {
		*field = yesNo(all)
		return nil
	}
	return fmt.Errorf("expects no, yes or %s, and has %s", gatewayClient, describe(n))
}

// setMode names the modes in every refusal, YAML's own false included, which
// is not the mode off.
func setMode(mode *auditd.Mode, n ast.Node) error {
	word, ok := n.(*ast.StringNode)
	if ok && word.Value != "" {
		if parsed, err := auditd.ParseMode(strings.ToLower(word.Value)); err == nil {
			*mode = parsed
			return nil
		}
	}
	return fmt.Errorf("expects %s, %s or %s, and has %s", auditd.ModeAuto, auditd.ModeRequired, auditd.ModeOff, describe(n))
}
