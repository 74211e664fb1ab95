// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Tests against the kernel that runs. They need root and auditing; without, they
// are skipped, or fail where REQUIRE_KERNEL is 1. They switch auditing on while
// they run, one test binary at a time, and put back what was.

package auditd_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	libaudit "github.com/elastic/go-libaudit/v2"
	"github.com/elastic/go-libaudit/v2/auparse"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/testhost"
)

const (
	// lockFile keeps apart whatever changes the kernel's audit state.
	lockFile = "/run/lock/teleport-auditd-audit.lock"
	// childVariable names what a child of the test binary does.
	childVariable = "AUDITD_TEST_CHILD"
)

// A child owns a login, and loginuid is written by the main thread alone, which
// the main goroutine has here and nowhere later.
func init() {
	if os.Getenv(childVariable) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "":
		os.Exit(m.Run())
	case "emit":
		_ = json.NewEncoder(os.Stdout).Encode(emitOnce(auditd.ModeRequired, "child"))
	case "loginuid":
		_ = json.NewEncoder(os.Stdout).Encode(ownLogin())
	}
}

// kernel is the real one, seen through its audit multicast group.
type kernel struct {
	t      *testing.T
	fd     int
	client *libaudit.AuditClient
	locked bool
}

// record is one record as the kernel multicast it.
type record struct {
	auditd.EventType
	text string
	data map[string]string
}

