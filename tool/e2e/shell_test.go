// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// shells is a daemon whose records nobody reads, so that its tests need not have
// the kernel's audit state to themselves, and somebody who may log in.
type shells struct {
	daemon *harness.Daemon
	bob    harness.User
	client *harness.Client
	putty  *harness.Putty
}

// newShells starts a daemon with further lines of ssh_service.
func newShells(t *testing.T, config harness.DaemonConfig, lines ...string) *shells {
	t.Helper()
	harness.NeedRoot(t)
	config.Programs = built(t)
	config.Auth, config.Proxy, config.Node, config.AuditMode = true, true, true, "off"
	config.SSH = append(config.SSH, lines...)
	s := &shells{bob: harness.NewUser(t, harness.UserConfig{})}
	s.daemon = harness.StartDaemon(t, config)
	identity := s.daemon.Sign("alice", s.bob.Name)
	s.client = harness.NewClient(t, s.daemon, identity)
	s.putty = harness.NewPutty(t, s.daemon, identity)
	return s
}

// way is one client on one way to the node.
type way struct {
	name string
	// run runs a command, with input, and without a terminal unless options ask
	// for one; no command is a shell.
	run func(input string, terminal bool, command ...string) harness.Result
	// start returns a command that has not been started.
	start func(terminal bool, command ...string) *exec.Cmd
}

// ways are OpenSSH's client and PuTTY's, directly and through the proxy. verbose
// makes them tell what they negotiate.
func (s *shells) ways(verbose ...string) (all []way) {
	login := s.bob.Name
	for _, route := range []harness.Route{harness.Direct, harness.ByProxy} {
		openssh := func(terminal bool, command []string) []string {
			args := append([]string{"-e", "none"}, verbose...)
			if terminal {
				args = append(args, "-tt")
			}
			host := "@node"
			if route == harness.ByProxy {
				args = append(args, "-J", login+"@proxy")
				host = "@byname"
			}
			return append(append(args, login+host), command...)
		}
		plink := func(terminal bool, command []string) []string {
			var args []string
			for _, word := range verbose {
				if word == "-vv" {
					word = "-v"
				}
				args = append(args, word)
			}
			if terminal {
				args = append(args, "-t")
			} else {
				args = append(args, "-T")
			}
			return append(append(args, s.putty.Target(login)), command...)
		}
		all = append(all,
			way{
				name: "ssh " + route.String(),
				run: func(input string, terminal bool, command ...string) harness.Result {
					return s.client.RunWith(input, openssh(terminal, command)...)
				},
				start: func(terminal bool, command ...string) *exec.Cmd {
					return s.client.Command(openssh(terminal, command)...)
				},
			},
			way{
				name: "plink " + route.String(),
				run: func(input string, terminal bool, command ...string) harness.Result {
					return s.putty.Run(input, "plink", route, login, plink(terminal, command)...)
				},
				start: func(terminal bool, command ...string) *exec.Cmd {
					return s.putty.Command("plink", route, login, plink(terminal, command)...)
				},
			})
	}
	return all
}

// each runs a test on every way.
func (s *shells) each(t *testing.T, f func(t *testing.T, w way), verbose ...string) {
	t.Helper()
	for _, w := range s.ways(verbose...) {
		t.Run(w.name, func(t *testing.T) { f(t, w) })
	}
}

// everyByte is each byte in each place of a few, and then what is not text.
func everyByte(t *testing.T, length int) []byte {
	t.Helper()
	data := make([]byte, length)
	_, err := rand.Read(data)
	require.NoError(t, err)
	for i := range 256 {
		data[i], data[511-i] = byte(i), byte(i)
	}
	return data
}

// TestPutty: PuTTY's programs, which are another implementation of SSH than the
// other tests' clients, log in.
func TestPutty(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	for _, route := range []harness.Route{harness.Direct, harness.ByProxy} {
		t.Run(route.String(), func(t *testing.T) {
			result := s.putty.Plink("some input\n", route, s.bob.Name, nil, "cat; echo err >&2; exit 3")
			assert.Equal(t, "some input\n", result.Stdout)
			assert.Equal(t, 3, result.Code, result.Stderr)
			assert.Contains(t, result.Stderr, "err\n")
			result = s.putty.Plink("echo $0; exit 4\n", route, s.bob.Name, []string{"-t"})
			assert.Contains(t, result.Stdout, "-bash\r\n")
			assert.Equal(t, 4, result.Code, result.Stderr)
		})
	}
}

