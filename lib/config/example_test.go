// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"os"
	"path/filepath"

	"teleport-auditd/lib/config"
)

// A mistake is one line that says where it is and what was meant.
func ExampleReadFile() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "teleport.yaml")
	if err := os.WriteFile(path, []byte("ssh_service:\n  enabled: yes\n  lables:\n    env: prod\n"), 0o600); err != nil {
		panic(err)
	}
	_, err = config.ReadFile(path)
	fmt.Println(err.Error()[len(dir)+1:])
	// Output: teleport.yaml:3:3: there is no key "lables" in ssh_service: the nearest known key is "labels", so write that or take the line out
}
