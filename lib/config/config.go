// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package config turns teleport.yaml into a checked Config.
//
// Most callers need two calls. ReadFile reads a file, or Default gives what
// runs without one; CheckAndSetDefaults then fills in what was left out and
// refuses what cannot work:
//
//	cfg, err := config.ReadFile("/etc/teleport.yaml")
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	err = cfg.CheckAndSetDefaults()
//
// Every refusal is one line that names the file, the line, the column and the
// key, and says what to write instead. Flags go between the two calls: they
// change fields, and SetRoles picks the services.
package config

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/pam/pamenv"
)

// What stands where a file says nothing.
const (
	// DefaultPath is the file that is read where none is named.
	DefaultPath = "/etc/teleport.yaml"
	// DefaultDataDir is where certificate authorities and host keys are kept.
	DefaultDataDir = "/var/lib/teleport"
	// DefaultClusterName does not follow the host's name, which may change
	// while the certificate authorities stay.
	DefaultClusterName = "teleport-auditd"
	// DefaultPAMServiceName is OpenSSH's, so that its PAM rules apply.
	DefaultPAMServiceName = "sshd"

	// DefaultSSHPort is the node's port.
	DefaultSSHPort = "3022"
	// DefaultProxyPort is the jump host's port.
	DefaultProxyPort = "3023"

	// DefaultMaxSessions bounds the open sessions of one connection.
	DefaultMaxSessions = 10
	// DefaultMaxStartups bounds the connections that have not authenticated.
	DefaultMaxStartups = 100
	// DefaultLoginGraceTime is how long a client may take to authenticate.
	DefaultLoginGraceTime = 120 * time.Second
	// DefaultKeepAliveInterval is the time between two questions to a client
	// whether it is still there.
	DefaultKeepAliveInterval = 5 * time.Minute
	// DefaultGatewayPorts keeps remote forwarding on the loopback addresses.
	DefaultGatewayPorts = "no"
)

// Config is what the daemon runs by.
type Config struct {
	// NodeName is the host's name in the cluster and in its certificates.
	NodeName string
	// DataDir is an absolute path to a folder that is the daemon's alone.
	DataDir string
	// PIDFile is an absolute path, or empty for none.
	PIDFile string
	// Log says where log lines go.
	Log Log
	// AuditMode says what becomes of a login whose audit record cannot be
	// written.
	AuditMode auditd.Mode
	// Debug asks for debug lines and for the stacks of errors. Only a flag
	// sets it.
	Debug bool

	// Auth keeps the cluster's certificate authorities.
	Auth Auth
	// Proxy is the jump host.
	Proxy Proxy
	// SSH is the node.
	SSH SSH

	// file and places say where in which file a key stands, by its path such
	// as "ssh_service.enabled".
	file   string
	places map[string]place
}

// Log is teleport.log.
type Log struct {
	// Output is "stderr", "stdout", "syslog" or an absolute path.
	Output string
	// Severity is one of logrus's Error, Warn, Info and Debug levels.
	Severity logrus.Level
	// Format is "text" or "json".
	Format string
}

// Auth is auth_service.
type Auth struct {
	Enabled bool
	// ClusterName goes into host certificates and into sessions' environment.
	ClusterName string
}

// Proxy is proxy_service.
type Proxy struct {
	Enabled bool
	// ListenAddr is host:port, with an empty host for all addresses.
	ListenAddr string
	// MaxStartups bounds the connections that have not authenticated.
	MaxStartups int
	// LoginGraceTime is how long a client may take to authenticate.
	LoginGraceTime time.Duration
}

