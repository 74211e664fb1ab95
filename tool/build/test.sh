#!/bin/bash
# Runs every check and test that this host can run, and names what it could not.
# Called by make test, which sets GO, CGO and GOFMT.
set -euo pipefail

status=0
step() {
	local name=$1
	shift
	echo "== $name"
	"$@" || { status=1; echo "test: $name failed" >&2; }
}

format() {
	local files
	files=$("$GOFMT" -l lib tool)
	[ -z "$files" ] || { printf 'gofmt would change these files, so run gofmt -w on them:\n%s\n' "$files" >&2; return 1; }
}

tests() {
	local race=(-race)
	if [ "$CGO" = 0 ]; then
		race=()
		echo "Without a C compiler and PAM's headers there is no -race, and PAM is not tested."
	fi
	# One package at a time: several of them use the kernel's one audit system.
	CGO_ENABLED=$CGO "$GO" test -json "${race[@]}" -p 1 -timeout 30m ./... | "$GO" run ./tool/testreport
}

if [ "$(id -u)" -ne 0 ]; then
	echo "Without root neither packages nor users nor audit rules can be added: what needs them is skipped below."
fi
step "go vet" env CGO_ENABLED="$CGO" "$GO" vet ./...
step "gofmt" format
step "go test" tests
exit $status
