// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package pam

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/msteinert/pam/v2"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/pam/pamtest"
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

// authorize asks for the account and establishes the credentials.
func authorize(tx *Transaction) error {
	if err := tx.CheckAccount(); err != nil {
		return err
	}
	return tx.Establish()
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
			err = authorize(tx)
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
	require.NoError(t, authorize(tx))
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
	require.NoError(t, authorize(tx))
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
	require.NoError(t, authorize(tx))
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
	err = tx.Authenticate()
	require.ErrorContains(t, err, `PAM service "login", authenticate: `)
	require.ErrorContains(t, err, "nobody is asked")
	require.Empty(t, *said, "a question is no text")
}

// TestPrompt: questions reach the user, and answers the module.
func TestPrompt(t *testing.T) {
	module := pamtest.Module(t)
	type question struct {
		echo bool
		text string
	}
	for _, test := range []struct {
		name    string
		play    string
		answers []string
		asked   []question
		said    []string
		want    string
	}{
		{
			name: "one", play: "[auth:say:Hello] [auth:ask:Code: =1234]", answers: []string{"1234"},
			asked: []question{{false, "Code: "}}, said: []string{"Hello"},
		},
		{
			name: "two at once", play: "[auth:both:Name: =alice|Code: =1234]", answers: []string{"alice", "1234"},
			asked: []question{{true, "Name: "}, {false, "Code: "}},
		},
		{
			name: "wrong", play: "[auth:ask:Code: =1234] [auth:say:unreached]", answers: []string{"4321"},
			asked: []question{{false, "Code: "}},
			want:  `PAM service "login", authenticate: Authentication failure`,
		},
		{
			name: "longest", play: "[auth:ask:Code: =1234]", answers: []string{strings.Repeat("x", 512)},
			asked: []question{{false, "Code: "}},
			want:  `PAM service "login", authenticate: Authentication failure`,
		},
		{
			name: "too long", play: "[auth:ask:Code: =1234]", answers: []string{strings.Repeat("x", 513)},
			asked: []question{{false, "Code: "}},
			want:  `PAM service "login", authenticate: Conversation error (the user's answer is longer than the 512 bytes that PAM takes)`,
		},
		{
			name: "NUL", play: "[auth:ask:Code: =1234]", answers: []string{"1234\x00"},
			asked: []question{{false, "Code: "}},
			want:  `PAM service "login", authenticate: Conversation error (the user's answer has a NUL in it, which PAM would take for its end)`,
		},
		{
			name: "no answer", play: "[auth:ask:Code: =1234]",
			asked: []question{{false, "Code: "}},
			want:  `PAM service "login", authenticate: Conversation error (the user has gone)`,
		},
		{
			name: "renamed", play: "auth:rename:mallory",
			want: `PAM service "login", authenticate: a module changed the user from "root" to "mallory"`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, said := stack(t, "auth required "+module+" "+test.play)
			var asked []question
			cfg.Prompt = func(echo bool, text string) (string, error) {
				asked = append(asked, question{echo, text})
				if len(asked) > len(test.answers) {
					return "", errors.New("the user has gone")
				}
				return test.answers[len(asked)-1], nil
			}
			tx, err := Start(cfg)
			require.NoError(t, err)
			defer tx.Close()
			err = tx.Authenticate()
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
			}
			require.Equal(t, test.asked, asked)
			require.Equal(t, test.said, *said)
		})
	}
}

// TestPasswordChange: an account stack may demand a new password.
func TestPasswordChange(t *testing.T) {
	module := pamtest.Module(t)
	lines := []string{
		"auth required pam_permit.so",
		"account required " + module + " account:return:12",
		"password required " + module + " [password:ask:New password: =swordfish]",
	}
	change := func(t *testing.T, answer func(bool, string) (string, error)) error {
		cfg, _ := stack(t, lines...)
		cfg.Prompt = answer
		tx, err := Start(cfg)
		require.NoError(t, err)
		defer tx.Close()
		return tx.CheckAccount()
	}
	require.NoError(t, change(t, func(bool, string) (string, error) { return "swordfish", nil }))
	err := change(t, func(bool, string) (string, error) { return "x", nil })
	require.EqualError(t, err, `PAM service "login", password: Authentication failure`)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, StagePassword, failed.Stage)
	require.NotErrorIs(t, err, ErrPasswordExpired)

	err = change(t, nil)
	require.ErrorIs(t, err, ErrPasswordExpired)
	require.ErrorIs(t, err, pam.ErrNewAuthtokReqd)
	require.ErrorAs(t, err, &failed)
	require.Equal(t, StageAccount, failed.Stage)
}

// TestTTY: the terminal may be known only when the account was already asked.
func TestTTY(t *testing.T) {
	module, mark := pamtest.Module(t), filepath.Join(t.TempDir(), "mark")
	cfg, _ := stack(t,
		"auth required pam_permit.so",
		"account required "+module+" account:mark:"+mark,
		"session required "+module+" open:mark:"+mark,
	)
	cfg.TTY = "ssh"
	tx, err := Start(cfg)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.CheckAccount())
	require.Error(t, tx.SetTTY("/dev/pts/3\x00"))
	require.NoError(t, tx.SetTTY("/dev/pts/3"))
	require.NoError(t, tx.OpenSession())
	b, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("account %[1]d ssh\nopen %[1]d /dev/pts/3\n", os.Getpid()), string(b))
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
	for stage, call := range map[Stage]func() error{StageAccount: tx.CheckAccount, StageSetcred: tx.Establish} {
		err = call()
		var failed *Error
		require.ErrorAs(t, err, &failed)
		require.Equal(t, stage, failed.Stage)
		require.ErrorContains(t, err, `changed the user from "root" to "mallory"`)
	}
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
	require.Error(t, authorize(tx))
}