// TestStreams: what goes in and out arrives as it is, and how it ends.
func TestStreams(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	data := everyByte(t, 1<<20)
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	file := filepath.Join(s.bob.Home, "data")
	require.NoError(t, os.WriteFile(file, data, 0o644))
	s.each(t, func(t *testing.T, w way) {
		t.Run("in", func(t *testing.T) {
			assert.Equal(t, sum+"  -\n", w.run(string(data), false, "sha256sum").Stdout)
		})
		t.Run("out", func(t *testing.T) {
			assert.True(t, w.run("", false, "cat data").Stdout == string(data))
		})
		t.Run("both", func(t *testing.T) {
			assert.True(t, w.run(string(data), false, "cat").Stdout == string(data))
		})
		t.Run("raw terminal out", func(t *testing.T) {
			out := w.run("", true, "stty raw -echo; printf begin; cat data; printf end").Stdout
			_, out, _ = strings.Cut(out, "begin")
			out, _, ended := strings.Cut(out, string(data)+"end")
			assert.True(t, ended && out == "", "%d bytes that are not the file's", len(out))
		})
		t.Run("raw terminal in", func(t *testing.T) {
			cmd := w.start(true, fmt.Sprintf("stty raw -echo; echo ready; head -c %d | sha256sum", len(data)))
			stdin, err := cmd.StdinPipe()
			require.NoError(t, err)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			sc := &screen{}
			go sc.follow(stdout)
			sc.wait(t, "ready")
			_, err = stdin.Write(data)
			require.NoError(t, err)
			sc.wait(t, sum)
			stdin.Close()
			_ = cmd.Wait()
		})
		t.Run("32,768 bytes of command", func(t *testing.T) {
			command := "echo done; exit 7 #"
			command += strings.Repeat("x", 32768-len(command))
			result := w.run("", false, command)
			assert.Equal(t, "done\n", result.Stdout)
			assert.Equal(t, 7, result.Code)
		})
		t.Run("statuses", func(t *testing.T) {
			for range 10 {
				assert.Equal(t, 200, w.run("", false, "exit 200").Code)
			}
			assert.Equal(t, 0, w.run("", true, "true").Code)
			assert.NotEqual(t, 0, w.run("", false, "kill -KILL $$").Code)
		})
	})
}

// TestNegotiation: there is no compression and there is strict key exchange,
// whatever the client asks for.
func TestNegotiation(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	s.each(t, func(t *testing.T, w way) {
		result := w.run("", false, "echo in")
		require.Equal(t, "in\n", result.Stdout, result.Stderr)
		if strings.HasPrefix(w.name, "plink") {
			assert.Contains(t, result.Stderr, "Enabling strict key exchange semantics")
			assert.NotRegexp(t, `(?i)Initialised zlib`, result.Stderr)
			return
		}
		assert.Contains(t, result.Stderr, "kex-strict-s-v00@openssh.com")
		found := regexp.MustCompile(`kex: (?:server->client|client->server) .*compression: (\S+)`).FindAllStringSubmatch(result.Stderr, -1)
		assert.GreaterOrEqual(t, len(found), 2)
		for _, line := range found {
			assert.Equal(t, "none", strings.TrimSpace(line[1]))
		}
	}, "-C", "-vv")
}

