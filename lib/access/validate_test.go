// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
)

func TestPresets(t *testing.T) {
	for _, role := range access.Presets() {
		if err := access.Validate(role); err != nil {
			t.Errorf("%s: %v", role.GetName(), err)
		}
		// As the backend keeps it, and as tctl reads it from a file.
		data, err := json.Marshal(role)
		if err != nil {
			t.Fatal(err)
		}
		again, err := access.Parse(data)
		if err != nil {
			t.Errorf("%s: %v", role.GetName(), err)
		} else if again.GetName() != role.GetName() {
			t.Errorf("the role %q comes back as %q", role.GetName(), again.GetName())
		}
	}
	checker := access.NewChecker(access.Presets()[:1], map[string][]string{"logins": {"bob"}})
	if err := checker.CheckNode("bob", nil); err != nil {
		t.Error(err)
	}
	for _, resource := range []string{types.KindUser, types.KindToken, types.KindCertAuthority} {
		if err := checker.CheckRule(resource, types.VerbList); err == nil {
			t.Errorf("the role access reads %s", resource)
		}
	}
	editor := access.NewChecker(access.Presets()[1:2], map[string][]string{"logins": {"bob"}})
	if got := editor.Logins(); len(got) > 0 {
		t.Errorf("the role editor has the logins %q", got)
	}
	if err := editor.CheckRule(types.KindCertAuthority, types.VerbRead); err == nil {
		t.Error("the role editor reads private keys")
	}
}