// SSH is ssh_service.
type SSH struct {
	Enabled bool
	// ListenAddr is host:port, with an empty host for all addresses.
	ListenAddr string
	// Labels are kept with the node's registration.
	Labels map[string]string
	// TrustedUserCAKeys is an absolute path to a file of CA public keys that
	// are trusted instead of the cluster's own; empty for none.
	TrustedUserCAKeys string
	// PAM is ssh_service.pam.
	PAM PAM
	// MaxSessions bounds the open sessions of one connection.
	MaxSessions int
	// MaxStartups bounds the connections that have not authenticated.
	MaxStartups int
	// LoginGraceTime is how long a client may take to authenticate.
	LoginGraceTime time.Duration
	// KeepAliveInterval is the time between two questions to a client whether
	// it is still there.
	KeepAliveInterval time.Duration
	// ClientIdleTimeout ends a connection on which nothing was sent for so long.
	// Zero never does.
	ClientIdleTimeout time.Duration
	// DisconnectExpiredCert ends a connection when its certificate does.
	DisconnectExpiredCert bool
	// Banner is an absolute path to a file that clients see before they
	// authenticate; empty for none.
	Banner string
	// RefuseFileCopy and RefuseForwarding are ssh_file_copy and
	// port_forwarding turned round, so that their zero values are the defaults.
	RefuseFileCopy, RefuseForwarding bool
	// GatewayPorts is "no", "yes" or "clientspecified", as sshd_config(5) has it.
	GatewayPorts string
	// PermitUserEnv reads ~/.ssh/environment and runs ~/.ssh/rc.
	PermitUserEnv bool
	// KeepDetached leaves processes alone at the end of a login that have
	// made a session of their own.
	KeepDetached bool
}

// PAM is ssh_service.pam.
type PAM struct {
	Enabled bool
	// ServiceName names the file in /etc/pam.d.
	ServiceName string
	// UseAuth has the auth stack ask the user, after the certificate.
	UseAuth bool
	// Environment holds variables for the modules and the user, as lib/pam/pamenv
	// reads them.
	Environment map[string]string
}

// Default is what runs without a file: auth, proxy and node on one host. It
// holds no host name yet: CheckAndSetDefaults asks the host.
func Default() *Config {
	return &Config{
		DataDir:   DefaultDataDir,
		Log:       Log{Output: "stderr", Severity: logrus.InfoLevel, Format: "text"},
		AuditMode: auditd.ModeAuto,
		Auth:      Auth{Enabled: true, ClusterName: DefaultClusterName},
		Proxy: Proxy{
			Enabled:        true,
			ListenAddr:     "0.0.0.0:" + DefaultProxyPort,
			MaxStartups:    DefaultMaxStartups,
			LoginGraceTime: DefaultLoginGraceTime,
		},
		SSH: SSH{
			Enabled:           true,
			ListenAddr:        "0.0.0.0:" + DefaultSSHPort,
			PAM:               PAM{ServiceName: DefaultPAMServiceName},
			MaxSessions:       DefaultMaxSessions,
			MaxStartups:       DefaultMaxStartups,
			LoginGraceTime:    DefaultLoginGraceTime,
			KeepAliveInterval: DefaultKeepAliveInterval,
			GatewayPorts:      DefaultGatewayPorts,
		},
	}
}

// SetRoles enables the roles of a comma-separated list (auth, proxy, node) and
// disables the others. The error is trace.BadParameter for any other word.
func (c *Config) SetRoles(list string) error {
	enabled := map[string]*bool{
		"auth":  &c.Auth.Enabled,
		"proxy": &c.Proxy.Enabled,
		"node":  &c.SSH.Enabled,
	}
	chosen := map[string]bool{}
	for _, role := range strings.Split(list, ",") {
		role = strings.ToLower(strings.TrimSpace(role))
		if enabled[role] == nil {
			return trace.BadParameter("there is no role %s: name one or more of auth, proxy and node, with commas between them", shorten(role))
		}
		chosen[role] = true
	}
	for role, on := range enabled {
		*on = chosen[role]
	}
	for _, section := range []string{"auth_service", "proxy_service", "ssh_service"} {
		delete(c.places, section)
		delete(c.places, section+".enabled")
	}
	return nil
}

// Roles lists the enabled roles, in the order in which they start.
func (c *Config) Roles() []string {
	var roles []string
	for _, role := range []struct {
		name string
		on   bool
	}{{"auth", c.Auth.Enabled}, {"proxy", c.Proxy.Enabled}, {"node", c.SSH.Enabled}} {
		if role.on {
			roles = append(roles, role.name)
		}
	}
	return roles
}

