// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What a connection forwards: connections that the client asks for, sockets that
// listen for it, and its agent. The user's own process makes them (lib/srv/forward);
// the bytes are carried here.

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/srv/forward"
	"teleport-auditd/lib/srv/session"
)

const (
	// maxForwards bounds the forwarded connections that a connection has at once,
	// those included that are being made.
	maxForwards = 512
	// maxListeners bounds the sockets that listen for a connection.
	maxListeners = 128
	// listenTimeout bounds how long a socket may take to listen or to close.
	listenTimeout = 15 * time.Second
	// dialTimeout is more than what the user's process has, which tells it better.
	dialTimeout = forward.DialTimeout + 5*time.Second
	// gateTimeout is how long a user's processes may hold up all threads that
	// serve him before they get no process that forwards any more.
	gateTimeout = 5 * time.Second
)

// errDistrusted is why a connection forwards nothing any more.
var errDistrusted = errors.New("the process that forwards has misbehaved; connect again")

// errHeldUp is why a user's connections forward nothing for now.
var errHeldUp = errors.New("this user's processes hold up what they forward")

// listenerKey is what the client cancels a listener by.
type listenerKey struct {
	// address is the address or path as the client has asked for it.
	address string
	port    uint32
	network forward.Network
}

// forwarding is what one connection forwards.
type forwarding struct {
	conn *connection
	// gate is held until end.
	gate *forward.Gate
	// ctx ends with the connection.
	ctx    context.Context
	cancel context.CancelFunc
	// count is how many connections are forwarded.
	count atomic.Int32
	// told are the refusals that the log has.
	told sync.Map

	// starting is held while the user's process starts, listening while the
	// agent's socket does.
	starting, listening sync.Mutex

	mu sync.Mutex
	// client is nil before there is anything to forward.
	client     *forward.Client
	listeners  map[listenerKey]*forward.Listener
	agent      string
	conns      map[*forward.Conn]struct{}
	distrusted bool
	over       bool
}

