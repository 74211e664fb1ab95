// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package bench measures the built programs, each beside a rival in the same
// run: the kernel's own floor, C's libaudit, an empty Go program, and the
// host's sshd. It holds benchmarks only:
//
//	sudo make bench
//	sudo go test -run '^$' -bench 'Teleport/host/login/pam=on' ./tool/bench
//	sudo E2E_BIN=build go test -run '^$' -bench . ./tool/bench   # programs built before
//
// Both sides take turns in short blocks and the medians are compared, so that
// what else the machine does hits both alike. The output is benchstat's input;
// the ratio is a metric of its own, such as x-sshd. At the end stands a table
// with the budget of each number. A missed budget is said there and fails
// nothing: a busy machine is no defect.
//
// Most of it needs root, an audit system that nobody has locked, and sshd. What
// is not there is skipped, and the table says so; with REQUIRE_KERNEL=1 it
// fails.
package bench
