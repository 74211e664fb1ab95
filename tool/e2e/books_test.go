// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/testhost"
	"teleport-auditd/tool/e2e/harness"
)

// The host's books, which the tests write to and put back.
const (
	utmpFile    = "/var/run/utmp"
	wtmpFile    = "/var/log/wtmp"
	btmpFile    = "/var/log/btmp"
	lastlogFile = "/var/log/lastlog"
)

// keepBooks makes the books that this host does not have, and removes those in the
// end. What was here before gets the entries of the test's own users, and keeps
// them: others log in meanwhile, and nobody's entry may be lost.
func keepBooks(t *testing.T) {
	t.Helper()
	harness.NeedPrograms(t, "who", "w", "last", "lastb", "lastlog", "utmpdump")
	for _, path := range []string{utmpFile, wtmpFile, btmpFile, lastlogFile} {
		switch _, err := os.Stat(path); {
		case err == nil:
		case errors.Is(err, os.ErrNotExist):
			harness.Undo(t, "rm -f "+path)
			mode := os.FileMode(0o664)
			if path == btmpFile {
				mode = 0o660
			}
			require.NoError(t, os.WriteFile(path, nil, mode))
		default:
			t.Fatal(err)
		}
	}
}

// entry is one of utmp, wtmp or btmp, as utmpdump reads it.
type entry struct {
	kind, pid, id, user, line, host, addr string
	time                                  time.Time
}

// entries reads a book.
func entries(t *testing.T, path string) []entry {
	t.Helper()
	cmd := exec.Command("utmpdump", path)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []entry
	for line := range strings.Lines(string(out)) {
		f := regexp.MustCompile(`\[([^]]*)\]`).FindAllStringSubmatch(line, -1)
		require.Len(t, f, 8, line)
		word := func(i int) string { return strings.TrimSpace(f[i][1]) }
		at, err := time.Parse("2006-01-02T15:04:05,999999-07:00", word(7))
		require.NoError(t, err)
		all = append(all, entry{word(0), strings.TrimLeft(word(1), "0"), word(2), word(3), word(4), word(5), word(6), at})
	}
	return all
}

// reader runs a program that reads the books, in UTC.
func reader(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C", "PROCPS_USERLEN=32", "PROCPS_FROMLEN=40")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// when is a record's time.
func when(t *testing.T, r harness.Record) time.Time {
	t.Helper()
	found := regexp.MustCompile(`msg=audit\((\d+)\.(\d+):`).FindStringSubmatch(r.Raw)
	require.NotNil(t, found, r.Raw)
	seconds, err := strconv.ParseInt(found[1], 10, 64)
	require.NoError(t, err)
	millis, err := strconv.ParseInt(found[2], 10, 64)
	require.NoError(t, err)
	return time.Unix(seconds, millis*1e6).UTC()
}

// books is what the tests of one world have in common.
type books struct {
	*world
	client   *harness.Client
	identity harness.Identity
}

// shell is a login shell on a terminal.
type shell struct {
	in     io.Writer
	screen *screen
	// line is the terminal, as the books have it.
	line string
}

// openShell opens a login shell on a connection.
func openShell(t *testing.T, client *ssh.Client) *shell {
	t.Helper()
	session, err := client.NewSession()
	require.NoError(t, err)
	t.Cleanup(func() { session.Close() })
	require.NoError(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
	in, err := session.StdinPipe()
	require.NoError(t, err)
	out, err := session.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, session.Shell())
	return followShell(t, in, out)
}

func followShell(t *testing.T, in io.Writer, out io.Reader) *shell {
	t.Helper()
	s := &shell{in: in, screen: new(screen)}
	go s.screen.follow(out)
	enter(t, in, "echo on:$(tty):")
	s.screen.wait(t, "on:/dev/pts/")
	found := func() []string { return regexp.MustCompile(`on:/dev/(pts/\d+):`).FindStringSubmatch(s.screen.text()) }
	harness.WaitFor(t, waitLimit, "the name of the terminal", func() bool { return found() != nil })
	s.line = found()[1]
	return s
}

// TestBooks: who, w, last, lastb and lastlog say what the audit trail says.
func TestBooks(t *testing.T) {
	for _, service := range []string{"", "login"} {
		t.Run("pam="+service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service})
			keepBooks(t)
			alice := w.daemon.Sign("alice", w.bob.Name)
			b := books{world: w, client: harness.NewClient(t, w.daemon, alice), identity: harness.ReadIdentity(t, alice)}
			t.Run("a login with a terminal", b.terminal)
			t.Run("two terminals", b.twoTerminals)
			t.Run("no terminal", b.noTerminal)
			t.Run("through the proxy", b.proxied)
			t.Run("the client is gone", func(t *testing.T) {
				b.ending(t, func(c *exec.Cmd, _ int) { _ = c.Process.Kill() })
			})
			t.Run("teleport-session is killed", func(t *testing.T) {
				b.ending(t, func(_ *exec.Cmd, pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) })
			})
			t.Run("the last login is shown", b.lastLogin)
			t.Run("refusals", b.refusals)
		})
	}
}

