// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package pam

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/msteinert/pam/v2"
	"github.com/stretchr/testify/require"
)

// stack writes a service and returns the Config of a transaction with it. What
// the modules say to the user goes to said.
func stack(t *testing.T, lines ...string) (cfg Config, said *[]string) {
	t.Helper()
	// Modules act on the thread. It ends with the test.
	runtime.LockOSThread()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "login"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	said = new([]string)
	return Config{
		Service: "login",
		ConfDir: dir,
		User:    "root",
		Text:    func(s string) { *said = append(*said, s) },
	}, said
}

func TestAvailable(t *testing.T) {
	require.NoError(t, Available())
}

// TestOrder uses pam_debug, which says what it is called for and answers as its
// arguments tell it.
func TestOrder(t *testing.T) {
	for _, test := range []struct {
		name              string
		auth, acct, ses   string
		authorize, opened error
		stage             Stage
		said              []string
	}{
		{
			name: "all is well",
			auth: "cred=success", acct: "acct=success", ses: "open_session=success close_session=success",
			said: []string{"acct=success", "cred=success", "open_session=success", "close_session=success", "cred=success"},
		},
		{
			name: "account refused",
			auth: "cred=success", acct: "acct=perm_denied", ses: "open_session=success",
			authorize: pam.ErrPermDenied, stage: StageAccount,
			said: []string{"acct=perm_denied"},
		},
		{
			name: "account expired",
			auth: "cred=success", acct: "acct=acct_expired", ses: "open_session=success",
			authorize: pam.ErrAcctExpired, stage: StageAccount,
			said: []string{"acct=acct_expired"},
		},
		{
			name: "password expired, which nobody can change here",
			auth: "cred=success", acct: "acct=new_authtok_reqd", ses: "open_session=success",
			authorize: pam.ErrNewAuthtokReqd, stage: StageAccount,
			said: []string{"acct=new_authtok_reqd"},
		},
		{
			name: "credentials refused",
			auth: "cred=cred_unavail", acct: "acct=success", ses: "open_session=success",
			authorize: pam.ErrCredUnavail, stage: StageSetcred,
			said: []string{"acct=success", "cred=cred_unavail"},
		},
		{
			name: "session refused",
			auth: "cred=success", acct: "acct=success", ses: "open_session=session_err close_session=success",
			opened: pam.ErrSession, stage: StageSession,
			said: []string{"acct=success", "cred=success", "open_session=session_err", "cred=success"},
		},
		{
			name: "session cannot be closed",
			auth: "cred=success", acct: "acct=success", ses: "open_session=success close_session=session_err",
			said:  []string{"acct=success", "cred=success", "open_session=success", "close_session=session_err", "cred=success"},
			stage: StageClose,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, said := stack(t,
				"auth required pam_debug.so auth=success "+test.auth,
				"account required pam_debug.so "+test.acct,
				"session required pam_debug.so "+test.ses,
			)
			tx, err := Start(cfg)
			require.NoError(t, err)

			check := func(want, got error) {
				if want == nil {
					require.NoError(t, got)
					return
				}
				require.ErrorIs(t, got, want)
				var failed *Error
				require.ErrorAs(t, got, &failed)
				require.Equal(t, test.stage, failed.Stage)
				require.Contains(t, got.Error(), `PAM service "login", `+string(test.stage)+": ")
			}
			err = tx.Authorize()
			check(test.authorize, err)
			if err == nil {
				check(test.opened, tx.OpenSession())
			}
			err = tx.Close()
			if test.stage == StageClose {
				check(pam.ErrSession, err)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, test.said, *said)
			require.NoError(t, tx.Close(), "a second time does nothing")
			require.Equal(t, test.said, *said)
		})
	}
}

