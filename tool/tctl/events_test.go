// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/stretchr/testify/assert"
)

// TestDescribeJoin: the line of a host that joined says which, and as what.
func TestDescribeJoin(t *testing.T) {
	event := &apievents.InstanceJoin{NodeName: "web1", Role: "Node"}
	assert.Contains(t, fieldsOf(event).describe(), "node_name=web1 role=Node")
}
