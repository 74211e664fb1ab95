// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "environment")
	for name, test := range map[string]struct {
		text      string
		want      []string
		complaint string
	}{
		"empty":          {"", []string{"A=1", "B=2"}, ""},
		"as they stand":  {"C=\"x\" # y\n", []string{"A=1", "B=2", `C="x" # y`}, ""},
		"the later wins": {"A=2\nC=1\nC=2", []string{"A=2", "B=2", "C=2"}, ""},
		"skipped":        {"\n  \n# A=2\n\t# B=3\n", []string{"A=1", "B=2"}, ""},
		"indented":       {" \tC=3\n", []string{"A=1", "B=2", "C=3"}, ""},
		"what names the login": {"SSH_TELEPORT_USER=root\nSSH_CLIENT=x\nSSH_CONNECTION=x\nSSH_TTY=x\nSSH_ORIGINAL_COMMAND=x\nSSH_AUTH_SOCK=/mine\n",
			[]string{"A=1", "B=2", "SSH_AUTH_SOCK=/mine"}, ""},
		"no pair": {"C\n=x\nD=1\n", []string{"A=1", "B=2", "D=1"}, path + ":1: this is no NAME=value\n" + path + ":2: this is no NAME=value\n"},
		"NUL":     {"C=x\x00y\nD=1\n", []string{"A=1", "B=2", "D=1"}, path + ":1: this is no NAME=value\n"},
		"many":    {strings.Repeat("\n", 1000) + "C=1", []string{"A=1", "B=2"}, path + " has more than 1000 lines: the rest is not read\n"},
		"long":    {strings.Repeat("#", 256<<10+1), []string{"A=1", "B=2"}, "Could not read " + path + ": it is longer than 262144 bytes\n"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, []byte(test.text), 0o600))
			var complaint bytes.Buffer
			require.Equal(t, test.want, addFile([]string{"A=1", "B=2"}, path, &complaint))
			require.Equal(t, test.complaint, complaint.String())
		})
	}
	for name, make := range map[string]func() error{
		"a pipe":   func() error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func() error { return os.Mkdir(path, 0o700) },
		"nothing":  func() error { return nil },
	} {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, make())
		var complaint bytes.Buffer
		require.Equal(t, []string{"A=1"}, addFile([]string{"A=1"}, path, &complaint), name)
		require.Contains(t, complaint.String(), "Could not read "+path, name)
	}
}

func TestRefused(t *testing.T) {
	for want, args := range map[int][][]string{
		2:      {nil, {"--"}, {"--", "/bin/sh"}, {"-x", "--", "/bin/sh", "sh"}, {"/bin/sh", "sh"}},
		notRun: {{"--", "/no/such/shell", "-shell"}},
	} {
		for _, a := range args {
			require.Equal(t, want, Run(a), "%q", a)
		}
	}
}
