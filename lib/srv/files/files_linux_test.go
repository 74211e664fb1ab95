// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/testhost"
)

// peer is a client that sends what it likes.
type peer struct {
	t    *testing.T
	to   io.WriteCloser
	from io.Reader
	// ended gets what the server ended with.
	ended chan error
}

// start serves a peer in this process.
func start(t *testing.T, readOnly bool) *peer {
	t.Helper()
	in, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, to: to, from: from, ended: make(chan error, 1)}
	go func() {
		p.ended <- serve(in, out, readOnly)
		_ = in.Close()
		_ = out.Close()
	}()
	t.Cleanup(func() {
		_ = to.Close()
		_ = from.Close()
	})
	return p
}

// startProgram serves a peer by a program.
func startProgram(t *testing.T, dir, server string) *peer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), server)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asServer+"=1")
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, to: to, from: from, ended: make(chan error, 1)}
	t.Cleanup(func() {
		_ = to.Close()
		p.ended <- cmd.Wait()
	})
	return p
}

// end waits until the server has ended.
func (p *peer) end() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatal("the server has not ended")
		return nil
	}
}

type (
	field []byte
	pairs []field
)

func num(n uint32) field     { return binary.BigEndian.AppendUint32(nil, n) }
func long(n uint64) field    { return binary.BigEndian.AppendUint64(nil, n) }
func text(s string) field    { return appendString(nil, s) }
func mode(mode uint32) field { return slices.Concat(num(4), num(mode)) }

func times(atime, mtime uint32) field { return slices.Concat(num(8), num(atime), num(mtime)) }

// ext are the fields of an extended request.
func ext(name string, fields ...field) pairs { return append(pairs{text(name)}, fields...) }

func packet(kind byte, id uint32, fields ...field) []byte {
	b := append([]byte{0, 0, 0, 0, kind}, num(id)...)
	for _, f := range fields {
		b = append(b, f...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.to.Write(b); err != nil {
		p.t.Fatal("sending:", err)
	}
}

// answer is one packet of the server's.
type answer struct {
	kind byte
	id   uint32
	request
}

func (p *peer) receive() answer {
	p.t.Helper()
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		var head [4]byte
		if _, err := io.ReadFull(p.from, head[:]); err != nil {
			done <- result{err: err}
			return
		}
		b := make([]byte, binary.BigEndian.Uint32(head[:]))
		_, err := io.ReadFull(p.from, b)
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			p.t.Fatal("receiving:", r.err)
		}
		a := answer{kind: r.b[0], request: request{b: r.b[1:]}}
		a.id = a.uint32()
		return a
	case <-time.After(20 * time.Second):
		p.t.Fatal("the server has not answered")
		return answer{}
	}
}

func (p *peer) ask(kind byte, fields ...field) answer {
	p.t.Helper()
	p.send(packet(kind, 7, fields...))
	a := p.receive()
	if a.id != 7 {
		p.t.Fatalf("the answer to 7 is one to %d", a.id)
	}
	return a
}

// greet begins the protocol and returns the names of the extensions.
func (p *peer) greet() []string {
	p.t.Helper()
	p.send(packet(1, 3))
	a := p.receive()
	if a.kind != packetVersion || a.id != 3 {
		p.t.Fatalf("the server greets with a packet of kind %d and version %d", a.kind, a.id)
	}
	var names []string
	for len(a.b) > 0 {
		names = append(names, a.string()+" "+a.string())
	}
	return names
}

func (p *peer) open(path string, flags uint32, attributes ...field) field {
	p.t.Helper()
	if attributes == nil {
		attributes = pairs{num(0)}
	}
	a := p.ask(packetOpen, append(pairs{text(path), num(flags)}, attributes...)...)
	if a.kind != packetHandle {
		p.t.Fatalf("opening %s: %s", path, a)
	}
	return text(a.string())
}

func (p *peer) good(a answer) {
	p.t.Helper()
	if a.kind != 101 || a.uint32() != 0 {
		p.t.Fatalf("the server answers with %s", a)
	}
}

