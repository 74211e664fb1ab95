// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Ports that are forwarded: -L, -R and -D.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

// Forward is a port that listens, and where its connections go.
type Forward struct {
	// Bind is the address to listen at. Empty is loopback, * is every address.
	Bind string
	// Port is the port to listen at. Zero is any that is free.
	Port int
	// Host and HostPort are the destination. A dynamic forward (-D) has none:
	// its clients name it, by SOCKS.
	Host     string
	HostPort int
}

// Target is the destination as host:port.
func (f Forward) Target() string { return net.JoinHostPort(f.Host, strconv.Itoa(f.HostPort)) }

// ParseForward reads [bind:]port:host:hostport, as -L and -R of ssh have it.
// IPv6 addresses stand in brackets. The error is trace.BadParameter.
func ParseForward(text string) (Forward, error) {
	fields, err := splitColons(text)
	if err == nil && len(fields) == 3 {
		fields = append([]string{""}, fields...)
	}
	if err != nil || len(fields) != 4 || fields[2] == "" {
		return Forward{}, trace.BadParameter("%q is not a forward: give it as [BIND:]PORT:HOST:HOSTPORT", text)
	}
	port, err := parsePort(fields[1], 0)
	if err != nil {
		return Forward{}, trace.BadParameter("the forward %q: %v", text, err)
	}
	hostPort, err := parsePort(fields[3], 1)
	if err != nil {
		return Forward{}, trace.BadParameter("the forward %q: %v", text, err)
	}
	return Forward{Bind: bindOf(text, fields[0]), Port: port, Host: fields[2], HostPort: hostPort}, nil
}

// ParseDynamic reads [bind:]port, as -D of ssh has it.
func ParseDynamic(text string) (Forward, error) {
	fields, err := splitColons(text)
	if err == nil && len(fields) == 1 {
		fields = append([]string{""}, fields...)
	}
	if err != nil || len(fields) != 2 {
		return Forward{}, trace.BadParameter("%q is not a forward: give it as [BIND:]PORT", text)
	}
	port, err := parsePort(fields[1], 0)
	if err != nil {
		return Forward{}, trace.BadParameter("the forward %q: %v", text, err)
	}
	return Forward{Bind: bindOf(text, fields[0]), Port: port}, nil
}

// bindOf tells ":8080:..." from "8080:...": as with ssh, the first is every
// address.
func bindOf(text, bind string) string {
	if bind == "" && strings.HasPrefix(text, ":") {
		return "*"
	}
	return bind
}

// splitColons splits at colons outside of brackets, and takes the brackets away.
func splitColons(text string) ([]string, error) {
	var fields []string
	for {
		if rest, ok := strings.CutPrefix(text, "["); ok {
			inside, after, ok := strings.Cut(rest, "]")
			if !ok || after != "" && after[0] != ':' {
				return nil, trace.BadParameter("a bracket is not closed")
			}
			fields = append(fields, inside)
			if after == "" {
				return fields, nil
			}
			text = after[1:]
			continue
		}
		field, rest, more := strings.Cut(text, ":")
		fields = append(fields, field)
		if !more {
			return fields, nil
		}
		text = rest
	}
}

func parsePort(text string, least int) (int, error) {
	port, err := strconv.Atoi(text)
	if err != nil || port < least || port > 65535 {
		return 0, trace.BadParameter("%q is not a port", text)
	}
	return port, nil
}

// Forwarder serves the forwards of one connection to a node.
type Forwarder struct {
	client *ssh.Client
	// say tells the user about one connection that could not be made.
	say func(format string, args ...any)

	mu        sync.Mutex
	listeners []net.Listener
	remote    map[remoteBind]Forward
	incoming  sync.Once
}

// remoteBind is what the node calls a port that listens there.
type remoteBind struct {
	addr string
	port uint32
}

// NewForwarder returns a Forwarder without forwards. say is called, from several
// goroutines, with what the user should know.
func NewForwarder(client *ssh.Client, say func(format string, args ...any)) *Forwarder {
	return &Forwarder{client: client, say: say, remote: make(map[remoteBind]Forward)}
}

// Close stops listening on this host. The node stops with the connection.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, listener := range f.listeners {
		_ = listener.Close()
	}
	f.listeners = nil
	return nil
}

// Local listens on this host and connects from the node (-L). It returns the
// port.
func (f *Forwarder) Local(forward Forward) (int, error) {
	return f.listen(forward, func(conn net.Conn) {
		f.connect(conn, forward.Target(), func(bool) error { return nil })
	})
}

// Dynamic listens on this host for clients that speak SOCKS 5, and connects them
// from the node (-D). It returns the port.
func (f *Forwarder) Dynamic(forward Forward) (int, error) {
	return f.listen(forward, func(conn net.Conn) {
		target, err := socksRequest(conn)
		if err != nil {
			f.say("A client of -D %d was refused: %v", forward.Port, err)
			_ = conn.Close()
			return
		}
		f.connect(conn, target, func(connected bool) error { return socksReply(conn, connected) })
	})
}

// listen serves all addresses of forward with handle. Loopback is both of IPv4's
// and IPv6's, where the host has both.
func (f *Forwarder) listen(forward Forward, handle func(net.Conn)) (int, error) {
	hosts := []string{forward.Bind}
	switch forward.Bind {
	case "", "localhost":
		hosts = []string{"127.0.0.1", "::1"}
	case "*":
		hosts = []string{""}
	}
	port := forward.Port
	var listeners []net.Listener
	for i, host := range hosts {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			if i > 0 && !isInUse(err) {
				continue // a host without IPv6
			}
			for _, opened := range listeners {
				_ = opened.Close()
			}
			return 0, trace.ConnectionProblem(nil, "cannot listen at port %d of this host: %s", forward.Port, dialReason(context.Background(), err))
		}
		port = listener.Addr().(*net.TCPAddr).Port
		listeners = append(listeners, listener)
	}
	f.mu.Lock()
	f.listeners = append(f.listeners, listeners...)
	f.mu.Unlock()
	for _, listener := range listeners {
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						f.say("No longer listening at %v: %v", listener.Addr(), err)
					}
					return
				}
				go handle(conn)
			}
		}()
	}
	return port, nil
}