// openKernel switches auditing on, for as long as the test runs.
func openKernel(t *testing.T) *kernel {
	t.Helper()
	status, err := auditd.ReadStatus()
	if err != nil {
		testhost.Skip(t, "this needs root and a kernel with auditing: %v", err)
	}
	lock, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		testhost.Skip(t, "the lock: %v", err)
	}
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	t.Cleanup(func() { require.NoError(t, lock.Close()) })
	status, err = auditd.ReadStatus()
	require.NoError(t, err)

	k := &kernel{t: t, locked: status.EnabledFlag == 2}
	k.client, err = libaudit.NewAuditClient(nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.client.Close()) })
	if !k.locked {
		t.Cleanup(func() { k.enable(status.Enabled()) })
		k.enable(true)
	}

	k.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(k.fd)) })
	// Group 1 is AUDIT_NLGRP_READLOG.
	require.NoError(t, unix.Bind(k.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}))
	timeout := unix.NsecToTimeval(int64(patience))
	require.NoError(t, unix.SetsockoptTimeval(k.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	return k
}

func (k *kernel) enable(on bool) {
	k.t.Helper()
	require.NoError(k.t, k.client.SetEnabled(on, libaudit.WaitForReply))
}

// kernelLogin is what the kernel writes when a login uid is set (AUDIT_LOGIN).
const kernelLogin auditd.EventType = 1006

// until returns the records of the process pid that concern logins, up to the
// first whose text contains what.
func (k *kernel) until(pid int, what string) (all []record) {
	k.t.Helper()
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(patience); ; {
		require.True(k.t, time.Now().Before(deadline), "no record %q", what)
		n, _, err := unix.Recvfrom(k.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		require.NoError(k.t, err, "no record %q", what)
		// One record a datagram; the length in its header leaves the header out.
		require.Greater(k.t, n, syscall.NLMSG_HDRLEN)
		r := record{EventType: auditd.EventType(binary.NativeEndian.Uint16(buf[4:])),
			text: strings.TrimRight(string(buf[syscall.NLMSG_HDRLEN:n]), "\x00\n")}
		switch r.EventType {
		case kernelLogin, auditd.AuditUserLogin, auditd.AuditUserErr, auditd.AuditUserEnd:
		default:
			continue
		}
		if !strings.Contains(r.text, fmt.Sprintf(" pid=%d ", pid)) {
			continue
		}
		parsed, err := auparse.Parse(auparse.AuditMessageType(r.EventType), r.text)
		require.NoError(k.t, err)
		r.data, err = parsed.Data()
		require.NoError(k.t, err)
		if all = append(all, r); strings.Contains(r.text, what) {
			return all
		}
	}
}

func TestKernelWritesWhatWasSent(t *testing.T) {
	k := openKernel(t)
	emitter, err := auditd.New(auditd.Config{Mode: auditd.ModeRequired})
	require.NoError(t, err)
	defer func() { require.NoError(t, emitter.Close()) }()

	for i, name := range []string{
		"a", "bb", "ccc", "dddd", // the four lengths modulo 4
		`x" res=success foo="y`, "res=success", "uid=0", "DEADBEEF", "o'brien", `a\"b`, "two words", "line\nbreak", "?", "(null)", "名前",
		strings.Repeat("x", 10_000), strings.Repeat(" ", 10_000),
	} {
		result := auditd.Result(i%2 == 0)
		require.NoError(t, emitter.Emit(t.Context(), auditd.Event{
			Type: auditd.AuditUserLogin, Result: result, SystemUser: name, TeleportUser: name,
			ConnAddress: "[2001:db8::7]:22", TTYName: "/dev/pts/3", Reason: name,
		}))
		records := k.until(os.Getpid(), "op=login")
		require.Len(t, records, 1)
		got := records[0]
		require.True(t, strings.HasSuffix(got.text, " res="+result.String()+"'"), "%q", got.text)
		require.Equal(t, 1, strings.Count(got.text, "res="))
		require.Equal(t, name[:min(len(name), 1024)], got.data["acct"])
		require.Equal(t, "2001:db8::7", got.data["addr"])
		require.Equal(t, "/dev/pts/3", got.data["terminal"])
	}
}

func TestKernelSwitchedOffAndOn(t *testing.T) {
	k := openKernel(t)
	if k.locked {
		testhost.Skip(t, "auditing is locked until reboot (enabled 2)")
	}
	k.enable(false)
	log, hook := logtest.NewNullLogger()
	emitter, err := auditd.New(auditd.Config{Log: log})
	require.NoError(t, err)
	defer func() { require.NoError(t, emitter.Close()) }()
	required, err := auditd.New(auditd.Config{Mode: auditd.ModeRequired})
	require.NoError(t, err)
	defer func() { require.NoError(t, required.Close()) }()

	require.NoError(t, emitter.Emit(t.Context(), login("first")))
	require.ErrorIs(t, required.Emit(t.Context(), login("required-first")), auditd.ErrDisabled)
	k.enable(true)
	require.NoError(t, emitter.Emit(t.Context(), login("second")))
	require.NoError(t, required.Emit(t.Context(), login("required-second")))
	k.enable(false)
	require.NoError(t, emitter.Emit(t.Context(), login("third")))
	require.ErrorIs(t, required.Emit(t.Context(), login("required-third")), auditd.ErrDisabled)
	k.enable(true)
	require.NoError(t, emitter.Emit(t.Context(), login("last")))

	var names []string
	for _, r := range k.until(os.Getpid(), `acct="last"`) {
		names = append(names, r.data["acct"])
	}
	require.Equal(t, []string{"second", "required-second", "last"}, names)
	require.Len(t, lines(hook), 2, "%q", lines(hook))
}

func TestKernelStatusIsThatOfAuditctl(t *testing.T) {
	openKernel(t)
	out, err := exec.Command("auditctl", "-s").Output()
	if err != nil {
		testhost.Skip(t, "auditctl -s: %v", err)
	}
	s, err := auditd.ReadStatus()
	require.NoError(t, err)
	lock := "unlocked"
	if s.LoginUIDLocked {
		lock = "locked"
	}
	immutable := 0
	if s.LoginUIDImmutable {
		immutable = 1
	}
	want := fmt.Sprintf("enabled %d\nfailure %d\npid %d\nrate_limit %d\nbacklog_limit %d\nlost %d\nbacklog %d\nbacklog_wait_time %d\nbacklog_wait_time_actual %d\nloginuid_immutable %d %s\n",
		s.EnabledFlag, s.Failure, s.PID, s.RateLimit, s.BacklogLimit, s.Lost, s.Backlog, s.BacklogWaitTime, s.BacklogWaitTimeActual, immutable, lock)
	require.Equal(t, string(out), want)
}

// seen is what a thread or a child with other rights found.
type seen struct {
	Log            []string
	Written        bool
	NotPermitted   bool
	UserNamespace  bool
	StatusHidden   bool
	Other          string
	LoginUID       [2]uint32 // before and after
	SessionID      [2]uint32
	FromElsewhere  bool // whether another thread was refused
	WithoutControl bool // whether a second setting without CAP_AUDIT_CONTROL was refused
}

func emitOnce(mode auditd.Mode, name string) (s seen) {
	_, err := auditd.ReadStatus()
	s.StatusHidden = errors.Is(err, auditd.ErrNotPermitted)
	log, hook := logtest.NewNullLogger()
	emitter, err := auditd.New(auditd.Config{Mode: mode, Log: log})
	if err != nil {
		return seen{Other: err.Error()}
	}
	defer func() { _ = emitter.Close() }()
	err = emitter.Emit(context.Background(), login(name))
	s.Log = lines(hook)
	switch {
	case err == nil:
		s.Written = true
	case errors.Is(err, auditd.ErrNotPermitted):
		s.NotPermitted = true
	case errors.Is(err, auditd.ErrUserNamespace):
		s.UserNamespace = true
	default:
		s.Other = err.Error()
	}
	return s
}

// keepCapabilities drops all others from the calling thread.
func keepCapabilities(which uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: which, Permitted: which}}
	return unix.Capset(&header, &data[0])
}

