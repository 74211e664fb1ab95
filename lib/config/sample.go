// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package config

// The file that teleport configure prints.

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Sample writes cfg out as a commented file that starts as it is. cfg must have
// passed CheckAndSetDefaults; what has no default (its labels, addresses of others,
// files, storage) is left as examples in comments.
func Sample(cfg *Config) string {
	q := strconv.Quote
	idle := never
	if cfg.SSH.ClientIdleTimeout != 0 {
		idle = short(cfg.SSH.ClientIdleTimeout)
	}
	return fmt.Sprintf(sample,
		q(cfg.NodeName), q(cfg.DataDir),
		q(cfg.Log.Output), q(strings.ToUpper(cfg.Log.Severity.String())), q(cfg.Log.Format),
		q(string(cfg.AuditMode)),
		yesNo(cfg.Auth.Enabled), q(cfg.Auth.ClusterName), q(cfg.Auth.ListenAddr), q(cfg.Auth.SecondFactor),
		yesNo(cfg.Proxy.Enabled), q(cfg.Proxy.ListenAddr), q(cfg.Proxy.WebListenAddr), q(cfg.Proxy.TunnelListenAddr),
		yesNo(cfg.Proxy.ProxyProtocol),
		cfg.Proxy.MaxStartups, short(cfg.Proxy.LoginGraceTime),
		yesNo(cfg.SSH.Enabled), q(cfg.SSH.ListenAddr),
		yesNo(cfg.SSH.PAM.Enabled), q(cfg.SSH.PAM.ServiceName), yesNo(cfg.SSH.PAM.UseAuth),
		cfg.SSH.MaxSessions, cfg.SSH.MaxStartups, short(cfg.SSH.LoginGraceTime),
		short(cfg.SSH.KeepAliveInterval), idle, yesNo(cfg.SSH.DisconnectExpiredCert),
		yesNo(!cfg.SSH.RefuseFileCopy), yesNo(!cfg.SSH.RefuseForwarding), cfg.SSH.GatewayPorts,
		yesNo(cfg.SSH.PermitUserEnv),
		yesNo(cfg.SSH.KeepDetached),
	)
}

func yesNo(on bool) string {
	if on {
		return "yes"
	}
	return "no"
}

