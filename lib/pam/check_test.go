// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package pam

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/testhost"
)

// whole is a stack without a fault.
const whole = "auth required /M\naccount required /M\nsession required /M\n"

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		// files are services, login the one that is checked. In them /M is a
		// module that is there.
		files    map[string]string
		warnings []string
		// err may start with DIR.
		err string
	}{
		"whole": {files: map[string]string{"login": whole + "password required /M\n"}},
		"comments, blanks, continued lines, case": {files: map[string]string{
			"login": "#%PAM-1.0\n\n  \t# nothing\nAUTH  Required \\\n  /M  # why\naccount [success=ok \\\n default=bad] /M a=[b c]\n-session optional pam_of_another.so\nsession sufficient /M\n",
		}},
		"the last line has no end": {files: map[string]string{"login": strings.TrimSuffix(whole, "\n")}},
		"included": {files: map[string]string{
			"login":  "@include common\nauth include deep\naccount substack common\n",
			"common": whole,
			"deep":   whole + "wrong\n",
		}, err: `DIR/deep:4: "wrong" is no type of module, so libpam refuses every login here: write auth, account, session, password or @include`},
		"only the wanted type of what is included": {files: map[string]string{
			"login":  whole + "auth include common\n",
			"common": "auth required /M\naccount wrong /M\nsession required pam_gone.so\n",
		}},
		"includes itself": {files: map[string]string{
			"login": "auth required /M\n@include one\n", "one": "@include two\n", "two": "@include one\n",
		}, err: "DIR/one includes itself, by way of DIR/login, DIR/one, DIR/two, DIR/one: take one of the includes out"},
		"include of what is not there": {files: map[string]string{"login": whole + "@include common-auth\n"},
			err: "DIR/login:4: common-auth cannot be included (stat DIR/common-auth: no such file or directory): make it, or take the line out"},
		"include of nothing": {files: map[string]string{"login": whole + "auth include\n"},
			err: "DIR/login:4: the line includes nothing: write the name of a file"},
		"type": {files: map[string]string{"login": "auht required /M\n" + whole},
			err: `DIR/login:1: "auht" is no type of module, so libpam refuses every login here: write auth, account, session, password or @include`},
		"control": {files: map[string]string{"login": whole + "auth needed /M\n"},
			err: `DIR/login:4: "needed" is nothing that a result can mean: write required, requisite, sufficient, optional, include, substack or [value=action ...]`},
		"value": {files: map[string]string{"login": whole + "auth [succes=ok] /M\n"},
			err: `DIR/login:4: "succes=ok" in [succes=ok] is no value=action: values are such as success, default and user_unknown`},
		"action": {files: map[string]string{"login": whole + "auth [success=fine] /M\n"},
			err: `DIR/login:4: "success=fine" in [success=fine] has no action: write ignore, bad, die, ok, done, reset, or how many modules to skip`},
		"bracket": {files: map[string]string{"login": whole + "auth [success=ok /M\n"},
			err: "DIR/login:4: a [ has no ] on its line: add it"},
		"no control": {files: map[string]string{"login": whole + "auth\n"},
			err: `DIR/login:4: the line ends after "auth": write what its result means (required, sufficient...), and a module`},
		"no module": {files: map[string]string{"login": whole + "auth required\n"},
			err: `DIR/login:4: the line has no module: write one after "required"`},
		"missing module, required": {files: map[string]string{"login": whole + "\nauth requisite /nowhere/pam_gone.so\n"},
			err: "DIR/login:5: there is no module /nowhere/pam_gone.so: install it, or take the line out"},
		"missing module, [default=die]": {files: map[string]string{"login": whole + "auth [success=2 default=die] /nowhere/pam_gone.so\n"},
			err: "DIR/login:4: there is no module /nowhere/pam_gone.so: install it, or take the line out"},
		"missing module, no default": {files: map[string]string{"login": whole + "auth [success=ok] /nowhere/pam_gone.so\n"},
			err: "DIR/login:4: there is no module /nowhere/pam_gone.so: install it, or take the line out"},
		"missing module, optional": {files: map[string]string{"login": whole + "auth optional /nowhere/pam_gone.so\nauth [success=1 default=ignore] /nowhere/pam_gone.so\nauth [module_unknown=ignore default=bad] /nowhere/pam_gone.so\n"},
			warnings: []string{
				"DIR/login:4: there is no module /nowhere/pam_gone.so, which this line can do without",
				"DIR/login:5: there is no module /nowhere/pam_gone.so, which this line can do without",
				"DIR/login:6: there is no module /nowhere/pam_gone.so, which this line can do without",
			}},
		"missing module, to change passwords": {files: map[string]string{"login": whole + "password required /nowhere/pam_gone.so\n"},
			warnings: []string{"DIR/login:4: there is no module /nowhere/pam_gone.so: install it, or take the line out"}},
		"missing module, silent": {files: map[string]string{"login": whole + "-auth required /nowhere/pam_gone.so\n"}},
		"architecture's folder":  {files: map[string]string{"login": whole + "auth required /$ISA/M\n"}},
		"the rest of another service": {files: map[string]string{"login": "auth required /M\nsession required /M\n", "other": whole},
			warnings: []string{"DIR/login has no account line, so those of DIR/other decide"}},
		"the rest is broken": {files: map[string]string{"login": "auth required /M\nsession required /M\n", "other": "account required /nowhere/x.so\n"},
			err: "DIR/other:1: there is no module /nowhere/x.so: install it, or take the line out"},
		"the rest is missing": {files: map[string]string{"login": "auth required /M\naccount required /M\n"},
			err: `DIR/login has no session line, and there is no service "other" to stand in: add one`},
		"the rest is missing twice": {files: map[string]string{"login": "auth required /M\naccount required /M\n", "other": "auth required /M\n"},
			err: "DIR/login has no session line, and neither has DIR/other: add one"},
		"empty": {files: map[string]string{"login": ""},
			err: `DIR/login has no auth line, and there is no service "other" to stand in: add one`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			module := filepath.Join(dir, "M")
			require.NoError(t, os.WriteFile(module, nil, 0o600))
			for service, text := range test.files {
				text = strings.ReplaceAll(strings.ReplaceAll(text, "/$ISA/M", dir+"/$ISA/M"), " /M", " "+module)
				require.NoError(t, os.WriteFile(filepath.Join(dir, service), []byte(text), 0o600))
			}
			warnings, err := Check("LogIn", dir)
			for i := range warnings {
				warnings[i] = strings.ReplaceAll(warnings[i], dir, "DIR")
			}
			require.Equal(t, test.warnings, warnings)
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			require.Equal(t, test.err, strings.ReplaceAll(err.Error(), dir, "DIR"))
		})
	}
}

