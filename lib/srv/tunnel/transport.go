// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The way to the auth server that Teleport's API client takes through a proxy: a
// channel teleport-transport, with one request that says where to.

package tunnel

import (
	"context"
	"encoding/json"
	"io"
	"runtime/debug"
	"time"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv"
	"teleport-auditd/lib/srv/relay"
)

const (
	// maxTransports bounds what one client may keep open through one connection.
	maxTransports = 64
	// transportTime is how long a client may take to say where to, and the auth
	// server to answer.
	transportTime = 10 * time.Second
	// maxDestination bounds what a client says.
	maxDestination = 4096
)

// transport serves one channel to its end. waiting ends when the client has gone,
// and nobody waits for an auth server any more.
func (s *Server) transport(ctx, waiting context.Context, conn *srv.Conn, newChannel ssh.NewChannel) {
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Errorf("The connection from %v has ended, because its way to the auth server panicked: %v", conn.RemoteAddr(), cause)
			s.log.Debugf("%s", debug.Stack())
			conn.Close()
		}
	}()
	channel, requests, err := newChannel.Accept()
	if err != nil {
		s.log.Debugf("A client was gone before its channel was open: %v", err)
		return
	}
	defer channel.Close()
	timer := s.cfg.Clock.NewTimer(transportTime)
	defer timer.Stop()
	var request *ssh.Request
	select {
	case request = <-requests:
	case <-timer.Chan():
	case <-waiting.Done():
	}
	if request == nil {
		go ssh.DiscardRequests(requests)
		return
	}
	if err := checkDestination(request); err != nil {
		s.refuse(channel, request, requests, err)
		return
	}
	dialing, cancel := context.WithTimeout(waiting, transportTime)
	target, err := s.cfg.DialAuth(dialing)
	cancel()
	if err != nil {
		s.log.Warnf("The auth server cannot be reached for %q from %v: %v", cut(conn.Identity.Login), conn.RemoteAddr(), err)
		s.refuse(channel, request, requests, trace.ConnectionProblem(nil, "the proxy cannot reach the auth server now; try again, and tell the administrator if it goes on"))
		return
	}
	if err := request.Reply(true, nil); err != nil {
		target.Close()
		go ssh.DiscardRequests(requests)
		return
	}
	relay.Channel(ctx, channel, requests, target)
}

// checkDestination tells why a request leads nowhere.
func checkDestination(request *ssh.Request) error {
	if request.Type != constants.ChanTransportDialReq {
		return trace.BadParameter("the channel %s takes the request %s and no other", constants.ChanTransport, constants.ChanTransportDialReq)
	}
	var destination struct {
		Address string `json:"address"`
	}
	if len(request.Payload) > maxDestination || json.Unmarshal(request.Payload, &destination) != nil {
		return trace.BadParameter("the request for a connection is malformed")
	}
	if destination.Address != constants.RemoteAuthServer {
		return trace.AccessDenied("this port leads to the auth server only; to reach a node use the proxy's SSH port")
	}
	return nil
}

// refuse tells the client why not, where Teleport's client looks for it.
func (s *Server) refuse(channel ssh.Channel, request *ssh.Request, requests <-chan *ssh.Request, why error) {
	go ssh.DiscardRequests(requests)
	if _, err := io.WriteString(channel.Stderr(), why.Error()); err == nil {
		err = request.Reply(false, nil)
		if err != nil {
			s.log.Debugf("A client was gone before it could be refused: %v", err)
		}
	}
}
