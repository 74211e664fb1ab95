// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
)

// newRole reads the JSON of a role's spec.
func newRole(t testing.TB, name, spec string) types.Role {
	t.Helper()
	role, err := access.Parse(roleJSON(name, "v7", spec))
	if err != nil {
		t.Fatal(err)
	}
	return role
}

func roleJSON(name, version, spec string) []byte {
	return fmt.Appendf(nil, `{"kind":"role","version":%q,"metadata":{"name":%q},"spec":%s}`, version, name, spec)
}

func reasonOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	denied, ok := errors.AsType[*access.Denied](err)
	if !ok || denied.Message == "" {
		t.Fatalf("the error is %#v", err)
	}
	return denied.Reason
}

func TestCheckNode(t *testing.T) {
	const (
		yes     = ""
		noLogin = access.ReasonLogin
		noNode  = access.ReasonNode
	)
	everywhere := `{"allow":{"logins":["root","bob"],"node_labels":{"*":"*"}}}`
	for _, test := range []struct {
		name, login, labels string
		roles               []string
		want                string
	}{
		{"no roles", "root", "", nil, noLogin},
		{"everything", "root", "", []string{everywhere}, yes},
		{"everything with labels", "root", "env=prod", []string{everywhere}, yes},
		{"another login", "eve", "", []string{everywhere}, noLogin},
		{"logins without labels", "root", "", []string{`{"allow":{"logins":["root"]}}`}, noNode},
		{"labels without logins", "root", "", []string{`{"allow":{"node_labels":{"*":"*"}}}`}, noLogin},
		{"one label of two", "root", "env=prod", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"prod","team":"db"}}}`}, noNode},
		{"both labels", "root", "env=prod,team=db,x=y", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"prod","team":"db"}}}`}, yes},
		{"one value of a list", "root", "env=test", []string{`{"allow":{"logins":["root"],"node_labels":{"env":["prod","test"]}}}`}, yes},
		{"the key must be there", "root", "", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"*"}}}`}, noNode},
		{"any value", "root", "env=", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"*"}}}`}, yes},
		{"a prefix", "root", "env=prod-1", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"prod-*"}}}`}, yes},
		{"another prefix", "root", "env=xprod-1", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"prod-*"}}}`}, noNode},
		{"wildcards in the middle", "root", "env=a-b-c-d", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"a*b*d"}}}`}, yes},
		{"ends do not overlap", "root", "env=aba", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"ab*ba"}}}`}, noNode},
		{"a dot is a dot", "root", "env=axb", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"a.b"}}}`}, noNode},
		{"an expression", "root", "env=prod-17", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"^prod-[0-9]+$"}}}`}, yes},
		{"an expression that does not match", "root", "env=prod-x", []string{`{"allow":{"logins":["root"],"node_labels":{"env":"^prod-[0-9]+$"}}}`}, noNode},
		{"login and labels in two roles", "root", "env=prod", []string{
			`{"allow":{"logins":["root"],"node_labels":{"env":"test"}}}`, `{"allow":{"logins":["bob"],"node_labels":{"env":"prod"}}}`}, noLogin},
		{"the other role", "bob", "env=prod", []string{
			`{"allow":{"logins":["root"],"node_labels":{"env":"test"}}}`, `{"allow":{"logins":["bob"],"node_labels":{"env":"prod"}}}`}, yes},
		{"a denied login", "root", "", []string{everywhere, `{"deny":{"logins":["root"]}}`}, noLogin},
		{"all logins denied", "bob", "", []string{everywhere, `{"deny":{"logins":["*"]}}`}, noLogin},
		{"a denied host", "root", "env=prod", []string{everywhere, `{"deny":{"node_labels":{"env":"prod"}}}`}, noNode},
		{"another host than the denied", "root", "env=test", []string{everywhere, `{"deny":{"node_labels":{"env":"prod"}}}`}, yes},
		{"all hosts denied", "root", "", []string{everywhere, `{"deny":{"node_labels":{"*":"*"}}}`}, noNode},
		{"a denial by trait", "root", "team=red", []string{everywhere, `{"deny":{"node_labels":{"team":"{{external.not}}"}}}`}, noNode},
		{"traits give logins", "alice", "", []string{`{"allow":{"logins":["{{internal.logins}}"],"node_labels":{"*":"*"}}}`}, yes},
		{"traits with text around", "x-red", "", []string{`{"allow":{"logins":["x-{{ external.team }}"],"node_labels":{"*":"*"}}}`}, yes},
		{"a trait that is not there", "x-", "", []string{`{"allow":{"logins":["x-{{external.nothing}}"],"node_labels":{"*":"*"}}}`}, noLogin},
		{"traits give labels", "root", "team=blue", []string{`{"allow":{"logins":["root"],"node_labels":{"team":"{{external[\"team\"]}}"}}}`}, yes},
		{"traits give other labels", "root", "team=green", []string{`{"allow":{"logins":["root"],"node_labels":{"team":"{{external.team}}"}}}`}, noNode},
		{"text and wildcards around a trait", "root", "team=the-blue-1", []string{`{"allow":{"logins":["root"],"node_labels":{"team":"t*-{{external.team}}-*"}}}`}, yes},
		{"an asterisk in a trait is none", "root", "team=any", []string{`{"allow":{"logins":["root"],"node_labels":{"team":"{{external.star}}"}}}`}, noNode},
		{"it stands for itself", "root", "team=*", []string{`{"allow":{"logins":["root"],"node_labels":{"team":"{{external.star}}"}}}`}, yes},
		{"an expression in a trait is none", "root", "team=any", []string{`{"allow":{"logins":["root"],"node_labels":{"team":"{{external.expression}}"}}}`}, noNode},
	} {
		t.Run(test.name, func(t *testing.T) {
			traits := map[string][]string{
				"logins": {"alice", "bad login", "", "*"}, "team": {"red", "blue"}, "not": {"red"}, "star": {"*"}, "expression": {"^.*$"},
			}
			var roles []types.Role
			for i, spec := range test.roles {
				roles = append(roles, newRole(t, fmt.Sprint("role", i), spec))
			}
			labels := map[string]string{}
			for pair := range strings.SplitSeq(test.labels, ",") {
				if key, value, ok := strings.Cut(pair, "="); ok {
					labels[key] = value
				}
			}
			checker := access.NewChecker(roles, traits)
			got := reasonOf(t, checker.CheckNode(test.login, labels))
			if got != test.want {
				t.Errorf("the reason is %q, and should be %q", got, test.want)
			}
			if got == "" && (!checker.CanSeeNode(labels) || !slices.Contains(checker.Logins(), test.login)) {
				t.Error("who may log in sees the host, and has the login")
			}
		})
	}
}

