// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The files of a user's key: written together or not at all, never over what was
// not to be replaced and never through a link.

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gravitational/trace"

	"teleport-auditd/lib/cause"
)

// output is where the files go.
type output struct {
	files     []outputFile
	overwrite bool
	// rename is os.Rename, which has no way of its own to fail in the middle of
	// a test.
	rename func(from, to string) error
}

type outputFile struct {
	path string
	mode fs.FileMode
	// temp is the complete file before it has its name, and backup another name
	// of the file that it replaces. Both stand in path's folder: a rename within
	// a folder is one step.
	temp, backup string
	// found says that there was a file to replace, and placed that path is ours.
	found, placed bool
}

// newOutput is path with each of the suffixes. The first file is the private
// key's, and the only one that is not for everybody.
func newOutput(path string, overwrite bool, suffixes ...string) *output {
	o := &output{overwrite: overwrite, rename: os.Rename}
	for i, suffix := range suffixes {
		mode := fs.FileMode(0o644)
		if i == 0 {
			mode = 0o600
		}
		o.files = append(o.files, outputFile{path: path + suffix, mode: mode})
	}
	return o
}

func (o *output) names() []string {
	var names []string
	for _, file := range o.files {
		names = append(names, file.path)
	}
	return names
}

// check looks for what write would refuse.
func (o *output) check() error {
	var found []string
	for i := range o.files {
		file := &o.files[i]
		info, err := os.Lstat(file.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return cannotWrite(file.path, err)
		}
		if !info.Mode().IsRegular() {
			return trace.BadParameter("%s is there and is no regular file: remove it, or give another --out", file.path)
		}
		file.found = true
		found = append(found, file.path)
	}
	if len(found) > 0 && !o.overwrite {
		return alreadyThere(found...)
	}
	return nil
}

// write writes all files, or puts back what was there.
func (o *output) write(contents ...[]byte) (err error) {
	if err := o.check(); err != nil {
		return trace.Wrap(err)
	}
	suffix := make([]byte, 8)
	if _, err := rand.Read(suffix); err != nil {
		return trace.Wrap(err)
	}
	defer o.cleanUp()
	for i := range o.files {
		file := &o.files[i]
		base := filepath.Join(filepath.Dir(file.path), ".tctl-"+hex.EncodeToString(suffix)+strconv.Itoa(i))
		if err := file.prepare(base, contents[i]); err != nil {
			return cannotWrite(file.path, err)
		}
	}
	defer func() {
		if err != nil {
			o.undo()
		}
	}()
	// All names are taken before the first content is: a file that appears
	// meanwhile is as safe as one that was there before.
	if !o.overwrite {
		for i := range o.files {
			if err := o.files[i].reserve(); err != nil {
				return trace.Wrap(err)
			}
		}
	}
	for i := range o.files {
		file := &o.files[i]
		if err := o.rename(file.temp, file.path); err != nil {
			return cannotWrite(file.path, err)
		}
		file.temp, file.placed = "", true
	}
	return nil
}

// prepare writes the content beside where it is to stand, and gives what stands
// there a second name to come back by.
func (f *outputFile) prepare(base string, content []byte) error {
	if f.found {
		// Some file systems have no links: there is no way back there.
		if err := os.Link(f.path, base+".old"); err == nil {
			f.backup = base + ".old"
		}
	}
	file, err := os.OpenFile(base+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return err
	}
	f.temp = base + ".new"
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}

// reserve takes the name, if nobody has it.
func (f *outputFile) reserve() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if errors.Is(err, fs.ErrExist) {
		return alreadyThere(f.path)
	}
	if err != nil {
		return cannotWrite(f.path, err)
	}
	f.placed = true
	return file.Close()
}

// undo puts back what was there, as far as it can: the error that made it
// necessary is the one to report.
func (o *output) undo() {
	for i := range o.files {
		file := &o.files[i]
		switch {
		case !file.placed:
		case file.backup != "":
			if os.Rename(file.backup, file.path) == nil {
				file.backup = ""
			}
		case !file.found:
			_ = os.Remove(file.path)
		}
	}
}

func (o *output) cleanUp() {
	for _, file := range o.files {
		for _, name := range []string{file.temp, file.backup} {
			if name != "" {
				_ = os.Remove(name)
			}
		}
	}
}

func alreadyThere(paths ...string) error {
	return trace.AlreadyExists("already there: %s: give another --out, or --overwrite to replace", strings.Join(paths, ", "))
}

func cannotWrite(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return trace.NotFound("cannot write %s: there is no folder %s: make it, or give another --out", path, filepath.Dir(path))
	}
	return trace.Errorf("cannot write %s: %v: give another --out", path, cause.System(err))
}
