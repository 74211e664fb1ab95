// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func message(length uint32, seq uint32, body string) []byte {
	b := make([]byte, syscall.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(b, length)
	binary.NativeEndian.PutUint16(b[4:], syscall.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, body...)
}

// The standard library's parser allocates; ours must read what it reads.
func FuzzParseAnswers(f *testing.F) {
	for _, b := range [][]byte{
		{},
		message(16, 1, ""),
		message(20, 1, "\x00\x00\x00\x00"),
		append(message(17, 1, "a\x00\x00\x00"), message(16, 2, "")...),
		message(17, 1, "a"),        // the last one is not padded
		message(15, 1, ""),         // shorter than its header
		message(17, 1, ""),         // longer than what was read
		message(0xffffffff, 1, ""), // overflows when it is aligned
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := new(line).parseAnswers(append([]byte(nil), b...))
		want, stdErr := syscall.ParseNetlinkMessage(append([]byte(nil), b...))
		if stdErr != nil {
			return
		}
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range got {
			require.Equal(t, want[i].Header, got[i].Header)
			require.Equal(t, string(want[i].Data), string(got[i].Data))
		}
	})
}