// String is what a client can tell answers apart by.
func (a answer) String() string {
	r := a.request
	switch a.kind {
	case 101:
		return fmt.Sprintf("status %d", r.uint32())
	case packetHandle:
		return "handle"
	case packetName:
		r.uint32()
		return fmt.Sprintf("name %q", r.string())
	case packetAttrs:
		return fmt.Sprintf("attributes %x", r.b)
	case packetExtendedReply:
		return fmt.Sprintf("extended reply of %d bytes", len(r.b))
	case 103:
		return fmt.Sprintf("data %q", r.string())
	}
	return fmt.Sprintf("kind %d", a.kind)
}

// What OpenSSH's own client never sends, others do.
func TestPacketsAsOpenSSH(t *testing.T) {
	dir := publicDir(t)
	ours, theirs := servers(t, dir)
	sh := exec.Command("sh", "-c", `mkdir -p d/e/f; printf text > file; ln -s d/e up; ln -s missing dangling; ln -s loop loop
ln -s dangling twice; ln -s "$PWD/d" absolute; ln -s missing/x deepdangling; mkfifo fifo; chmod 4755 file; chmod 1777 d; touch -a -d 2001-02-03 file d; touch -m -d 2002-02-03 file d`)
	sh.Dir = dir
	if b, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	var them, us *peer
	us, them = startProgram(t, dir, ours), startProgram(t, dir, theirs)
	us.greet()
	them.greet()
	type question struct {
		name   string
		kind   byte
		fields []field
	}
	var questions []question
	add := func(name string, kind byte, fields ...field) {
		questions = append(questions, question{name, kind, fields})
	}
	for _, path := range []string{"", ".", "..", "/", "//", "/..", "file", "file/", "file/.", "file/x", "d", "d/", "d/.", "d/..", "d/e/../..", "up", "up/", "up/..", "up/../x", "up/f/../../..",
		"missing", "missing/", "missing/x", "missing/..", "dangling", "dangling/", "dangling/x", "loop", "loop/x", "twice", "absolute", "absolute/..", "absolute/new", "deepdangling",
		"/etc/passwd", "/etc//passwd", "/proc/self/..", "./d/./e", strings.Repeat("x", 300), strings.Repeat("x/", 3000), "\xff\xfe"} {
		add("realpath", 16, text(path))
		add("stat", 17, text(path))
		add("lstat", 7, text(path))
		add("readlink", 19, text(path))
		add("opendir", 11, text(path))
		add("open", 3, text(path), num(openRead), num(0))
		if path != "" && !strings.HasPrefix(path, "/proc") {
			add("statvfs", 200, ext(extStatvfs, text(path))...)
		}
		add("expand-path", 200, ext(extExpandPath, text(path))...)
	}
	for _, path := range []string{"~root", "~root/..", "~nobody-there", "~root/x/y", "x~"} {
		add("expand-path", 200, ext(extExpandPath, text(path))...)
	}
	add("limits", 200, ext(extLimits)...)
	add("unknown extension", 200, ext("none@example.org", text("x"))...)
	// But for closing it, which is answered by the library.
	for _, kind := range []byte{5, 6, 8, 10, 12} {
		add("no handle", kind, text("none"), long(0), text("data"))
	}
	add("fsync of nothing", 200, ext(extFsync, text("none"))...)
	add("users", 200, ext(extUsersGroupsIDs, field(appendString(nil, string(slices.Concat(num(0), num(987654321))))), field(appendString(nil, string(num(0)))))...)
	for _, q := range questions {
		got, want := us.ask(q.kind, q.fields...), them.ask(q.kind, q.fields...)
		if got.String() != want.String() {
			t.Errorf("%s %.100q: %s, of OpenSSH's %s", q.name, q.fields, got, want)
		}
	}
}

