#!/usr/bin/env bash
# Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0
#
# The guide on this host, from its first line to its last: a cluster on its embedded
# defaults, a second host of it, a person who is invited and logs in, sessions
# through the proxy with tsh and the system's own ssh, and what the cluster's audit
# log and the host's audit tools say of them. Removes all that it made.
#
# Usage: demo.sh, after make build. Needs root, Go, and the ports 3022 to 3025 and
# 3080.
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
for port in 3022 3023 3024 3025 3080; do
	if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		die "something listens on port $port already, which the demo needs: stop it first"
	fi
done

# The kernel has one audit system, and the tests use it too.
exec 9>/run/lock/teleport-auditd-audit.lock
flock -w 600 9 || die "the tests have been using the audit system for ten minutes; try again when they are done"

work=$(mktemp -d /tmp/teleport-demo.XXXXXX)
daemons=() auditd_started='' log_made=''
# The programs are called by their names, and nothing of root's own is used: no
# profile of tsh, no agent.
export PATH="$bin:$PATH" TELEPORT_HOME="$work/tsh"
unset SSH_AUTH_SOCK TELEPORT_PROXY TELEPORT_USER TELEPORT_CLUSTER
# aulast prints eight letters of a name.
user=demo$((RANDOM % 10000))
while getent passwd "$user" >/dev/null; do user=demo$((RANDOM % 10000)); done
# status prints one number of auditctl -s.
status() { auditctl -s | awk -v name="$1" '$1 == name { print $2 }'; }
enabled=$(status enabled) backlog_limit=$(status backlog_limit)

cleanup() {
	set +e
	if [ ${#daemons[@]} -gt 0 ]; then
		kill "${daemons[@]}" 2>/dev/null
		wait "${daemons[@]}" 2>/dev/null
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
		if [ "$(jobs -pr | wc -l)" -lt ${#daemons[@]} ]; then break; fi
		sleep 0.1
	done
	die "$what has not happened; the logs of teleport end: $(tail -q -n 3 "$work"/*.log 2>/dev/null)"
}

# start runs teleport as a service manager does: with the login uid unset, which a
# sudo from somebody's shell does not. The log is named as the host.
start() {
	local log="$work/$1.log"
	shift
	printf '\n# teleport start %s\n' "$*"
	(
		echo 4294967295 >/proc/self/loginuid 2>/dev/null || true
		exec "$bin/teleport" start "$@"
	) >"$log" 2>&1 9>&- &
	daemons+=($!)
	until_true "the start of teleport" grep -q "Teleport is ready" "$log"
	cat "$log"
}

if [ "$(status pid)" = 0 ]; then
	[ -e /var/log/audit/audit.log ] || log_made=yes
	auditd_started=yes
	# auditd forks: it must not take the lock with it.
	auditd 9>&-
	until_true "the start of auditd" sh -c '! auditctl -s | grep -qx "pid 0"'
fi
auditctl -e 1 >/dev/null

useradd -m -s /bin/bash "$user"
uid=$(id -u "$user")
# Where clients find the proxy. All else is as without a file.
cat >"$work/teleport.yaml" <<EOF
teleport:
  nodename: demo
  data_dir: $work/data
proxy_service:
  public_addr: localhost:3080
EOF
# Both hosts are this one, so the second one's SSH needs a port of its own.
cat >"$work/web.yaml" <<EOF
teleport:
  nodename: web
  data_dir: $work/web
ssh_service:
  listen_addr: 127.0.0.1:0
  labels:
    env: prod
EOF
(cd "$bin/.." && "${GO:-go}" build -o "$work/person" ./tool/demo/person)
cd "$work"

say "Prerequisites: a running cluster, tctl and tsh"
show "tctl version"
show "tsh version"
show "cat teleport.yaml"
start demo -c teleport.yaml

say "A person, who is invited, chooses a password and a second factor, and logs in"
tctl="tctl -c teleport.yaml"
show "$tctl users add alice --roles=access,editor --logins=$user | tee invitation"
printf '\n# tsh login --proxy=localhost --user=alice --insecure\n'
./person "$(grep -o 'https://.*/web/invite/.*' invitation)" tsh login --proxy=localhost --user=alice --insecure --no-agent
show "tctl status"

say "Another host joins, with the command that is printed here, and dials out to the proxy"
show "tctl tokens add --type=node | tee join"
word() { sed -n "s/.*\(--$1=[^ ]*\).*/\1/p" join; }
start web -c web.yaml --roles=node "$(word token)" "$(word proxy-server)" "$(word ca-pin)"
until_true "the registration of both hosts" sh -c 'test "$(tctl nodes ls --format=json | grep -c \"hostname\")" -eq 2'
show "tctl nodes ls"
show "tsh ls env=prod"

say "Step 1/4. Check system configuration"
show "auditctl -s"

say "Step 2/4. Start Teleport"
show "cat /proc/${daemons[0]}/loginuid"
echo

say "Step 3/4. Enable the PAM integration (optional)"
cat >pam.yaml <<'EOF'
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
show "cat pam.yaml"
show "teleport configure --test pam.yaml"

say "Log in through the proxy: with tsh, with ssh on a terminal, and as somebody else"
show "tsh ssh $user@web id"
show "tsh config | tee ssh_config"
show "ssh -F ssh_config -tt $user@demo.teleport-auditd 'tty; echo \$SSH_TELEPORT_USER'"
printf '\n# ssh -F ssh_config games@web.teleport-auditd id\n'
if ssh -F ssh_config games@web.teleport-auditd id </dev/null; then die "the wrong login was let in"; fi

# Two logins with their ends, and a refusal.
until_true "the arrival of the records" sh -c "test \$(ausearch -m USER_LOGIN,USER_END -x teleport </dev/null 2>/dev/null | grep -c teleportUser=alice.*res=) -ge 5"
until_true "the arrival of the events" sh -c "test \$(tctl events ls --type=session.end --user=alice | grep -c session.end) -ge 2"

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

say "One person, from the cluster's audit log to the host's, and back"
show "tctl events ls --user=alice"
show "tctl events ls --session=$ses"

say "Who was here, and who was refused"
show "aulast | grep $user"
show "aulast --bad"
# -i shows the login uid by name.
show "aureport -l -i"
say "Done: the user, the daemons and their data are removed."
