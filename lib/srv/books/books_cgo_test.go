// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package books

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/testhost"
)

// empty makes books of the test's own.
func empty(t *testing.T) Books {
	t.Helper()
	dir := t.TempDir()
	b := Books{
		Utmp: filepath.Join(dir, "utmp"), Wtmp: filepath.Join(dir, "wtmp"),
		Lastlog: filepath.Join(dir, "lastlog"), Btmp: filepath.Join(dir, "btmp"),
		WtmpDB: filepath.Join(dir, "wtmp.db"),
	}
	for _, path := range []string{b.Utmp, b.Wtmp, b.Lastlog, b.Btmp} {
		require.NoError(t, os.WriteFile(path, nil, 0o660))
	}
	return b
}

// dump reads a book as util-linux does: one line an entry, its fields apart.
func dump(t *testing.T, path string) [][]string {
	t.Helper()
	if _, err := exec.LookPath("utmpdump"); err != nil {
		testhost.Skip(t, "needs utmpdump: install util-linux")
	}
	cmd := exec.Command("utmpdump", path)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	out, err := cmd.Output()
	require.NoError(t, err)
	var entries [][]string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "["), "]")
		fields := strings.Split(line, "] [")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		entries = append(entries, fields)
	}
	return entries
}

// noon is a time that says which of its parts went where.
func noon() time.Time { return time.Date(2026, 3, 4, 12, 34, 56, 123456000, time.UTC) }

func TestLogin(t *testing.T) {
	b := empty(t)
	e := Entry{User: "deploy", UID: 7, Line: "/dev/pts/12", Addr: "192.0.2.7:50122", PID: 4321, Time: noon()}
	last, err := b.Login(e)
	require.NoError(t, err)
	assert.Empty(t, last.String(), "the first login has none before it")
	login := []string{"7", "04321", "s/12", "deploy", "pts/12", "192.0.2.7", "192.0.2.7", "2026-03-04T12:34:56,123456+00:00"}
	assert.Equal(t, [][]string{login}, dump(t, b.Utmp))
	assert.Equal(t, [][]string{login}, dump(t, b.Wtmp))

	require.NoError(t, b.Logout(Entry{Line: e.Line, PID: e.PID, Time: e.Time.Add(time.Minute)}))
	logout := []string{"8", "04321", "s/12", "", "pts/12", "", "192.0.2.7", "2026-03-04T12:35:56,123456+00:00"}
	assert.Equal(t, [][]string{logout}, dump(t, b.Utmp), "the end stands in the login's place")
	logout = []string{"8", "04321", "", "", "pts/12", "", "0.0.0.0", "2026-03-04T12:35:56,123456+00:00"}
	assert.Equal(t, [][]string{login, logout}, dump(t, b.Wtmp))

	e.Addr = "[2001:db8::17%eth0]:22"
	last, err = b.Login(e)
	require.NoError(t, err)
	assert.Equal(t, "Last login: "+noon().Local().Format("Mon Jan _2 15:04:05 2006")+" from 192.0.2.7\n", last.String())
	assert.Equal(t, "pts/12", last.Line)
	assert.Equal(t, "2001:db8::17", b.LastLogin(7).Host)
	assert.Zero(t, b.LastLogin(6), "nobody else has logged in")
	assert.Zero(t, b.LastLogin(8))
	again := dump(t, b.Utmp)
	require.Len(t, again, 1, "a terminal has one entry")
	assert.Equal(t, []string{"deploy", "pts/12", "2001:db8::17", "2001:db8::17"}, again[0][3:7])
}

func TestMappedAddress(t *testing.T) {
	b := empty(t)
	_, err := b.Login(Entry{User: "deploy", Line: "/dev/pts/0", Addr: "[::ffff:192.0.2.7]:22", PID: 1, Time: noon()})
	require.NoError(t, err)
	assert.Equal(t, []string{"192.0.2.7", "192.0.2.7"}, dump(t, b.Utmp)[0][5:7])
}

