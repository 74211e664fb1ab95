// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// wire is the two pipes of a server that runs.
type wire struct {
	to, from *os.File
	// ended gets what serve returned.
	ended chan error
}

func start(t testing.TB, readOnly bool) *wire {
	t.Helper()
	theirs, to, err := os.Pipe()
	require.NoError(t, err)
	from, ours, err := os.Pipe()
	require.NoError(t, err)
	s := newServer(theirs.Fd(), ours.Fd())
	s.readOnly = readOnly
	w := &wire{to: to, from: from, ended: make(chan error, 1)}
	go func() {
		err := s.serve()
		theirs.Close()
		ours.Close()
		w.ended <- err
	}()
	t.Cleanup(func() { to.Close(); from.Close() })
	return w
}

// end closes the client's side and returns what became of the server.
func (w *wire) end(t testing.TB) error {
	t.Helper()
	w.to.Close()
	w.from.Close()
	return w.wait(t)
}

func (w *wire) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the server has not ended")
		return nil
	}
}

// client is another project's reader of the protocol.
func client(t testing.TB) (*sftp.Client, string) {
	t.Helper()
	w := start(t, false)
	c, err := sftp.NewClientPipe(w.from, w.to)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		assert.NoError(t, w.wait(t))
	})
	return c, t.TempDir()
}

// raw speaks the protocol by hand, for what a client would not send.
type raw struct {
	*wire
	t    testing.TB
	last uint32
}

func speak(t testing.TB, readOnly bool) *raw {
	t.Helper()
	r := &raw{wire: start(t, readOnly), t: t}
	r.send(packetInit, uint32(3))
	kind, body := r.receive()
	require.Equal(t, byte(packetVersion), kind)
	require.Equal(t, uint32(3), binary.BigEndian.Uint32(body))
	return r
}

// packet puts a packet together: uint32, uint64, text, and bytes as they are.
func packet(kind byte, fields ...any) []byte {
	b := []byte{kind}
	for _, field := range fields {
		switch f := field.(type) {
		case uint32:
			b = binary.BigEndian.AppendUint32(b, f)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, f)
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
		case []byte:
			b = append(b, f...)
		default:
			panic(fmt.Sprintf("%T", f))
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func (r *raw) send(kind byte, fields ...any) {
	r.t.Helper()
	_, err := r.to.Write(packet(kind, fields...))
	require.NoError(r.t, err)
}

func (r *raw) receive() (kind byte, body []byte) {
	r.t.Helper()
	var head [5]byte
	_, err := io.ReadFull(r.from, head[:])
	require.NoError(r.t, err)
	body = make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(r.from, body)
	require.NoError(r.t, err)
	return head[4], body
}

// ask sends a request and returns its answer, without the id.
func (r *raw) ask(kind byte, fields ...any) (byte, *request) {
	r.t.Helper()
	r.last++
	r.send(kind, append([]any{r.last}, fields...)...)
	answer, body := r.receive()
	require.Equal(r.t, r.last, binary.BigEndian.Uint32(body), "the id of the answer")
	return answer, &request{b: body[4:]}
}

// status is ask for requests that are answered with a status.
func (r *raw) status(kind byte, fields ...any) (code, string) {
	r.t.Helper()
	answer, body := r.ask(kind, fields...)
	require.Equal(r.t, byte(packetStatus), answer, "%q", body.b)
	return code(body.uint32()), body.string()
}

// open returns a handle, and fails the test without one.
func (r *raw) open(path string, flags uint32, attributes ...any) string {
	r.t.Helper()
	if attributes == nil {
		attributes = []any{uint32(0)}
	}
	kind, body := r.ask(packetOpen, append([]any{path, flags}, attributes...)...)
	require.Equal(r.t, byte(packetHandle), kind, "%q", body.b)
	return body.string()
}

func statOf(t testing.TB, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t)
}

// noUmask lets a test see the modes that the server asks for.
func noUmask(t testing.TB) {
	before := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(before) })
}

