// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"teleport-auditd/lib/events/spool"
	"teleport-auditd/lib/srv/session/sessiontest"
	"teleport-auditd/lib/testhost"
)

// emitterDir is where the test's own program, started by it, emits until it is
// killed.
const emitterDir = "SPOOL_TEST_EMITTER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(emitterDir); dir != "" {
		emitForEver(dir)
	}
	os.Exit(m.Run())
}

// emitForEver prints the name of each event that was kept.
func emitForEver(dir string) {
	log, _ := logtest.NewNullLogger()
	s, err := spool.New(spool.Config{
		Dir:  dir,
		Log:  log,
		Send: func(context.Context, apievents.AuditEvent) error { return trace.ConnectionProblem(nil, "away") },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		s.Emit(newEvent(i))
		fmt.Println(name(i))
	}
}

func name(i int) string { return fmt.Sprintf("event-%06d", i) }

func newEvent(i int) apievents.AuditEvent {
	return &apievents.SessionStart{
		Metadata:       apievents.Metadata{Type: "session.start", Code: "T2000I", ID: name(i), Time: time.Unix(int64(i), 0).UTC(), ClusterName: "example.com"},
		UserMetadata:   apievents.UserMetadata{User: "alice", Login: "root"},
		ServerMetadata: apievents.ServerMetadata{ServerLabels: map[string]string{"auditd/ses": "7"}},
		InitialCommand: []string{strings.Repeat("x", 200)},
	}
}

// server is an auth service that may be away.
type server struct {
	mu   sync.Mutex
	err  func(apievents.AuditEvent) error
	got  []string
	last apievents.AuditEvent
}

func (s *server) send(_ context.Context, event apievents.AuditEvent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		if err := s.err(event); err != nil {
			return err
		}
	}
	s.got = append(s.got, event.GetID())
	s.last = event
	return nil
}

func (s *server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = func(apievents.AuditEvent) error { return err }
}

func (s *server) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func names(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, name(i))
	}
	return all
}

func open(t *testing.T, dir string, srv *server, change ...func(*spool.Config)) (*spool.Spool, *logtest.Hook) {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.InfoLevel)
	cfg := spool.Config{Dir: dir, Send: srv.send, Log: log}
	for _, f := range change {
		f(&cfg)
	}
	s, err := spool.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, hook
}

func flush(t *testing.T, s *spool.Spool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sessiontest.Patience)
	defer cancel()
	require.NoError(t, s.Flush(ctx))
}

// lines returns the log's lines from a level on.
func lines(hook *logtest.Hook, level logrus.Level) (all []string) {
	for _, entry := range hook.AllEntries() {
		if entry.Level <= level {
			all = append(all, entry.Message)
		}
	}
	return all
}

func size(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.events"))
	require.NoError(t, err)
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		n += info.Size()
	}
	return n
}

func TestOrder(t *testing.T) {
	t.Parallel()
	dir, srv := filepath.Join(t.TempDir(), "events"), &server{}
	s, hook := open(t, dir, srv)
	// More than one segment, sent while more come.
	const n = 5000
	for i := range n {
		s.Emit(newEvent(i))
	}
	flush(t, s)
	require.Equal(t, names(0, n), srv.names())
	require.Equal(t, newEvent(n-1), srv.last, "it arrives as it was")
	require.Zero(t, size(t, dir), "what was sent is not kept")
	s.Emit(newEvent(n))
	flush(t, s)
	require.Equal(t, n+1, len(srv.names()))
	require.NoError(t, s.Close())
	require.Empty(t, lines(hook, logrus.InfoLevel))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestManyEmitters(t *testing.T) {
	t.Parallel()
	srv := &server{}
	s, _ := open(t, t.TempDir(), srv)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				s.Emit(newEvent(1000*i + j))
			}
		})
	}
	all.Wait()
	flush(t, s)
	got := srv.names()
	for i := range 8 {
		var own []string
		for _, id := range got {
			if strings.HasPrefix(id, fmt.Sprintf("event-00%d", i)) {
				own = append(own, id)
			}
		}
		require.Equal(t, names(1000*i, 1000*i+200), own)
	}
}

func TestFillsIn(t *testing.T) {
	t.Parallel()
	srv := &server{}
	s, _ := open(t, t.TempDir(), srv)
	s.Emit(&apievents.AuthAttempt{Metadata: apievents.Metadata{Type: "auth"}})
	flush(t, s)
	require.NotEmpty(t, srv.last.GetID())
	require.False(t, srv.last.GetTime().IsZero())
}

