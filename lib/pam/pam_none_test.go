// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux || !cgo

package pam

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnavailable(t *testing.T) {
	require.ErrorIs(t, Available(), ErrUnavailable)
	tx, err := Start(Config{Service: "login", User: "root"})
	require.Nil(t, tx)
	require.ErrorIs(t, err, ErrUnavailable)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, StageStart, failed.Stage)
	require.ErrorContains(t, err, "built without PAM")
}
