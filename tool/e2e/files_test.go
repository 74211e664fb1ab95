// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// bigEnv makes TestBigFiles copy files of 2 GiB; they are smaller without it.
const bigEnv = "E2E_BIG"

// TestFiles is what people copy files with, with PAM off and on, directly and
// through the proxy.
func TestFiles(t *testing.T) {
	for _, service := range []string{"", "login"} {
		t.Run("pam="+service, func(t *testing.T) {
			w := newWorld(t, worldConfig{pam: service, noAudit: true})
			for _, route := range []harness.Route{harness.Direct, harness.ByProxy} {
				t.Run(route.String(), func(t *testing.T) {
					f := newCopying(t, w, route, w.daemon.Sign("alice", w.bob.Name), w.bob)
					for _, c := range f.copiers() {
						t.Run(c.name, func(t *testing.T) { f.roundTrip(t, c) })
					}
					t.Run("resume", f.resume)
					t.Run("sftp commands", f.commands)
					t.Run("failures", f.failures)
					t.Run("git", f.git)
				})
			}
			t.Run("client that dies", func(t *testing.T) { clientThatDies(t, w) })
			t.Run("unknown subsystem", func(t *testing.T) { unknownSubsystem(t, w) })
			assert.NotContains(t, w.daemon.Log(), "panic")
		})
	}
}

// copying is the clients that copy, for one user by one way.
type copying struct {
	world  *world
	route  harness.Route
	user   harness.User
	client *harness.Client
	putty  *harness.Putty
}

func newCopying(t *testing.T, w *world, route harness.Route, identity string, user harness.User) copying {
	t.Helper()
	harness.NeedPrograms(t, "scp", "sftp", "rsync", "git")
	return copying{w, route, user, harness.NewClient(t, w.daemon, identity), harness.NewPutty(t, w.daemon, identity)}
}

// options are OpenSSH's for the way to the node, and host is its name then.
func (f copying) options() (options []string, host string) {
	options = []string{"-F", f.client.Config}
	if f.route == harness.ByProxy {
		return append(options, "-J", f.user.Name+"@proxy"), f.user.Name + "@byname"
	}
	return options, f.user.Name + "@node"
}

// run runs a program to its end.
func (f copying) run(t *testing.T, program string, args ...string) harness.Result {
	t.Helper()
	return runProgram(t, nil, program, args...)
}

func runProgram(t *testing.T, env []string, program string, args ...string) harness.Result {
	t.Helper()
	limit := time.Minute
	if os.Getenv(bigEnv) != "" {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LANG=C"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	result := harness.Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		result.Code = exit.ExitCode()
		err = nil
	}
	require.NoError(t, err, "%s %v", program, args)
	return result
}