func TestLimitsAndExtensions(t *testing.T) {
	p := start(t, false)
	if names := p.greet(); !slices.Contains(names, "limits@openssh.com 1") || !slices.Contains(names, "statvfs@openssh.com 2") || len(names) != 11 {
		t.Errorf("the server has the extensions %q", names)
	}
	a := p.ask(packetExtended, ext(extLimits)...)
	if got := []uint64{a.uint64(), a.uint64(), a.uint64(), a.uint64()}; a.short || !slices.Equal(got, []uint64{maxPacket, maxData, maxData, maxHandles}) {
		t.Errorf("the limits are %d", got)
	}
	// What it says it can send, it sends.
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 2*maxData), 0o600); err != nil {
		t.Fatal(err)
	}
	h := p.open(path, openRead)
	if a := p.ask(packetRead, h, long(0), num(maxData)); len(a.string()) != maxData {
		t.Error("a read of the limit's length is answered with less")
	}
	h = p.open(path, openWrite|openTrunc)
	p.good(p.ask(packetWrite, h, long(5), text(strings.Repeat("y", maxData))))
	if st, _ := os.Stat(path); st.Size() != maxData+5 {
		t.Errorf("the file has %d bytes", st.Size())
	}
}

// Only the kernel may say what a descriptor is good for.
func TestNoReadIsAWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, false)
	p.greet()
	h := p.open(path, openWrite)
	if a := p.ask(packetRead, h, long(0), num(7)); a.kind != 101 || a.uint32() == 0 {
		t.Errorf("reading what is open for writing: %s", a)
	}
	h = p.open(path, openRead)
	if a := p.ask(packetWrite, h, long(0), text("no")); a.kind != 101 || a.uint32() == 0 {
		t.Errorf("writing what is open for reading: %s", a)
	}
	p.ask(12, h)
	p.ask(12, text("none"))
	if b, _ := os.ReadFile(path); string(b) != "content" {
		t.Errorf("the file is now %q", b)
	}
}

func TestAppendsInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("begin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, false)
	p.greet()
	h := p.open(path, openWrite|openAppend)
	want := "begin\n"
	var all []byte
	for i := range 300 {
		line := fmt.Sprintf("line %d\n", i)
		want += line
		// Some clients leave the place to the server.
		all = append(all, packet(packetWrite, uint32(i), h, long(0), text(line))...)
	}
	go func() { _, _ = p.to.Write(all) }()
	for i := range 300 {
		a := p.receive()
		if a.id != uint32(i) {
			t.Fatalf("answer %d is one to %d", i, a.id)
		}
		p.good(a)
	}
	if b, _ := os.ReadFile(path); string(b) != want {
		t.Errorf("the file is\n%s", b)
	}
}

// A handle stays with its file, whatever becomes of the name.
func TestHandleIsTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	p := start(t, false)
	p.greet()
	h := p.open(path, openRead|openWrite|openCreate)
	p.good(p.ask(packetWrite, h, long(0), text("0123456789")))
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.good(p.ask(packetFsetstat, h, mode(0o4711)))
	p.good(p.ask(packetFsetstat, h, times(1000000000, 1100000000)))
	p.good(p.ask(packetFsetstat, h, num(1), long(4)))
	p.good(p.ask(packetFsetstat, h, times(1000000000, 1100000000)))
	a := p.ask(packetFstat, h)
	want := slices.Concat(num(15), long(4), num(uint32(os.Getuid())), num(uint32(os.Getgid())), num(unix.S_IFREG|0o4711), num(1000000000), num(1100000000))
	if a.kind != packetAttrs || !bytes.Equal(a.b, want) {
		t.Errorf("the open file has %s, not %x", a, want)
	}
	if b, _ := os.ReadFile(path); string(b) != "another" {
		t.Errorf("the file that took the name is %q", b)
	}
	if st, _ := os.Stat(path); st.Mode() != 0o644 {
		t.Errorf("and has the mode %v", st.Mode())
	}
	if a := p.ask(packetExtended, ext(extFstatvfs, h)...); a.kind != packetExtendedReply || len(a.b) != 88 {
		t.Errorf("fstatvfs: %s", a)
	}
	p.good(p.ask(packetExtended, ext(extFsync, h)...))
}