func TestValidateAccepts(t *testing.T) {
	for _, test := range []struct{ version, spec string }{
		{"v7", `{}`},
		{"v3", `{"allow":{"logins":["root"]}}`},
		{"v4", `{"allow":{"logins":["root"],"node_labels":{"a":"b"}}}`},
		{"v5", `{"allow":{"logins":["root"]}}`},
		{"v6", `{"allow":{"logins":["root"]}}`},
		// What `tctl get role` of a Teleport cluster writes, defaults and all.
		{"v7", `{"options":{"cert_format":"standard","create_db_user":false,"create_desktop_user":false,"desktop_clipboard":true,
			"desktop_directory_sharing":true,"enhanced_recording":["command","network"],"forward_agent":true,"idp":{"saml":{"enabled":true}},
			"max_session_ttl":"30h0m0s","pin_source_ip":false,"port_forwarding":true,"record_session":{"default":"best_effort","desktop":true},
			"ssh_file_copy":true},"allow":{"logins":["{{internal.logins}}"],"node_labels":{"*":"*"}},"deny":{}}`},
		{"v7", `{"options":{"create_host_user_mode":"off","request_access":"optional","lock":"best_effort","create_host_user":false,"require_session_mfa":false}}`},
		{"v7", `{"allow":{"logins":["{{external[\"a b\"]}}","x{{external.a-b}}y"],"node_labels":{"a":["","*","x-*","^a|b$","{{external.x}}-*"]}},"deny":{"logins":["*"],"node_labels":{"*":"*"}}}`},
	} {
		if _, err := access.Parse(roleJSON("some", test.version, test.spec)); err != nil {
			t.Errorf("%s: %s: %v", test.version, test.spec, err)
		}
	}
	old, err := access.Parse(roleJSON("old", "v3", `{"allow":{"logins":["root"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := access.NewChecker([]types.Role{old}, nil).CheckNode("root", nil); err != nil {
		t.Errorf("version v3 has all labels by default: %v", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, test := range []struct{ spec, names string }{
		{`{"allow":{"app_labels":{"*":"*"}}}`, "spec.allow.app_labels"},
		{`{"deny":{"app_labels":{"*":"*"}}}`, "spec.deny.app_labels"},
		{`{"allow":{"db_labels":{"*":"*"}}}`, "spec.allow.db_labels"},
		{`{"allow":{"db_users":["x"]}}`, "spec.allow.db_users"},
		{`{"allow":{"kubernetes_groups":["x"]}}`, "spec.allow.kubernetes_groups"},
		{`{"allow":{"kubernetes_labels":{"*":"*"}}}`, "spec.allow.kubernetes"},
		{`{"allow":{"host_groups":["wheel"]}}`, "spec.allow.host_groups"},
		{`{"allow":{"host_sudoers":["x"]}}`, "spec.allow.host_sudoers"},
		{`{"allow":{"impersonate":{"users":["a"],"roles":["b"]}}}`, "spec.allow.impersonate"},
		{`{"allow":{"request":{"roles":["a"]}}}`, "spec.allow.request"},
		{`{"allow":{"join_sessions":[{"name":"x"}]}}`, "spec.allow.join_sessions"},
		{`{"allow":{"node_labels_expression":"labels.env == \"x\""}}`, "spec.allow.node_labels_expression"},
		{`{"deny":{"node_labels_expression":"true"}}`, "spec.deny.node_labels_expression"},
		{`{"allow":{"cluster_labels":{"*":"*"}}}`, "spec.allow.cluster_labels"},
		{`{"options":{"require_session_mfa":true}}`, "spec.options.require_session_mfa"},
		{`{"options":{"pin_source_ip":true}}`, "spec.options.pin_source_ip"},
		{`{"options":{"max_sessions":3}}`, "spec.options.max_sessions"},
		{`{"options":{"max_connections":3}}`, "spec.options.max_connections"},
		{`{"options":{"permit_x11_forwarding":true}}`, "spec.options.permit_x11_forwarding"},
		{`{"options":{"ssh_file_copy":false}}`, "spec.options.ssh_file_copy"},
		{`{"options":{"lock":"strict"}}`, "spec.options.lock"},
		{`{"options":{"cert_format":"oldssh"}}`, "spec.options.cert_format"},
		{`{"options":{"cert_extensions":[{"name":"a","value":"b","type":"ssh","mode":"extension"}]}}`, "spec.options.cert_extensions"},
		{`{"options":{"record_session":{"default":"strict"}}}`, "spec.options.record_session"},
		{`{"options":{"create_host_user_mode":"keep"}}`, "spec.options.create_host_user_mode"},
		{`{"options":{"create_host_user":true}}`, "spec.options.create_host_user"},
		{`{"options":{"device_trust_mode":"required"}}`, "spec.options.device_trust_mode"},
		{`{"options":{"enhanced_recording":["disk"]}}`, "spec.options.enhanced_recording"},
		{`{"options":{"ssh_port_forwarding":{"remote":{"enabled":false}}}}`, "write port_forwarding"},
		{`{"options":{"client_idle_timeout":"-1m"}}`, "spec.options.client_idle_timeout"},
		{`{"options":{"forward_agents":true}}`, "forward_agents"},
		{`{"allow":{"login":["root"]}}`, "login"},
		{`{"allow":{"logins":["*"]}}`, "logins"},
		{`{"allow":{"logins":["ro ot"]}}`, "spec.allow.logins"},
		{`{"allow":{"logins":["-x"]}}`, "spec.allow.logins"},
		{`{"allow":{"logins":["adm*"]}}`, "spec.allow.logins"},
		{`{"deny":{"logins":["adm*"]}}`, "spec.deny.logins"},
		{`{"allow":{"logins":["a\u0007"]}}`, "spec.allow.logins"},
		{`{"allow":{"logins":["{{internal.login}}"]}}`, "spec.allow.logins"},
		{`{"allow":{"logins":["{{internal.logins"]}}`, "spec.allow.logins"},
		{`{"allow":{"logins":["internal.logins}}"]}}`, "spec.allow.logins"},
		{`{"allow":{"logins":["{{email.local(external.email)}}"]}}`, "without functions"},
		{`{"allow":{"logins":["{{external.a}}{{external.b}}"]}}`, "more than one variable"},
		{`{"allow":{"logins":["x, {{external.a}}"]}}`, "spec.allow.logins"},
		{`{"allow":{"node_labels":{"*":"x"}}}`, "selector"},
		{`{"deny":{"node_labels":{"*":"x"}}}`, "spec.deny.node_labels"},
		{`{"allow":{"node_labels":{"env":[]}}}`, "spec.allow.node_labels"},
		{`{"allow":{"node_labels":{"env*":"x"}}}`, "spec.allow.node_labels"},
		{`{"allow":{"node_labels":{"{{external.x}}":"x"}}}`, "spec.allow.node_labels"},
		{`{"allow":{"node_labels":{"env":"^(x$"}}}`, "spec.allow.node_labels"},
		{`{"allow":{"node_labels":{"env":"^{{external.x}}$"}}}`, "spec.allow.node_labels"},
		{`{"allow":{"rules":[{"resources":["users"],"verbs":["list"]}]}}`, "spec.allow.rules"},
		{`{"allow":{"rules":[{"resources":["user"],"verbs":["write"]}]}}`, "spec.allow.rules"},
		{`{"allow":{"rules":[{"resources":["user"],"verbs":["list"],"where":"true"}]}}`, "where"},
		{`{"deny":{"rules":[{"resources":["user"],"verbs":["list"],"actions":["log"]}]}}`, "actions"},
		{`{"allow":{"rules":[{"resources":[],"verbs":["list"]}]}}`, "resources"},
	} {
		_, err := access.Parse(roleJSON("some", "v7", test.spec))
		if !trace.IsBadParameter(err) || !strings.Contains(err.Error(), test.names) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the line should name %q: %v", test.spec, test.names, err)
		}
	}
	for _, data := range []string{
		string(roleJSON("some", "v8", `{}`)), string(roleJSON("some", "", `{}`)), string(roleJSON("", "v7", `{}`)),
		string(roleJSON("a/b", "v7", `{}`)), string(roleJSON("../x", "v7", `{}`)), string(roleJSON(strings.Repeat("x", 256), "v7", `{}`)),
		string(roleJSON("some", "v7", `{}`)) + "{}", `{"kind":"user"}`, `[]`, ``,
	} {
		if _, err := access.Parse([]byte(data)); !trace.IsBadParameter(err) {
			t.Errorf("%.80s: %v", data, err)
		}
	}
}
