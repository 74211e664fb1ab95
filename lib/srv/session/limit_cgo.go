// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package session

/*
#include <sys/resource.h>

static struct rlimit atStart;
static int known;

// Go raises this limit before any Go code can look at it, and sets it back in
// each process that it starts, past what PAM has set.
__attribute__((constructor)) static void keepFileLimit(void) {
	known = getrlimit(RLIMIT_NOFILE, &atStart) == 0;
}

static int fileLimit(unsigned long long *cur, unsigned long long *max) {
	*cur = atStart.rlim_cur;
	*max = atStart.rlim_max;
	return known;
}
*/
import "C"

import (
	"fmt"
	"syscall"
)

// restoreFileLimit sets the limit of open files back to what this process was
// started with, and makes Go leave it alone, so that user processes get that or
// what pam_limits makes of it.
func restoreFileLimit() error {
	var cur, max C.ulonglong
	if C.fileLimit(&cur, &max) == 0 {
		return nil
	}
	limit := syscall.Rlimit{Cur: uint64(cur), Max: uint64(max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("setting the limit of open files back: %w", err)
	}
	return nil
}