// terminal opens a shell by OpenSSH's client and looks at it from all sides.
func (b books) terminal(t *testing.T) {
	mark := b.audit.Fence()
	cmd := b.client.Command("-tt", b.bob.Name+"@node")
	s := startShell(t, cmd)
	records := b.collect(mark, 1)
	login := harness.OfType(records, "USER_LOGIN")[0]
	require.Equal(t, "/dev/"+s.line, login.Get("terminal"))
	began := when(t, login)

	assert.Regexp(t, fmt.Sprintf(`(?m)^%s +%s +%s +[.] +%s \(%s\)$`,
		b.bob.Name, s.line, began.Format("Jan _2 15:04"), login.Kernel["pid"], login.Get("addr")), reader(t, "who", "-u"))
	// w shows the process of the entry for a shell that began in the same 10 ms.
	assert.Regexp(t, fmt.Sprintf(`(?m)^%s +%s +%s +%s .*(bash|teleport-session)`, b.bob.Name, s.line, login.Get("addr"), began.Format("15:04")), reader(t, "w", "-h"))
	assert.Regexp(t, fmt.Sprintf(`(?m)^%s +%s +%s +%s +still logged in$`,
		b.bob.Name, s.line, login.Get("addr"), began.Format("Mon Jan _2 15:04")), reader(t, "last", "-w", "-i", b.bob.Name))
	assert.Regexp(t, fmt.Sprintf(`(?m)^%s +%s +%s +%s`,
		b.bob.Name, s.line, login.Get("addr"), began.Format("Mon Jan _2 15:04:")), reader(t, "lastlog", "-u", b.bob.Name))

	for _, words := range [][]string{{"who", "-u"}, {"w"}, {"lastlog", "-u", b.bob.Name}} {
		t.Logf("# %s\n%s", strings.Join(words, " "), reader(t, words[0], words[1:]...))
	}

	enter(t, s.in, "exit 0")
	require.NoError(t, cmd.Wait())
	records = b.collect(mark, 2)
	end := harness.OfType(records, "USER_END")[0]
	b.checkEnded(t, login, end, s.line)
	t.Logf("# last %s\n%s", b.bob.Name, reader(t, "last", b.bob.Name))
}

// startShell starts OpenSSH's client with a login shell.
func startShell(t *testing.T, cmd *exec.Cmd) *shell {
	t.Helper()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return followShell(t, in, out)
}

// checkEnded wants the books to have the login and its end as the trail has them.
func (b books) checkEnded(t *testing.T, login, end harness.Record, line string) {
	t.Helper()
	began, ended := when(t, login), when(t, end)
	own := slices.DeleteFunc(b.ofLogin(t, login), func(e entry) bool { return e.line != line })
	if assert.Len(t, own, 2, "a login and its end") {
		assert.Equal(t, entry{"7", login.Kernel["pid"], own[0].id, b.bob.Name, line, login.Get("addr"), login.Get("addr"), own[0].time}, own[0])
		assert.Equal(t, entry{"8", login.Kernel["pid"], "", "", line, "", "0.0.0.0", own[1].time}, own[1])
		assert.WithinDuration(t, began, own[0].time, 2*time.Second)
		assert.WithinDuration(t, ended, own[1].time, 3*time.Second)
	}
	assert.False(t, b.isHere(t, line))
	// It shows the newest first, and takes an end within the same second for none.
	var last string
	want := regexp.MustCompile(fmt.Sprintf(`^%s +%s +%s +%s.* - .* \(00:0\d\)$`, b.bob.Name, line, login.Get("addr"), began.Format("Mon Jan _2 15:04:")))
	assert.True(t, harness.Eventually(waitLimit, func() bool {
		all := reader(t, "last", "-w", "-i", "-F", b.bob.Name)
		last = regexp.MustCompile(`(?m)^\S+ +` + line + ` .*$`).FindString(all)
		return want.MatchString(last)
	}), "last says %q, not %v", last, want)
}

