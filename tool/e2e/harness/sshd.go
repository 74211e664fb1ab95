// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"teleport-auditd/lib/testhost"
)

// SSHDConfig is what StartSSHD takes.
type SSHDConfig struct {
	// Trust is the path of the file with the user CA, as CA.WriteTrust makes it.
	Trust string
	// PAM is UsePAM. Without it sshd lets nobody in whose password is locked:
	// see SSHDLogin.
	PAM bool
	// Service is the PAM service, sshd when empty.
	Service string
	// Extra holds further lines of sshd_config. They stand first, and what
	// stands first wins.
	Extra string
	// Wrap stands before the command, as in DaemonConfig.
	Wrap []string
}

// SSHD is a running sshd, the host's own program with a configuration of the
// test's, which looks at nothing but the certificate.
type SSHD struct {
	// Addr is the address to dial.
	Addr string
	// Pid is that of the process that listens.
	Pid int
	// Program is sshd's path, and Programs are all that may serve a login: since
	// OpenSSH 9.8 those are programs of their own.
	Program  string
	Programs []string

	key    string
	output lockedBuffer
}

// SSHDLogin lets the user in by an sshd without PAM, which refuses who has no
// password that could match.
func SSHDLogin(t testing.TB, u User) {
	t.Helper()
	NeedPrograms(t, "usermod")
	Output(t, "usermod", "-p", "*", u.Name)
}

// sshdSeparation is the folder that sshd separates its privileges in; it does
// not start without.
const sshdSeparation = "/run/sshd"

// StartSSHD starts the host's sshd on a free port of the loopback interface and
// waits until it listens. It is ended with the test, and its log shown where the
// test failed.
func StartSSHD(t testing.TB, c SSHDConfig) *SSHD {
	t.Helper()
	NeedRoot(t)
	NeedPrograms(t, "sshd", "ssh-keygen")
	// sshd wants to be started by its whole path, to start itself anew.
	path, err := exec.LookPath("sshd")
	if err != nil {
		t.Fatal(err)
	}
	if c.Service == "" {
		c.Service = "sshd"
	}
	if _, err := os.Stat("/etc/pam.d/" + c.Service); c.PAM && err != nil {
		testhost.Skip(t, "this host has no PAM service %s: %v", c.Service, err)
	}
	separate(t)
	dir := OpenDir(t)
	s := &SSHD{
		Addr: FreeAddr(t), Program: path, key: filepath.Join(dir, "host_key"),
		Programs: []string{path, "/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session"},
	}
	Output(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.key)
	yes := map[bool]string{true: "yes", false: "no"}
	text := c.Extra + fmt.Sprintf(`
ListenAddress %s
HostKey %s
PidFile none
TrustedUserCAKeys %s
UsePAM %s
AuthorizedKeysFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
UseDNS no
MaxStartups 200
`, s.Addr, s.key, c.Trust, yes[c.PAM])
	// Two of these are an error, not a choice.
	if !strings.Contains(c.Extra, "Subsystem") {
		text += "Subsystem sftp " + sftpServer() + "\n"
	}
	conf := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// sshd's PAM service is the name that it was started by.
	if c.Service != filepath.Base(path) {
		link := filepath.Join(dir, c.Service)
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		path = link
	}
	words := append(append([]string{}, c.Wrap...), path, "-D", "-e", "-f", conf)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	// Its children hold the pipe, and may outlive it.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start sshd: %v", err)
	}
	s.Pid = cmd.Process.Pid
	ended := make(chan struct{})
	var failure error
	go func() {
		failure = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("sshd did not end within 10 s of SIGTERM")
		}
		if t.Failed() {
			t.Logf("%s\nsshd said:\n%s", text, tail(s.Log(), 12000))
		}
	})
	WaitFor(t, 10*time.Second, "sshd to listen", func() bool {
		select {
		case <-ended:
			t.Fatalf("sshd ended at once: %v\n%s\n%s", failure, text, s.Log())
		default:
		}
		return strings.Contains(s.Log(), "Server listening on")
	})
	return s
}

// separate makes the folder that sshd cannot do without, where the host has
// none, and takes it away again unless another test's sshd is using it by then.
func separate(t testing.TB) {
	t.Helper()
	switch err := os.Mkdir(sshdSeparation, 0o755); {
	case err == nil:
		Undo(t, "flock --nonblock "+sshdSeparation+" rmdir "+sshdSeparation+" || true")
	case !os.IsExist(err):
		t.Fatal(err)
	}
	folder, err := os.Open(sshdSeparation)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatalf("flock %s: %v", sshdSeparation, err)
	}
	t.Cleanup(func() { folder.Close() })
}

// sftpServer is what the host's own configuration has for files.
func sftpServer() string {
	for _, path := range []string{"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "internal-sftp"
}

// Log is what sshd printed so far.
func (s *SSHD) Log() string { return s.output.String() }

// KnownHosts is what a known_hosts file needs to trust this sshd.
func (s *SSHD) KnownHosts(t testing.TB) string {
	t.Helper()
	key, err := os.ReadFile(s.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[%s]:%s %s", host, port, key)
}