func newForwarding(c *connection) *forwarding {
	f := &forwarding{
		conn:      c,
		gate:      c.server.gates.Of(c.Identity.UID),
		listeners: make(map[listenerKey]*forward.Listener),
		conns:     make(map[*forward.Conn]struct{}),
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// end ends all of it, without waiting: the login ends after it. Nothing in it, nor
// under f.mu elsewhere, closes or asks what a user's process has passed.
func (f *forwarding) end() {
	defer f.gate.Release()
	f.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	if f.client != nil {
		_ = f.client.Close()
	}
	for conn := range f.conns {
		conn.Abort()
	}
}

// warnOnce tells the log of a refusal, once for each connection: a browser asks
// very often.
func (f *forwarding) warnOnce(text string) {
	if _, told := f.told.LoadOrStore(text, true); !told {
		f.conn.log.Warn(text)
	}
}

// refusal says why the client may not forward connections; empty where it may.
func (f *forwarding) refusal() string {
	switch {
	case f.conn.server.cfg.RefuseForwarding:
		return "this node forwards no connections (port_forwarding)"
	case !f.conn.Identity.PermitPortForwarding:
		return "the certificate does not permit forwarding (permit-port-forwarding)"
	case !f.conn.may.PortForwarding:
		return "a role of the user does not permit forwarding (port_forwarding)"
	}
	return ""
}

// process returns the user's process that forwards, and starts it, and with it
// the login, where there is none. pty is the terminal that the login is about to
// have. The error is as login.start's, errDistrusted or errHeldUp.
func (f *forwarding) process(pty *session.PTY) (*forward.Client, error) {
	f.starting.Lock()
	defer f.starting.Unlock()
	f.mu.Lock()
	client := f.client
	f.mu.Unlock()
	if client != nil {
		select {
		case <-client.Done():
			f.lost(client)
		default:
			return client, nil
		}
	}
	f.mu.Lock()
	over, distrusted := f.over, f.distrusted
	if !over {
		// It may end meanwhile.
		f.gate.Hold()
		defer f.gate.Release()
	}
	f.mu.Unlock()
	switch {
	case over:
		return nil, trace.Wrap(errEnded)
	case distrusted:
		return nil, trace.Wrap(errDistrusted)
	}
	// Each process could leave descriptors here that nobody can close.
	ctx, cancel := context.WithTimeout(f.ctx, gateTimeout)
	err := f.gate.Wait(ctx)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) {
		f.warnOnce("The user's processes hold up all threads that serve their forwarded connections: forwarding is refused.")
		return nil, trace.Wrap(errHeldUp)
	}
	if err != nil {
		return nil, trace.Wrap(errEnded)
	}
	p, err := f.conn.login.start(&session.Start{Program: session.Forward, PTY: pty})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	client, err = forward.NewClient(forward.Config{
		Socket:  p.files[0],
		Gate:    f.gate,
		Buffers: &f.conn.server.buffers,
		Warn:    f.conn.log.Warnf,
		Spawn:   f.conn.spawn,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		_ = client.Close()
		return nil, trace.Wrap(errEnded)
	}
	f.client = client
	f.conn.spawn(func() {
		<-client.Done()
		f.lost(client)
	})
	return client, nil
}

// lost forgets a process that has ended.
func (f *forwarding) lost(client *forward.Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client != client {
		return
	}
	f.client, f.agent = nil, ""
	clear(f.listeners)
	f.distrusted = f.distrusted || client.Hostile()
	if !f.over && !client.Hostile() {
		f.conn.log.Warn("The user's process that forwards has ended, and with it what listened for the client.")
	}
}

// take counts a connection. It is false where there are too many.
func (f *forwarding) take() bool {
	if f.count.Add(1) <= maxForwards {
		return true
	}
	f.count.Add(-1)
	f.warnOnce(fmt.Sprintf("The client wants more than %d forwarded connections at once: one more is refused.", maxForwards))
	return false
}

func (f *forwarding) leave() { f.count.Add(-1) }

// target is where a connection leads.
type target struct {
	network forward.Network
	address string
	port    uint32
}

// parseTarget reads the client's request for a connection. The text says what is
// wrong with it.
func parseTarget(channelType string, extra []byte) (t target, wrong string) {
	if channelType == "direct-tcpip" {
		var m struct { // RFC 4254, section 7.2
			Host       string
			Port       uint32
			Originator string
			OriginPort uint32
		}
		if ssh.Unmarshal(extra, &m) != nil {
			return t, "the request for a connection is malformed"
		}
		if m.Port == 0 || m.Port > math.MaxUint16 {
			return t, "there is no such port"
		}
		return target{forward.TCP, m.Host, m.Port}, forward.CheckHost(m.Host)
	}
	var m struct { // OpenSSH's PROTOCOL, section 2.4
		Path       string
		Reserved   string
		Reserved32 uint32
	}
	if ssh.Unmarshal(extra, &m) != nil {
		return t, "the request for a connection is malformed"
	}
	return target{forward.Unix, m.Path, 0}, forward.CheckPath(m.Path)
}

// open answers the client's wish for a connection from here.
func (f *forwarding) open(channel ssh.NewChannel) {
	if text := f.refusal(); text != "" {
		f.warnOnce("Forwarding is refused: " + text + ".")
		_ = channel.Reject(ssh.Prohibited, text)
		return
	}
	t, wrong := parseTarget(channel.ChannelType(), channel.ExtraData())
	if wrong != "" {
		_ = channel.Reject(ssh.ConnectionFailed, wrong)
		return
	}
	if !f.take() {
		_ = channel.Reject(ssh.ResourceShortage, "too many connections are forwarded at once")
		return
	}
	f.conn.spawn(func() {
		defer f.leave()
		conn, ok := f.dial(channel, t)
		if !ok {
			return
		}
		defer conn.Close()
		ch, requests, err := channel.Accept()
		if err == nil {
			f.relay(ch, requests, conn)
		}
	})
}

// dial makes the connection, or rejects the channel.
func (f *forwarding) dial(channel ssh.NewChannel, t target) (conn *forward.Conn, ok bool) {
	// The client hears why its login was refused.
	defer f.conn.login.hold()()
	client, err := f.process(nil)
	if err == nil {
		ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
		defer cancel()
		conn, err = client.Dial(ctx, t.network, t.address, t.port)
	}
	if err != nil {
		reason, text := f.explain(err)
		_ = channel.Reject(reason, text)
		return nil, false
	}
	return conn, true
}

// explain returns what a client hears about a connection that was not made.
func (f *forwarding) explain(err error) (reason ssh.RejectionReason, text string) {
	if failed, ok := errors.AsType[*forward.Error](err); ok {
		return ssh.ConnectionFailed, failed.Error()
	}
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return ssh.Prohibited, strings.ReplaceAll(refused.text, "\n", " ") + "This host refused the login."
	}
	if failed, ok := errors.AsType[*failedError](err); ok {
		return ssh.ConnectionFailed, failed.text
	}
	for _, known := range []error{errEnded, errDistrusted, errHeldUp, forward.ErrGone, context.Canceled} {
		if errors.Is(err, known) {
			return ssh.ConnectionFailed, known.Error()
		}
	}
	f.conn.log.WithError(err).Error("The user's process that forwards could not be started.")
	return ssh.ConnectionFailed, "this host could not forward; its log says why"
}

// accepted opens a channel for a connection that somebody has made to a socket of
// the client's, after the client has been answered. It does not block.
func (f *forwarding) accepted(conn *forward.Conn, answered <-chan struct{}, channelType string, extra []byte) {
	if !f.take() {
		f.conn.spawn(func() { _ = conn.Close() })
		return
	}
	f.conn.spawn(func() {
		defer f.leave()
		defer conn.Close()
		select {
		case <-answered:
		case <-f.ctx.Done():
			return
		}
		type opened struct {
			ch       ssh.Channel
			requests <-chan *ssh.Request
		}
		answer := make(chan opened, 1)
		f.conn.spawn(func() {
			defer close(answer)
			if ch, requests, err := f.conn.OpenChannel(channelType, extra); err == nil {
				answer <- opened{ch, requests}
			}
		})
		select {
		case o, ok := <-answer:
			if ok {
				f.relay(o.ch, o.requests, conn)
			}
		case <-f.ctx.Done():
			// A client that goes need not have answered.
		}
	})
}

// relay carries a connection's bytes both ways until both ends have ended, or one
// is broken.
func (f *forwarding) relay(ch ssh.Channel, requests <-chan *ssh.Request, conn *forward.Conn) {
	ch = f.conn.noted(ch)
	f.mu.Lock()
	over := f.over
	if !over {
		f.conns[conn] = struct{}{}
	}
	f.mu.Unlock()
	if over {
		conn.Abort()
	}
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, conn)
	}()
	closed := make(chan struct{})
	f.conn.spawn(func() {
		defer close(closed)
		ssh.DiscardRequests(requests)
		// The client has closed the channel. What it sent before still goes out.
		conn.StopReceiving()
	})
	sent := make(chan struct{})
	f.conn.spawn(func() {
		_, err := conn.ReadFrom(ch)
		if err == nil {
			_ = conn.CloseWrite()
		}
		close(sent)
		if err != nil {
			// Nobody takes it any more.
			_, _ = io.Copy(io.Discard, ch)
		}
	})
	_, err := conn.WriteTo(ch)
	if err == nil {
		_ = ch.CloseWrite()
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		<-sent
	}
	_ = ch.Close()
	_ = conn.Close()
	<-closed
}

