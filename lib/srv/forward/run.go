// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What runs as the user. teleport-session starts it, after it has become the user
// of a login, with one end of a SOCK_SEQPACKET socket pair as descriptor 0. It may
// do what the user may. It takes requests from the daemon alone, and ends when the
// daemon closes its end, or on SIGHUP and SIGTERM, which a login's processes get
// at its end.

package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"teleport-auditd/lib/srv/seqpacket"
)

const (
	// acceptPause is the time to the next try where accept(2) has failed for
	// want of descriptors or memory.
	acceptPause = 100 * time.Millisecond
	// portTries is how often a port is looked for that is free on all addresses.
	portTries = 10
	// socketMask keeps others from the sockets, as OpenSSH's StreamLocalBindMask
	// does.
	socketMask = 0o177
)

// Run serves the daemon on descriptor 0 until it closes its end. It returns the
// exit code: 0, 1 for what went wrong, 2 where it was not the daemon that
// started it.
func Run() int {
	kind, err := unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		fmt.Fprintln(os.Stderr, "ERROR: forward is started by teleport for a login's forwarding; run teleport start instead")
		return 2
	}
	// What else runs as the user may not look into this process, as with ssh-agent.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 1
	}
	unix.Umask(socketMask)
	// It has little to do, and lives as long as its login.
	debug.SetGCPercent(20)
	socket, err := seqpacket.Conn(0)
	if err != nil {
		return 1
	}
	// Nothing that is opened later becomes the standard input.
	if err := unix.Dup3(1, 0, 0); err != nil {
		return 1
	}
	p := newProcess(socket)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT)
	go func() {
		<-signals
		_ = socket.CloseRead()
	}()
	err = p.serve()
	p.end()
	if err != nil {
		return 1
	}
	return 0
}

// process is this process.
type process struct {
	socket *net.UnixConn

	mu sync.Mutex
	// pending are the requests that were not answered, with what ends them.
	pending   map[uint32]context.CancelFunc
	listeners map[uint32]*listeners
	ended     bool
}

// listeners are those of one request.
type listeners struct {
	all []net.Listener
	// dir was made for them, empty for none.
	dir string
}

func (l *listeners) close() {
	for _, one := range l.all {
		// A socket's file is removed with it.
		_ = one.Close()
	}
	if l.dir != "" {
		_ = os.Remove(l.dir)
	}
}

func newProcess(socket *net.UnixConn) *process {
	return &process{
		socket:    socket,
		pending:   make(map[uint32]context.CancelFunc),
		listeners: make(map[uint32]*listeners),
	}
}

// serve carries out requests until there are no more.
func (p *process) serve() error {
	for {
		body, fds, err := seqpacket.Receive(p.socket, maxMessage+1, 0)
		seqpacket.CloseAll(fds)
		if err != nil || body == nil {
			return err
		}
		m, err := decode(body)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *dial:
			ctx := p.begin(m.ID)
			go p.dial(ctx, m)
		case *listen:
			ctx := p.begin(m.ID)
			go p.listen(ctx, m)
		case *cancel:
			p.cancel(m.ID)
		default:
			return errMalformed
		}
	}
}

func (p *process) begin(id uint32) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), DialTimeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending[id] = cancel
	return ctx
}

// finish forgets a request that is about to be answered, and keeps its listeners,
// if it has any and is still wanted.
func (p *process) finish(ctx context.Context, id uint32, l *listeners) (wanted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted = ctx.Err() == nil && !p.ended
	if wanted && l != nil {
		p.listeners[id] = l
	}
	p.pending[id]()
	delete(p.pending, id)
	return wanted
}

func (p *process) cancel(id uint32) {
	p.mu.Lock()
	if stop, ok := p.pending[id]; ok {
		stop()
	}
	l := p.listeners[id]
	delete(p.listeners, id)
	p.mu.Unlock()
	if l != nil {
		l.close()
		_ = p.send(&closed{ID: id}, nil)
	}
}

// end leaves nothing behind.
func (p *process) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, l := range p.listeners {
		l.close()
	}
}

