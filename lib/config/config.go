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
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
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
	// DefaultTunnelPort is where nodes dial in that nobody can dial.
	DefaultTunnelPort = "3024"
	// DefaultAuthPort is the auth service's port.
	DefaultAuthPort = "3025"
	// DefaultWebPort is the proxy's HTTPS port.
	DefaultWebPort = "3080"
	// DefaultEtcdPrefix is where in etcd the cluster is kept.
	DefaultEtcdPrefix = "/teleport"

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

	// AuthServers are host:port of the auth servers of the cluster that this
	// host belongs to. They are empty with the auth role, and where ProxyServer
	// leads there.
	AuthServers []string
	// ProxyServer is host:port of a proxy's HTTPS through which this host
	// reaches the auth servers, and is reached itself; empty for none.
	ProxyServer string
	// AuthToken is the token to join with, or an absolute path to a file of it.
	// It may be empty for a host that has joined.
	AuthToken string
	// CAPins name the host authorities to join, as lib/tlsca's Pin does. Any
	// may match.
	CAPins []string
	// Storage is where the auth role keeps the cluster.
	Storage Storage

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

// The kinds of Storage.
const (
	StorageSQLite = "sqlite"
	StorageEtcd   = "etcd"
)

// Storage is teleport.storage.
type Storage struct {
	// Type is StorageSQLite, in the data directory, or StorageEtcd.
	Type string
	// Peers are host:port of etcd's members, Prefix is where its keys start.
	Peers  []string
	Prefix string
	// TLSCertFile and TLSKeyFile are what etcd knows this host by, TLSCAFile is
	// whom to trust as etcd, instead of whom the system trusts: absolute paths,
	// or empty.
	TLSCertFile, TLSKeyFile, TLSCAFile string
	// CAKeyFile is an absolute path to the key that seals the authorities'
	// private keys; empty for the one in the data directory.
	CAKeyFile string
}

// Words of Auth.SecondFactor.
const (
	SecondFactorOTP = "otp"
	SecondFactorOff = "off"
)

// Auth is auth_service.
type Auth struct {
	Enabled bool
	// ClusterName goes into host certificates and into sessions' environment.
	ClusterName string
	// ListenAddr is host:port, with an empty host for all addresses.
	ListenAddr string
	// PublicAddr is host:port at which joining hosts find this server; empty
	// for the node's name.
	PublicAddr string
	// SecondFactor is SecondFactorOTP or SecondFactorOff.
	SecondFactor string
}

// KeyPair is one of proxy_service.https_keypairs: absolute paths to PEM files.
type KeyPair struct{ KeyFile, CertFile string }

