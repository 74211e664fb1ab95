// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"teleport-auditd/lib/testhost"
)

// Network is hosts that a test made: network namespaces on one bridge, which
// nothing else reaches.
type Network struct {
	t     testing.TB
	name  string
	hosts int
}

// Host is one of them. It has its own addresses and ports, and shares the file
// system, the users and the kernel with all others.
type Host struct {
	// Name is the namespace's, IP its address on the bridge.
	Name, IP string
}

// NewNetwork makes a bridge in a namespace of its own.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	NeedRoot(t)
	NeedPrograms(t, "ip", "nsenter")
	n := &Network{t: t, name: unusedName(t, "n")}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		testhost.Skip(t, "no network namespace can be made: %v: %s", err, out)
	}
	Undo(t, "ip netns del "+n.name)
	n.ip("link", "add", "bridge", "type", "bridge")
	n.ip("link", "set", "bridge", "up")
	n.ip("link", "set", "lo", "up")
	return n
}

func (n *Network) ip(args ...string) {
	n.t.Helper()
	Output(n.t, "ip", append([]string{"-n", n.name}, args...)...)
}

// Host adds a host.
func (n *Network) Host() *Host {
	n.t.Helper()
	n.hosts++
	h := &Host{Name: fmt.Sprintf("%sh%d", n.name, n.hosts), IP: fmt.Sprintf("10.213.0.%d", n.hosts)}
	Output(n.t, "ip", "netns", "add", h.Name)
	Undo(n.t, "ip netns del "+h.Name)
	port := fmt.Sprintf("port%d", n.hosts)
	n.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", h.Name)
	n.ip("link", "set", port, "master", "bridge", "up")
	Output(n.t, "ip", "-n", h.Name, "link", "set", "lo", "up")
	Output(n.t, "ip", "-n", h.Name, "address", "add", h.IP+"/24", "dev", "eth0")
	Output(n.t, "ip", "-n", h.Name, "link", "set", "eth0", "up")
	return h
}

// words are what runs a command on the host; none where the host is nil, which is
// this machine itself.
func (h *Host) words() []string {
	if h == nil {
		return nil
	}
	return []string{"nsenter", "--net=/run/netns/" + h.Name, "--"}
}

// Command returns a command that runs on the host, with an environment of its own.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	words := append(append(h.words(), name), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LANG=C", "TERM=xterm", "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
