// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package version says which build this is: Line is what every program prints
// for its version command.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is the release, as semantic versioning writes it.
const Version = "0.1.0"

// Gitref is what `git describe` said of the sources. The Makefile sets it with
// -ldflags "-X teleport-auditd/lib/version.Gitref=..."; it is a variable
// because the linker can set nothing else.
var Gitref string

// shortRevision is the length that git describe gives a revision in most
// repositories.
const shortRevision = 7

// Line returns `Teleport v<semver> git:<describe> go<version>`. A build without
// Gitref shows the revision that the go command stamped, with -dirty where the
// sources had been changed, and "unknown" where there is none.
func Line() string {
	info, _ := debug.ReadBuildInfo()
	return line(Gitref, info)
}

func line(gitref string, info *debug.BuildInfo) string {
	if gitref == "" {
		gitref = stamped(info)
	}
	return "Teleport v" + Version + " git:" + gitref + " " + runtime.Version()
}

func stamped(info *debug.BuildInfo) string {
	if info == nil {
		return "unknown"
	}
	var revision, dirty string
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			revision = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if revision == "" {
		return "unknown"
	}
	if len(revision) > shortRevision {
		revision = revision[:shortRevision]
	}
	return revision + dirty
}
