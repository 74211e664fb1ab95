// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command empty is a Go program with cgo that does nothing: what any such
// program costs at least.
package main

import "C"

func main() {}
