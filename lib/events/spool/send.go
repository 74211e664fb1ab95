// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The way out: the oldest event is sent until somebody has it, then the next.

package spool

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
)

const (
	// RefusedFile is where events are put aside that nobody takes, as lines of
	// JSON.
	RefusedFile = "refused.jsonl"

	// suffix is that of segments.
	suffix = ".events"
	// maxRefusedFile bounds RefusedFile. What is refused beyond it the log alone
	// names.
	maxRefusedFile = 16 << 20
	// firstDelay and lastDelay are the times between two tries.
	firstDelay, lastDelay = time.Second, 5 * time.Second
	// sendTimeout bounds one try, by the real clock: it is the network's.
	sendTimeout = 30 * time.Second
	// maxDenials is how often access must be denied to an event before it is for
	// good: a certificate that is being renewed is denied, too.
	maxDenials = 3
)

// errDamaged is why the rest of a segment cannot be read.
var errDamaged = errors.New("a record does not have its checksum")

// load finds what is left of the last time. Each start begins a segment of its
// own, so that nothing is written after a record that was not finished.
func (s *Spool) load() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return trace.Wrap(trace.ConvertSystemError(err), "reading the folder of events")
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(name, 16, 64)
		if err != nil {
			continue
		}
		path := filepath.Join(s.cfg.Dir, entry.Name())
		info, err := entry.Info()
		if err != nil {
			return trace.Wrap(trace.ConvertSystemError(err), "reading the folder of events")
		}
		if info.Size() == 0 {
			if err := os.Remove(path); err != nil {
				return trace.Wrap(trace.ConvertSystemError(err), "removing an empty file of events")
			}
			continue
		}
		s.segments = append(s.segments, &segment{number: number, path: path, size: info.Size()})
		s.total += info.Size()
	}
	slices.SortFunc(s.segments, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	if s.total > 0 {
		s.log.Infof("Events of the cluster's audit log are left to be sent: %d bytes.", s.total)
	}
	return nil
}

// sendAll sends until Close.
func (s *Spool) sendAll() {
	defer s.done.Done()
	var (
		reading *segment
		file    *os.File
		offset  int64
	)
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	for s.ctx.Err() == nil {
		oldest := s.oldest()
		if oldest == nil {
			s.wait()
			continue
		}
		if oldest != reading {
			if file != nil {
				file.Close()
			}
			reading, offset = oldest, 0
			var err error
			if file, err = os.Open(oldest.path); err != nil {
				// Without descriptors, say, it works the next time.
				if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
					reading, file = nil, nil
					s.log.WithError(err).Errorf("Events of the cluster's audit log cannot be read now.")
					s.pause(lastDelay)
					continue
				}
				s.log.WithError(err).Errorf("Events of the cluster's audit log are lost: %s cannot be read.", oldest.path)
				file = nil
				s.skip(oldest, &offset)
				s.forget(oldest, offset)
				continue
			}
		}
		if s.hasMore(oldest, offset) {
			payload, err := read(file, offset)
			switch {
			case err != nil:
				s.unreadable(oldest, offset, err)
				s.skip(oldest, &offset)
			case !s.deliver(payload):
				return
			default:
				offset += headerSize + int64(len(payload))
			}
		}
		if s.forget(oldest, offset) {
			if !s.isLast(oldest) {
				reading = nil
			}
			offset = 0
		}
	}
}

// wait waits for something to send.
func (s *Spool) wait() {
	select {
	case <-s.wake:
	case <-s.ctx.Done():
	}
}

// pause waits for a time, or for Close.
func (s *Spool) pause(d time.Duration) {
	timer := s.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.Chan():
	case <-s.ctx.Done():
	}
}

// oldest returns the segment to send from, nil where there is nothing to send.
func (s *Spool) oldest() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total == 0 {
		if s.idle != nil {
			close(s.idle)
			s.idle = nil
		}
		return nil
	}
	return s.segments[0]
}

func (s *Spool) hasMore(g *segment, offset int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return offset < g.size
}

func (s *Spool) isLast(g *segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.segments) > 0 && s.last() == g
}

// skip moves to the end of what a segment has.
func (s *Spool) skip(g *segment, offset *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*offset = g.size
}

// forget removes a segment of which everything was sent, or empties the one that
// is written to. It is false where there is more to send in it.
func (s *Spool) forget(g *segment, offset int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset < g.size {
		return false
	}
	if s.writing != nil && g == s.last() {
		if err := s.writing.Truncate(0); err != nil {
			// It is sent again after the next start.
			s.log.WithError(err).Warnf("Events that were sent are still in %s.", g.path)
		}
	} else {
		if err := os.Remove(g.path); err != nil {
			s.log.WithError(err).Warnf("Events that were sent are still in %s.", g.path)
		}
		s.segments = slices.DeleteFunc(s.segments, func(other *segment) bool { return other == g })
	}
	s.total -= g.size
	g.size = 0
	return true
}