// TestLoginPrograms: shells that let nobody in, and what is missing.
func TestLoginPrograms(t *testing.T) {
	nologin := "/usr/sbin/nologin"
	if _, err := os.Stat(nologin); err != nil {
		testhost.Skip(t, "this host has no %s: %v", nologin, err)
	}
	s := newShells(t, harness.DaemonConfig{}, "permit_user_env: yes")
	group, gid := harness.NewGroup(t)
	other, otherGID := harness.NewGroup(t)
	for _, test := range []struct {
		name   string
		config harness.UserConfig
		input  string
		// command and what its answer must match.
		command        string
		stdout, stderr string
		code           int
	}{
		{"nologin, command", harness.UserConfig{Shell: nologin}, "", "id", `^This account is currently not available\.\n$`, ``, 1},
		{"nologin, shell", harness.UserConfig{Shell: nologin}, "id\n", "", `^This account is currently not available\.\n$`, ``, 1},
		{"false", harness.UserConfig{Shell: "/bin/false"}, "", "id", `^$`, ``, 1},
		{"no such shell", harness.UserConfig{Shell: "/no/such/shell"}, "", "id", `^$`, `/no/such/shell: no such file or directory`, 126},
		{"no home", harness.UserConfig{Home: "/no/such/home"}, "", "pwd", `^/\n$`, `Could not change to the home folder /no/such/home: no such file or directory`, 0},
		{"groups", harness.UserConfig{Groups: []string{group, other}}, "", "id -G", `(?:^| )` + gid + `(?: |\n)`, ``, 0},
		{"groups, the other", harness.UserConfig{Groups: []string{group, other}}, "", "id -G", `(?:^| )` + otherGID + `(?: |\n)`, ``, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			user := harness.NewUser(t, test.config)
			identity := s.daemon.Sign("alice", user.Name)
			target := user.Name + "@node"
			client := harness.NewClient(t, s.daemon, identity)
			putty := harness.NewPutty(t, s.daemon, identity)
			var words []string
			if test.command != "" {
				words = []string{test.command}
			}
			for _, result := range []harness.Result{
				client.RunWith(test.input, append([]string{"-T", target}, words...)...),
				client.RunWith(test.input, append([]string{"-J", user.Name + "@proxy", "-T", user.Name + "@byname"}, words...)...),
				putty.Plink(test.input, harness.Direct, user.Name, []string{"-T"}, words...),
			} {
				assert.Regexp(t, test.stdout, result.Stdout)
				assert.Regexp(t, test.stderr, result.Stderr)
				assert.Equal(t, test.code, result.Code)
			}
			// What OpenSSH says on a terminal is on the terminal.
			if test.code == 1 && test.stdout != "^$" {
				result := client.RunWith("", append([]string{"-tt", target}, words...)...)
				assert.Contains(t, result.Stdout, "This account is currently not available.\r\n")
				assert.Equal(t, 1, result.Code)
			}
		})
	}
	t.Run("nologin runs no rc", func(t *testing.T) {
		user := harness.NewUser(t, harness.UserConfig{Shell: nologin})
		writeAs(t, user, ".ssh/rc", "touch ran\n")
		client := harness.NewClient(t, s.daemon, s.daemon.Sign("alice", user.Name))
		assert.Equal(t, 1, client.Run(user.Name+"@node", "id").Code)
		assert.NoFileExists(t, filepath.Join(user.Home, "ran"))
	})
}

// writeAs writes a file into a user's home folder.
func writeAs(t *testing.T, user harness.User, name, text string) {
	t.Helper()
	path := filepath.Join(user.Home, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	for _, p := range []string{filepath.Dir(path), path} {
		require.NoError(t, os.Chown(p, int(user.UID), int(user.GID)))
	}
}

// withFiles lets a daemon see files of the test's in place of the host's own.
func withFiles(t *testing.T, files map[string]string) (wrap []string) {
	t.Helper()
	harness.NeedPrograms(t, "unshare", "mount")
	dir := harness.OpenDir(t)
	script := "set -e; "
	for path, text := range files {
		copied := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		require.NoError(t, os.WriteFile(copied, []byte(text), 0o644))
		if _, err := os.Stat(path); err != nil {
			// A place to mount it on: a copy of the folder, and the file in it.
			folder := filepath.Join(dir, "folder"+strings.ReplaceAll(filepath.Dir(path), "/", "_"))
			harness.Output(t, "cp", "-a", filepath.Dir(path), folder)
			require.NoError(t, os.WriteFile(filepath.Join(folder, filepath.Base(path)), []byte(text), 0o644))
			script += "mount --bind " + folder + " " + filepath.Dir(path) + "; "
			continue
		}
		script += "mount --bind " + copied + " " + path + "; "
	}
	return []string{"unshare", "-m", "/bin/sh", "-c", script + `exec "$@"`, "sh"}
}

// TestHostsText: what the host tells and sets where PAM, which does it otherwise,
// is off.
func TestHostsText(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{Wrap: withFiles(t, map[string]string{
		"/etc/motd":        "Welcome to the test.\nThere is cake",
		"/etc/environment": "# the host's\nE2E_HOST=\"from the host\"\nLANG=xx_HOST\nSSH_TELEPORT_USER=root\nPATH=/usr/bin:/bin:/host\n",
		"/etc/ssh/sshrc":   "echo \"sshrc of $USER\" >&2\n",
	})}, "permit_user_env: yes")
	s.each(t, func(t *testing.T, w way) {
		assert.Regexp(t, `^(?:Last login: [^\n]*\n)?Welcome to the test\.\r\nThere is cake\r\n`, w.run("exit\n", true).Stdout)
		for _, result := range []harness.Result{w.run("", true, "echo in"), w.run("echo in\n", false), w.run("", false, "echo in")} {
			assert.NotContains(t, result.Stdout, "Welcome", "neither for a command nor without a terminal")
			assert.Contains(t, result.Stdout, "in")
		}
		result := w.run("", false, "echo \"$E2E_HOST|$LANG|$SSH_TELEPORT_USER|$PATH\"")
		assert.Equal(t, "from the host|xx_HOST|alice|/usr/bin:/bin:/host\n", result.Stdout)
		assert.Contains(t, result.Stderr, "sshrc of "+s.bob.Name+"\n")
	})
	t.Run("hushlogin", func(t *testing.T) {
		writeAs(t, s.bob, ".hushlogin", "")
		assert.NotContains(t, s.client.RunWith("exit\n", "-tt", s.bob.Name+"@node").Stdout, "Welcome")
	})
	t.Run("the user's own", func(t *testing.T) {
		writeAs(t, s.bob, ".ssh/environment", "E2E_MINE=1\nLANG=xx_MINE\n")
		result := s.client.Run(s.bob.Name+"@node", "echo $E2E_MINE $E2E_HOST $LANG")
		assert.Equal(t, "1 from the host xx_MINE\n", result.Stdout)
		writeAs(t, s.bob, ".ssh/rc", "echo mine >&2\n")
		result = s.client.Run(s.bob.Name+"@node", "echo in")
		assert.Equal(t, "sshrc of "+s.bob.Name+"\n", result.Stderr, "tctl's certificates permit no file of the user's to be run")
	})
}

