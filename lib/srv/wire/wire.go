// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package wire writes and reads the fields of messages between processes of
// this project: one function for both directions, so that they cannot differ.
//
//	func (m *Exited) code(c *wire.Coder) {
//		c.Uint32(&m.ID)
//		c.String(&m.Signal)
//	}
//
// Numbers are varints; strings and lists are prefixed with their length. What
// is read may come from anybody: nothing is allocated that is larger than what
// was received.
//
// It is linked into a program that is started for every login, so it imports
// little, and its errors are plain.
package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

var (
	// ErrTooLong comes from Bytes for what is larger than Max.
	ErrTooLong = errors.New("the message is too long")
	// ErrMalformed comes from Read for bytes that are no such message.
	ErrMalformed = errors.New("malformed message")
)

// Coder writes the fields of one message to a buffer, or reads them from it.
type Coder struct {
	writing bool
	max     int
	buf     []byte
	err     error
}

// Write returns prefix and what code writes. The error says that it is longer
// than limit bytes.
func Write(limit int, prefix []byte, code func(*Coder)) ([]byte, error) {
	c := Coder{writing: true, max: limit, buf: prefix}
	code(&c)
	if c.err == nil && len(c.buf) > limit {
		c.err = ErrTooLong
	}
	return c.buf, c.err
}

// Read lets code read b, to its end.
func Read(b []byte, code func(*Coder)) error {
	c := Coder{buf: b}
	code(&c)
	if c.err == nil && len(c.buf) != 0 {
		c.err = ErrMalformed
	}
	return c.err
}

// Uint32 codes a number.
func (c *Coder) Uint32(v *uint32) {
	if c.writing {
		c.buf = binary.AppendUvarint(c.buf, uint64(*v))
		return
	}
	n, size := binary.Uvarint(c.buf)
	if c.err != nil || size <= 0 || n > math.MaxUint32 {
		c.err = ErrMalformed
		return
	}
	*v, c.buf = uint32(n), c.buf[size:]
}

// Bool codes a truth value.
func (c *Coder) Bool(v *bool) {
	var n uint32
	if *v {
		n = 1
	}
	c.Uint32(&n)
	*v = n == 1
	if n > 1 {
		c.err = ErrMalformed
	}
}

func (c *Coder) length(n int) int {
	size := uint32(n)
	c.Uint32(&size)
	return int(size)
}

// Bytes codes any bytes. What is read is a copy, and nil for none.
func (c *Coder) Bytes(v *[]byte) {
	n := c.length(len(*v))
	switch {
	case c.writing && n > c.max:
		c.err = ErrTooLong
	case c.writing:
		c.buf = append(c.buf, *v...)
	case c.err != nil || n > len(c.buf):
		c.err = ErrMalformed
	case n > 0:
		*v, c.buf = append([]byte(nil), c.buf[:n]...), c.buf[n:]
	}
}

// String codes any bytes, too.
func (c *Coder) String(v *string) {
	b := []byte(*v)
	c.Bytes(&b)
	if !c.writing {
		*v = string(b)
	}
}

// List codes a list, each element with each. What is read is nil for none.
func List[T any](c *Coder, v *[]T, each func(*Coder, *T)) {
	n := c.length(len(*v))
	if !c.writing {
		// Each element takes at least a byte.
		if c.err != nil || n > len(c.buf) {
			c.err = ErrMalformed
			return
		}
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range *v {
		each(c, &(*v)[i])
	}
}
