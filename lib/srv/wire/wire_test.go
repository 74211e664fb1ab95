// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/srv/wire"
)

// message has one field of each kind.
type message struct {
	Number uint32
	Truth  bool
	Bytes  []byte
	Text   string
	Names  []string
	Ports  []uint32
}

func (m *message) code(c *wire.Coder) {
	c.Uint32(&m.Number)
	c.Bool(&m.Truth)
	c.Bytes(&m.Bytes)
	c.String(&m.Text)
	wire.List(c, &m.Names, (*wire.Coder).String)
	wire.List(c, &m.Ports, (*wire.Coder).Uint32)
}

const limit = 1000

func TestRoundTrip(t *testing.T) {
	for _, m := range []*message{
		{},
		{Number: math.MaxUint32, Truth: true, Bytes: []byte{0, 255}, Text: "é\x00", Names: []string{"", "a"}, Ports: []uint32{0, 22, math.MaxUint32}},
	} {
		b, err := wire.Write(limit, nil, m.code)
		require.NoError(t, err)
		got := new(message)
		require.NoError(t, wire.Read(b, got.code))
		require.Equal(t, m, got)
		for n := range b {
			require.ErrorIs(t, wire.Read(b[:n], new(message).code), wire.ErrMalformed, "cut to %d of %d bytes", n, len(b))
		}
		require.ErrorIs(t, wire.Read(append(b, 0), new(message).code), wire.ErrMalformed, "a byte too many")
	}
}

func TestTooLong(t *testing.T) {
	_, err := wire.Write(limit, nil, (&message{Text: strings.Repeat("x", limit+1)}).code)
	require.ErrorIs(t, err, wire.ErrTooLong)
	_, err = wire.Write(limit, nil, (&message{Text: strings.Repeat("x", limit/2), Bytes: make([]byte, limit/2)}).code)
	require.ErrorIs(t, err, wire.ErrTooLong)
}

func FuzzRead(f *testing.F) {
	b, err := wire.Write(limit, nil, (&message{Number: 7, Text: "a", Names: []string{"b"}}).code)
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(message)
		if wire.Read(b, m.code) != nil {
			return
		}
		again, err := wire.Write(math.MaxInt, nil, m.code)
		require.NoError(t, err)
		got := new(message)
		require.NoError(t, wire.Read(again, got.code))
		require.Equal(t, m, got)
	})
}