// TestUserRC: ~/.ssh/environment and ~/.ssh/rc, where host and certificate permit
// them.
func TestUserRC(t *testing.T) {
	ca := harness.NewCA(t)
	s := newShells(t, harness.DaemonConfig{TrustedUserCAKeys: ca.WriteTrust(t, harness.OpenDir(t))}, "permit_user_env: yes")
	identity := ca.Sign(t, harness.Cert{
		KeyID: "alice", Logins: []string{s.bob.Name},
		Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": "", "permit-user-rc": ""},
	}).Write(t, filepath.Join(harness.OpenDir(t), "id"))
	s.client, s.putty = harness.NewClient(t, s.daemon, identity), harness.NewPutty(t, s.daemon, identity)
	writeAs(t, s.bob, ".ssh/environment", "E2E_MINE=\"yes\"\nSSH_TELEPORT_USER=root\n")
	writeAs(t, s.bob, ".ssh/rc", "echo rc $E2E_MINE >&2; cat >&2\n")
	s.each(t, func(t *testing.T, w way) {
		result := w.run("some input\n", false, "echo $E2E_MINE $SSH_TELEPORT_USER; cat; exit 5")
		assert.Equal(t, "\"yes\" alice\nsome input\n", result.Stdout)
		assert.Contains(t, result.Stderr, "rc \"yes\"\n")
		assert.NotContains(t, result.Stderr, "some input")
		assert.Equal(t, 5, result.Code)
		result = w.run("echo $0; shopt -q login_shell && echo login; exit 6\n", true)
		assert.Contains(t, result.Stdout, "rc \"yes\"\r\n")
		assert.Contains(t, result.Stdout, "-bash\r\n")
		assert.Equal(t, 6, result.Code)
	})
	t.Run("a copy is not disturbed", func(t *testing.T) {
		writeAs(t, s.bob, ".ssh/rc", "echo noise\n")
		file := filepath.Join(harness.OpenDir(t), "file")
		require.NoError(t, os.WriteFile(file, []byte("content"), 0o644))
		cmd := exec.Command("sftp", "-F", s.client.Config, "-b", "-", s.bob.Name+"@node")
		cmd.Stdin, cmd.Env = strings.NewReader("put "+file+" copied\n"), s.client.Command().Env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		copied, err := os.ReadFile(filepath.Join(s.bob.Home, "copied"))
		require.NoError(t, err)
		assert.Equal(t, "content", string(copied))
	})
}