// TestWhatModulesSee lets pam_exec say who calls it and with what.
func TestWhatModulesSee(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	exec := " required pam_exec.so log=" + log + " /usr/bin/env"
	cfg, _ := stack(t,
		"auth required pam_permit.so",
		"account"+exec,
		"session"+exec,
	)
	cfg.RHost, cfg.TTY = "192.0.2.7", "/dev/pts/3"
	cfg.Env = []string{
		"TELEPORT_USERNAME=alice = \"quoted\"",
		"TELEPORT_ROLES=",
		"CUT=x\x00y",
		"CUT\x00NAME=x",
		"=nameless",
		"novalue",
	}
	tx, err := Start(cfg)
	require.NoError(t, err)
	require.NoError(t, tx.Authorize())
	require.NoError(t, tx.OpenSession())
	env, err := tx.Environment()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"TELEPORT_USERNAME=alice = \"quoted\"", "TELEPORT_ROLES="}, env)
	require.NoError(t, tx.Close())

	text, err := os.ReadFile(log)
	require.NoError(t, err)
	var calls []map[string]string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "***") {
			calls = append(calls, make(map[string]string))
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		calls[len(calls)-1][name] = value
	}
	var types []string
	for _, call := range calls {
		types = append(types, call["PAM_TYPE"])
		require.Equal(t, "192.0.2.7", call["PAM_RHOST"])
		require.Equal(t, "/dev/pts/3", call["PAM_TTY"])
		require.Equal(t, "root", call["PAM_USER"])
		require.Equal(t, "login", call["PAM_SERVICE"])
		require.Equal(t, "alice = \"quoted\"", call["TELEPORT_USERNAME"])
		require.Empty(t, call["TELEPORT_ROLES"])
		require.NotContains(t, call, "CUT")
	}
	require.Equal(t, []string{"account", "open_session", "close_session"}, types)
}

func TestEnvironmentOfModules(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "pam_env.conf")
	require.NoError(t, os.WriteFile(conf, []byte("EDITOR DEFAULT=vi\nFROM DEFAULT=@{PAM_RHOST}\n"), 0o600))
	cfg, _ := stack(t,
		"auth required pam_permit.so",
		"account required pam_permit.so",
		"session required pam_env.so readenv=0 conffile="+conf,
	)
	cfg.RHost = "2001:db8::7"
	tx, err := Start(cfg)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.Authorize())
	require.NoError(t, tx.OpenSession())
	env, err := tx.Environment()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"EDITOR=vi", "FROM=2001:db8::7"}, env)
}

func TestText(t *testing.T) {
	motd := filepath.Join(t.TempDir(), "motd")
	require.NoError(t, os.WriteFile(motd, []byte("Be careful.\nThis is production.\n"), 0o600))
	cfg, said := stack(t,
		"auth required pam_permit.so",
		"account required pam_echo.so hello %u from %H",
		"session required pam_permit.so",
		"session optional pam_motd.so motd="+motd,
	)
	cfg.RHost = "192.0.2.7"
	tx, err := Start(cfg)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.Authorize())
	require.NoError(t, tx.OpenSession())
	require.Equal(t, []string{"hello root from 192.0.2.7", "Be careful.\nThis is production."}, *said)
}

// TestPromptIsRefused: nobody is asked at a certificate login. Accounts and
// sessions hardly ever ask, so the authentication stack does it here.
func TestPromptIsRefused(t *testing.T) {
	cfg, said := stack(t, "auth required pam_unix.so nodelay")
	cfg.User = "nobody"
	tx, err := Start(cfg)
	require.NoError(t, err)
	defer tx.Close()
	require.Error(t, tx.pam.Authenticate(0))
	require.Empty(t, *said, "a question is no text")
}

// TestRenamedUser: the records would name one person, and the processes be
// another's.
func TestRenamedUser(t *testing.T) {
	cfg, said := stack(t,
		"auth required pam_debug.so cred=success",
		"account required pam_permit.so",
	)
	tx, err := Start(cfg)
	require.NoError(t, err)
	require.NoError(t, tx.pam.SetItem(pam.User, "mallory"))
	err = tx.Authorize()
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, StageSetcred, failed.Stage)
	require.ErrorContains(t, err, `changed the user from "root" to "mallory"`)
	require.NoError(t, tx.Close())
	require.Equal(t, []string{"cred=success", "cred=success"}, *said, "what was established is deleted")
}

func TestRefusedStart(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no service", func(c *Config) { c.Service = "" }, "needs a Service and a User"},
		{"no user", func(c *Config) { c.User = "" }, "needs a Service and a User"},
		{"NUL in the user", func(c *Config) { c.User = "root\x00x" }, `"root\x00x" has a NUL`},
		{"NUL in the address", func(c *Config) { c.RHost = "192.0.2.7\x00" }, "has a NUL"},
		{"NUL in the terminal", func(c *Config) { c.TTY = "\x00" }, "has a NUL"},
		{"service without a file", func(c *Config) { c.Service = "elsewhere" }, `PAM service "elsewhere", start: `},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, _ := stack(t, "account required pam_permit.so")
			test.change(&cfg)
			_, err := Start(cfg)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// TestMissingModule: a stack that names what is not installed lets nobody in.
func TestMissingModule(t *testing.T) {
	cfg, _ := stack(t, "account required pam_of_another_system.so")
	tx, err := Start(cfg)
	require.NoError(t, err)
	defer tx.Close()
	require.Error(t, tx.Authorize())
}
