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
// passed CheckAndSetDefaults; its labels, PIDFile, TrustedUserCAKeys, Banner and
// PAM.Environment are left as examples in comments.
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
		yesNo(cfg.Auth.Enabled), q(cfg.Auth.ClusterName),
		yesNo(cfg.Proxy.Enabled), q(cfg.Proxy.ListenAddr),
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

# The cluster's certificate authorities.
auth_service:
  enabled: %s
  cluster_name: %s

# The jump host (ssh -J). It needs auth_service in the same process.
proxy_service:
  enabled: %s
  listen_addr: %s
  # Connections that have not authenticated yet: how many at a time, and how
  # long each may take.
  max_startups: %d
  login_grace_time: %s

# The SSH server of this host.
ssh_service:
  enabled: %s
  listen_addr: %s

  # Kept with the node's registration.
  # labels:
  #   env: "production"

  # A file of user CA keys (as sshd's TrustedUserCAKeys) to trust instead of
  # this cluster's own. A node without auth_service needs it.
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