func TestLogins(t *testing.T) {
	roles := []types.Role{
		newRole(t, "a", `{"allow":{"logins":["{{internal.logins}}","root","{{external.mail}}"]}}`),
		newRole(t, "b", `{"allow":{"logins":["bob","root"]},"deny":{"logins":["{{external.never}}"]}}`),
		nil,
	}
	checker := access.NewChecker(roles, map[string][]string{
		"logins": {"zoe", "bob", "-rf", "a b", "x,y", "new\nline", "\xff", strings.Repeat("l", 256), "*"},
		"never":  {"root"},
	})
	if got, want := checker.Logins(), []string{"bob", "zoe"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the logins are %q, and should be %q", got, want)
	}
	if got := access.NewChecker(nil, nil).Logins(); len(got) > 0 {
		t.Errorf("nobody has the logins %q", got)
	}
}

// TestDenyWins checks with roles of all kinds that one more role that denies
// never lets anybody in, and that the order of roles is of no importance.
func TestDenyWins(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	logins, values := []string{"root", "bob", "eve"}, []string{"a", "b", "c"}
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	for range 2000 {
		var roles []types.Role
		for i := range 1 + random.IntN(3) {
			roles = append(roles, newRole(t, fmt.Sprint("r", i), fmt.Sprintf(`{"allow":{"logins":[%q,%q],"node_labels":{"env":[%q,%q]}}}`, pick(logins), pick(logins), pick(values), pick(values))))
		}
		login, env := pick(logins), pick(values)
		labels := map[string]string{"env": env}
		before := access.NewChecker(roles, nil).CheckNode(login, labels) == nil
		deniedLogin, deniedValue := pick(logins), pick(values)
		roles = append(roles, newRole(t, "deny", fmt.Sprintf(`{"deny":{"logins":[%q],"node_labels":{"env":%q}}}`, deniedLogin, deniedValue)))
		random.Shuffle(len(roles), func(i, j int) { roles[i], roles[j] = roles[j], roles[i] })
		after := access.NewChecker(roles, nil).CheckNode(login, labels) == nil
		if want := before && login != deniedLogin && env != deniedValue; after != want {
			t.Fatalf("%s on env=%s: allowed before: %v, with deny of %s and env=%s: %v", login, env, before, deniedLogin, deniedValue, after)
		}
	}
}

// TestWildcards compares the wildcards of label values with what they mean as
// regular expressions.
func TestWildcards(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	word := func(letters string, most int) string {
		var b strings.Builder
		for range random.IntN(most + 1) {
			b.WriteByte(letters[random.IntN(len(letters))])
		}
		return b.String()
	}
	for range 5000 {
		glob, value := word("ab.*", 6), word("ab.", 8)
		role := newRole(t, "glob", fmt.Sprintf(`{"allow":{"node_labels":{"env":%q}}}`, glob))
		got := access.NewChecker([]types.Role{role}, nil).CanSeeNode(map[string]string{"env": value})
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(glob), `\*`, ".*") + "$").MatchString(value)
		if got != want {
			t.Fatalf("%q matches %q: %v, and should: %v", glob, value, got, want)
		}
	}
}