func TestBytes(t *testing.T) {
	c, dir := client(t)
	content := make([]byte, 3<<20+123)
	_, err := rand.Read(content)
	require.NoError(t, err)
	path := filepath.Join(dir, "file")
	f, err := c.Create(path)
	require.NoError(t, err)
	_, err = f.ReadFrom(bytes.NewReader(content))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, written), "written")

	f, err = c.Open(path)
	require.NoError(t, err)
	var read bytes.Buffer
	_, err = f.WriteTo(&read)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, read.Bytes()), "read")
	// A read beyond the end is one, whatever it asks for.
	var b [10]byte
	_, err = f.ReadAt(b[:], int64(len(content)))
	assert.ErrorIs(t, err, io.EOF)
	require.NoError(t, f.Close())
}

func TestBigPackets(t *testing.T) {
	r, dir := speak(t, false), t.TempDir()
	kind, limits := r.ask(packetExtended, "limits@openssh.com")
	require.Equal(t, byte(packetExtendedReply), kind)
	assert.EqualValues(t, maxPacket, limits.uint64())
	most := limits.uint64()
	assert.EqualValues(t, most, limits.uint64())
	content := bytes.Repeat([]byte("0123456789abcdef"), int(most)/16)
	path := filepath.Join(dir, "file")
	h := r.open(path, openRead|openWrite|openCreate)
	for i := range 5 {
		c, _ := r.status(packetWrite, h, uint64(i*len(content)), string(content))
		require.Equal(t, codeOK, c)
	}
	for i := range 5 {
		kind, body := r.ask(packetRead, h, uint64(i*len(content)), uint32(1<<31))
		require.Equal(t, byte(packetData), kind)
		assert.True(t, bytes.Equal(content, body.bytes()), "a read of more than is allowed gets what is")
	}
	// Many requests at once are answered in their order.
	go func() {
		for i := range 40 {
			_, _ = r.to.Write(packet(packetRead, uint32(1000+i), h, uint64(i), uint32(32<<10)))
		}
	}()
	for i := range 40 {
		kind, body := r.receive()
		require.Equal(t, byte(packetData), kind)
		require.EqualValues(t, 1000+i, binary.BigEndian.Uint32(body))
		require.Len(t, body, 8+32<<10)
		require.Equal(t, content[i%16], body[8])
	}
	assert.NoError(t, r.end(t))
}

func TestModes(t *testing.T) {
	r, dir := speak(t, false), t.TempDir()
	for _, test := range []struct {
		umask      int
		asked      []any
		file, made uint32
	}{
		{0o022, []any{uint32(0)}, 0o644, 0o755},
		{0o077, []any{uint32(0)}, 0o600, 0o700},
		{0, []any{uint32(hasMode), uint32(0o600)}, 0o600, 0o600},
		{0, []any{uint32(hasMode), uint32(0o100751)}, 0o751, 0o751},
		{0o027, []any{uint32(hasMode), uint32(0o777)}, 0o750, 0o750},
		{0, []any{uint32(hasMode | hasTimes), uint32(0o640), uint32(1), uint32(2)}, 0o640, 0o640},
	} {
		before := unix.Umask(test.umask)
		path := filepath.Join(dir, fmt.Sprint(r.last))
		h := r.open(path, openWrite|openCreate|openExcl, test.asked...)
		c, _ := r.status(packetClose, h)
		assert.Equal(t, codeOK, c)
		assert.Equal(t, test.file, statOf(t, path).Mode&0o7777, "file: umask %o, %v", test.umask, test.asked)
		c, _ = r.status(packetMkdir, append([]any{path + ".d"}, test.asked...)...)
		assert.Equal(t, codeOK, c)
		assert.Equal(t, test.made, statOf(t, path+".d").Mode&0o7777, "folder: umask %o, %v", test.umask, test.asked)
		unix.Umask(before)
	}
}

