// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// loginRounds is how often each side has its turn.
	loginRounds = 5
	// loginBlock is how long a turn is.
	loginBlock = 1500 * time.Millisecond
)

// login makes one connection, runs true on it, and tells how long that took.
func login(side server, config *ssh.ClientConfig) (time.Duration, error) {
	began := time.Now()
	client, err := ssh.Dial("tcp", side.addr, config)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return 0, err
	}
	if err := session.Run("true"); err != nil {
		return 0, fmt.Errorf("running true: %w", err)
	}
	return time.Since(began), nil
}

// measured is what a side showed.
type measured struct {
	// rates are logins a second, one for each turn; latencies are milliseconds,
	// one for each login.
	rates, latencies []float64
}

// turn lets clients log in, each one time after the other, for a while. The rate
// counts the time until the server has ended the last login, too.
func (m *measured) turn(s subject, side server, config *ssh.ClientConfig, clients int) {
	s.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failure error
	count := 0
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(began) < loginBlock {
				took, err := login(side, config)
				mu.Lock()
				if err != nil {
					failure = err
					mu.Unlock()
					return
				}
				count++
				m.latencies = append(m.latencies, float64(took)/1e6)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	side.settle(s)
	if failure != nil {
		s.Fatalf("logging in to %s: %v", side.programs[0], failure)
	}
	m.rates = append(m.rates, float64(count)/time.Since(began).Seconds())
}

// logIn measures logins a second and their latency, beside sshd.
func logIn(s subject, name string, p *pair) {
	budget := limit{least: 4}
	if name == "pam=on" {
		budget.least = 2.5
	}
	for _, clients := range []int{1, 8} {
		s.run(fmt.Sprintf("clients=%d", clients), func(s subject) {
			var ours, sshd measured
			for s.Loop() {
				for range loginRounds {
					ours.turn(s, p.ours, p.client, clients)
					sshd.turn(s, p.sshd, p.client, clients)
				}
			}
			s.ReportMetric(median(ours.latencies)*1e6, "ns/op")
			s.ReportMetric(median(sshd.latencies)*1e6, "sshd-ns/op")
			s.ReportMetric(median(ours.rates), "logins/s")
			s.ReportMetric(median(sshd.rates), "sshd-logins/s")
			s.ReportMetric(median(ours.rates)/median(sshd.rates), "x-sshd")
			label := fmt.Sprintf("%s clients=%d (rival: sshd)", name, clients)
			s.table.compare("logins a second, "+label, "/s", median(ours.rates), median(sshd.rates), budget)
			s.table.compare("median latency, "+label, "ms", median(ours.latencies), median(sshd.latencies), limit{})
		})
	}
}
