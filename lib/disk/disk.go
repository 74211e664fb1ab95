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
func Replace(path string, text []byte, mode fs.FileMode) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