// answer is what a global request is answered with, and what comes after that.
type answer struct {
	ok      bool
	payload []byte
	then    func()
}

// request carries out a global request about forwarding, which may take a while.
// It is nil for any other.
func (f *forwarding) request(r *ssh.Request) (work func() answer) {
	key := listenerKey{network: forward.TCP}
	var err error
	switch r.Type {
	case "tcpip-forward", "cancel-tcpip-forward": // RFC 4254, section 7.1
		var m struct {
			Address string
			Port    uint32
		}
		err = ssh.Unmarshal(r.Payload, &m)
		key.address, key.port = m.Address, m.Port
	case "streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com": // OpenSSH's PROTOCOL, section 2.4
		var m struct{ Path string }
		err = ssh.Unmarshal(r.Payload, &m)
		key.network, key.address = forward.Unix, m.Path
	default:
		return nil
	}
	if err != nil || key.port > math.MaxUint16 {
		return func() answer { return answer{} }
	}
	if strings.HasPrefix(r.Type, "cancel-") {
		return func() answer { return answer{ok: f.stopListening(key)} }
	}
	return func() answer { return f.listen(key) }
}

// listen listens for the client.
func (f *forwarding) listen(key listenerKey) (a answer) {
	if text := f.refusal(); text != "" {
		f.warnOnce("Forwarding is refused: " + text + ".")
		return a
	}
	addresses := []string{key.address}
	var wrong string
	if key.network == forward.TCP {
		addresses = bindAddresses(f.conn.server.cfg.GatewayPorts, key.address)
		wrong = forward.CheckHost(addresses[0])
	} else {
		wrong = forward.CheckPath(key.address)
	}
	if wrong != "" {
		f.conn.log.Infof("The client asked for a socket that cannot be: %s.", wrong)
		return a
	}
	f.mu.Lock()
	_, there := f.listeners[key]
	full := len(f.listeners) >= maxListeners
	f.mu.Unlock()
	if full {
		f.warnOnce(fmt.Sprintf("The client wants more than %d sockets that listen: one more is refused.", maxListeners))
	}
	if there || full {
		return a
	}
	defer f.conn.login.hold()()
	client, err := f.process(nil)
	if err == nil {
		a, err = f.listenOn(client, key, addresses)
	}
	if err != nil {
		_, text := f.explain(err)
		f.conn.log.Infof("The client's socket does not listen: %s.", text)
		return answer{}
	}
	return a
}

