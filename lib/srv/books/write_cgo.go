// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package books

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait is how long a login waits for whoever else writes utmp.
	lockWait = 200 * time.Millisecond
	lockTry  = 5 * time.Millisecond
	// maxEntries bounds how much of utmp is read. One that is longer is broken.
	maxEntries = 1 << 16
)

// Login enters a login with a terminal in utmp, wtmp, lastlog and wtmpdb, and
// returns the one before. The error joins what went wrong with any of them; the
// others are written all the same.
func (b Books) Login(e Entry) (LastLogin, error) {
	errUtmp := b.enter(userProcess, e)
	errWtmp := appendEntry(b.Wtmp, userProcess, e, nil)
	last, errLastlog := b.turnLastlog(e)
	return last, errors.Join(errUtmp, errWtmp, errLastlog, b.wtmpdbLogin(e))
}

// Logout enters the end of a login that Login has entered: it needs the Line, the
// PID and the Time. An end that stands in utmp already is entered nowhere again.
func (b Books) Logout(e Entry) error {
	return errors.Join(b.enter(deadProcess, e), appendEntry(b.Wtmp, deadProcess, e, nil), b.wtmpdbLogout(e))
}

// Failed enters a refused login in btmp: it needs the User as it was asked for,
// the Addr, the PID and the Time. Users type passwords in the place of their
// names, so a btmp that others may read is not written to.
func (b Books) Failed(e Entry) error {
	e.Line = notTTY
	return appendEntry(b.Btmp, loginProcess, e, func(stat *unix.Stat_t) error {
		if stat.Uid != 0 || stat.Mode&0o017 != 0 {
			return fmt.Errorf("%s is not written to: it has to be root's, and closed to others (chown root, chmod 660)", b.Btmp)
		}
		return nil
	})
}

// LastLogin returns what lastlog knows of a user. It is empty where nothing can
// be read.
func (b Books) LastLogin(uid uint32) LastLogin {
	fd, ok, err := open(b.Lastlog, unix.O_RDONLY)
	if !ok || err != nil {
		return LastLogin{}
	}
	defer unix.Close(fd)
	last, _ := readLastlog(fd, uid)
	return last
}

func readLastlog(fd int, uid uint32) (LastLogin, error) {
	buf := make([]byte, lastlogSize)
	n, err := unix.Pread(fd, buf, int64(uid)*lastlogSize)
	if err != nil || n < len(buf) {
		// Behind the end of the file stands nobody's login.
		return LastLogin{}, err
	}
	return decodeLastlog(buf), nil
}

// turnLastlog reads a user's last login and writes this one.
func (b Books) turnLastlog(e Entry) (LastLogin, error) {
	fd, ok, err := open(b.Lastlog, unix.O_RDWR)
	if !ok || err != nil {
		return LastLogin{}, err
	}
	defer unix.Close(fd)
	last, err := readLastlog(fd, e.UID)
	if err == nil {
		err = writeAt(fd, encodeLastlog(e), int64(e.UID)*lastlogSize)
	}
	if err != nil {
		return last, fmt.Errorf("writing to %s: %w", b.Lastlog, err)
	}
	return last, nil
}

// enter writes a login to utmp, in its terminal's place: that of the last login
// there, or the end of the file. The end of a login takes the login's own place.
func (b Books) enter(k kind, e Entry) error {
	fd, ok, err := open(b.Utmp, unix.O_RDWR)
	if !ok || err != nil {
		return err
	}
	defer unix.Close(fd)
	lock(fd)
	if k == deadProcess {
		err = leave(fd, e)
	} else {
		err = take(fd, e)
	}
	if err != nil {
		return fmt.Errorf("writing to %s: %w", b.Utmp, err)
	}
	return nil
}

func take(fd int, e Entry) error {
	id := idOf(lineOf(e.Line))
	// The kinds beyond these are about the host.
	at, _, err := find(fd, func(s slot) bool { return s.kind >= initProcess && s.kind <= deadProcess && s.id == id })
	if err != nil {
		return err
	}
	if at < 0 {
		end, err := unix.Seek(fd, 0, io.SeekEnd)
		if err != nil {
			return err
		}
		// A torn entry at the end is written over.
		at = end - end%entrySize
	}
	return writeAt(fd, encode(userProcess, e), at)
}

func leave(fd int, e Entry) error {
	line := lineOf(e.Line)
	at, login, err := find(fd, func(s slot) bool { return s.kind == userProcess && s.line == line && s.pid == e.PID })
	if err != nil || at < 0 {
		// Where there is none somebody else has the terminal by now.
		return err
	}
	return writeAt(fd, end(login, e.Time), at)
}

// lock keeps others from writing while the file is open, or gives up: whoever may
// read utmp can lock it for ever.
func lock(fd int) {
	flock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockTry) {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &flock)
		if err == nil || time.Now().After(deadline) {
			return
		}
	}
}

// find returns the entry that matches and where it stands, -1 for nowhere.
func find(fd int, match func(slot) bool) (at int64, entry []byte, err error) {
	buf := make([]byte, 8*entrySize)
	for at < maxEntries*entrySize {
		n, err := unix.Pread(fd, buf, at)
		if err != nil {
			return -1, nil, err
		}
		n -= n % entrySize
		if n == 0 {
			return -1, nil, nil
		}
		for i := 0; i < n; i += entrySize {
			if entry = buf[i : i+entrySize]; match(decode(entry)) {
				return at + int64(i), entry, nil
			}
		}
		at += int64(n)
	}
	return -1, nil, errors.New("it is too long")
}

// appendEntry adds an entry to the end of a file, all at once. check may refuse
// the file.
func appendEntry(path string, k kind, e Entry, check func(*unix.Stat_t) error) error {
	fd, ok, err := open(path, unix.O_WRONLY|unix.O_APPEND)
	if !ok || err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	if check != nil {
		if err := check(&stat); err != nil {
			return err
		}
	}
	n, err := write(func() (int, error) { return unix.Write(fd, encode(k, e)) })
	if err == nil && n == entrySize {
		return nil
	}
	if n > 0 {
		// A torn entry would make nonsense of every one after it.
		end, seekErr := unix.Seek(fd, 0, io.SeekCurrent)
		if seekErr == nil && unix.Fstat(fd, &stat) == nil && stat.Size == end {
			_ = unix.Ftruncate(fd, end-int64(n))
		}
		err = io.ErrShortWrite
	}
	return fmt.Errorf("writing to %s: %w", path, err)
}

func writeAt(fd int, b []byte, at int64) error {
	n, err := write(func() (int, error) { return unix.Pwrite(fd, b, at) })
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

func write(try func() (int, error)) (n int, err error) {
	for {
		n, err = try()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// open opens a book. It is not ok where there is none.
func open(path string, flags int) (fd int, ok bool, err error) {
	if path == "" {
		return -1, false, nil
	}
	for {
		// Nobody's pipe is waited for.
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, fmt.Errorf("opening %s: %w", path, err)
	}
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, false, fmt.Errorf("opening %s: %w", path, err)
	}
	return fd, true, nil
}
