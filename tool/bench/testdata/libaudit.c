/* Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0
 *
 * Sends acknowledged USER_LOGIN records with libaudit, as sshd does. For each
 * number on standard input it sends that many in a loop and prints how many
 * nanoseconds they took, so that nothing but libaudit is measured.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>

/* As in libaudit.h, which is not everywhere where the library is. */
enum { USER_LOGIN = 1112 };
extern int audit_open(void);
extern int audit_log_acct_message(int fd, int type, const char *pgname, const char *op,
	const char *name, unsigned int id, const char *host, const char *addr,
	const char *tty, int result);

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	int fd, count;
	if (argc != 2 || (fd = audit_open()) < 0) {
		perror("audit_open");
		return 1;
	}
	while (scanf("%d", &count) == 1) {
		long long start = now();
		for (int i = 0; i < count; i++) {
			/* All is given, so that it looks up neither names nor paths. */
			if (audit_log_acct_message(fd, USER_LOGIN, argv[1], "login", "bob", -1,
					"127.0.0.1", "127.0.0.1", "/dev/pts/0", 1) <= 0) {
				perror("audit_log_acct_message");
				return 1;
			}
		}
		printf("%lld\n", now() - start);
		fflush(stdout);
	}
	return 0;
}
