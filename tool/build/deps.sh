#!/bin/bash
# Installs the Debian packages that building, testing and the demo need, and only
# those that are missing. It starts no service.
set -euo pipefail

# package: what it is for
packages=(
	"git: the version in the programs"
	"ca-certificates: downloading Go modules"
	"gcc: PAM, and go test -race"
	"libc6-dev: PAM, and go test -race"
	"libpam0g-dev: PAM"
	"auditd: ausearch, aulast and aureport, for the tests and the demo"
	"libaudit-dev: the rival in the benchmarks"
	"openssh-client: ssh, for the tests and the demo"
	"openssh-server: the rival in the benchmarks, and what ours is compared with"
	"putty-tools: plink, pscp and psftp, for the tests"
	"rsync: copying files, for the tests"
	"libcap2-bin: programs with capabilities (setcap), for the tests"
	"passwd: users (useradd, usermod), for the tests and the demo"
	"mount: mount, for the tests"
	"util-linux: hosts that are namespaces (nsenter, unshare), for the tests"
	"procps: who is logged in (w), for the tests"
	"iproute2: whose sockets there are (ss), and hosts that are namespaces, for the tests"
	"etcd-server: several auth servers on one storage, for the tests"
	"chromium: the page that invites a user, for the tests"
)

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	echo "deps: this host has no apt. Install what these Debian packages hold: $(printf '%s ' "${packages[@]%%:*}")" >&2
	exit 1
fi

missing=()
for package in "${packages[@]}"; do
	name=${package%%:*}
	if [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" != installed ]; then
		echo "deps: $name is missing (${package#*: })"
		missing+=("$name")
	fi
done
if [ ${#missing[@]} -eq 0 ]; then
	echo "deps: everything is installed"
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "deps: installing needs root. Run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi

# Packages of daemons start them, unless this file says that nothing may start.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
if ! apt-get -q update || ! apt-get -q install -y --no-install-recommends "${missing[@]}"; then
	echo "deps: apt could not install ${missing[*]}: see its lines above, and try again" >&2
	exit 1
fi
