// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auditd_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
)

func login(name string) auditd.Event {
	return auditd.Event{Type: auditd.AuditUserLogin, Result: auditd.Success, SystemUser: name}
}

// start returns an Emitter on the kernel k and the log that it writes.
func start(t *testing.T, k *auditdtest.Kernel, cfg auditd.Config) (auditd.Emitter, *logtest.Hook) {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	cfg.Log, cfg.Dial = log, k.Dial
	emitter, err := auditd.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, emitter.Close())
		require.Zero(t, k.Open(), "sockets left open")
	})
	return emitter, hook
}

func lines(hook *logtest.Hook) (all []string) {
	for _, e := range hook.AllEntries() {
		all = append(all, e.Level.String()+": "+e.Message)
	}
	return all
}

const (
	written  = "info: Audit records go to the kernel."
	disabled = "info: Audit records are not written: auditing is switched off in the kernel"
)

// What New picks, what it says, and what becomes of three events then.
func TestPick(t *testing.T) {
	const (
		absent    = "info: Audit records are not written: the kernel has no auditing"
		refused   = "warning: Audit records are not written: not permitted"
		namespace = "info: Audit records are not written: the kernel takes no audit records from inside a user namespace"
	)
	for name, c := range map[string]struct {
		kernel   auditdtest.Answers
		log      []string
		records  int
		required error // of each event in ModeRequired
	}{
		"enabled":                 {auditdtest.Answers{Enabled: 1}, []string{written}, 3, nil},
		"locked is enabled":       {auditdtest.Answers{Enabled: 2}, []string{written}, 3, nil},
		"disabled":                {auditdtest.Answers{Enabled: 0}, []string{disabled}, 0, auditd.ErrDisabled},
		"booted with audit=0":     {auditdtest.Answers{Dial: syscall.EPROTONOSUPPORT}, []string{absent}, 0, auditd.ErrAbsent},
		"no netlink":              {auditdtest.Answers{Dial: syscall.EAFNOSUPPORT}, []string{absent}, 0, auditd.ErrAbsent},
		"old kernel":              {auditdtest.Answers{Dial: syscall.EINVAL}, []string{absent}, 0, auditd.ErrAbsent},
		"opening forbidden":       {auditdtest.Answers{Dial: syscall.EACCES}, []string{refused}, 0, auditd.ErrNotPermitted},
		"status hidden":           {auditdtest.Answers{Enabled: 1, Status: syscall.EPERM}, []string{written}, 3, nil},
		"status and records shut": {auditdtest.Answers{Enabled: 1, Status: syscall.EPERM, Record: syscall.EPERM}, []string{written, refused}, 0, auditd.ErrNotPermitted},
		"status broken":           {auditdtest.Answers{Enabled: 1, Status: syscall.EIO}, []string{written}, 3, nil},
		"user namespace":          {auditdtest.Answers{Enabled: 1, Status: syscall.ECONNREFUSED}, []string{namespace}, 0, auditd.ErrUserNamespace},
		"user namespace at once":  {auditdtest.Answers{Enabled: 1, Send: syscall.ECONNREFUSED}, []string{namespace}, 0, auditd.ErrUserNamespace},
		"user namespace later":    {auditdtest.Answers{Enabled: 1, Status: syscall.EPERM, Record: syscall.ECONNREFUSED}, []string{written, namespace}, 0, auditd.ErrUserNamespace},
	} {
		for _, mode := range []auditd.Mode{auditd.ModeAuto, auditd.ModeRequired} {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				k := new(auditdtest.Kernel)
				k.Set(c.kernel)
				emitter, hook := start(t, k, auditd.Config{Mode: mode})
				for range 3 {
					err := emitter.Emit(t.Context(), login("bob"))
					if mode == auditd.ModeAuto {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, c.required)
					}
				}
				require.Len(t, k.Records(), c.records)

				got := lines(hook)
				require.Len(t, got, len(c.log), "%q", got)
				for i, want := range c.log {
					if mode == auditd.ModeRequired && want != written {
						_, reason, _ := strings.Cut(want, ": Audit records are not written: ")
						want = "error: Audit records are not written, and teleport.auditd.mode is required, so nobody can log in: " + reason
					}
					require.True(t, strings.HasPrefix(got[i], want), "%q", got)
				}
			})
		}
	}
}

