// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux || !cgo

package pam

// Available returns ErrUnavailable: this program was built without PAM.
func Available() error { return ErrUnavailable }

// Transaction is never made in this program: Start fails.
type Transaction struct{}

// Start returns ErrUnavailable.
func Start(cfg Config) (*Transaction, error) {
	return nil, &Error{Stage: StageStart, Service: cfg.Service, Err: ErrUnavailable}
}

// SetTTY returns ErrUnavailable.
func (*Transaction) SetTTY(string) error { return ErrUnavailable }

// Authenticate returns ErrUnavailable.
func (*Transaction) Authenticate() error { return ErrUnavailable }

// CheckAccount returns ErrUnavailable.
func (*Transaction) CheckAccount() error { return ErrUnavailable }

// Establish returns ErrUnavailable.
func (*Transaction) Establish() error { return ErrUnavailable }

// OpenSession returns ErrUnavailable.
func (*Transaction) OpenSession() error { return ErrUnavailable }

// Environment returns ErrUnavailable.
func (*Transaction) Environment() ([]string, error) { return nil, ErrUnavailable }

// Close does nothing.
func (*Transaction) Close() error { return nil }