func TestAttributes(t *testing.T) {
	noUmask(t)
	c, dir := client(t)
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, []byte("0123456789"), 0o666))
	atime, mtime := time.Unix(1000000000, 0), time.Unix(4000000000, 0)
	require.NoError(t, c.Chtimes(path, atime, mtime))
	require.NoError(t, c.Chmod(path, 0o4711))
	st := statOf(t, path)
	assert.Equal(t, atime.Unix(), st.Atim.Sec)
	assert.Equal(t, mtime.Unix(), st.Mtim.Sec, "past 2038")
	info, err := c.Stat(path)
	require.NoError(t, err)
	stat := info.Sys().(*sftp.FileStat)
	assert.EqualValues(t, atime.Unix(), stat.Atime, "the time of the last access is its own")
	assert.EqualValues(t, mtime.Unix(), stat.Mtime)
	assert.EqualValues(t, unix.S_IFREG|st.Mode&0o7777, stat.Mode)
	assert.EqualValues(t, os.Getuid(), stat.UID)
	assert.EqualValues(t, os.Getgid(), stat.GID)
	require.NoError(t, c.Truncate(path, 4))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "0123", string(content))
	if os.Getuid() == 0 {
		require.NoError(t, c.Chown(path, 12345, 54321))
		st = statOf(t, path)
		assert.EqualValues(t, []uint32{12345, 54321}, []uint32{st.Uid, st.Gid})
	}

	// What is open is changed, whatever has its name by now.
	r := speak(t, false)
	h := r.open(path, openWrite)
	require.NoError(t, os.Rename(path, path+".old"))
	require.NoError(t, os.WriteFile(path, []byte("another"), 0o640))
	code, _ := r.status(packetFsetstat, h, uint32(hasSize|hasMode|hasTimes), uint64(2), uint32(0o600), uint32(7), uint32(8))
	assert.Equal(t, codeOK, code)
	st = statOf(t, path+".old")
	assert.Equal(t, []int64{2, 0o600, 7, 8}, []int64{st.Size, int64(st.Mode & 0o7777), st.Atim.Sec, st.Mtim.Sec})
	assert.EqualValues(t, 0o640, statOf(t, path).Mode&0o7777)
	kind, body := r.ask(packetFstat, h)
	require.Equal(t, byte(packetAttrs), kind)
	assert.EqualValues(t, 2, body.attributes().size)
	// Of several things, those that can be done are.
	code, _ = r.status(packetSetstat, dir, uint32(hasSize|hasMode), uint64(0), uint32(0o711))
	assert.Equal(t, codeFailure, code, "a folder has no size to set")
	assert.EqualValues(t, 0o711, statOf(t, dir).Mode&0o7777)
}

func TestResume(t *testing.T) {
	r, path := speak(t, false), filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("0123"), 0o600))
	// OpenSSH's client appends, PuTTY's writes where the file ends.
	h := r.open(path, openWrite|openCreate|openAppend)
	c, _ := r.status(packetWrite, h, uint64(4), "4567")
	require.Equal(t, codeOK, c)
	h = r.open(path, openWrite)
	c, _ = r.status(packetWrite, h, uint64(8), "89")
	require.Equal(t, codeOK, c)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "0123456789", string(content))
	c, _ = r.status(packetOpen, path, uint32(openWrite|openCreate|openExcl), uint32(0))
	assert.Equal(t, codeFailure, c, "it exists")
}

func TestLinks(t *testing.T) {
	c, dir := client(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("file"), []byte("x"), 0o644))
	require.NoError(t, c.Symlink("file", path("link")))
	target, err := os.Readlink(path("link"))
	require.NoError(t, err)
	assert.Equal(t, "file", target)
	target, err = c.ReadLink(path("link"))
	require.NoError(t, err)
	assert.Equal(t, "file", target)
	info, err := c.Lstat(path("link"))
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeSymlink)
	info, err = c.Stat(path("link"))
	require.NoError(t, err)
	assert.True(t, info.Mode().IsRegular())
	require.NoError(t, c.Link(path("file"), path("hard")))
	assert.Equal(t, statOf(t, path("file")).Ino, statOf(t, path("hard")).Ino)
	// lsetstat changes the link, setstat what it leads to.
	r := speak(t, false)
	code, _ := r.status(packetExtended, "lsetstat@openssh.com", path("link"), uint32(hasTimes), uint32(11), uint32(12))
	assert.Equal(t, codeOK, code)
	assert.EqualValues(t, 12, statOf(t, path("link")).Mtim.Sec)
	assert.NotEqualValues(t, 12, statOf(t, path("file")).Mtim.Sec)
	code, _ = r.status(packetSetstat, path("link"), uint32(hasTimes), uint32(21), uint32(22))
	assert.Equal(t, codeOK, code)
	assert.EqualValues(t, 22, statOf(t, path("file")).Mtim.Sec)
}