func TestCheckFindsTheFile(t *testing.T) {
	etc, vendor := t.TempDir(), t.TempDir()
	_, err := Check("sshd", etc, vendor)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, `the PAM service "sshd" has no file in `+etc+" or "+vendor+": make "+etc+"/sshd, or name another service")

	module := filepath.Join(etc, "M")
	require.NoError(t, os.WriteFile(module, nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(vendor, "sshd"), []byte(strings.ReplaceAll(whole, "/M", module)), 0o600))
	_, err = Check("sshd", etc, vendor)
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(etc, "sshd"), []byte("x"), 0o600))
	_, err = Check("sshd", etc, vendor)
	require.ErrorContains(t, err, filepath.Join(etc, "sshd")+":1: ", "the administrator's comes first")

	require.NoError(t, os.Remove(filepath.Join(etc, "sshd")))
	require.NoError(t, os.Mkdir(filepath.Join(etc, "sshd"), 0o700))
	_, err = Check("sshd", etc)
	require.ErrorIs(t, err, fs.ErrNotExist, "a folder is no file")
}

func TestCheckDeep(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		next := string(rune('a' + i + 1))
		require.NoError(t, os.WriteFile(filepath.Join(dir, string(rune('a'+i))), []byte("@include "+next+"\n"), 0o600))
	}
	_, err := Check("a", dir)
	require.ErrorContains(t, err, "is included more than 16 files deep")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, maxServiceFile+1), 0o600))
	_, err = Check("large", dir)
	require.ErrorContains(t, err, "is larger than a PAM service is")
}

// TestCheckHost: what the host's own packages have installed can work.
func TestCheckHost(t *testing.T) {
	entries, err := os.ReadDir("/etc/pam.d")
	if err != nil {
		testhost.Skip(t, "this host has no PAM: %v", err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join("/etc/pam.d", e.Name()))
		// Those of other tests come and go, and some are broken on purpose.
		if err != nil || strings.HasPrefix(e.Name(), "tp") || strings.HasPrefix(e.Name(), "common-") || !strings.Contains(string(text), "session") {
			continue
		}
		warnings, err := Check(e.Name())
		require.NoError(t, err, e.Name())
		t.Log(e.Name(), warnings)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(whole)
	f.Add("@include login\n")
	f.Add("auth [success=ok \\\n default=[x] pam.so \\")
	f.Add("auth include login\nauth substack other")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "login"), []byte(text), 0o600))
		_, err := Check("login", dir)
		if err != nil {
			require.NotContains(t, err.Error(), "\n", "one line")
		}
	})
}