// CheckAndSetDefaults fills in what was left out and refuses what cannot work
// with trace.BadParameter, in one line that says what to change. It reads the
// host's name where the configuration has none, and touches nothing else.
func (c *Config) CheckAndSetDefaults() error {
	if err := c.setDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if err := c.checkValues(); err != nil {
		return trace.Wrap(err)
	}
	return trace.Wrap(c.checkRoles())
}

func (c *Config) setDefaults() error {
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return trace.BadParameter("the host's name cannot be read (%v): set teleport.nodename, or start with --nodename", err)
		}
		if err := checkName(name); err != nil {
			return trace.BadParameter("the host's own name %s cannot be used (%v): set teleport.nodename, or start with --nodename", shorten(name), err)
		}
		c.NodeName = name
	}
	def := Default()
	setDefault(&c.DataDir, def.DataDir)
	setDefault(&c.Log.Output, def.Log.Output)
	setDefault(&c.Log.Format, def.Log.Format)
	// Level 0 is logrus's panic level, which nobody can ask for.
	setDefault(&c.Log.Severity, def.Log.Severity)
	setDefault(&c.AuditMode, def.AuditMode)
	setDefault(&c.Auth.ClusterName, def.Auth.ClusterName)
	setDefault(&c.Proxy.ListenAddr, def.Proxy.ListenAddr)
	setDefault(&c.Proxy.MaxStartups, def.Proxy.MaxStartups)
	setDefault(&c.Proxy.LoginGraceTime, def.Proxy.LoginGraceTime)
	setDefault(&c.SSH.ListenAddr, def.SSH.ListenAddr)
	setDefault(&c.SSH.PAM.ServiceName, def.SSH.PAM.ServiceName)
	setDefault(&c.SSH.MaxSessions, def.SSH.MaxSessions)
	setDefault(&c.SSH.MaxStartups, def.SSH.MaxStartups)
	setDefault(&c.SSH.LoginGraceTime, def.SSH.LoginGraceTime)
	setDefault(&c.SSH.KeepAliveInterval, def.SSH.KeepAliveInterval)
	setDefault(&c.SSH.GatewayPorts, def.SSH.GatewayPorts)
	if c.Debug {
		c.Log.Severity = logrus.DebugLevel
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// checkValues checks again what a file's values were checked for when they
// were read: flags and embedding programs set fields too.
func (c *Config) checkValues() error {
	for _, path := range []*string{&c.DataDir, &c.PIDFile} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return trace.BadParameter("the path %s cannot be made absolute (%v): write it from /", shorten(*path), err)
		}
		*path = absolute
	}
	checks := []struct {
		what string
		err  error
	}{
		{"the node's name (teleport.nodename, --nodename)", checkName(c.NodeName)},
		{"teleport.log.output", checkLogOutput(c.Log.Output)},
		{"teleport.log.format.output", checkLogFormat(c.Log.Format)},
		{"auth_service.cluster_name", checkName(c.Auth.ClusterName)},
		{"proxy_service.max_startups", checkCount(c.Proxy.MaxStartups)},
		{"proxy_service.login_grace_time", checkGraceTime(c.Proxy.LoginGraceTime)},
		{"ssh_service.pam.service_name", checkPAMService(c.SSH.PAM.ServiceName)},
		{"ssh_service.max_sessions", checkCount(c.SSH.MaxSessions)},
		{"ssh_service.max_startups", checkCount(c.SSH.MaxStartups)},
		{"ssh_service.login_grace_time", checkGraceTime(c.SSH.LoginGraceTime)},
		{"ssh_service.keep_alive_interval", checkKeepAlive(c.SSH.KeepAliveInterval)},
		{"ssh_service.client_idle_timeout", checkIdleTimeout(c.SSH.ClientIdleTimeout)},
		{"ssh_service.gateway_ports", checkGatewayPorts(c.SSH.GatewayPorts)},
	}
	if c.SSH.Banner != "" {
		if err := checkPath(c.SSH.Banner); err != nil {
			return trace.BadParameter("ssh_service.banner: %v", err)
		}
	}
	for _, check := range checks {
		if check.err != nil {
			return trace.BadParameter("%s: %v", check.what, check.err)
		}
	}
	if _, err := pamenv.Parse(c.SSH.PAM.Environment); err != nil {
		return trace.BadParameter("ssh_service.pam.environment: %v", err)
	}
	if _, err := auditd.ParseMode(string(c.AuditMode)); err != nil {
		return trace.BadParameter("teleport.auditd.mode: %v", err)
	}
	var err error
	if c.Proxy.ListenAddr, err = parseListenAddr(c.Proxy.ListenAddr, DefaultProxyPort); err != nil {
		return trace.BadParameter("proxy_service.listen_addr: %v", err)
	}
	if c.SSH.ListenAddr, err = parseListenAddr(c.SSH.ListenAddr, DefaultSSHPort); err != nil {
		return trace.BadParameter("ssh_service.listen_addr: %v", err)
	}
	return nil
}

