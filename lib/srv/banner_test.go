// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jonboulle/clockwork"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/srv"
)

func TestBannerFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "banner")
	log, hook := logtest.NewNullLogger()
	clock := clockwork.NewFakeClock()
	_, err := srv.NewBannerFile(path, clock, log)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "ssh_service.banner")
	require.ErrorContains(t, err, path)

	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, none := range []string{pipe, dir, "/dev/zero"} {
		_, err := srv.NewBannerFile(none, clock, log)
		require.ErrorContains(t, err, "is not a regular file", none)
	}

	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("Keep out!\n")
	file, err := srv.NewBannerFile(path, clock, log)
	require.NoError(t, err)
	require.Equal(t, "Keep out!\n", file.Text())
	for text, want := range map[string]string{
		"":                          "",
		"new\r\n\ttext ö 漢\n":       "new\r\n\ttext ö 漢\n",
		"\x1b]0;title\x07\x1b[2Jx":  "]0;title[2Jx",
		"a\x00b\x7fc\u009bd\u0085e": "abcde",
		"not \xff\xfe UTF-8\xc3":    "not  UTF-8",
		strings.Repeat("x", 1<<20):  strings.Repeat("x", 64<<10),
		strings.Repeat("漢", 1<<18):  strings.Repeat("漢", (64<<10)/3),
	} {
		write(text)
		require.Equal(t, want, file.Text(), "it is read again")
	}

	// One that is gone keeps nobody out, and fills no log.
	require.NoError(t, os.Remove(path))
	for range 10 {
		require.Empty(t, file.Text())
	}
	require.Len(t, hook.AllEntries(), 1)
	require.Contains(t, hook.LastEntry().Message, "Clients that were shown no banner: 1. ")
	write("back\n")
	require.Equal(t, "back\n", file.Text())
}

// TestBannerTellsNothing: what is recorded of who is refused is as without one.
func TestBannerTellsNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(c *srv.Config) { c.Banner = func() string { return strings.Repeat("x", 100_000) } })
	_, err := h.login("bob", ssh.Password("x"))
	require.Error(t, err)
	require.Equal(t, refusal("bob", "", "no-certificate-was-offered"), h.refusals(2))

	// Who only looks at the host key is shown none, and causes nothing.
	h = newHost(t, func(c *srv.Config) {
		c.Banner = func() string {
			t.Error("shown to a client that has asked for no login")
			return ""
		}
	})
	newWire(t, h.addr).conn.Close()
	require.Equal(t, []auditd.Event(nil), h.refusals(0))
}
