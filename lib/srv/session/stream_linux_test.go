// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && !386 && !arm && !mips && !mipsle

package session

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestStream: what the user's process writes reaches the daemon, and descriptors
// do not, by either end and whatever the user sets at his own.
func TestStream(t *testing.T) {
	for _, files := range []bool{false, true} {
		reading, writing, err := openStream(files)
		require.NoError(t, err)
		r, w := os.NewFile(uintptr(reading), "reading"), os.NewFile(uintptr(writing), "writing")
		for from, to := range map[int]int{writing: reading, reading: writing} {
			_ = unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 1)
			err := unix.Sendmsg(from, []byte("x"), unix.UnixRights(0), nil, unix.MSG_DONTWAIT)
			require.Error(t, err, "%d to %d", from, to)
			if err != unix.ENOTSOCK {
				require.ErrorIs(t, err, unix.EPERM)
			}
			_ = unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
		}
		text := strings.Repeat("text", 1000)
		_, err = w.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, text, string(got), "and then its end")
		require.NoError(t, r.Close())
	}
}
