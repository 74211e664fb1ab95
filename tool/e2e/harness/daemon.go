// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"teleport-auditd/lib/testhost"
)

// DaemonConfig is what StartDaemon takes.
type DaemonConfig struct {
	Programs Programs
	// Auth, Proxy and Node are the roles.
	Auth, Proxy, Node bool
	// PAMService switches PAM on.
	PAMService string
	// TrustedUserCAKeys is a CA file's path.
	TrustedUserCAKeys string
	// AuditMode is teleport.auditd.mode, left out when empty.
	AuditMode string
	// SSH holds further lines of ssh_service, without indentation.
	SSH []string
	// Wrap stands before the command, such as a shell that changes something
	// and then becomes the daemon.
	Wrap []string
	// User runs the daemon as somebody else than root.
	User *User
	// DropNodeAddr leaves listen_addr of ssh_service to SSH.
	DropNodeAddr bool
	// MayFail lets the daemon end at start; the test looks at it with Ended.
	MayFail bool
}

// Daemon is a running teleport.
type Daemon struct {
	Pid int
	// ConfigFile and DataDir are paths.
	ConfigFile, DataDir string
	// NodeName is the node's name.
	NodeName string
	// AuthAddr, NodeAddr, ProxyAddr, WebAddr and TunnelAddr are addresses to
	// dial, empty without the role.
	AuthAddr, NodeAddr, ProxyAddr, WebAddr, TunnelAddr string

	t        testing.TB
	programs Programs
	config   DaemonConfig
	text     string
	cmd      *exec.Cmd
	output   lockedBuffer
	ended    chan struct{}
	failure  error
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// FreeAddr returns a loopback address that nobody listens on, and that the kernel
// gives to no connection by itself (net.ipv4.ip_local_port_range): another process
// is to have it a little later.
func FreeAddr(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		const from, below = 15000, 32000
		var l net.Listener
		l, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", from+rand.IntN(below-from)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatalf("no port is free: %v", err)
	return ""
}

// unsetLoginUID is a shell that gives up the login that the test was started
// from: sessions of a daemon with a loginuid would all carry that one.
var unsetLoginUID = []string{"/bin/sh", "-c", "echo " + Unset + ` >/proc/self/loginuid && exec "$@"`, "sh"}

// HasLoginUID says whether the test process was started from a login.
func HasLoginUID() bool {
	text, err := os.ReadFile("/proc/self/loginuid")
	return err == nil && strings.TrimSpace(string(text)) != Unset
}

// NeedUnsetLoginUID skips the test where a daemon would inherit a login, and
// the kernel would not let it go. It returns what to put before a command.
func NeedUnsetLoginUID(t testing.TB) []string {
	t.Helper()
	if !HasLoginUID() {
		return nil
	}
	words := append(append([]string{}, unsetLoginUID...), "true")
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		testhost.Skip(t, "the test runs inside a login (its loginuid is set) and cannot leave it; start it from init: %s", out)
	}
	return unsetLoginUID
}

