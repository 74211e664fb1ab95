// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tsh ssh.

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"sync"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"teleport-auditd/lib/cli"
	"teleport-auditd/lib/client"
)

// maxPort is the largest port. 0, also without the flag, is whichever a node has.
const maxPort = 65535

// maxNodesAtOnce is on how many nodes a command runs at the same time.
const maxNodesAtOnce = 20

type sshCommand struct {
	clause                 *kingpin.CmdClause
	local, remote, dynamic []string
	forwardAgent           bool
	noCommand, terminal    bool
	port                   int
	login, target          string
	command                []string
}

func newSSHCommand(app *kingpin.Application) *sshCommand {
	c := &sshCommand{clause: app.Command("ssh", "Open a shell at a node, or run a command there.")}
	c.clause.Flag("forward-agent", "Let the node use the ssh-agent of this host, or the key of the login where there is none.").Short('A').BoolVar(&c.forwardAgent)
	c.clause.Flag("local-forward", "Listen here, connect from the node: [BIND:]PORT:HOST:HOSTPORT.").Short('L').PlaceHolder("FORWARD").StringsVar(&c.local)
	c.clause.Flag("remote-forward", "Listen at the node, connect from here: [BIND:]PORT:HOST:HOSTPORT.").Short('R').PlaceHolder("FORWARD").StringsVar(&c.remote)
	c.clause.Flag("dynamic-forward", "Listen here for SOCKS 5, connect from the node: [BIND:]PORT.").Short('D').PlaceHolder("FORWARD").StringsVar(&c.dynamic)
	c.clause.Flag("no-remote-exec", "Run no command: forward ports alone.").Short('N').BoolVar(&c.noCommand)
	cli.Repeatable(c.clause.Flag("tty", "Ask for a terminal, also for a command.").Short('t'), &c.terminal)
	cli.Number(c.clause.Flag("port", "Port that the node registered. Without it, whichever that is.").Short('p').PlaceHolder("PORT"), &c.port, "a port", 0, maxPort)
	c.clause.Flag("login", "Login at the node. Without it, the name on this host.").Short('l').PlaceHolder("LOGIN").StringVar(&c.login)
	c.clause.Arg("node", "[LOGIN@]NODE: a name, a UUID, an address, or labels as key=value,...").Required().StringVar(&c.target)
	c.clause.Arg("command", "What to run in place of a shell.").StringsVar(&c.command)
	return c
}

func (c *sshCommand) clauseName() string { return c.clause.FullCommand() }

// forwards are the options of forwarding, read.
type forwards struct{ local, remote, dynamic []client.Forward }

func (c *sshCommand) forwards() (forwards, error) {
	var f forwards
	for _, kind := range []struct {
		texts []string
		parse func(string) (client.Forward, error)
		to    *[]client.Forward
	}{{c.local, client.ParseForward, &f.local}, {c.remote, client.ParseForward, &f.remote}, {c.dynamic, client.ParseDynamic, &f.dynamic}} {
		for _, text := range kind.texts {
			forward, err := kind.parse(text)
			if err != nil {
				return forwards{}, trace.Wrap(err)
			}
			*kind.to = append(*kind.to, forward)
		}
	}
	return f, nil
}

func (f forwards) none() bool { return len(f.local)+len(f.remote)+len(f.dynamic) == 0 }