func TestCheckRule(t *testing.T) {
	allow := `{"allow":{"rules":[{"resources":["user","role"],"verbs":["list","read"]},{"resources":["token"],"verbs":["*"]},{"resources":["lock"],"verbs":["readnosecrets"]}]}}`
	for _, test := range []struct {
		roles          []string
		resource, verb string
		want           bool
	}{
		{nil, "user", "list", false},
		{[]string{allow}, "user", "list", true},
		{[]string{allow}, "role", "read", true},
		{[]string{allow}, "role", "readnosecrets", true},
		{[]string{allow}, "user", "create", false},
		{[]string{allow}, "token", "delete", true},
		{[]string{allow}, "lock", "readnosecrets", true},
		{[]string{allow}, "lock", "read", false},
		{[]string{allow}, "node", "list", false},
		{[]string{allow, `{"deny":{"rules":[{"resources":["token"],"verbs":["delete"]}]}}`}, "token", "delete", false},
		{[]string{allow, `{"deny":{"rules":[{"resources":["token"],"verbs":["delete"]}]}}`}, "token", "create", true},
		{[]string{allow, `{"deny":{"rules":[{"resources":["*"],"verbs":["read"]}]}}`}, "user", "read", false},
		{[]string{allow, `{"deny":{"rules":[{"resources":["user"],"verbs":["readnosecrets"]}]}}`}, "user", "read", false},
		{[]string{allow, `{"deny":{"rules":[{"resources":["user"],"verbs":["*"]}]}}`}, "user", "list", false},
		{[]string{`{"allow":{"rules":[{"resources":["*"],"verbs":["*"]}]}}`}, "cert_authority", "update", true},
	} {
		var roles []types.Role
		for i, spec := range test.roles {
			roles = append(roles, newRole(t, fmt.Sprint("role", i), spec))
		}
		err := access.NewChecker(roles, nil).CheckRule(test.resource, test.verb)
		if (err == nil) != test.want || err != nil && !trace.IsAccessDenied(err) {
			t.Errorf("%s of %s with %q: %v", test.verb, test.resource, test.roles, err)
		}
	}
}

func TestOptions(t *testing.T) {
	short := newRole(t, "short", `{"options":{"max_session_ttl":"1h","forward_agent":true,"client_idle_timeout":"10m"},"allow":{"logins":["root"],"node_labels":{"env":"prod"}}}`)
	long := newRole(t, "long", `{"options":{"max_session_ttl":"8h","port_forwarding":false,"client_idle_timeout":"1h","disconnect_expired_cert":true},"allow":{"logins":["root"],"node_labels":{"*":"*"}}}`)
	rules := newRole(t, "rules", `{"options":{"max_session_ttl":"30m","client_idle_timeout":"1s"},"allow":{"rules":[{"resources":["user"],"verbs":["list"]}]}}`)
	prod, test := map[string]string{"env": "prod"}, map[string]string{"env": "test"}
	for _, tc := range []struct {
		name   string
		roles  []types.Role
		labels map[string]string
		want   access.Options
	}{
		{"nobody", nil, nil, access.Options{}},
		{"one", []types.Role{short}, prod, access.Options{MaxSessionTTL: time.Hour, ClientIdleTimeout: 10 * time.Minute, ForwardAgent: true, PortForwarding: true}},
		{"one that does not match", []types.Role{short}, test, access.Options{}},
		{"no labels are none", []types.Role{short}, map[string]string{}, access.Options{}},
		{"the strictest of two", []types.Role{short, long}, prod, access.Options{MaxSessionTTL: time.Hour, ClientIdleTimeout: 10 * time.Minute, DisconnectExpiredCert: true}},
		{"the one that matches", []types.Role{short, long, rules}, test, access.Options{MaxSessionTTL: 8 * time.Hour, ClientIdleTimeout: time.Hour, DisconnectExpiredCert: true}},
		{"a certificate", []types.Role{rules, short}, nil, access.Options{MaxSessionTTL: 30 * time.Minute, ClientIdleTimeout: 10 * time.Minute, ForwardAgent: true, PortForwarding: true}},
		{"the presets", access.Presets(), nil, access.Options{MaxSessionTTL: 30 * time.Hour, ForwardAgent: true, PortForwarding: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := access.NewChecker(tc.roles, map[string][]string{"logins": {"root"}}).Options("root", tc.labels); got != tc.want {
				t.Errorf("the options are %+v, and should be %+v", got, tc.want)
			}
			slices.Reverse(tc.roles)
			if got := access.NewChecker(tc.roles, map[string][]string{"logins": {"root"}}).Options("root", tc.labels); got != tc.want {
				t.Errorf("in the other order the options are %+v, and should be %+v", got, tc.want)
			}
		})
	}
}
