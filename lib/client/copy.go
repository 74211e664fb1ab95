// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Copies of files between this host and nodes, over SFTP, as scp makes them.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gravitational/trace"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

const (
	// maxDepth ends a copy of folders that contain themselves, by a link.
	maxDepth = 64
	// copyRequests is how many requests of one file are under way.
	copyRequests = 64
)

// Location is a file or folder, here or at a node.
type Location struct {
	// Login and Host are the node; an empty Host is this host.
	Login, Host string
	// Path at a node is relative to the login's home, unless it begins with /.
	Path string
}

// ParseLocation reads [[login@]node:]path as scp does: what has a colon before
// any slash is at a node.
func ParseLocation(text string) (Location, error) {
	host, path, remote := strings.Cut(text, ":")
	if start := strings.LastIndex(host, "@") + 1; strings.HasPrefix(text[start:], "[") {
		// An IPv6 address.
		end := strings.Index(text, "]:")
		if end < 0 {
			return Location{}, trace.BadParameter("%q has a bracket that is not closed: give it as [LOGIN@][ADDRESS]:PATH", text)
		}
		host, path, remote = text[:start]+text[start+1:end], text[end+2:], true
	}
	if !remote || strings.Contains(host, "/") {
		if text == "" {
			return Location{}, trace.BadParameter("an empty path is no file")
		}
		return Location{Path: text}, nil
	}
	login, name := ParseLoginHost(host)
	if name == "" {
		return Location{}, trace.BadParameter("%q names no node: give it as [LOGIN@]NODE:PATH", text)
	}
	return Location{Login: login, Host: name, Path: path}, nil
}

// Side is the files of one host, as Copier needs them.
type Side interface {
	Stat(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]fs.FileInfo, error)
	// Open opens a file to read all of it with WriteTo.
	Open(name string) (io.ReadCloser, error)
	// Create makes or empties a file. A new one gets mode, less what the host's
	// umask takes away.
	Create(name string, mode fs.FileMode) (io.WriteCloser, error)
	Mkdir(name string, mode fs.FileMode) error
	Chmod(name string, mode fs.FileMode) error
	Chtimes(name string, accessed, modified time.Time) error
	Glob(pattern string) ([]string, error)
	Join(elem ...string) string
	Base(name string) string
	// Title is how messages name a file.
	Title(name string) string
}

// LocalSide is this host.
type LocalSide struct{}