func TestSlots(t *testing.T) {
	b := empty(t)
	for i, pid := range []int{11, 22, 33} {
		_, err := b.Login(Entry{User: fmt.Sprint("user", i), Line: fmt.Sprint("/dev/pts/", i), PID: pid, Time: noon()})
		require.NoError(t, err)
	}
	// A second login of the same connection, and the end of one whose terminal
	// somebody else has by now.
	_, err := b.Login(Entry{User: "user0", Line: "/dev/pts/3", PID: 11, Time: noon()})
	require.NoError(t, err)
	require.NoError(t, b.Logout(Entry{Line: "/dev/pts/1", PID: 99, Time: noon()}))
	require.NoError(t, b.Logout(Entry{Line: "/dev/pts/0", PID: 11, Time: noon()}))
	var got []string
	for _, f := range dump(t, b.Utmp) {
		got = append(got, strings.Join(f[:5], " "))
	}
	assert.Equal(t, []string{
		"8 00011 ts/0  pts/0", "7 00022 ts/1 user1 pts/1", "7 00033 ts/2 user2 pts/2", "7 00011 ts/3 user0 pts/3",
	}, got)
}

func TestTornUtmp(t *testing.T) {
	b := empty(t)
	require.NoError(t, os.WriteFile(b.Utmp, make([]byte, entrySize+10), 0o600))
	_, err := b.Login(Entry{User: "deploy", Line: "/dev/pts/0", PID: 1, Time: noon()})
	require.NoError(t, err)
	text, err := os.ReadFile(b.Utmp)
	require.NoError(t, err)
	require.Len(t, text, 2*entrySize)
	assert.Equal(t, "pts/0", decode(text[entrySize:]).line)
}

// TestLockedUtmp: any user may lock what everybody may read, and must not hide
// the logins of others by it, nor hold them up.
func TestLockedUtmp(t *testing.T) {
	b := empty(t)
	f, err := os.Open(b.Utmp)
	require.NoError(t, err)
	defer f.Close()
	flock := unix.Flock_t{Type: unix.F_RDLCK}
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &flock))
	began := time.Now()
	_, err = b.Login(Entry{User: "deploy", Line: "/dev/pts/0", PID: 1, Time: noon()})
	require.NoError(t, err)
	assert.Less(t, time.Since(began), 5*time.Second)
	assert.Len(t, dump(t, b.Utmp), 1)
}

// TestAbsent: books that the host does not keep are not begun.
func TestAbsent(t *testing.T) {
	for _, test := range []struct {
		name  string
		books Books
	}{
		{"no paths", Books{}},
		{"no files", func() Books {
			b := empty(t)
			for _, path := range []string{b.Utmp, b.Wtmp, b.Lastlog, b.Btmp} {
				require.NoError(t, os.Remove(path))
			}
			b.WtmpDBLibrary = "libnone.so"
			return b
		}()},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := Entry{User: "deploy", Line: "/dev/pts/0", PID: 1, Time: noon()}
			last, err := test.books.Login(e)
			require.NoError(t, err)
			assert.Zero(t, last)
			require.NoError(t, test.books.Logout(e))
			require.NoError(t, test.books.Failed(e))
			assert.Zero(t, test.books.LastLogin(0))
			if test.books.Utmp != "" {
				entries, err := os.ReadDir(filepath.Dir(test.books.Utmp))
				require.NoError(t, err)
				assert.Empty(t, entries)
			}
		})
	}
}

// TestTrouble: what is wrong with one book keeps no other from being written, and
// is said.
func TestTrouble(t *testing.T) {
	b := empty(t)
	require.NoError(t, os.Remove(b.Utmp))
	require.NoError(t, unix.Mkfifo(b.Utmp, 0o600))
	require.NoError(t, os.Remove(b.Lastlog))
	require.NoError(t, os.Mkdir(b.Lastlog, 0o700))
	_, err := b.Login(Entry{User: "deploy", Line: "/dev/pts/0", PID: 1, Time: noon()})
	require.ErrorContains(t, err, "opening "+b.Utmp)
	require.ErrorContains(t, err, "opening "+b.Lastlog)
	assert.Len(t, dump(t, b.Wtmp), 1)
}

