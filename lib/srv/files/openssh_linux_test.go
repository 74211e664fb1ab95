// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// OpenSSH's client before this server and before OpenSSH's own: the same commands
// must end the same way.

package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/testhost"
)

const asServer = "FILES_TEST_IS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		os.Exit(Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// servers returns the commands of this server and of OpenSSH's.
func servers(t *testing.T, dir string) (ours, theirs string) {
	t.Helper()
	for _, theirs = range []string{"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"} {
		if _, err := os.Stat(theirs); err == nil {
			break
		}
		theirs = ""
	}
	if _, err := exec.LookPath("sftp"); err != nil || theirs == "" {
		testhost.Skip(t, "needs OpenSSH's sftp and sftp-server: install openssh-client and openssh-server")
	}
	// Others than root cannot reach the test's own program.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	ours = filepath.Join(dir, "server")
	if err := os.WriteFile(ours, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// publicDir is a directory that everybody can reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "files")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unprivileged makes a command one of nobody's where the test is root's: root is
// refused nothing.
func unprivileged(cmd *exec.Cmd) {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// script runs shell commands that make what a case starts with. The directories
// local and remote are there; long ago is a year that no case touches.
const prepare = `
umask 022
mkdir local remote && cd local
printf 'one\n' > plain; printf '#!/bin/sh\n' > program; chmod 755 program
printf secret > secret; chmod 600 secret; printf odd > odd; chmod 4751 odd
mkdir -p tree/private tree/open/deep; chmod 700 tree/private; chmod 777 tree/open
printf a > tree/a; printf b > tree/private/b; printf c > tree/open/deep/c; chmod 640 tree/a; chmod 755 tree/open/deep/c
printf n > "tree/new
line"; printf u > "$(printf 'tree/not-\377-utf8')"; printf s > 'tree/two  spaces'
mkdir tree/readonly; printf r > tree/readonly/r; chmod 555 tree/readonly
head -c 3000000 /dev/zero | tr '\0' x > big
head -c 1000000 big > half; head -c 1000000 big > part
cd ../remote
cp -a ../local/. .
ln -s plain link; ln -s tree/open treelink; ln -s nowhere dangling; ln -s loop loop; ln -s /etc/passwd absolute
printf 'longer than one\n' > other; mkdir full empty sub; printf f > full/f
mkdir denied; printf d > denied/d; chmod 000 denied; printf x > unreadable; chmod 000 unreadable
cd ..
find local remote -exec touch -h -a -d '2001-02-03 04:05:06 UTC' {} + 2>/dev/null
find local remote -exec touch -h -m -d '2002-03-04 05:06:07 UTC' {} + 2>/dev/null
chmod 000 remote/denied
true
`

// outcome is what a run of the client left behind and said.
type outcome struct {
	exit       int
	said, tree string
}

func run(t *testing.T, dir, server, batch string) outcome {
	t.Helper()
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(work, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.Command("sh", "-c", prepare)
	sh.Dir = work
	unprivileged(sh)
	if b, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("preparing: %v\n%s", err, b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := exec.CommandContext(ctx, "sftp", "-q", "-b", "-", "-D", server)
	client.Dir = filepath.Join(work, "local")
	client.Env = append(os.Environ(), asServer+"=1", "TZ=UTC", "LC_ALL=C.UTF-8", "HOME=/nonexistent")
	client.Stdin = strings.NewReader("cd ../remote\n" + batch)
	unprivileged(client)
	said, err := client.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v, %v\n%s", server, err, ctx.Err(), said)
	}
	o := outcome{exit: client.ProcessState.ExitCode(), said: string(said), tree: tree(t, work)}
	rm := exec.Command("sh", "-c", "chmod -R u+rwx work; rm -rf work")
	rm.Dir = dir
	if b, err := rm.CombinedOutput(); err != nil {
		t.Fatalf("removing: %v\n%s", err, b)
	}
	return o
}

// tree is all that there is to know of what is in dir, one line each.
func tree(t *testing.T, dir string) string {
	t.Helper()
	// What the run itself has changed is new, and when exactly is no matter.
	when := func(ts unix.Timespec) string {
		if s, _ := ts.Unix(); time.Since(time.Unix(s, 0)) > time.Hour {
			return time.Unix(s, 0).UTC().Format(time.DateTime)
		}
		return "new"
	}
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%q mode %o owner %d:%d links %d changed %s", name, st.Mode, st.Uid, st.Gid, st.Nlink, when(st.Mtim))
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			// The walk itself reads folders.
			fmt.Fprintf(&b, " read %s", when(st.Atim))
			content, err := os.ReadFile(path)
			if err != nil {
				fmt.Fprintf(&b, " size %d", st.Size)
			} else {
				fmt.Fprintf(&b, " size %d %x", st.Size, sha256.Sum256(content))
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(path)
			fmt.Fprintf(&b, " to %q", target)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	return b.String()
}

func TestAsOpenSSH(t *testing.T) {
	dir := publicDir(t)
	ours, theirs := servers(t, dir)
	for _, tc := range []struct {
		name, batch string
		options     string
	}{
		{name: "put", batch: "put plain new\nput program new2\nput secret new3\nput odd new4\nput big new5\nput plain other"},
		{name: "put keeps", batch: "put -p plain new\nput -p program new2\nput -p secret new3\nput -p odd new4\nput -p secret other"},
		{name: "put folder", batch: "put -r tree new\nput -r tree empty\nput -r tree"},
		{name: "put folder keeps", batch: "put -pr tree new\nput -pr tree sub"},
		{name: "put and sync", batch: "put -f big new\nput -fp big new2"},
		{name: "put where it cannot be", batch: "-put plain missing/new\n-put plain denied/new\n-put plain plain/new\n-put plain loop\n-put plain unreadable\n-put plain dangling"},
		{name: "get", batch: "get plain new\nget program new2\nget secret new3\nget odd new4\nget big new5\nget link new6"},
		{name: "get keeps", batch: "get -p plain new\nget -p program new2\nget -p secret new3\nget -p odd new4\nget -p link new5"},
		{name: "get folder", batch: "get -r tree new\nget -r treelink new2"},
		{name: "get folder keeps", batch: "get -pr tree new\nget -pr treelink new2"},
		{name: "get what is not", batch: "-get missing\n-get denied/d\n-get unreadable\n-get loop\n-get dangling\n-get empty new\n-get plain/x\n-get /proc/self/mem x"},
		{name: "resume get", batch: "reget big part\nget -a big half"},
		{name: "resume put", batch: "reput big part\nput -a big half\n-reput part big\nreput big new"},
		{name: "rename", batch: "rename plain new\nrename program other\nrename empty sub\n-rename full sub/x\n-rename missing x\n-rename plain denied/x\n-rename other full\n-rename empty full"},
		{name: "rename as it was", batch: "-rename -l plain other\nrename -l plain new\n-rename -l empty full\nrename -l empty e2\n-rename -l missing x\nrename -l link l2\n-rename -l other other"},
		{name: "rm", batch: "rm plain\n-rm missing\n-rm empty\n-rm full\nrm link\nrm dangling\nrm treelink\n-rm denied/d\n-rm plain/x\nrm loop"},
		{name: "rmdir", batch: "rmdir empty\n-rmdir missing\n-rmdir plain\n-rmdir full\n-rmdir treelink\n-rmdir link\n-rmdir denied\n-rmdir denied/x\nrmdir sub/"},
		{name: "mkdir", batch: "mkdir new\n-mkdir empty\n-mkdir plain\n-mkdir missing/new\n-mkdir denied/new\nmkdir sub/new/\n-mkdir dangling"},
		{name: "ln", batch: "ln plain new\n-ln plain other\n-ln missing new2\n-ln empty new3\nln link new4\n-ln plain denied/x"},
		{name: "ln -s", batch: "ln -s plain new\nln -s ../any/where new2\nln -s /abs new3\n-ln -s x other\n-ln -s x missing/y\nln -s plain sub/new4\nls -l new new2 new3"},
		{name: "chmod", batch: "chmod 600 plain\nchmod 4755 program\nchmod 1777 sub\nchmod 2750 empty\n-chmod 600 missing\n-chmod 600 denied/d\nchmod 640 link\n-chmod 600 dangling\n-chmod -h 600 link\n-chmod 600 /etc/passwd"},
		{name: "chown", batch: "-chown 0 plain\n-chgrp 0 plain\n-chown 65534 plain\n-chgrp 65534 link\n-chgrp -h 65534 link\n-chown -h 65534 dangling\n-chown 65534 dangling\n-chown 0 missing"},
		{name: "ls", batch: "ls\nls -1\nls -a\nls -l\nls -la\nls -n\nls -ln tree\nls -lt\nls -lS\nls -lh\nls tree\nls link\nls -l link\nls -l treelink\nls treelink\nls -l tr*\nls t*/*\n-ls missing\n-ls denied\n-ls dangling\nls -l dangling\nls plain\n-ls no*such\nls -l /dev/null\nls -ld"},
		{name: "cd", batch: "pwd\ncd treelink\npwd\nls\ncd ..\npwd\n-cd missing\n-cd plain\n-cd denied\n-cd loop\ncd deep\npwd\ncd ../../../local\npwd\ncd /\npwd\ncd //etc//..//etc\npwd"},
		{name: "link and up", batch: "ls treelink/..\nget treelink/../a new\nput plain treelink/../new\nmkdir treelink/../new2\nrename treelink/../a treelink/../a2\nln -s x treelink/../l\nrm treelink/../private/b\nrmdir treelink/../private\nchmod 600 treelink/../new"},
		{name: "copy", batch: "copy plain new\ncopy big new2\ncopy program new3\ncopy plain other\n-copy missing x\n-copy plain denied/x\n-copy empty x\n-copy plain plain\ncp secret new4"},
		{name: "reading only", options: " -R", batch: "get -p plain new\nls -l\npwd\n-put plain x\n-put plain other\n-mkdir x\n-rm plain\n-rmdir empty\n-rename plain x\n-rename -l plain x\n-ln plain x\n-ln -s plain x\n-chmod 600 plain\n-chmod -h 600 plain\n-chown 65534 plain\n-reput big part\n-put -a big half\n-copy plain x"},
		{name: "names", batch: "put plain \"a b\"\nput plain 'it\"s'\nput plain \"\xff\xfe\"\nls\nrm \"\xff\xfe\"\nget 'tree/two  spaces' x\nget tree/not-* y\nmkdir \"d\xc3\xa9\"\nput plain -- -dash"},
		{name: "ends with an error", batch: "rm missing\nput plain never"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := run(t, dir, theirs+tc.options, tc.batch+"\n")
			got := run(t, dir, ours+tc.options, tc.batch+"\n")
			if got.exit != want.exit {
				t.Errorf("the client ended with %d, with OpenSSH's server with %d", got.exit, want.exit)
			}
			differ(t, "what the client said", got.said, want.said)
			differ(t, "what is there after it", got.tree, want.tree)
		})
	}
}

// differ reports the lines that only one side has.
func differ(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	has := func(lines []string, line string) bool {
		for _, l := range lines {
			if l == line {
				return true
			}
		}
		return false
	}
	var b bytes.Buffer
	for _, line := range w {
		if !has(g, line) {
			fmt.Fprintf(&b, "- %s\n", line)
		}
	}
	for _, line := range g {
		if !has(w, line) {
			fmt.Fprintf(&b, "+ %s\n", line)
		}
	}
	t.Errorf("%s differs from OpenSSH's (-):\n%s", what, b.String())
}
