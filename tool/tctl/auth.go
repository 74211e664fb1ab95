// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl auth: the cluster's authorities.

package main

import (
	"github.com/alecthomas/kingpin/v2"
)

func (t *tctl) addAuth(app *kingpin.Application, register register) {
	clause := app.Command("auth", "The cluster's authorities.")
	t.addSign(clause, register)
	t.addExport(clause, register)
	t.addRotate(clause, register)
}