// What the kernel answers to one event, and that the next goes through.
func TestAnswers(t *testing.T) {
	unwritten := []error{auditd.ErrDisabled, auditd.ErrAbsent, auditd.ErrUserNamespace, auditd.ErrNotPermitted}
	for name, c := range map[string]struct {
		kernel  auditdtest.Answers
		want    []error
		records int
		dialled int // after the next event
	}{
		"taken":                      {auditdtest.Answers{}, nil, 1, 1},
		"another message's answer":   {auditdtest.Answers{Stale: true}, nil, 1, 1},
		"signals while sending":      {auditdtest.Answers{Send: syscall.EINTR, Times: 3}, nil, 1, 1},
		"signals while receiving":    {auditdtest.Answers{Receive: syscall.EINTR, Times: 3}, nil, 1, 1},
		"not sent, no memory":        {auditdtest.Answers{Send: syscall.ENOBUFS}, []error{syscall.ENOBUFS}, 0, 2},
		"answer lost":                {auditdtest.Answers{Receive: syscall.ENOBUFS}, []error{auditd.ErrUnknownOutcome, syscall.ENOBUFS}, 1, 2},
		"no answer":                  {auditdtest.Answers{Silent: true}, []error{auditd.ErrUnknownOutcome}, 1, 2},
		"no answer but a stale one":  {auditdtest.Answers{Silent: true, Stale: true}, []error{auditd.ErrUnknownOutcome}, 1, 2},
		"refused, no memory":         {auditdtest.Answers{Record: syscall.ENOMEM}, []error{syscall.ENOMEM}, 0, 1},
		"refused, the queue is full": {auditdtest.Answers{Record: syscall.EAGAIN}, []error{syscall.EAGAIN}, 0, 1},
		"refused, unknown to kernel": {auditdtest.Answers{Record: syscall.EINVAL}, []error{syscall.EINVAL}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			k := new(auditdtest.Kernel)
			k.Set(auditdtest.Answers{Enabled: 1})
			emitter, hook := start(t, k, auditd.Config{})

			c.kernel.Enabled = 1
			k.Set(c.kernel)
			err := emitter.Emit(t.Context(), login("bob"))
			if c.want == nil {
				require.NoError(t, err)
			}
			for _, want := range c.want {
				require.ErrorIs(t, err, want)
			}
			for _, other := range unwritten {
				require.NotErrorIs(t, err, other)
			}
			require.Len(t, k.Records(), c.records, "lost or doubled")

			k.Set(auditdtest.Answers{Enabled: 1})
			require.NoError(t, emitter.Emit(t.Context(), login("bob")))
			require.Len(t, k.Records(), c.records+1)
			require.Equal(t, c.dialled, k.Dialled())
			require.Equal(t, 1, k.Open())
			require.Equal(t, []string{written}, lines(hook), "an answer to one event is the caller's")
		})
	}
}

func TestNoDescriptorLeft(t *testing.T) {
	k := new(auditdtest.Kernel)
	k.Set(auditdtest.Answers{Dial: syscall.EMFILE})
	emitter, _ := start(t, k, auditd.Config{})
	require.ErrorIs(t, emitter.Emit(t.Context(), login("bob")), syscall.EMFILE)
	k.Set(auditdtest.Answers{Enabled: 1})
	require.NoError(t, emitter.Emit(t.Context(), login("bob")))
	require.Len(t, k.Records(), 1)
}