func TestRename(t *testing.T) {
	c, dir := client(t)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o644)) }
	write(a, "a")
	write(b, "b")
	err := c.Rename(a, b)
	require.Error(t, err, "a plain rename takes no name that is in use")
	content, err := os.ReadFile(b)
	require.NoError(t, err)
	assert.Equal(t, "b", string(content))
	require.NoError(t, c.PosixRename(a, b))
	content, err = os.ReadFile(b)
	require.NoError(t, err)
	assert.Equal(t, "a", string(content))
	require.NoError(t, c.Rename(b, a))
	assert.FileExists(t, a)
	assert.NoFileExists(t, b)
	require.NoError(t, os.Mkdir(b, 0o755))
	require.NoError(t, c.Rename(b, b+"2"), "a folder")
}

func TestRealpath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir+"/real/sub", 0o755))
	require.NoError(t, os.WriteFile(dir+"/real/file", nil, 0o644))
	for link, target := range map[string]string{"link": "real/sub", "dangling": "real/none", "loop": "loop", "far": "/nonexistent/x"} {
		require.NoError(t, os.Symlink(target, dir+"/"+link))
	}
	t.Chdir(dir)
	r := speak(t, false)
	for path, want := range map[string]string{
		"":                      dir,
		".":                     dir,
		"real/../real/sub/":     dir + "/real/sub",
		"link":                  dir + "/real/sub",
		"link/..":               dir + "/real",
		"link/../file":          dir + "/real/file",
		"new":                   dir + "/new",
		"link/new":              dir + "/real/sub/new",
		"link/new/":             dir + "/real/sub/new",
		"dangling":              dir + "/real/none",
		dir + "/./link/../sub":  dir + "/real/sub",
		"/":                     "/",
		"/..":                   "/",
		"real/file":             dir + "/real/file",
		"real//sub///../../new": dir + "/new",
	} {
		kind, body := r.ask(packetRealpath, path)
		if assert.Equal(t, byte(packetName), kind, "%q: %q", path, body.b) {
			assert.EqualValues(t, 1, body.uint32())
			assert.Equal(t, want, body.string(), path)
		}
	}
	for _, path := range []string{"none/new", "far", "none/..", "real/file/new", "loop", "a\x00b"} {
		kind, body := r.ask(packetRealpath, path)
		if assert.Equal(t, byte(packetStatus), kind, "%q: %q", path, body.b) {
			assert.NotEqual(t, codeOK, code(body.uint32()))
		}
	}
	t.Setenv("HOME", dir+"/link")
	for path, want := range map[string]string{"~": dir + "/real/sub", "~/../file": dir + "/real/file", "real": dir + "/real", "~root": "/root"} {
		kind, body := r.ask(packetExtended, "expand-path@openssh.com", path)
		if assert.Equal(t, byte(packetName), kind, path) {
			body.uint32()
			assert.Equal(t, want, body.string(), path)
		}
	}
	c, _ := r.status(packetExtended, "expand-path@openssh.com", "~nobody-of-that-name/x")
	assert.Equal(t, codeNoSuchFile, c)
	kind, body := r.ask(packetExtended, "home-directory", "")
	require.Equal(t, byte(packetName), kind)
	body.uint32()
	assert.Equal(t, dir+"/link", body.string())
}

