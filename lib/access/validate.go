// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Which roles are taken. Teleport's role objects have much that is not built
// here, and a role that uses it is refused: nobody shall believe that it works.

package access

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

// maxRole bounds a role in JSON.
const maxRole = 256 * 1024

// Parse reads a role from JSON and validates it. Keys that are not a role's are
// refused, as is everything that Validate refuses; the error is
// trace.BadParameter.
func Parse(data []byte) (types.Role, error) {
	if len(data) > maxRole {
		return nil, trace.BadParameter("the role is %d bytes long, and may have %d", len(data), maxRole)
	}
	var header struct{ Kind, Version string }
	if err := json.Unmarshal(data, &header); err != nil {
		return nil, trace.BadParameter("the role cannot be read: %v", err)
	}
	if header.Kind != types.KindRole {
		return nil, trace.BadParameter("the resource is of kind %q, and not %q", header.Kind, types.KindRole)
	}
	if err := checkVersion(header.Version); err != nil {
		return nil, trace.Wrap(err)
	}
	role := &types.RoleV6{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(role); err != nil {
		return nil, trace.BadParameter("the role cannot be read: %v", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, trace.BadParameter("there is something after the role")
	}
	if err := Validate(role); err != nil {
		return nil, trace.Wrap(err)
	}
	return role, nil
}

// Validate tells whether a role means something here, all of it, and fills in
// the defaults of its version. The error is trace.BadParameter and names the key
// that is at fault, such as spec.options.pin_source_ip.
func Validate(role types.Role) error {
	r, ok := role.(*types.RoleV6)
	if !ok || r == nil {
		return trace.BadParameter("the role is a %T, and not one of Teleport's role objects", role)
	}
	if err := CheckRoleName(r.GetName()); err != nil {
		return trace.BadParameter("metadata.name: %v", err)
	}
	refuse := func(err error) error { return trace.BadParameter("role %q: %v", r.GetName(), err) }
	if err := checkVersion(r.GetVersion()); err != nil {
		return refuse(err)
	}
	if r.SubKind != "" {
		return refuse(trace.BadParameter("sub_kind %q is not known", r.SubKind))
	}
	if err := r.CheckAndSetDefaults(); err != nil {
		return refuse(err)
	}
	// What the version fills in by itself is nobody's wish.
	plain := &types.RoleV6{Version: r.Version, Metadata: types.Metadata{Name: r.GetName()}}
	if err := plain.CheckAndSetDefaults(); err != nil {
		return refuse(err)
	}
	if len(r.XXX_unrecognized)+len(r.Spec.XXX_unrecognized) > 0 {
		return refuse(trace.BadParameter("it has keys that are not known here: leave them out"))
	}
	err := unsupported("spec.options", &r.Spec.Options, &plain.Spec.Options, map[string]bool{
		"forward_agent":           true,
		"max_session_ttl":         true,
		"port_forwarding":         true,
		"client_idle_timeout":     true,
		"disconnect_expired_cert": true,
	}, harmless(&r.Spec.Options))
	if err != nil {
		return refuse(err)
	}
	if r.Spec.Options.ClientIdleTimeout < 0 {
		return refuse(trace.BadParameter("spec.options.client_idle_timeout is negative: give a time, or 0 for none"))
	}
	known := map[string]bool{"logins": true, "node_labels": true, "rules": true}
	for _, c := range []struct {
		key               string
		conditions, plain *types.RoleConditions
		deny              bool
	}{
		{"spec.allow", &r.Spec.Allow, &plain.Spec.Allow, false},
		{"spec.deny", &r.Spec.Deny, &plain.Spec.Deny, true},
	} {
		if err := unsupported(c.key, c.conditions, c.plain, known, nil); err != nil {
			return refuse(err)
		}
		if err := checkLogins(c.key+".logins", c.conditions.Logins, c.deny); err != nil {
			return refuse(err)
		}
		if err := checkLabels(c.key+".node_labels", c.conditions.NodeLabels); err != nil {
			return refuse(err)
		}
		if err := checkRules(c.key+".rules", c.conditions.Rules); err != nil {
			return refuse(err)
		}
	}
	return nil
}

func checkVersion(version string) error {
	switch version {
	case types.V3, types.V4, types.V5, types.V6, types.V7:
		return nil
	case "":
		return trace.BadParameter("version is empty: write %s", types.V7)
	}
	return trace.BadParameter("version %q of roles is not known: write %s", version, types.V7)
}

// harmless returns the keys of options whose values say nothing: they ask for
// what holds anyway.
func harmless(o *types.RoleOptions) map[string]bool {
	return map[string]bool{
		"request_access":        o.RequestAccess == types.RequestStrategyOptional,
		"lock":                  o.Lock == constants.LockingModeBestEffort,
		"device_trust_mode":     o.DeviceTrustMode == "off",
		"create_host_user_mode": o.CreateHostUserMode == types.CreateHostUserMode_HOST_USER_MODE_OFF,
		"create_db_user_mode":   o.CreateDatabaseUserMode == types.CreateDatabaseUserMode_DB_USER_MODE_OFF,
	}
}

// unsupported tells which field of got is neither known nor empty nor what plain
// has.
func unsupported[T any](where string, got, plain *T, known, harmless map[string]bool) error {
	value, defaults := reflect.ValueOf(got).Elem(), reflect.ValueOf(plain).Elem()
	for i := range value.NumField() {
		field := value.Type().Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Name == "XXX_unrecognized":
			if value.Field(i).Len() > 0 {
				return trace.BadParameter("%s has keys that are not known here: leave them out", where)
			}
			continue
		case strings.HasPrefix(field.Name, "XXX_"):
			continue
		case field.Name == "Namespaces":
			// It is in no YAML, and has one value since Teleport 2.4.
			if namespaces := value.Field(i).Interface(); !reflect.DeepEqual(namespaces, defaults.Field(i).Interface()) && !value.Field(i).IsZero() {
				return trace.BadParameter("%s.namespaces %v is not supported: there is one namespace", where, namespaces)
			}
			continue
		}
		if known[key] || harmless[key] || isEmpty(value.Field(i)) || isOff(value.Field(i)) && defaults.Field(i).IsZero() || reflect.DeepEqual(value.Field(i).Interface(), defaults.Field(i).Interface()) {
			continue
		}
		if key == "ssh_port_forwarding" {
			return trace.BadParameter("%s.%s is not supported: write port_forwarding", where, key)
		}
		return trace.BadParameter("%s.%s is not supported here, and would have no effect: leave it out", where, key)
	}
	return nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// isOff tells whether an option says no.
func isOff(v reflect.Value) bool {
	option, ok := v.Interface().(*types.BoolOption)
	return ok && option != nil && !option.Value
}

func checkLogins(where string, logins []string, deny bool) error {
	if len(logins) > maxEntries {
		return trace.BadParameter("%s has %d entries, and may have %d", where, len(logins), maxEntries)
	}
	for _, login := range logins {
		if login == types.Wildcard && deny {
			continue
		}
		t, err := parseTemplate(login)
		if err != nil {
			return trace.BadParameter("%s: %v", where, err)
		}
		// With a letter for the variable, what is around it is checked.
		if t.trait != "" {
			login = t.prefix + "x" + t.suffix
		}
		if err := CheckLogin(login); err != nil {
			return trace.BadParameter("%s: %v", where, err)
		}
	}
	return nil
}

func checkLabels(where string, labels types.Labels) error {
	if len(labels) > maxEntries {
		return trace.BadParameter("%s has %d keys, and may have %d", where, len(labels), maxEntries)
	}
	// In order, so that the same role gives the same line.
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		values := labels[key]
		if err := checkText("key", key, maxValue); err != nil {
			return trace.BadParameter("%s: %v", where, err)
		}
		switch {
		case len(values) > maxEntries:
			return trace.BadParameter("%s: the key %q has %d values, and may have %d", where, key, len(values), maxEntries)
		case len(values) == 0:
			return trace.BadParameter("%s: the key %q has no value: write '*' for any", where, key)
		case key == types.Wildcard && !slices.Equal(values, []string{types.Wildcard}):
			return trace.BadParameter("%s: the key '*' takes the value '*' only", where)
		case key != types.Wildcard && strings.Contains(key, types.Wildcard):
			return trace.BadParameter("%s: the key %q has a wildcard, and only the values may", where, key)
		case strings.Contains(key, "{{") || strings.Contains(key, "}}"):
			return trace.BadParameter("%s: the key %q has a variable, and only the values may", where, key)
		}
		for _, value := range values {
			if err := checkPattern(value); err != nil {
				return trace.BadParameter("%s: %s: %v", where, key, err)
			}
		}
	}
	return nil
}

func checkPattern(value string) error {
	// A host's label may have an empty value.
	if value == "" {
		return nil
	}
	if err := checkText("value", value, maxValue); err != nil {
		return trace.Wrap(err)
	}
	if !isExpression(value) {
		_, err := parseTemplate(value)
		return trace.Wrap(err)
	}
	if _, err := parseTemplate(value); err != nil || strings.Contains(value, "{{") {
		return trace.BadParameter("the regular expression %q has a variable, and must have none", value)
	}
	if _, err := regexp.Compile(value); err != nil {
		return trace.BadParameter("%v", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// ruleResources are the kinds that a rule may name.
func ruleResources() []string {
	return []string{
		types.KindAuthServer, types.KindCertAuthority, types.KindClusterAuditConfig, types.KindClusterAuthPreference,
		types.KindClusterName, types.KindClusterNetworkingConfig, types.KindEvent, types.KindLock, types.KindNode,
		types.KindProxy, types.KindRole, types.KindSession, types.KindSessionRecordingConfig, types.KindToken,
		types.KindUser, types.KindUserToken, types.Wildcard,
	}
}

// ruleVerbs are what a rule may allow or deny.
func ruleVerbs() []string {
	return []string{
		types.VerbCreate, types.VerbDelete, types.VerbList, types.VerbRead, types.VerbReadNoSecrets, types.VerbUpdate, types.Wildcard,
	}
}

func checkRules(where string, rules []types.Rule) error {
	if len(rules) > maxEntries {
		return trace.BadParameter("%s has %d entries, and may have %d", where, len(rules), maxEntries)
	}
	resources, verbs := ruleResources(), ruleVerbs()
	for _, rule := range rules {
		switch {
		case rule.Where != "":
			return trace.BadParameter("%s: where is not supported here: leave it out", where)
		case len(rule.Actions) > 0:
			return trace.BadParameter("%s: actions are not supported here: leave them out", where)
		case len(rule.XXX_unrecognized) > 0:
			return trace.BadParameter("%s has keys that are not known here: leave them out", where)
		}
		for _, resource := range rule.Resources {
			if !slices.Contains(resources, resource) {
				return trace.BadParameter("%s: the resource %q is not known: use %s", where, resource, strings.Join(resources, ", "))
			}
		}
		for _, verb := range rule.Verbs {
			if !slices.Contains(verbs, verb) {
				return trace.BadParameter("%s: the verb %q is not known: use %s", where, verb, strings.Join(verbs, ", "))
			}
		}
	}
	return nil
}