func TestKernelAsksForTheCapabilityNotForRoot(t *testing.T) {
	k := openKernel(t)
	as := func(capabilities uint32, name string) seen {
		result := make(chan seen)
		go func() {
			// Never unlocked: the thread ends with the goroutine.
			runtime.LockOSThread()
			if err := keepCapabilities(capabilities); err != nil {
				result <- seen{Other: err.Error()}
				return
			}
			result <- emitOnce(auditd.ModeRequired, name)
		}()
		return <-result
	}
	without := as(1<<unix.CAP_AUDIT_CONTROL, "without")
	require.Len(t, without.Log, 1)
	require.Contains(t, without.Log[0], "not permitted")
	require.Equal(t, seen{Log: without.Log, NotPermitted: true}, without)

	with := as(1<<unix.CAP_AUDIT_WRITE, "with")
	require.Equal(t, seen{Log: []string{written}, Written: true, StatusHidden: true}, with)
	require.Len(t, k.until(os.Getpid(), `acct="with"`), 1)
}

// runChild starts this test binary again.
func runChild(t *testing.T, what string, attr *syscall.SysProcAttr) (pid int, s seen) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+what)
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if cmd.Process == nil && errors.Is(err, unix.EPERM) {
		testhost.Skip(t, "starting a child with %+v: %v", attr, err)
	}
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &s))
	return cmd.Process.Pid, s
}

func TestKernelInNamespaces(t *testing.T) {
	k := openKernel(t)
	t.Run("user", func(t *testing.T) {
		id := []syscall.SysProcIDMap{{Size: 1}}
		_, got := runChild(t, "emit", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: id, GidMappings: id})
		require.Len(t, got.Log, 1)
		require.Contains(t, got.Log[0], "user namespace")
		require.Equal(t, seen{Log: got.Log, UserNamespace: true}, got)
	})
	t.Run("pid", func(t *testing.T) {
		pid, got := runChild(t, "emit", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
		require.Equal(t, seen{Log: []string{written}, Written: true, StatusHidden: true}, got)
		require.Len(t, k.until(pid, `acct="child"`), 1)
	})
}

const childLoginUID = 4242