// ends waits for the end of a login, of which the daemon writes a record too.
func (b books) ends(t *testing.T, mark harness.Mark) (login, end harness.Record) {
	t.Helper()
	records := b.collect(mark, 2)
	logins, ends := harness.OfType(own(records), "USER_LOGIN"), harness.OfType(own(records), "USER_END")
	require.Len(t, logins, 1, harness.Show(records))
	require.Len(t, ends, 1, harness.Show(records))
	return logins[0], ends[0]
}

func (b books) twoTerminals(t *testing.T) {
	mark := b.audit.Fence()
	client := harness.MustDial(t, b.daemon.NodeAddr, b.bob.Name, b.identity)
	first, second := openShell(t, client), openShell(t, client)
	require.NotEqual(t, first.line, second.line)
	who := reader(t, "who", "-u")
	for _, s := range []*shell{first, second} {
		assert.Regexp(t, fmt.Sprintf(`(?m)^%s +%s .*\(127\.0\.0\.1\)$`, b.bob.Name, s.line), who)
		assert.Contains(t, reader(t, "w", "-h"), s.line)
	}
	// One ends, and the connection lives on.
	enter(t, first.in, "exit 0")
	harness.WaitFor(t, waitLimit, "the first terminal's end", func() bool { return !b.isHere(t, first.line) })
	assert.True(t, b.isHere(t, second.line))
	third := openShell(t, client)
	assert.True(t, b.isHere(t, third.line))
	client.Close()
	login, end := b.ends(t, mark)
	assert.Equal(t, "/dev/"+first.line, login.Get("terminal"), "the login's own terminal is its first")
	for _, s := range []*shell{second, third} {
		if s.line != first.line {
			b.checkEnded(t, login, end, s.line)
		}
	}
	assert.NotContains(t, reader(t, "who"), b.bob.Name)
	kinds := map[string]int{}
	for _, e := range b.ofLogin(t, login) {
		kinds[e.kind]++
	}
	assert.Equal(t, map[string]int{"7": 3, "8": 3}, kinds)
}

func (b books) noTerminal(t *testing.T) {
	state := func() []string {
		all := []string{reader(t, "lastlog", "-u", b.bob.Name)}
		for _, path := range []string{utmpFile, wtmpFile, btmpFile} {
			all = append(all, fmt.Sprint(path, ofUser(t, path, b.bob.Name)))
		}
		return all
	}
	before, mark := state(), b.audit.Fence()
	require.Equal(t, "hello\n", b.client.Run("-T", b.bob.Name+"@node", "echo hello").Stdout)
	require.Equal(t, "hello\n", b.client.RunWith("echo hello\n", "-T", b.bob.Name+"@node").Stdout)
	for _, login := range harness.OfType(b.collect(mark, 4), "USER_LOGIN") {
		assert.Empty(t, b.ofLogin(t, login))
	}
	assert.Equal(t, before, state())
}

func (b books) proxied(t *testing.T) {
	mark := b.audit.Fence()
	result := b.client.RunWith("exit 0\n", "-J", b.bob.Name+"@proxy", "-tt", b.bob.Name+"@byname")
	require.Zero(t, result.Code, result.Stderr)
	login, end := b.ends(t, mark)
	b.checkEnded(t, login, end, strings.TrimPrefix(login.Get("terminal"), "/dev/"))
}

// ending opens a shell that somebody else ends.
func (b books) ending(t *testing.T, end func(client *exec.Cmd, teleportSession int)) {
	mark := b.audit.Fence()
	cmd := b.client.Command("-tt", b.bob.Name+"@node")
	s := startShell(t, cmd)
	pid, err := strconv.Atoi(harness.OfType(b.collect(mark, 1), "USER_LOGIN")[0].Kernel["pid"])
	require.NoError(t, err)
	end(cmd, pid)
	login, record := b.ends(t, mark)
	// Who writes the record writes the books right before or after it.
	assert.True(t, harness.Eventually(waitLimit, func() bool { return !b.isHere(t, s.line) && len(b.ofLogin(t, login)) == 2 }))
	b.checkEnded(t, login, record, s.line)
	assert.NotContains(t, reader(t, "last", b.bob.Name), "no logout")
}

// isHere tells whether the user is logged in on a terminal, as who has it.
func (b books) isHere(t *testing.T, line string) bool {
	t.Helper()
	return regexp.MustCompile(`(?m)^` + b.bob.Name + ` +` + line + ` `).MatchString(reader(t, "who"))
}