func (f copying) sftp(t *testing.T, lines ...string) harness.Result {
	t.Helper()
	batch := filepath.Join(t.TempDir(), "batch")
	require.NoError(t, os.WriteFile(batch, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	options, host := f.options()
	return f.run(t, "sftp", append(append(options, "-q", "-b", batch), host)...)
}

// scp copies; remote stands for the user and the node.
func (f copying) scp(t *testing.T, args ...string) harness.Result {
	t.Helper()
	options, host := f.options()
	return f.run(t, "scp", append(append(options, "-q"), at(host, args)...)...)
}

// remote stands before a path at the node.
const remote = "REMOTE:"

func at(host string, args []string) []string {
	var all []string
	for _, arg := range args {
		all = append(all, strings.Replace(arg, remote, host+":", 1))
	}
	return all
}

func (f copying) pscp(t *testing.T, args ...string) harness.Result {
	t.Helper()
	return f.putty.Pscp(f.route, f.user.Name, at(f.putty.Target(f.user.Name), args)...)
}

// ssh is the command by which others reach the node.
func (f copying) ssh() (command, host string) {
	options, host := f.options()
	return "ssh " + strings.Join(options, " "), host
}

// copier is one way to copy a folder and all that is in it.
type copier struct {
	name string
	// up copies the folder from into the folder to of the node, down copies back.
	up, down func(t *testing.T, from, to string) harness.Result
	// modes, times and links are kept, or not; odd names are taken, or not.
	modes, times, links, odd bool
	// noLinks leaves them out; others copy what they lead to.
	noLinks bool
}

func (f copying) copiers() []copier {
	type copyFunc = func(t *testing.T, from, to string) harness.Result
	scp := func(options ...string) (up, down copyFunc) {
		return func(t *testing.T, from, to string) harness.Result {
				return f.scp(t, append(options, from, remote+to)...)
			},
			func(t *testing.T, from, to string) harness.Result {
				return f.scp(t, append(options, remote+from, to)...)
			}
	}
	pscp := func(options ...string) (up, down copyFunc) {
		return func(t *testing.T, from, to string) harness.Result {
				return f.pscp(t, append(options, from, remote+to)...)
			},
			func(t *testing.T, from, to string) harness.Result {
				return f.pscp(t, append(options, remote+from, to)...)
			}
	}
	command, host := f.ssh()
	rsync := func(t *testing.T, from, to string) harness.Result {
		return f.run(t, "rsync", append([]string{"-a", "-e", command}, at(host, []string{from, to})...)...)
	}
	scpUp, scpDown := scp("-rp")
	oldUp, oldDown := scp("-O", "-rp")
	pscpUp, pscpDown := pscp("-sftp", "-r", "-p")
	oldPscpUp, oldPscpDown := pscp("-scp", "-r", "-p")
	return []copier{
		{
			name:  "sftp",
			up:    func(t *testing.T, from, to string) harness.Result { return f.sftp(t, "put -pR "+from+" "+to+"/") },
			down:  func(t *testing.T, from, to string) harness.Result { return f.sftp(t, "get -pR "+from+" "+to+"/") },
			modes: true, times: true, odd: true, noLinks: true,
		},
		{name: "scp", up: scpUp, down: scpDown, modes: true, times: true, odd: true},
		{name: "scp -O", up: oldUp, down: oldDown, modes: true, times: true},
		{
			name:  "rsync",
			up:    func(t *testing.T, from, to string) harness.Result { return rsync(t, from, remote+to) },
			down:  func(t *testing.T, from, to string) harness.Result { return rsync(t, remote+from, to) },
			modes: true, times: true, links: true, odd: true,
		},
		{name: "pscp -sftp", up: pscpUp, down: pscpDown, times: true},
		{name: "pscp -scp", up: oldPscpUp, down: oldPscpDown, times: true},
		{
			name: "psftp",
			up: func(t *testing.T, from, to string) harness.Result {
				return f.putty.Psftp(f.route, f.user.Name, "put -r "+from+" "+to+"/"+filepath.Base(from))
			},
			down: func(t *testing.T, from, to string) harness.Result {
				return f.putty.Psftp(f.route, f.user.Name, "get -r "+from+" "+to+"/"+filepath.Base(from))
			},
		},
	}
}

// folder makes a folder of the user's, beside the home.
func (f copying) folder(t *testing.T) string {
	t.Helper()
	dir := harness.OpenDir(t)
	require.NoError(t, os.Chown(dir, int(f.user.UID), int(f.user.GID)))
	return dir
}

// makeTree makes what is to be copied.
func makeTree(t *testing.T, c copier) string {
	t.Helper()
	dir := filepath.Join(harness.OpenDir(t), "tree")
	require.NoError(t, os.MkdirAll(dir+"/sub/empty", 0o755))
	big := make([]byte, 700_001)
	_, _ = rand.Read(big)
	files := map[string]string{"empty": "", "sub/small": "x", "sub/big": string(big), "with space": "space", "ünï": "utf-8", "-dash": "-", "quo'te\"$x*": "quotes"}
	if c.odd {
		files["two\nlines"], files["not utf-8 \xff"], files["back\\slash"] = "lines", "bytes", "\\"
	}
	old := time.Unix(1234567890, 0)
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), old.Add(time.Hour), old))
	}
	if !c.noLinks {
		require.NoError(t, os.Symlink("big", dir+"/sub/link"))
	}
	for name, mode := range map[string]fs.FileMode{"empty": 0o400, "sub/small": 0o755, "sub/big": 0o640, "sub": 0o711, "sub/empty": 0o700} {
		require.NoError(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	for _, name := range []string{"sub/empty", "sub", ""} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), old, old.Add(-time.Hour)))
	}
	return dir
}

