// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package atomicfile writes files of which a reader finds all or nothing, also
// after the power has failed: the old text or the new one.
//
//	err := atomicfile.Replace(path, text, 0o600)
//
// The errors are those of package os, and may name a file beside path.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace makes text the file's, whether there is one or not.
func Replace(path string, text []byte, mode fs.FileMode) error {
	return write(path, text, mode, os.Rename)
}

// Create makes the file where there is none. One that is there stays as it is, and
// is no error: of several who create it at once all find one of theirs.
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
