# Builds, installs, tests and shows teleport. Each target says what it does:
#
#   make            the programs, into build/
#   make deps       the Debian packages that the rest needs (as root)
#   make install    programs and systemd unit, below PREFIX (as root)
#   make demo       the guide, a cluster of two hosts, what auditing says (as root)
#   make test       every check and test that this host can run (root runs all)
#   make test-long  2 GiB files, forty tunnels for a minute, and ten minutes without
#                   the auth service (as root)
#   make bench      the benchmarks beside their rivals (as root)
#   make lint       gofmt, go vet, staticcheck, golangci-lint
#   make clean      takes build/ away

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   := build
# How often each benchmark runs, and which: benchstat wants 6 or more.
COUNT   ?= 1
BENCH   ?= .

# sudo has a PATH of its own, in which Go's usual folder is not.
GO      ?= $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
GOFMT    = $(shell $(GO) env GOROOT 2>/dev/null)/bin/gofmt
export GO GOFMT

# PAM needs cgo: a C compiler and PAM's headers.
CGO     ?= $(if $(filter 0,$(CGO_ENABLED)),0,$(shell echo '\#include <security/pam_appl.h>' | $$($(GO) env CC 2>/dev/null) -E - >/dev/null 2>&1 && echo 1 || echo 0))
export CGO

# Root may build what another user has checked out: git must not mind, and Go,
# which asks git too, must not ask.
GITREF  := $(or $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null),unknown)
LDFLAGS := -s -w -X teleport-auditd/lib/version.Gitref=$(GITREF)
export GOFLAGS := $(strip $(filter-out -buildvcs=%,$(GOFLAGS)) -buildvcs=false)

PROGRAMS := teleport tctl tsh teleport-session teleport-user
LINT     := $(GO) tool -modfile=tool/lint/go.mod

.PHONY: build deps install demo test test-long bench lint clean

build:
	@command -v $(GO) >/dev/null || { echo "build: Go is missing: install Go 1.26 from https://go.dev/dl/, or name it with GO=" >&2; exit 1; }
	@if [ $(CGO) = 0 ]; then echo "build: PAM is left out: $(if $(filter 0,$(CGO_ENABLED)),CGO_ENABLED is 0,there is no C compiler or no PAM header, and make deps brings both)"; fi
	CGO_ENABLED=$(CGO) $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ $(addprefix ./tool/,$(PROGRAMS))

deps:
	@tool/build/deps.sh

# What was built before is installed as it is, so that root needs no Go.
install:
	@for p in $(PROGRAMS); do test -x $(BUILD)/$$p || { $(MAKE) --no-print-directory build; break; }; done
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/lib/systemd/system'
	install -m 755 $(addprefix $(BUILD)/,$(PROGRAMS)) '$(DESTDIR)$(PREFIX)/bin'
	sed 's,/usr/local/bin,$(PREFIX)/bin,' tool/teleport/teleport.service >'$(DESTDIR)$(PREFIX)/lib/systemd/system/teleport.service'
	chmod 644 '$(DESTDIR)$(PREFIX)/lib/systemd/system/teleport.service'

demo:
	@[ "$$(id -u)" -eq 0 ] || { echo "demo: it makes a user and reads the audit log, so run it as root: sudo make demo" >&2; exit 1; }
	@tool/build/deps.sh || echo "demo: going on without what is missing"
	@$(MAKE) --no-print-directory build
	@tool/demo/demo.sh

# Without packages that could not be had, the rest is still tested.
test:
	@if [ "$$(id -u)" -eq 0 ]; then tool/build/deps.sh || echo "test: going on without what is missing"; fi
	@$(MAKE) --no-print-directory build
	@tool/build/test.sh

# What make test does briefly, on a host that does nothing else.
test-long: build
	REQUIRE_KERNEL=1 E2E_BIG=1 E2E_LOAD=60s E2E_AWAY=10m CGO_ENABLED=$(CGO) $(GO) test -v -count 1 -timeout 60m -run '^(TestBigFiles|TestTunnelsUnderLoad|TestAuthAway)$$' ./tool/e2e

bench: build
	CGO_ENABLED=$(CGO) $(GO) test -run '^$$' -bench '$(BENCH)' -count $(COUNT) -timeout 60m ./tool/bench | tee $(BUILD)/bench.txt

lint:
	@files=$$($(GOFMT) -l lib tool); [ -z "$$files" ] || { printf 'gofmt would change these files, so run gofmt -w on them:\n%s\n' "$$files" >&2; exit 1; }
	CGO_ENABLED=$(CGO) $(GO) vet ./...
	CGO_ENABLED=$(CGO) $(LINT) staticcheck ./...
	CGO_ENABLED=$(CGO) $(LINT) golangci-lint run ./...

clean:
	rm -rf $(BUILD)