// TestAway: the auth service is away for ten minutes.
func TestAway(t *testing.T) {
	t.Parallel()
	srv, clock := &server{}, clockwork.NewFakeClock()
	srv.fail(trace.ConnectionProblem(nil, "connection refused"))
	s, hook := open(t, t.TempDir(), srv, func(c *spool.Config) { c.Clock = clock })
	sent := 1
	s.Emit(newEvent(0))
	require.Eventually(t, func() bool { return len(lines(hook, logrus.WarnLevel)) == 1 }, sessiontest.Patience, time.Millisecond)
	for range 600 {
		s.Emit(newEvent(sent))
		sent++
		clock.Advance(time.Second)
	}
	require.Empty(t, srv.names())
	srv.fail(nil)
	deadline := time.Now().Add(sessiontest.Patience)
	for len(srv.names()) < sent && time.Now().Before(deadline) {
		clock.Advance(time.Second)
		time.Sleep(time.Millisecond)
	}
	require.Equal(t, names(0, sent), srv.names())
	require.Len(t, lines(hook, logrus.WarnLevel), 1, "it is said once")
	require.Contains(t, lines(hook, logrus.WarnLevel)[0], "connection refused")
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir, away, srv := t.TempDir(), &server{}, &server{}
	away.fail(trace.ConnectionProblem(nil, "away"))
	for start := range 3 {
		s, _ := open(t, dir, away)
		for i := range 10 {
			s.Emit(newEvent(10*start + i))
		}
		require.NoError(t, s.Close())
		s.Emit(newEvent(99)) // Too late, and no panic.
	}
	s, _ := open(t, dir, srv)
	s.Emit(newEvent(30))
	flush(t, s)
	require.Equal(t, names(0, 31), srv.names())
	require.NoError(t, s.Close())
	again := &server{}
	s, _ = open(t, dir, again)
	flush(t, s)
	require.Empty(t, again.names(), "what was sent is not sent at the next start")
}

// TestKilled kills a process that emits, again and again: all that it said it had
// kept is there.
func TestKilled(t *testing.T) {
	t.Parallel()
	for range 5 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), emitterDir+"="+dir)
		cmd.Stderr = os.Stderr
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		var said []string
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			said = append(said, scanner.Text())
			if len(said) == 6000 {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait()
		require.GreaterOrEqual(t, len(said), 6000)
		srv := &server{}
		s, hook := open(t, dir, srv)
		flush(t, s)
		got := srv.names()
		require.GreaterOrEqual(t, len(got), len(said))
		require.Equal(t, names(0, len(got)), got, "all of them, once, in their order")
		require.Empty(t, lines(hook, logrus.WarnLevel))
		require.NoError(t, s.Close())
	}
}

func TestDamaged(t *testing.T) {
	t.Parallel()
	for title, test := range map[string]struct {
		change func(data []byte) []byte
		want   int
		level  logrus.Level
		says   string
	}{
		"unfinished header":  {func(b []byte) []byte { return append(b, 1, 2, 3) }, 20, logrus.InfoLevel, "not written to its end"},
		"unfinished payload": {func(b []byte) []byte { return b[:len(b)-5] }, 19, logrus.InfoLevel, "not written to its end"},
		"another byte":       {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, 19, logrus.ErrorLevel, "cannot be read"},
		"zeros":              {func(b []byte) []byte { return append(b, make([]byte, 100)...) }, 20, logrus.ErrorLevel, "cannot be read"},
		"a huge length":      {func(b []byte) []byte { return append(b, 255, 255, 255, 255, 0, 0, 0, 0, 0) }, 20, logrus.ErrorLevel, "cannot be read"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			dir, away, srv := t.TempDir(), &server{}, &server{}
			away.fail(trace.ConnectionProblem(nil, "away"))
			s, _ := open(t, dir, away)
			for i := range 20 {
				s.Emit(newEvent(i))
			}
			require.NoError(t, s.Close())
			files, err := filepath.Glob(filepath.Join(dir, "*.events"))
			require.NoError(t, err)
			require.Len(t, files, 1)
			data, err := os.ReadFile(files[0])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(files[0], test.change(data), 0o600))
			s, hook := open(t, dir, srv)
			s.Emit(newEvent(20))
			flush(t, s)
			require.Equal(t, append(names(0, test.want), name(20)), srv.names())
			said := lines(hook, test.level)
			require.Contains(t, said[len(said)-1], test.says)
		})
	}
}

// TestBounded: there is room for some, the others are counted, and there is room
// again when those are sent.
func TestBounded(t *testing.T) {
	t.Parallel()
	srv := &server{}
	srv.fail(trace.ConnectionProblem(nil, "away"))
	dir := t.TempDir()
	s, hook := open(t, dir, srv, func(c *spool.Config) { c.MaxBytes = 4096 })
	for i := range 100 {
		s.Emit(newEvent(i))
	}
	require.LessOrEqual(t, size(t, dir), int64(4096))
	require.Len(t, lines(hook, logrus.ErrorLevel), 1, "it is said once")
	require.Contains(t, lines(hook, logrus.ErrorLevel)[0], "may have 4096")
	srv.fail(nil)
	flush(t, s)
	kept := len(srv.names())
	require.Equal(t, names(0, kept), srv.names())
	require.Greater(t, kept, 5)
	s.Emit(newEvent(100))
	flush(t, s)
	require.Equal(t, append(names(0, kept), name(100)), srv.names())
	require.Contains(t, lines(hook, logrus.ErrorLevel)[1], fmt.Sprintf("lost: %d.", 100-kept))
}

