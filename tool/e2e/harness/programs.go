// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Programs are the programs under test, side by side in one folder.
type Programs struct {
	// Dir holds them; a record is ours when its exe lies in it.
	Dir string
	// Teleport, Session, User, Tctl and Tsh are absolute paths.
	Teleport, Session, User, Tctl, Tsh string
}

// Build builds the programs into dir, or takes built ones from the folder that
// E2E_BIN names.
func Build(dir string) (Programs, error) {
	names := []string{"teleport", "teleport-session", "teleport-user", "tctl", "tsh"}
	if built := os.Getenv("E2E_BIN"); built != "" {
		abs, err := filepath.Abs(built)
		if err != nil {
			return Programs{}, err
		}
		// The kernel records where a link leads to, so compare with that.
		if dir, err = filepath.EvalSymlinks(abs); err != nil {
			return Programs{}, fmt.Errorf("E2E_BIN=%s: %w", built, err)
		}
	} else {
		root, err := ModuleRoot()
		if err != nil {
			return Programs{}, err
		}
		args := []string{"build", "-o", dir + "/"}
		for _, name := range names {
			args = append(args, "./tool/"+name)
		}
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return Programs{}, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return Programs{}, err
		}
	}
	return Programs{
		Dir:      dir,
		Teleport: filepath.Join(dir, "teleport"),
		Session:  filepath.Join(dir, "teleport-session"),
		User:     filepath.Join(dir, "teleport-user"),
		Tctl:     filepath.Join(dir, "tctl"),
		Tsh:      filepath.Join(dir, "tsh"),
	}, nil
}
