// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package account looks login names up in the host's user database, with the
// login shell, which os/user leaves out.
//
//	a, err := account.Lookup("deploy")
//	if trace.IsNotFound(err) {
//		// no such user on this host
//	}
//
// With cgo it asks the C library, and so whatever nsswitch.conf names; without,
// /etc/passwd and /etc/group.
package account

import (
	"os/user"
	"strconv"
	"strings"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/srv/session"
)

// maxName is longer than any system lets a login name be: Linux stops at 256
// (LOGIN_NAME_MAX).
const maxName = 256

// UID returns the uid of a login name. The error is trace.NotFound where the
// host has no such user, or a name that could be none: the name comes from
// whoever connects.
func UID(name string) (uint32, error) {
	a, err := find(name)
	if err != nil {
		return 0, trace.Wrap(err)
	}
	return a.UID, nil
}

// Lookup returns the account of a login name with all its groups. The error is
// that of UID.
func Lookup(name string) (*session.Account, error) {
	a, err := find(name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	u := user.User{Username: a.Name, Gid: strconv.FormatUint(uint64(a.GID), 10)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, trace.Wrap(err, "looking up the groups of user %q", name)
	}
	for _, id := range ids {
		gid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, trace.Wrap(err, "looking up the groups of user %q", name)
		}
		a.Groups = append(a.Groups, uint32(gid))
	}
	return a, nil
}

// find keeps from the user database what it could take for another name: the C
// library ends a string at NUL, and /etc/passwd a field at a colon.
func find(name string) (*session.Account, error) {
	if name == "" || len(name) > maxName || strings.ContainsAny(name, "\x00\n:/") {
		return nil, trace.NotFound("%.64q is no user name", name)
	}
	a, err := lookup(name)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	// A directory may ignore case. The certificate's principal and the records
	// would then name somebody the host does not have.
	if a.Name != name {
		return nil, trace.NotFound("the host calls user %q %q", name, a.Name)
	}
	return a, nil
}
