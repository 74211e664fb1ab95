// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package session

/*
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static int wakeFD;
static volatile sig_atomic_t terminate;

static void wake(int sig) {
	int saved = errno;
	uint64_t one = 1;
	if (sig != SIGCHLD)
		terminate = 1;
	// It fails only where so many were written that it is readable anyway.
	ssize_t n = write(wakeFD, &one, sizeof one);
	(void)n;
	errno = saved;
}

// What is written past a limit of file sizes that PAM has set for the user fails
// then, and does not kill.
static void nothing(int sig) { (void)sig; }

// SA_ONSTACK, since Go's threads have small stacks (os/signal, "Go programs that
// use cgo").
static int watch(int fd) {
	static const int signals[] = {SIGCHLD, SIGTERM, SIGHUP, SIGINT};
	struct sigaction action = {.sa_handler = wake, .sa_flags = SA_ONSTACK | SA_RESTART};
	wakeFD = fd;
	sigfillset(&action.sa_mask);
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
		if (sigaction(signals[i], &action, 0) != 0)
			return errno;
	action.sa_handler = nothing;
	if (sigaction(SIGXFSZ, &action, 0) != 0)
		return errno;
	// C's abort() is a module's or the C library's. Go would print a page about
	// its goroutines and end with an exit status; so it is a signal like any.
	signal(SIGABRT, SIG_DFL);
	return 0;
}

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction gos[sizeof faults / sizeof *faults];

// The same for what else a module may do wrong, while it runs: Go needs these.
static void their_faults(int theirs) {
	struct sigaction action = {.sa_handler = SIG_DFL};
	for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
		if (theirs)
			sigaction(faults[i], &action, &gos[i]);
		else
			sigaction(faults[i], &gos[i], 0);
}

static int terminated(void) { return terminate; }

// A process of its own becomes the user and lets the kernel decide whom it may
// signal, all at once. If this one became the user, if only for a moment, the
// user could signal it. Signals are blocked, since Go's handlers must not run in
// the copy.
static int killGroupAs(uid_t uid, pid_t group, int sig) {
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid_t child = fork();
	if (child == 0) {
		if (syscall(SYS_setresuid, uid, uid, uid) == 0)
			kill(-group, sig);
		_exit(0);
	}
	int failed = child < 0 ? errno : 0;
	sigprocmask(SIG_SETMASK, &before, 0);
	if (failed)
		return failed;
	for (;;) {
		int status;
		pid_t p = waitpid(child, &status, WUNTRACED);
		if (p < 0 && errno == EINTR)
			continue;
		// The user may stop the copy, and must not stop this process with it.
		if (p != child || !WIFSTOPPED(status))
			return 0;
		kill(child, SIGKILL);
	}
}

// What modules leave behind: freed memory, and a stack that they have run deep.
// What lies below the running function's frame is dead; two pages are left for
// the call of madvise itself. Where the stack ends earlier, its rest is done.
static void trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
	uintptr_t page = sysconf(_SC_PAGESIZE), deep = 64 * page;
	uintptr_t here = (uintptr_t)__builtin_frame_address(0) & ~(page - 1);
	madvise((void *)(here - deep), deep - 2 * page, MADV_DONTNEED);
}
*/
import "C"

import (
	"fmt"
	"syscall"
)

// watchSignals makes every end of a child and every request to terminate
// readable on wake, an eventfd, and returns what tells of the latter. It also
// undoes an ignored SIGHUP or SIGINT that the daemon inherited, which user
// processes would inherit in turn.
//
// The handlers are C's because os/signal keeps three threads busy, which cost
// each idle login 86 KiB.
func watchSignals(wake int) (terminated func() bool, err error) {
	if errno := C.watch(C.int(wake)); errno != 0 {
		return nil, fmt.Errorf("watching signals: %w", syscall.Errno(errno))
	}
	return func() bool { return C.terminated() != 0 }, nil
}

// killGroupAs sends a signal to those of a process group whom the user may
// signal: it may hold a program of somebody else's (setuid).
func killGroupAs(uid uint32, group int, sig syscall.Signal) error {
	if errno := C.killGroupAs(C.uid_t(uid), C.pid_t(group), C.int(sig)); errno != 0 {
		return fmt.Errorf("starting a process to send a signal: %w", syscall.Errno(errno))
	}
	return nil
}

// theirFaults lets a fault in a PAM module end this process by its signal, which
// the daemon puts into its log, and not by pages about goroutines that are not to
// blame. The module's calls stand between it and what it returns.
func theirFaults() (over func()) {
	C.their_faults(1)
	return func() { C.their_faults(0) }
}

// trimMemory gives back what PAM's modules have left: each idle login keeps it
// otherwise.
func trimMemory() { C.trim() }
