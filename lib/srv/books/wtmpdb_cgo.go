// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// wtmpdb is what newer systems have in place of wtmp, whose times end in 2038. Its
// library is looked for only where its database is.

//go:build linux && cgo

package books

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// USER_PROCESS of wtmpdb.h.
enum { wtmpdbUser = 3 };

// No database is named: the library knows the host's, and whether a daemon has
// it. The library stays loaded, as libraries that it brings along may need.
static void *symbol(const char *library, const char *name) {
	void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	return lib ? dlsym(lib, name) : 0;
}

static int loginTo(const char *library, const char *user, uint64_t usec, const char *tty, const char *host, char **error) {
	int64_t (*login)(const char *, int, const char *, uint64_t, const char *, const char *, const char *, char **) =
		symbol(library, "wtmpdb_login");
	if (!login)
		return -1;
	return login(0, wtmpdbUser, user, usec, tty, host, 0, error) < 0 ? -1 : 0;
}

static int logoutFrom(const char *library, uint64_t usec, const char *tty, char **error) {
	int64_t (*getID)(const char *, const char *, char **) = symbol(library, "wtmpdb_get_id");
	int (*logout)(const char *, int64_t, uint64_t, char **) = symbol(library, "wtmpdb_logout");
	if (!getID || !logout)
		return -1;
	int64_t id = getID(0, tty, error);
	return id < 0 || logout(0, id, usec, error) < 0 ? -1 : 0;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (b Books) wtmpdbLogin(e Entry) error {
	if !b.hasWtmpDB() {
		return nil
	}
	user, freeUser := cstring(safe(e.User, 255))
	defer freeUser()
	host, freeHost := cstring(hostOf(addrOf(e.Addr)))
	defer freeHost()
	return b.wtmpdb("a login", e, func(library, line *C.char, usec C.uint64_t, said **C.char) C.int {
		return C.loginTo(library, user, usec, line, host, said)
	})
}

func (b Books) wtmpdbLogout(e Entry) error {
	if !b.hasWtmpDB() {
		return nil
	}
	return b.wtmpdb("the end of a login", e, func(library, line *C.char, usec C.uint64_t, said **C.char) C.int {
		return C.logoutFrom(library, usec, line, said)
	})
}

func (b Books) hasWtmpDB() bool {
	var stat unix.Stat_t
	return b.WtmpDB != "" && unix.Stat(b.WtmpDB, &stat) == nil
}

func (b Books) wtmpdb(what string, e Entry, call func(library, line *C.char, usec C.uint64_t, said **C.char) C.int) error {
	library, freeLibrary := cstring(b.WtmpDBLibrary)
	defer freeLibrary()
	line, freeLine := cstring(lineOf(e.Line))
	defer freeLine()
	var said *C.char
	defer func() { C.free(unsafe.Pointer(said)) }()
	if call(library, line, C.uint64_t(e.Time.UnixMicro()), &said) == 0 {
		return nil
	}
	err := errors.New("there is no such library, or it is of another kind")
	if said != nil {
		err = errors.New(C.GoString(said))
	}
	return fmt.Errorf("writing %s to %s by %s: %w", what, b.WtmpDB, b.WtmpDBLibrary, err)
}

func cstring(s string) (c *C.char, free func()) {
	c = C.CString(s)
	return c, func() { C.free(unsafe.Pointer(c)) }
}
