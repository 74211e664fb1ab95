// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The part of SOCKS 5 (RFC 1928) that a forward serves: CONNECT, without
// authentication, to an address or a name.

package client

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/gravitational/trace"
)

const (
	socksVersion     = 5
	socksNoAuth      = 0
	socksNoMethod    = 0xff
	socksConnect     = 1
	socksIPv4        = 1
	socksDomain      = 3
	socksIPv6        = 4
	socksSucceeded   = 0
	socksFailed      = 4 // host unreachable: the node does not tell more
	socksNoCommand   = 7
	socksNoAddress   = 8
	socksHelloPeriod = 10 * time.Second
)

// socksRequest reads up to the destination, as host:port, which the node looks
// up. A client that asks for something else has been told so.
func socksRequest(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(socksHelloPeriod)); err != nil {
		return "", trace.Wrap(err)
	}
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return "", trace.BadParameter("it says nothing")
	}
	if head[0] != socksVersion {
		return "", trace.BadParameter("it does not speak SOCKS 5")
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(conn, methods); err != nil {
		return "", trace.BadParameter("it ended in the middle of SOCKS")
	}
	method := byte(socksNoMethod)
	for _, offered := range methods {
		if offered == socksNoAuth {
			method = socksNoAuth
		}
	}
	if _, err := conn.Write([]byte{socksVersion, method}); err != nil {
		return "", trace.Wrap(err)
	}
	if method == socksNoMethod {
		return "", trace.BadParameter("it insists on a password, and there is none")
	}
	var request [4]byte // version, command, reserved, kind of address
	if _, err := io.ReadFull(conn, request[:]); err != nil {
		return "", trace.BadParameter("it ended in the middle of SOCKS")
	}
	if request[0] != socksVersion {
		return "", trace.BadParameter("it does not speak SOCKS 5")
	}
	var length [1]byte
	switch request[3] {
	case socksIPv4:
		length[0] = 4
	case socksIPv6:
		length[0] = 16
	case socksDomain:
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return "", trace.BadParameter("it ended in the middle of SOCKS")
		}
	default:
		_ = socksAnswer(conn, socksNoAddress)
		return "", trace.BadParameter("it has an address of the kind %d", request[3])
	}
	rest := make([]byte, int(length[0])+2)
	if _, err := io.ReadFull(conn, rest); err != nil {
		return "", trace.BadParameter("it ended in the middle of SOCKS")
	}
	if request[1] != socksConnect {
		_ = socksAnswer(conn, socksNoCommand)
		return "", trace.BadParameter("it asks for something else than a connection")
	}
	address, port := rest[:length[0]], int(rest[length[0]])<<8|int(rest[length[0]+1])
	host := string(address)
	if request[3] != socksDomain {
		ip, _ := netip.AddrFromSlice(address)
		host = ip.Unmap().String()
	} else if host == "" {
		_ = socksAnswer(conn, socksNoAddress)
		return "", trace.BadParameter("it names no host")
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), trace.Wrap(conn.SetDeadline(time.Time{}))
}

func socksReply(conn net.Conn, connected bool) error {
	if connected {
		return socksAnswer(conn, socksSucceeded)
	}
	return socksAnswer(conn, socksFailed)
}

// socksAnswer names no address of its own: it is the node's, and not known here.
func socksAnswer(conn net.Conn, status byte) error {
	_, err := conn.Write([]byte{socksVersion, status, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return trace.Wrap(err)
}

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