// describe says what a copier keeps of a folder, by name.
func describe(t *testing.T, dir string, c copier) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		stat := os.Stat
		if c.links {
			stat = os.Lstat
		}
		info, err := stat(path)
		if err != nil {
			return err
		}
		text := info.Mode().Type().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d %x", len(content), sha256.Sum256(content))
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		if info.Mode()&os.ModeSymlink == 0 {
			if c.modes {
				text += " " + info.Mode().String()
			}
			// PuTTY leaves the times of folders alone.
			if c.times && (info.Mode().IsRegular() || c.modes) {
				text += " " + info.ModTime().UTC().Format(time.RFC3339)
			}
		}
		all[name] = text
		return nil
	}))
	return all
}

func (f copying) roundTrip(t *testing.T, c copier) {
	tree, there, back := makeTree(t, c), f.folder(t), harness.OpenDir(t)
	want := describe(t, tree, c)
	result := c.up(t, tree, there)
	require.Zero(t, result.Code, "%+v", result)
	assert.Equal(t, want, describe(t, filepath.Join(there, "tree"), c), "at the node")
	require.NoError(t, filepath.WalkDir(filepath.Join(there, "tree"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		assert.Equal(t, []uint32{f.user.UID, f.user.GID}, []uint32{st.Uid, st.Gid}, "the owner of %s", path)
		return nil
	}))
	result = c.down(t, filepath.Join(there, "tree"), back)
	require.Zero(t, result.Code, "%+v", result)
	assert.Equal(t, want, describe(t, filepath.Join(back, "tree"), c), "back again")
}

// resume goes on with a copy that has ended early. What is there already is not
// sent again, which the first bytes show.
func (f copying) resume(t *testing.T) {
	content := make([]byte, 300_000)
	_, _ = rand.Read(content)
	half := bytes.Repeat([]byte{'-'}, 100_000)
	want := append(bytes.Clone(half), content[len(half):]...)
	for _, c := range []struct {
		name string
		run  func(line string) harness.Result
		up   string
		down string
	}{
		{"sftp reput and reget", func(line string) harness.Result { return f.sftp(t, line) }, "reput", "reget"},
		{"sftp put -a and get -a", func(line string) harness.Result { return f.sftp(t, line) }, "put -a", "get -a"},
		{"psftp", func(line string) harness.Result { return f.putty.Psftp(f.route, f.user.Name, line) }, "reput", "reget"},
	} {
		there, here := f.folder(t), t.TempDir()
		require.NoError(t, os.WriteFile(here+"/whole", content, 0o644))
		require.NoError(t, os.WriteFile(there+"/up", half, 0o666))
		require.NoError(t, os.Chown(there+"/up", int(f.user.UID), int(f.user.GID)))
		require.NoError(t, os.WriteFile(here+"/down", half, 0o644))
		require.NoError(t, os.WriteFile(there+"/whole", content, 0o644))
		result := c.run(c.up + " " + here + "/whole " + there + "/up")
		require.Zero(t, result.Code, "%s: %+v", c.name, result)
		result = c.run(c.down + " " + there + "/whole " + here + "/down")
		require.Zero(t, result.Code, "%s: %+v", c.name, result)
		for _, path := range []string{there + "/up", here + "/down"} {
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(want, got), "%s: %s", c.name, path)
		}
	}
}

