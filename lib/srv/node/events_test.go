// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/srv"
)

// TestRefusedEventsAreBounded: who reaches the port cannot fill the cluster's audit
// log, nor hide behind many others what somebody with a certificate has tried.
func TestRefusedEventsAreBounded(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClock()
	log := logrus.New()
	log.SetOutput(io.Discard)
	var mu sync.Mutex
	var told []*apievents.AuthAttempt
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(told)
	}
	server := &Server{log: log, cfg: Config{Clock: clock, Events: func(event apievents.AuditEvent) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, event.(*apievents.AuthAttempt))
	}}}
	server.refusals = newRefusals(clock, server.tellManyRefused)
	refuse := func(user string, i int) {
		server.tellRefused(srv.Refused{
			Login: "root", TeleportUser: user, Reason: "no-certificate-was-shown", LocalAddr: &net.TCPAddr{},
			RemoteAddr: &net.TCPAddr{IP: net.IPv4(10, 0, byte(i/250), byte(i%250)), Port: 1000},
		})
	}
	for i := range 10 * maxRefused {
		refuse("", i)
	}
	// The last says that there are more.
	if got := count(); got != maxRefused+1 {
		t.Errorf("%d events", got)
	}
	refuse("alice", 0)
	if last := told[count()-1]; last.User != "alice" || last.Error != "no-certificate-was-shown" {
		t.Errorf("alice is hidden by strangers: %v", last)
	}
	for range 10 * maxRefused {
		refuse("alice", 1)
	}
	if got := count(); got != 2*maxRefused+2 {
		t.Errorf("%d events", got)
	}
	clock.Advance(time.Minute)
	for deadline := time.Now().Add(20 * time.Second); count() == 2*maxRefused+2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	want := fmt.Sprintf("refused beside those with an event of their own: %d, the last from the address of this event", 18*maxRefused-1)
	if last := told[count()-1]; last.Error != want || last.RemoteAddr != "10.0.0.1:1000" {
		t.Errorf("%v", last)
	}
	refuse("", 0)
	if got := count(); got != 2*maxRefused+4 {
		t.Errorf("a minute later there are %d events", got)
	}
}