func TestFailed(t *testing.T) {
	if os.Geteuid() != 0 {
		testhost.Skip(t, "it needs root, whose btmp has to be")
	}
	b := empty(t)
	long := strings.Repeat("x", 100)
	for _, user := range []string{"mallory", "a b\x1b[2J\n\x00c", "\xc3\xb6\x9b", "] [x", long, ""} {
		require.NoError(t, b.Failed(Entry{User: user, Addr: "192.0.2.9:1", PID: 77, Time: noon()}))
	}
	// utmpdump has question marks for brackets, too.
	var users []string
	for _, f := range dump(t, b.Btmp) {
		require.Len(t, f, 8, "%q", f)
		assert.Equal(t, []string{"6", "00077", "", f[3], "ssh:notty", "192.0.2.9", "192.0.2.9", "2026-03-04T12:34:56,123456+00:00"}, f)
		users = append(users, f[3])
	}
	assert.Equal(t, []string{"mallory", "a?b??2J??c", "???", "???x", long[:32], ""}, users)
	text, err := os.ReadFile(b.Btmp)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "\x1b", "no control character reaches whoever prints the file")

	t.Run("others may read it", func(t *testing.T) {
		for _, mode := range []os.FileMode{0o664, 0o661, 0o670} {
			require.NoError(t, os.Chmod(b.Btmp, mode))
			require.ErrorContains(t, b.Failed(Entry{User: "mallory", Time: noon()}), "closed to others", mode)
		}
		require.NoError(t, os.Chmod(b.Btmp, 0o600))
		require.NoError(t, os.Chown(b.Btmp, 65534, 0))
		require.ErrorContains(t, b.Failed(Entry{User: "mallory", Time: noon()}), "has to be root's")
		now, err := os.ReadFile(b.Btmp)
		require.NoError(t, err)
		assert.Equal(t, len(text), len(now))
	})
}