func TestSwitching(t *testing.T) {
	on, off := auditdtest.Answers{Enabled: 1}, auditdtest.Answers{Enabled: 0}
	const poll = 5 * time.Second

	t.Run("from the next event on", func(t *testing.T) {
		k := new(auditdtest.Kernel)
		emitter, hook := start(t, k, auditd.Config{})
		for i, a := range []auditdtest.Answers{off, on, off, on, on} {
			k.Set(a)
			require.NoError(t, emitter.Emit(t.Context(), login(fmt.Sprint(i))))
		}
		require.Len(t, k.Records(), 3)
		require.Equal(t, 2, len(hook.AllEntries()), "%q", lines(hook))
	})
	t.Run("required refuses from the next event on", func(t *testing.T) {
		k := new(auditdtest.Kernel)
		k.Set(on)
		emitter, _ := start(t, k, auditd.Config{Mode: auditd.ModeRequired})
		require.NoError(t, emitter.Emit(t.Context(), login("bob")))
		k.Set(off)
		require.ErrorIs(t, emitter.Emit(t.Context(), login("bob")), auditd.ErrDisabled)
		k.Set(on)
		require.NoError(t, emitter.Emit(t.Context(), login("bob")))
		require.Len(t, k.Records(), 2)
	})
	t.Run("noticed by the poll", func(t *testing.T) {
		k, clock := new(auditdtest.Kernel), clockwork.NewFakeClock()
		k.Set(on)
		_, hook := start(t, k, auditd.Config{Poll: poll, Clock: clock})
		said := 1
		for _, a := range []auditdtest.Answers{off, on, off} {
			k.Set(a)
			clock.Advance(poll)
			said++
			require.Eventually(t, func() bool { return len(hook.AllEntries()) == said }, patience, time.Millisecond)
			want := disabled
			if a.Enabled != 0 {
				want = written
			}
			require.Contains(t, lines(hook)[said-1], want)
		}
	})
	t.Run("a poll that cannot tell says nothing", func(t *testing.T) {
		k := new(auditdtest.Kernel)
		emitter, hook := start(t, k, auditd.Config{})
		k.Set(auditdtest.Answers{Status: syscall.EIO, Enabled: 1})
		for range 3 {
			require.NoError(t, emitter.Emit(t.Context(), login("bob")))
		}
		require.Len(t, k.Records(), 3, "what may be written is sent")
		require.Len(t, lines(hook), 1)
	})
}

