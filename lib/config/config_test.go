// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auditd"
)

// guideSection is the guide's, word for word.
const guideSection = `ssh_service:
  # Enabled SSH Service
  enabled: true
  # Enable PAM integration
  pam:
    # "no" by default
    enabled: true
    # use /etc/pam.d/sshd configuration (the default)
    service_name: "sshd"
`

// joiner starts a file of a host that joins, to which lines of the section
// teleport may be added.
const joiner = "auth_service: {enabled: no}\nteleport:\n  auth_server: a.example.com\n"

var aPin = "sha256:" + strings.Repeat("0f", 32)

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "teleport.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestReadFile(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want func(*Config)
	}{
		"the guide's section": {guideSection, func(c *Config) {
			c.SSH.PAM.Enabled = true
		}},
		"services that are not mentioned stay enabled": {"auth_service:\n", func(*Config) {}},
		"every key": {`
teleport:
  nodename: web-1
  data_dir: /srv/teleport
  pid_file: /run/teleport.pid
  log: {output: /var/log/teleport.log, severity: warn, format: {output: json}}
  auditd: {mode: required}
auth_service: {enabled: on, cluster_name: example.com}
proxy_service:
  enabled: off
  listen_addr: 192.0.2.1:23
  max_startups: 7
  login_grace_time: 30s
ssh_service:
  enabled: yes
  listen_addr: '[2001:db8::1]:2222'
  labels:
    env: prod
    "rack.io/row": "12"
  trusted_user_ca_keys: /etc/ssh/ca.pub
  pam: {enabled: no, service_name: login}
  max_sessions: 3
  max_startups: 4
  login_grace_time: "1m30s"
  keep_alive_interval: 30s
  client_idle_timeout: 15m
  disconnect_expired_cert: yes
  banner: /etc/issue.net
  ssh_file_copy: no
  port_forwarding: no
  gateway_ports: clientspecified
  permit_user_env: yes
  keep_detached_processes: yes
`, func(c *Config) {
			c.NodeName, c.DataDir, c.PIDFile = "web-1", "/srv/teleport", "/run/teleport.pid"
			c.Log = Log{Output: "/var/log/teleport.log", Severity: logrus.WarnLevel, Format: "json"}
			c.AuditMode = auditd.ModeRequired
			c.Auth.ClusterName = "example.com"
			c.Proxy.Enabled = false
			c.Proxy.ListenAddr, c.Proxy.MaxStartups, c.Proxy.LoginGraceTime = "192.0.2.1:23", 7, 30*time.Second
			c.SSH = SSH{
				Enabled: true, ListenAddr: "[2001:db8::1]:2222",
				Labels:            map[string]string{"env": "prod", "rack.io/row": "12"},
				TrustedUserCAKeys: "/etc/ssh/ca.pub",
				PAM:               PAM{ServiceName: "login"},
				MaxSessions:       3, MaxStartups: 4, LoginGraceTime: 90 * time.Second, KeepDetached: true,
				KeepAliveInterval: 30 * time.Second, ClientIdleTimeout: 15 * time.Minute, DisconnectExpiredCert: true,
				Banner: "/etc/issue.net", RefuseFileCopy: true, RefuseForwarding: true, GatewayPorts: "clientspecified", PermitUserEnv: true,
			}
		}},
		"every key of an auth server and a proxy": {`
teleport:
  storage:
    type: etcd
    peers: ["https://10.0.0.1:2379", 10.0.0.2]
    prefix: /clusters/a
    tls_cert_file: /c
    tls_key_file: /k
    tls_ca_file: /ca
    ca_key_file: /sealed
auth_service: {listen_addr: ":1", public_addr: auth.example.com, authentication: {second_factor: off}}
proxy_service:
  web_listen_addr: ":2"
  tunnel_listen_addr: ":3"
  public_addr: proxy.example.com:443
  ssh_public_addr: proxy.example.com
  tunnel_public_addr: proxy.example.com
  https_keypairs:
  - key_file: /a.key
    cert_file: /a.crt
  - {key_file: /b.key, cert_file: /b.crt}
  proxy_protocol: yes
ssh_service: {public_addr: 192.0.2.9}
`, func(c *Config) {
			c.Storage = Storage{
				Type: "etcd", Peers: []string{"https://10.0.0.1:2379", "10.0.0.2:2379"}, Prefix: "/clusters/a",
				TLSCertFile: "/c", TLSKeyFile: "/k", TLSCAFile: "/ca", CAKeyFile: "/sealed",
			}
			c.Auth.ListenAddr, c.Auth.PublicAddr, c.Auth.SecondFactor = ":1", "auth.example.com:3025", "off"
			c.Proxy.WebListenAddr, c.Proxy.TunnelListenAddr = ":2", ":3"
			c.Proxy.PublicAddr, c.Proxy.SSHPublicAddr, c.Proxy.TunnelPublicAddr = "proxy.example.com:443", "proxy.example.com:3023", "proxy.example.com:3024"
			c.Proxy.KeyPairs = []KeyPair{{"/a.key", "/a.crt"}, {"/b.key", "/b.crt"}}
			c.Proxy.ProxyProtocol = true
			c.SSH.PublicAddr = "192.0.2.9:3022"
		}},
		"a host that joins": {joiner + "  auth_token: /run/token\n  ca_pin: \"" + strings.ToUpper(aPin) + "\"\n", func(c *Config) {
			c.Auth.Enabled = false
			c.AuthServers, c.AuthToken, c.CAPins = []string{"a.example.com:3025"}, "/run/token", []string{aPin}
		}},
		"a host that joins through a proxy": {"teleport: {proxy_server: a.example.com, ca_pin: [\"" + aPin + "\", \"" + aPin + "\"]}", func(c *Config) {
			c.ProxyServer, c.CAPins = "a.example.com:3080", []string{aPin, aPin}
		}},
		"several auth servers": {"teleport: {auth_servers: [a.example.com, \"[::1]:1\"]}", func(c *Config) {
			c.AuthServers = []string{"a.example.com:3025", "[::1]:1"}
		}},
		"byte order mark and CRLF": {"\ufeffteleport:\r\n  nodename: a\r\n", func(c *Config) { c.NodeName = "a" }},
		"mode off is a mode":       {"teleport: {auditd: {mode: off}}", func(c *Config) { c.AuditMode = auditd.ModeOff }},
		"a section in comments":    {"ssh_service:\n  pam:\n  #  enabled: yes\n", func(*Config) {}},
		"words as values":          {"teleport: {nodename: no}", func(c *Config) { c.NodeName = "no" }},
		"all of PAM": {"ssh_service:\n  pam:\n    enabled: yes\n    use_pam_auth: yes\n    environment:\n      TEAM: \"{{external.team}}\"\n      WHO: '{{user.metadata.name}} of {{ internal.logins }}'\n", func(c *Config) {
			c.SSH.PAM = PAM{Enabled: true, ServiceName: "sshd", UseAuth: true, Environment: map[string]string{
				"TEAM": "{{external.team}}", "WHO": "{{user.metadata.name}} of {{ internal.logins }}",
			}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadFile(write(t, test.text))
			require.NoError(t, err)
			want := Default()
			test.want(want)
			got.file, got.places = "", nil
			require.Equal(t, want, got)
		})
	}
}