// commands are those of sftp that are no copies.
func (f copying) commands(t *testing.T) {
	dir, here := f.folder(t), t.TempDir()
	require.NoError(t, os.WriteFile(here+"/file", []byte("content"), 0o604))
	result := f.sftp(t,
		"cd "+dir, "lcd "+here,
		"put file", "chmod 600 file", "symlink file soft", "ln file hard",
		"mkdir sub", "rename file sub/moved", "ls -la", "df -h .", "pwd",
		"cp hard copied", "rm hard", "mkdir gone", "rmdir gone", "get soft hope", "get sub/moved")
	assert.NotZero(t, result.Code, "the link leads nowhere by then")
	assert.Contains(t, result.Stderr, "No such file")
	assert.Regexp(t, `(?m)^lrwxrwxrwx +\S+ `+f.user.Name+` +`+f.user.Name+` .* soft`, result.Stdout)
	assert.Regexp(t, `(?m)^-rw------- +\S+ `+f.user.Name+` .* 7 .* hard`, result.Stdout)
	assert.Contains(t, result.Stdout, "Remote working directory: "+dir)
	target, err := os.Readlink(dir + "/soft")
	require.NoError(t, err)
	assert.Equal(t, "file", target)
	assert.NoFileExists(t, dir+"/hard")
	assert.NoDirExists(t, dir+"/gone")
	copied, err := os.ReadFile(dir + "/copied")
	if assert.NoError(t, err) {
		assert.Equal(t, "content", string(copied))
	}
	// The mode of a new file is the client's, less the umask; of a folder, too.
	result = f.sftp(t, "put "+here+"/file "+dir+"/new")
	require.Zero(t, result.Code, "%+v", result)
	info, err := os.Stat(dir + "/new")
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o604), info.Mode())
	// The home is where a client begins, and ~ is the home.
	require.NoError(t, os.WriteFile(f.user.Home+"/at-home", []byte("home"), 0o644))
	require.Zero(t, f.sftp(t, "get at-home "+here+"/from-home").Code)
	result = f.scp(t, remote+"~/at-home", here+"/from-tilde")
	require.Zero(t, result.Code, "%+v", result)
	result = f.scp(t, remote+"~"+f.user.Name+"/at-home", here+"/from-tilde-user")
	require.Zero(t, result.Code, "%+v", result)
	for _, name := range []string{"/from-home", "/from-tilde", "/from-tilde-user"} {
		assert.FileExists(t, here+name)
	}
}

// failures are told in the words that clients have for them.
func (f copying) failures(t *testing.T) {
	dir, here := f.folder(t), t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/secret", []byte("root's alone"), 0o600))
	require.NoError(t, os.Mkdir(dir+"/locked", 0o700))
	require.NoError(t, syscall.Mkfifo(dir+"/fifo", 0o666))
	require.NoError(t, os.WriteFile(here+"/file", []byte("x"), 0o644))
	for _, read := range []struct{ path, says string }{
		{dir + "/none", "(?i)no such file|not found"},
		{dir + "/secret", "(?i)permission denied"},
		// Some ask whether it is there, and hear no more than that they may not know.
		{dir + "/locked/x", "(?i)permission denied|no such file|not found"},
		{"/etc/shadow", "(?i)permission denied"},
	} {
		for name, result := range map[string]harness.Result{
			"sftp":       f.sftp(t, "get "+read.path+" "+here+"/got"),
			"scp":        f.scp(t, remote+read.path, here+"/got"),
			"scp -O":     f.scp(t, "-O", remote+read.path, here+"/got"),
			"pscp -sftp": f.pscp(t, "-sftp", remote+read.path, here+"/got"),
			"pscp -scp":  f.pscp(t, "-scp", remote+read.path, here+"/got"),
			"psftp":      f.putty.Psftp(f.route, f.user.Name, "get "+read.path+" "+here+"/got"),
		} {
			assert.NotZero(t, result.Code, "%s %s", name, read.path)
			assert.Regexp(t, read.says, result.Stdout+result.Stderr, "%s %s", name, read.path)
		}
	}
	if got, err := os.ReadFile(here + "/got"); err == nil {
		assert.Empty(t, got, "some make the file first")
	}
	for name, result := range map[string]harness.Result{
		"sftp":       f.sftp(t, "put "+here+"/file "+dir+"/locked/file"),
		"scp":        f.scp(t, here+"/file", remote+"/root-file"),
		"pscp -sftp": f.pscp(t, "-sftp", here+"/file", remote+"/etc/file"),
	} {
		assert.NotZero(t, result.Code, name)
		assert.Regexp(t, "(?i)permission denied", result.Stdout+result.Stderr, name)
	}
	// Nobody is at the other end of the pipe, and the client goes on.
	result := f.sftp(t, "-put "+here+"/file "+dir+"/fifo", "put "+here+"/file "+dir+"/after")
	assert.Zero(t, result.Code, "%+v", result)
	assert.FileExists(t, dir+"/after")
}

