// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// What the daemon needs of its host: folders, files, sockets, programs.

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/config"
	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/node"
	"teleport-auditd/lib/testhost"
)

func TestDataDir(t *testing.T) {
	fresh := func(t *testing.T) string { return filepath.Join(t.TempDir(), "a", "teleport") }

	t.Run("made at first start", func(t *testing.T) {
		path := fresh(t)
		dir, err := openDataDir(path)
		require.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		id, err := dir.hostUUID()
		require.NoError(t, err)

		_, err = openDataDir(path)
		require.True(t, trace.IsAlreadyExists(err))
		require.ErrorContains(t, err, "another teleport is running on the data directory "+path)

		require.NoError(t, dir.close())
		dir, err = openDataDir(path)
		require.NoError(t, err)
		again, err := dir.hostUUID()
		require.NoError(t, err)
		require.Equal(t, id, again)
		require.NoError(t, dir.close())
	})
	for name, test := range map[string]struct {
		damage func(t *testing.T, path string)
		want   string
	}{
		"open to others": {func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o750)) },
			"is open to other users (mode 0750), and will hold private keys: close it with chmod 700"},
		"a file": {func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		}, "is no folder: choose another"},
		"under a file": {func(t *testing.T, path string) {
			require.NoError(t, os.RemoveAll(filepath.Dir(path)))
			require.NoError(t, os.WriteFile(filepath.Dir(path), nil, 0o600))
		}, "cannot be made (not a directory): run as root, or choose another with --data-dir"},
		"lock that cannot be written": {func(t *testing.T, path string) { require.NoError(t, os.Mkdir(filepath.Join(path, lockName), 0o700)) },
			"cannot be written (is a directory)"},
	} {
		t.Run(name, func(t *testing.T) {
			path := fresh(t)
			require.NoError(t, os.MkdirAll(path, 0o700))
			test.damage(t, path)
			_, err := openDataDir(path)
			require.ErrorContains(t, err, path+" "+test.want)
		})
	}
	t.Run("another's", func(t *testing.T) {
		if os.Geteuid() != 0 {
			testhost.Skip(t, "needs root, to give a folder away")
		}
		path := fresh(t)
		require.NoError(t, os.MkdirAll(path, 0o700))
		require.NoError(t, os.Chown(path, 12345, -1))
		_, err := openDataDir(path)
		require.ErrorContains(t, err, "belongs to uid 12345, and teleport runs as uid 0")
	})
	t.Run("no UUID", func(t *testing.T) {
		dir, err := openDataDir(fresh(t))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir.path, hostUUIDName), []byte("x"), 0o600))
		_, err = dir.hostUUID()
		require.ErrorContains(t, err, "holds no UUID: take the file away")
		require.NoError(t, dir.close())
	})
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	require.NoError(t, os.WriteFile(path, []byte("1\n"), 0o600), "a stale one")
	file, err := writePIDFile(path)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(os.Getpid())+"\n", string(text))
	require.NoError(t, file.remove())
	require.NoFileExists(t, path)
	require.NoError(t, file.remove(), "gone already")

	require.NoError(t, os.WriteFile(path, []byte("1\n"), 0o600), "another daemon's")
	require.NoError(t, file.remove())
	require.FileExists(t, path)

	_, err = writePIDFile(filepath.Join(path, "pid"))
	require.ErrorContains(t, err, "cannot be written (not a directory): change teleport.pid_file or --pid-file")
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for addr, want := range map[string]string{
		taken.Addr().String(): "(ssh_service.listen_addr): another program uses the port. Find it with ss -ltnp",
		"192.0.2.1:3022":      "this host does not have the address",
	} {
		settings := config.Default()
		for _, other := range []*string{&settings.Auth.ListenAddr, &settings.Proxy.ListenAddr, &settings.Proxy.WebListenAddr, &settings.Proxy.TunnelListenAddr} {
			*other = "127.0.0.1:0"
		}
		settings.SSH.ListenAddr = addr
		_, err := (&Process{settings: settings}).listen()
		require.ErrorContains(t, err, "cannot listen on "+addr)
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, listenError("ssh_service.listen_addr", "web:22", &net.OpError{Err: &net.DNSError{}}), "the name cannot be resolved. Use an address of this host, or 0.0.0.0:22")
	require.ErrorContains(t, listenError("ssh_service.listen_addr", ":22", os.ErrPermission), "permission denied. Run as root, or choose a port from 1024 on")
}

func TestAddresses(t *testing.T) {
	addr := func(text string) net.Addr {
		tcp, err := net.ResolveTCPAddr("tcp", text)
		require.NoError(t, err)
		return tcp
	}
	require.Equal(t, []string{"192.0.2.7"}, servedAddresses(addr("192.0.2.7:22")))
	require.Equal(t, []string{"fe80::1"}, servedAddresses(addr("[fe80::1%lo]:22")))
	require.Contains(t, servedAddresses(addr("0.0.0.0:22")), "127.0.0.1")

	for listens, want := range map[string]string{
		"192.0.2.7:22":     "192.0.2.7:22",
		"[2001:db8::1]:22": "[2001:db8::1]:22",
		"0.0.0.0:3022":     "127.0.0.1:3022",
		"[::]:3022":        "127.0.0.1:3022",
	} {
		require.Equal(t, want, advertised(addr(listens), true))
	}
	host, port, err := net.SplitHostPort(advertised(addr("0.0.0.0:3022"), false))
	require.NoError(t, err)
	require.Equal(t, "3022", port)
	require.False(t, net.ParseIP(host).IsUnspecified())
}

