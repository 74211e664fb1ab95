// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"
	"text/template"
	"time"

	libaudit "github.com/elastic/go-libaudit/v2"

	"teleport-auditd/lib/auditd"
)

// program is the exe of the records.
const program = "/usr/local/bin/teleport-session"

// aLogin is the record of a login as it mostly is.
func aLogin() auditd.Event {
	uid := uint32(1001)
	return auditd.Event{
		Type: auditd.AuditUserLogin, Result: auditd.Success, SystemUser: "bob", UID: &uid,
		TeleportUser: "alice@example.com", ConnAddress: "192.0.2.7:50122", TTYName: "/dev/pts/0",
	}
}

// yes is a kernel that costs next to nothing: it says yes to every record, and
// does not tell its status, as to a process without CAP_AUDIT_CONTROL.
type yes struct {
	seq  uint32
	ack  [syscall.NLMSG_HDRLEN + 4]byte
	last []byte
}

func (y *yes) Send(m syscall.NetlinkMessage) (uint32, error) {
	y.seq++
	y.last = m.Data
	errno := syscall.Errno(0)
	if m.Header.Type != uint16(auditd.AuditUserLogin) {
		errno = syscall.EPERM
	}
	binary.NativeEndian.PutUint32(y.ack[syscall.NLMSG_HDRLEN:], uint32(-int32(errno)))
	return y.seq, nil
}

func (y *yes) SendNoWait(m syscall.NetlinkMessage) (uint32, error) { return y.Send(m) }

func (y *yes) Receive(_ bool, parse libaudit.NetlinkParser) ([]syscall.NetlinkMessage, error) {
	binary.NativeEndian.PutUint32(y.ack[0:], uint32(len(y.ack)))
	binary.NativeEndian.PutUint16(y.ack[4:], syscall.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(y.ack[8:], y.seq)
	return parse(y.ack[:])
}

func (y *yes) Close() error { return nil }

// encoder is an Emitter before a kernel that takes everything.
type encoder struct {
	auditd.Emitter
	kernel *yes
}

func newEncoder(s subject) encoder {
	s.Helper()
	kernel := &yes{}
	dial := func() (auditd.Socket, error) { return kernel, nil }
	emitter, err := auditd.New(auditd.Config{Executable: program, Dial: dial})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = emitter.Close() })
	return encoder{emitter, kernel}
}

// encodeOne measures one event on its way from Event to message, with the
// bookkeeping of Emit and without the kernel, beside text/template making the
// same text, which guards against nothing.
func encodeOne(s subject) {
	const block = 1000
	ours, event, ctx := newEncoder(s), aLogin(), s.Context()
	rival := template.Must(template.New("record").Parse(
		`op=login acct="{{.SystemUser}}" id={{.UID}} exe="` + program + `" hostname={{.ConnAddress}} addr={{.ConnAddress}}` +
			` terminal={{.TTYName}} teleportUser={{.TeleportUser}} res={{.Result}}`))
	var buf bytes.Buffer
	var mine, theirs []float64
	for s.Loop() {
		began := time.Now()
		for range block {
			if err := ours.Emit(ctx, event); err != nil {
				s.Fatal(err)
			}
		}
		mine = append(mine, float64(time.Since(began))/block)
		began = time.Now()
		for range block {
			buf.Reset()
			if err := rival.Execute(&buf, &event); err != nil {
				s.Fatal(err)
			}
		}
		theirs = append(theirs, float64(time.Since(began))/block)
	}
	s.ReportMetric(testing.AllocsPerRun(block, func() { _ = ours.Emit(ctx, event) }), "allocs/op")
	s.ReportMetric(median(mine), "ns/op")
	s.ReportMetric(median(theirs), "template-ns/op")
	s.ReportMetric(median(mine)/median(theirs), "x-template")
	s.table.compare("encode one event (rival: text/template)", "µs", median(mine)/1e3, median(theirs)/1e3, limit{})
}