func (f copying) git(t *testing.T) {
	command, host := f.ssh()
	bare, work := f.folder(t)+"/repository.git", t.TempDir()
	result := f.client.Run(f.user.Name+"@node", "git init -q --bare "+bare)
	require.Zero(t, result.Code, "%+v", result)
	git := func(args ...string) {
		t.Helper()
		result := runProgram(t, []string{
			"GIT_SSH_COMMAND=" + command, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=alice", "GIT_AUTHOR_EMAIL=alice@example.com",
			"GIT_COMMITTER_NAME=alice", "GIT_COMMITTER_EMAIL=alice@example.com",
		}, "git", args...)
		require.Zero(t, result.Code, "git %v: %+v", args, result)
	}
	content := make([]byte, 2<<20)
	_, _ = rand.Read(content)
	git("init", "-q", "-b", "main", work+"/a")
	require.NoError(t, os.WriteFile(work+"/a/file", content, 0o644))
	git("-C", work+"/a", "add", "file")
	git("-C", work+"/a", "commit", "-q", "-m", "one")
	git("-C", work+"/a", "push", "-q", host+":"+bare, "main:main")
	git("clone", "-q", "-b", "main", host+":"+bare, work+"/b")
	got, err := os.ReadFile(work + "/b/file")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
}

// clientThatDies leaves no server behind.
func clientThatDies(t *testing.T, w *world) {
	f := newCopying(t, w, harness.Direct, w.daemon.Sign("alice", w.bob.Name), w.bob)
	options, host := f.options()
	cmd := exec.Command("sftp", append(append(options, "-q"), host)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	// The ssh that it starts goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	require.NoError(t, cmd.Start())
	serves := func() bool {
		for _, p := range w.bob.Processes() {
			if p.Exe == programs.User {
				return true
			}
		}
		return false
	}
	harness.WaitFor(t, 20*time.Second, "the sftp server to run", serves)
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	_ = cmd.Wait()
	harness.WaitFor(t, 20*time.Second, "the sftp server to end", func() bool { return !serves() })
}

func unknownSubsystem(t *testing.T, w *world) {
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	result := client.Run("-s", w.bob.Name+"@node", "netconf")
	assert.Equal(t, 255, result.Code)
	assert.Contains(t, result.Stderr, "subsystem request failed")
	assert.Contains(t, w.daemon.Log(), `The client has asked for the subsystem \"netconf\"`)
}

// TestFilesInAudit: what sftp opens is the login's, and the login is one.
func TestFilesInAudit(t *testing.T) {
	w := newWorld(t, worldConfig{})
	f := newCopying(t, w, harness.Direct, w.daemon.Sign("alice", w.bob.Name), w.bob)
	w.audit.Rule("always,exit", "-F", "arch=b64", "-S", "openat", "-F", "auid="+w.bob.ID())
	dir, here := f.folder(t), t.TempDir()
	require.NoError(t, os.WriteFile(here+"/file", []byte("x"), 0o644))
	mark := w.audit.Fence()
	result := f.sftp(t, "put "+here+"/file "+dir+"/watched", "get "+dir+"/watched "+here+"/back")
	require.Zero(t, result.Code, "%+v", result)
	records := w.collect(mark, 2)
	ours := own(records)
	require.Len(t, ours, 2, harness.Show(ours))
	assert.Equal(t, []string{"USER_LOGIN", "USER_END"}, []string{ours[0].Type, ours[1].Type})
	assert.Equal(t, "success", ours[0].Get("res"))
	assert.Equal(t, "alice", ours[0].Get("teleportUser"))
	ses := ours[0].Kernel["ses"]
	require.NotEqual(t, harness.Unset, ses)
	// The file, in the kernel's own words.
	events := map[uint64]harness.Record{}
	opened := 0
	for _, r := range w.audit.Since(mark) {
		switch r.Type {
		case "SYSCALL":
			events[r.Serial] = r
		case "PATH":
			if r.Kernel["name"] != dir+"/watched" {
				break
			}
			call := events[r.Serial]
			if call.Kernel["exe"] != programs.User {
				break
			}
			opened++
			assert.Equal(t, w.bob.ID(), call.Kernel["auid"], call)
			assert.Equal(t, w.bob.ID(), call.Kernel["uid"], call)
			assert.Equal(t, ses, call.Kernel["ses"], call)
		}
	}
	assert.GreaterOrEqual(t, opened, 2, "written and read")
}

// TestFilesOfOddUsers: a shell that lets nobody in lets no files out, and a home
// is not needed.
func TestFilesOfOddUsers(t *testing.T) {
	w := newWorld(t, worldConfig{noAudit: true})
	here := t.TempDir()
	t.Run("nologin", func(t *testing.T) {
		user := harness.NewUser(t, harness.UserConfig{Shell: "/usr/sbin/nologin"})
		require.NoError(t, os.WriteFile(user.Home+"/file", []byte("x"), 0o644))
		f := newCopying(t, w, harness.Direct, w.daemon.Sign("alice", user.Name), user)
		for name, result := range map[string]harness.Result{
			"sftp":   f.sftp(t, "get file "+here+"/got"),
			"scp":    f.scp(t, remote+"file", here+"/got"),
			"scp -O": f.scp(t, "-O", remote+"file", here+"/got"),
			"psftp":  f.putty.Psftp(f.route, user.Name, "get file "+here+"/got"),
		} {
			assert.NotZero(t, result.Code, "%s: %+v", name, result)
			assert.NoFileExists(t, here+"/got", name)
		}
	})
	t.Run("home missing", func(t *testing.T) {
		user := harness.NewUser(t, harness.UserConfig{Home: "/nonexistent/home"})
		f := newCopying(t, w, harness.Direct, w.daemon.Sign("alice", user.Name), user)
		result := f.sftp(t, "pwd", "get /etc/passwd "+here+"/passwd")
		assert.Zero(t, result.Code, "%+v", result)
		assert.Contains(t, result.Stdout, "Remote working directory: /\n")
		assert.Contains(t, result.Stderr, "/nonexistent/home")
		assert.FileExists(t, here+"/passwd")
	})
}

// TestInternalSFTP is what a certificate allows whose force-command is OpenSSH's
// name for the server's own sftp server.
func TestInternalSFTP(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca, noAudit: true})
	with := func(t *testing.T, command string) copying {
		t.Helper()
		identity := ca.Sign(t, harness.Cert{
			KeyID: "alice", Logins: []string{w.bob.Name}, CriticalOptions: map[string]string{"force-command": command},
		}).Write(t, filepath.Join(harness.OpenDir(t), "id"))
		return newCopying(t, w, harness.Direct, identity, w.bob)
	}
	here := t.TempDir()
	require.NoError(t, os.WriteFile(here+"/file", []byte("content"), 0o644))
	t.Run("writing", func(t *testing.T) {
		f := with(t, "internal-sftp")
		dir := f.folder(t)
		for name, result := range map[string]harness.Result{
			"sftp":  f.sftp(t, "put "+here+"/file "+dir+"/sftp"),
			"scp":   f.scp(t, here+"/file", remote+dir+"/scp"),
			"pscp":  f.pscp(t, "-sftp", here+"/file", remote+dir+"/pscp"),
			"psftp": f.putty.Psftp(f.route, w.bob.Name, "put "+here+"/file "+dir+"/psftp"),
		} {
			assert.Zero(t, result.Code, "%s: %+v", name, result)
			assert.FileExists(t, dir+"/"+name)
		}
		// Whatever is asked for, files are what there is.
		result := f.client.Run(w.bob.Name+"@node", "echo no > "+dir+"/no; echo out")
		assert.Equal(t, harness.Result{}, result)
		result = f.client.Run("-T", w.bob.Name+"@node")
		assert.Equal(t, harness.Result{}, result)
		assert.NoFileExists(t, dir+"/no")
		result = f.client.Run("-tt", w.bob.Name+"@node")
		assert.Equal(t, 1, result.Code)
		assert.Contains(t, result.Stdout+result.Stderr, "This certificate allows sftp only.\r\n")
	})
	t.Run("reading", func(t *testing.T) {
		f := with(t, "internal-sftp -R")
		dir := f.folder(t)
		require.NoError(t, os.WriteFile(dir+"/there", []byte("there"), 0o666))
		result := f.sftp(t, "get "+dir+"/there "+here+"/there")
		assert.Zero(t, result.Code, "%+v", result)
		for _, line := range []string{
			"put " + here + "/file " + dir + "/there", "rm " + dir + "/there", "mkdir " + dir + "/new",
			"chmod 0 " + dir + "/there", "rename " + dir + "/there " + dir + "/new",
		} {
			result := f.sftp(t, line)
			assert.NotZero(t, result.Code, line)
			assert.Contains(t, result.Stderr, "ermission denied", line)
		}
	})
	t.Run("startup files", func(t *testing.T) {
		// They are the user's to write, and a shell of this login's would run them.
		f := with(t, "internal-sftp")
		rc := here + "/rc"
		require.NoError(t, os.WriteFile(rc, []byte("echo ran; touch "+w.bob.Home+"/ran; eval \"$SSH_ORIGINAL_COMMAND\"\n"), 0o644))
		for _, name := range []string{".bashrc", ".bash_profile", ".profile", ".zshenv", ".cshrc"} {
			result := f.sftp(t, "put "+rc+" "+name)
			require.Zero(t, result.Code, "%+v", result)
		}
		result := f.client.Run(w.bob.Name+"@node", "echo escaped; id")
		assert.Equal(t, harness.Result{}, result)
		result = f.sftp(t, "pwd")
		assert.Zero(t, result.Code, "%+v", result)
		assert.NoFileExists(t, w.bob.Home+"/ran")
		for _, name := range []string{".bashrc", ".bash_profile", ".profile", ".zshenv", ".cshrc"} {
			require.NoError(t, os.Remove(filepath.Join(w.bob.Home, name)))
		}
	})
	t.Run("unknown", func(t *testing.T) {
		for _, command := range []string{"internal-sftp -d /", "internal-sftp -R -u 0", "internal-sftp;id"} {
			f := with(t, command)
			result := f.sftp(t, "pwd")
			assert.NotZero(t, result.Code, command)
			if !strings.Contains(command, ";") {
				assert.Contains(t, result.Stderr, "internal-sftp", command)
			}
		}
	})
}