// Proxy is proxy_service.
type Proxy struct {
	Enabled bool
	// ListenAddr is the jump host's host:port, with an empty host for all
	// addresses. WebListenAddr and TunnelListenAddr are those of HTTPS and of
	// the nodes that dial in.
	ListenAddr, WebListenAddr, TunnelListenAddr string
	// PublicAddr (HTTPS), SSHPublicAddr and TunnelPublicAddr are host:port at
	// which others reach the three; empty for the node's name.
	PublicAddr, SSHPublicAddr, TunnelPublicAddr string
	// KeyPairs are HTTPS's certificates. Without any the host authority signs
	// one.
	KeyPairs []KeyPair
	// ProxyProtocol takes the client's address from the header (PROXY protocol)
	// that a load balancer sends first on each connection.
	ProxyProtocol bool
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
	// PublicAddr is host:port at which proxies reach the node; empty for the
	// address that it listens on.
	PublicAddr string
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
		Storage:   Storage{Type: StorageSQLite, Prefix: DefaultEtcdPrefix},
		Auth: Auth{
			Enabled:      true,
			ClusterName:  DefaultClusterName,
			ListenAddr:   "0.0.0.0:" + DefaultAuthPort,
			SecondFactor: SecondFactorOTP,
		},
		Proxy: Proxy{
			Enabled:          true,
			ListenAddr:       "0.0.0.0:" + DefaultProxyPort,
			WebListenAddr:    "0.0.0.0:" + DefaultWebPort,
			TunnelListenAddr: "0.0.0.0:" + DefaultTunnelPort,
			MaxStartups:      DefaultMaxStartups,
			LoginGraceTime:   DefaultLoginGraceTime,
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
	setDefault(&c.Storage.Type, def.Storage.Type)
	setDefault(&c.Storage.Prefix, def.Storage.Prefix)
	setDefault(&c.Auth.ClusterName, def.Auth.ClusterName)
	setDefault(&c.Auth.ListenAddr, def.Auth.ListenAddr)
	setDefault(&c.Auth.SecondFactor, def.Auth.SecondFactor)
	setDefault(&c.Proxy.ListenAddr, def.Proxy.ListenAddr)
	setDefault(&c.Proxy.WebListenAddr, def.Proxy.WebListenAddr)
	setDefault(&c.Proxy.TunnelListenAddr, def.Proxy.TunnelListenAddr)
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
		{"teleport.storage.type", checkStorage(c.Storage.Type)},
		{"teleport.storage.prefix", checkEtcdPrefix(c.Storage.Prefix)},
		{"auth_service.cluster_name", checkName(c.Auth.ClusterName)},
		{"auth_service.authentication.second_factor", checkSecondFactor(c.Auth.SecondFactor)},
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
	for _, path := range []struct{ what, path string }{
		{"ssh_service.banner", c.SSH.Banner},
		{"teleport.storage.tls_cert_file", c.Storage.TLSCertFile},
		{"teleport.storage.tls_key_file", c.Storage.TLSKeyFile},
		{"teleport.storage.tls_ca_file", c.Storage.TLSCAFile},
		{"teleport.storage.ca_key_file", c.Storage.CAKeyFile},
	} {
		if path.path == "" {
			continue
		}
		if err := checkPath(path.path); err != nil {
			return trace.BadParameter("%s: %v", path.what, err)
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
	return trace.Wrap(c.checkAddresses())
}

// checkAddresses takes addresses without a port, and gives them the usual one.
func (c *Config) checkAddresses() error {
	for _, listen := range []struct {
		what string
		addr *string
		port string
	}{
		{"auth_service.listen_addr", &c.Auth.ListenAddr, DefaultAuthPort},
		{"proxy_service.listen_addr", &c.Proxy.ListenAddr, DefaultProxyPort},
		{"proxy_service.web_listen_addr", &c.Proxy.WebListenAddr, DefaultWebPort},
		{"proxy_service.tunnel_listen_addr", &c.Proxy.TunnelListenAddr, DefaultTunnelPort},
		{"ssh_service.listen_addr", &c.SSH.ListenAddr, DefaultSSHPort},
	} {
		var err error
		if *listen.addr, err = parseListenAddr(*listen.addr, listen.port); err != nil {
			return trace.BadParameter("%s: %v", listen.what, err)
		}
	}
	type address struct {
		what string
		addr *string
		port string
	}
	addresses := []address{
		{"teleport.proxy_server (--proxy-server)", &c.ProxyServer, DefaultWebPort},
		{"auth_service.public_addr", &c.Auth.PublicAddr, DefaultAuthPort},
		{"proxy_service.public_addr", &c.Proxy.PublicAddr, DefaultWebPort},
		{"proxy_service.ssh_public_addr", &c.Proxy.SSHPublicAddr, DefaultProxyPort},
		{"proxy_service.tunnel_public_addr", &c.Proxy.TunnelPublicAddr, DefaultTunnelPort},
		{"ssh_service.public_addr", &c.SSH.PublicAddr, DefaultSSHPort},
	}
	for i := range c.AuthServers {
		addresses = append(addresses, address{"teleport.auth_server (--auth-server)", &c.AuthServers[i], DefaultAuthPort})
	}
	for _, address := range addresses {
		if *address.addr == "" && !strings.HasPrefix(address.what, "teleport.auth_server") {
			continue
		}
		var err error
		if *address.addr, err = parseAddr(*address.addr, address.port); err != nil {
			return trace.BadParameter("%s: %v", address.what, err)
		}
	}
	for i, pin := range c.CAPins {
		if err := checkPin(pin); err != nil {
			return trace.BadParameter("teleport.ca_pin (--ca-pin): %v", err)
		}
		c.CAPins[i] = strings.ToLower(pin)
	}
	if c.AuthToken != "" {
		if err := checkToken(c.AuthToken); err != nil {
			return trace.BadParameter("teleport.auth_token (--token): %v", err)
		}
	}
	return nil
}

// checkRoles refuses services that cannot run together, or alone.
func (c *Config) checkRoles() error {
	if !c.Auth.Enabled && !c.Proxy.Enabled && !c.SSH.Enabled {
		return trace.BadParameter("%severy service is disabled, so there is nothing to run: enable at least one of auth_service, proxy_service and ssh_service",
			c.prefix("ssh_service.enabled", "proxy_service.enabled", "auth_service.enabled"))
	}
	if err := c.checkJoining(); err != nil {
		return trace.Wrap(err)
	}
	if err := c.checkFiles(); err != nil {
		return trace.Wrap(err)
	}
	if c.SSH.Enabled && c.SSH.PAM.UseAuth && !c.SSH.PAM.Enabled {
		return trace.BadParameter("%sssh_service.pam.use_pam_auth needs PAM, which is off, so that nobody would be asked: set ssh_service.pam.enabled to yes, or take use_pam_auth out",
			c.prefix("ssh_service.pam.use_pam_auth", "ssh_service.pam.enabled"))
	}
	if c.SSH.Enabled && len(c.SSH.PAM.Environment) > 0 && !c.SSH.PAM.Enabled {
		return trace.BadParameter("%sssh_service.pam.environment needs PAM, which is off, so that nobody would get the variables: set ssh_service.pam.enabled to yes, or take environment out",
			c.prefix("ssh_service.pam.environment", "ssh_service.pam.enabled"))
	}
	return trace.Wrap(c.checkPorts())
}

// checkJoining refuses hosts that belong to no cluster, or to more than one.
func (c *Config) checkJoining() error {
	const theServers = "teleport.auth_server or teleport.auth_servers"
	switch {
	case len(c.AuthServers) > 0 && c.ProxyServer != "":
		return trace.BadParameter("%steleport.proxy_server and teleport.auth_server are two ways to one cluster: take one of them out",
			c.prefix("teleport.proxy_server", "teleport.auth_server", "teleport.auth_servers"))
	case c.Auth.Enabled && (len(c.AuthServers) > 0 || c.ProxyServer != ""):
		return trace.BadParameter("%sauth_service is enabled, so this process is an auth server and joins none: set auth_service.enabled to no (or start with --roles=node), or take teleport.auth_server and teleport.proxy_server out",
			c.prefix("teleport.auth_server", "teleport.auth_servers", "teleport.proxy_server", "auth_service.enabled"))
	case c.Proxy.Enabled && !c.Auth.Enabled && c.ProxyServer != "":
		return trace.BadParameter("%sa proxy reaches the auth servers itself, and not through another proxy: set %s instead of teleport.proxy_server",
			c.prefix("teleport.proxy_server"), theServers)
	case c.Proxy.Enabled && !c.Auth.Enabled && len(c.AuthServers) == 0:
		return trace.BadParameter("%sproxy_service is enabled and auth_service is not, so the proxy needs a cluster: set %s, or enable auth_service here too, or disable proxy_service",
			c.prefix("auth_service.enabled", "proxy_service.enabled"), theServers)
	case c.SSH.Enabled && !c.Auth.Enabled && !c.Joins() && c.SSH.TrustedUserCAKeys == "":
		return trace.BadParameter("%sssh_service has nobody to trust, as auth_service is not enabled here: set teleport.auth_server or teleport.proxy_server to join a cluster, or ssh_service.trusted_user_ca_keys to a file of user CA keys (tctl auth export --type=user prints a cluster's), or enable auth_service",
			c.prefix("ssh_service.enabled", "auth_service.enabled", "ssh_service"))
	case c.AuthToken != "" && !c.Joins():
		return trace.BadParameter("%steleport.auth_token (--token) is for joining a cluster, and nothing says which: set teleport.auth_server (--auth-server) or teleport.proxy_server (--proxy-server), or take it out",
			c.prefix("teleport.auth_token"))
	case len(c.CAPins) > 0 && !c.Joins():
		return trace.BadParameter("%steleport.ca_pin (--ca-pin) is for joining a cluster, and nothing says which: set teleport.auth_server (--auth-server) or teleport.proxy_server (--proxy-server), or take it out",
			c.prefix("teleport.ca_pin"))
	}
	return nil
}

// SetsSecondFactor says whether the configuration decides about the second
// factor: its file names one, or it is not the default.
func (c *Config) SetsSecondFactor() bool {
	_, named := c.places["auth_service.authentication.second_factor"]
	return named || c.Auth.SecondFactor != SecondFactorOTP
}

// Joins says whether this host belongs to the cluster of other hosts.
func (c *Config) Joins() bool { return len(c.AuthServers) > 0 || c.ProxyServer != "" }

// checkFiles refuses keys without certificates, and storage that is nowhere.
func (c *Config) checkFiles() error {
	s := c.Storage
	etcdOnly := map[string]bool{
		"peers":         len(s.Peers) > 0,
		"prefix":        s.Prefix != DefaultEtcdPrefix,
		"tls_cert_file": s.TLSCertFile != "",
		"tls_key_file":  s.TLSKeyFile != "",
		"tls_ca_file":   s.TLSCAFile != "",
	}
	if s.Type != StorageEtcd {
		for _, name := range slices.Sorted(maps.Keys(etcdOnly)) {
			if etcdOnly[name] {
				return trace.BadParameter("%steleport.storage.%s is for the type etcd, and the type is %s: set teleport.storage.type to etcd, or take it out",
					c.prefix("teleport.storage."+name), name, s.Type)
			}
		}
		return trace.Wrap(c.checkKeyPairs())
	}
	if len(s.Peers) == 0 {
		return trace.BadParameter("%steleport.storage has the type etcd and no peers: set teleport.storage.peers to the addresses of etcd's members, such as [\"10.0.0.1:2379\"]",
			c.prefix("teleport.storage.type"))
	}
	if (s.TLSCertFile == "") != (s.TLSKeyFile == "") {
		return trace.BadParameter("%steleport.storage.tls_cert_file and tls_key_file belong together: set both, or none",
			c.prefix("teleport.storage.tls_cert_file", "teleport.storage.tls_key_file"))
	}
	return trace.Wrap(c.checkKeyPairs())
}

func (c *Config) checkKeyPairs() error {
	for i, pair := range c.Proxy.KeyPairs {
		at := fmt.Sprintf("proxy_service.https_keypairs[%d]", i)
		for _, file := range []struct{ name, path string }{{"key_file", pair.KeyFile}, {"cert_file", pair.CertFile}} {
			if file.path == "" {
				return trace.BadParameter("%s%s has no %s: a key and its certificate are two files, so name both", c.prefix(at, "proxy_service.https_keypairs"), at, file.name)
			}
			if err := checkPath(file.path); err != nil {
				return trace.BadParameter("%s%s.%s: %v", c.prefix(at), at, file.name, err)
			}
		}
	}
	return nil
}

// checkPorts refuses two listeners on one address.
func (c *Config) checkPorts() error {
	type listener struct {
		key, addr string
		on        bool
	}
	all := []listener{
		{"auth_service.listen_addr", c.Auth.ListenAddr, c.Auth.Enabled},
		{"proxy_service.listen_addr", c.Proxy.ListenAddr, c.Proxy.Enabled},
		{"proxy_service.tunnel_listen_addr", c.Proxy.TunnelListenAddr, c.Proxy.Enabled},
		{"proxy_service.web_listen_addr", c.Proxy.WebListenAddr, c.Proxy.Enabled},
		{"ssh_service.listen_addr", c.SSH.ListenAddr, c.SSH.Enabled},
	}
	for i, later := range all {
		for _, earlier := range all[:i] {
			_, port, _ := net.SplitHostPort(later.addr)
			if later.on && earlier.on && later.addr == earlier.addr && port != "0" {
				return trace.BadParameter("%s%s and %s are both %s: give one of them another port",
					c.prefix(later.key, earlier.key), earlier.key, later.key, later.addr)
			}
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