func (LocalSide) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (LocalSide) ReadDir(name string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	infos := make([]fs.FileInfo, 0, len(entries))
	for _, entry := range entries {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (LocalSide) Open(name string) (io.ReadCloser, error) { return os.Open(name) }

func (LocalSide) Create(name string, mode fs.FileMode) (io.WriteCloser, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
}

func (LocalSide) Mkdir(name string, mode fs.FileMode) error { return os.Mkdir(name, mode) }
func (LocalSide) Chmod(name string, mode fs.FileMode) error { return os.Chmod(name, mode) }
func (LocalSide) Chtimes(name string, accessed, modified time.Time) error {
	return os.Chtimes(name, accessed, modified)
}

// Glob leaves patterns to the user's shell.
func (LocalSide) Glob(name string) ([]string, error) { return []string{name}, nil }
func (LocalSide) Join(elem ...string) string         { return filepath.Join(elem...) }
func (LocalSide) Base(name string) string            { return filepath.Base(filepath.Clean(name)) }
func (LocalSide) Title(name string) string           { return name }

// RemoteSide is a login at a node.
type RemoteSide struct {
	*sftp.Client
	title string
}

// OpenFiles starts SFTP at a node. title is how messages name the node. Close it
// after use.
func OpenFiles(client *ssh.Client, title string) (*RemoteSide, error) {
	files, err := sftp.NewClient(client,
		sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(copyRequests))
	if err != nil {
		return nil, trace.ConnectionProblem(nil, "%s does not serve files: %s", Clean(title), Clean(strings.TrimPrefix(err.Error(), "ssh: ")))
	}
	return &RemoteSide{Client: files, title: title}, nil
}

// home makes a path of the user's one of SFTP's, which begins in the home too.
func home(name string) string {
	switch {
	case name == "", name == "~":
		return "."
	case strings.HasPrefix(name, "~/"):
		return "./" + strings.TrimLeft(name[2:], "/")
	}
	return name
}

func (r *RemoteSide) Stat(name string) (fs.FileInfo, error)      { return r.Client.Stat(name) }
func (r *RemoteSide) ReadDir(name string) ([]fs.FileInfo, error) { return r.Client.ReadDir(name) }
func (r *RemoteSide) Open(name string) (io.ReadCloser, error)    { return r.Client.Open(name) }
func (r *RemoteSide) Join(elem ...string) string                 { return path.Join(elem...) }
func (r *RemoteSide) Base(name string) string                    { return path.Base(path.Clean(name)) }
func (r *RemoteSide) Title(name string) string                   { return r.title + ":" + name }

// Create asks for no mode, since the client of SFTP has none to give. So it
// sees what the node's umask leaves of a new file's, and takes as much of mode.
func (r *RemoteSide) Create(name string, mode fs.FileMode) (io.WriteCloser, error) {
	_, err := r.Client.Stat(name)
	file, openErr := r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if openErr != nil || !errors.Is(err, fs.ErrNotExist) {
		return file, openErr
	}
	made, err := file.Stat()
	if err == nil {
		// What it leaves of reading it leaves of executing.
		allowed := made.Mode().Perm() | made.Mode().Perm()&0o444>>2
		if want := mode & allowed; want != made.Mode().Perm() {
			err = r.Chmod(name, want)
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// Mkdir makes a folder as the node's umask has it.
func (r *RemoteSide) Mkdir(name string, mode fs.FileMode) error {
	if err := r.Client.Mkdir(name); err != nil {
		return err
	}
	made, err := r.Client.Stat(name)
	if err != nil {
		return err
	}
	if want := made.Mode().Perm() & (mode | 0o700); want != made.Mode().Perm() {
		return r.Chmod(name, want)
	}
	return nil
}

// Glob expands a pattern where there is no file of that very name.
func (r *RemoteSide) Glob(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}, nil
	}
	if _, err := r.Client.Stat(pattern); err == nil {
		return []string{pattern}, nil
	}
	names, err := r.Client.Glob(pattern)
	if err == nil && len(names) == 0 {
		err = fs.ErrNotExist
	}
	return names, err
}

// Copier copies as scp does.
type Copier struct {
	// Recursive copies folders, Preserve keeps modes and times.
	Recursive, Preserve bool
	// Problem is told about each file that was not copied, in one line.
	Problem func(error)
	// Progress is told about a file after each part of it, and with done at its
	// end; nil for nobody.
	Progress func(name string, copied, size int64, done bool)
}

// Copy copies the sources, which patterns may stand for, to target. Where there
// are several, target has to be a folder. It goes on after a file that cannot be
// copied; the error counts them.
func (c Copier) Copy(ctx context.Context, from []Source, to Side, target string) error {
	if _, ok := to.(*RemoteSide); ok {
		trailing := strings.HasSuffix(target, "/")
		if target = home(target); trailing && !strings.HasSuffix(target, "/") {
			target += "/"
		}
	}
	var sources []Source
	failed := 0
	problem := func(err error) {
		failed++
		c.Problem(err)
	}
	for _, source := range from {
		name := source.Name
		if _, ok := source.Side.(*RemoteSide); ok {
			name = home(name)
		}
		names, err := source.Side.Glob(name)
		if err != nil {
			problem(fileError(source.Side, name, "find", err))
			continue
		}
		for _, name := range names {
			sources = append(sources, Source{source.Side, name})
		}
	}
	info, err := to.Stat(target)
	isFolder := err == nil && info.IsDir()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fileError(to, target, "find", err)
	case !isFolder && len(sources)+failed > 1:
		return trace.BadParameter("%s is not a folder, and there are several files to copy to it", Clean(to.Title(target)))
	case !isFolder && strings.HasSuffix(target, "/") && !c.Recursive:
		return trace.BadParameter("%s is not a folder", Clean(to.Title(target)))
	}
	for _, source := range sources {
		name := target
		if isFolder {
			base := source.Side.Base(source.Name)
			if base == "." || base == ".." || base == "/" {
				// As scp has it: the contents of the folder.
				base = ""
			}
			name = to.Join(target, base)
		}
		failed += c.copy(ctx, source.Side, source.Name, to, name, 0)
		if ctx.Err() != nil {
			return trace.Wrap(ctx.Err(), "interrupted")
		}
	}
	if failed > 0 {
		return trace.Errorf("%d of the files or folders could not be copied", failed)
	}
	return nil
}

// Source is a file or folder to copy.
type Source struct {
	Side Side
	Name string
}

// copy returns how many files it could not copy, after having said why.
func (c Copier) copy(ctx context.Context, from Side, source string, to Side, target string, depth int) (failed int) {
	fail := func(err error) int {
		c.Problem(err)
		return failed + 1
	}
	if ctx.Err() != nil {
		return failed + 1
	}
	info, err := from.Stat(source)
	if err != nil {
		return fail(fileError(from, source, "read", err))
	}
	if info.Mode().IsRegular() {
		if err := c.copyFile(ctx, from, source, info, to, target); err != nil {
			return fail(err)
		}
		return failed
	}
	switch {
	case !info.IsDir():
		return fail(trace.BadParameter("%s is neither a file nor a folder", Clean(from.Title(source))))
	case !c.Recursive:
		return fail(trace.BadParameter("%s is a folder: use -r to copy it", Clean(from.Title(source))))
	case depth >= maxDepth:
		return fail(trace.LimitExceeded("%s is more than %d folders deep: a link may lead back", Clean(from.Title(source)), maxDepth))
	}
	existing, err := to.Stat(target)
	made := errors.Is(err, fs.ErrNotExist)
	switch {
	case made:
		// Its owner has to write into it until it is full.
		if err := to.Mkdir(target, info.Mode().Perm()|0o700); err != nil {
			return fail(fileError(to, target, "make the folder", err))
		}
	case err != nil:
		return fail(fileError(to, target, "find", err))
	case !existing.IsDir():
		return fail(trace.BadParameter("%s is not a folder", Clean(to.Title(target))))
	}
	entries, err := from.ReadDir(source)
	if err != nil {
		return fail(fileError(from, source, "read", err))
	}
	for _, entry := range entries {
		// A node that lies must not have us write elsewhere.
		if name := entry.Name(); name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			failed = fail(trace.BadParameter("%s lists %q, which is no name of a file", Clean(from.Title(source)), name))
			continue
		}
		failed += c.copy(ctx, from, from.Join(source, entry.Name()), to, to.Join(target, entry.Name()), depth+1)
	}
	if c.Preserve {
		if err := preserve(to, target, info); err != nil {
			return fail(err)
		}
	} else if made && info.Mode().Perm()&0o700 != 0o700 {
		if now, err := to.Stat(target); err == nil {
			if err := to.Chmod(target, now.Mode().Perm()&info.Mode().Perm()); err != nil {
				return fail(fileError(to, target, "set the mode of", err))
			}
		}
	}
	return failed
}

func (c Copier) copyFile(ctx context.Context, from Side, source string, info fs.FileInfo, to Side, target string) error {
	if same(from, info, to, target) {
		return trace.BadParameter("%s and %s are the same file", Clean(from.Title(source)), Clean(to.Title(target)))
	}
	reader, err := from.Open(source)
	if err != nil {
		return fileError(from, source, "read", err)
	}
	defer reader.Close()
	writer, err := to.Create(target, info.Mode().Perm())
	if err != nil {
		return fileError(to, target, "write", err)
	}
	var copied atomic.Int64
	count := func(n int) error {
		total := copied.Add(int64(n))
		if c.Progress != nil {
			c.Progress(source, total, info.Size(), false)
		}
		return ctx.Err()
	}
	readErr, writeErr := transfer(reader, writer, count)
	if err := writer.Close(); writeErr == nil {
		writeErr = err
	}
	switch {
	case ctx.Err() != nil:
		return trace.Wrap(ctx.Err(), "%s is incomplete", Clean(to.Title(target)))
	case readErr != nil:
		return fileError(from, source, "read", readErr)
	case writeErr != nil:
		return fileError(to, target, "write", writeErr)
	}
	if c.Progress != nil {
		c.Progress(source, copied.Load(), info.Size(), true)
	}
	if c.Preserve {
		return preserve(to, target, info)
	}
	return nil
}

// transfer copies with many requests under way, at whichever end is a node, and
// tells at which end it failed.
func transfer(reader io.Reader, writer io.Writer, count func(int) error) (readErr, writeErr error) {
	source, isRemote := reader.(*sftp.File)
	target, toRemote := writer.(*sftp.File)
	send := func(from io.Reader) (read, write error) {
		watched := &counted{reader: from, count: count}
		_, err := target.ReadFromWithConcurrency(watched, copyRequests)
		if watched.err != nil {
			return watched.err, nil
		}
		return nil, err
	}
	receive := func(to io.Writer) (read, write error) {
		watched := &counted{writer: to, count: count}
		_, err := source.WriteTo(watched)
		if watched.err != nil {
			return nil, watched.err
		}
		return err, nil
	}
	switch {
	case isRemote && toRemote:
		pipe, pipeWriter := io.Pipe()
		received := make(chan error, 1)
		go func() {
			err, _ := receive(pipeWriter)
			_ = pipeWriter.CloseWithError(err) // nil is io.EOF
			received <- err
		}()
		read, write := send(pipe)
		_ = pipe.CloseWithError(errors.Join(read, write))
		if err := <-received; err != nil {
			return err, nil
		}
		return nil, write
	case toRemote:
		return send(reader)
	case isRemote:
		return receive(writer)
	}
	_, err := io.Copy(writer, &counted{reader: reader, count: count})
	return nil, err
}

// counted counts what passes, and remembers what went wrong at its own end.
type counted struct {
	reader io.Reader
	writer io.Writer
	count  func(int) error
	err    error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	if err == nil {
		err = c.count(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.writer.Write(p)
	if err == nil {
		err = c.count(n)
	}
	if err != nil {
		c.err = err
	}
	return n, err
}

// same tells whether a file of this host would be copied onto itself.
func same(from Side, info fs.FileInfo, to Side, target string) bool {
	_, fromHere := from.(LocalSide)
	_, toHere := to.(LocalSide)
	if !fromHere || !toHere {
		return false
	}
	there, err := to.Stat(target)
	return err == nil && os.SameFile(info, there)
}

// preserve gives target the mode and the time of what it was copied from, as far
// as any owner may set it.
func preserve(to Side, target string, info fs.FileInfo) error {
	if err := to.Chmod(target, info.Mode().Perm()); err != nil {
		return fileError(to, target, "set the mode of", err)
	}
	accessed := info.ModTime()
	if attributes, ok := info.Sys().(*sftp.FileStat); ok {
		accessed = time.Unix(int64(attributes.Atime), 0)
	}
	if err := to.Chtimes(target, accessed, info.ModTime()); err != nil {
		return fileError(to, target, "set the time of", err)
	}
	return nil
}

// fileError says which file, where, and why, in one line.
func fileError(side Side, name, what string, err error) error {
	reason := err.Error()
	var (
		path   *fs.PathError
		status *sftp.StatusError
	)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = "no such file or folder"
	case errors.Is(err, fs.ErrPermission):
		reason = "permission denied"
	case errors.As(err, &path):
		reason = path.Err.Error()
	case errors.As(err, &status):
		reason = strings.TrimPrefix(status.Error(), "sftp: ")
	case errors.Is(err, sftp.ErrSSHFxConnectionLost), errors.Is(err, io.ErrUnexpectedEOF):
		reason = "the connection ended"
	}
	return trace.Wrap(fmt.Errorf("cannot %s %s: %s", what, Clean(side.Title(name)), Clean(reason)))
}