// TestNoFileCopy is a node that refuses copying: every client shows why, and
// nothing of it is a login.
func TestNoFileCopy(t *testing.T) {
	w := newWorld(t, worldConfig{noAudit: true, daemon: harness.DaemonConfig{SSH: []string{"ssh_file_copy: no"}}})
	f := newCopying(t, w, harness.Direct, w.daemon.Sign("alice", w.bob.Name), w.bob)
	here := t.TempDir()
	require.NoError(t, os.WriteFile(here+"/file", []byte("content"), 0o644))
	command, host := f.ssh()
	const why = "This node does not allow copying files (ssh_file_copy)."
	for name, result := range map[string]harness.Result{
		"sftp":       f.sftp(t, "put "+here+"/file got"),
		"scp":        f.scp(t, here+"/file", remote+"got"),
		"scp down":   f.scp(t, remote+"/etc/passwd", here+"/got"),
		"scp -O":     f.scp(t, "-O", here+"/file", remote+"got"),
		"scp -O -r":  f.scp(t, "-O", "-rp", remote+"/etc/passwd", here+"/got"),
		"rsync":      f.run(t, "rsync", "-e", command, here+"/file", host+":got"),
		"by hand":    f.client.Run(host, "/usr/lib/openssh/sftp-server"),
		"pscp -sftp": f.pscp(t, "-sftp", here+"/file", remote+"got"),
		"pscp -scp":  f.pscp(t, "-scp", here+"/file", remote+"got"),
		"psftp":      f.putty.Psftp(f.route, w.bob.Name, "put "+here+"/file got"),
	} {
		assert.NotZero(t, result.Code, "%s: %+v", name, result)
		assert.Contains(t, result.Stdout+result.Stderr, why, name)
	}
	assert.NoFileExists(t, w.bob.Home+"/got")
	assert.NoFileExists(t, here+"/got")
	assert.NotContains(t, w.daemon.Log(), "msg=Login.", "none of it was a login")
	assert.Equal(t, 10, strings.Count(w.daemon.Log(), "Refused: copying files"), "one line each")
	// All the rest works, which is why this is no wall.
	result := f.client.RunWith("carried", host, "cat > carried")
	assert.Zero(t, result.Code, "%+v", result)
	assert.Contains(t, w.daemon.Log(), "msg=Login.")
	got, err := os.ReadFile(w.bob.Home + "/carried")
	require.NoError(t, err)
	assert.Equal(t, "carried", string(got))
}

