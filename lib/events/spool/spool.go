// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package spool keeps events for the cluster's audit log on disk until the auth
// service has them.
//
// Most callers need New, Emit and Close:
//
//	events, err := spool.New(spool.Config{
//		Dir:  filepath.Join(dataDir, "events"),
//		Send: client.EmitAuditEvent,
//	})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	defer events.Close()
//	events.Emit(event)
//
// What Emit has returned for survives the end of the process, at any moment, and
// within syncInterval that of the host. Events are sent in the order of Emit,
// again and again until Send takes them: one may be sent twice, and whoever gets
// it tells by its id. What is refused for good is put aside, in the file
// RefusedFile of the folder, and named in the log.
package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
)

const (
	// DefaultMaxBytes bounds the folder where Config leaves it out. A login has
	// two events of less than 1 KiB.
	DefaultMaxBytes = 256 << 20

	// segmentSize is how large a file may be before the next one is begun.
	segmentSize = 1 << 20
	// maxEvent is how large one event may be; longer ones are trimmed.
	maxEvent = 64 << 10
	// maxRecord is the largest that is read back.
	maxRecord = 1 << 20
	// headerSize is a record's length and checksum.
	headerSize = 8
	// syncInterval is how long events wait for others before all of them are
	// written through to the disk.
	syncInterval = 100 * time.Millisecond
	// noticeInterval is the time between two lines about events that are lost.
	noticeInterval = time.Minute
)

// Config is what New needs.
type Config struct {
	// Dir is the spool's own folder. It is made where it does not exist. No
	// other process may use it.
	Dir string
	// Send hands one event over, and returns when it is kept. trace.AlreadyExists
	// says that it is there already. trace.BadParameter, and
	// trace.AccessDenied several times, refuse it for good; after any other error
	// it is sent again.
	Send func(ctx context.Context, event apievents.AuditEvent) error
	// MaxBytes bounds the events on disk; new ones are dropped beyond it, and
	// refused logins, which anybody can cause, beyond half of it.
	// DefaultMaxBytes where it is zero.
	MaxBytes int64
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Log is logrus's standard logger where it is nil.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults fills in what was left out, and says what must not be.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case !filepath.IsAbs(c.Dir):
		return trace.BadParameter("spool.Config: Dir %q is no absolute path", c.Dir)
	case c.Send == nil:
		return trace.BadParameter("spool.Config has no Send")
	case c.MaxBytes < 0:
		return trace.BadParameter("spool.Config: negative MaxBytes %d", c.MaxBytes)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

// Spool is a queue of events on disk.
type Spool struct {
	cfg    Config
	log    logrus.FieldLogger
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	// wake is sent to when there is something to send, dirty when there is
	// something to write through.
	wake, dirty chan struct{}

	mu sync.Mutex
	// segments are the files with events, the oldest first. The last one is
	// written to.
	segments []*segment
	// writing is the last segment's file; nil before the first event.
	writing *os.File
	// finished are files that were written to, and are to be written through
	// and closed.
	finished []*os.File
	// total is how many bytes all segments have.
	total int64
	// dropped counts the events that were lost since it was last said.
	dropped int
	// saidLost and saidKept are when the log had a line about that last.
	saidLost, saidKept time.Time
	closed             bool
	// idle is closed when everything is sent; nil when nobody waits for it.
	idle chan struct{}
}

// segment is one file of events. Its size changes under Spool.mu.
type segment struct {
	number uint64
	path   string
	size   int64
}

// New opens the spool, and begins to send what is in it. The error says why the
// folder cannot be used.
func New(cfg Config) (*Spool, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, trace.Wrap(trace.ConvertSystemError(err), "making the folder of events")
	}
	s := &Spool{
		cfg:   cfg,
		log:   cfg.Log.WithField("component", "events"),
		wake:  make(chan struct{}, 1),
		dirty: make(chan struct{}, 1),
	}
	if err := s.load(); err != nil {
		return nil, trace.Wrap(err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.done.Add(2)
	go s.sendAll()
	go s.syncAll()
	return s, nil
}

// Emit keeps an event until it is sent. It gives one without an id or a time
// both. It waits for no network and for no disk beyond the system's cache. What
// cannot be kept is counted and logged.
func (s *Spool) Emit(event apievents.AuditEvent) {
	if event.GetID() == "" {
		event.SetID(uuid.NewString())
	}
	if event.GetTime().IsZero() {
		event.SetTime(s.cfg.Clock.Now().UTC())
	}
	record, err := encode(event)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.append(record, s.room(event))
	}
	now := s.cfg.Clock.Now()
	if err != nil {
		s.dropped++
		if due(&s.saidLost, now) {
			s.log.Errorf("An event of the cluster's audit log is lost (%s), and more may be: %v. How many is said when events are kept again.", event.GetType(), err)
		}
		return
	}
	if s.dropped > 0 && due(&s.saidKept, now) {
		s.log.Errorf("Events of the cluster's audit log that are lost: %d. From now on they are kept again.", s.dropped)
		s.dropped = 0
	}
	signal(s.wake)
	signal(s.dirty)
}

// due tells whether something may be said that was said last at a time, and notes
// that it is: refused logins come as often as anybody likes.
func due(last *time.Time, now time.Time) bool {
	if !last.IsZero() && now.Sub(*last) < noticeInterval {
		return false
	}
	*last = now
	return true
}

// signal tells whoever waits, now or the next time.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// encode makes a record of an event: length, checksum, and the event as the API
// sends it.
func encode(event apievents.AuditEvent) ([]byte, error) {
	if event.Size() > maxEvent {
		event = event.TrimToMaxSize(maxEvent)
	}
	oneOf, err := apievents.ToOneOf(event)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	size := oneOf.Size()
	if size > maxRecord {
		return nil, trace.LimitExceeded("the event is %d bytes long, and may have %d", size, maxRecord)
	}
	record := make([]byte, headerSize+size)
	if _, err := oneOf.MarshalTo(record[headerSize:]); err != nil {
		return nil, trace.Wrap(err)
	}
	binary.LittleEndian.PutUint32(record, uint32(size))
	binary.LittleEndian.PutUint32(record[4:], crc32.ChecksumIEEE(record[headerSize:]))
	return record, nil
}

// room is how much the spool may hold with an event of this kind in it. Who
// knocks at the door must not keep the logins of others from being kept.
func (s *Spool) room(event apievents.AuditEvent) int64 {
	switch event := event.(type) {
	case *apievents.AuthAttempt:
		if !event.Success {
			return s.cfg.MaxBytes / 2
		}
	case *apievents.UserLogin:
		if !event.Success {
			return s.cfg.MaxBytes / 2
		}
	}
	return s.cfg.MaxBytes
}

// append writes a record, where there is room for it. The caller holds the lock.
func (s *Spool) append(record []byte, room int64) error {
	if s.closed {
		return trace.ConnectionProblem(nil, "the spool is closed")
	}
	if s.total+int64(len(record)) > room {
		return trace.LimitExceeded("%s has %d bytes of events that wait for the auth service, and may have %d", s.cfg.Dir, s.total, room)
	}
	if s.writing == nil || s.last().size >= segmentSize {
		if err := s.begin(); err != nil {
			return trace.Wrap(err)
		}
	}
	last := s.last()
	// Not at the end of the file: a record that did not fit on the disk is
	// written over.
	if _, err := s.writing.WriteAt(record, last.size); err != nil {
		return trace.Wrap(trace.ConvertSystemError(err), "keeping an event")
	}
	last.size += int64(len(record))
	s.total += int64(len(record))
	return nil
}

func (s *Spool) last() *segment { return s.segments[len(s.segments)-1] }

// begin begins the next segment. The caller holds the lock.
func (s *Spool) begin() error {
	number := uint64(1)
	if len(s.segments) > 0 {
		number = s.last().number + 1
	}
	path := filepath.Join(s.cfg.Dir, fmt.Sprintf("%016x%s", number, suffix))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return trace.Wrap(trace.ConvertSystemError(err), "keeping events")
	}
	if s.writing != nil {
		s.finished = append(s.finished, s.writing)
	}
	s.writing = file
	s.segments = append(s.segments, &segment{number: number, path: path})
	return nil
}