// ofUser and ofPID pick entries: tests of other packages make some meanwhile.
func ofUser(t *testing.T, path, user string) []entry {
	t.Helper()
	return slices.DeleteFunc(entries(t, path), func(e entry) bool { return e.user != user })
}

func ofPID(t *testing.T, path, pid string) []entry {
	t.Helper()
	return slices.DeleteFunc(entries(t, path), func(e entry) bool { return e.pid != pid })
}

// ofLogin picks a login's entries from wtmp, where others have had its pid before.
func (b books) ofLogin(t *testing.T, login harness.Record) (own []entry) {
	t.Helper()
	began := when(t, login).Add(-2 * time.Second)
	for _, e := range entries(t, wtmpFile) {
		if e.pid == login.Kernel["pid"] && e.time.After(began) {
			own = append(own, e)
		}
	}
	return own
}

func (b books) lastLogin(t *testing.T) {
	shown := func(args ...string) string {
		args = append([]string{"-tt", b.bob.Name + "@node"}, args...)
		result := b.client.RunWith("exit 0\n", args...)
		require.Zero(t, result.Code, result.Stderr)
		return regexp.MustCompile(`(?m)^Last login: .*$`).FindString(result.Stdout)
	}
	shown()
	before := ofUser(t, wtmpFile, b.bob.Name)
	line := shown()
	login := before[len(before)-1]
	// The daemon runs where the test does, in its time zone.
	want := "Last login: " + login.time.Local().Format(time.ANSIC) + " from 127.0.0.1"
	assert.Equal(t, want, strings.TrimSuffix(line, "\r"))
	assert.Empty(t, shown("true"), "a command's output has it not")
	require.NoError(t, os.WriteFile(b.bob.Home+"/.hushlogin", nil, 0o644))
	defer os.Remove(b.bob.Home + "/.hushlogin")
	assert.Empty(t, shown(), "who wants no text gets none")
}

func (b books) refusals(t *testing.T) {
	stranger := harness.NewCA(t).Sign(t, harness.Cert{KeyID: "mallory", Logins: []string{b.bob.Name}})
	// The name is hostile, and the certificate good.
	nobody := "nobody\x1b[2J\nhere" + strings.Repeat("x", 40)
	for _, c := range []struct {
		name, login string
		identity    []harness.Identity
		entered     string
	}{
		{"untrusted", b.bob.Name, []harness.Identity{stranger}, b.bob.Name},
		{"two untrusted keys", b.bob.Name, []harness.Identity{stranger, harness.PlainKey(t)}, b.bob.Name},
		{"not a principal", b.carol.Name, []harness.Identity{b.identity}, b.carol.Name},
		{"no such user", nobody, []harness.Identity{b.identity}, "nobody??2J?here" + strings.Repeat("x", 17)},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark, before := b.audit.Fence(), ofUser(t, btmpFile, c.entered)
			_, err := harness.Dial(t, b.daemon.NodeAddr, c.login, c.identity...)
			require.Error(t, err)
			b.checkRefused(t, mark, len(before), c.entered)
		})
	}
	t.Run("a port probe", func(t *testing.T) {
		count := func() int { return len(ofPID(t, btmpFile, strconv.Itoa(b.daemon.Pid))) }
		before := count()
		conn, err := net.Dial("tcp", b.daemon.NodeAddr)
		require.NoError(t, err)
		conn.Close()
		b.audit.Fence()
		assert.Equal(t, before, count())
	})
}

// checkRefused wants one failed USER_LOGIN and one entry in btmp, of one person.
func (b books) checkRefused(t *testing.T, mark harness.Mark, before int, user string) {
	t.Helper()
	records := b.audit.Collect(mark, b.failures, func(r []harness.Record) bool { return len(r) >= 1 })
	require.Len(t, records, 1)
	all := ofUser(t, btmpFile, user)
	require.Len(t, all, before+1)
	got := all[before]
	assert.Equal(t, entry{"6", records[0].Kernel["pid"], "", user, "ssh:notty", records[0].Get("addr"), records[0].Get("addr"), got.time}, got)
	assert.WithinDuration(t, when(t, records[0]), got.time, 2*time.Second)
	// utmpdump has question marks for brackets, and lastb has not.
	lastb := strings.ReplaceAll(reader(t, "lastb", "-w", "-i"), "[", "?")
	lines := regexp.MustCompile(fmt.Sprintf(`(?m)^%s +ssh:notty +127\.0\.0\.1 .*$`, regexp.QuoteMeta(user))).FindAllString(lastb, -1)
	require.Len(t, lines, before+1, lastb)
	t.Logf("# lastb\n%s\n%s", lines[0], records[0])
}

