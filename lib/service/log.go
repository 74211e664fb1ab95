// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// Where log lines go.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/syslog"
	"os"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/sirupsen/logrus"
	logrussyslog "github.com/sirupsen/logrus/hooks/syslog"

	"teleport-auditd/lib/config"
)

// Log is a logger whose file can be opened again after it was rotated away.
type Log struct {
	*logrus.Logger
	file *logFile
}

// OpenLog opens what teleport.log asks for. The error says what to change where
// it cannot be opened.
func OpenLog(cfg config.Log) (*Log, error) {
	log := &Log{Logger: logrus.New()}
	log.SetLevel(cfg.Severity)
	switch cfg.Format {
	case "json":
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	default:
		// Without colours logrus quotes whatever is not plain, so that no name
		// that a client has chosen can forge a line.
		log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	}
	switch cfg.Output {
	case "stderr":
		log.SetOutput(os.Stderr)
	case "stdout":
		log.SetOutput(os.Stdout)
	case "syslog":
		hook, err := logrussyslog.NewSyslogHook("", "", syslog.LOG_DAEMON|syslog.LOG_INFO, "teleport")
		if err != nil {
			return nil, trace.ConnectionProblem(err, "teleport.log.output is syslog, and no syslog service answers here (%v): start one, or choose another output", err)
		}
		log.AddHook(hook)
		log.SetOutput(io.Discard)
	default:
		log.file = &logFile{path: cfg.Output}
		if err := log.file.open(); err != nil {
			return nil, trace.Wrap(err)
		}
		log.SetOutput(log.file)
	}
	return log, nil
}

// Reopen opens the log file again, by its name. Until it succeeds lines go to
// the file that was open. Other outputs have nothing to open.
func (l *Log) Reopen() error {
	if l.file == nil {
		return nil
	}
	return trace.Wrap(l.file.open())
}

// logFile is a file that other lines may be written to while it is opened again.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func (f *logFile) open() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return trace.AccessDenied("the log file %s cannot be written: permission denied. Run as root, or change teleport.log.output", f.path)
	case errors.Is(err, fs.ErrNotExist):
		return trace.NotFound("the log file %s cannot be made: its folder does not exist. Make it, or change teleport.log.output", f.path)
	case err != nil:
		return trace.ConvertSystemError(fmt.Errorf("the log file cannot be opened: %w", err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.file
	f.file = file
	if old != nil {
		_ = old.Close() // every line of it was written already
	}
	return nil
}

func (f *logFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(line)
}