func TestFolders(t *testing.T) {
	c, dir := client(t)
	want := []string{}
	for _, name := range []string{"two\nlines", "not utf-8 \xff\xfe", " ", "-rf", "*", "\x1b[2J", strings.Repeat("n", 255), "ü"} {
		want = append(want, name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	for i := range 3000 {
		name := fmt.Sprintf("%d", i)
		want = append(want, name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	entries, err := c.ReadDir(dir)
	require.NoError(t, err)
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	sort.Strings(want)
	sort.Strings(got)
	assert.Equal(t, want, got)
	require.NoError(t, c.Remove(filepath.Join(dir, "two\nlines")))
	assert.NoFileExists(t, filepath.Join(dir, "two\nlines"))

	// The lines are those of ls -l.
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	sub := filepath.Join(dir, "sub")
	old := time.Now().Add(-400 * 24 * time.Hour)
	require.NoError(t, os.WriteFile(sub+"/file", []byte("12345"), 0o640))
	require.NoError(t, os.Chtimes(sub+"/file", old, old))
	r := speak(t, false)
	kind, body := r.ask(packetOpendir, sub)
	require.Equal(t, byte(packetHandle), kind)
	h := body.string()
	kind, body = r.ask(packetReaddir, h)
	require.Equal(t, byte(packetName), kind)
	lines := map[string]string{}
	for n := body.uint32(); n > 0; n-- {
		name := body.string()
		lines[name] = body.string()
		body.attributes()
	}
	assert.Empty(t, body.b)
	assert.Len(t, lines, 3, "the folder itself and its parent are listed, as OpenSSH does")
	assert.Regexp(t, `^-rw-r-----   1 \S+ +\S+ +5 `+old.Format("Jan _2  2006")+` file$`, lines["file"])
	assert.Regexp(t, `^drwxr-xr-x   2 \S+ +\S+ +\d+ \w{3} [ \d]\d \d\d:\d\d \.$`, lines["."])
	code, _ := r.status(packetReaddir, h)
	assert.Equal(t, codeEOF, code)
	code, _ = r.status(packetReaddir, r.open(sub+"/file", openRead))
	assert.Equal(t, codeFailure, code, "a file is not read as a folder")
}

func TestErrors(t *testing.T) {
	r, dir := speak(t, false), t.TempDir()
	file, folder := filepath.Join(dir, "file"), filepath.Join(dir, "folder")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.NoError(t, os.MkdirAll(folder+"/full", 0o755))
	none := uint32(0)
	long := strings.Repeat("n", 300)
	for _, test := range []struct {
		name   string
		kind   byte
		fields []any
		want   code
	}{
		{"open what is not there", packetOpen, []any{dir + "/none", uint32(openRead), none}, codeNoSuchFile},
		{"open below a file", packetOpen, []any{file + "/x", uint32(openRead), none}, codeNoSuchFile},
		{"open a long name", packetOpen, []any{dir + "/" + long, uint32(openRead), none}, codeBadMessage},
		{"open a name with a NUL", packetOpen, []any{file + "\x00", uint32(openRead), none}, codeBadMessage},
		{"write a folder", packetOpen, []any{folder, uint32(openWrite), none}, codeFailure},
		{"stat nothing", packetStat, []any{""}, codeNoSuchFile},
		{"remove a folder", packetRemove, []any{folder}, codeFailure},
		{"rmdir a file", packetRmdir, []any{file}, codeNoSuchFile},
		{"rmdir a folder that is not empty", packetRmdir, []any{folder}, codeFailure},
		{"mkdir what exists", packetMkdir, []any{folder, none}, codeFailure},
		{"read no handle", packetRead, []any{"1234", uint64(0), uint32(1)}, codeFailure},
		{"read a strange handle", packetRead, []any{"", uint64(0), uint32(1)}, codeFailure},
		{"close no handle", packetClose, []any{"12345"}, codeNoSuchFile},
		{"readlink a file", packetReadlink, []any{file}, codeBadMessage},
		{"opendir a file", packetOpendir, []any{file}, codeNoSuchFile},
		{"an unknown extension", packetExtended, []any{"unknown@example.com", "x"}, codeUnsupported},
		{"an unknown kind", 99, []any{"x"}, codeUnsupported},
	} {
		c, text := r.status(test.kind, test.fields...)
		assert.Equal(t, test.want, c, "%s: %s", test.name, text)
		assert.NotEmpty(t, text)
		assert.NotContains(t, text, dir)
	}
	h := r.open(file, openRead)
	c, _ := r.status(packetWrite, h, uint64(0), "x")
	assert.Equal(t, codeNoSuchFile, c, "as OpenSSH says of a file that is open for reading")
	c, text := r.status(packetRead, h, uint64(1<<63), uint32(1))
	assert.Equal(t, codeBadMessage, c, text)
	c, _ = r.status(packetRead, h, uint64(0), uint32(10))
	assert.Equal(t, codeEOF, c)
	assert.NoError(t, r.end(t))
}

// TestPipes: nothing that waits for somebody else keeps the server waiting.
func TestPipes(t *testing.T) {
	r, path := speak(t, false), filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	for _, flags := range []uint32{openRead, openWrite, openRead | openWrite, openWrite | openCreate | openTrunc} {
		c, _ := r.status(packetOpen, path, flags, uint32(0))
		assert.Equal(t, codeFailure, c)
	}
	h := r.open("/dev/null", openWrite)
	c, _ := r.status(packetWrite, h, uint64(0), "gone")
	assert.Equal(t, codeOK, c)
	kind, body := r.ask(packetRead, r.open("/dev/zero", openRead), uint64(1<<40), uint32(3))
	require.Equal(t, byte(packetData), kind)
	assert.Equal(t, "\x00\x00\x00", body.string())
}

func TestReadOnly(t *testing.T) {
	r, dir := speak(t, true), t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o644))
	none := uint32(0)
	for _, test := range []struct {
		kind   byte
		fields []any
	}{
		{packetOpen, []any{file, uint32(openWrite), none}},
		{packetOpen, []any{file, uint32(openRead | openWrite), none}},
		{packetOpen, []any{file, uint32(openRead | openTrunc), none}},
		{packetOpen, []any{dir + "/new", uint32(openRead | openCreate), none}},
		{packetSetstat, []any{file, uint32(hasMode), uint32(0)}},
		{packetRemove, []any{file}},
		{packetMkdir, []any{dir + "/new", none}},
		{packetRmdir, []any{dir}},
		{packetRename, []any{file, dir + "/new"}},
		{packetSymlink, []any{file, dir + "/new"}},
		{packetExtended, []any{"posix-rename@openssh.com", file, dir + "/new"}},
		{packetExtended, []any{"hardlink@openssh.com", file, dir + "/new"}},
		{packetExtended, []any{"lsetstat@openssh.com", file, uint32(hasMode), uint32(0)}},
	} {
		c, _ := r.status(test.kind, test.fields...)
		assert.Equal(t, codePermissionDenied, c, "%d %v", test.kind, test.fields)
	}
	h := r.open(file, openRead)
	for kind, fields := range map[byte][]any{
		packetWrite:    {h, uint64(0), "x"},
		packetFsetstat: {h, uint32(hasMode), uint32(0)},
	} {
		c, _ := r.status(kind, fields...)
		assert.Equal(t, codePermissionDenied, c)
	}
	kind, body := r.ask(packetRead, h, uint64(0), uint32(100))
	require.Equal(t, byte(packetData), kind)
	assert.Equal(t, "content", body.string())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 1)
}

func TestExtensions(t *testing.T) {
	r, dir := speak(t, false), t.TempDir()
	from := filepath.Join(dir, "from")
	content := strings.Repeat("0123456789", 20000)
	require.NoError(t, os.WriteFile(from, []byte(content), 0o644))
	a, b := r.open(from, openRead), r.open(filepath.Join(dir, "to"), openRead|openWrite|openCreate)
	c, _ := r.status(packetExtended, "copy-data", a, uint64(0), uint64(0), b, uint64(0))
	assert.Equal(t, codeOK, c)
	c, _ = r.status(packetExtended, "copy-data", a, uint64(3), uint64(2), b, uint64(1))
	assert.Equal(t, codeOK, c)
	copied, err := os.ReadFile(filepath.Join(dir, "to"))
	require.NoError(t, err)
	assert.Equal(t, "034"+content[3:], string(copied))
	c, _ = r.status(packetExtended, "copy-data", b, uint64(0), uint64(0), b, uint64(5))
	assert.Equal(t, codeFailure, c, "a file would never end")
	c, _ = r.status(packetExtended, "fsync@openssh.com", b)
	assert.Equal(t, codeOK, c)

	kind, body := r.ask(packetExtended, "statvfs@openssh.com", dir)
	require.Equal(t, byte(packetExtendedReply), kind)
	require.Len(t, body.b, 88)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	assert.EqualValues(t, st.Bsize, body.uint64())
	kind, body = r.ask(packetExtended, "fstatvfs@openssh.com", a)
	require.Equal(t, byte(packetExtendedReply), kind)
	require.Len(t, body.b, 88)

	ids := func(n ...uint32) string {
		var b []byte
		for _, id := range n {
			b = binary.BigEndian.AppendUint32(b, id)
		}
		return string(b)
	}
	kind, body = r.ask(packetExtended, "users-groups-by-id@openssh.com", ids(0, 4000000000), ids(0))
	require.Equal(t, byte(packetExtendedReply), kind)
	users, groups := &request{b: body.bytes()}, &request{b: body.bytes()}
	assert.Equal(t, []string{"root", "", "root"}, []string{users.string(), users.string(), groups.string()})
	assert.False(t, users.bad || groups.bad)
}

func TestHandlesAreBounded(t *testing.T) {
	r, file := speak(t, false), filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	var handles []string
	for range maxHandles {
		handles = append(handles, r.open(file, openRead))
	}
	c, text := r.status(packetOpen, file, uint32(openRead), uint32(0))
	assert.Equal(t, codeFailure, c)
	assert.Contains(t, text, "open files")
	c, _ = r.status(packetClose, handles[5])
	assert.Equal(t, codeOK, c)
	r.open(file, openRead)
	c, _ = r.status(packetRead, handles[5], uint64(0), uint32(1))
	assert.Equal(t, codeFailure, c, "a handle that was closed is nobody's")
	assert.NoError(t, r.end(t))
}

// TestHostile: what is no packet ends the server, in order.
func TestHostile(t *testing.T) {
	greeting := packet(packetInit, uint32(3))
	for name, input := range map[string][]byte{
		"a long packet":              append(bytes.Clone(greeting), 0xff, 0xff, 0xff, 0xff, 1),
		"an empty packet":            append(bytes.Clone(greeting), 0, 0, 0, 0),
		"a packet before the first":  packet(packetStat, uint32(1), "/"),
		"no id":                      append(bytes.Clone(greeting), packet(packetStat, []byte{1, 2})...),
		"no version":                 packet(packetInit),
		"a string beyond its packet": append(bytes.Clone(greeting), packet(packetStat, uint32(1), uint32(1000), []byte("/"))...),
		"attributes without end":     append(bytes.Clone(greeting), packet(packetSetstat, uint32(1), "/nonexistent", uint32(hasExtended), uint32(1<<32-1))...),
		"half a packet":              append(bytes.Clone(greeting), packet(packetStat, uint32(1), "/")[:8]...),
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, false)
			go func() { _, _ = io.Copy(io.Discard, w.from) }()
			_, err := w.to.Write(input)
			require.NoError(t, err)
			w.to.Close()
			assert.Error(t, w.wait(t))
		})
	}
}

