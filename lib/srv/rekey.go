// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// A new key for each connection from time to time.
//
// x/crypto/ssh exchanges keys after so many bytes, but has no call for doing it
// after an hour, which RFC 4253, section 9, asks for as well. Inside, every reason
// for a new key is a token on one channel, handshakeTransport.requestKex, and here
// is one more. The channel is found by its name and type: where a later version of
// x/crypto/ssh has none, the log says so once, TestRekey fails, and connections go
// on with new keys by bytes alone.

package srv

import (
	"reflect"
	"sync"
	"unsafe"

	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"
)

// rekey exchanges the connection's key at each interval. It returns what stops it.
func (s *Server) rekey(conn *Conn) (stop func()) {
	request := kexRequests(conn.ServerConn)
	if request == nil {
		s.noRekey.Do(func() {
			s.log.Warn("This version of golang.org/x/crypto/ssh exchanges a connection's key after each GiB, and cannot be made to do so each hour.")
		})
		return func() {}
	}
	var mu sync.Mutex
	var timer clockwork.Timer
	stopped := false
	again := func() {
		select {
		case request <- struct{}{}:
		default: // one is due already
		}
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			timer.Reset(s.cfg.RekeyInterval)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = s.cfg.Clock.AfterFunc(s.cfg.RekeyInterval, again)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// kexRequests returns the channel that makes a connection exchange its key, nil
// where there is none as it is known here. It never blocks to send on it without a
// default: it has room for one.
func kexRequests(conn *ssh.ServerConn) chan<- struct{} {
	inner := pointee(reflect.ValueOf(conn.Conn))
	if inner.Kind() != reflect.Struct {
		return nil
	}
	transport := pointee(inner.FieldByName("transport"))
	if transport.Kind() != reflect.Struct {
		return nil
	}
	field := transport.FieldByName("requestKex")
	if !field.IsValid() || !field.CanAddr() || field.Type() != reflect.TypeFor[chan struct{}]() || field.IsNil() || field.Cap() != 1 {
		return nil
	}
	return *(*chan struct{})(unsafe.Pointer(field.UnsafeAddr()))
}

// pointee follows interfaces and pointers.
func pointee(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v
}