func TestModesOfWhatIsNew(t *testing.T) {
	dir := t.TempDir()
	defer unix.Umask(unix.Umask(0o027))
	p := start(t, false)
	p.greet()
	in := func(name string) field { return text(filepath.Join(dir, name)) }
	p.good(p.ask(14, in("private"), mode(0o700)))
	p.good(p.ask(14, in("sticky"), mode(0o41777)))
	p.good(p.ask(14, in("plain"), num(0)))
	p.open(filepath.Join(dir, "program"), openWrite|openCreate, mode(0o100755))
	p.open(filepath.Join(dir, "file"), openWrite|openCreate)
	// The mode is for what is new.
	p.open(filepath.Join(dir, "file"), openWrite|openCreate|openTrunc, mode(0o777))
	for name, want := range map[string]uint32{"private": 0o40700, "sticky": 0o41750, "plain": 0o40750, "program": 0o100750, "file": 0o100640} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Mode != want {
			t.Errorf("%s has the mode %o, not %o (%v)", name, st.Mode, want, err)
		}
	}
	if a := p.ask(packetOpen, in("file"), num(openWrite|openCreate|openExcl), num(0)); a.String() != "status 4" {
		t.Errorf("creating what is there: %s", a)
	}
	if a := p.ask(14, in("x"), num(4)); a.String() != "status 5" {
		t.Errorf("a mode that is not there: %s", a)
	}
}

func TestPlainRenameTakesNoName(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(in("a"), []byte("a"), 0o600), os.WriteFile(in("b"), []byte("b"), 0o600),
		os.Symlink("nowhere", in("dangling")), os.Mkdir(in("d"), 0o700), os.Mkdir(in("e"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, false)
	p.greet()
	for _, names := range [][2]string{{"a", "b"}, {"a", "dangling"}, {"d", "e"}, {"dangling", "a"}, {"a", "a"}} {
		if a := p.ask(18, text(in(names[0])), text(in(names[1]))); a.String() != "status 4" {
			t.Errorf("renaming %q: %s", names, a)
		}
	}
	p.good(p.ask(packetExtended, ext(extPosixRename, text(in("a")), text(in("b")))...))
	if b, _ := os.ReadFile(in("b")); string(b) != "a" {
		t.Errorf("b is %q", b)
	}
}

// Somebody must be at the other end of a pipe, and need not come.
func TestPipesDoNotHang(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, false)
	p.greet()
	for _, flags := range []uint32{openRead, openWrite, openRead | openWrite, openWrite | openCreate | openTrunc} {
		a := p.ask(packetOpen, text(path), num(flags), num(0))
		if a.kind == packetHandle {
			h := text(a.string())
			if a := p.ask(packetRead, h, long(0), num(10)); a.kind != 101 {
				t.Errorf("reading a pipe: %s", a)
			}
			if a := p.ask(packetWrite, h, long(0), text("x")); a.String() == "status 0" {
				t.Errorf("writing a pipe: %s", a)
			}
		}
	}
	h := p.open("/dev/null", openRead|openWrite)
	if a := p.ask(packetRead, h, long(0), num(10)); a.String() != "status 1" {
		t.Errorf("reading /dev/null: %s", a)
	}
}

func TestHandlesAreBounded(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < maxHandles+100 {
		testhost.Skip(t, "%d files can be open here (%v)", limit.Cur, err)
	}
	dir := t.TempDir()
	p := start(t, false)
	p.greet()
	var last field
	for range maxHandles {
		a := p.ask(11, text(dir))
		if a.kind != packetHandle {
			t.Fatal(a)
		}
		last = text(a.string())
	}
	if a := p.ask(11, text(dir)); a.String() != "status 4" {
		t.Errorf("one handle too many: %s", a)
	}
	if a := p.ask(packetOpen, text("/dev/null"), num(openRead), num(0)); a.String() != "status 4" {
		t.Errorf("one handle too many: %s", a)
	}
	p.good(p.ask(4, last))
	if a := p.ask(4, last); a.String() == "status 0" {
		t.Error("a handle is closed twice")
	}
	if a := p.ask(11, text(dir)); a.kind != packetHandle {
		t.Errorf("after a close: %s", a)
	}
	// And the client goes, with all of them open.
	if err := p.to.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.end(); err != nil {
		t.Error("the server ends with", err)
	}
	if open := openFiles(t, dir); open != 0 {
		t.Errorf("%d are still open", open)
	}
}

func openFiles(t *testing.T, path string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); target == path {
			n++
		}
	}
	return n
}

