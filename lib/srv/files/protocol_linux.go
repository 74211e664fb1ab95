// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The protocol's numbers, and how packets are read and written.

package files

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// The kinds of packets (draft-ietf-secsh-filexfer-02, section 3).
const (
	packetInit     = 1
	packetVersion  = 2
	packetOpen     = 3
	packetClose    = 4
	packetRead     = 5
	packetWrite    = 6
	packetLstat    = 7
	packetFstat    = 8
	packetSetstat  = 9
	packetFsetstat = 10
	packetOpendir  = 11
	packetReaddir  = 12
	packetRemove   = 13
	packetMkdir    = 14
	packetRmdir    = 15
	packetRealpath = 16
	packetStat     = 17
	packetRename   = 18
	packetReadlink = 19
	packetSymlink  = 20
	packetExtended = 200

	packetStatus        = 101
	packetHandle        = 102
	packetData          = 103
	packetName          = 104
	packetAttrs         = 105
	packetExtendedReply = 201
)

// protocolVersion is what every client speaks.
const protocolVersion = 3

// code is what a status packet says (section 7).
type code uint32

const (
	codeOK code = iota
	codeEOF
	codeNoSuchFile
	codePermissionDenied
	codeFailure
	codeBadMessage
	_ // no connection, and
	_ // connection lost, which clients tell themselves
	codeUnsupported
)

// String is the text that goes with the code.
func (c code) String() string {
	switch c {
	case codeOK:
		return "Success"
	case codeEOF:
		return "End of file"
	case codeNoSuchFile:
		return "No such file"
	case codePermissionDenied:
		return "Permission denied"
	case codeBadMessage:
		return "Bad message"
	case codeUnsupported:
		return "Operation unsupported"
	}
	return "Failure"
}

// codeOf sorts the kernel's errors as OpenSSH's sftp-server does, which clients
// know.
func codeOf(errno unix.Errno) code {
	switch errno {
	case 0:
		return codeOK
	case unix.ENOENT, unix.ENOTDIR, unix.EBADF, unix.ELOOP:
		return codeNoSuchFile
	case unix.EPERM, unix.EACCES, unix.EFAULT:
		return codePermissionDenied
	case unix.ENAMETOOLONG, unix.EINVAL:
		return codeBadMessage
	case unix.ENOSYS:
		return codeUnsupported
	}
	return codeFailure
}

// Bits of an open request (section 6.3).
const (
	openRead   = 0x01
	openWrite  = 0x02
	openAppend = 0x04
	openCreate = 0x08
	openTrunc  = 0x10
	openExcl   = 0x20
)

// Which attributes there are (section 5).
const (
	hasSize     = 0x01
	hasOwner    = 0x02
	hasMode     = 0x04
	hasTimes    = 0x08
	hasExtended = 0x80000000
)

const (
	// maxPacket is the longest packet, either way. OpenSSH has the same.
	maxPacket = 256 << 10
	// maxData is how much of a file one packet carries.
	maxData = maxPacket - 1024
)

var errMalformed = errors.New("the client sent a malformed packet")

// request reads the fields of a packet. After the first that is not there all
// are empty, and bad is true.
type request struct {
	b   []byte
	bad bool
}

func (r *request) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
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

func (r *request) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes returns a string that is good until the next packet is read.
func (r *request) bytes() []byte { return r.take(uint64(r.uint32())) }

func (r *request) string() string { return string(r.bytes()) }

// attributes are what a client wants of a file; has says which of them.
type attributes struct {
	has          uint32
	size         uint64
	uid, gid     uint32
	mode         uint32
	atime, mtime uint32
}

func (r *request) attributes() attributes {
	a := attributes{has: r.uint32()}
	if a.has&hasSize != 0 {
		a.size = r.uint64()
	}
	if a.has&hasOwner != 0 {
		a.uid, a.gid = r.uint32(), r.uint32()
	}
	if a.has&hasMode != 0 {
		a.mode = r.uint32()
	}
	if a.has&hasTimes != 0 {
		a.atime, a.mtime = r.uint32(), r.uint32()
	}
	if a.has&hasExtended != 0 {
		for n := r.uint32(); n > 0 && !r.bad; n-- {
			r.bytes()
			r.bytes()
		}
	}
	return a
}

// permissions returns the mode for a new file or folder, less of which the umask
// leaves.
func (a *attributes) permissions(otherwise uint32) uint32 {
	if a.has&hasMode == 0 {
		return otherwise
	}
	return a.mode & 0o7777
}

// reply is the packets that are to be sent.
type reply struct {
	b []byte
	// start is where the last of them begins.
	start int
}

func (r *reply) begin(kind byte, id uint32) {
	r.start = len(r.b)
	r.uint32(0)
	r.b = append(r.b, kind)
	r.uint32(id)
}

func (r *reply) end() {
	binary.BigEndian.PutUint32(r.b[r.start:], uint32(len(r.b)-r.start-4))
}

// size is how long the last packet is by now.
func (r *reply) size() int { return len(r.b) - r.start }

// drop takes back the last packet.
func (r *reply) drop() { r.b = r.b[:r.start] }

func (r *reply) uint32(n uint32) { r.b = binary.BigEndian.AppendUint32(r.b, n) }
func (r *reply) uint64(n uint64) { r.b = binary.BigEndian.AppendUint64(r.b, n) }

func (r *reply) string(s string) {
	r.uint32(uint32(len(s)))
	r.b = append(r.b, s...)
}

func (r *reply) stat(st *unix.Stat_t) {
	r.uint32(hasSize | hasOwner | hasMode | hasTimes)
	r.uint64(uint64(st.Size))
	r.uint32(st.Uid)
	r.uint32(st.Gid)
	r.uint32(st.Mode)
	atime, _ := st.Atim.Unix()
	mtime, _ := st.Mtim.Unix()
	r.uint32(uint32(atime))
	r.uint32(uint32(mtime))
}