// TestBanner: both clients show it, before they authenticate.
func TestBanner(t *testing.T) {
	file := filepath.Join(harness.OpenDir(t), "banner")
	long := strings.Repeat("This host is öbserved. ", 2500)
	require.NoError(t, os.WriteFile(file, []byte(long+"\n\x1b]0;owned\x07\n"), 0o600))
	s := newShells(t, harness.DaemonConfig{}, "banner: "+file)
	for _, w := range s.ways() {
		t.Run(w.name, func(t *testing.T) {
			// plink shows it to who gets a shell.
			result := w.run("echo i\"\"n; exit\n", true)
			assert.Contains(t, result.Stdout, "\rin\r\n")
			shown := result.Stdout + result.Stderr
			assert.Contains(t, strings.ReplaceAll(shown, "\r", ""), "This host is")
			// PuTTY breaks lines anywhere.
			assert.GreaterOrEqual(t, strings.Count(shown, "T"), 2500, "all of it")
			assert.NotContains(t, shown, "\x1b]0;")
		})
	}
	t.Run("to who is refused", func(t *testing.T) {
		client := harness.NewClient(t, s.daemon, harness.PlainKey(t).Write(t, filepath.Join(harness.OpenDir(t), "id")))
		result := client.Run(s.bob.Name+"@node", "echo in")
		assert.Contains(t, result.Stderr, "This host is")
		assert.Equal(t, 255, result.Code)
	})
	require.NoError(t, os.WriteFile(file, []byte("Another one.\n"), 0o600))
	assert.Contains(t, s.client.Run(s.bob.Name+"@node", "true").Stderr, "Another one.\n", "it is read for each connection")
}

// TestRekeyByVolume: each GiB brings a new key, and loses nothing.
func TestRekeyByVolume(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	exchanges := func(log string) int { return strings.Count(log, "SSH2_MSG_KEXINIT received") }
	sum := func(cmd *exec.Cmd) string {
		hash := sha256.New()
		cmd.Stdout = hash
		require.NoError(t, cmd.Run())
		return fmt.Sprintf("%x", hash.Sum(nil))
	}
	want := sum(exec.Command("head", "-c", "1200M", "/dev/zero"))
	t.Run("down", func(t *testing.T) {
		cmd := s.client.Command("-v", s.bob.Name+"@node", "head -c 1200M /dev/zero")
		var log bytes.Buffer
		cmd.Stderr = &log
		assert.Equal(t, want, sum(cmd))
		assert.Equal(t, 2, exchanges(log.String()), "the server asks for one")
	})
	t.Run("up", func(t *testing.T) {
		cmd := s.client.Command("-v", s.bob.Name+"@node", "sha256sum")
		zeros := exec.Command("head", "-c", "1200M", "/dev/zero")
		pipe, err := zeros.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, zeros.Start())
		var out, log bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = pipe, &out, &log
		require.NoError(t, cmd.Run())
		require.NoError(t, zeros.Wait())
		assert.Equal(t, want+"  -\n", out.String())
		assert.Equal(t, 2, exchanges(log.String()), "the server asks for one")
	})
	t.Run("by the client", func(t *testing.T) {
		data := everyByte(t, 32<<20)
		result := s.client.RunWith(string(data), "-v", "-o", "RekeyLimit=1M", s.bob.Name+"@node", "cat")
		assert.True(t, result.Stdout == string(data))
		assert.Greater(t, exchanges(result.Stderr), 10)
	})
}

