// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package books

/*
#include <lastlog.h>
#include <utmpx.h>
*/
import "C"

import (
	"time"
	"unsafe"
)

// kind says what an entry is about, as utmp(5) numbers it.
type kind int16

const (
	initProcess  kind = C.INIT_PROCESS
	loginProcess kind = C.LOGIN_PROCESS
	userProcess  kind = C.USER_PROCESS
	deadProcess  kind = C.DEAD_PROCESS

	entrySize   = C.sizeof_struct_utmpx
	lastlogSize = C.sizeof_struct_lastlog
)

// encode returns an entry as utmp, wtmp and btmp have it. The end of a login in
// wtmp has neither an id nor who it was, as logwtmp(3) writes it.
func encode(k kind, e Entry) []byte {
	var u C.struct_utmpx
	u.ut_type = C.short(k)
	u.ut_pid = C.pid_t(e.PID)
	line := lineOf(e.Line)
	put(u.ut_line[:], line)
	set(&u.ut_tv.tv_sec, e.Time.Unix())
	set(&u.ut_tv.tv_usec, int64(e.Time.Nanosecond()/1000))
	if k == userProcess {
		put(u.ut_id[:], idOf(line))
	}
	if k != deadProcess {
		addr := addrOf(e.Addr)
		put(u.ut_user[:], safe(e.User, len(u.ut_user)))
		put(u.ut_host[:], hostOf(addr))
		for i, word := range words(addr) {
			// The bytes of an address stand in network order.
			*(*[4]byte)(unsafe.Pointer(&u.ut_addr_v6[i])) = word
		}
	}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&u)), entrySize)...)
}

// end makes of a login in utmp its end, as logout(3) does: the address stays.
func end(login []byte, at time.Time) []byte {
	var u C.struct_utmpx
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&u)), entrySize)
	copy(raw, login)
	u.ut_type = C.short(deadProcess)
	clear(u.ut_user[:])
	clear(u.ut_host[:])
	set(&u.ut_tv.tv_sec, at.Unix())
	set(&u.ut_tv.tv_usec, int64(at.Nanosecond()/1000))
	return append([]byte(nil), raw...)
}

// slot is what is looked for in utmp.
type slot struct {
	kind     kind
	pid      int
	line, id string
}

// decode reads one entry of entrySize bytes.
func decode(b []byte) slot {
	var u C.struct_utmpx
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&u)), entrySize), b)
	return slot{kind: kind(u.ut_type), pid: int(u.ut_pid), line: get(u.ut_line[:]), id: get(u.ut_id[:])}
}

func encodeLastlog(e Entry) []byte {
	var l C.struct_lastlog
	set(&l.ll_time, e.Time.Unix())
	// One byte less, for the NUL that readers may look for.
	put(l.ll_line[:len(l.ll_line)-1], lineOf(e.Line))
	put(l.ll_host[:len(l.ll_host)-1], hostOf(addrOf(e.Addr)))
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&l)), lastlogSize)...)
}

func decodeLastlog(b []byte) LastLogin {
	var l C.struct_lastlog
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&l)), lastlogSize), b)
	if l.ll_time == 0 {
		return LastLogin{}
	}
	return LastLogin{
		Time: time.Unix(int64(l.ll_time), 0),
		Line: safe(get(l.ll_line[:]), len(l.ll_line)),
		Host: safe(get(l.ll_host[:]), len(l.ll_host)),
	}
}

// put writes a text, without a NUL where it fills the field.
func put(field []C.char, s string) {
	for i := range min(len(field), len(s)) {
		field[i] = C.char(s[i])
	}
}

func get(field []C.char) string {
	var b []byte
	for _, c := range field {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// set sets a time, whose type depends on the architecture.
func set[T ~int32 | ~int64](field *T, v int64) { *field = T(v) }
