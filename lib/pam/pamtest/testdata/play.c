// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// A PAM module that does what its arguments say, for tests. An argument is
// WHEN:WHAT or WHEN:WHAT:MORE, where WHEN is auth, cred, account, password, open or
// close. They are carried out in their order until one fails. only:NAME does it for
// that user alone.

#include <fcntl.h>
#include <security/pam_appl.h>
#include <security/pam_modules.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int say(pam_handle_t *h, int style, const char *text, char **answer) {
	const struct pam_conv *conv;
	struct pam_message message = {.msg_style = style, .msg = text};
	const struct pam_message *messages = &message;
	struct pam_response *response = NULL;
	if (pam_get_item(h, PAM_CONV, (const void **)&conv) != PAM_SUCCESS)
		return PAM_SYSTEM_ERR;
	int result = conv->conv(1, &messages, &response, conv->appdata_ptr);
	if (result == PAM_SUCCESS && response) {
		if (answer)
			*answer = response->resp;
		else
			free(response->resp);
		free(response);
	}
	return result;
}

// ask is QUESTION=ANSWER.
static int ask(pam_handle_t *h, int style, const char *more) {
	char text[600], *answer = NULL;
	snprintf(text, sizeof text, "%s", more);
	char *want = strrchr(text, '=');
	if (!want)
		return PAM_SYSTEM_ERR;
	*want++ = 0;
	int result = say(h, style, text, &answer);
	if (result != PAM_SUCCESS)
		return result;
	result = answer && strcmp(answer, want) == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
	free(answer);
	return result;
}

// both is QUESTION=ANSWER|QUESTION=ANSWER, asked at once.
static int both(pam_handle_t *h, const char *more) {
	char text[600];
	const struct pam_conv *conv;
	snprintf(text, sizeof text, "%s", more);
	char *second = strchr(text, '|');
	if (!second || pam_get_item(h, PAM_CONV, (const void **)&conv) != PAM_SUCCESS)
		return PAM_SYSTEM_ERR;
	*second++ = 0;
	char *want[2] = {strrchr(text, '='), strrchr(second, '=')};
	if (!want[0] || !want[1])
		return PAM_SYSTEM_ERR;
	*want[0]++ = 0;
	*want[1]++ = 0;
	struct pam_message m[2] = {
		{.msg_style = PAM_PROMPT_ECHO_ON, .msg = text},
		{.msg_style = PAM_PROMPT_ECHO_OFF, .msg = second},
	};
	const struct pam_message *messages[2] = {&m[0], &m[1]};
	struct pam_response *r = NULL;
	int result = conv->conv(2, messages, &r, conv->appdata_ptr);
	if (result != PAM_SUCCESS)
		return result;
	for (int i = 0; i < 2; i++) {
		if (!r[i].resp || strcmp(r[i].resp, want[i]) != 0)
			result = PAM_AUTH_ERR;
		free(r[i].resp);
	}
	free(r);
	return result;
}

static int play(pam_handle_t *h, const char *when, int argc, const char **argv) {
	const char *user = NULL;
	pam_get_item(h, PAM_USER, (const void **)&user);
	for (int i = 0; i < argc; i++)
		if (strncmp(argv[i], "only:", 5) == 0 && (!user || strcmp(argv[i] + 5, user) != 0))
			return PAM_SUCCESS;
	for (int i = 0; i < argc; i++) {
		size_t n = strlen(when);
		if (strncmp(argv[i], when, n) != 0 || argv[i][n] != ':')
			continue;
		const char *what = argv[i] + n + 1, *more = strchr(what, ':');
		size_t len = more ? (size_t)(more++ - what) : strlen(what);
		if (!more)
			more = "";
#define IS(word) (len == strlen(word) && strncmp(what, word, len) == 0)
		int result = PAM_SUCCESS;
		if (IS("ask"))
			result = ask(h, PAM_PROMPT_ECHO_OFF, more);
		else if (IS("show"))
			result = ask(h, PAM_PROMPT_ECHO_ON, more);
		else if (IS("both"))
			result = both(h, more);
		else if (IS("say"))
			result = say(h, PAM_TEXT_INFO, more, NULL);
		else if (IS("complain"))
			result = say(h, PAM_ERROR_MSG, more, NULL);
		else if (IS("sleep"))
			sleep(atoi(more));
		else if (IS("abort"))
			abort();
		else if (IS("segv"))
			*(volatile int *)8 = 1;
		else if (IS("return"))
			result = atoi(more);
		else if (IS("rename"))
			result = pam_set_item(h, PAM_USER, more);
		else if (IS("mark")) {
			// The file tells that this place was reached, and by which terminal.
			const char *tty = NULL;
			pam_get_item(h, PAM_TTY, (const void **)&tty);
			FILE *f = fopen(more, "a");
			if (f) {
				fprintf(f, "%s %d %s\n", when, (int)getpid(), tty ? tty : "?");
				fclose(f);
			}
		} else
			result = PAM_SERVICE_ERR;
		if (result != PAM_SUCCESS)
			return result;
	}
	return PAM_SUCCESS;
}

int pam_sm_authenticate(pam_handle_t *h, int flags, int argc, const char **argv) {
	return play(h, "auth", argc, argv);
}

int pam_sm_setcred(pam_handle_t *h, int flags, int argc, const char **argv) {
	return play(h, flags & PAM_DELETE_CRED ? "uncred" : "cred", argc, argv);
}

int pam_sm_acct_mgmt(pam_handle_t *h, int flags, int argc, const char **argv) {
	return play(h, "account", argc, argv);
}

int pam_sm_open_session(pam_handle_t *h, int flags, int argc, const char **argv) {
	return play(h, "open", argc, argv);
}

int pam_sm_close_session(pam_handle_t *h, int flags, int argc, const char **argv) {
	return play(h, "close", argc, argv);
}

int pam_sm_chauthtok(pam_handle_t *h, int flags, int argc, const char **argv) {
	return flags & PAM_PRELIM_CHECK ? PAM_SUCCESS : play(h, "password", argc, argv);
}
