// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/elastic/go-libaudit/v2"
	"github.com/elastic/go-libaudit/v2/auparse"

	"teleport-auditd/lib/testhost"
)

// startMulticast writes the log from the kernel's multicast group, which any
// number of readers may join beside the one auditd that the kernel has. The log
// is as auditd writes it with log_format RAW.
func (a *Audit) startMulticast() {
	t := a.t
	t.Helper()
	client, err := libaudit.NewMulticastAuditClient(nil)
	if err != nil {
		testhost.Skip(t, "another auditd owns the audit stream, and the multicast group cannot be joined: %v", err)
	}
	file, err := os.OpenFile(a.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var closing atomic.Bool
	ended := make(chan error, 1)
	go func() {
		for !closing.Load() {
			message, err := client.Receive(false)
			if err != nil {
				ended <- err
				return
			}
			// The end-of-event marker is not part of auditd's log.
			if message.Type == auparse.AUDIT_EOE {
				continue
			}
			if _, err := fmt.Fprintf(file, "type=%s msg=%s\n", message.Type, bytes.TrimRight(message.Data, "\x00")); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	t.Cleanup(func() {
		closing.Store(true)
		// A reader that sleeps in recvfrom wakes with the next record, and ends
		// with whichever that is.
		Output(t, "auditctl", "-m", "teleport-e2e-end")
		if err := <-ended; err != nil {
			t.Errorf("reading the kernel's audit multicast group: %v", err)
		}
		client.Close()
		file.Close()
	})
}