// ownLogin runs in a child, on its main thread.
func ownLogin() (s seen) {
	ids := func(i int) (err error) {
		uid, err1 := auditd.ReadLoginUID()
		ses, err2 := auditd.ReadSessionID()
		s.LoginUID[i], s.SessionID[i] = uid, ses
		return errors.Join(err1, err2)
	}
	elsewhere := make(chan error)
	go func() {
		runtime.LockOSThread()
		elsewhere <- auditd.SetLoginUID(childLoginUID)
	}()
	s.FromElsewhere = errors.Is(<-elsewhere, auditd.ErrNotPermitted)
	if err := errors.Join(ids(0), auditd.SetLoginUID(childLoginUID), ids(1)); err != nil {
		return seen{Other: err.Error()}
	}
	emitted := emitOnce(auditd.ModeRequired, "owner")
	s.Written, s.Log, s.Other = emitted.Written, emitted.Log, emitted.Other
	if err := keepCapabilities(1 << unix.CAP_AUDIT_WRITE); err != nil {
		return seen{Other: err.Error()}
	}
	s.WithoutControl = errors.Is(auditd.SetLoginUID(childLoginUID+1), auditd.ErrNotPermitted)
	return s
}

func TestKernelLoginUID(t *testing.T) {
	k := openKernel(t)
	status, err := auditd.ReadStatus()
	require.NoError(t, err)
	mine, err := auditd.ReadLoginUID()
	require.NoError(t, err)
	if status.LoginUIDImmutable && mine != auditd.UnsetLoginUID {
		testhost.Skip(t, "login uids are immutable here, and ours is set")
	}
	mySession, err := auditd.ReadSessionID()
	require.NoError(t, err)

	var last uint32
	for range 2 {
		pid, got := runChild(t, "loginuid", nil)
		session := got.SessionID[1]
		require.Equal(t, seen{
			Log: []string{written}, Written: true, FromElsewhere: true, WithoutControl: true,
			LoginUID: [2]uint32{mine, childLoginUID}, SessionID: [2]uint32{mySession, session},
		}, got)
		require.NotContains(t, []uint32{last, mySession, auditd.UnsetLoginUID}, session, "a session id of its own")
		last = session

		var order []auditd.EventType
		for _, r := range k.until(pid, `acct="owner"`) {
			if r.EventType == kernelLogin && r.data["result"] != "success" {
				continue // the other thread's attempt
			}
			order = append(order, r.EventType)
			require.Equal(t, strconv.Itoa(childLoginUID), r.data["auid"], r.text)
			require.Equal(t, fmt.Sprint(session), r.data["ses"], r.text)
		}
		require.Equal(t, []auditd.EventType{kernelLogin, auditd.AuditUserLogin}, order)
	}
}

// Emit allocates what go-libaudit's Send and Receive do, and nothing else.
func TestKernelEmitAllocations(t *testing.T) {
	openKernel(t)
	emitter, err := auditd.New(auditd.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, emitter.Close()) }()
	uid := uint32(1001)
	event := auditd.Event{
		Type: auditd.AuditUserLogin, Result: auditd.Success, SystemUser: "bob", UID: &uid, TeleportUser: "alice",
		ConnAddress: "192.0.2.7:50122", TTYName: "/dev/pts/3",
	}
	const runs = 50
	ctx := t.Context()
	ours := testing.AllocsPerRun(runs, func() {
		if err := emitter.Emit(ctx, event); err != nil {
			t.Error(err)
		}
	})

	client, err := libaudit.NewNetlinkClient(unix.NETLINK_AUDIT, 0, nil, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	msg := syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{Type: uint16(auditd.AuditUserLogin), Flags: syscall.NLM_F_REQUEST | syscall.NLM_F_ACK},
		Data:   []byte("op=login acct=\"allocations\" res=success\x00"),
	}
	// A parser that makes nothing.
	parse := libaudit.NetlinkParser(func([]byte) ([]syscall.NetlinkMessage, error) { return nil, nil })
	theirs := testing.AllocsPerRun(runs, func() {
		_, sent := client.Send(msg)
		_, received := client.Receive(true, parse)
		if sent != nil || received != nil {
			t.Error(sent, received)
		}
	})
	t.Logf("allocations of one record: %v, of go-libaudit's Send and Receive %v", ours, theirs)
	require.LessOrEqual(t, ours, theirs)
}
