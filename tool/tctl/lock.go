// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl lock: who is to stay out at once, whatever certificates there are.

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

func (t *tctl) addLock(app *kingpin.Application, register register) {
	clause := app.Command("lock", "Keep a user, a role, a login or a host out, and end what it has open. tctl rm lock/NAME takes the lock away.")
	var target types.LockTarget
	var message, ttlText, expiresText string
	clause.Flag("user", "The user to lock.").PlaceHolder("NAME").StringVar(&target.User)
	clause.Flag("role", "The role whose users to lock.").PlaceHolder("ROLE").StringVar(&target.Role)
	clause.Flag("login", "The system user to lock, on all hosts.").PlaceHolder("LOGIN").StringVar(&target.Login)
	clause.Flag("server-id", "The UUID of the host to lock, or the name of a node.").PlaceHolder("UUID").StringVar(&target.ServerID)
	clause.Flag("message", "What those who are locked out are told.").PlaceHolder("TEXT").StringVar(&message)
	clause.Flag("ttl", "How long the lock lasts, such as 12h. Without it, until it is removed.").PlaceHolder("TTL").StringVar(&ttlText)
	clause.Flag("expires", "When the lock ends, such as 2026-12-31T18:00:00Z.").PlaceHolder("TIME").StringVar(&expiresText)
	register(clause, func(ctx context.Context) error {
		spec := types.LockSpecV2{Target: target, Message: message}
		if target.IsEmpty() {
			return usageError{trace.BadParameter("nobody is to be locked: give --user, --role, --login or --server-id")}
		}
		switch {
		case ttlText != "" && expiresText != "":
			return usageError{trace.BadParameter("--ttl and --expires both say when the lock ends: give one of them")}
		case ttlText != "":
			ttl, err := parseTTL("ttl", ttlText)
			if err != nil {
				return trace.Wrap(err)
			}
			end := time.Now().Add(ttl).UTC()
			spec.Expires = &end
		case expiresText != "":
			end, err := time.Parse(time.RFC3339, expiresText)
			if err != nil || !end.After(time.Now()) {
				return usageError{trace.BadParameter("--expires=%q is no time to come: give one such as 2026-12-31T18:00:00Z", expiresText)}
			}
			end = end.UTC()
			spec.Expires = &end
		}
		c, err := t.connect(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		defer c.Close()
		// Hosts are locked by their UUIDs: a lock of anything else would hold nobody
		// off, and its operator would believe that it does. A UUID need not be that
		// of a node that is heard of now.
		if id := spec.Target.ServerID; id != "" && uuid.Validate(id) != nil {
			node, err := c.findNode(ctx, id)
			if err != nil {
				return trace.Wrap(err)
			}
			spec.Target.ServerID = node.GetName()
		}
		lock, err := types.NewLock(uuid.NewString(), spec)
		if err != nil {
			return trace.Wrap(err)
		}
		if err := c.UpsertLock(ctx, lock); err != nil {
			return trace.Wrap(err)
		}
		until := "until it is removed: tctl rm lock/" + lock.GetName()
		if spec.Expires != nil {
			until = "until " + when(*spec.Expires)
		}
		return t.print(fmt.Sprintf("Created a lock with name %q, %s.\n", lock.GetName(), until))
	})
}