// read returns the record at offset: io.ErrUnexpectedEOF where it was never
// finished, and errDamaged where it is not what was written.
func read(file *os.File, offset int64) ([]byte, error) {
	var header [headerSize]byte
	if _, err := file.ReadAt(header[:], offset); err != nil {
		return nil, unfinished(err)
	}
	size := binary.LittleEndian.Uint32(header[:])
	if size == 0 || size > maxRecord {
		return nil, errDamaged
	}
	payload := make([]byte, size)
	if _, err := file.ReadAt(payload, offset+headerSize); err != nil {
		return nil, unfinished(err)
	}
	if crc32.ChecksumIEEE(payload) != binary.LittleEndian.Uint32(header[4:]) {
		return nil, errDamaged
	}
	return payload, nil
}

func unfinished(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unreadable tells that the rest of a segment is left out.
func (s *Spool) unreadable(g *segment, offset int64, err error) {
	s.mu.Lock()
	rest := g.size - offset
	s.mu.Unlock()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		s.log.Infof("The last %d bytes of %s are an event that was not written to its end when teleport was killed.", rest, g.path)
		return
	}
	s.log.Errorf("Events of the cluster's audit log are lost: the last %d bytes of %s cannot be read: %v.", rest, g.path, err)
}

// deliver sends one event until it is taken or refused for good. It is false where
// the spool is closed before.
func (s *Spool) deliver(payload []byte) bool {
	var oneOf apievents.OneOf
	err := oneOf.Unmarshal(payload)
	var event apievents.AuditEvent
	if err == nil {
		event, err = apievents.FromOneOf(oneOf)
	}
	if err != nil {
		s.putAside(nil, payload, trace.BadParameter("the event cannot be read: %v", err))
		return true
	}
	delay, denials, tries := firstDelay, 0, 0
	for s.ctx.Err() == nil {
		err := s.send(event)
		switch {
		case err == nil || trace.IsAlreadyExists(err):
			if tries > 0 {
				s.log.Info("Events of the cluster's audit log are sent again.")
			}
			return true
		case s.ctx.Err() != nil:
			// The spool is closed, which may be all that is wrong with it.
			return false
		case trace.IsAccessDenied(err):
			denials++
		}
		if trace.IsBadParameter(err) || denials >= maxDenials {
			s.putAside(event, payload, err)
			return true
		}
		if tries++; tries == 1 {
			s.log.Warnf("Events of the cluster's audit log wait in %s until the auth service takes them: %v.", s.cfg.Dir, err)
		}
		s.pause(delay)
		delay = min(2*delay, lastDelay)
	}
	return false
}

func (s *Spool) send(event apievents.AuditEvent) error {
	ctx, cancel := context.WithTimeout(s.ctx, sendTimeout)
	defer cancel()
	return s.cfg.Send(ctx, event)
}

// refusedEvent is a line of RefusedFile.
type refusedEvent struct {
	Refused time.Time            `json:"refused"`
	Reason  string               `json:"reason"`
	Event   apievents.AuditEvent `json:"event,omitempty"`
	// Raw is the event as the API sends it.
	Raw []byte `json:"raw"`
}

// putAside keeps an event that nobody takes, and says so.
func (s *Spool) putAside(event apievents.AuditEvent, payload []byte, reason error) {
	name := "of an unknown type"
	if event != nil {
		name = event.GetType() + " " + event.GetID()
	}
	path := filepath.Join(s.cfg.Dir, RefusedFile)
	err := s.appendRefused(path, refusedEvent{Refused: s.cfg.Clock.Now().UTC(), Reason: reason.Error(), Event: event, Raw: payload})
	if err != nil {
		s.log.Errorf("The cluster's audit log lacks the event %q, which the auth service refuses (%v), and which could not be kept either: %v.", name, reason, err)
		return
	}
	s.log.Errorf("The cluster's audit log lacks the event %q, which the auth service refuses (%v). It is kept in %s.", name, reason, path)
}

func (s *Spool) appendRefused(path string, refused refusedEvent) error {
	line, err := json.Marshal(refused)
	if err != nil {
		return trace.Wrap(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return trace.ConvertSystemError(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return trace.Wrap(err)
	}
	if info.Size()+int64(len(line)) > maxRefusedFile {
		return trace.LimitExceeded("%s is full: move it away", path)
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		return trace.ConvertSystemError(err)
	}
	return trace.Wrap(file.Sync())
}
