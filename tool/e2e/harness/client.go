// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Client is OpenSSH's client with a configuration of its own: nothing of the
// user's or the host's is read.
type Client struct {
	// Config is the configuration file's path. A daemon's hosts are node, proxy,
	// and byname, the node by its name as the proxy knows it (with -J
	// LOGIN@proxy).
	Config string

	t testing.TB
}

// NewClient makes a client for the daemon. The identity is a private key's
// path; empty offers none.
func NewClient(t testing.TB, d *Daemon, identity string) *Client {
	t.Helper()
	var hosts []clientHost
	if d.NodeAddr != "" {
		hosts = append(hosts, clientHost{"node", d.NodeAddr, d.NodeName, ""}, clientHost{"byname", d.NodeAddr, d.NodeName, d.NodeName})
	}
	if d.ProxyAddr != "" {
		hosts = append(hosts, clientHost{"proxy", d.ProxyAddr, d.NodeName, ""})
	}
	return newClient(t, hosts, d.KnownHosts(), identity)
}

// NewSSHDClient makes a client for a test's sshd, alike in all else. Its host is
// sshd.
func NewSSHDClient(t testing.TB, s *SSHD, identity string) *Client {
	t.Helper()
	return newClient(t, []clientHost{{"sshd", s.Addr, "", ""}}, s.KnownHosts(t), identity)
}

// clientHost is one host of the configuration. The key is looked up by the
// alias where there is one; name is dialled in the address's place.
type clientHost struct{ host, addr, alias, name string }

func newClient(t testing.TB, hosts []clientHost, knownHosts, identity string) *Client {
	t.Helper()
	NeedPrograms(t, "ssh")
	dir := OpenDir(t)
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(knownHosts), 0o644); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, h := range hosts {
		name, port, err := net.SplitHostPort(h.addr)
		if err != nil {
			t.Fatal(err)
		}
		if h.name != "" {
			name = h.name
		}
		fmt.Fprintf(&b, "Host %s\n  HostName %s\n  Port %s\n", h.host, name, port)
		if h.alias != "" {
			fmt.Fprintf(&b, "  HostKeyAlias %s\n", h.alias)
		}
	}
	b.WriteString("Host *\n  BatchMode yes\n  IdentitiesOnly yes\n  IdentityAgent none\n  PreferredAuthentications publickey\n  ConnectTimeout 20\n")
	fmt.Fprintf(&b, "  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n", known)
	if identity == "" {
		b.WriteString("  IdentityFile none\n")
	} else {
		fmt.Fprintf(&b, "  IdentityFile %s\n", identity)
		if _, err := os.Stat(identity + "-cert.pub"); err == nil {
			fmt.Fprintf(&b, "  CertificateFile %s-cert.pub\n", identity)
		}
	}
	c := &Client{Config: filepath.Join(dir, "ssh_config"), t: t}
	if err := os.WriteFile(c.Config, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// KnownHosts is what a known_hosts file needs to trust the daemon: its
// certificate authority, or the host key of a node that has none.
func (d *Daemon) KnownHosts() string {
	d.t.Helper()
	config, err := os.ReadFile(d.ConfigFile)
	if err != nil {
		d.t.Fatal(err)
	}
	if strings.Contains(string(config), "auth_service:\n  enabled: yes") {
		// The pattern is widened: tests dial by address.
		var b strings.Builder
		for _, line := range strings.Split(d.Tctl("auth", "export", "--type=host"), "\n") {
			if words := strings.Fields(line); len(words) >= 4 && words[0] == "@cert-authority" {
				words[1] = "*"
				b.WriteString(strings.Join(words, " ") + "\n")
			}
		}
		return b.String()
	}
	key, err := HostKey(d.NodeAddr)
	if err != nil {
		d.t.Fatalf("cannot learn the node's host key: %v", err)
	}
	return "* " + string(ssh.MarshalAuthorizedKey(key))
}

// HostKey connects far enough to see the host key, as ssh-keyscan does.
func HostKey(addr string) (ssh.PublicKey, error) {
	var key ssh.PublicKey
	seen := errors.New("seen")
	client, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
		User: "nobody", Timeout: 20 * time.Second,
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			key = k
			return seen
		},
	})
	if err == nil {
		client.Close()
	}
	if key == nil {
		return nil, err
	}
	return key, nil
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	// Code is the exit status; 255 is OpenSSH's own failure.
	Code int
}

// Command returns an ssh command that has not been started.
func (c *Client) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("ssh", append([]string{"-F", c.Config}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LANG=C", "TERM=xterm"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Run runs ssh to its end, with stdin empty, for a minute at most.
func (c *Client) Run(args ...string) Result {
	c.t.Helper()
	return c.RunWith("", args...)
}

// RunWith runs ssh to its end, with stdin given.
func (c *Client) RunWith(stdin string, args ...string) Result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	plain := c.Command(args...)
	cmd := exec.CommandContext(ctx, plain.Path, plain.Args[1:]...)
	cmd.Env, cmd.SysProcAttr, cmd.WaitDelay = plain.Env, plain.SysProcAttr, 10*time.Second
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	result := Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		c.t.Errorf("ssh %s did not end within a minute\nstdout: %s\nstderr: %s", strings.Join(args, " "), out.String(), errs.String())
		result.Code = -1
	case errors.As(err, &exit):
		result.Code = exit.ExitCode()
	case err != nil:
		c.t.Errorf("cannot run ssh: %v", err)
		result.Code = -1
	}
	return result
}

// Dial opens an SSH connection with Go's client, for what OpenSSH's does not
// do: names it refuses to send, requests in an order it would not choose. The
// connection is closed with the test.
func Dial(t testing.TB, addr, login string, identities ...Identity) (*ssh.Client, error) {
	t.Helper()
	client, err := ssh.Dial("tcp", addr, ClientConfig(login, identities...))
	if err == nil {
		t.Cleanup(func() { client.Close() })
	}
	return client, err
}

// MustDial is Dial for a login that must be let in.
func MustDial(t testing.TB, addr, login string, identities ...Identity) *ssh.Client {
	t.Helper()
	client, err := Dial(t, addr, login, identities...)
	if err != nil {
		t.Fatalf("logging in as %.100q: %v", login, err)
	}
	return client
}

// ClientConfig is the configuration that Dial uses. The host key is taken as it
// is: OpenSSH's client checks it in other tests.
func ClientConfig(login string, identities ...Identity) *ssh.ClientConfig {
	config := &ssh.ClientConfig{User: login, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 20 * time.Second}
	if len(identities) > 0 {
		var signers []ssh.Signer
		for _, i := range identities {
			signers = append(signers, i.Signer)
		}
		config.Auth = []ssh.AuthMethod{ssh.PublicKeys(signers...)}
	}
	return config
}

// Exec runs one command on an open connection.
func Exec(client *ssh.Client, command string) (Result, error) {
	session, err := client.NewSession()
	if err != nil {
		return Result{}, err
	}
	defer session.Close()
	var out, errs bytes.Buffer
	session.Stdout, session.Stderr = &out, &errs
	err = session.Run(command)
	result := Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		result.Code = exit.ExitStatus()
		err = nil
	}
	return result, err
}
