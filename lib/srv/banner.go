// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package srv

import (
	"io"
	"os"
	"strings"
	"syscall"
	"unicode"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/notice"
)

// maxBanner is how much of a banner's file is shown.
const maxBanner = 64 << 10

// BannerFile is a file whose text clients show before they authenticate.
type BannerFile struct {
	path    string
	trouble *notice.Notice
}

// NewBannerFile looks whether the file can be read. log hears later, at most once
// a minute, when it no longer can.
func NewBannerFile(path string, clock clockwork.Clock, log logrus.FieldLogger) (*BannerFile, error) {
	f := &BannerFile{path: path}
	f.trouble = notice.New(clock, func(times int, last error) {
		log.Errorf("Clients that were shown no banner: %d. %v.", times, last)
	})
	if _, err := f.read(); err != nil {
		return nil, trace.Wrap(err)
	}
	return f, nil
}

// Text returns what the file holds now, fit to be shown, and nothing where it
// cannot be read: a banner keeps nobody from logging in.
func (f *BannerFile) Text() string {
	text, err := f.read()
	if err != nil {
		f.trouble.Happened(err)
	}
	return text
}

func (f *BannerFile) read() (string, error) {
	// Opening a pipe would wait for somebody to write into it.
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", trace.Errorf("reading the banner (ssh_service.banner): %w; make the file, or take the key out", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return "", trace.BadParameter("the banner %s (ssh_service.banner) is not a regular file", f.path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBanner))
	if err != nil {
		return "", trace.Errorf("reading the banner (ssh_service.banner): %w; let teleport read the file, or take the key out", err)
	}
	return shown(string(text)), nil
}

// shown leaves out what would change a terminal rather than be read on it, and
// what is no UTF-8, which RFC 4252, section 5.4, asks for.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}
