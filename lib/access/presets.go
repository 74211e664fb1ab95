// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package access

import (
	"time"

	"github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
)

// The names of the preset roles, which are Teleport's.
const (
	PresetAccess  = "access"
	PresetEditor  = "editor"
	PresetAuditor = "auditor"
)

// maxSessionTTL is how long a certificate of the presets may be valid.
const maxSessionTTL = 30 * time.Hour

// Presets returns the roles that a new cluster has: access for people who log in
// to hosts, editor for those who run the cluster, and auditor for those who read
// its audit log. None of them takes anything from another. They are the
// caller's to change.
func Presets() []types.Role {
	all := []string{types.VerbList, types.VerbCreate, types.VerbRead, types.VerbUpdate, types.VerbDelete}
	settings := []string{types.VerbRead, types.VerbUpdate}
	read := []string{types.VerbList, types.VerbRead}
	return []types.Role{
		preset(PresetAccess, "Log in to all hosts, with the logins of the user", types.RoleConditions{
			Logins:     []string{"{{internal.logins}}"},
			NodeLabels: types.Labels{types.Wildcard: {types.Wildcard}},
		}),
		preset(PresetEditor, "Change users, roles and settings of the cluster", types.RoleConditions{
			Rules: []types.Rule{
				types.NewRule(types.KindUser, all),
				types.NewRule(types.KindRole, all),
				types.NewRule(types.KindToken, all),
				types.NewRule(types.KindUserToken, all),
				types.NewRule(types.KindLock, all),
				types.NewRule(types.KindNode, all),
				types.NewRule(types.KindAuthServer, read),
				types.NewRule(types.KindProxy, read),
				// Nobody reads an authority's private keys through a role.
				types.NewRule(types.KindCertAuthority, []string{types.VerbList, types.VerbReadNoSecrets, types.VerbCreate, types.VerbUpdate, types.VerbDelete}),
				types.NewRule(types.KindClusterName, read),
				types.NewRule(types.KindClusterAuthPreference, settings),
				types.NewRule(types.KindClusterNetworkingConfig, settings),
				types.NewRule(types.KindSessionRecordingConfig, settings),
				types.NewRule(types.KindClusterAuditConfig, []string{types.VerbRead}),
				types.NewRule(types.KindEvent, read),
			},
		}),
		preset(PresetAuditor, "Read the audit log of the cluster", types.RoleConditions{
			Rules: []types.Rule{
				types.NewRule(types.KindEvent, read),
				types.NewRule(types.KindSession, read),
				types.NewRule(types.KindNode, read),
				types.NewRule(types.KindClusterAuditConfig, []string{types.VerbRead}),
			},
		}),
	}
}

func preset(name, description string, allow types.RoleConditions) types.Role {
	allow.Namespaces = []string{defaults.Namespace}
	role := &types.RoleV6{
		Kind:    types.KindRole,
		Version: types.V7,
		Metadata: types.Metadata{
			Name:        name,
			Namespace:   defaults.Namespace,
			Description: description,
			Labels:      map[string]string{types.TeleportInternalResourceType: types.PresetResource},
		},
		Spec: types.RoleSpecV6{
			Options: types.RoleOptions{
				MaxSessionTTL: types.NewDuration(maxSessionTTL),
				ForwardAgent:  types.NewBool(true),
				//lint:ignore SA1019 its successor, ssh_port_forwarding, is refused by Validate
				PortForwarding: types.NewBoolOption(true), //nolint:staticcheck // as above
			},
			Allow: allow,
			Deny:  types.RoleConditions{Namespaces: []string{defaults.Namespace}},
		},
	}
	return role
}
