// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/stretchr/testify/assert"
)

// TestDescribe: the line of an event says what an operator looks for.
func TestDescribe(t *testing.T) {
	until := time.Date(2026, 11, 23, 7, 8, 17, 123, time.UTC)
	for _, tt := range []struct {
		event apievents.AuditEvent
		want  []string
	}{
		{
			&apievents.InstanceJoin{NodeName: "web1", Role: "Node"},
			[]string{"", "", "", "node_name=web1 role=Node success=false"},
		},
		{
			&apievents.LockCreate{
				Metadata:         apievents.Metadata{Type: "lock.created", Code: "TLK00I"},
				UserMetadata:     apievents.UserMetadata{User: "root@auth1"},
				ResourceMetadata: apievents.ResourceMetadata{Name: "some-uuid"},
				Lock:             apievents.LockMetadata{Target: types.LockTarget{User: "mallory"}},
			},
			[]string{"lock.created", "TLK00I", "root@auth1", "name=some-uuid target=user:mallory"},
		},
		{
			&apievents.UserUpdate{
				Metadata:         apievents.Metadata{Type: "user.update", Code: "T1003I"},
				UserMetadata:     apievents.UserMetadata{User: "root@auth1"},
				ResourceMetadata: apievents.ResourceMetadata{Name: "alice"},
				Roles:            []string{"access", "editor"},
			},
			[]string{"user.update", "T1003I", "root@auth1", "name=alice roles=access,editor"},
		},
		{
			&apievents.CertificateCreate{
				Metadata: apievents.Metadata{Type: "cert.create", Code: "TC000I"},
				Identity: &apievents.Identity{User: "alice", Logins: []string{"bob", "root"}, Expires: until},
			},
			[]string{"cert.create", "TC000I", "alice", "logins=bob,root until=2026-11-23T07:08:17Z"},
		},
		{
			&apievents.AuthAttempt{
				Metadata:     apievents.Metadata{Type: "auth", Code: "T3007W"},
				UserMetadata: apievents.UserMetadata{User: "alice", Login: "games"},
				Status:       apievents.Status{Error: "login-is-locked", UserMessage: "refused by the node web"},
			},
			[]string{"auth", "T3007W", "alice", "login=games success=false error=login-is-locked (refused by the node web)"},
		},
		{
			&apievents.Unknown{
				Metadata:    apievents.Metadata{Type: apievents.UnknownEvent, Code: apievents.UnknownCode, ClusterName: "example.com"},
				UnknownType: "cert_authority.rotate",
				UnknownCode: "TCAR00I",
				Data:        `{"user":"alice","name":"host","phase":"init","cluster_name":"forged"}`,
			},
			[]string{"cert_authority.rotate", "TCAR00I", "alice", "name=host phase=init"},
		},
		{
			&apievents.Unknown{Metadata: apievents.Metadata{Type: apievents.UnknownEvent, Code: apievents.UnknownCode}, Data: "nonsense"},
			[]string{"unknown", "TCC00E", "", ""},
		},
	} {
		fields := fieldsOf(tt.event)
		assert.Equal(t, tt.want, []string{fields.text("event"), fields.text("code"), fields.user(), fields.describe()})
		assert.NotEqual(t, "forged", fields.text("cluster_name"))
	}
}
