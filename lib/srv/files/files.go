// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package files is the sftp server (version 3 of the protocol), which runs as the
// user in the login's audit session: what a client may read and write is what
// the kernel lets the user, and the file rules of auditd see it as the login's.
//
// Run is all that there is to call. It serves standard input and output, one
// request after the other, in one thread, until the client is gone.
//
// The server is our own and not that of github.com/pkg/sftp, whose two servers
// cannot be made to answer as OpenSSH's does: neither hands over the mode that a
// folder is to be made with, both report the time of the last change as that of
// the last access, and both know three extensions and no way to add one, so no
// limits@openssh.com, which lets clients ask for more than 32 KiB at a time. Its
// Server removes files where a folder is to be removed, follows no symbolic link
// in realpath, and overwrites in a plain rename; its RequestServer changes a
// file that is open by its name, which may be another file by then, and takes
// ".." out of paths before the kernel sees what it means. The tests use its
// client, as a second reader of the protocol.
package files
