#!/usr/bin/env bash
# Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0
#
# The main job on this host, from the first certificate to the audit trail: the
# daemon on its embedded default, a login through the proxy with the system's own
# ssh, and what the audit tools say of it. Removes all that it made.
#
# Usage: demo.sh, after make build. Needs root.
set -euo pipefail

bin=$(cd "$(dirname "$0")/../../build" && pwd)
say() { printf '\n== %s\n' "$*"; }
# show prints a command as a user would type it, and what it prints.
show() { printf '\n# %s\n' "$*"; bash -c "$*" </dev/null; }
die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "the demo makes a system user and reads the audit trail, so it needs root: run it with sudo"
for c in auditctl auditd ausearch aulast aureport ssh useradd flock; do
	command -v "$c" >/dev/null || die "$c is missing: run make deps"
done

# The kernel has one audit system, and the tests use it too.
exec 9>/run/lock/teleport-auditd-audit.lock
flock -w 600 9 || die "the tests have been using the audit system for ten minutes; try again when they are done"

work=$(mktemp -d /tmp/teleport-demo.XXXXXX)
daemon='' auditd_started='' log_made=''
# aulast prints eight letters of a name.
user=demo$((RANDOM % 10000))
while getent passwd "$user" >/dev/null; do user=demo$((RANDOM % 10000)); done
# status prints one number of auditctl -s.
status() { auditctl -s | awk -v name="$1" '$1 == name { print $2 }'; }
enabled=$(status enabled) backlog_limit=$(status backlog_limit)

cleanup() {
	set +e
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null
		wait "$daemon" 2>/dev/null
	fi
	if id "$user" >/dev/null 2>&1; then userdel -r "$user" >/dev/null 2>&1; fi
	if [ -n "$auditd_started" ]; then
		pid=$(status pid)
		if [ "$pid" != 0 ]; then
			kill "$pid"
			for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
		fi
	fi
	# 2 is locked until the next boot, and needs no putting back.
	if [ "$enabled" != 2 ]; then
		auditctl -b "$backlog_limit" >/dev/null
		auditctl -e "$enabled" >/dev/null
	fi
	if [ -n "$log_made" ]; then rm -f /var/log/audit/audit.log; fi
	rm -rf "$work"
}
trap cleanup EXIT

# until_true waits, for ten seconds at most, until a command succeeds.
until_true() {
	local what=$1
	shift
	for _ in $(seq 100); do
		if "$@" >/dev/null 2>&1; then return; fi
		if [ -n "$daemon" ] && ! kill -0 "$daemon" 2>/dev/null; then break; fi
		sleep 0.1
	done
	die "$what has not happened; the log of teleport ends: $(tail -n 3 "$work/teleport.log" 2>/dev/null)"
}

if [ "$(status pid)" = 0 ]; then
	[ -e /var/log/audit/audit.log ] || log_made=yes
	auditd_started=yes
	# auditd forks: it must not take the lock with it.
	auditd 9>&-
	until_true "the start of auditd" sh -c '! auditctl -s | grep -qx "pid 0"'
fi
auditctl -e 1 >/dev/null

say "Prerequisites"
show "$bin/tctl version"

say "Step 1/4. Check system configuration"
show "auditctl -s"

say "Step 2/4. Start Teleport"
printf '\n# %s/teleport start --data-dir=%s/data --nodename=demo\n' "$bin" "$work"
(
	# A service manager starts the daemon with the login uid unset. A sudo from
	# somebody's shell does not.
	echo 4294967295 >/proc/self/loginuid 2>/dev/null || true
	exec "$bin/teleport" start --data-dir="$work/data" --nodename=demo --pid-file="$work/pid"
) >"$work/teleport.log" 2>&1 9>&- &
daemon=$!
until_true "the start of teleport" grep -q "Teleport is ready" "$work/teleport.log"
cat "$work/teleport.log"
show "cat /proc/$daemon/loginuid"
echo

say "Step 3/4. Enable the PAM integration (optional)"
cat >"$work/pam.yaml" <<'EOF'
ssh_service:
  # Enabled SSH Service
  enabled: true
  # Enable PAM integration
  pam:
    # "no" by default
    enabled: true
    # use /etc/pam.d/sshd configuration (the default)
    service_name: "sshd"
EOF
show "cat $work/pam.yaml"
show "$bin/teleport configure --test $work/pam.yaml"

useradd -m -s /bin/bash "$user"
uid=$(id -u "$user")
# What ssh -F reads in place of ~/.ssh/config, which root may have.
cat >"$work/ssh_config" <<EOF
Host demo demo-proxy
  User $user
  IdentityFile $work/alice
  IdentitiesOnly yes
  UserKnownHostsFile $work/known_hosts
  BatchMode yes
Host demo-proxy
  HostName 127.0.0.1
  Port 3023
Host demo
  Port 3022
  ProxyJump demo-proxy
EOF
say "A certificate for alice, who may log in as $user"
tctl="$bin/tctl --data-dir=$work/data"
show "$tctl auth sign --user=alice --logins=$user --ttl=1h --format=openssh --out=$work/alice"
show "$tctl auth export --type=host | tee $work/known_hosts"

say "Log in through the proxy: a command, a command with a terminal, a wrong login"
show "ssh -F $work/ssh_config demo id"
show "ssh -F $work/ssh_config -tt demo 'tty; echo \$SSH_TELEPORT_USER'"
printf '\n# ssh -F %s/ssh_config games@demo id\n' "$work"
if ssh -F "$work/ssh_config" games@demo id </dev/null; then die "the wrong login was let in"; fi

# Two logins with their ends, and a refusal.
until_true "the arrival of the records" sh -c "test \$(ausearch -m USER_LOGIN,USER_END -x teleport </dev/null 2>/dev/null | grep -c teleportUser=alice.*res=) -ge 5"

say "Step 4/4. Trace SSH sessions with auditd"
say "Search by a system user"
show "id $user"
show "ausearch -ua $uid -m USER_LOGIN"
say "Search by Teleport user"
show "ausearch -m USER_LOGIN | grep teleportUser=alice"
say "Search by session ID"
show "ausearch -m USER_LOGIN -x teleport --just-one"
ses=$(ausearch -ua "$uid" -m USER_LOGIN -x teleport --just-one </dev/null | sed -n 's/.* ses=\([0-9]*\) .*/\1/p' | tail -n 1)
show "ausearch --session $ses"

say "Who was here, and who was refused"
show "aulast | grep $user"
show "aulast --bad"
# -i shows the login uid by name.
show "aureport -l -i"
say "Done: the user, the daemon and its data are removed."
