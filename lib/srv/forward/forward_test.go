// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package forward

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// messages are one of each.
func messages() []message {
	return []message{
		&dial{ID: 1, Network: TCP, Address: "localhost", Port: 22},
		&dial{ID: math.MaxUint32, Network: Unix, Address: "/run/\x00é", Port: math.MaxUint32},
		&listen{ID: 2, Network: TCP, Addresses: []string{"127.0.0.1", "::1"}, Port: 0},
		&listen{},
		&cancel{ID: 3},
		&connected{ID: 4},
		&listening{ID: 5, Port: 8080, Path: "/tmp/ssh-1/agent.2"},
		&failed{ID: 6, Reason: reasonNoName, Errno: 111},
		&accepted{ID: 7, Address: "::1", Port: 50000},
		&closed{ID: 8},
	}
}

func TestMessages(t *testing.T) {
	for _, m := range messages() {
		b, err := encode(m)
		require.NoError(t, err)
		got, err := decode(b)
		require.NoError(t, err)
		require.Equal(t, m, got)
		for n := range b {
			_, err := decode(b[:n])
			require.Error(t, err, "%T cut to %d of %d bytes", m, n, len(b))
		}
		_, err = decode(append(b, 0))
		require.ErrorIs(t, err, errMalformed, "a byte too many")
	}
	_, err := decode([]byte{version + 1, byte(kindCancel), 1})
	require.ErrorIs(t, err, errVersion)
	_, err = decode([]byte{version, 99, 1})
	require.ErrorIs(t, err, errMalformed)
	_, err = encode(&dial{Address: strings.Repeat("x", maxMessage+1)})
	require.Error(t, err)
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		b, err := encode(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxMessage {
			return
		}
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(m)
		require.NoError(t, err)
		got, err := decode(again)
		require.NoError(t, err)
		require.Equal(t, m, got)
	})
}

func TestChecks(t *testing.T) {
	for host, ok := range map[string]bool{
		"localhost": true, "::1": true, "fe80::1%eth0": true, strings.Repeat("x", 255): true,
		"": false, strings.Repeat("x", 256): false, "a\x00b": false, "a\nb": false, "a\x7fb": false,
	} {
		require.Equal(t, ok, CheckHost(host) == "", "%q", host)
	}
	for path, ok := range map[string]bool{
		"/run/x": true, "x": true, "@x": true, strings.Repeat("x", 107): true,
		"": false, strings.Repeat("x", 108): false, "\x00x": false, "/a\x00b": false,
	} {
		require.Equal(t, ok, CheckPath(path) == "", "%q", path)
	}
}

func TestWords(t *testing.T) {
	for want, m := range map[string]failed{
		"Connection refused":                   {Reason: reasonErrno, Errno: 111},
		"Connection timed out":                 {Reason: reasonTimeout},
		"No route to host":                     {Reason: reasonErrno, Errno: 113},
		"Permission denied":                    {Reason: reasonErrno, Errno: 13},
		"Name or service not known":            {Reason: reasonNoName},
		"Temporary failure in name resolution": {Reason: reasonLookup},
		"It failed":                            {Reason: reasonOther},
		"Errno 4000":                           {Reason: reasonErrno, Errno: 4000},
	} {
		require.Equal(t, want, m.words())
	}
	for _, m := range []failed{{Reason: 77}, {Errno: 0}, {Errno: math.MaxUint32}} {
		require.Equal(t, "It failed", m.words())
	}
}
