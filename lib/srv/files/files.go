// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package files is the sftp server (version 3 of the protocol), which runs as the
// user in the login's audit session: what a client may read and write is what
// the kernel lets the user, and the file rules of auditd see it as the login's.
//
// Run is all that there is to call. The protocol is that of github.com/pkg/sftp's
// RequestServer; what is here is the handlers that it calls, which are as close
// to the system calls as can be, and a filter between it and the client, which
// gives it one request at a time and adds what it has no means for: the
// extensions that OpenSSH's clients ask for and the time of the last access.
package files