// TestTogether: entries of many writers stand beside each other, none torn.
func TestTogether(t *testing.T) {
	b := empty(t)
	const writers, each = 8, 40
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for range each {
				e := Entry{User: "deploy", UID: uint32(i), Line: fmt.Sprint("/dev/pts/", i), PID: 100 + i, Time: noon()}
				if _, err := b.Login(e); err != nil {
					t.Error(err)
				}
				if err := b.Logout(e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	assert.Len(t, dump(t, b.Utmp), writers)
	entries := dump(t, b.Wtmp)
	assert.Len(t, entries, 2*writers*each)
	for _, f := range entries {
		assert.Regexp(t, "^pts/[0-7]$", f[4])
	}
}

type recorder struct{ events []auditd.Event }

func (r *recorder) Emit(_ context.Context, e auditd.Event) error {
	r.events = append(r.events, e)
	return nil
}
func (r *recorder) Close() error { return nil }

func TestEmitter(t *testing.T) {
	if os.Geteuid() != 0 {
		testhost.Skip(t, "it needs root, whose btmp has to be")
	}
	b, inner := empty(t), new(recorder)
	var troubles []error
	e := Emitter{Emitter: inner, Books: b, PID: 5, Trouble: func(err error) { troubles = append(troubles, err) }}
	events := []auditd.Event{
		{Type: auditd.AuditUserLogin, Result: auditd.Failed, SystemUser: "mallory", ConnAddress: "192.0.2.9:1"},
		{Type: auditd.AuditUserErr, Result: auditd.Failed, SystemUser: "mallory", ConnAddress: "192.0.2.9:1"},
		{Type: auditd.AuditUserLogin, Result: auditd.Success, SystemUser: "deploy"},
		{Type: auditd.AuditUserEnd, Result: auditd.Success, SystemUser: "deploy"},
	}
	for _, event := range events {
		require.NoError(t, e.Emit(t.Context(), event))
	}
	assert.Equal(t, events, inner.events)
	entries := dump(t, b.Btmp)
	require.Len(t, entries, 1, "a refusal has two records and one entry")
	assert.Equal(t, []string{"mallory", "ssh:notty", "192.0.2.9"}, entries[0][3:6])
	assert.Empty(t, troubles)

	require.NoError(t, os.Chmod(b.Btmp, 0o666))
	require.NoError(t, e.Emit(t.Context(), events[0]), "the record is written all the same")
	assert.Len(t, inner.events, len(events)+1)
	assert.Len(t, troubles, 1)
}

// library is a wtmpdb that writes down how it was called.
const library = `
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *out(void) { return fopen(getenv("FAKE_WTMPDB"), "a"); }

int64_t wtmpdb_login(const char *db, int type, const char *user, uint64_t usec, const char *tty,
		const char *host, const char *service, char **error) {
	FILE *f = out();
	fprintf(f, "login db=%s type=%d user=%s usec=%" PRIu64 " tty=%s host=%s service=%s\n",
		db ? db : "", type, user, usec, tty, host, service ? service : "");
	fclose(f);
	if (strcmp(user, "unlucky") == 0) {
		*error = strdup("no room");
		return -1;
	}
	return 42;
}

int64_t wtmpdb_get_id(const char *db, const char *tty, char **error) {
	return strcmp(tty, "pts/5") == 0 ? 42 : -1;
}

int wtmpdb_logout(const char *db, int64_t id, uint64_t usec, char **error) {
	FILE *f = out();
	fprintf(f, "logout db=%s id=%" PRId64 " usec=%" PRIu64 "\n", db ? db : "", id, usec);
	fclose(f);
	return 0;
}
`

func TestWtmpDB(t *testing.T) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		testhost.Skip(t, "it needs gcc, to make a library")
	}
	b := empty(t)
	dir := t.TempDir()
	source, calls := filepath.Join(dir, "wtmpdb.c"), filepath.Join(dir, "calls")
	require.NoError(t, os.WriteFile(source, []byte(library), 0o600))
	b.WtmpDBLibrary = filepath.Join(dir, "libwtmpdb.so.0")
	out, err := exec.Command(cc, "-shared", "-fPIC", "-o", b.WtmpDBLibrary, source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Setenv("FAKE_WTMPDB", calls)
	e := Entry{User: "deploy", Line: "/dev/pts/5", Addr: "192.0.2.7:50122", PID: 1, Time: noon()}

	_, err = b.Login(e)
	require.NoError(t, err)
	require.NoFileExists(t, calls, "there is no database")

	require.NoError(t, os.WriteFile(b.WtmpDB, nil, 0o600))
	_, err = b.Login(e)
	require.NoError(t, err)
	require.NoError(t, b.Logout(Entry{Line: e.Line, PID: 1, Time: e.Time.Add(time.Second)}))
	got, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Equal(t, "login db= type=3 user=deploy usec=1772627696123456 tty=pts/5 host=192.0.2.7 service=\n"+
		"logout db= id=42 usec=1772627697123456\n", string(got))

	e.User = "unlucky"
	_, err = b.Login(e)
	require.ErrorContains(t, err, "no room")
	assert.Len(t, dump(t, b.Wtmp), 4, "wtmp is written all the same")
	b.WtmpDBLibrary = "libnone.so.0"
	_, err = b.Login(e)
	require.ErrorContains(t, err, "libnone.so.0: there is no such library")
}

// TestReaders: who lists a login that is here, and last its end.
func TestReaders(t *testing.T) {
	for _, name := range []string{"who", "last"} {
		if _, err := exec.LookPath(name); err != nil {
			testhost.Skip(t, "it needs %s", name)
		}
	}
	b := empty(t)
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(bytes.TrimSpace(out))
	}
	e := Entry{User: "deploy", Line: "/dev/pts/999", Addr: "192.0.2.7:50122", PID: os.Getpid(), Time: noon()}
	_, err := b.Login(e)
	require.NoError(t, err)
	assert.Regexp(t, `^deploy +pts/999 +Mar +4 12:34 \(192\.0\.2\.7\)$`, run("who", b.Utmp))
	require.NoError(t, b.Logout(Entry{Line: e.Line, PID: e.PID, Time: e.Time.Add(3 * time.Minute)}))
	assert.Empty(t, run("who", b.Utmp))
	assert.Regexp(t, `^deploy +pts/999 +192\.0\.2\.7 +Wed Mar +4 12:34 - 12:37  \(00:03\)`, run("last", "-f", b.Wtmp))
}