// TestBigFiles copies a large file by sftp and by scp, both ways.
func TestBigFiles(t *testing.T) {
	size := int64(64 << 20)
	if os.Getenv(bigEnv) != "" {
		size = 2 << 30
	}
	w := newWorld(t, worldConfig{noAudit: true})
	f := newCopying(t, w, harness.Direct, w.daemon.Sign("alice", w.bob.Name), w.bob)
	here, there := t.TempDir(), f.folder(t)
	source, err := os.Create(here + "/source")
	require.NoError(t, err)
	hash := sha256.New()
	// The end is no round number of anything.
	_, err = io.CopyN(io.MultiWriter(source, hash), rand.Reader, size+12345)
	require.NoError(t, err)
	require.NoError(t, source.Close())
	want := fmt.Sprintf("%x", hash.Sum(nil))
	sum := func(path string) string {
		t.Helper()
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		hash := sha256.New()
		_, err = io.Copy(hash, file)
		require.NoError(t, err)
		return fmt.Sprintf("%x", hash.Sum(nil))
	}
	for _, c := range []struct {
		name string
		run  func() harness.Result
		to   string
	}{
		{"sftp put", func() harness.Result { return f.sftp(t, "put "+here+"/source "+there+"/file") }, there + "/file"},
		{"sftp get", func() harness.Result { return f.sftp(t, "get "+there+"/file "+here+"/back") }, here + "/back"},
		{"scp up", func() harness.Result { return f.scp(t, here+"/source", remote+there+"/file2") }, there + "/file2"},
		{"scp down", func() harness.Result { return f.scp(t, remote+there+"/file2", here+"/back2") }, here + "/back2"},
		{"scp -O up", func() harness.Result { return f.scp(t, "-O", here+"/source", remote+there+"/file2") }, there + "/file2"},
		{"scp -O down", func() harness.Result { return f.scp(t, "-O", remote+there+"/file2", here+"/back2") }, here + "/back2"},
	} {
		started := time.Now()
		result := c.run()
		took := time.Since(started)
		require.Zero(t, result.Code, "%s: %+v", c.name, result)
		assert.Equal(t, want, sum(c.to), c.name)
		t.Logf("%s: %d bytes in %v, %.0f MiB/s", c.name, size, took.Round(time.Millisecond), float64(size)/(1<<20)/took.Seconds())
		if strings.Contains(c.name, "down") || strings.Contains(c.name, "get") {
			require.NoError(t, os.Remove(c.to))
		}
	}
}
