// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The filter: it stands between the client and the library and knows packets, but
// not files.
//
// It gives the library the next request when the last is answered. The library
// would carry out eight reads and writes at a time, in no order, beside whatever
// else was asked for, so that what is appended to a file would be mixed up and a
// file's size be told before it is written. The client is as fast with this: its
// requests wait in the pipe. The handlers can then look at the one request that
// there is, and see what the library keeps to itself: the path as the client has
// given it (the library takes ".." out before the kernel sees what it means), the
// handle, and the mode of a new file or folder.

package files

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// The kinds of packets that need more than the library does with them
// (draft-ietf-secsh-filexfer-02, section 3).
const (
	packetInit          = 1
	packetVersion       = 2
	packetOpen          = 3
	packetRead          = 5
	packetWrite         = 6
	packetLstat         = 7
	packetFstat         = 8
	packetFsetstat      = 10
	packetRemove        = 13
	packetRealpath      = 16
	packetSymlink       = 20
	packetHandle        = 102
	packetData          = 103
	packetName          = 104
	packetAttrs         = 105
	packetExtended      = 200
	packetExtendedReply = 201
)

const (
	// maxPacket is the longest packet, either way. OpenSSH and the library have
	// the same.
	maxPacket = 256 << 10
	// maxData is how much of a file one packet carries.
	maxData = maxPacket - 1024
	// maxHandles bounds the files and folders that a client has open at once.
	maxHandles = 1000
)

// The extensions (OpenSSH's PROTOCOL, section 4). The library knows the first
// three.
const (
	extHardlink       = "hardlink@openssh.com"
	extPosixRename    = "posix-rename@openssh.com"
	extStatvfs        = "statvfs@openssh.com"
	extLimits         = "limits@openssh.com"
	extFsync          = "fsync@openssh.com"
	extLsetstat       = "lsetstat@openssh.com"
	extExpandPath     = "expand-path@openssh.com"
	extFstatvfs       = "fstatvfs@openssh.com"
	extCopyData       = "copy-data"
	extHomeDirectory  = "home-directory"
	extUsersGroupsIDs = "users-groups-by-id@openssh.com"
)

// filter is the client's connection as the library sees it.
type filter struct {
	in       *bufio.Reader
	out      *os.File
	readOnly bool
	// turn holds one token while nothing is asked.
	turn chan struct{}
	// err is why there are no more requests.
	err error

	// request is what is being carried out, and from what the library has yet
	// to read of it.
	request request
	from    io.LimitedReader
	packet  []byte
	// reply is what the library has written of its answer.
	reply []byte

	// files are those that the client has open, by its names for them; opened
	// is the one that has no name yet.
	files  map[string]*file
	opened *file
	// accessed are the times that belong to the entries of the reply.
	accessed []uint32
	names    names
}

func newFilter(in io.Reader, out *os.File, readOnly bool) *filter {
	f := &filter{
		in: bufio.NewReaderSize(in, 4<<10), out: out, readOnly: readOnly,
		turn:  make(chan struct{}, 1),
		files: make(map[string]*file),
	}
	f.turn <- struct{}{}
	return f
}

// Close has nothing to do: the program ends after the library.
func (f *filter) Close() error { return nil }

// Read is how the library gets requests.
func (f *filter) Read(p []byte) (int, error) {
	for f.from.N == 0 {
		<-f.turn
		if f.err == nil {
			f.err = f.next()
		}
		if f.err != nil {
			return 0, f.err
		}
	}
	n, err := f.from.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		f.err = err
	}
	return n, err
}

// next reads from the client until there is something for the library.
func (f *filter) next() error {
	// The length, and the kind.
	head, err := f.in.Peek(5)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	length, kind := binary.BigEndian.Uint32(head), head[4]
	if length < 1 || length > maxPacket {
		return fmt.Errorf("the client sent a packet of %d bytes, and 1 to %d are allowed", length, maxPacket)
	}
	f.request, f.accessed = request{kind: kind}, f.accessed[:0]
	if kind == packetRead || kind == packetWrite {
		f.from = io.LimitedReader{R: f.in, N: int64(4 + length)}
		return nil
	}
	f.packet = append(f.packet[:0], make([]byte, 4+length)...)
	if _, err := io.ReadFull(f.in, f.packet); err != nil {
		return io.ErrUnexpectedEOF
	}
	if length < 5 {
		return errShort
	}
	give := f.packet
	id, body := f.packet[5:9], f.packet[9:]
	f.request.b = body
	switch kind {
	case packetOpen:
		// The library takes a read of what was opened for writing for a write.
		// It is the kernel that must refuse it.
		give = bytes.Clone(f.packet)
		r := request{b: give[9:]}
		if r.string(); len(r.b) >= 4 {
			r.b[3] |= openRead | openWrite
		}
	case packetExtended:
		f.request.extension = f.request.string()
		switch f.request.extension {
		case extLimits:
			return f.answer(id, maxPacket, maxData, maxData, maxHandles)
		case extUsersGroupsIDs:
			return f.answerNames(id)
		// The others are given to the library as what has the same kind of answer.
		case extFsync, extLsetstat, extCopyData:
			give = standIn(packetRemove, id, "")
		case extExpandPath, extHomeDirectory:
			give = standIn(packetRealpath, id, "")
		case extFstatvfs:
			give = standIn(packetExtended, id, extStatvfs, "")
		}
	default:
		if kind != packetInit && (kind < packetOpen || kind > packetSymlink) {
			// This would end the library.
			give = standIn(packetExtended, id, "")
		}
	}
	f.from = io.LimitedReader{R: bytes.NewReader(give), N: int64(len(give))}
	return nil
}

