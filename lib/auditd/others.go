// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

// What there is to say on systems without Linux's audit system: nothing.

package auditd

import "io"

// Socket is a netlink socket to the kernel's audit system, which this system
// does not have.
type Socket interface{ io.Closer }

func dialKernel() (Socket, error) { return nil, ErrAbsent }

type netlink struct{}

func newNetlink(func() (Socket, error), string) *netlink { return &netlink{} }

func (*netlink) status() (Status, error) { return Status{}, ErrAbsent }
func (*netlink) emit(*Event) error       { return ErrAbsent }
func (*netlink) close() error            { return nil }

func canWrite() error { return ErrAbsent }
func absence() error  { return ErrAbsent }

// ReadStatus returns ErrAbsent.
func ReadStatus() (Status, error) { return Status{}, ErrAbsent }

// ReadLoginUID returns ErrAbsent.
func ReadLoginUID() (uint32, error) { return 0, ErrAbsent }

// ReadSessionID returns ErrAbsent.
func ReadSessionID() (uint32, error) { return 0, ErrAbsent }

// SetLoginUID returns ErrAbsent.
func SetLoginUID(uint32) error { return ErrAbsent }