func TestBooleans(t *testing.T) {
	for want, words := range map[bool][]string{
		true:  {"yes", "Yes", "true", "True", "on", "ON", "y", "1", `"yes"`, `'true'`, `"1"`},
		false: {"no", "No", "false", "False", "off", "OFF", "n", "0", `"no"`, `'false'`, `"off"`},
	} {
		for _, word := range words {
			cfg, err := parse("f", []byte("ssh_service:\n  enabled: "+word+"\n"))
			require.NoError(t, err, word)
			require.Equal(t, want, cfg.SSH.Enabled, word)
		}
	}
}

func TestGatewayPorts(t *testing.T) {
	for text, want := range map[string]string{
		"no": "no", "false": "no", "off": "no", `"no"`: "no",
		"yes": "yes", "true": "yes", "on": "yes",
		"clientspecified": "clientspecified", "ClientSpecified": "clientspecified",
	} {
		cfg, err := parse("f", []byte("ssh_service:\n  gateway_ports: "+text+"\n"))
		require.NoError(t, err, text)
		require.Equal(t, want, cfg.SSH.GatewayPorts, text)
	}
}

func TestIdleTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{"never": 0, "Never": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "8760h": 8760 * time.Hour} {
		cfg, err := parse("f", []byte("ssh_service:\n  client_idle_timeout: "+text+"\n"))
		require.NoError(t, err, text)
		require.Equal(t, want, cfg.SSH.ClientIdleTimeout, text)
		require.NoError(t, cfg.CheckAndSetDefaults())
		again, err := parse("f", []byte(Sample(cfg)))
		require.NoError(t, err)
		require.Equal(t, want, again.SSH.ClientIdleTimeout, "as Sample writes it")
	}
}