func (c *sshCommand) run(ctx context.Context, t *tsh) error {
	// Users of Teleport's tsh, and of ssh, write "NODE -- COMMAND": it ends the
	// options, and is no part of the command.
	if len(c.command) > 0 && c.command[0] == "--" {
		c.command = c.command[1:]
	}
	forwards, err := c.forwards()
	if err != nil {
		return usageError{err}
	}
	if c.noCommand && len(c.command) > 0 {
		return usageError{trace.BadParameter("-N runs no command, and one was given")}
	}
	login, host := client.ParseLoginHost(c.target)
	if login != "" && c.login != "" && login != c.login {
		return usageError{trace.BadParameter("the login is %q with -l and %q before the node: give one", c.login, login)}
	}
	if host == "" {
		return usageError{trace.BadParameter("%q names no node: give it as [LOGIN@]NODE", c.target)}
	}
	if login == "" {
		login = c.login
	}
	p, err := t.profile()
	if err != nil {
		return trace.Wrap(err)
	}
	if login == "" {
		if login, err = defaultLogin(p); err != nil {
			return trace.Wrap(err)
		}
	}

	// They are the command's, once there is one. Before, they end tsh.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	nodes := []client.NodeAddr{{Login: login, Host: strings.Trim(host, "[]"), Port: c.port}}
	names := []string{host}
	if strings.Contains(host, "=") {
		if nodes, names, err = c.resolve(ctx, p, login, host); err != nil {
			return trace.Wrap(err)
		}
		if len(c.command) == 0 && len(nodes) > 1 {
			return usageError{trace.BadParameter("%d nodes have these labels (%s): give a command to run on all of them, or name one", len(nodes), some(names))}
		}
		if !forwards.none() && len(nodes) > 1 {
			return usageError{trace.BadParameter("%d nodes have these labels (%s): ports are forwarded to one", len(nodes), some(names))}
		}
	}
	connecting, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := untilSignal(signals, cancel, func() (*client.Conn, error) {
		return client.Dial(connecting, client.DialConfig{Profile: p, Login: login, Clock: t.clock, Banner: t.stderr, Refresh: t.refresh(p)})
	})
	if err != nil {
		return trace.Wrap(err)
	}
	defer conn.Close()
	if len(nodes) > 1 {
		return c.runOnAll(ctx, t, p, conn, nodes, names, signals)
	}
	node, err := untilSignal(signals, cancel, func() (*ssh.Client, error) { return conn.DialNode(connecting, nodes[0]) })
	if err != nil {
		return trace.Wrap(err)
	}
	defer node.Close()
	if err := c.offerAgent(t, p, node); err != nil {
		return trace.Wrap(err)
	}
	forwarder := client.NewForwarder(node, t.say)
	defer forwarder.Close()
	if err := start(t, forwarder, forwards); err != nil {
		return trace.Wrap(err)
	}
	if c.noCommand {
		return waitForEnd(ctx, node, signals)
	}
	session := client.Session{
		Command:      strings.Join(c.command, " "),
		Terminal:     c.terminal || len(c.command) == 0 && term.IsTerminal(int(t.stdin.Fd())),
		ForwardAgent: c.forwardAgent,
		Stdin:        t.stdin,
		Stdout:       t.stdout,
		Stderr:       t.stderr,
		Signals:      signals,
	}
	return session.Run(ctx, node)
}

// untilSignal calls f, and cancels it when a signal comes.
func untilSignal[T any](signals <-chan os.Signal, cancel func(), f func() (T, error)) (T, error) {
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case sig := <-signals:
				if sig != syscall.SIGUSR1 && sig != syscall.SIGUSR2 {
					cancel()
				}
			}
		}
	}()
	result, err := f()
	close(done)
	<-watched
	return result, err
}

// waitForEnd is -N: until the connection ends, or the user ends it.
func waitForEnd(ctx context.Context, node *ssh.Client, signals <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- node.Wait() }()
	for {
		select {
		case <-ctx.Done():
			return trace.Wrap(ctx.Err(), "interrupted")
		case err := <-ended:
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("the node closed it")
			}
			return trace.ConnectionProblem(nil, "the connection to the node ended: %v", err)
		case sig := <-signals:
			if sig == syscall.SIGUSR1 || sig == syscall.SIGUSR2 {
				continue
			}
			number, _ := sig.(syscall.Signal)
			return &client.ExitError{Status: 128 + int(number)}
		}
	}
}

// offerAgent serves the agent to the node's sessions, if the user wants that.
func (c *sshCommand) offerAgent(t *tsh, p *client.Profile, node *ssh.Client) error {
	if !c.forwardAgent {
		return nil
	}
	socket := t.getenv("SSH_AUTH_SOCK")
	if socket != "" {
		agent, err := client.OpenAgent(socket)
		if err != nil {
			t.say("WARNING: the key of the login is forwarded alone: %s", oneLine(trace.UserMessage(err)))
			socket = ""
		} else {
			_ = agent.Close()
		}
	}
	return client.ForwardAgent(node, p, socket)
}

// start starts all forwards, or fails: who asked for them relies on them.
func start(t *tsh, forwarder *client.Forwarder, f forwards) error {
	for _, kind := range []struct {
		option   string
		forwards []client.Forward
		start    func(client.Forward) (int, error)
	}{{"-L", f.local, forwarder.Local}, {"-R", f.remote, forwarder.Remote}, {"-D", f.dynamic, forwarder.Dynamic}} {
		for _, forward := range kind.forwards {
			port, err := kind.start(forward)
			if err != nil {
				return trace.Wrap(err)
			}
			if forward.Port == 0 {
				t.say("Port %d was allocated for %s %s", port, kind.option, forward.Describe())
			}
		}
	}
	return nil
}