// listenOn listens at a process.
func (f *forwarding) listenOn(client *forward.Client, key listenerKey, addresses []string) (answer, error) {
	ctx, cancel := context.WithTimeout(f.ctx, listenTimeout)
	defer cancel()
	// A client that asks for any port knows it only by the answer.
	answered := make(chan struct{})
	l, err := client.Listen(ctx, key.network, addresses, key.port, func(l *forward.Listener, conn *forward.Conn, address string, port uint32) {
		if key.network == forward.Unix {
			f.accepted(conn, answered, "forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{key.address, ""}))
			return
		}
		f.accepted(conn, answered, "forwarded-tcpip", ssh.Marshal(struct {
			Address    string
			Port       uint32
			Originator string
			OriginPort uint32
		}{key.address, l.Port, address, port}))
	})
	if err != nil {
		return answer{}, trace.Wrap(err)
	}
	a := answer{ok: true, then: func() { close(answered) }}
	if key.network == forward.TCP && key.port == 0 {
		a.payload = ssh.Marshal(struct{ Port uint32 }{l.Port})
	}
	key.port = l.Port
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client != client {
		return answer{}, trace.Wrap(forward.ErrGone)
	}
	f.listeners[key] = l
	return a, nil
}

// stopListening closes a listener of the client's.
func (f *forwarding) stopListening(key listenerKey) bool {
	f.mu.Lock()
	l, ok := f.listeners[key]
	delete(f.listeners, key)
	f.mu.Unlock()
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(f.ctx, listenTimeout)
	defer cancel()
	return l.Close(ctx) == nil
}

// bindAddresses returns where a client's port listens (GatewayPorts in
// sshd_config(5); RFC 4254, section 7.1). One loopback address of the two may be
// had in any case.
func bindAddresses(mode GatewayPorts, asked string) []string {
	loopback, all := []string{"127.0.0.1", "::1"}, []string{"0.0.0.0", "::"}
	switch {
	case mode == GatewayYes:
		return all
	case mode == GatewayClient && (asked == "" || asked == "*"):
		return all
	case asked == "127.0.0.1", asked == "::1":
		return []string{asked}
	case mode == GatewayClient && asked != "localhost":
		return []string{asked}
	}
	return loopback
}

// agentSocket returns the path of the socket that leads to the client's agent.
// pty is the terminal of the process that wants it.
func (f *forwarding) agentSocket(pty *session.PTY) (path string, err error) {
	f.listening.Lock()
	defer f.listening.Unlock()
	f.mu.Lock()
	path = f.agent
	f.mu.Unlock()
	if path != "" {
		return path, nil
	}
	client, err := f.process(pty)
	if err != nil {
		return "", trace.Wrap(err)
	}
	ctx, cancel := context.WithTimeout(f.ctx, listenTimeout)
	defer cancel()
	answered := make(chan struct{})
	close(answered)
	l, err := client.Listen(ctx, forward.Agent, nil, 0, func(_ *forward.Listener, conn *forward.Conn, _ string, _ uint32) {
		f.accepted(conn, answered, "auth-agent@openssh.com", nil)
	})
	if err != nil {
		return "", trace.Wrap(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client != client {
		return "", trace.Wrap(forward.ErrGone)
	}
	f.agent = l.Path
	return l.Path, nil
}

// serveRequests answers the client's global requests, its keepalives among them,
// in their order. They are read whatever else is waited for, as in serveSession.
func (c *connection) serveRequests() {
	var working chan answer
	var request *ssh.Request
	var later []*ssh.Request
	reply := func(r *ssh.Request, a answer) {
		if r.WantReply {
			_ = r.Reply(a.ok, a.payload)
		}
		if a.then != nil {
			a.then()
		}
	}
	carryOut := func(r *ssh.Request) {
		if r.Type == "no-more-sessions@openssh.com" {
			c.noMore.Store(true)
		}
		work := c.forwarding.request(r)
		if work == nil {
			// A client that asks whether we are there takes any answer.
			reply(r, answer{})
			return
		}
		done := make(chan answer, 1)
		request, working = r, done
		c.spawn(func() {
			// A panic in it must not keep the connection waiting.
			defer close(done)
			done <- work()
		})
	}
	requests := c.Requests
	for requests != nil || working != nil {
		select {
		case r, ok := <-requests:
			switch {
			case !ok:
				requests = nil
			case working == nil:
				carryOut(r)
			case len(later) < maxLater:
				later = append(later, r)
			default:
				c.log.Warnf("The client has sent more than %d global requests at once: closing its connection.", maxLater)
				later = nil
				_ = c.Close()
			}
		case a := <-working:
			working = nil
			reply(request, a)
			for working == nil && len(later) > 0 {
				r := later[0]
				later = later[1:]
				carryOut(r)
			}
		}
	}
}