// send sends a message, with a connection's descriptor where there is one. What
// cannot be sent reaches nobody: the daemon has gone.
func (p *process) send(m message, conn syscall.Conn) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if conn == nil {
		_, _, err = p.socket.WriteMsgUnix(b, nil, nil)
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		rights := unix.UnixRights(int(fd))
		for range 100 {
			_, _, inner = p.socket.WriteMsgUnix(b, rights, nil)
			// The kernel bounds the descriptors of a user that are on their
			// way: the daemon takes them any moment.
			if !errors.Is(inner, unix.ETOOMANYREFS) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return errors.Join(err, inner)
}

// pass hands a connection over to the daemon.
func (p *process) pass(m message, conn net.Conn) error {
	defer conn.Close()
	c, ok := conn.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	return p.send(m, c)
}

// filePath keeps a path that begins with @ from being taken for a name in the
// abstract namespace.
func filePath(path string) string {
	if path[0] == '@' {
		return "./" + path
	}
	return path
}

func (p *process) dial(ctx context.Context, m *dial) {
	conn, err := connect(ctx, m)
	p.finish(ctx, m.ID, nil)
	if err == nil {
		err = p.pass(&connected{ID: m.ID}, conn)
	}
	if err != nil {
		_ = p.send(failure(m.ID, err), nil)
	}
}

func connect(ctx context.Context, m *dial) (net.Conn, error) {
	var dialer net.Dialer
	dialer.SetMultipathTCP(false)
	switch m.Network {
	case TCP:
		if CheckHost(m.Address) == "" {
			return dialer.DialContext(ctx, "tcp", net.JoinHostPort(m.Address, port(m.Port)))
		}
	case Unix:
		if CheckPath(m.Address) == "" {
			return dialer.DialContext(ctx, "unix", filePath(m.Address))
		}
	}
	return nil, unix.EINVAL
}

func port(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// failure tells the daemon why a request came to nothing.
func failure(id uint32, err error) *failed {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return &failed{ID: id, Reason: reasonNoName}
		}
		return &failed{ID: id, Reason: reasonLookup}
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return &failed{ID: id, Reason: reasonErrno, Errno: uint32(e)}
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return &failed{ID: id, Reason: reasonTimeout}
	}
	return &failed{ID: id, Reason: reasonOther}
}

func (p *process) listen(ctx context.Context, m *listen) {
	answer := &listening{ID: m.ID}
	l, err := bind(ctx, m, answer)
	wanted := p.finish(ctx, m.ID, l)
	if err == nil && !wanted {
		l.close()
		err = context.Canceled
	}
	if err != nil {
		_ = p.send(failure(m.ID, err), nil)
		return
	}
	if p.send(answer, nil) != nil {
		return
	}
	for _, one := range l.all {
		go p.accept(m.ID, one)
	}
}

// bind makes the listeners of a request, and completes its answer.
func bind(ctx context.Context, m *listen, answer *listening) (*listeners, error) {
	switch m.Network {
	case TCP:
		addrs, err := lookup(ctx, m.Addresses)
		if err != nil {
			return nil, err
		}
		for try := 1; ; try++ {
			l, n, err := bindAll(ctx, addrs, m.Port)
			if err == nil {
				answer.Port = n
				return l, nil
			}
			// A port that the kernel picked for one address may be taken on
			// the next.
			if m.Port != 0 || try == portTries || !errors.Is(err, unix.EADDRINUSE) {
				return nil, err
			}
		}
	case Unix:
		if len(m.Addresses) != 1 || CheckPath(m.Addresses[0]) != "" {
			return nil, unix.EINVAL
		}
		one, err := net.Listen("unix", filePath(m.Addresses[0]))
		if err != nil {
			return nil, err
		}
		return &listeners{all: []net.Listener{one}}, nil
	case Agent:
		// Where ssh-agent has its own; the name cannot be guessed.
		dir, err := os.MkdirTemp("/tmp", "ssh-")
		if err != nil {
			return nil, err
		}
		// The mask has left the folder without permission to enter it.
		err = os.Chmod(dir, 0o700)
		answer.Path = filepath.Join(dir, "agent."+strconv.Itoa(os.Getpid()))
		var one net.Listener
		if err == nil {
			one, err = net.Listen("unix", answer.Path)
		}
		if err != nil {
			_ = os.Remove(dir)
			return nil, err
		}
		return &listeners{all: []net.Listener{one}, dir: dir}, nil
	}
	return nil, unix.EINVAL
}

// lookup returns the addresses that hosts stand for.
func lookup(ctx context.Context, hosts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, host := range hosts {
		if CheckHost(host) != "" {
			return nil, unix.EINVAL
		}
		// The resolver makes two addresses of "::".
		if addr, err := netip.ParseAddr(host); err == nil {
			addrs = append(addrs, addr)
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, found...)
	}
	return addrs, nil
}

// bindAll listens on one port of all addresses but those of a family that this
// host does not have.
func bindAll(ctx context.Context, addrs []netip.Addr, n uint32) (*listeners, uint32, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l := new(listeners)
	var missing error
	for _, addr := range addrs {
		network := "tcp6"
		addr = addr.Unmap()
		if addr.Is4() {
			network = "tcp4"
		}
		one, err := config.Listen(ctx, network, net.JoinHostPort(addr.String(), port(n)))
		if len(addrs) > 1 && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			missing = err
			continue
		}
		if err != nil {
			l.close()
			return nil, 0, err
		}
		l.all = append(l.all, one)
		if tcp, ok := one.Addr().(*net.TCPAddr); ok {
			n = uint32(tcp.Port)
		}
	}
	if len(l.all) == 0 {
		return nil, 0, errors.Join(unix.EADDRNOTAVAIL, missing)
	}
	return l, n, nil
}

// accept passes connections on until the listener is closed.
func (p *process) accept(id uint32, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		m := &accepted{ID: id}
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			m.Address, m.Port = tcp.AddrPort().Addr().Unmap().String(), uint32(tcp.Port)
		}
		if errors.Is(p.pass(m, conn), unix.EPIPE) {
			return
		}
	}
}