func TestModes(t *testing.T) {
	for in, want := range map[string]auditd.Mode{"": auditd.ModeAuto, "auto": auditd.ModeAuto, "required": auditd.ModeRequired, "off": auditd.ModeOff} {
		got, err := auditd.ParseMode(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, cfg := range []auditd.Config{{Mode: "on"}, {Mode: "AUTO"}, {Poll: -1}} {
		_, err := auditd.New(cfg)
		require.Error(t, err)
	}

	k := new(auditdtest.Kernel)
	k.Set(auditdtest.Answers{Enabled: 1})
	emitter, hook := start(t, k, auditd.Config{Mode: auditd.ModeOff})
	require.NoError(t, emitter.Emit(t.Context(), login("bob")))
	require.Zero(t, k.Dialled())
	require.Equal(t, []string{"info: Audit records are off: teleport.auditd.mode is off."}, lines(hook))
}

func TestWhatIsNotSent(t *testing.T) {
	k := new(auditdtest.Kernel)
	k.Set(auditdtest.Answers{Enabled: 1})
	emitter, _ := start(t, k, auditd.Config{})

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, emitter.Emit(ctx, login("bob")), context.Canceled)
	// A forgotten type, and AUDIT_SET, which would switch auditing off.
	for _, unknown := range []auditd.EventType{0, 1001} {
		require.ErrorContains(t, emitter.Emit(t.Context(), auditd.Event{Type: unknown}), "no records of type UNKNOWN[")
	}
	require.Empty(t, k.Records())
}

func TestRecordAsTheKernelGetsIt(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	for _, c := range []struct {
		kind auditd.EventType
		op   string
	}{{auditd.AuditUserLogin, "login"}, {auditd.AuditUserErr, "invalid_user"}, {auditd.AuditUserEnd, "session_close"}} {
		k := new(auditdtest.Kernel)
		k.Set(auditdtest.Answers{Enabled: 1})
		emitter, _ := start(t, k, auditd.Config{})
		require.NoError(t, emitter.Emit(t.Context(), auditd.Event{Type: c.kind, SystemUser: "bob"}))
		require.Equal(t, []auditdtest.Record{{Type: c.kind, Socket: 1, Body: "op=" + c.op +
			` acct="bob" exe="` + exe + `" hostname=? addr=? terminal=teleport res=failed`}}, k.Records())
	}
}

func TestOneHeldSenderHoldsNobodyElse(t *testing.T) {
	k := new(auditdtest.Kernel)
	block := make(chan struct{})
	k.Set(auditdtest.Answers{Enabled: 1})
	emitter, _ := start(t, k, auditd.Config{})

	k.Set(auditdtest.Answers{Enabled: 1, Block: block})
	held := make(chan error, 1)
	go func() { held <- emitter.Emit(context.Background(), login("held")) }()
	require.Eventually(t, func() bool { return k.Held() == 1 }, patience, time.Millisecond)

	k.Set(auditdtest.Answers{Enabled: 1})
	for range 3 {
		require.NoError(t, emitter.Emit(t.Context(), login("next")))
	}
	require.Len(t, k.Records(), 3)
	require.Equal(t, 2, k.Open())

	close(block)
	require.NoError(t, <-held)
	require.Equal(t, 1, k.Open(), "one socket is kept")
	require.Equal(t, 2, k.Dialled())
}

func TestManySendersAtOnce(t *testing.T) {
	k := new(auditdtest.Kernel)
	k.Set(auditdtest.Answers{Enabled: 1, Stale: true})
	emitter, _ := start(t, k, auditd.Config{Executable: "/x"})
	const senders, each = 20, 50
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for j := range each {
				if err := emitter.Emit(context.Background(), login(fmt.Sprintf("u%d-%d", i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, r := range k.Records() {
		require.False(t, seen[r.Body], r.Body)
		seen[r.Body] = true
	}
	require.Len(t, seen, senders*each)
	require.Equal(t, 1, k.Open())
}

// Two senders that learn the same at the same time say it once.
func TestOneLineForOneReason(t *testing.T) {
	k := new(auditdtest.Kernel)
	block := make(chan struct{})
	k.Set(auditdtest.Answers{Enabled: 1, Record: syscall.EPERM})
	emitter, hook := start(t, k, auditd.Config{})
	k.Set(auditdtest.Answers{Enabled: 1, Record: syscall.EPERM, Block: block})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { _ = emitter.Emit(context.Background(), login("bob")) })
	}
	require.Eventually(t, func() bool { return k.Held() == 10 }, patience, time.Millisecond)
	close(block)
	wg.Wait()
	require.Len(t, lines(hook), 2, "%q", lines(hook))
	require.Equal(t, logrus.WarnLevel, hook.LastEntry().Level)
}

func TestCloseDoesNotWaitForAHeldPoll(t *testing.T) {
	k, clock := new(auditdtest.Kernel), clockwork.NewFakeClock()
	k.Set(auditdtest.Answers{Enabled: 1})
	emitter, err := auditd.New(auditd.Config{Dial: k.Dial, Poll: time.Second, Clock: clock})
	require.NoError(t, err)
	block := make(chan struct{})
	k.Set(auditdtest.Answers{Enabled: 1, BlockStatus: block})
	clock.Advance(time.Second)
	require.Eventually(t, func() bool { return k.Held() == 1 }, patience, time.Millisecond)
	require.NoError(t, emitter.Close())
	require.NoError(t, emitter.Close(), "closing twice does no harm")
	close(block)
	require.Eventually(t, func() bool { return k.Open() == 0 }, patience, time.Millisecond)
}
