// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package pamenv

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExpand(t *testing.T) {
	alice := Person{
		Name:   "alice",
		Logins: []string{"bob", "deploy"},
		Traits: map[string][]string{
			"team": {"db"}, "groups": {"a", "b c"}, "none": {}, "db_users": {"reader"}, "empty": {""},
			"evil": {"x\nLD_PRELOAD=/evil.so"}, "nul": {"x\x00y"}, "large": {strings.Repeat("x", maxValue), "x"},
		},
	}
	for text, want := range map[string]string{
		"":                         "",
		"plain text { } {x}":       "plain text { } {x}",
		"{{user.metadata.name}}":   "alice",
		"{{ user.metadata.name }}": "alice",
		"<{{external.team}}>-{{user.metadata.name}}.": "<db>-alice.",
		"{{external.groups}}":                         "a b c",
		"{{internal.logins}}":                         "bob deploy",
		"{{internal.db_users}}":                       "reader",
		"{{external.empty}}":                          "",
		"{{external.logins}}":                         "-the certificate has no trait logins",
		"{{external.missing}}":                        "-the certificate has no trait missing",
		"{{external.none}}":                           "-the certificate has no trait none",
		"{{external.evil}}":                           "-its value has control characters",
		"{{external.nul}}":                            "-its value has control characters",
		"{{external.large}}":                          "-its value is longer than 4096 bytes",
	} {
		env, err := Parse(map[string]string{"X": text})
		require.NoError(t, err, text)
		pairs, left := env.Expand(alice)
		if reason, skipped := strings.CutPrefix(want, "-"); skipped {
			require.Empty(t, pairs, text)
			require.Equal(t, []Skipped{{"X", reason}}, left, text)
			continue
		}
		require.Empty(t, left, text)
		require.Equal(t, []string{"X=" + want}, pairs, text)
	}

	env, err := Parse(map[string]string{"B": "2", "A": "{{internal.logins}}", "C": "{{external.missing}}"})
	require.NoError(t, err)
	alice.Traits["logins"] = []string{"root"}
	pairs, left := env.Expand(alice)
	require.Equal(t, []string{"A=root", "B=2"}, pairs, "the trait comes before the principals")
	require.Len(t, left, 1)

	pairs, left = Environment{}.Expand(alice)
	require.Empty(t, pairs)
	require.Empty(t, left)
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"{{external.team":              `has a {{ without a }} after it at "{{external.team"`,
		"external.team}}":              `has a }} without a {{ before it at "external.team}}"`,
		"{{}}":                         `has {{}}, which is not known`,
		"{{external}}":                 `has {{external}}, which is not known`,
		"{{external.}}":                `has {{external.}}, which is not known`,
		"{{external.a b}}":             `has {{external.a b}}, which is not known`,
		"{{external[\"a\"]}}":          `which is not known`,
		"{{user.name}}":                `has {{user.name}}, which is not known: {{user.metadata.name}}, {{internal.logins}} and {{external.TRAIT}} are`,
		"{{email.local(external.x)}}":  `which is not known`,
		"{{{{external.x}}}}":           `which is not known`,
		"a\x00b":                       `may hold no control characters`,
		"a\nb":                         `may hold no control characters`,
		strings.Repeat("x", maxText+1): `is longer than the 1024 bytes that a value may have`,
	} {
		require.ErrorContains(t, CheckValue(text), want, text)
		_, err := Parse(map[string]string{"X": text})
		require.ErrorContains(t, err, "X: ", text)
	}
	for name, want := range map[string]string{
		"":                             "must have 1 to 128 characters",
		strings.Repeat("x", maxName+1): "must have 1 to 128 characters",
		"1X":                           "start with no digit",
		"A-B":                          "only letters, digits and _",
		"A=B":                          "only letters, digits and _",
		"É":                            "only letters, digits and _",
		"HOME":                         "HOME is set by the login itself",
		"USER":                         "USER is set by the login itself",
		"PATH":                         "set it with pam_env",
		"SSH_TELEPORT_USER":            "the login's own",
		"TELEPORT_ROLES":               "the login's own",
		"PAM_USER":                     "the login's own",
		"LD_PRELOAD":                   "which code programs load",
	} {
		require.ErrorContains(t, CheckName(name), want, name)
		_, err := Parse(map[string]string{name: "x"})
		require.ErrorContains(t, err, want, name)
	}
	for _, name := range []string{"A", "_", "a1", "TEAM_NAME", "SSHX"} {
		require.NoError(t, CheckName(name))
	}
	many := map[string]string{}
	for i := range MaxVariables + 1 {
		many[fmt.Sprintf("X%d", i)] = "x"
	}
	_, err := Parse(many)
	require.ErrorContains(t, err, "has 65 variables, and may have 64")
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "{{external.x}}", "{{", "}}", "a{{ internal.logins }}b"} {
		f.Add(text, "v")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		env, err := Parse(map[string]string{"X": text})
		if err != nil {
			return
		}
		pairs, left := env.Expand(Person{Name: value, Logins: []string{value}, Traits: map[string][]string{"x": {value}}})
		require.Equal(t, 1, len(pairs)+len(left))
		for _, pair := range pairs {
			require.NotContains(t, pair, "\x00")
			require.NotContains(t, pair, "\n")
		}
	})
}
