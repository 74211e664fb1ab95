// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Copying files: the sftp subsystem, certificates that allow nothing else, and
// nodes that allow none.

package node

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/session"
)

const (
	// sftpSubsystem is what clients ask for (RFC 4254, section 6.5).
	sftpSubsystem = "sftp"
	// internalSFTP is the name of the server's own sftp server in a force-command,
	// as sshd_config(5) has it.
	internalSFTP = "internal-sftp"
	// exitNoCopy is the exit status of a copy that is refused.
	exitNoCopy = 1
	// maxLogged is how much of what a client has sent goes into a line of the log.
	maxLogged = 64

	noCopyText  = "This node does not allow copying files (ssh_file_copy).\n"
	filesOnly   = "This certificate allows sftp only.\n"
	badInternal = "The certificate's force-command has arguments of internal-sftp that this node does not know; -R is the one that it does.\n"
)

// subsystem takes a client's request for a subsystem. A certificate's own
// command stands for any.
func (s *channel) subsystem(name string) (ok bool, work func() outcome) {
	switch {
	case s.conn.Identity.ForceCommand != "":
		return s.start(&session.Start{Command: name})
	case name == sftpSubsystem:
		// A file server needs no terminal.
		s.pty = nil
		s.onTerminal.Store(false)
		return s.start(&session.Start{Program: session.Files})
	}
	s.conn.log.Warnf("The client has asked for the subsystem %q; sftp is the one that there is.", name[:min(len(name), maxLogged)])
	return false, nil
}

// checkFiles makes m serve files where the certificate says so. refusal is what a
// client hears where it may not copy files, or nothing else; status is the exit
// status then.
func (s *channel) checkFiles(m *session.Start) (refusal string, status uint32) {
	if words := strings.Fields(s.conn.Identity.ForceCommand); len(words) > 0 && words[0] == internalSFTP {
		options := words[1:]
		switch {
		case len(options) > 1 || len(options) == 1 && options[0] != "-R":
			s.conn.log.Warn("Refused: the force-command of the certificate has unknown arguments of internal-sftp.")
			return badInternal, exitNotStarted
		case s.pty != nil:
			s.conn.log.Info("Refused: a terminal, with a certificate that allows sftp only.")
			return filesOnly, exitNoCopy
		}
		m.Program, m.Command = session.OnlyFiles, strings.Join(options, " ")
	}
	if s.conn.server.cfg.RefuseFileCopy && (m.Program == session.Files || m.Program == session.OnlyFiles || m.Program == session.Command && copiesFiles(m.Command)) {
		s.conn.log.Info("Refused: copying files, which this node does not allow (ssh_file_copy).")
		return noCopyText, exitNoCopy
	}
	return "", 0
}

// copiesFiles tells whether a command is the far end of a client that copies
// files. It knows what clients send, not what a shell can be talked into.
func copiesFiles(command string) bool {
	words := strings.Fields(command)
	if len(words) == 0 {
		return false
	}
	switch path.Base(words[0]) {
	case "scp":
		return slices.ContainsFunc(words[1:], func(word string) bool {
			flags, ok := strings.CutPrefix(word, "-")
			return ok && strings.ContainsAny(flags, "tf") && strings.Trim(flags, "tfrpdvq") == ""
		})
	case "rsync":
		return slices.Contains(words[1:], "--server")
	case "sftp-server", internalSFTP:
		return true
	}
	return false
}

// widePipe is the size of a pipe that much goes through: fewer wake-ups than
// with the kernel's 64 KiB, and still little that waits in it.
const widePipe = 1 << 20

// largeInput is how much of the client's goes into such a pipe at once.
const largeInput = widePipe / 2

// widen makes the pipe wider, if it can be.
func widen(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, widePipe) }
