// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package disk writes files that others read meanwhile, and that outlast a power
// cut.
package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace writes a file so that a reader finds the old text or the new one, also
// after the power has failed. Where it cannot, the old file stays as it was.
func Replace(path string, text []byte, mode fs.FileMode) error {
	return write(path, text, mode, os.Rename)
}

// Create is Replace where there is no file. One that is there stays as it is, and
// is no error: of several who create it at once all find the same.
func Create(path string, text []byte, mode fs.FileMode) error {
	return write(path, text, mode, func(from, to string) error {
		err := os.Link(from, to)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	})
}

// write gives a file that is whole its name by put.
func write(path string, text []byte, mode fs.FileMode, put func(from, to string) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it has another name by now, or is of no use
	_, err = file.Write(text)
	if err := errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := put(file.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the new name survive a power cut.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