// short writes 2m0s as 2m.
func short(wait time.Duration) string {
	text := wait.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

const sample = `# Configuration of teleport, read from ` + DefaultPath + ` unless --config names
# another file. Every key may be left out: what stands here is then used.
# Check a changed file with: teleport configure --test FILE

teleport:
  # The host's name in the cluster and in its certificates.
  nodename: %s

  # Certificate authorities and host keys are kept here. The folder belongs to
  # teleport alone.
  data_dir: %s

  # Where to write the daemon's process id.
  # pid_file: "/run/teleport.pid"

  log:
    # stderr, stdout, syslog, or a file's path (opened again at SIGHUP).
    output: %s
    # DEBUG, INFO, WARN or ERROR.
    severity: %s
    format:
      # text or json.
      output: %s

  # The Linux Auditing System.
  auditd:
    # auto:     records are written when the kernel has auditing enabled, and a
    #           login goes on when its record cannot be written
    # required: no record, no login
    # off:      no records
    mode: %s

  # A host without auth_service joins a cluster. tctl tokens add, on the auth
  # server, prints all of this.
  #
  # Where the auth servers are: one, or several.
  # auth_server: "auth.example.com:3025"
  # auth_servers: ["auth-1.example.com:3025", "auth-2.example.com:3025"]
  # Or, for a node that reaches the cluster through a proxy's HTTPS, and is reached
  # through tunnels that it has to all proxies:
  # proxy_server: "proxy.example.com:3080"
  # The token to join with, or a file of it. A host that has joined needs none.
  # auth_token: "/run/teleport-token"
  # The authority that must answer: one pin, or a list of which any may match.
  # ca_pin: "sha256:..."

  # Where auth_service keeps the cluster: sqlite (in data_dir), or etcd where
  # several auth servers share one.
  # storage:
  #   type: "etcd"
  #   peers: ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
  #   prefix: "/teleport"
  #   tls_cert_file: "/etc/teleport/etcd.crt"
  #   tls_key_file: "/etc/teleport/etcd.key"
  #   tls_ca_file: "/etc/teleport/etcd-ca.crt"
  #   # The key that seals the authorities' private keys: the same file on every
  #   # auth server. The default is one in data_dir.
  #   ca_key_file: "/etc/teleport/ca.key"

# The cluster: its certificate authorities, users, roles and nodes.
auth_service:
  enabled: %s
  cluster_name: %s
  listen_addr: %s
  # Where joining hosts find it. The default is nodename.
  # public_addr: "auth.example.com:3025"
  authentication:
    # What users need beside their password: otp (a code), or off.
    second_factor: %s

# The way in for users: the jump host (ssh -J), HTTPS for tsh and the pages of
# new users, and where nodes dial in that nobody can dial.
proxy_service:
  enabled: %s
  listen_addr: %s
  web_listen_addr: %s
  tunnel_listen_addr: %s
  # Where users and nodes find the three. The default is nodename.
  # public_addr: "proxy.example.com:3080"
  # ssh_public_addr: "proxy.example.com:3023"
  # tunnel_public_addr: "proxy.example.com:3024"
  # Certificates of HTTPS, read again at SIGHUP. The default is one of the
  # cluster's own, which browsers do not know.
  # https_keypairs:
  #   - key_file: "/etc/teleport/proxy.key"
  #     cert_file: "/etc/teleport/proxy.crt"
  # Behind a load balancer that sends the PROXY protocol (v1 or v2), which is then
  # asked of every connection.
  proxy_protocol: %s
  # Connections that have not authenticated yet: how many at a time, and how
  # long each may take.
  max_startups: %d
  login_grace_time: %s

# The SSH server of this host.
ssh_service:
  enabled: %s
  listen_addr: %s
  # Where proxies reach it. The default is the address that it listens on.
  # public_addr: "192.0.2.7:3022"

  # Kept with the node's registration.
  # labels:
  #   env: "production"

  # A file of user CA keys (as sshd's TrustedUserCAKeys) to trust instead of
  # this cluster's own. A node that belongs to no cluster needs it.
  # trusted_user_ca_keys: "/etc/ssh/user_ca.pub"

  # PAM integration; "no" by default.
  pam:
    enabled: %s
    # The file in /etc/pam.d.
    service_name: %s
    # Ask what the service's auth lines want to know, after the certificate: a
    # second factor.
    use_pam_auth: %s
    # Variables for PAM's modules and the user. Without the trait that it names,
    # a variable is left out.
    # environment:
    #   TEAM: "{{external.team}}"
    #   PERSON: "{{user.metadata.name}} of {{internal.logins}}"

  # Open sessions of one connection.
  max_sessions: %d
  # As for the proxy.
  max_startups: %d
  login_grace_time: %s

  # Ask the client so often whether it is still there. One that has not answered
  # three times is gone.
  keep_alive_interval: %s
  # End a connection on which nothing was sent either way for so long.
  client_idle_timeout: %s
  # End a connection when its certificate expires. "no" lets it go on.
  disconnect_expired_cert: %s

  # A file that clients show before they authenticate.
  # banner: "/etc/issue.net"

  # sftp and scp.
  ssh_file_copy: %s
  # Forwarding of ports and sockets (ssh -L, -R, -D).
  port_forwarding: %s
  # Where remote forwarding (ssh -R) listens: no (on the loopback addresses), yes
  # (on all addresses), or clientspecified (where the client asks for).
  gateway_ports: %s

  # Read ~/.ssh/environment, and run ~/.ssh/rc.
  permit_user_env: %s

  # Leave processes alone that have detached themselves (daemons, screen, tmux),
  # as sshd does. The default ends every process of a login with it.
  keep_detached_processes: %s
`
