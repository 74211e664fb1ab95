// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package etcdtest starts a real etcd for a test: a cluster of one or more
// members on ports of the loopback interface, whose data goes when the test
// ends.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"teleport-auditd/lib/testhost"
)

// patience is how long the members may take to find each other.
const patience = 30 * time.Second

// Option changes how the members are started.
type Option func(*options)

type options struct {
	args   []string
	scheme string
	client *http.Client
}

// WithArgs gives each member more arguments.
func WithArgs(args ...string) Option {
	return func(o *options) { o.args = append(o.args, args...) }
}

// WithTLS has the members speak TLS to clients, with the certificate, and
// demand of them one that is from the authority, which are files in PEM. Whether
// they are up is asked with client.
func WithTLS(certFile, keyFile, caFile string, client *http.Client) Option {
	return func(o *options) {
		o.args = append(o.args, "--cert-file", certFile, "--key-file", keyFile, "--trusted-ca-file", caFile, "--client-cert-auth")
		o.scheme, o.client = "https", client
	}
}

// Cluster is a running etcd.
type Cluster struct {
	t       testing.TB
	options options
	members []*member
}

type member struct {
	args   []string
	client string // its URL for clients
	log    *output

	mu      sync.Mutex
	process *exec.Cmd
	ended   chan struct{}
}

// Start starts a cluster of so many members and waits until it answers. A host
// without the program etcd skips the test, or fails it where REQUIRE_KERNEL=1
// says that nothing may be skipped.
func Start(t testing.TB, members int, opts ...Option) *Cluster {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		testhost.Skip(t, "it needs the program etcd, which is not in PATH (the package etcd-server has it)")
	}
	c := &Cluster{t: t, options: options{scheme: "http", client: http.DefaultClient}}
	for _, opt := range opts {
		opt(&c.options)
	}
	// The ports are free now. That another process takes one before etcd does
	// is made up for with other ports.
	for try := 0; ; try++ {
		err := c.start(program, members)
		if err == nil {
			break
		}
		c.killAll()
		if try == 2 {
			t.Fatalf("etcd does not start: %v", err)
		}
	}
	return c
}

// Peers are the URLs of the members for clients.
func (c *Cluster) Peers() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.client)
	}
	return urls
}

// Kill kills member i as a power cut would, and returns when it is gone.
func (c *Cluster) Kill(i int) {
	c.members[i].kill()
}

// Pause stops member i without its connections being closed, as a host does
// that hangs.
func (c *Cluster) Pause(i int) {
	c.members[i].signal(syscall.SIGSTOP)
}

// Restart starts member i again after Kill, with the data that it had, and
// returns when it answers.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	m := c.members[i]
	if err := m.start(); err != nil {
		c.t.Fatalf("etcd does not start again: %v", err)
	}
	if err := c.wait(m); err != nil {
		c.t.Fatalf("etcd does not start again: %v", err)
	}
}

// Leader returns which member leads.
func (c *Cluster) Leader() int {
	c.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for i, m := range c.members {
			if strings.Contains(c.get(m.client+"/metrics"), "\netcd_server_is_leader 1\n") {
				return i
			}
		}
	}
	c.t.Fatal("no member of etcd leads")
	return -1
}

func (c *Cluster) start(program string, members int) error {
	dir := c.t.TempDir()
	listeners := make([]net.Listener, 2*members)
	for i := range listeners {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listeners[i] = listener
	}
	var initial []string
	for i := range members {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, listeners[2*i+1].Addr()))
	}
	c.members = nil
	for i := range members {
		client, peer := c.options.scheme+"://"+listeners[2*i].Addr().String(), "http://"+listeners[2*i+1].Addr().String()
		name := fmt.Sprintf("m%d", i)
		c.members = append(c.members, &member{
			client: client,
			log:    &output{},
			args: append([]string{
				program, "--name", name, "--data-dir", filepath.Join(dir, name),
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
				"--initial-cluster-token", filepath.Base(dir), "--logger", "zap",
			}, c.options.args...),
		})
	}
	c.t.Cleanup(c.killAll)
	for _, listener := range listeners {
		_ = listener.Close() // the port is etcd's from here on
	}
	for _, m := range c.members {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, m := range c.members {
		if err := c.wait(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) killAll() {
	for _, m := range c.members {
		m.kill()
	}
}

// wait waits until the member answers and knows of a leader.
func (c *Cluster) wait(m *member) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if strings.Contains(c.get(m.client+"/health"), "true") {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("it has ended: %s", m.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("it is not healthy after %v: %s", patience, m.log)
}

// get returns what is under the URL, or nothing where it cannot be had.
func (c *Cluster) get(url string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	response, err := c.options.client.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		return ""
	}
	return body.String()
}

func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	cmd := exec.Command(m.args[0], m.args[1:]...)
	cmd.Stdout, cmd.Stderr = m.log, m.log
	// It does not outlive a test program that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// etcd takes what is in its environment for arguments.
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "ETCD_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// To the kernel the parent is the thread that started it, which must
		// not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was killed, or its log says why it ended
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	m.process, m.ended = cmd, ended
	return nil
}

func (m *member) signal(signal syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		_ = m.process.Process.Signal(signal) // fails where it has ended
	}
}

func (m *member) kill() {
	m.signal(syscall.SIGKILL)
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// output keeps the end of what a member says.
type output struct {
	mu   sync.Mutex
	text []byte
}

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, text...)
	o.text = o.text[max(0, len(o.text)-8192):]
	return len(text), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}
