// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package refusals_test

import (
	"net"
	"strings"
	"testing"
	"time"

	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/refusals"
)

func at(host byte) net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, host), Port: 4711} }

func TestTell(t *testing.T) {
	_, err := refusals.New(refusals.Config{})
	require.True(t, trace.IsBadParameter(err), "%v", err)

	var told []*apievents.AuthAttempt
	clock := clockwork.NewFakeClock()
	teller, err := refusals.New(refusals.Config{
		Emit:        func(e apievents.AuditEvent) { told = append(told, e.(*apievents.AuthAttempt)) },
		ClusterName: "example.com", By: "the proxy hub", Clock: clock,
	})
	require.NoError(t, err)
	teller.Tell(srv.Refused{Login: "root\xff" + strings.Repeat("x", 5000), TeleportUser: "alice", Reason: "user-is-locked", RemoteAddr: at(7), LocalAddr: at(1)})
	teller.Tell(srv.Refused{Login: "0b54bdf1", TeleportUser: "0b54bdf1.example.com", Host: true, Reason: "node-is-locked", RemoteAddr: at(7), LocalAddr: at(1)})
	teller.Close()
	require.Len(t, told, 2)
	require.Equal(t, apievents.UserMetadata{Login: "0b54bdf1"}, told[1].UserMetadata, "a host is nobody's name")
	e := told[0]
	require.NotEmpty(t, e.ID)
	require.Equal(t, clock.Now().UTC(), e.Time)
	require.Equal(t, []string{"auth", "T3007W", "example.com"}, []string{e.Type, e.Code, e.ClusterName})
	require.Equal(t, "alice", e.User)
	require.True(t, strings.HasPrefix(e.Login, "root\uFFFDxxx"), "what is no UTF-8 cannot be sent")
	require.LessOrEqual(t, len(e.Login), 300)
	require.Equal(t, []string{"192.0.2.7:4711", "192.0.2.1:4711"}, []string{e.RemoteAddr, e.LocalAddr})
	require.Equal(t, apievents.Status{Error: "user-is-locked", UserMessage: "refused by the proxy hub"}, e.Status)
}

// TestStrangersAreBounded: who knocks for a day fills nothing, and hides nobody whom
// the cluster knows.
func TestStrangersAreBounded(t *testing.T) {
	var told []*apievents.AuthAttempt
	clock := clockwork.NewFakeClock()
	teller, err := refusals.New(refusals.Config{
		Emit:  func(e apievents.AuditEvent) { told = append(told, e.(*apievents.AuthAttempt)) },
		Clock: clock,
	})
	require.NoError(t, err)
	knock := func() {
		teller.Tell(srv.Refused{Login: "root", Reason: "no-certificate-was-offered", RemoteAddr: at(7)})
	}
	for range 1000 {
		knock()
	}
	// The first beyond the bound is told at once, as there may be no other.
	require.Len(t, told, 201)
	require.Equal(t, "refused logins of strangers beside those with an event of their own: 1, the last from the address of this event", told[200].Error)
	require.Equal(t, "192.0.2.7:4711", told[200].RemoteAddr)
	require.Empty(t, told[200].User)

	told = nil
	teller.Tell(srv.Refused{Login: "root", TeleportUser: "mallory", Reason: "user-is-locked", RemoteAddr: at(8)})
	require.Len(t, told, 1, "strangers hide somebody who is known")
	require.Equal(t, "mallory", told[0].User)

	for range 1000 {
		teller.Tell(srv.Refused{Login: "root", TeleportUser: "mallory", Reason: "user-is-locked", RemoteAddr: at(8)})
	}
	require.Len(t, told, 201, "nor does a certificate fill it")
	teller.Tell(srv.Refused{Login: "root", TeleportUser: "alice", Reason: "login-is-not-among-the-principals", RemoteAddr: at(9)})
	require.Len(t, told, 202, "mallory hides alice")
	require.Equal(t, "alice", told[201].User)

	told = nil
	clock.Advance(10 * time.Second)
	for range 100 {
		knock()
	}
	require.Len(t, told, 5, "one in two seconds")
	teller.Close()
	require.Len(t, told, 7)
	require.Contains(t, told[5].Error, "of strangers beside those with an event of their own: 894,")
	require.Contains(t, told[6].Error, "with certificates of the cluster beside those with an event of their own: 800,")
}