// checkRoles refuses services that cannot run together, or alone.
func (c *Config) checkRoles() error {
	if !c.Auth.Enabled && !c.Proxy.Enabled && !c.SSH.Enabled {
		return trace.BadParameter("%severy service is disabled, so there is nothing to run: enable at least one of auth_service, proxy_service and ssh_service",
			c.prefix("ssh_service.enabled", "proxy_service.enabled", "auth_service.enabled"))
	}
	if c.Proxy.Enabled && !c.Auth.Enabled {
		return trace.BadParameter("%sproxy_service is enabled and auth_service is not: the proxy takes its nodes and user CAs from the auth service of the same process, so enable auth_service here too, or disable proxy_service",
			c.prefix("auth_service.enabled", "proxy_service.enabled"))
	}
	if c.SSH.Enabled && !c.Auth.Enabled && c.SSH.TrustedUserCAKeys == "" {
		return trace.BadParameter("%sssh_service has nobody to trust, as auth_service is not enabled here: set ssh_service.trusted_user_ca_keys to a file of user CA keys (tctl auth export --type=user prints a cluster's), or enable auth_service",
			c.prefix("ssh_service.enabled", "auth_service.enabled", "ssh_service"))
	}
	if c.SSH.Enabled && c.SSH.PAM.UseAuth && !c.SSH.PAM.Enabled {
		return trace.BadParameter("%sssh_service.pam.use_pam_auth needs PAM, which is off, so that nobody would be asked: set ssh_service.pam.enabled to yes, or take use_pam_auth out",
			c.prefix("ssh_service.pam.use_pam_auth", "ssh_service.pam.enabled"))
	}
	if c.SSH.Enabled && len(c.SSH.PAM.Environment) > 0 && !c.SSH.PAM.Enabled {
		return trace.BadParameter("%sssh_service.pam.environment needs PAM, which is off, so that nobody would get the variables: set ssh_service.pam.enabled to yes, or take environment out",
			c.prefix("ssh_service.pam.environment", "ssh_service.pam.enabled"))
	}
	if c.Proxy.Enabled && c.SSH.Enabled && c.Proxy.ListenAddr == c.SSH.ListenAddr {
		if _, port, _ := net.SplitHostPort(c.SSH.ListenAddr); port != "0" {
			return trace.BadParameter("%sproxy_service and ssh_service both listen on %s: give one of them another port",
				c.prefix("ssh_service.listen_addr", "proxy_service.listen_addr"), c.SSH.ListenAddr)
		}
	}
	return nil
}

// prefix is "file:line:column: " of the first of the keys that the file has,
// "file: " where it has none, and empty without a file.
func (c *Config) prefix(keys ...string) string {
	if c.file == "" {
		return ""
	}
	for _, key := range keys {
		if at, ok := c.places[key]; ok {
			return at.in(c.file) + ": "
		}
	}
	return c.file + ": "
}
