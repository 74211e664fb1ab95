// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl auth rotate: new keys for the authorities, a phase at a time, with the old
// and the new ones trusted in between.

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/cli"
)

const rotateAll = "all"

func (t *tctl) addRotate(parent *kingpin.CmdClause, register register) {
	clause := parent.Command("rotate", "Replace the keys of the authorities, one phase after the other: init (the new keys are trusted), update_clients (they sign), update_servers (hosts show certificates of theirs), standby (the old keys are trusted no more). rollback goes back.")
	var kindName, phase string
	cli.OneOf(clause.Flag("type", "Which authority: user, host, or all.").Default(rotateAll), &kindName, string(types.UserCA), string(types.HostCA), rotateAll)
	cli.OneOf(clause.Flag("phase", "The phase to go to: init, update_clients, update_servers, standby or rollback.").Required(), &phase,
		types.RotationPhaseInit, types.RotationPhaseUpdateClients, types.RotationPhaseUpdateServers, types.RotationPhaseStandby, types.RotationPhaseRollback)
	// Teleport's tctl wants it for what is done here always.
	clause.Flag("manual", "Lead through the phases by hand.").Hidden().Bool()
	register(clause, func(ctx context.Context) error { return t.rotate(ctx, kindName, phase) })
}

func (t *tctl) rotate(ctx context.Context, kindName, phase string) error {
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	kinds := authorityTypes()
	if kindName != rotateAll {
		kinds = []types.CertAuthType{types.CertAuthType(kindName)}
	}
	for _, kind := range kinds {
		if err := c.RotateCertAuthority(ctx, types.RotateRequest{
			Type:        kind,
			Mode:        types.RotationModeManual,
			TargetPhase: phase,
		}); err != nil {
			return trace.Wrap(err)
		}
		if err := t.print(fmt.Sprintf("The %s authority is in phase %s.\n", kind, phase)); err != nil {
			return trace.Wrap(err)
		}
	}
	next := map[string]string{
		types.RotationPhaseInit:          "Next, once every host is connected: tctl auth rotate" + typeFlag(kindName) + " --phase=update_clients",
		types.RotationPhaseUpdateClients: "Next, once users have logged in again or their certificates have expired: tctl auth rotate" + typeFlag(kindName) + " --phase=update_servers",
		types.RotationPhaseUpdateServers: "Next, once every host shows a certificate of the new key: tctl auth rotate" + typeFlag(kindName) + " --phase=standby. What is signed by the old key is refused from then on.",
		types.RotationPhaseRollback:      "Next, to end the rotation: tctl auth rotate" + typeFlag(kindName) + " --phase=standby",
	}[phase]
	if next == "" {
		return nil
	}
	return t.print(next + "\n")
}

func typeFlag(kindName string) string {
	if kindName == rotateAll {
		return ""
	}
	return " --type=" + strings.ToLower(kindName)
}