func TestNothingIsWrittenForReaders(t *testing.T) {
	dir := t.TempDir()
	path := text(filepath.Join(dir, "x"))
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	p := start(t, true)
	p.greet()
	h := p.open(filepath.Join(dir, "x"), openRead)
	if a := p.ask(packetRead, h, long(0), num(100)); a.String() != `data "content"` {
		t.Errorf("reading: %s", a)
	}
	before = strings.Replace(before, "read new", "read ", 1)
	to := text(filepath.Join(dir, "y"))
	for name, a := range map[string]answer{
		"write": p.ask(packetWrite, h, long(0), text("no")), "append": p.ask(packetOpen, path, num(openAppend|openWrite), num(0)),
		"create": p.ask(packetOpen, to, num(openRead|openCreate), num(0)), "truncate": p.ask(packetOpen, path, num(openRead|openTrunc), num(0)),
		"setstat": p.ask(9, path, mode(0o777)), "fsetstat": p.ask(10, h, mode(0o777)), "remove": p.ask(13, path), "mkdir": p.ask(14, to, num(0)),
		"rmdir": p.ask(15, text(dir)), "rename": p.ask(18, path, to), "symlink": p.ask(20, path, to),
		"posix-rename": p.ask(200, ext(extPosixRename, path, to)...), "hardlink": p.ask(200, ext(extHardlink, path, to)...),
		"fsync": p.ask(200, ext(extFsync, h)...), "lsetstat": p.ask(200, ext(extLsetstat, path, mode(0o777))...),
		"copy-data": p.ask(200, ext(extCopyData, h, long(0), long(0), h, long(0))...),
	} {
		if a.kind != 101 || a.String() == "status 0" {
			t.Errorf("%s: %s", name, a)
		}
	}
	if after := strings.Replace(tree(t, dir), "read new", "read ", 1); after != before {
		t.Errorf("there was\n%sand is\n%s", before, after)
	}
}

func TestHostileClients(t *testing.T) {
	for _, tc := range []struct {
		name string
		send []byte
		bad  bool
	}{
		{"nothing", nil, false},
		{"half a length", []byte{0, 0}, true},
		{"half a packet", packet(17, 1, text("/etc"))[:12], true},
		{"half a write", packet(packetWrite, 1, text("h"), long(0), text("data"))[:15], true},
		{"no length", []byte{0, 0, 0, 0, 0, 0, 0}, true},
		{"a huge length", []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}, true},
		{"no id", []byte{0, 0, 0, 1, 17}, true},
		{"a path that is too long for its packet", packet(17, 1, num(1000), field("x")), true},
		{"a path of 4 GiB", packet(17, 1, num(0xffffffff), field("x")), true},
		{"an extension without a name", packet(200, 1), true},
		{"an open that is cut", packet(3, 1, text("/etc/passwd")), true},
		{"a kind that is none", packet(99, 1, text("x")), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := start(t, false)
			p.greet()
			go func() { _, _ = io.Copy(io.Discard, p.from) }()
			p.send(tc.send)
			_ = p.to.Close()
			if err := p.end(); (err != nil) != tc.bad {
				t.Error("the server ends with", err)
			}
		})
	}
	t.Run("a kind that is none is answered", func(t *testing.T) {
		p := start(t, false)
		p.greet()
		for _, kind := range []byte{0, 2, 21, 99, 201, 255} {
			if a := p.ask(kind, text("x")); a.String() != "status 8" {
				t.Errorf("%d: %s", kind, a)
			}
		}
	})
	t.Run("attributes that are cut", func(t *testing.T) {
		p := start(t, false)
		p.greet()
		for _, a := range []answer{
			p.ask(9, text("/"), num(4)), p.ask(3, text("/"), num(1), num(1)), p.ask(9, text("/"), num(0x80000000), num(0xffffffff)),
			p.ask(200, ext(extLsetstat, text("/"), num(8))...), p.ask(200, ext(extLsetstat, text("/"))...), p.ask(200, ext(extFsync)...),
			p.ask(200, ext(extCopyData)...), p.ask(200, ext(extFstatvfs)...),
		} {
			if a.kind != 101 || a.String() == "status 0" {
				t.Error(a)
			}
		}
		// An empty name is one that is not there, whoever asks for it.
		for _, a := range []answer{p.ask(200, ext(extUsersGroupsIDs)...), p.ask(200, ext(extExpandPath)...)} {
			if a.kind == 101 && a.String() == "status 0" {
				t.Error(a)
			}
		}
	})
	t.Run("gone while it is answered", func(t *testing.T) {
		p := start(t, false)
		p.greet()
		h := p.open("/dev/zero", openRead)
		var all []byte
		for i := range 64 {
			all = append(all, packet(packetRead, uint32(i), h, long(0), num(maxData))...)
		}
		p.send(all)
		_ = p.from.(io.Closer).Close()
		if err := p.end(); err != nil {
			t.Error("the server ends with", err)
		}
	})
}

