// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build !cgo || !unix

package account

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/srv/session"
)

const passwdFile = "/etc/passwd"

func lookup(name string) (*session.Account, error) {
	f, err := os.Open(passwdFile)
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// name:password:uid:gid:gecos:home:shell (passwd(5))
		fields := strings.Split(s.Text(), ":")
		if len(fields) != 7 || fields[0] != name {
			continue
		}
		uid, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return nil, trace.BadParameter("%s: the uid of %q is no number", passwdFile, name)
		}
		gid, err := strconv.ParseUint(fields[3], 10, 32)
		if err != nil {
			return nil, trace.BadParameter("%s: the gid of %q is no number", passwdFile, name)
		}
		return &session.Account{
			Name:  name,
			UID:   uint32(uid),
			GID:   uint32(gid),
			Home:  fields[5],
			Shell: fields[6],
		}, nil
	}
	if err := s.Err(); err != nil {
		return nil, trace.Wrap(err, "reading %s", passwdFile)
	}
	return nil, trace.NotFound("there is no user %q on this host", name)
}
