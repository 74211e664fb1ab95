// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Which processes belong to a login, read from /proc.

package session

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"
)

// Members says which processes belong to a login: those that meet every condition
// that is set. With none set there are no members. The calling process is none.
type Members struct {
	// Ancestor is a process that adopts the orphans among its descendants
	// (PR_SET_CHILD_SUBREAPER): members descend from it. 0 for any.
	Ancestor int
	// AuditSession is the ses that only this login has: members are in it. 0,
	// and 4294967295, which is no login's, for any.
	AuditSession uint32
	// Leaders have led the sessions (setsid(2)) of the login: members are in
	// one of them. The value says whether the leader still runs. One that has
	// ended leaves its session to what it started, but its pid may be another
	// process's by now, with a session that is none of the login's. Nil for any.
	Leaders map[int]bool
}

// List returns the pids of the members that live now. Zombies have ended.
func (m Members) List() ([]int, error) {
	if m.AuditSession == math.MaxUint32 {
		// All have it that belong to no login.
		m.AuditSession = 0
	}
	if m.Ancestor == 0 && m.AuditSession == 0 && m.Leaders == nil {
		return nil, nil
	}
	all, err := processes()
	if err != nil {
		return nil, err
	}
	descends := func(pid int) bool {
		// No line of ancestors is longer than there are processes.
		for range all {
			p, ok := all[pid]
			if !ok {
				return false
			}
			if p.parent == m.Ancestor {
				return true
			}
			pid = p.parent
		}
		return false
	}
	isLed := func(leader int) bool {
		runs, known := m.Leaders[leader]
		if !known || runs {
			return known
		}
		_, reused := all[leader]
		return !reused
	}
	self := os.Getpid()
	var members []int
	for pid, p := range all {
		if pid != self && !p.hasEnded() &&
			(m.Ancestor == 0 || descends(pid)) &&
			(m.Leaders == nil || isLed(p.leader)) &&
			(m.AuditSession == 0 || auditSession(pid) == m.AuditSession) {
			members = append(members, pid)
		}
	}
	return members, nil
}

// process is what /proc/PID/stat says.
type process struct {
	state                 byte
	parent, group, leader int
}

// hasEnded is true for a zombie, whose parent was not told yet.
func (p process) hasEnded() bool { return p.state == 'Z' || p.state == 'X' }

// processes lists all processes, by pid.
func processes() (map[int]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("looking for the login's processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("looking for the login's processes: %w", err)
	}
	all := make(map[int]process, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		// One that has ended since is no error.
		if stat, err := os.ReadFile("/proc/" + name + "/stat"); err == nil {
			if all[pid], err = parseStat(stat); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// looks is how often none of a login's processes must be seen before none is
// left: a look at /proc takes a while, and can miss one whose parent ends
// meanwhile, or that is new.
const looks = 3

// Kill ends the members with SIGKILL, and those that they start meanwhile, until
// none is left or the time is over. The error names those that are left, which
// were killed as well.
func (m Members) Kill(timeout time.Duration) error {
	unseen := 0
	for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		pids, err := m.List()
		if err == nil && len(pids) == 0 {
			if unseen++; unseen == looks {
				return nil
			}
			continue
		}
		unseen = 0
		late := time.Now().After(deadline)
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		if late {
			return errors.Join(err, fmt.Errorf("processes %v do not end", pids))
		}
	}
}

func auditSession(pid int) uint32 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/sessionid")
	if err != nil {
		return 0
	}
	ses, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(ses)
}

// parseStat reads /proc/PID/stat (proc(5)). The command, in parentheses, may
// hold anything, parentheses too: what counts starts after the last one.
func parseStat(stat []byte) (process, error) {
	errStat := errors.New("/proc/PID/stat is not as proc(5) says")
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return process{}, errStat
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) < 4 || len(f[0]) != 1 {
		return process{}, errStat
	}
	p := process{state: f[0][0]}
	for i, field := range []*int{&p.parent, &p.group, &p.leader} {
		var err error
		if *field, err = strconv.Atoi(string(f[i+1])); err != nil {
			return process{}, errStat
		}
	}
	return p, nil
}