// TestModes: every terminal mode arrives, on and off.
func TestModes(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	conn := harness.MustDial(t, s.daemon.NodeAddr, s.bob.Name, harness.ReadIdentity(t, s.daemon.Sign("alice", s.bob.Name)))
	stty := func(t *testing.T, modes ssh.TerminalModes) string {
		t.Helper()
		session, err := conn.NewSession()
		require.NoError(t, err)
		defer session.Close()
		require.NoError(t, session.RequestPty("xterm", 24, 80, modes))
		out, err := session.Output("stty -a")
		require.NoError(t, err)
		if bytes.Contains(out, []byte("SPEED")) {
			out = bytes.ToLower(out) // olcuc has done it
		}
		return " " + strings.Join(strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" \r\n;", r) }), " ") + " "
	}
	switches := map[uint8]string{
		ssh.IGNPAR: "ignpar", ssh.PARMRK: "parmrk", ssh.INPCK: "inpck", ssh.ISTRIP: "istrip", ssh.INLCR: "inlcr",
		ssh.IGNCR: "igncr", ssh.ICRNL: "icrnl", ssh.IUCLC: "iuclc", ssh.IXON: "ixon", ssh.IXANY: "ixany",
		ssh.IXOFF: "ixoff", ssh.IMAXBEL: "imaxbel", ssh.IUTF8: "iutf8", ssh.ISIG: "isig", ssh.ICANON: "icanon",
		ssh.XCASE: "xcase", ssh.ECHO: "echo", ssh.ECHOE: "echoe", ssh.ECHOK: "echok", ssh.ECHONL: "echonl",
		ssh.NOFLSH: "noflsh", ssh.TOSTOP: "tostop", ssh.IEXTEN: "iexten", ssh.ECHOCTL: "echoctl", ssh.ECHOKE: "echoke",
		ssh.OPOST: "opost", ssh.OLCUC: "olcuc", ssh.ONLCR: "onlcr", ssh.OCRNL: "ocrnl", ssh.ONOCR: "onocr", ssh.ONLRET: "onlret",
	}
	for mode, name := range switches {
		assert.Contains(t, stty(t, ssh.TerminalModes{mode: 1}), " "+name+" ")
		assert.Contains(t, stty(t, ssh.TerminalModes{mode: 0}), " -"+name+" ")
	}
	for mode, name := range map[uint8]string{
		ssh.VINTR: "intr", ssh.VQUIT: "quit", ssh.VERASE: "erase", ssh.VKILL: "kill", ssh.VEOF: "eof", ssh.VEOL: "eol", ssh.VEOL2: "eol2",
		ssh.VSTART: "start", ssh.VSTOP: "stop", ssh.VSUSP: "susp", ssh.VWERASE: "werase", ssh.VLNEXT: "lnext", ssh.VREPRINT: "rprnt", ssh.VDISCARD: "discard",
	} {
		assert.Contains(t, stty(t, ssh.TerminalModes{mode: 7}), " "+name+" = ^G ")
		assert.Contains(t, stty(t, ssh.TerminalModes{mode: 255}), " "+name+" = <undef> ")
	}
	// Odd values, and what this system does not have.
	odd := stty(t, ssh.TerminalModes{ssh.ECHO: 1 << 31, ssh.VINTR: 1<<32 - 1, 127: 5, ssh.TTY_OP_ISPEED: 0, ssh.TTY_OP_OSPEED: 1<<32 - 1, 99: 0})
	assert.Contains(t, odd, " echo ")
	// OpenSSH's client sends those of its own terminal.
	local := exec.Command("script", "-qec", "stty -echo -ixon intr ^G; "+strings.Join(quoteAll(s.client.Command("-tt", s.bob.Name+"@node", "stty -a").Args), " "), "/dev/null")
	local.Env = s.client.Command().Env
	local.Stdin = nil
	if _, err := exec.LookPath("script"); err == nil {
		out, err := local.Output()
		require.NoError(t, err)
		for _, word := range []string{"-echo ", "-ixon", "intr = ^G"} {
			assert.Contains(t, string(out), word)
		}
	}
}

func quoteAll(words []string) (quoted []string) {
	for _, word := range words {
		quoted = append(quoted, harness.Quote(word))
	}
	return quoted
}

// TestBreakBySSH: the escape that OpenSSH's client has for it.
func TestBreakBySSH(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	cmd := s.client.Command("-vv", "-e", "~", "-tt", s.bob.Name+"@node", "echo ready; read -r line; echo \"<$line>\"; read -r line; echo \"<$line>\"")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out, log := &screen{}, &screen{}
	go out.follow(stdout)
	go log.follow(stderr)
	out.wait(t, "ready")
	write(t, stdin, "one\n~Btwo\n")
	out.wait(t, "<one>")
	out.wait(t, "<two>")
	require.NoError(t, cmd.Wait())
	assert.Contains(t, log.text(), "request break")
	assert.NotContains(t, out.text()+log.text(), "failed", "the node has sent it")
}

// idleWait is what a test waits for what is to happen within seconds.
const idleWait = 20 * time.Second

// holds starts something that ends with its connection.
func holds(t *testing.T, cmd *exec.Cmd) (ended func() (stdout, stderr string)) {
	t.Helper()
	var out, errs lockedText
	cmd.Stdout, cmd.Stderr = &out, &errs
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	t.Cleanup(func() { stdin.Close() })
	require.NoError(t, cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	harness.WaitFor(t, waitLimit, "the command to run", func() bool { return strings.Contains(out.String(), "ready") })
	return func() (string, string) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(idleWait):
			t.Fatalf("it does not end; it says %q and %q", out.String(), errs.String())
		}
		return out.String(), errs.String()
	}
}

type lockedText struct{ screen }

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lockedText) String() string { return l.text() }