func TestCopyData(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, false)
	p.greet()
	a, b := p.open(from, openRead), p.open(to, openRead|openWrite|openCreate)
	p.good(p.ask(packetExtended, ext(extCopyData, a, long(2), long(3), b, long(1))...))
	p.good(p.ask(packetExtended, ext(extCopyData, a, long(8), long(0), b, long(4))...))
	if got, _ := os.ReadFile(to); string(got) != "\x0023489" {
		t.Errorf("the copy is %q", got)
	}
	for name, answer := range map[string]answer{
		"itself": p.ask(packetExtended, ext(extCopyData, b, long(0), long(0), p.open(to, openWrite), long(9))...),
		"device": p.ask(packetExtended, ext(extCopyData, p.open("/dev/zero", openRead), long(0), long(0), b, long(0))...),
	} {
		if answer.String() == "status 0" {
			t.Error(name, "was copied")
		}
	}
}

// The library's own client is a second reader of what the filter writes.
func TestOtherClient(t *testing.T) {
	p := start(t, false)
	client, err := sftp.NewClientPipe(p.from, p.to, sftp.UseConcurrentWrites(true), sftp.UseConcurrentReads(true))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	long := time.Unix(1000000000, 0)
	for i := range 250 {
		path := filepath.Join(dir, fmt.Sprintf("file %d", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, long.Add(time.Duration(i)*time.Second), long); err != nil {
			t.Fatal(err)
		}
	}
	infos, err := client.ReadDir(dir)
	if err != nil || len(infos) != 250 {
		t.Fatalf("%d entries, %v", len(infos), err)
	}
	for _, info := range infos {
		var i int64
		_, _ = fmt.Sscanf(info.Name(), "file %d", &i)
		if st := info.Sys().(*sftp.FileStat); int64(st.Atime) != long.Unix()+i || int64(st.Mtime) != long.Unix() || info.Mode() != 0o600 {
			t.Errorf("%s: %+v", info.Name(), st)
		}
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	path := filepath.Join(dir, "big")
	f, err := client.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = client.Open(path); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if _, err := f.WriteTo(&back); err != nil || !bytes.Equal(back.Bytes(), content) {
		t.Errorf("%d bytes came back: %v", back.Len(), err)
	}
	if _, err := client.Stat(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if vfs, err := client.StatVFS(dir); err != nil || vfs.Namemax != 255 {
		t.Errorf("%+v, %v", vfs, err)
	}
	_ = f.Close()
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

func FuzzServer(f *testing.F) {
	f.Add(packet(packetOpen, 1, text("/dev/null"), num(openRead), num(0)))
	f.Add(packet(packetExtended, 1, ext(extLimits)...))
	f.Add(packet(packetExtended, 1, ext(extUsersGroupsIDs, text("\x00\x00\x00\x00"), text(""))...))
	f.Add(packet(packetExtended, 1, ext(extFstatvfs, text("1"))...))
	f.Add(packet(packetRealpath, 1, text("../..")))
	f.Add(slices.Concat(packet(11, 1, text("/")), packet(12, 2, text("1")), packet(packetFstat, 2, text("1")), packet(4, 1, text("1"))))
	f.Fuzz(func(t *testing.T, input []byte) {
		out, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		// Reading only: the paths are the fuzzer's.
		_ = serve(bytes.NewReader(append(packet(1, 3), input...)), out, true)
	})
}