// failures picks the failed logins.
func (b books) failures(records []harness.Record) (picked []harness.Record) {
	for _, r := range harness.OfType(records, "USER_LOGIN") {
		if r.Get("res") == "failed" && filepath.Dir(r.Get("exe")) == programs.Dir {
			picked = append(picked, r)
		}
	}
	return picked
}

// TestBooksPAMRefuses: what teleport-session refuses it enters itself.
func TestBooksPAMRefuses(t *testing.T) {
	for _, service := range []string{"deny-account", "deny-session"} {
		t.Run(service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service})
			keepBooks(t)
			alice := w.daemon.Sign("alice", w.bob.Name)
			b := books{world: w, client: harness.NewClient(t, w.daemon, alice), identity: harness.ReadIdentity(t, alice)}
			for _, terminal := range []string{"-T", "-tt"} {
				mark, before, wtmp := w.audit.Fence(), ofUser(t, btmpFile, w.bob.Name), ofUser(t, wtmpFile, w.bob.Name)
				require.Equal(t, 255, b.client.Run(terminal, w.bob.Name+"@node", "true").Code)
				b.checkRefused(t, mark, len(before), w.bob.Name)
				assert.Equal(t, wtmp, ofUser(t, wtmpFile, w.bob.Name), "nobody has logged in")
			}
		})
	}
}

// TestBooksFileLimit: the limit of file sizes that a user gets is no limit of the
// host's books.
func TestBooksFileLimit(t *testing.T) {
	w := newWorld(t, worldConfig{pam: "login"})
	keepBooks(t)
	limits := "* hard fsize 0\n* soft fsize 0\n"
	require.NoError(t, os.WriteFile(w.pamDir+"/limits.conf", []byte(limits), 0o644))
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	mark := w.audit.Fence()
	result := client.Run("-tt", w.bob.Name+"@node", "ulimit -f")
	require.Equal(t, "0\r\n", result.Stdout, "the user has the limit: %s", result.Stderr)
	b := books{world: w}
	// Root may lift a limit, but not in every container.
	if exec.Command("prlimit", "--fsize=0:0", "prlimit", "--fsize=unlimited", "true").Run() != nil {
		b.collect(mark, 2)
		assert.Contains(t, w.daemon.Log(), "the host's books of logins are not complete: writing to ")
		return
	}
	login, end := b.ends(t, mark)
	b.checkEnded(t, login, end, strings.TrimPrefix(login.Get("terminal"), "/dev/"))
}