// connect joins conn with what the node connects to. connected is told before
// the first byte.
func (f *Forwarder) connect(conn net.Conn, target string, connected func(bool) error) {
	defer conn.Close()
	remote, err := f.client.Dial("tcp", target)
	if err != nil {
		reason := err.Error()
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			reason = refused.Message
		}
		_ = connected(false)
		f.say("The node does not connect to %s: %s", Clean(target), Clean(reason))
		return
	}
	defer remote.Close()
	if err := connected(true); err != nil {
		return
	}
	Join(conn, remote)
}

// Remote has the node listen, and connects from this host (-R). It returns the
// port.
func (f *Forwarder) Remote(forward Forward) (int, error) {
	var err error
	f.incoming.Do(func() {
		channels := f.client.HandleChannelOpen("forwarded-tcpip")
		if channels == nil {
			err = trace.AlreadyExists("forwarded connections are taken already")
			return
		}
		go f.acceptRemote(channels)
	})
	if err != nil {
		return 0, trace.Wrap(err)
	}
	bind := forward.Bind
	switch bind { // RFC 4254, section 7.1
	case "":
		bind = "localhost"
	case "*":
		bind = ""
	}
	// The node may connect before its answer is here.
	f.mu.Lock()
	defer f.mu.Unlock()
	ok, answer, err := f.client.SendRequest("tcpip-forward", true, ssh.Marshal(struct {
		Addr string
		Port uint32
	}{bind, uint32(forward.Port)}))
	if err != nil {
		return 0, trace.ConnectionProblem(nil, "the connection to the node ended: %s", dialReason(context.Background(), err))
	}
	if !ok {
		return 0, trace.AccessDenied("the node does not listen at port %d for -R", forward.Port)
	}
	port := uint32(forward.Port)
	if port == 0 {
		var allocated struct{ Port uint32 }
		if err := ssh.Unmarshal(answer, &allocated); err != nil {
			return 0, trace.BadParameter("the node does not say at which port it listens")
		}
		port = allocated.Port
	}
	f.remote[remoteBind{bind, port}] = forward
	return int(port), nil
}

func (f *Forwarder) acceptRemote(channels <-chan ssh.NewChannel) {
	for channel := range channels {
		go func() {
			var opened struct { // RFC 4254, section 7.2
				Addr       string
				Port       uint32
				OriginAddr string
				OriginPort uint32
			}
			if err := ssh.Unmarshal(channel.ExtraData(), &opened); err != nil {
				_ = channel.Reject(ssh.Prohibited, "the request is malformed")
				return
			}
			forward, ok := f.find(opened.Addr, opened.Port)
			if !ok {
				_ = channel.Reject(ssh.Prohibited, "nothing was forwarded from there")
				return
			}
			conn, err := net.DialTimeout("tcp", forward.Target(), dialTimeout)
			if err != nil {
				_ = channel.Reject(ssh.ConnectionFailed, "the client cannot connect to its destination")
				f.say("Cannot connect to %s for -R: %s", Clean(forward.Target()), dialReason(context.Background(), err))
				return
			}
			defer conn.Close()
			stream, requests, err := channel.Accept()
			if err != nil {
				return
			}
			defer stream.Close()
			go ssh.DiscardRequests(requests)
			Join(conn, stream)
		}()
	}
}

// find returns the forward that a connection belongs to: nothing is connected on
// this host that was not asked for.
func (f *Forwarder) find(addr string, port uint32) (Forward, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if forward, ok := f.remote[remoteBind{addr, port}]; ok {
		return forward, true
	}
	// Some servers name the address that they made of the one that was asked for.
	var found []Forward
	for bind, forward := range f.remote {
		if bind.port == port {
			found = append(found, forward)
		}
	}
	if len(found) != 1 {
		return Forward{}, false
	}
	return found[0], true
}

// Join copies between two streams until both directions have ended, and hands on
// the end of each by itself.
func Join(a, b io.ReadWriteCloser) {
	var copies sync.WaitGroup
	pass := func(to, from io.ReadWriteCloser) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
			return
		}
		_, _ = to.Close(), from.Close()
	}
	copies.Go(func() { pass(a, b) })
	copies.Go(func() { pass(b, a) })
	copies.Wait()
}

// Describe is a forward as the user wrote it.
func (f Forward) Describe() string {
	bind := ""
	if f.Bind != "" {
		bind = f.Bind + ":"
	}
	if f.Host == "" {
		return fmt.Sprintf("%s%d", bind, f.Port)
	}
	return fmt.Sprintf("%s%d:%s", bind, f.Port, f.Target())
}

// Pipe joins a stream with a program's input and output, until the stream has
// ended. The end of the input is handed on.
func Pipe(stream net.Conn, stdin io.Reader, stdout io.Writer) error {
	defer stream.Close()
	go func() {
		_, err := io.Copy(stream, stdin)
		if half, ok := stream.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
			return
		}
		_ = stream.Close()
	}()
	_, err := io.Copy(stdout, stream)
	return trace.Wrap(err, "the connection to the node ended")
}