// StartDaemon starts a teleport on free ports of the loopback interface, with
// everything it keeps in a folder of its own, and waits until it serves. It is
// ended with the test.
func StartDaemon(t testing.TB, c DaemonConfig) *Daemon {
	t.Helper()
	dir := OpenDir(t)
	d := &Daemon{
		DataDir: filepath.Join(dir, "data"), ConfigFile: filepath.Join(dir, "teleport.yaml"),
		NodeName: "e2e-node", t: t, programs: c.Programs,
	}
	var y strings.Builder
	yes := map[bool]string{true: "yes", false: "no"}
	fmt.Fprintf(&y, "teleport:\n  nodename: %s\n  data_dir: %s\n  log:\n    output: stderr\n    severity: DEBUG\n", d.NodeName, d.DataDir)
	if c.AuditMode != "" {
		fmt.Fprintf(&y, "  auditd:\n    mode: %q\n", c.AuditMode)
	}
	fmt.Fprintf(&y, "auth_service:\n  enabled: %s\n", yes[c.Auth])
	if c.Auth {
		d.AuthAddr = FreeAddr(t)
		fmt.Fprintf(&y, "  cluster_name: e2e.example.com\n  listen_addr: %s\n", d.AuthAddr)
	}
	fmt.Fprintf(&y, "proxy_service:\n  enabled: %s\n", yes[c.Proxy])
	if c.Proxy {
		d.ProxyAddr, d.WebAddr, d.TunnelAddr = FreeAddr(t), FreeAddr(t), FreeAddr(t)
		fmt.Fprintf(&y, "  listen_addr: %s\n  web_listen_addr: %s\n  tunnel_listen_addr: %s\n", d.ProxyAddr, d.WebAddr, d.TunnelAddr)
	}
	fmt.Fprintf(&y, "ssh_service:\n  enabled: %s\n", yes[c.Node])
	if c.Node && !c.DropNodeAddr {
		d.NodeAddr = FreeAddr(t)
		fmt.Fprintf(&y, "  listen_addr: %s\n", d.NodeAddr)
	}
	if c.TrustedUserCAKeys != "" {
		fmt.Fprintf(&y, "  trusted_user_ca_keys: %s\n", c.TrustedUserCAKeys)
	}
	if c.PAMService != "" {
		fmt.Fprintf(&y, "  pam:\n    enabled: yes\n    service_name: %q\n", c.PAMService)
	}
	for _, line := range c.SSH {
		fmt.Fprintf(&y, "  %s\n", line)
	}
	if err := os.WriteFile(d.ConfigFile, []byte(y.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if c.User != nil {
		if err := os.Chown(dir, int(c.User.UID), int(c.User.GID)); err != nil {
			t.Fatal(err)
		}
	}

	d.config, d.text = c, y.String()
	t.Cleanup(func() {
		d.End()
		if t.Failed() {
			t.Logf("%s\nteleport said:\n%s", d.text, tail(d.Log(), 12000))
		}
	})
	d.start()
	return d
}

// Restart ends the daemon and starts it again on the same files.
func (d *Daemon) Restart() {
	d.t.Helper()
	d.End()
	d.start()
}

func (d *Daemon) start() {
	t, c := d.t, d.config
	t.Helper()
	said := len(d.Log())
	words := append([]string{}, c.Wrap...)
	words = append(words, c.Programs.Teleport, "start", "-c", d.ConfigFile)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &d.output, &d.output
	// The kernel ends the daemon with the test process, were that killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if c.User != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.User.UID, Gid: c.User.GID}
	}
	// What the tests look for in a session must not come from the tester's own
	// environment.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "SHELL=/bin/sh", "E2E_FROM_DAEMON=leaked"}
	// A session that outlives the daemon holds its stderr, and Cmd.Wait would
	// wait for that too.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start teleport: %v", err)
	}
	ended := make(chan struct{})
	d.cmd, d.Pid, d.ended = cmd, cmd.Process.Pid, ended
	go func() {
		d.failure = cmd.Wait()
		close(ended)
	}()
	up := Eventually(30*time.Second, func() bool {
		if _, ended := d.Ended(0); ended {
			return true
		}
		// The ports listen before all roles are ready.
		return strings.Contains(d.Log()[said:], "Teleport is ready")
	})
	if _, ended := d.Ended(0); (ended || !up) && !c.MayFail {
		t.Fatalf("teleport did not come up (ended: %v):\n%s\n%s", ended, d.text, tail(d.Log(), 4000))
	}
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "...\n" + s[len(s)-n:]
}

// Log is what the daemon printed so far.
func (d *Daemon) Log() string { return d.output.String() }

// Ended waits for the daemon to end by itself, and returns how it did.
func (d *Daemon) Ended(limit time.Duration) (failure error, ended bool) {
	select {
	case <-d.ended:
		return d.failure, true
	default:
	}
	if limit <= 0 {
		return nil, false
	}
	select {
	case <-d.ended:
		return d.failure, true
	case <-time.After(limit):
		return nil, false
	}
}

// Signal sends the daemon a signal.
func (d *Daemon) Signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatalf("cannot signal teleport: %v", err)
	}
}

// End ends the daemon in order, and is no more than a wait where it has ended.
func (d *Daemon) End() {
	d.t.Helper()
	if _, ended := d.Ended(0); ended {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if _, ended := d.Ended(15 * time.Second); !ended {
		_ = d.cmd.Process.Kill()
		_, _ = d.Ended(5 * time.Second)
		d.t.Errorf("teleport did not end within 15 s of SIGTERM")
	}
}

// Tctl runs tctl with the daemon's configuration, as the daemon's user.
func (d *Daemon) Tctl(args ...string) string {
	d.t.Helper()
	out, err := d.TryTctl(args...)
	if err != nil {
		d.t.Fatalf("tctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryTctl is Tctl for what may fail.
func (d *Daemon) TryTctl(args ...string) (string, error) {
	cmd := exec.Command(d.programs.Tctl, append([]string{"-c", d.ConfigFile}, args...)...)
	if u := d.config.User; u != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID}}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Sign makes an identity with tctl auth sign and returns the private key's path.
func (d *Daemon) Sign(user string, logins ...string) string {
	d.t.Helper()
	dir := OpenDir(d.t)
	out := filepath.Join(dir, "id")
	if u := d.config.User; u != nil {
		if err := os.Chown(dir, int(u.UID), int(u.GID)); err != nil {
			d.t.Fatal(err)
		}
	}
	d.Tctl("auth", "sign", "--user="+user, "--logins="+strings.Join(logins, ","), "--ttl=1h", "--format=openssh", "--out="+out)
	return out
}

// Descriptors counts the daemon's open files.
func (d *Daemon) Descriptors() int {
	d.t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(open)
}

// Sessions lists the running teleport-session processes of this daemon.
func (d *Daemon) Sessions() []Process {
	var own []Process
	for _, p := range Processes() {
		if p.Exe == d.programs.Session && p.Parent == d.Pid {
			own = append(own, p)
		}
	}
	return own
}