func standIn(kind byte, id []byte, fields ...string) []byte {
	b := append([]byte{0, 0, 0, 0, kind}, id...)
	for _, field := range fields {
		b = appendString(b, field)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// answer answers without the library.
func (f *filter) answer(id []byte, fields ...uint64) error {
	b := standIn(packetExtendedReply, id)
	for _, field := range fields {
		b = binary.BigEndian.AppendUint64(b, field)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return f.send(b)
}

// answerNames answers with the names of users and groups, empty where there are
// none.
func (f *filter) answerNames(id []byte) error {
	var lists [2][]byte
	for i, name := range []func(uint32) string{f.names.user, f.names.group} {
		for ids := (request{b: []byte(f.request.string())}); len(ids.b) >= 4 && len(lists[i]) < maxData/2; {
			lists[i] = appendString(lists[i], name(ids.uint32()))
		}
	}
	return f.send(standIn(packetExtendedReply, id, string(lists[0]), string(lists[1])))
}

// send is for whole packets. After it comes the client's next request, if the
// client is still there.
func (f *filter) send(parts ...[]byte) error {
	err := f.writev(parts)
	if err != nil {
		f.err = err
	}
	f.turn <- struct{}{}
	return err
}

// writev is writev(2), until all is written.
func (f *filter) writev(parts [][]byte) error {
	conn, err := f.out.SyscallConn()
	if err != nil {
		return err
	}
	for len(parts) > 0 {
		var n int
		var failed error
		if err := conn.Write(func(fd uintptr) bool {
			n, failed = again(func() (int, error) { return unix.Writev(int(fd), parts) })
			return failed != unix.EAGAIN
		}); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		for len(parts) > 0 && n >= len(parts[0]) {
			n -= len(parts[0])
			parts = parts[1:]
		}
		if len(parts) > 0 {
			parts[0] = parts[0][n:]
		}
	}
	return nil
}

// Write is how the library answers, in pieces. It does not listen to errors.
func (f *filter) Write(p []byte) (int, error) {
	if b := f.reply; len(b) > 4 && b[4] == packetData && len(b)+len(p) == 4+int(binary.BigEndian.Uint32(b)) {
		// The one that is worth not copying.
		f.reply = b[:0]
		return len(p), f.send(b, p)
	}
	f.reply = append(f.reply, p...)
	b := f.reply
	if len(b) < 9 || len(b) < 4+int(binary.BigEndian.Uint32(b)) {
		return len(p), nil
	}
	f.reply = b[:0]
	switch r := (request{b: b[9:]}); b[4] {
	case packetVersion:
		b = appendExtensions(b[:9], f.readOnly)
	case packetHandle:
		f.opened.handle = r.string()
		f.files[f.opened.handle] = f.opened
	case packetAttrs:
		f.setAccessed(&r)
	case packetName:
		for r.uint32(); len(r.b) > 0 && len(f.accessed) > 0; {
			r.string()
			r.string()
			f.setAccessed(&r)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return len(p), f.send(b)
}

// setAccessed puts a time of last access where the library has put that of the
// last change.
func (f *filter) setAccessed(r *request) {
	const (
		accessedAt = 4 + 8 + 4 + 4 + 4 // after flags, size, user, group and mode
		length     = accessedAt + 4 + 4
	)
	if attributes := r.take(length); len(f.accessed) > 0 && !r.short {
		binary.BigEndian.PutUint32(attributes[accessedAt:], f.accessed[0])
		f.accessed = f.accessed[1:]
	}
}

// appendExtensions is what the client is told of.
func appendExtensions(b []byte, readOnly bool) []byte {
	names := []string{extLimits, extExpandPath, extHomeDirectory, extUsersGroupsIDs}
	if !readOnly {
		names = append(names, extHardlink, extPosixRename, extFsync, extLsetstat, extCopyData)
	}
	for _, name := range names {
		b = appendString(appendString(b, name), "1")
	}
	for _, name := range []string{extStatvfs, extFstatvfs} {
		b = appendString(appendString(b, name), "2")
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// request is what the client has asked for. Its methods read the next field;
// after one that is not there all are empty, and short is true.
type request struct {
	kind      byte
	extension string
	b         []byte
	short     bool
}

func (r *request) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.b, r.short = nil, true
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *request) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *request) uint64() uint64 { return uint64(r.uint32())<<32 | uint64(r.uint32()) }

func (r *request) string() string { return string(r.take(r.uint32())) }

// attributes are what a client wants of a file.
type attributes struct {
	has sftp.FileAttrFlags
	*sftp.FileStat
}

func (r *request) attributes() attributes {
	// The library's own request would lack the flags of an open.
	set := sftp.Request{Flags: r.uint32(), Attrs: r.b}
	a := attributes{has: set.AttrFlags(), FileStat: set.Attributes()}
	if a.FileStat == nil {
		r.short = true
	}
	return a
}
