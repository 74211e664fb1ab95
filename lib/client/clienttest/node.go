// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// A node: an SSH server that runs commands as the user of the tests, with
// terminals, signals, SFTP, agents and ports.

package clienttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/types"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// NodeConfig is what a node is like.
type NodeConfig struct {
	Name   string
	Labels map[string]string
	// Dir is the home of all its logins.
	Dir string
	// Shown are the names in its certificate, if they are to be wrong.
	Shown []string
	// Role is the role in its certificate, if it is to be wrong.
	Role types.SystemRole
	// Banner is what it says to who logs in.
	Banner string
}

// AddNode starts a node and registers it. It returns its UUID and its address.
func (c *Cluster) AddNode(cfg NodeConfig) (id, addr string, err error) {
	listener, err := c.listen()
	if err != nil {
		return "", "", err
	}
	id, addr = uuid.NewString(), listener.Addr().String()
	names := cfg.Shown
	if names == nil {
		names = []string{id, id + "." + c.Name, cfg.Name, cfg.Name + "." + c.Name, "127.0.0.1"}
	}
	role := cfg.Role
	if role == "" {
		role = types.RoleNode
	}
	key, err := c.hostKey(role, names...)
	if err != nil {
		return "", "", err
	}
	checker := &ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool {
		return bytes.Equal(key.Marshal(), c.userSSH.PublicKey().Marshal())
	}}
	config := &ssh.ServerConfig{PublicKeyCallback: checker.Authenticate}
	if cfg.Banner != "" {
		config.BannerCallback = func(ssh.ConnMetadata) string { return cfg.Banner }
	}
	config.AddHostKey(key)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go (&node{cfg: cfg}).serve(conn, config)
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, &types.ServerV2{
		Kind:     types.KindNode,
		Version:  types.V2,
		Metadata: types.Metadata{Name: id, Namespace: "default", Labels: cfg.Labels},
		Spec:     types.ServerSpecV2{Hostname: cfg.Name, Addr: addr},
	})
	return id, addr, nil
}

// node is one connection to a node.
type node struct {
	cfg  NodeConfig
	conn *ssh.ServerConn
}

func (n *node) serve(netConn net.Conn, config *ssh.ServerConfig) {
	defer netConn.Close()
	conn, channels, requests, err := ssh.NewServerConn(netConn, config)
	if err != nil {
		return
	}
	n.conn = conn
	go n.globalRequests(requests)
	for channel := range channels {
		switch channel.ChannelType() {
		case "session":
			go n.session(channel)
		case "direct-tcpip":
			go n.direct(channel)
		default:
			_ = channel.Reject(ssh.UnknownChannelType, "no")
		}
	}
}

type hostPort struct {
	Host string
	Port uint32
}

// opened is a connection that is forwarded: RFC 4254, section 7.2.
type opened struct {
	Host     string
	Port     uint32
	FromHost string
	FromPort uint32
}

// globalRequests serves -R.
func (n *node) globalRequests(requests <-chan *ssh.Request) {
	for request := range requests {
		var bind hostPort
		if request.Type != "tcpip-forward" || ssh.Unmarshal(request.Payload, &bind) != nil {
			_ = request.Reply(false, nil)
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(bind.Port))))
		if err != nil {
			_ = request.Reply(false, nil)
			continue
		}
		port := uint32(listener.Addr().(*net.TCPAddr).Port)
		_ = request.Reply(true, ssh.Marshal(struct{ Port uint32 }{port}))
		go func() {
			_ = n.conn.Wait()
			_ = listener.Close()
		}()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				channel, requests, err := n.conn.OpenChannel("forwarded-tcpip", ssh.Marshal(opened{bind.Host, port, "127.0.0.1", 1}))
				if err != nil {
					_ = conn.Close()
					continue
				}
				go ssh.DiscardRequests(requests)
				go join(conn, channel)
			}
		}()
	}
}

func join(conn net.Conn, channel ssh.Channel) {
	var copies sync.WaitGroup
	copies.Go(func() {
		_, _ = io.Copy(channel, conn)
		_ = channel.CloseWrite()
	})
	copies.Go(func() {
		_, _ = io.Copy(conn, channel)
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	})
	copies.Wait()
	_, _ = conn.Close(), channel.Close()
}

