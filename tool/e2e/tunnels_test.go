// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"teleport-auditd/tool/e2e/harness"
)

// tunnelRate is what each tunnel is given to carry, in bytes a second. All of them
// together leave something of two processors: what takes time under more is
// OpenSSH's client.
const tunnelRate = 2 << 20

// TestTunnelsUnderLoad keeps forty tunnels of one connection busy while two
// shells on it must answer at once. Every byte is compared, and the memory must
// be back where it was. E2E_LOAD is for how long, such as 60s, on a host that does
// nothing else.
func TestTunnelsUnderLoad(t *testing.T) {
	const tunnels = 40
	// A short run has the processors together with other packages' tests.
	duration, medianLimit, limit := 10*time.Second, 250*time.Millisecond, 5*time.Second
	if text := os.Getenv("E2E_LOAD"); text != "" {
		medianLimit, limit = 50*time.Millisecond, time.Second
		var err error
		duration, err = time.ParseDuration(text)
		require.NoError(t, err, "E2E_LOAD")
	}
	harness.NeedRoot(t)
	// It asks nothing of the audit system, which others wait for.
	w := &world{bob: harness.NewUser(t, harness.UserConfig{})}
	w.daemon = harness.StartDaemon(t, harness.DaemonConfig{Programs: built(t), Auth: true, Node: true})
	client := harness.NewClient(t, w.daemon, w.daemon.Sign("alice", w.bob.Name))
	target := newServer(t, "tcp4", "127.0.0.1:0")

	control := harness.OpenDir(t) + "/control"
	args := []string{"-N", "-M", "-S", control}
	var entries []string
	for range tunnels {
		entry := harness.FreeAddr(t)
		entries = append(entries, entry)
		args = append(args, "-L", entry+":"+target.Addr().String())
	}
	master := launch(t, client.Command(append(args, w.bob.Name+"@node")...))
	sendsBack(t, dialSoon(t, "tcp4", entries[tunnels-1]))
	// The first of everything takes memory that stays.
	var shells []*running
	for range 2 {
		shell := launch(t, client.Command("-S", control, w.bob.Name+"@node", "exec cat"))
		_, err := io.WriteString(shell.stdin, "ready\n")
		require.NoError(t, err)
		shell.said.wait(t, "ready\n")
		shells = append(shells, shell)
	}
	before := w.memory(t)

	stop := time.Now().Add(duration)
	var group errgroup.Group
	amounts := make([]int64, tunnels)
	for i, entry := range entries {
		group.Go(func() error {
			var err error
			for err == nil && time.Now().Before(stop) {
				// Connections come and go.
				var n int64
				n, err = loadTunnel(entry, time.Now().Add(time.Duration(1+mathrand.IntN(5))*time.Second), stop)
				amounts[i] += n
			}
			return err
		})
	}
	trips := make([][]time.Duration, len(shells))
	for i, shell := range shells {
		group.Go(func() error {
			for n := 0; time.Now().Before(stop); n++ {
				line := fmt.Sprintf("shell %d line %d\n", i, n)
				began := time.Now()
				if _, err := io.WriteString(shell.stdin, line); err != nil {
					return err
				}
				if !harness.Eventually(waitLimit, func() bool { return strings.HasSuffix(shell.said.text(), line) }) {
					return fmt.Errorf("shell %d does not answer: %s", i, shell.errors.text())
				}
				trips[i] = append(trips[i], time.Since(began))
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())

	var total int64
	for i, n := range amounts {
		assert.NotZero(t, n, "tunnel %d", i)
		total += n
	}
	all := slices.Sorted(slices.Values(slices.Concat(trips...)))
	require.NotEmpty(t, all)
	median, most := all[len(all)/2], all[len(all)-1]
	t.Logf("%d tunnels carried %d MiB each way in %v, %.0f MiB/s; a shell's round trip took %v (median of %d), %v at most",
		tunnels, total>>20, duration, float64(total>>20)/duration.Seconds(), median.Round(time.Microsecond), len(all), most.Round(time.Microsecond))
	assert.Less(t, median, medianLimit, "the median of a shell's round trips")
	assert.Less(t, most, limit, "the longest of a shell's round trips")

	var after map[string]float64
	back := func() bool {
		after = w.memory(t)
		for name := range after {
			if after[name] > before[name]+10 {
				return false
			}
		}
		return true
	}
	began := time.Now()
	ok := harness.Eventually(30*time.Second, back)
	t.Logf("memory (Pss) in MiB before %v, after %v, %v later", rounded(before), rounded(after), time.Since(began).Round(time.Millisecond))
	assert.True(t, ok, "the memory is back within 10 MiB of where it was")

	master.end()
	assert.NotContains(t, w.daemon.Log(), "panic")
}

// loadTunnel sends random bytes through a tunnel, and compares what comes back.
func loadTunnel(entry string, until, stop time.Time) (n int64, err error) {
	if until.After(stop) {
		until = stop
	}
	conn, err := net.Dial("tcp4", entry)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return 0, err
	}
	type sum struct {
		n    int64
		hash [sha256.Size]byte
		err  error
	}
	sent := make(chan sum, 1)
	go func() {
		var s sum
		hash := sha256.New()
		b := make([]byte, 64<<10)
		if _, s.err = rand.Read(b); s.err != nil {
			sent <- s
			return
		}
		began := time.Now()
		for s.err == nil && time.Now().Before(until) {
			// Pieces of any size, no two alike.
			piece := b[mathrand.IntN(len(b)/2):][:1+mathrand.IntN(len(b)/2)]
			hash.Write(piece)
			s.n += int64(len(piece))
			_, s.err = conn.Write(piece)
			time.Sleep(time.Until(began.Add(time.Duration(s.n) * time.Second / tunnelRate)))
		}
		copy(s.hash[:], hash.Sum(nil))
		if s.err == nil {
			s.err = conn.(*net.TCPConn).CloseWrite()
		}
		sent <- s
	}()
	hash := sha256.New()
	n, err = io.Copy(hash, bufio.NewReaderSize(conn, 64<<10))
	s := <-sent
	switch {
	case err != nil:
		return n, err
	case s.err != nil:
		return n, s.err
	case n != s.n || string(hash.Sum(nil)) != string(s.hash[:]):
		return n, fmt.Errorf("%d bytes were sent through %s, and %d others came back", s.n, entry, n)
	}
	return n, nil
}

// memory returns the Pss of the daemon and of the user's process that forwards,
// in MiB: their own pages, and their part of those that they share.
func (w *world) memory(t *testing.T) map[string]float64 {
	t.Helper()
	sizes := map[string]float64{}
	for _, p := range harness.Processes() {
		name := ""
		switch {
		case p.Pid == w.daemon.Pid:
			name = "daemon"
		case p.Exe == programs.User && p.UID == w.bob.UID:
			name = "forward"
		default:
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.Pid))
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			var kib float64
			if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
				sizes[name] += kib / 1024
			}
		}
	}
	require.Len(t, sizes, 2)
	return sizes
}

func rounded(sizes map[string]float64) string {
	return fmt.Sprintf("daemon %.1f, forward %.1f", sizes["daemon"], sizes["forward"])
}