// syncAll writes through what was kept, and the events that come meanwhile
// together.
func (s *Spool) syncAll() {
	defer s.done.Done()
	for {
		select {
		case <-s.dirty:
		case <-s.ctx.Done():
			return
		}
		s.sync()
		s.pause(syncInterval)
	}
}

func (s *Spool) sync() {
	s.mu.Lock()
	finished, writing := s.finished, s.writing
	s.finished = nil
	s.mu.Unlock()
	var errs []error
	for _, file := range finished {
		errs = append(errs, file.Sync(), file.Close())
	}
	if writing != nil {
		// Close of the spool waits for this.
		errs = append(errs, writing.Sync())
	}
	if dir, err := os.Open(s.cfg.Dir); err == nil {
		errs = append(errs, dir.Sync(), dir.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.log.WithError(err).Error("Events of the cluster's audit log may be lost if this host stops now.")
	}
}

// Flush waits until everything is sent, or for ctx, whose error it returns.
func (s *Spool) Flush(ctx context.Context) error {
	s.mu.Lock()
	if s.total == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return trace.Wrap(ctx.Err(), "sending the events that wait in %s", s.cfg.Dir)
	}
}

// Close stops sending, and keeps what is left for the next time. It does not wait
// for the network; Flush does. It may be called more than once.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	dropped := s.dropped
	s.mu.Unlock()
	s.cancel()
	s.done.Wait()
	s.sync()
	if dropped > 0 {
		s.log.Errorf("Events of the cluster's audit log that are lost: %d.", dropped)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing == nil {
		return nil
	}
	err := s.writing.Close()
	s.writing = nil
	return trace.Wrap(err)
}