func (n *node) direct(channel ssh.NewChannel) {
	var to opened
	if err := ssh.Unmarshal(channel.ExtraData(), &to); err != nil {
		_ = channel.Reject(ssh.Prohibited, "malformed")
		return
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = channel.Reject(ssh.ConnectionFailed, "connection refused")
		return
	}
	stream, requests, err := channel.Accept()
	if err != nil {
		_ = conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	join(conn, stream)
}

type size struct{ Columns, Rows, Width, Height uint32 }

func (s size) winsize() *unix.Winsize {
	return &unix.Winsize{Row: uint16(s.Rows), Col: uint16(s.Columns)}
}

func (n *node) session(newChannel ssh.NewChannel) {
	channel, requests, err := newChannel.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	var (
		command *exec.Cmd
		master  *os.File
		env     = append(os.Environ(), "LOGIN="+n.conn.User())
		wait    sync.WaitGroup
	)
	defer func() {
		wait.Wait()
		if master != nil {
			_ = master.Close()
		}
	}()
	for request := range requests {
		ok := true
		switch request.Type {
		case "pty-req":
			var pty struct {
				Term                         string
				Columns, Rows, Width, Height uint32
				Modes                        string
			}
			if ok = ssh.Unmarshal(request.Payload, &pty) == nil; ok {
				master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
				ok = err == nil && unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0) == nil &&
					unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size{pty.Columns, pty.Rows, pty.Width, pty.Height}.winsize()) == nil
				env = append(env, "TERM="+pty.Term)
			}
		case "window-change":
			var changed size
			if ssh.Unmarshal(request.Payload, &changed) == nil && master != nil {
				_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, changed.winsize())
			}
		case "auth-agent-req@openssh.com":
			var socket string
			if socket, err = n.agent(); err == nil {
				env = append(env, "SSH_AUTH_SOCK="+socket)
			}
			ok = err == nil
		case "signal":
			var sent struct{ Name string }
			if ssh.Unmarshal(request.Payload, &sent) == nil && command != nil && command.Process != nil {
				_ = syscall.Kill(-command.Process.Pid, unix.SignalNum("SIG"+sent.Name))
			}
		case "exec", "shell":
			arguments := []string{"-c"}
			var line struct{ Command string }
			if request.Type == "shell" {
				arguments = nil
			} else if ok = ssh.Unmarshal(request.Payload, &line) == nil; ok {
				arguments = append(arguments, line.Command)
			}
			command = exec.Command("/bin/sh", arguments...)
			command.Dir, command.Env = n.cfg.Dir, env
			if ok = n.start(command, channel, master) == nil; ok {
				wait.Go(func() { n.end(command, channel, master) })
			}
		case "subsystem":
			var name struct{ Name string }
			ok = ssh.Unmarshal(request.Payload, &name) == nil && name.Name == "sftp"
			if ok {
				wait.Go(func() {
					server, err := sftp.NewServer(channel, sftp.WithServerWorkingDirectory(n.cfg.Dir))
					if err == nil {
						_ = server.Serve()
					}
					_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
					_ = channel.Close()
				})
			}
		default:
			ok = false
		}
		_ = request.Reply(ok, nil)
	}
}

// start starts a command at a terminal, or at pipes.
func (n *node) start(command *exec.Cmd, channel ssh.Channel, master *os.File) error {
	if master == nil {
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		stdin, err := command.StdinPipe()
		if err != nil {
			return err
		}
		command.Stdout, command.Stderr = channel, channel.Stderr()
		if err := command.Start(); err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, channel)
			_ = stdin.Close()
		}()
		return nil
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer slave.Close()
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(master, channel) }()
	return nil
}

// end says how a command ended.
func (n *node) end(command *exec.Cmd, channel ssh.Channel, master *os.File) {
	var read sync.WaitGroup
	if master != nil {
		read.Go(func() { _, _ = io.Copy(channel, master) })
	}
	err := command.Wait()
	read.Wait()
	var exit *exec.ExitError
	status := syscall.WaitStatus(0)
	if errors.As(err, &exit) {
		status = exit.Sys().(syscall.WaitStatus)
	}
	if status.Signaled() {
		name := unix.SignalName(status.Signal())[len("SIG"):]
		_, _ = channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name       string
			Core       bool
			Text, Lang string
		}{Name: name}))
	} else {
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status.ExitStatus())}))
	}
	_ = channel.Close()
}

// agent makes a socket that leads to the client's agent.
func (n *node) agent() (string, error) {
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "agent")
	listener, err := net.Listen("unix", path)
	if err != nil {
		return "", err
	}
	go func() {
		_ = n.conn.Wait()
		_ = listener.Close()
		_ = os.RemoveAll(dir)
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			channel, requests, err := n.conn.OpenChannel("auth-agent@openssh.com", nil)
			if err != nil {
				_ = conn.Close()
				continue
			}
			go ssh.DiscardRequests(requests)
			go join(conn, channel)
		}
	}()
	return path, nil
}

// Remove takes a node out of the list.
func (c *Cluster) Remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(c.nodes, func(node types.Server) bool { return node.GetName() == id })
}