// TestKnocking: refused logins leave room for the others.
func TestKnocking(t *testing.T) {
	t.Parallel()
	srv := &server{}
	srv.fail(trace.ConnectionProblem(nil, "away"))
	s, _ := open(t, t.TempDir(), srv, func(c *spool.Config) { c.MaxBytes = 16 << 10 })
	for i := range 1000 {
		s.Emit(&apievents.AuthAttempt{Metadata: apievents.Metadata{Type: "auth", ID: fmt.Sprint("knock-", i)}})
	}
	for i := range 10 {
		s.Emit(newEvent(i))
	}
	srv.fail(nil)
	flush(t, s)
	got := srv.names()
	require.Greater(t, len(got), 20)
	require.Equal(t, names(0, 10), got[len(got)-10:])
}

// TestFullDisk fills a file system of 64 KiB.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	sessiontest.NeedRoot(t)
	dir, srv := t.TempDir(), &server{}
	if err := unix.Mount("spool", dir, "tmpfs", 0, "size=64k"); err != nil {
		testhost.Skip(t, "a file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	srv.fail(trace.ConnectionProblem(nil, "away"))
	s, hook := open(t, filepath.Join(dir, "events"), srv)
	for i := range 1000 {
		s.Emit(newEvent(i))
	}
	require.Len(t, lines(hook, logrus.ErrorLevel), 1, "it is said once")
	require.Contains(t, lines(hook, logrus.ErrorLevel)[0], "no space left")
	srv.fail(nil)
	flush(t, s)
	kept := len(srv.names())
	require.Greater(t, kept, 50)
	require.Equal(t, names(0, kept), srv.names())
	s.Emit(newEvent(1000))
	flush(t, s)
	require.Equal(t, name(1000), srv.names()[kept])
	require.NoError(t, s.Close())
}

// TestRefused: what nobody takes is put aside, and the others go on.
func TestRefused(t *testing.T) {
	t.Parallel()
	dir, srv, clock := t.TempDir(), &server{}, clockwork.NewFakeClock()
	denied := 0
	srv.err = func(e apievents.AuditEvent) error {
		switch e.GetID() {
		case name(1):
			return trace.BadParameter("no such type")
		case name(2):
			return trace.AlreadyExists("it is there")
		case name(3):
			return trace.AccessDenied("nodes may not")
		case name(4):
			if denied++; denied == 1 {
				return trace.AccessDenied("the certificate has expired")
			}
		}
		return nil
	}
	s, hook := open(t, dir, srv, func(c *spool.Config) { c.Clock = clock })
	for i := range 6 {
		s.Emit(newEvent(i))
	}
	deadline := time.Now().Add(sessiontest.Patience)
	for len(srv.names()) < 3 && time.Now().Before(deadline) {
		clock.Advance(time.Second)
		time.Sleep(time.Millisecond)
	}
	require.Equal(t, []string{name(0), name(4), name(5)}, srv.names())
	data, err := os.ReadFile(filepath.Join(dir, spool.RefusedFile))
	require.NoError(t, err)
	var reasons []string
	for line := range strings.Lines(string(data)) {
		var refused struct {
			Reason string
			Event  struct{ UID string }
			Raw    []byte
		}
		require.NoError(t, json.Unmarshal([]byte(line), &refused))
		require.NotEmpty(t, refused.Raw)
		reasons = append(reasons, refused.Event.UID+": "+refused.Reason)
	}
	require.Equal(t, []string{name(1) + ": no such type", name(3) + ": nodes may not"}, reasons)
	said := lines(hook, logrus.ErrorLevel)
	require.Len(t, said, 2)
	require.Contains(t, said[0], "session.start "+name(1))
}

func TestFlushGivesUp(t *testing.T) {
	t.Parallel()
	srv := &server{}
	srv.fail(trace.ConnectionProblem(nil, "away"))
	s, _ := open(t, t.TempDir(), srv)
	s.Emit(newEvent(0))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Flush(ctx), context.Canceled)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	send := (&server{}).send
	for _, cfg := range []spool.Config{{}, {Dir: "events", Send: send}, {Dir: t.TempDir()}, {Dir: t.TempDir(), Send: send, MaxBytes: -1}} {
		_, err := spool.New(cfg)
		require.True(t, trace.IsBadParameter(err), "%v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := spool.New(spool.Config{Dir: file, Send: send})
	require.Error(t, err)
	require.False(t, errors.Is(err, os.ErrNotExist))
}

func BenchmarkEmit(b *testing.B) {
	log, _ := logtest.NewNullLogger()
	srv := &server{}
	srv.fail(trace.ConnectionProblem(nil, "away"))
	s, err := spool.New(spool.Config{Dir: b.TempDir(), Send: srv.send, Log: log, MaxBytes: 1 << 40})
	require.NoError(b, err)
	defer s.Close()
	event := newEvent(0)
	for b.Loop() {
		s.Emit(event)
	}
}