// TestBooksLikeSSHD: entries of ours and of the host's sshd differ in nothing but
// pid, terminal, time and client port.
func TestBooksLikeSSHD(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca})
	keepBooks(t)
	harness.Output(t, "usermod", "-p", "*", w.bob.Name)
	addr := startSSHD(t, ca)
	identity := ca.Sign(t, harness.Cert{KeyID: "alice", Logins: []string{w.bob.Name}})
	type book struct{ utmp, ended, wtmp, lastlog, btmp []byte }
	size := map[string]int64{}
	read := func(path string, at, n int64) []byte {
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		text := make([]byte, n)
		_, err = f.ReadAt(text, at)
		require.NoError(t, err, "%s at %d", path, at)
		return text
	}
	// The layout is that of utmp(5) on this machine; the rest of the test is for
	// any.
	const entrySize, lastlogSize = 384, 292
	if strconv.IntSize != 64 || !slices.Contains([]string{"x86_64"}, strings.TrimSpace(harness.Output(t, "uname", "-m"))) {
		testhost.Skip(t, "it knows the layout of x86_64 only")
	}
	// Tests of other packages log others in meanwhile: a login's end has its pid.
	grown := func(path string) (own []byte) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		var pid []byte
		for e := range slices.Chunk(read(path, size[path], info.Size()-size[path]), entrySize) {
			if bytes.HasPrefix(e[44:], []byte(w.bob.Name+"\x00")) {
				pid = e[4:8]
			}
			if pid != nil && bytes.Equal(pid, e[4:8]) {
				own = append(own, e...)
			}
		}
		return own
	}
	look := func(addr string, password bool) (b book) {
		for _, path := range []string{wtmpFile, btmpFile} {
			info, err := os.Stat(path)
			require.NoError(t, err)
			size[path] = info.Size()
		}
		client := harness.MustDial(t, addr, w.bob.Name, identity)
		s := openShell(t, client)
		slot := func() (found []byte) {
			utmp, err := os.ReadFile(utmpFile)
			require.NoError(t, err)
			for i := 0; i < len(utmp); i += entrySize {
				if bytes.HasPrefix(utmp[i+8:], []byte(s.line+"\x00")) {
					found = utmp[i : i+entrySize]
				}
			}
			return found
		}
		b.utmp = slot()
		client.Close()
		harness.WaitFor(t, waitLimit, "the end in wtmp", func() bool { return len(grown(wtmpFile)) >= 2*entrySize })
		harness.WaitFor(t, waitLimit, "the end in utmp", func() bool { return slot()[0] == 8 })
		b.ended = slot()
		b.wtmp = grown(wtmpFile)
		b.lastlog = read(lastlogFile, int64(w.bob.UID)*lastlogSize, lastlogSize)

		config := harness.ClientConfig(w.bob.Name, harness.PlainKey(t))
		if password {
			// sshd enters wrong passwords only.
			config.Auth = []ssh.AuthMethod{ssh.Password("wrong")}
		}
		_, err := ssh.Dial("tcp", addr, config)
		require.Error(t, err)
		harness.WaitFor(t, waitLimit, "the refusal in btmp", func() bool { return len(grown(btmpFile)) >= entrySize })
		b.btmp = grown(btmpFile)
		return b
	}
	// What is another at every login: pid, the terminal's name, the time.
	mask := func(text []byte, size int, ranges ...[2]int) []byte {
		text = bytes.Clone(text)
		for i := 0; i < len(text); i += size {
			for _, r := range ranges {
				clear(text[i+r[0] : i+r[1]])
			}
		}
		return text
	}
	entry := func(text []byte) []byte {
		text = mask(text, entrySize, [2]int{4, 8}, [2]int{8 + len("pts/"), 40}, [2]int{340, 348})
		for i := 0; i < len(text); i += entrySize {
			// The id is of the terminal's name, or there is none.
			if text[i+40] != 0 {
				copy(text[i+40:], "s/NN")
			}
		}
		return text
	}
	ours, theirs := look(w.daemon.NodeAddr, false), look(addr, true)
	assert.Equal(t, entry(theirs.utmp), entry(ours.utmp))
	assert.Equal(t, entry(theirs.ended), entry(ours.ended))
	assert.Equal(t, entry(theirs.wtmp), entry(ours.wtmp))
	assert.Equal(t, entry(theirs.btmp), entry(ours.btmp))
	last := func(text []byte) []byte { return mask(text, lastlogSize, [2]int{0, 4}, [2]int{4 + len("pts/"), 36}) }
	assert.Equal(t, last(theirs.lastlog), last(ours.lastlog))
	t.Logf("utmpdump, sshd's entries last:\n%s", reader(t, "utmpdump", wtmpFile))
}

// startSSHD starts the host's sshd and returns its address.
func startSSHD(t *testing.T, ca harness.CA) string {
	t.Helper()
	harness.NeedPrograms(t, "sshd", "ssh-keygen")
	path, err := exec.LookPath("sshd")
	require.NoError(t, err)
	const separation = "/run/sshd"
	if _, err := os.Stat(separation); errors.Is(err, os.ErrNotExist) {
		harness.Undo(t, "rmdir "+separation+" 2>/dev/null || :")
		require.NoError(t, os.Mkdir(separation, 0o755))
	}
	dir := harness.OpenDir(t)
	key := filepath.Join(dir, "host_key")
	harness.Output(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	addr := harness.FreeAddr(t)
	conf := filepath.Join(dir, "sshd_config")
	require.NoError(t, os.WriteFile(conf, []byte(fmt.Sprintf(`ListenAddress %s
HostKey %s
PidFile none
TrustedUserCAKeys %s
UsePAM no
AuthorizedKeysFile none
PasswordAuthentication yes
KbdInteractiveAuthentication no
MaxAuthTries 1
UseDNS no
`, addr, key, ca.WriteTrust(t, dir))), 0o600))
	cmd := exec.Command(path, "-D", "-e", "-f", conf)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// Its children hold the pipe, and may outlive it.
	cmd.WaitDelay = time.Second
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd said:\n%s", out.String())
		}
	})
	harness.WaitFor(t, waitLimit, "sshd to listen", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr
}