// TestClientThatDoesNotRead: the server reads no requests while its answers wait,
// and ends when the client goes.
func TestClientThatDoesNotRead(t *testing.T) {
	r, file := speak(t, false), filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, 1<<20), 0o644))
	h := r.open(file, openRead)
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		read := packet(packetRead, uint32(1), h, uint64(0), uint32(maxData))
		for {
			n, err := r.to.Write(read)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	var before int64
	require.Eventually(t, func() bool {
		now := sent.Load()
		stopped := now == before && now > 0
		before = now
		return stopped
	}, 20*time.Second, 200*time.Millisecond)
	assert.Less(t, sent.Load(), int64(4<<20))
	assert.NoError(t, r.end(t))
	<-done
}

func TestCodes(t *testing.T) {
	for errno, want := range map[unix.Errno]code{
		0: codeOK, unix.ENOENT: codeNoSuchFile, unix.ENOTDIR: codeNoSuchFile, unix.ELOOP: codeNoSuchFile,
		unix.EACCES: codePermissionDenied, unix.EPERM: codePermissionDenied, unix.ENOSYS: codeUnsupported,
		unix.EINVAL: codeBadMessage, unix.ENAMETOOLONG: codeBadMessage,
		unix.ENOSPC: codeFailure, unix.EDQUOT: codeFailure, unix.EEXIST: codeFailure, unix.EROFS: codeFailure,
	} {
		assert.Equal(t, want, codeOf(errno), errno)
	}
}

func FuzzServer(f *testing.F) {
	f.Add(packet(packetOpen, uint32(1), "/dev/null", uint32(openRead), uint32(0)))
	f.Add(packet(packetExtended, uint32(1), "limits@openssh.com"))
	f.Add(packet(packetExtended, uint32(1), "users-groups-by-id@openssh.com", "\x00\x00\x00\x00", ""))
	f.Add(packet(packetRealpath, uint32(1), "../.."))
	f.Fuzz(func(t *testing.T, input []byte) {
		dir := t.TempDir()
		in := filepath.Join(dir, "in")
		// Reading only: the paths are the fuzzer's.
		require.NoError(t, os.WriteFile(in, append(packet(packetInit, uint32(3)), input...), 0o600))
		from, err := os.Open(in)
		require.NoError(t, err)
		defer from.Close()
		to, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
		require.NoError(t, err)
		defer to.Close()
		s := newServer(from.Fd(), to.Fd())
		s.readOnly = true
		_ = s.serve()
	})
}
