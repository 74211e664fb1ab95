// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tsh at a real terminal: what is seen, and what the terminal is like afterwards.

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/client/clienttest"
)

// screen is a terminal, and what a program has written to it.
type screen struct {
	t             *testing.T
	master, slave *os.File
	mu            sync.Mutex
	text          bytes.Buffer
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	s := &screen{t: t, master: master, slave: slave}
	s.resize(100, 30)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			s.mu.Lock()
			s.text.Write(buffer[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = slave.Close()
		<-read // EIO, once nobody has the other end
		_ = master.Close()
	})
	return s
}

func (s *screen) resize(columns, rows uint16) {
	s.t.Helper()
	require.NoError(s.t, unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
}

func (s *screen) modes() *unix.Termios {
	s.t.Helper()
	modes, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	require.NoError(s.t, err)
	return modes
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) wait(text string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return bytes.Contains([]byte(s.shown()), []byte(text)) },
		20*time.Second, 10*time.Millisecond, "the terminal never shows %q", text)
}

func (s *screen) typeIn(text string) {
	s.t.Helper()
	_, err := s.master.WriteString(text)
	require.NoError(s.t, err)
}

// start starts tsh at the terminal, in a session of its own.
func (s *screen) start(home string, env []string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command("tsh", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.slave, s.slave, s.slave
	cmd.Env = append(append(os.Environ(), "TELEPORT_HOME="+home, "SSH_AUTH_SOCK=", "TERM=xterm"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(s.t, cmd.Start())
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

func TestTerminal(t *testing.T) {
	cluster, err := clienttest.New(clienttest.Config{})
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	_, _, err = cluster.AddNode(clienttest.NodeConfig{Name: "web", Dir: t.TempDir()})
	require.NoError(t, err)
	home := t.TempDir()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, cluster.WebCA, 0o600))
	env := []string{"SSL_CERT_FILE=" + ca}
	login := []string{"login", "--proxy=" + cluster.WebAddr, "--user=alice"}

	t.Run("an interrupted question leaves the terminal as it was", func(t *testing.T) {
		s := newScreen(t)
		before := s.modes()
		cmd := s.start(home, env, login...)
		s.wait("Enter password")
		require.Eventually(t, func() bool { return s.modes().Lflag&unix.ECHO == 0 }, 20*time.Second, 10*time.Millisecond)
		s.typeIn("\x03")
		require.Error(t, cmd.Wait())
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Equal(t, before, s.modes())
		s.wait("ERROR: interrupted\r")
	})
	t.Run("a password is not shown", func(t *testing.T) {
		s := newScreen(t)
		before := s.modes()
		cmd := s.start(home, env, login...)
		s.wait("Enter password")
		require.Eventually(t, func() bool { return s.modes().Lflag&unix.ECHO == 0 }, 20*time.Second, 10*time.Millisecond)
		s.typeIn(clienttest.Password + "\n")
		require.NoError(t, cmd.Wait(), "%s", s.shown())
		s.wait("Logged in as:     alice")
		require.NotContains(t, s.shown(), clienttest.Password)
		require.Equal(t, before, s.modes())
	})
	t.Run("a shell has the terminal's size, follows it, and hears control characters", func(t *testing.T) {
		s := newScreen(t)
		before := s.modes()
		cmd := s.start(home, nil, "ssh", "bob@web")
		s.typeIn("stty size; echo $TERM\r")
		s.wait("30 100\r\nxterm\r\n")
		require.Zero(t, s.modes().Lflag&(unix.ICANON|unix.ISIG|unix.ECHO), "the terminal is not raw")
		s.resize(77, 22)
		// The shell's own terminal is told; nothing else says when.
		s.typeIn("while test \"$(stty size)\" != '22 77'; do sleep 0.05; done; echo it is sm''aller\r")
		s.wait("it is smaller")
		s.typeIn("echo wai''ting; sleep 100\r")
		s.wait("waiting\r\n")
		s.typeIn("\x03")
		s.typeIn("echo sta''tus $?\r")
		s.wait("status 130")
		s.typeIn("exit 6\r")
		require.Error(t, cmd.Wait())
		require.Equal(t, 6, cmd.ProcessState.ExitCode())
		require.Equal(t, before, s.modes())
	})
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		t.Run("ended by "+sig.String()+", tsh leaves the terminal as it was", func(t *testing.T) {
			s := newScreen(t)
			before := s.modes()
			cmd := s.start(home, nil, "ssh", "-t", "bob@web", "trap '' TERM HUP; echo rea''dy; sleep 100")
			s.wait("ready")
			require.NoError(t, cmd.Process.Signal(sig))
			time.Sleep(100 * time.Millisecond)
			_ = cmd.Process.Signal(sig) // the user insists
			require.Error(t, cmd.Wait())
			require.Equal(t, 128+int(sig), cmd.ProcessState.ExitCode())
			require.Equal(t, before, s.modes())
		})
	}
	t.Run("a copy shows how far it is, unless it is to be quiet", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
		s := newScreen(t)
		cmd := s.start(home, nil, "scp", file, "bob@web:")
		require.NoError(t, cmd.Wait(), "%s", s.shown())
		s.wait("100%        1048576\r\n")
		s = newScreen(t)
		cmd = s.start(home, nil, "scp", "-q", file, "bob@web:")
		require.NoError(t, cmd.Wait())
		require.Empty(t, s.shown())
	})
	t.Run("a connection that is lost leaves the terminal as it was", func(t *testing.T) {
		s := newScreen(t)
		before := s.modes()
		cmd := s.start(home, nil, "ssh", "bob@web")
		s.typeIn("echo rea''dy\r")
		s.wait("ready")
		cluster.Close()
		require.Error(t, cmd.Wait())
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Equal(t, before, s.modes())
		s.wait("ERROR: the connection to the node ended before the command did")
	})
}