// defaultLogin is the name on this host where the certificate has it, or the
// only login that it has.
func defaultLogin(p *client.Profile) (string, error) {
	current, err := user.Current()
	if err == nil {
		for _, login := range p.Logins() {
			if login == current.Username {
				return login, nil
			}
		}
	}
	if logins := p.Logins(); len(logins) == 1 {
		return logins[0], nil
	}
	if err != nil {
		return "", trace.BadParameter("the name of this user cannot be found: give a login with LOGIN@NODE")
	}
	return current.Username, nil
}

// resolve returns the nodes that have the labels, by UUID, and their names.
func (c *sshCommand) resolve(ctx context.Context, p *client.Profile, login, text string) (nodes []client.NodeAddr, names []string, err error) {
	labels, err := client.ParseLabels([]string{text})
	if err != nil {
		return nil, nil, usageError{err}
	}
	found, err := client.ListNodes(ctx, p, client.NodeFilter{Labels: labels})
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	if len(found) == 0 {
		return nil, nil, trace.NotFound("no node has the labels %s: see tsh ls", text)
	}
	for _, node := range found {
		nodes = append(nodes, client.NodeAddr{Login: login, Host: node.GetName(), Port: c.port})
		names = append(names, nodeName(node))
	}
	return nodes, names, nil
}

func nodeName(node types.Server) string {
	if name := node.GetHostname(); name != "" {
		return client.Clean(name)
	}
	return client.Clean(node.GetName())
}

// some is the first few of many names.
func some(names []string) string {
	const enough = 5
	if len(names) > enough {
		return strings.Join(names[:enough], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// runOnAll runs the command on each node, and returns the worst end of all.
func (c *sshCommand) runOnAll(ctx context.Context, t *tsh, p *client.Profile, conn *client.Conn, nodes []client.NodeAddr, names []string, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		output sync.Mutex
		result sync.Mutex
		worst  int
		group  errgroup.Group
	)
	group.SetLimit(maxNodesAtOnce)
	_, err := untilSignal(signals, cancel, func() (struct{}, error) {
		for i, node := range nodes {
			group.Go(func() error {
				prefix := "[" + names[i] + "] "
				stdout := &prefixed{to: t.stdout, prefix: prefix, lock: &output}
				stderr := &prefixed{to: t.stderr, prefix: prefix, lock: &output}
				err := c.runOn(ctx, t, p, conn, node, stdout, stderr)
				stdout.flush()
				stderr.flush()
				if err == nil {
					return nil
				}
				status := 1
				var exit *client.ExitError
				if errors.As(err, &exit) {
					status = exit.Status
				}
				if exit == nil || exit.Signal != "" {
					output.Lock()
					t.say("ERROR: %s: %s", names[i], oneLine(trace.UserMessage(err)))
					output.Unlock()
				}
				result.Lock()
				worst = max(worst, status)
				result.Unlock()
				return nil
			})
		}
		return struct{}{}, group.Wait()
	})
	if err != nil {
		return trace.Wrap(err)
	}
	if worst != 0 {
		return &client.ExitError{Status: worst}
	}
	return nil
}

func (c *sshCommand) runOn(ctx context.Context, t *tsh, p *client.Profile, conn *client.Conn, addr client.NodeAddr, stdout, stderr io.Writer) error {
	node, err := conn.DialNode(ctx, addr)
	if err != nil {
		return trace.Wrap(err)
	}
	defer node.Close()
	if err := c.offerAgent(t, p, node); err != nil {
		return trace.Wrap(err)
	}
	session := client.Session{
		Command:      strings.Join(c.command, " "),
		Terminal:     c.terminal,
		ForwardAgent: c.forwardAgent,
		Stdout:       stdout,
		Stderr:       stderr,
	}
	return session.Run(ctx, node)
}

// prefixed writes whole lines, each with a prefix.
type prefixed struct {
	to     io.Writer
	prefix string
	lock   *sync.Mutex
	rest   []byte
}

// maxLine is when a line is written before its end has come.
const maxLine = 64 << 10

func (p *prefixed) Write(text []byte) (int, error) {
	p.rest = append(p.rest, text...)
	end := bytes.LastIndexByte(p.rest, '\n') + 1
	if end == 0 && len(p.rest) > maxLine {
		p.rest = append(p.rest, '\n')
		end = len(p.rest)
	}
	if end == 0 {
		return len(text), nil
	}
	err := p.lines(p.rest[:end])
	p.rest = append(p.rest[:0], p.rest[end:]...)
	return len(text), err
}

func (p *prefixed) lines(text []byte) error {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		b.WriteString(p.prefix)
		b.Write(line)
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	_, err := p.to.Write(b.Bytes())
	return err
}

// flush writes a last line that has no end.
func (p *prefixed) flush() {
	if len(p.rest) > 0 {
		_ = p.lines(append(p.rest, '\n'))
		p.rest = nil
	}
}