func TestChecksOfTheNode(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "teleport-session")
	require.ErrorContains(t, checkProgram(program), program+" is missing, which ssh_service needs for logins: install it beside teleport")
	require.NoError(t, os.WriteFile(program, nil, 0o600))
	require.ErrorContains(t, checkProgram(program), "is no executable program")
	require.NoError(t, os.Chmod(program, 0o755))
	require.NoError(t, checkProgram(program))
	require.Error(t, checkProgram(dir))
}

func TestWarnings(t *testing.T) {
	for name, test := range map[string]struct {
		euid int
		uid  uint32
		err  error
		mode auditd.Mode
		want []string
	}{
		"as a service":        {0, auditd.UnsetLoginUID, nil, auditd.ModeAuto, nil},
		"from a login":        {0, 1000, nil, auditd.ModeAuto, []string{"Start it as a systemd service; cat /proc/" + strconv.Itoa(os.Getpid()) + "/loginuid must say 4294967295."}},
		"without auditing":    {0, 1000, nil, auditd.ModeOff, []string{"Start it as a systemd service"}},
		"kernel without it":   {0, 0, errors.New("no such file"), auditd.ModeAuto, nil},
		"without root":        {1000, auditd.UnsetLoginUID, nil, auditd.ModeAuto, []string{"Auditing and switching users are off: teleport runs as uid 1000, and both need root."}},
		"by a user, at login": {1000, 1000, nil, auditd.ModeAuto, []string{"Auditing and switching users are off", "Start it as a systemd service"}},
	} {
		t.Run(name, func(t *testing.T) {
			log, hook := quiet()
			p := &Process{log: log, settings: &config.Config{AuditMode: test.mode}}
			p.warnOfLimits(test.euid, func() (uint32, error) { return test.uid, test.err })
			warnings := messages(hook, logrus.WarnLevel)
			require.Len(t, warnings, len(test.want))
			for i, want := range test.want {
				require.Contains(t, warnings[i], want)
			}
		})
	}
}

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "teleport.log")
	log, err := OpenLog(config.Log{Output: path, Severity: logrus.InfoLevel, Format: "json"})
	require.NoError(t, err)
	log.Debug("hidden")
	log.Info("one")
	require.NoError(t, os.Rename(path, path+".1"))
	log.Info("two")
	require.NoError(t, log.Reopen())
	log.Info("three")
	old, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(old), "\n"))
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	var line map[string]string
	require.NoError(t, json.Unmarshal(now, &line))
	require.Equal(t, "three", line["msg"])
	require.NoError(t, os.RemoveAll(filepath.Dir(path)))
	require.ErrorContains(t, log.Reopen(), "its folder does not exist")
	log.Info("lines still go where they went")

	// A name must not forge a line, in either format.
	for _, format := range []string{"text", "json"} {
		path := filepath.Join(t.TempDir(), "log")
		log, err := OpenLog(config.Log{Output: path, Severity: logrus.InfoLevel, Format: format})
		require.NoError(t, err)
		log.WithField("login", "a\nlevel=error").Info("b\nc")
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(text), "\n"))
	}
	_, err = OpenLog(config.Log{Output: t.TempDir(), Format: "text"})
	require.ErrorContains(t, err, "is a directory")
}

// TestHeartbeat holds that a task that fails is said and tried again.
func TestHeartbeat(t *testing.T) {
	ctx := testContext(t)
	log, hook := quiet()
	clock := clockwork.NewFakeClock()
	p := &Process{supervisor: newSupervisor(log, clock), log: log, clock: clock}
	beats := make(chan int)
	beat := 0
	p.keepCurrent("node", func(context.Context) error { return trace.AccessDenied("the store is read-only") }, func(context.Context) error {
		beat++
		beats <- beat
		return nil
	})
	p.Start()
	for want := 1; want <= 2; want++ {
		require.NoError(t, clock.BlockUntilContext(ctx, 1))
		clock.Advance(heartbeat)
		require.Equal(t, want, <-beats)
	}
	require.NoError(t, p.close(time.Hour))
	require.Equal(t, []string{"The store is read-only. The next try is in 1m0s.", "The store is read-only. The next try is in 1m0s."}, messages(hook, logrus.WarnLevel))
}

// TestDefaultsAgree: what teleport configure prints as a default is what a server
// does that was told nothing.
func TestDefaultsAgree(t *testing.T) {
	require.Equal(t, srv.DefaultMaxStartups, config.DefaultMaxStartups)
	require.Equal(t, srv.DefaultLoginGraceTime, config.DefaultLoginGraceTime)
	require.Equal(t, node.DefaultMaxSessions, config.DefaultMaxSessions)
	require.Equal(t, node.DefaultKeepAliveInterval, config.DefaultKeepAliveInterval)
	require.EqualValues(t, node.GatewayNo, config.DefaultGatewayPorts)
}
