// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What a host decides about somebody with a certificate: by the roles that it
// names, as they are now, and by the locks.

package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
)

// The reasons of a Decider's refusals, in the words of the records.
const (
	ReasonRole        = "role-not-found"
	ReasonUserLocked  = "user-is-locked"
	ReasonLoginLocked = "login-is-locked"
	ReasonRoleLocked  = "role-is-locked"
	ReasonNodeLocked  = "node-is-locked"
	// ReasonUndecided is for errors that are no *Denied.
	ReasonUndecided = "access-could-not-be-decided"
)

// Source knows the cluster's roles and locks. It is asked at each login, and
// answers from a cache: clients wait for it.
type Source interface {
	// Roles returns those of the named roles that exist, by name.
	Roles(ctx context.Context, names []string) (map[string]types.Role, error)
	// Locks returns all locks, in force or not.
	Locks(ctx context.Context) ([]types.Lock, error)
}

// Person is who wants to log in, as a checked certificate says.
type Person struct {
	// Name is the user's, and Login the login that was asked for.
	Name, Login string
	// Roles are named by the certificate. Nil means that it says nothing of
	// roles: its principals alone decide, which were checked before.
	Roles []string
	// Traits are the user's.
	Traits map[string][]string
}

// DeciderConfig is what NewDecider needs.
type DeciderConfig struct {
	// Source knows roles and locks.
	Source Source
	// ServerID is the host's UUID, which locks may name.
	ServerID string
	// Labels returns those of the host, as it has registered them. Nil has none.
	Labels func() map[string]string
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *DeciderConfig) CheckAndSetDefaults() error {
	switch {
	case c.Source == nil:
		return trace.BadParameter("access.DeciderConfig has no Source")
	case c.ServerID == "":
		return trace.BadParameter("access.DeciderConfig has no ServerID")
	}
	if c.Labels == nil {
		c.Labels = func() map[string]string { return nil }
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	return nil
}

// Decider decides who may log in to one host.
type Decider struct{ cfg DeciderConfig }

// NewDecider returns a Decider.
func NewDecider(cfg DeciderConfig) (*Decider, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	return &Decider{cfg: cfg}, nil
}

// Decide tells whether a person may log in to this host, and with which options.
// Who may not gets a *Denied. Any other error says that it could not be decided,
// which must refuse as well.
//
// A role that no longer exists grants nothing. A certificate that says nothing
// of roles is decided by locks only, and permits what it permits itself.
func (d *Decider) Decide(ctx context.Context, person Person) (Options, error) {
	if err := d.CheckLocks(ctx, person); err != nil {
		return Options{}, trace.Wrap(err)
	}
	if person.Roles == nil {
		return Options{ForwardAgent: true, PortForwarding: true}, nil
	}
	found, err := d.cfg.Source.Roles(ctx, person.Roles)
	if err != nil {
		return Options{}, trace.Wrap(err, "reading the roles of the user")
	}
	roles := make([]types.Role, 0, len(person.Roles))
	var missing []string
	for _, name := range person.Roles {
		if role := found[name]; role != nil {
			roles = append(roles, role)
		} else {
			missing = append(missing, name)
		}
	}
	if len(roles) == 0 && len(missing) > 0 {
		return Options{}, &Denied{Reason: ReasonRole, Message: "the roles of the certificate do not exist any more: " + shortList(missing)}
	}
	labels := d.cfg.Labels()
	if labels == nil {
		labels = map[string]string{}
	}
	checker := NewChecker(roles, person.Traits)
	if err := checker.CheckNode(person.Login, labels); err != nil {
		return Options{}, err
	}
	return checker.Options(person.Login, labels), nil
}

// CheckLocks tells whether a lock in force is about a person, with a *Denied. It
// is all that a host decides which gives nobody a login, such as a proxy.
func (d *Decider) CheckLocks(ctx context.Context, person Person) error {
	locks, err := d.cfg.Source.Locks(ctx)
	if err != nil {
		return trace.Wrap(err, "reading the locks of the cluster")
	}
	for _, lock := range locks {
		if denied := d.Locked(lock, person); denied != nil {
			return denied
		}
	}
	return nil
}

// Locked tells why a lock keeps a person from this host, or ends the logins that
// the person has; nil where it does not. All targets that a lock has must be met;
// one without any, or with a target that is unknown here, locks nobody.
func (d *Decider) Locked(lock types.Lock, person Person) *Denied {
	target := lock.Target()
	if !lock.IsInForce(d.cfg.Clock.Now()) {
		return nil
	}
	known := types.LockTarget{User: target.User, Login: target.Login, Role: target.Role, ServerID: target.ServerID}
	if target.IsEmpty() || !target.Equals(known) {
		return nil
	}
	if target.User != "" && target.User != person.Name ||
		target.Login != "" && target.Login != person.Login ||
		target.Role != "" && !slices.Contains(person.Roles, target.Role) ||
		target.ServerID != "" && target.ServerID != d.cfg.ServerID {
		return nil
	}
	denied := &Denied{}
	switch {
	case target.User != "":
		denied.Reason, denied.Message = ReasonUserLocked, fmt.Sprintf("the user %q is locked", target.User)
	case target.Login != "":
		denied.Reason, denied.Message = ReasonLoginLocked, fmt.Sprintf("the login %q is locked", target.Login)
	case target.Role != "":
		denied.Reason, denied.Message = ReasonRoleLocked, fmt.Sprintf("the role %q is locked", target.Role)
	default:
		denied.Reason, denied.Message = ReasonNodeLocked, "this host is locked"
	}
	if why := oneLine(lock.Message()); why != "" {
		denied.Message += ": " + why
	}
	return denied
}

// shortList quotes the first of many names, and of each what tells it.
func shortList(names []string) string {
	const enough, length = 5, 64
	var quoted []string
	for _, name := range names[:min(len(names), enough)] {
		quoted = append(quoted, fmt.Sprintf("%q", name[:min(len(name), length)]))
	}
	list := strings.Join(quoted, ", ")
	if len(names) > enough {
		list += fmt.Sprintf(" and %d others", len(names)-enough)
	}
	return list
}

// oneLine makes a text fit for a terminal and a log: whoever locks somebody may
// write anything.
func oneLine(text string) string {
	const enough = 200
	var b strings.Builder
	for _, r := range strings.TrimSpace(text) {
		if b.Len() >= enough {
			b.WriteString("...")
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}