// TestIdleTimeout: a connection that nobody uses ends, with a line for who is
// there, and one that is used does not.
func TestIdleTimeout(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{}, "client_idle_timeout: 2s")
	const line = "This connection was idle for 2s and ends."
	busy := holds(t, s.client.Command(s.bob.Name+"@node", "echo ready; for i in 1 2 3 4 5 6; do sleep 1; echo $i; done; exit 3"))
	s.each(t, func(t *testing.T, w way) {
		_, stderr := holds(t, w.start(false, "echo ready; exec cat"))()
		assert.Contains(t, strings.ReplaceAll(stderr, "\r", ""), line+"\n")
		assert.NotContains(t, stderr, "unexpectedly", "the client is not cut off")
	})
	t.Run("keepalives are no use", func(t *testing.T) {
		stdout, stderr := holds(t, s.client.Command("-o", "ServerAliveInterval=1", "-tt", s.bob.Name+"@node", "echo ready; exec cat"))()
		assert.Contains(t, stdout+stderr, line)
	})
	stdout, stderr := busy()
	assert.Contains(t, stdout, "6\n")
	assert.NotContains(t, stderr, line)
	harness.WaitFor(t, waitLimit, "the logins to end", func() bool { return len(s.daemon.Sessions()) == 0 })
}

// TestEndsAreRecorded: a login that the node ends by itself ends like any other.
func TestEndsAreRecorded(t *testing.T) {
	ca := harness.NewCA(t)
	w := newWorld(t, worldConfig{ca: &ca, daemon: harness.DaemonConfig{SSH: []string{"client_idle_timeout: 3s", "disconnect_expired_cert: yes"}}})
	for _, test := range []struct {
		name, command, line string
		cert                harness.Cert
	}{
		{"idle", "echo ready; exec cat", "This connection was idle for 3s and ends.", harness.Cert{}},
		{"expired", "echo ready; while sleep 0.2; do echo on; done", "The certificate of this login has expired, and the login ends.", harness.Cert{To: time.Now().Add(4 * time.Second)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.cert.KeyID, test.cert.Logins = "alice", []string{w.bob.Name}
			if !test.cert.To.IsZero() {
				test.cert.To = time.Now().Add(4 * time.Second)
			}
			mark := w.audit.Fence()
			client := harness.NewClient(t, w.daemon, ca.Sign(t, test.cert).Write(t, filepath.Join(harness.OpenDir(t), "id")))
			stdout, stderr := holds(t, client.Command("-tt", w.bob.Name+"@node", test.command))()
			assert.Contains(t, stdout+stderr, test.line)
			records := own(w.collect(mark, 2))
			require.Len(t, records, 2, harness.Show(records))
			assert.Equal(t, "login", records[0].Get("op"))
			assert.Equal(t, "session_close", records[1].Get("op"))
			assert.Equal(t, "success", records[1].Get("res"))
			assert.Equal(t, records[0].Get("ses"), records[1].Get("ses"))
		})
	}
}

// TestExpiredCertificate: where nobody has asked for the other, what was begun goes
// on.
func TestExpiredCertificate(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	out := filepath.Join(harness.OpenDir(t), "id")
	_, err := s.daemon.TryTctl("auth", "sign", "--user=alice", "--logins="+s.bob.Name, "--ttl=3s", "--format=openssh", "--out="+out)
	if err != nil {
		testhost.Skip(t, "tctl signs nothing that is valid for 3 s")
	}
	identity := harness.ReadIdentity(t, out)
	conn := harness.MustDial(t, s.daemon.NodeAddr, s.bob.Name, identity)
	end := time.Unix(int64(identity.Cert.ValidBefore), 0)
	harness.WaitFor(t, waitLimit, "the certificate to end", func() bool { return time.Now().After(end.Add(time.Second)) })
	_, err = harness.Dial(t, s.daemon.NodeAddr, s.bob.Name, identity)
	require.Error(t, err, "it has ended")
	result, err := harness.Exec(conn, "echo in")
	require.NoError(t, err)
	assert.Equal(t, "in\n", result.Stdout)
}

// TestLimitsOfConfig: keep_alive_interval and max_sessions are the file's.
func TestLimitsOfConfig(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{}, "keep_alive_interval: 1s", "max_sessions: 2")
	t.Run("max_sessions", func(t *testing.T) {
		conn := harness.MustDial(t, s.daemon.NodeAddr, s.bob.Name, harness.ReadIdentity(t, s.daemon.Sign("alice", s.bob.Name)))
		for range 2 {
			session, err := conn.NewSession()
			require.NoError(t, err)
			_, err = session.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, session.Start("cat"))
		}
		_, err := conn.NewSession()
		var refused *ssh.OpenChannelError
		require.True(t, errors.As(err, &refused), "%v", err)
		assert.Contains(t, refused.Message, "max_sessions")
	})
	t.Run("keep_alive_interval", func(t *testing.T) {
		lively := holds(t, s.client.Command(s.bob.Name+"@node", "echo ready; sleep 6; echo on; exit 3"))
		cmd := s.client.Command(s.bob.Name+"@node", "echo ready; exec cat")
		holds(t, cmd)
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		harness.WaitFor(t, idleWait, "the daemon to give the client up", func() bool {
			return strings.Contains(s.daemon.Log(), "The client has not answered for 3s")
		})
		require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
		stdout, _ := lively()
		assert.Equal(t, "ready\non\n", stdout, "one that answers stays")
	})
}

