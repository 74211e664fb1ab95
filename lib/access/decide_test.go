// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/jonboulle/clockwork"

	"teleport-auditd/lib/access"
)

// source is a cache of roles and locks.
type source struct {
	roles map[string]types.Role
	locks []types.Lock
	err   error
}

func (s *source) Roles(_ context.Context, names []string) (map[string]types.Role, error) {
	found := make(map[string]types.Role)
	for _, name := range names {
		if role, ok := s.roles[name]; ok {
			found[name] = role
		}
	}
	return found, s.err
}

func (s *source) Locks(context.Context) ([]types.Lock, error) { return s.locks, s.err }

func newLock(t testing.TB, target types.LockTarget, message string, expires *time.Time) types.Lock {
	t.Helper()
	lock, err := types.NewLock("lock", types.LockSpecV2{Target: target, Message: message, Expires: expires})
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func TestDecide(t *testing.T) {
	clock := clockwork.NewFakeClock()
	past, future := clock.Now().Add(-time.Second), clock.Now().Add(time.Second)
	roles := map[string]types.Role{
		"prod":    newRole(t, "prod", `{"options":{"forward_agent":true,"client_idle_timeout":"5m"},"allow":{"logins":["root"],"node_labels":{"env":"prod"}}}`),
		"test":    newRole(t, "test", `{"allow":{"logins":["root"],"node_labels":{"env":"test"}}}`),
		"auditor": access.Presets()[2],
	}
	permitted := access.Options{ForwardAgent: true, PortForwarding: true}
	byRole := access.Options{MaxSessionTTL: 30 * time.Hour, ClientIdleTimeout: 5 * time.Minute, ForwardAgent: true, PortForwarding: true}
	for _, test := range []struct {
		name   string
		roles  []string
		target types.LockTarget
		until  *time.Time
		err    error
		want   access.Options
		reason string // "undecided" for an error that is no *Denied
	}{
		{name: "says nothing of roles", want: permitted},
		{name: "names no role", roles: []string{}, reason: access.ReasonLogin},
		{name: "allowed", roles: []string{"prod"}, want: byRole},
		{name: "one role is gone", roles: []string{"gone", "prod"}, want: byRole},
		{name: "all roles are gone", roles: []string{"gone"}, reason: access.ReasonRole},
		{name: "many long roles are gone", roles: slices.Repeat([]string{strings.Repeat("x", 10000)}, 1000), reason: access.ReasonRole},
		{name: "another host", roles: []string{"test"}, reason: access.ReasonNode},
		{name: "no login", roles: []string{"auditor"}, reason: access.ReasonLogin},
		{name: "no answer", roles: []string{"prod"}, err: errors.New("the cache is empty"), reason: "undecided"},
		{name: "no answer about locks", err: errors.New("the cache is empty"), reason: "undecided"},
		{name: "user locked", roles: []string{"prod"}, target: types.LockTarget{User: "alice"}, reason: access.ReasonUserLocked},
		{name: "user locked, without roles", target: types.LockTarget{User: "alice"}, reason: access.ReasonUserLocked},
		{name: "user locked for a while", roles: []string{"prod"}, target: types.LockTarget{User: "alice"}, until: &future, reason: access.ReasonUserLocked},
		{name: "no longer locked", roles: []string{"prod"}, target: types.LockTarget{User: "alice"}, until: &past, want: byRole},
		{name: "another user locked", roles: []string{"prod"}, target: types.LockTarget{User: "alic"}, want: byRole},
		{name: "login locked", roles: []string{"prod"}, target: types.LockTarget{Login: "root"}, reason: access.ReasonLoginLocked},
		{name: "role locked", roles: []string{"auditor", "prod"}, target: types.LockTarget{Role: "auditor"}, reason: access.ReasonRoleLocked},
		{name: "host locked", roles: []string{"prod"}, target: types.LockTarget{ServerID: "f00f"}, reason: access.ReasonNodeLocked},
		{name: "another host locked", roles: []string{"prod"}, target: types.LockTarget{ServerID: "beef"}, want: byRole},
		{name: "the user on this host", roles: []string{"prod"}, target: types.LockTarget{User: "alice", ServerID: "f00f"}, reason: access.ReasonUserLocked},
		{name: "the user on another host", roles: []string{"prod"}, target: types.LockTarget{User: "alice", ServerID: "beef"}, want: byRole},
		{name: "what is unknown here", roles: []string{"prod"}, target: types.LockTarget{User: "alice", MFADevice: "x"}, want: byRole},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &source{roles: roles, err: test.err}
			if !test.target.IsEmpty() {
				s.locks = []types.Lock{newLock(t, test.target, "ask \x1b[2Jthe admin\n"+strings.Repeat("x", 1000), test.until)}
			}
			decider, err := access.NewDecider(access.DeciderConfig{
				Source: s, ServerID: "f00f", Clock: clock,
				Labels: func() map[string]string { return map[string]string{"env": "prod"} },
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := decider.Decide(t.Context(), access.Person{Name: "alice", Login: "root", Roles: test.roles})
			reason := ""
			if denied, ok := errors.AsType[*access.Denied](err); ok {
				reason = denied.Reason
				if strings.ContainsAny(denied.Message, "\x1b\n") || len(denied.Message) > 500 {
					t.Errorf("the line is %q", denied.Message)
				}
			} else if err != nil {
				reason = "undecided"
			}
			if got != test.want || reason != test.reason {
				t.Errorf("the options are %+v, the reason %q (%v)", got, reason, err)
			}
		})
	}
}
