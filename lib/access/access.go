// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package access decides what roles allow: which logins on which hosts, with
// which options, and which resources of the cluster.
//
// The roles are Teleport's role objects (types.Role). Whoever stores one calls
// Validate before, and whoever decides makes a Checker of a person's roles:
//
//	checker := access.NewChecker(roles, traits)
//	if err := checker.CheckNode("root", labels); err != nil {
//		return err // *access.Denied, with the reason for the records
//	}
//	options := checker.Options("root", labels)
//
// Deny wins over allow, whatever role either stands in. What the roles do not
// allow is denied. Of the options of several roles the strictest holds.
package access

import (
	"fmt"
	"slices"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// The reasons of Denied, in the words of the records.
const (
	ReasonLogin = "login-not-allowed-by-role"
	ReasonNode  = "node-not-allowed-by-role"
)

// Denied is why roles do not let somebody in.
type Denied struct {
	// Reason is for the records: ReasonLogin, ReasonNode, or one of a Decider's.
	Reason string
	// Message is for people, in one line.
	Message string
}

func (d *Denied) Error() string { return d.Message }

// Checker is what the roles of one person come to. It may be used by several
// goroutines.
type Checker struct {
	roles []role
}

// role is a role with its variables replaced by the person's traits.
type role struct {
	name        string
	allow, deny conditions
	options     types.RoleOptions
}

type conditions struct {
	logins []string
	// everyLogin is the wildcard of deny.
	everyLogin bool
	labels     selector
	rules      []types.Rule
}

// NewChecker returns what the roles allow somebody with these traits. A nil role
// is left out. Roles that Validate would refuse are taken as far as they can be
// read: what cannot be read allows nothing.
func NewChecker(roles []types.Role, traits map[string][]string) *Checker {
	c := &Checker{roles: make([]role, 0, len(roles))}
	for _, r := range roles {
		if r == nil {
			continue
		}
		c.roles = append(c.roles, role{
			name:    r.GetName(),
			allow:   newConditions(r, types.Allow, traits),
			deny:    newConditions(r, types.Deny, traits),
			options: r.GetOptions(),
		})
	}
	return c
}

func newConditions(r types.Role, kind types.RoleConditionType, traits map[string][]string) conditions {
	c := conditions{
		labels: newSelector(r.GetNodeLabels(kind), traits, kind == types.Deny),
		rules:  r.GetRules(kind),
	}
	for _, text := range r.GetLogins(kind) {
		if text == types.Wildcard {
			c.everyLogin = kind == types.Deny
			continue
		}
		t, err := parseTemplate(text)
		if err != nil {
			continue
		}
		for _, login := range t.expand(traits) {
			// A trait holds what somebody else wrote, and need not be a login.
			if CheckLogin(login) == nil {
				c.logins = append(c.logins, login)
			}
		}
	}
	slices.Sort(c.logins)
	c.logins = slices.Compact(c.logins)
	return c
}

func (c *conditions) hasLogin(login string) bool {
	return c.everyLogin || slices.Contains(c.logins, login)
}

// Logins returns the logins that any of the roles allows and none denies,
// sorted. All of them are valid names.
func (c *Checker) Logins() []string {
	var logins []string
	for i := range c.roles {
		for _, login := range c.roles[i].allow.logins {
			if !c.deniesLogin(login) {
				logins = append(logins, login)
			}
		}
	}
	slices.Sort(logins)
	return slices.Compact(logins)
}

func (c *Checker) deniesLogin(login string) bool {
	return slices.ContainsFunc(c.roles, func(r role) bool { return r.deny.hasLogin(login) })
}

func (c *Checker) deniesNode(labels map[string]string) bool {
	return slices.ContainsFunc(c.roles, func(r role) bool { return r.deny.labels.matches(labels) })
}

// CheckNode tells whether login may be used on a host with these labels: one
// role must allow both, and none may deny either. The error is a *Denied.
func (c *Checker) CheckNode(login string, labels map[string]string) error {
	if c.deniesLogin(login) {
		return &Denied{Reason: ReasonLogin, Message: fmt.Sprintf("a role denies the login %q", login)}
	}
	if c.deniesNode(labels) {
		return &Denied{Reason: ReasonNode, Message: "a role denies hosts with the labels of this one"}
	}
	hasLogin, hasNode := false, false
	for i := range c.roles {
		allow := &c.roles[i].allow
		l, n := allow.hasLogin(login), allow.labels.matches(labels)
		if l && n {
			return nil
		}
		hasLogin, hasNode = hasLogin || l, hasNode || n
	}
	switch {
	case hasLogin && hasNode:
		return &Denied{Reason: ReasonLogin, Message: fmt.Sprintf("the roles that allow the login %q do not allow this host", login)}
	case hasLogin:
		return &Denied{Reason: ReasonNode, Message: "no role allows hosts with the labels of this one"}
	}
	return &Denied{Reason: ReasonLogin, Message: fmt.Sprintf("no role allows the login %q", login)}
}

// CanSeeNode tells whether a host with these labels is shown in lists: a role
// allows its labels, and none denies them.
func (c *Checker) CanSeeNode(labels map[string]string) bool {
	return !c.deniesNode(labels) && slices.ContainsFunc(c.roles, func(r role) bool { return r.allow.labels.matches(labels) })
}

// CheckRule tells whether a rule of the roles allows verb (types.VerbList and
// its like) on resources of a kind (types.KindUser and its like), and none
// denies it. The error is trace.AccessDenied.
//
// "read" includes "readnosecrets". Who is denied the second is denied the first.
func (c *Checker) CheckRule(resource, verb string) error {
	for i := range c.roles {
		for _, rule := range c.roles[i].deny.rules {
			if hasResource(&rule, resource) && (hasVerb(&rule, verb) || verb == types.VerbRead && hasVerb(&rule, types.VerbReadNoSecrets)) {
				return trace.AccessDenied("the role %q denies %q on resources of kind %q", c.roles[i].name, verb, resource)
			}
		}
	}
	for i := range c.roles {
		for _, rule := range c.roles[i].allow.rules {
			if hasResource(&rule, resource) && hasVerb(&rule, verb) {
				return nil
			}
		}
	}
	return trace.AccessDenied("no role allows %q on resources of kind %q", verb, resource)
}

func hasResource(rule *types.Rule, resource string) bool {
	return rule.HasResource(types.Wildcard) || rule.HasResource(resource)
}

func hasVerb(rule *types.Rule, verb string) bool {
	return slices.Contains(rule.Verbs, types.Wildcard) || rule.HasVerb(verb)
}

// Options is what roles say about a certificate or a connection.
type Options struct {
	// MaxSessionTTL bounds how long a certificate is valid.
	MaxSessionTTL time.Duration
	// ClientIdleTimeout ends a connection on which nothing was sent for so
	// long; zero never does.
	ClientIdleTimeout time.Duration
	// DisconnectExpiredCert ends a connection when its certificate does.
	DisconnectExpiredCert bool
	// ForwardAgent and PortForwarding permit it.
	ForwardAgent, PortForwarding bool
}

// Options returns the strictest of the options of those roles that allow login
// on a host with these labels; one without any has an empty map. With labels nil
// it is the strictest of all roles, which is what a certificate gets before the host is known: there, roles
// without logins count for MaxSessionTTL only, since they let nobody in.
// It is the zero value, which permits nothing, where there is no such role.
func (c *Checker) Options(login string, labels map[string]string) Options {
	var o Options
	sessions := 0
	for i := range c.roles {
		r := &c.roles[i]
		if labels != nil && (!r.allow.hasLogin(login) || !r.allow.labels.matches(labels)) {
			continue
		}
		o.MaxSessionTTL = stricter(o.MaxSessionTTL, r.options.MaxSessionTTL.Value())
		if len(r.allow.logins) == 0 {
			continue
		}
		agent := r.options.ForwardAgent.Value()
		//lint:ignore SA1019 its successor, ssh_port_forwarding, is refused by Validate
		ports := types.BoolDefaultTrue(r.options.PortForwarding) //nolint:staticcheck // as above
		if sessions == 0 {
			o.ForwardAgent, o.PortForwarding = agent, ports
		}
		sessions++
		o.ForwardAgent = o.ForwardAgent && agent
		o.PortForwarding = o.PortForwarding && ports
		o.DisconnectExpiredCert = o.DisconnectExpiredCert || r.options.DisconnectExpiredCert.Value()
		o.ClientIdleTimeout = stricter(o.ClientIdleTimeout, r.options.ClientIdleTimeout.Value())
	}
	return o
}

// stricter returns the shorter of two limits, of which zero is none.
func stricter(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return max(b, 0)
	}
	return a
}