// TestBackground: processes that a command leaves behind hold the channel, or not,
// as with the host's own sshd.
func TestBackground(t *testing.T) {
	s := newShells(t, harness.DaemonConfig{})
	theirs := startHostSSHD(t, s)
	for _, test := range []struct {
		name, command string
		terminal      bool
	}{
		{"holds the output", "sleep 2 & echo out", false},
		{"holds the output, and writes", "(sleep 2; echo late) & echo out; exit 3", false},
		{"holds the error output", "sleep 2 >/dev/null & echo out", false},
		{"holds the input alone", "sleep 2 >/dev/null 2>&1 & echo out", false},
		{"holds nothing", "sleep 2 </dev/null >/dev/null 2>&1 & echo out; exit 4", false},
		{"nohup on a terminal", "nohup sleep 2 >/dev/null 2>&1 & echo out; exit 5", true},
		{"in the background of a terminal", "sleep 2 & echo out; exit 6", true},
		{"closes its output", "exec >&- 2>&-; sleep 2; exit 7", false},
		{"ended by a signal", "(sleep 2; echo late) & kill -TERM $$", false},
		{"stdin that nobody reads", "echo out; exit 8", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			measure := func(host string) (harness.Result, time.Duration) {
				args := []string{"-T"}
				if test.terminal {
					args = []string{"-tt"}
				}
				began := time.Now()
				result := s.client.RunWith("", append(append(args, theirs.options(host)...), s.bob.Name+"@node", test.command)...)
				return result, time.Since(began)
			}
			ours, took := measure("")
			sshd, theirTime := measure(theirs.addr)
			ours.Stderr, sshd.Stderr = "", ""
			assert.Equal(t, sshd, ours, "sshd's and ours")
			assert.Equal(t, theirTime > 1500*time.Millisecond, took > 1500*time.Millisecond, "sshd took %v, we %v", theirTime, took)
		})
	}
}

type hostSSHD struct{ addr, known string }

// options point the client at the host's sshd.
func (h hostSSHD) options(addr string) []string {
	if addr == "" {
		return nil
	}
	host, port, _ := net.SplitHostPort(addr)
	return []string{"-o", "HostName=" + host, "-o", "Port=" + port, "-o", "HostKeyAlias=sshd", "-o", "UserKnownHostsFile=" + h.known}
}

// startHostSSHD starts the host's own sshd, which lets the same people in.
func startHostSSHD(t *testing.T, s *shells) hostSSHD {
	t.Helper()
	harness.NeedPrograms(t, "sshd", "ssh-keygen", "usermod")
	path, err := exec.LookPath("sshd")
	require.NoError(t, err)
	// Without PAM it lets nobody in whose password is locked.
	harness.Output(t, "usermod", "-p", "*", s.bob.Name)
	if _, err := os.Stat("/run/sshd"); os.IsNotExist(err) {
		harness.Undo(t, "rmdir /run/sshd")
		require.NoError(t, os.Mkdir("/run/sshd", 0o755))
	}
	dir := harness.OpenDir(t)
	key, trust := filepath.Join(dir, "host_key"), filepath.Join(dir, "ca.pub")
	harness.Output(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	require.NoError(t, os.WriteFile(trust, []byte(s.daemon.Tctl("auth", "export", "--type=user")), 0o644))
	h := hostSSHD{addr: harness.FreeAddr(t), known: filepath.Join(dir, "known_hosts")}
	public, err := os.ReadFile(key + ".pub")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(h.known, append([]byte("sshd "), public...), 0o644))
	config := filepath.Join(dir, "sshd_config")
	require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(
		"ListenAddress %s\nHostKey %s\nPidFile none\nTrustedUserCAKeys %s\nUsePAM no\nAuthorizedKeysFile none\nPrintMotd no\nPrintLastLog no\nUseDNS no\n",
		h.addr, key, trust)), 0o600))
	cmd := exec.Command(path, "-D", "-e", "-f", config)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	var out lockedText
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd said:\n%s", out.String())
		}
	})
	harness.WaitFor(t, waitLimit, "sshd to listen", func() bool {
		conn, err := net.Dial("tcp", h.addr)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return h
}