func TestListenAddr(t *testing.T) {
	for text, want := range map[string]string{
		"0.0.0.0:3022":      "0.0.0.0:3022",
		":2222":             ":2222",
		"192.0.2.7":         "192.0.2.7:3022",
		"host.example":      "host.example:3022",
		"host.example:0":    "host.example:0",
		"[::1]:22":          "[::1]:22",
		"[::1]":             "[::1]:3022",
		"::1":               "[::1]:3022",
		"::":                "[::]:3022",
		"fe80::1%eth0":      "[fe80::1%eth0]:3022",
		"[fe80::1%eth0]:65": "[fe80::1%eth0]:65",
		"127.0.0.1:65535":   "127.0.0.1:65535",
	} {
		got, err := parseListenAddr(text, DefaultSSHPort)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for text, says := range map[string]string{
		"":                "is empty",
		":":               "not a number from 0 to 65535",
		"127.0.0.1:65536": "not a number from 0 to 65535",
		"127.0.0.1:-1":    "not a number from 0 to 65535",
		"127.0.0.1:ssh":   "not a number from 0 to 65535",
		"[::1":            "no closing bracket",
		"[::1]22":         "must follow the bracket",
		"[host]:22":       "no IPv6 address",
		"[127.0.0.1]:22":  "no IPv6 address",
		"2001:db8::x:22":  "needs brackets",
		"300.1.1.1:22":    "no IPv4 address",
		"a b:22":          "may hold only letters",
		"tcp://h:22":      "needs brackets",
		"-h:22":           "must start with a letter",
	} {
		_, err := parseListenAddr(text, DefaultSSHPort)
		require.ErrorContains(t, err, says, text)
	}
}

// TestRefusals holds each mistake to one line: place, key and remedy.
func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown key": {"ssh_service:\n  enabled: yes\n  listen_adr: :22\n",
			`FILE:3:3: there is no key "listen_adr" in ssh_service: the nearest known key is "listen_addr", so write that or take the line out`},
		"unknown section": {"ssh_servce:\n  enabled: yes\n",
			`FILE:1:1: there is no key "ssh_servce" at the top level: the nearest known key is "ssh_service", so write that or take the line out`},
		"swapped letters": {"teleport:\n  log:\n    ouptut: stderr\n",
			`FILE:3:5: there is no key "ouptut" in teleport.log: the nearest known key is "output", so write that or take the line out`},
		"key in the wrong section": {"teleport:\n  trusted_user_ca_keys: /a\n",
			`FILE:2:3: there is no key "trusted_user_ca_keys" in teleport: the known one is ssh_service.trusted_user_ca_keys, so move it there (nearest here: "auth_servers")`},
		"unknown key with control characters": {"\"a\\nb\": 1\n", `FILE:1:1: there is no key "a\nb" at the top level: the nearest known key is "teleport", so write that or take the line out`},
		"duplicate key": {"ssh_service:\n  enabled: yes\n  \"enabled\": no\n",
			`FILE:3:3: ssh_service.enabled is set twice, first in line 2: take one of them out`},
		"duplicate section": {"ssh_service:\n  enabled: yes\nssh_service:\n", `FILE:3:1: ssh_service is set twice, first in line 1: take one of them out`},
		"duplicate label":   {"ssh_service:\n  labels: {a: b, a: c}\n", `FILE:2:18: ssh_service.labels.a is set twice, first in line 2: take one of them out`},
		"number for a boolean": {"ssh_service:\n  enabled: 3\n",
			`FILE:2:12: ssh_service.enabled: expects yes or no (true, false, on and off are taken too), not "3"`},
		"list for a boolean":    {"ssh_service:\n  enabled: [yes]\n", `FILE:2:12: ssh_service.enabled: expects yes or no, and has a list`},
		"nothing for a boolean": {"ssh_service:\n  enabled:\n", `FILE:2:3: ssh_service.enabled has no value: write one, or take the key out`},
		"text for a section":    {"ssh_service: yes\n", `FILE:1:14: ssh_service: expects keys below it, indented, and has the text "yes"`},
		"text for labels":       {"ssh_service:\n  labels: env\n", `FILE:2:11: ssh_service.labels: expects keys below it, indented, and has the text "env"`},
		"number for text":       {"teleport:\n  nodename: 12\n", `FILE:2:13: teleport.nodename: expects text, and has the number "12": put it in quotes`},
		"number for a label":    {"ssh_service:\n  labels:\n    rack: 12\n", `FILE:3:11: ssh_service.labels.rack: expects text, and has the number "12": put it in quotes`},
		"keys for a label":      {"ssh_service:\n  labels:\n    rack: {a: b}\n", `FILE:3:11: ssh_service.labels.rack: expects text, and has keys below it`},
		"label's name": {"ssh_service:\n  labels:\n    \"a b\": c\n",
			`FILE:3:5: ssh_service.labels: a label's name may hold only letters, digits and -_./:*, so not the ' ' of "a b"`},
		"text for a number":      {"ssh_service:\n  max_sessions: many\n", `FILE:2:17: ssh_service.max_sessions: expects a number from 1 to 100000, and has the text "many"`},
		"no sessions":            {"ssh_service:\n  max_sessions: 0\n", `FILE:2:17: ssh_service.max_sessions: expects a number from 1 to 100000, not 0`},
		"hexadecimal":            {"ssh_service:\n  max_sessions: 0x10\n", `FILE:2:17: ssh_service.max_sessions: expects a number from 1 to 100000, in decimal digits, and has "0x10"`},
		"time without a unit":    {"ssh_service:\n  login_grace_time: 120\n", `FILE:2:21: ssh_service.login_grace_time: expects a time with its unit: write 120s for seconds`},
		"endless time":           {"ssh_service:\n  login_grace_time: 0s\n", `FILE:2:21: ssh_service.login_grace_time: expects a time from 1s to 1h0m0s, not 0s`},
		"keepalives without end": {"ssh_service:\n  keep_alive_interval: 25h\n", `FILE:2:24: ssh_service.keep_alive_interval: expects a time from 1s to 24h0m0s, not 25h0m0s`},
		"keepalives too often":   {"ssh_service:\n  keep_alive_interval: 10ms\n", `FILE:2:24: ssh_service.keep_alive_interval: expects a time from 1s to 24h0m0s, not 10ms`},
		"no keepalives":          {"ssh_service:\n  keep_alive_interval: never\n", `FILE:2:24: ssh_service.keep_alive_interval: expects a time with its unit, such as 120s or 2m, not "never"`},
		"idle for nothing":       {"ssh_service:\n  client_idle_timeout: 0s\n", `FILE:2:24: ssh_service.client_idle_timeout: expects a time from 1s to 8760h0m0s, or never, not 0s`},
		"idle as a number":       {"ssh_service:\n  client_idle_timeout: 0\n", `FILE:2:24: ssh_service.client_idle_timeout: expects a time with its unit: write 0s for seconds`},
		"idle as a word":         {"ssh_service:\n  client_idle_timeout: often\n", `FILE:2:24: ssh_service.client_idle_timeout: expects a time with its unit, such as 120s or 2m, or never, not "often"`},
		"gateway ports":          {"ssh_service:\n  gateway_ports: client\n", `FILE:2:18: ssh_service.gateway_ports: expects no, yes or clientspecified, and has the text "client"`},
		"gateway port":           {"ssh_service:\n  gateway_ports: 8080\n", `FILE:2:18: ssh_service.gateway_ports: expects no, yes or clientspecified, and has the number "8080"`},
		"banner's text":          {"ssh_service:\n  banner: \"Keep out!\"\n", `FILE:2:11: ssh_service.banner: expects a whole path, from /, not "Keep out!"`},
		"file copy":              {"ssh_service:\n  ssh_file_copy: maybe\n", `FILE:2:18: ssh_service.ssh_file_copy: expects yes or no (true, false, on and off are taken too), not "maybe"`},
		"port alone":             {"ssh_service:\n  listen_addr: 3022\n", `FILE:2:16: ssh_service.listen_addr: expects an address, and has the number "3022": for a port alone write ":3022"`},
		"port out of range":      {"proxy_service:\n  listen_addr: 0.0.0.0:99999\n", `FILE:2:16: proxy_service.listen_addr: expects an address such as "0.0.0.0:3022", ":3022" or "[::1]:3022"; the port "99999" is not a number from 0 to 65535`},
		"severity":               {"teleport: {log: {severity: loud}}\n", `FILE:1:28: teleport.log.severity: expects DEBUG, INFO, WARN or ERROR, not "loud"`},
		"output":                 {"teleport: {log: {output: sysolg}}\n", `FILE:1:26: teleport.log.output: expects stderr, stdout, syslog, or a file's whole path, from /, not "sysolg"`},
		"format":                 {"teleport: {log: {format: {output: xml}}}\n", `FILE:1:35: teleport.log.format.output: expects text or json, not "xml"`},
		"mode":                   {"teleport: {auditd: {mode: maybe}}\n", `FILE:1:27: teleport.auditd.mode: expects auto, required or off, and has the text "maybe"`},
		"mode false":             {"teleport: {auditd: {mode: false}}\n", `FILE:1:27: teleport.auditd.mode: expects auto, required or off, and has the word false`},
		"relative path":          {"teleport:\n  data_dir: var\n", `FILE:2:13: teleport.data_dir: expects a whole path, from /, not "var"`},
		"service name":           {"ssh_service:\n  pam:\n    service_name: ../sshd\n", `FILE:3:19: ssh_service.pam.service_name: expects the name of a file in /etc/pam.d, such as "sshd", not "../sshd"`},
		"node's name":            {"teleport:\n  nodename: \"web 1\"\n", `FILE:2:13: teleport.nodename: may hold only letters, digits, '-', '_' and '.', so not the ' ' of "web 1"`},
		"block of text":          {"teleport:\n  nodename: |\n    web\n", `FILE:2:13: teleport.nodename: expects text, and has a block of text`},
		"alias":                  {"teleport:\n  nodename: &n web\n  data_dir: *n\n", `FILE:2:13: teleport.nodename: anchors and aliases (& and *) are not supported: write the value out, in quotes where it starts with one of these`},
		"merge":                  {"ssh_service:\n  <<: {enabled: no}\n", `FILE:2:3: merging with << is not supported: write the keys out`},
		"tag":                    {"teleport:\n  nodename: !!str web\n", `FILE:2:13: teleport.nodename: tags (!) are not supported: write the value without it, in quotes where it starts with one`},
		"number as a key":        {"1: 2\n", `FILE:1:1: a key must be a plain word`},
		"list at the top":        {"- ssh_service\n", `FILE:1:1: expects sections such as "ssh_service:", and has a list`},
		"text at the top":        {"hello\n", `FILE:1:1: expects sections such as "ssh_service:", and has the text "hello"`},
		"second document":        {"ssh_service:\n  enabled: yes\n---\nauth_service:\n  enabled: no\n", `FILE:4:1: a second document (after ---) is not read: put everything into the first`},
		"empty":                  {"", `FILE is empty: teleport configure prints a file to start from, or start without --config to run on the defaults`},
		"comments alone":         {"# nothing\n---\n", `FILE is empty: teleport configure prints a file to start from, or start without --config to run on the defaults`},
		"tab":                    {"ssh_service:\n\tenabled: yes\n", `FILE:2:1: this is no YAML (found character '	' that cannot start any token): check the indentation, and put quotes around values that start with or hold : [ ] { } # & * ! | > ' " % @`},
		"brackets unquoted":      {"ssh_service:\n  listen_addr: [::]:22\n", `FILE:2:20: this is no YAML (value is not allowed in this context): check the indentation, and put quotes around values that start with or hold : [ ] { } # & * ! | > ' " % @`},
		"other text":             {"ssh_service:\n  a\xff: b\n", `FILE:2:4: this is no plain UTF-8 text: is it the right file?`},
		"NUL":                    {"a\x00", `FILE:1:2: this is no plain UTF-8 text: is it the right file?`},
		"deep brackets":          {strings.Repeat("[", 60000), `FILE:1:17: brackets are nested more than 16 deep: no key needs that`},
		"proxy without auth":     {"auth_service:\n  enabled: no\n", `FILE:2:3: proxy_service is enabled and auth_service is not, so the proxy needs a cluster: set teleport.auth_server or teleport.auth_servers, or enable auth_service here too, or disable proxy_service`},
		"PAM's questions":        {"ssh_service:\n  pam:\n    use_pam_auth: yes\n", `FILE:3:5: ssh_service.pam.use_pam_auth needs PAM, which is off, so that nobody would be asked: set ssh_service.pam.enabled to yes, or take use_pam_auth out`},
		"variables without PAM":  {"ssh_service:\n  pam:\n    environment:\n      TEAM: \"{{external.team}}\"\n", `FILE:3:5: ssh_service.pam.environment needs PAM, which is off, so that nobody would get the variables: set ssh_service.pam.enabled to yes, or take environment out`},
		"variable's source":      {"ssh_service:\n  pam:\n    environment:\n      TEAM: \"{{extrenal.team}}\"\n", `FILE:4:13: ssh_service.pam.environment.TEAM: has {{extrenal.team}}, which is not known: {{user.metadata.name}}, {{internal.logins}} and {{external.TRAIT}} are`},
		"variable's brackets":    {"ssh_service:\n  pam:\n    environment:\n      TEAM: \"{{external.team}\"\n", `FILE:4:13: ssh_service.pam.environment.TEAM: has a {{ without a }} after it at "{{external.team}"`},
		"variable's name":        {"ssh_service:\n  pam:\n    environment:\n      LD_PRELOAD: x\n", `FILE:4:7: ssh_service.pam.environment: "LD_PRELOAD" decides which code programs load, and must not follow a certificate`},
		"variable's number":      {"ssh_service:\n  pam:\n    environment:\n      1: x\n", `FILE:4:7: ssh_service.pam.environment: a variable's name must be text: put it in quotes`},
		"variable twice":         {"ssh_service:\n  pam:\n    environment:\n      A: x\n      A: y\n", `FILE:5:7: ssh_service.pam.environment.A is set twice, first in line 4: take one of them out`},
		"node that trusts nobody": {"auth_service:\n  enabled: no\nproxy_service:\n  enabled: no\nssh_service:\n  enabled: yes\n",
			`FILE:6:3: ssh_service has nobody to trust, as auth_service is not enabled here: set teleport.auth_server or teleport.proxy_server to join a cluster, or ssh_service.trusted_user_ca_keys to a file of user CA keys (tctl auth export --type=user prints a cluster's), or enable auth_service`},
		"nothing to run":                    {"auth_service: {enabled: no}\nproxy_service: {enabled: no}\nssh_service: {enabled: no}\n", `FILE:3:15: every service is disabled, so there is nothing to run: enable at least one of auth_service, proxy_service and ssh_service`},
		"one port for both":                 {"proxy_service:\n  listen_addr: 0.0.0.0:3022\n", `FILE:2:3: proxy_service.listen_addr and ssh_service.listen_addr are both 0.0.0.0:3022: give one of them another port`},
		"one port for HTTPS and the tunnel": {"proxy_service:\n  tunnel_listen_addr: 0.0.0.0:3080\n", `FILE:2:3: proxy_service.tunnel_listen_addr and proxy_service.web_listen_addr are both 0.0.0.0:3080: give one of them another port`},
		"two ways to the auth servers": {joiner + "  proxy_server: proxy.example.com\n",
			`FILE:4:3: teleport.proxy_server and teleport.auth_server are two ways to one cluster: take one of them out`},
		"two keys for the auth servers":  {joiner + "  auth_servers: [b.example.com]\n", `FILE:4:17: teleport.auth_servers: auth_server and auth_servers are the same: take one of them out`},
		"auth server that joins":         {"teleport: {auth_server: a.example.com}\n", `FILE:1:12: auth_service is enabled, so this process is an auth server and joins none: set auth_service.enabled to no (or start with --roles=node), or take teleport.auth_server and teleport.proxy_server out`},
		"proxy behind a proxy":           {"teleport: {proxy_server: a.example.com}\nauth_service: {enabled: no}\n", `FILE:1:12: a proxy reaches the auth servers itself, and not through another proxy: set teleport.auth_server or teleport.auth_servers instead of teleport.proxy_server`},
		"token for nobody":               {"teleport: {auth_token: abc}\n", `FILE:1:12: teleport.auth_token (--token) is for joining a cluster, and nothing says which: set teleport.auth_server (--auth-server) or teleport.proxy_server (--proxy-server), or take it out`},
		"pin for nobody":                 {"teleport: {ca_pin: \"" + aPin + "\"}\n", `FILE:1:12: teleport.ca_pin (--ca-pin) is for joining a cluster, and nothing says which: set teleport.auth_server (--auth-server) or teleport.proxy_server (--proxy-server), or take it out`},
		"pin":                            {joiner + "  ca_pin: sha256:12\n", `FILE:4:11: teleport.ca_pin: expects sha256: and 64 hexadecimal digits, as tctl status prints it, not "sha256:12"`},
		"pin of another kind":            {joiner + "  ca_pin: [\"md5:" + aPin[7:] + "\"]\n", `FILE:4:11: teleport.ca_pin: expects sha256: and 64 hexadecimal digits, as tctl status prints it, not "md5:` + aPin[7:67] + `"...`},
		"token with a space":             {joiner + "  auth_token: a b\n", `FILE:4:15: teleport.auth_token: a token holds neither spaces nor control characters: copy it again from what tctl tokens add printed`},
		"auth server that is everywhere": {"teleport: {auth_server: \"0.0.0.0:3025\"}\n", `FILE:1:25: teleport.auth_server: expects an address that others can dial, such as "auth.example.com:3025"; "0.0.0.0:3025" names no host`},
		"auth server without a port":     {"teleport: {auth_server: \"a:0\"}\n", `FILE:1:25: teleport.auth_server: expects an address that others can dial, such as "auth.example.com:3025"; "a:0" has no port`},
		"list of one auth server":        {"teleport: {auth_server: [a]}\n", `FILE:1:25: teleport.auth_server: expects one address, and has a list: write it as auth_servers`},
		"auth servers as a word":         {"teleport: {auth_servers: a}\n", `FILE:1:26: teleport.auth_servers: expects a list, such as ["a", "b"], and has the text "a"`},
		"no auth servers":                {"teleport: {auth_servers: []}\n", `FILE:1:26: teleport.auth_servers: expects from 1 to 64 values, and has 0`},
		"storage":                        {"teleport: {storage: {type: postgres}}\n", `FILE:1:28: teleport.storage.type: expects sqlite or etcd, not "postgres"`},
		"etcd without peers":             {"teleport: {storage: {type: etcd}}\n", `FILE:1:22: teleport.storage has the type etcd and no peers: set teleport.storage.peers to the addresses of etcd's members, such as ["10.0.0.1:2379"]`},
		"peers without etcd":             {"teleport: {storage: {peers: [a]}}\n", `FILE:1:22: teleport.storage.peers is for the type etcd, and the type is sqlite: set teleport.storage.type to etcd, or take it out`},
		"half a pair for etcd":           {"teleport: {storage: {type: etcd, peers: [a], tls_key_file: /k}}\n", `FILE:1:46: teleport.storage.tls_cert_file and tls_key_file belong together: set both, or none`},
		"etcd's prefix":                  {"teleport: {storage: {prefix: teleport}}\n", `FILE:1:30: teleport.storage.prefix: expects a path such as "/teleport", from / and without one at its end, not "teleport"`},
		"half a pair for HTTPS":          {"proxy_service:\n  https_keypairs:\n  - key_file: /k\n", `FILE:3:5: proxy_service.https_keypairs[0] has no cert_file: a key and its certificate are two files, so name both`},
		"HTTPS without a list":           {"proxy_service:\n  https_keypairs:\n    key_file: /k\n    cert_file: /c\n", `FILE:3:5: proxy_service.https_keypairs: expects a list, each with a dash before it, and has keys below it`},
		"HTTPS with another key":         {"proxy_service:\n  https_keypairs:\n  - {key: /k}\n", `FILE:3:6: there is no key "key" in proxy_service.https_keypairs[0]: the nearest known key is "key_file", so write that or take the line out`},
		"second factor":                  {"auth_service: {authentication: {second_factor: on}}\n", `FILE:1:48: auth_service.authentication.second_factor: expects otp or off, and has the text "on"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, test.text)
			cfg, err := ReadFile(path)
			if err == nil {
				err = cfg.CheckAndSetDefaults()
			}
			require.True(t, trace.IsBadParameter(err), "%v", err)
			// A tab that the parser quotes is the one thing that is replaced.
			want := strings.ReplaceAll(strings.ReplaceAll(test.want, "FILE", path), "\t", " ")
			require.Equal(t, want, trace.UserMessage(err))
		})
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadFile(filepath.Join(dir, "none.yaml"))
	require.True(t, trace.IsNotFound(err))
	require.ErrorContains(t, err, "does not exist: name another with --config")

	_, err = ReadFile(dir)
	require.True(t, trace.IsBadParameter(err))
	require.ErrorContains(t, err, "is a folder")

	_, err = ReadFile(write(t, strings.Repeat("# long\n", 20000)))
	require.True(t, trace.IsBadParameter(err))
	require.ErrorContains(t, err, "is larger than the 64 KiB")

	t.Run("not permitted", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may read every file: run this test as another user")
		}
		path := write(t, guideSection)
		require.NoError(t, os.Chmod(path, 0))
		_, err = ReadFile(path)
		require.True(t, trace.IsAccessDenied(err))
		require.ErrorContains(t, err, "permission denied. Run as root")
	})
}

func TestCheckAndSetDefaults(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)

	cfg := &Config{SSH: SSH{Enabled: true}, Auth: Auth{Enabled: true}, Proxy: Proxy{Enabled: true}}
	require.NoError(t, cfg.CheckAndSetDefaults())
	want := Default()
	want.NodeName = host
	require.Equal(t, want, cfg)

	t.Run("debug", func(t *testing.T) {
		cfg := Default()
		cfg.Debug = true
		require.NoError(t, cfg.CheckAndSetDefaults())
		require.Equal(t, logrus.DebugLevel, cfg.Log.Severity)
	})
	t.Run("paths from flags", func(t *testing.T) {
		t.Chdir(t.TempDir())
		here, err := os.Getwd()
		require.NoError(t, err)
		cfg := Default()
		cfg.DataDir, cfg.PIDFile = "data", "pid"
		require.NoError(t, cfg.CheckAndSetDefaults())
		require.Equal(t, filepath.Join(here, "data"), cfg.DataDir)
		require.Equal(t, filepath.Join(here, "pid"), cfg.PIDFile)
	})
	for says, change := range map[string]func(*Config){
		"the node's name (teleport.nodename, --nodename): may hold only": func(c *Config) { c.NodeName = "a\nb" },
		"teleport.log.output: expects":                                   func(c *Config) { c.Log.Output = "x" },
		"teleport.log.format.output: expects":                            func(c *Config) { c.Log.Format = "x" },
		"auth_service.cluster_name: must start":                          func(c *Config) { c.Auth.ClusterName = "-x" },
		"proxy_service.max_startups: expects":                            func(c *Config) { c.Proxy.MaxStartups = -1 },
		"proxy_service.login_grace_time: expects":                        func(c *Config) { c.Proxy.LoginGraceTime = time.Nanosecond },
		"proxy_service.listen_addr: expects":                             func(c *Config) { c.Proxy.ListenAddr = "x:y" },
		"ssh_service.listen_addr: expects":                               func(c *Config) { c.SSH.ListenAddr = "x:y" },
		"ssh_service.pam.service_name: expects":                          func(c *Config) { c.SSH.PAM.ServiceName = ".." },
		"ssh_service.pam.environment: X: has a {{":                       func(c *Config) { c.SSH.PAM.Environment = map[string]string{"X": "{{"} },
		"ssh_service.max_sessions: expects":                              func(c *Config) { c.SSH.MaxSessions = -1 },
		"ssh_service.max_startups: expects":                              func(c *Config) { c.SSH.MaxStartups = maxCount + 1 },
		"ssh_service.login_grace_time: expects":                          func(c *Config) { c.SSH.LoginGraceTime = 2 * time.Hour },
		"ssh_service.keep_alive_interval: expects":                       func(c *Config) { c.SSH.KeepAliveInterval = time.Millisecond },
		"ssh_service.client_idle_timeout: expects":                       func(c *Config) { c.SSH.ClientIdleTimeout = -time.Second },
		"ssh_service.gateway_ports: expects":                             func(c *Config) { c.SSH.GatewayPorts = "x" },
		"ssh_service.banner: expects":                                    func(c *Config) { c.SSH.Banner = "x" },
		"teleport.auditd.mode:":                                          func(c *Config) { c.AuditMode = "x" },
		"teleport.auth_server (--auth-server): expects":                  func(c *Config) { c.AuthServers = []string{""} },
		"teleport.ca_pin (--ca-pin): expects":                            func(c *Config) { c.CAPins = []string{"x"} },
		"teleport.auth_token (--token): a token":                         func(c *Config) { c.AuthToken = "a\nb" },
		"teleport.storage.type: expects":                                 func(c *Config) { c.Storage.Type = "x" },
		"teleport.storage.ca_key_file: expects":                          func(c *Config) { c.Storage.CAKeyFile = "x" },
		"auth_service.authentication.second_factor: expects":             func(c *Config) { c.Auth.SecondFactor = "x" },
		"proxy_service.web_listen_addr: expects":                         func(c *Config) { c.Proxy.WebListenAddr = "x:y" },
		"proxy_service.public_addr: expects":                             func(c *Config) { c.Proxy.PublicAddr = ":1" },
		"proxy_service.https_keypairs[0].key_file: expects":              func(c *Config) { c.Proxy.KeyPairs = []KeyPair{{"x", "/y"}} },
	} {
		cfg := Default()
		change(cfg)
		err := cfg.CheckAndSetDefaults()
		require.True(t, trace.IsBadParameter(err), says)
		require.ErrorContains(t, err, says)
	}
}

func TestSetRoles(t *testing.T) {
	cfg, err := parse("f", []byte("auth_service: {enabled: no}\nproxy_service: {enabled: no}\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"node"}, cfg.Roles())
	require.NoError(t, cfg.SetRoles("Node, auth,proxy"))
	require.Equal(t, []string{"auth", "proxy", "node"}, cfg.Roles())

	// The error must not point at lines that the flag has overruled.
	require.NoError(t, cfg.SetRoles("proxy"))
	err = cfg.CheckAndSetDefaults()
	require.ErrorContains(t, err, "f: proxy_service is enabled and auth_service is not")

	for _, list := range []string{"", "auth,", "windows", "auth;node"} {
		require.True(t, trace.IsBadParameter(cfg.SetRoles(list)), list)
	}
}

// TestSample reads back what teleport configure prints.
func TestSample(t *testing.T) {
	want := Default()
	want.NodeName = "web-1"
	want.DataDir = `/srv/with "quotes" and \`
	require.NoError(t, want.CheckAndSetDefaults())
	got, err := ReadFile(write(t, Sample(want)))
	require.NoError(t, err)
	require.NoError(t, got.CheckAndSetDefaults())
	got.file, got.places = "", nil
	require.Equal(t, want, got)

	// Every key is in it, if only as a comment.
	var check func([]key)
	check = func(known []key) {
		for _, k := range known {
			require.Contains(t, Sample(want), k.name+":")
			check(k.section)
			if k.each != nil {
				check(k.each())
			}
		}
	}
	check(schema(new(Config)))
}

// TestReference holds docs/configuration.md to the schema: every key has one line,
// and what it gives as the default is what stands where a file says nothing.
func TestReference(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| (.+?) \\| (.+) \\|$").FindAllStringSubmatch(string(page), -1) {
		require.NotContains(t, documented, m[1], "twice")
		documented[m[1]] = m[2]
		require.True(t, strings.HasSuffix(m[3], ".") || strings.HasSuffix(m[3], "`."), "%s: a sentence", m[1])
	}
	var walk func(known []key, path, indent string)
	var file strings.Builder
	keys := 0
	walk = func(known []key, path, indent string) {
		for _, k := range known {
			name := join(path, k.name)
			if k.section != nil {
				fmt.Fprintf(&file, "%s%s:\n", indent, k.name)
				walk(k.section, name, indent+"  ")
				continue
			}
			keys++
			text, ok := documented[name]
			require.True(t, ok, "docs/configuration.md does not have %s", name)
			if value, ok := strings.CutPrefix(text, "`"); ok {
				fmt.Fprintf(&file, "%s%s: %s\n", indent, k.name, strings.TrimSuffix(value, "`"))
			}
		}
	}
	walk(schema(new(Config)), "", "")
	require.Len(t, documented, keys, "docs/configuration.md has keys that there are not")
	got, err := ReadFile(write(t, file.String()))
	require.NoError(t, err, file.String())
	got.file, got.places = "", nil
	require.Equal(t, Default(), got)
}

// FuzzParse holds that no file brings the parser down, that an error is one
// line that names the file, and that what was taken can be checked.
func FuzzParse(f *testing.F) {
	cfg := Default()
	cfg.NodeName = "n"
	f.Add(guideSection)
	f.Add(Sample(cfg))
	for _, text := range []string{"a: &a [*a]", "? a\n: b", "<<: *x", "--- |\n a", "%YAML 1.2\n---\na: b", "a: {b: [c, {d: e}]}",
		"ssh_service:\n labels:\n  a: 'b\n  c'", "teleport: {nodename: \"\\x00\"}", "a:\n- b\n -c", "!!map {a: b}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		cfg, err := parse("/f", []byte(text))
		if err == nil {
			err = cfg.CheckAndSetDefaults()
		}
		if err == nil {
			return
		}
		line := trace.UserMessage(err)
		require.True(t, strings.HasPrefix(line, "/f"), line)
		require.Equal(t, line, printable(line))
	})
}
