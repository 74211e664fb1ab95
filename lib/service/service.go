// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package service is the daemon: it starts the roles that a configuration
// enables, keeps them together, and ends them in order.
//
// A program that only runs the daemon needs one call. Run starts everything,
// follows the signals, and returns when all has ended:
//
//	signals := make(chan os.Signal, 4)
//	signal.Notify(signals, service.Signals()...)
//	err := service.Run(ctx, service.Config{Settings: cfg, Log: log, ReopenLog: log.Reopen}, signals)
//
// A program that embeds the daemon calls New, Start and, in the end, Close, and
// waits for what it needs in between; Wait tells it of a service that has failed:
//
//	process, err := service.New(ctx, service.Config{Settings: cfg, Log: log})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	defer process.Close()
//	process.Start()
//	_, err = process.WaitForEvent(ctx, service.TeleportReadyEvent)
//
// # Order
//
// Services start in the order auth, proxy, node, and end in the reverse of it.
// Before the first one starts everything is opened that can fail for a reason
// that an operator must mend: listeners, the data directory, the certificate
// authorities. The queue of audit records is closed last, so that what the
// others had to say still goes out.
package service

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/config"
	"teleport-auditd/lib/srv/books"
	"teleport-auditd/lib/version"
)

// What a process does in its life. Events stay: who waits for one that has
// come already goes on at once.
const (
	// AuthReady comes when the cluster is open.
	AuthReady = "AuthReady"
	// AuthTLSReady comes when the auth service takes connections. Its payload is
	// the net.Addr that it listens on.
	AuthTLSReady = "AuthTLSReady"
	// ProxyWebReady comes when the proxy serves HTTPS, and
	// ProxyReverseTunnelReady when it takes nodes that dial out. Their payloads
	// are the net.Addr that they listen on.
	ProxyWebReady           = "ProxyWebReady"
	ProxyReverseTunnelReady = "ProxyReverseTunnelReady"
	// ProxySSHReady comes when the proxy takes connections. Its payload is the
	// net.Addr that it listens on.
	ProxySSHReady = "ProxySSHReady"
	// NodeSSHReady comes when the node takes connections and has registered, or
	// has tried to for some seconds. Its payload is the net.Addr that it listens on.
	NodeSSHReady = "NodeSSHReady"
	// TeleportReadyEvent comes when every enabled role is ready.
	TeleportReadyEvent = "TeleportReady"
)

const (
	// closeTimeout is how long sessions and whatever else runs have to end.
	// Together with auditCloseTimeout it stays below the 10 s that a service
	// manager's stop may take.
	closeTimeout = 7 * time.Second
	// authCloseTimeout is how long calls of others may take to end, and
	// eventsCloseTimeout how long events may take to be sent: both are parts of
	// closeTimeout.
	authCloseTimeout   = time.Second
	eventsCloseTimeout = time.Second
	// auditCloseTimeout is how long audit records that still wait may take to
	// go out.
	auditCloseTimeout = 2 * time.Second
	// auditPoll is how often the kernel is asked whether auditing was switched
	// on or off.
	auditPoll = 2 * time.Second
)

// Config is what New needs.
type Config struct {
	// Settings is a configuration that has passed CheckAndSetDefaults.
	Settings *config.Config
	// Log takes every line. Its level and output are the caller's, see OpenLog.
	Log logrus.FieldLogger
	// ReopenLog is called at SIGHUP. Nil has nothing to open again.
	ReopenLog func() error
	// Clock is the real one where it is nil.
	Clock clockwork.Clock
	// Emitter writes audit records, and belongs to the Process from New on,
	// which closes it also where it fails.
	// Nil picks what Settings.AuditMode and this kernel allow.
	Emitter auditd.Emitter
	// SessionProgram is the absolute path of teleport-session. Empty looks
	// beside the running program.
	SessionProgram string
	// UserProgram is the absolute path of teleport-user. Empty looks beside
	// SessionProgram.
	UserProgram string
}

// CheckAndSetDefaults fills in what was left out.
func (c *Config) CheckAndSetDefaults() error {
	if c.Settings == nil {
		return trace.BadParameter("service.Config has no Settings: use config.Default or config.ReadFile")
	}
	if c.Log == nil {
		return trace.BadParameter("service.Config has no Log: use service.OpenLog")
	}
	if c.ReopenLog == nil {
		c.ReopenLog = func() error { return nil }
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	return nil
}

// Process is one daemon.
type Process struct {
	*supervisor
	settings       *config.Config
	log            logrus.FieldLogger
	clock          clockwork.Clock
	reopenLog      func() error
	sessionProgram string
	userProgram    string

	emitter *auditd.Queue
	dataDir *dataDir
	pidFile *pidFile
	// auth is nil without the auth role. The other roles only take their
	// certificates from it, and reach it as they would anywhere, at authAddrs.
	auth      *auth.Server
	authAddrs []string
	hostUUID  string
	// members are those of the roles that belong to a cluster.
	members []*member
	// reload is what SIGHUP asks for beside the log.
	reload []func() error
}

// New opens all that the enabled roles need, and starts nothing yet. A host that
// joins waits in it for an auth server to answer, until ctx ends. Every error is
// one line that an operator can act on.
func New(ctx context.Context, cfg Config) (_ *Process, err error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	p := &Process{
		supervisor:     newSupervisor(cfg.Log, cfg.Clock),
		settings:       cfg.Settings,
		log:            cfg.Log,
		clock:          cfg.Clock,
		reopenLog:      cfg.ReopenLog,
		sessionProgram: cfg.SessionProgram,
		userProgram:    cfg.UserProgram,
	}
	var listeners *listeners
	defer func() {
		if err == nil {
			return
		}
		listeners.close()
		if p.emitter == nil && cfg.Emitter != nil {
			err = together(err, cfg.Emitter.Close())
		}
		err = together(err, p.Close())
	}()

	// What is only looked at comes first, so that a start that fails leaves
	// little behind.
	if p.settings.SSH.Enabled {
		if err := p.checkNode(); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	if listeners, err = p.listen(); err != nil {
		return nil, trace.Wrap(err)
	}
	p.log.Infof("%s starts on %s, with the roles %s.", version.Line(), p.settings.NodeName, strings.Join(p.settings.Roles(), ", "))
	if p.settings.SSH.Enabled {
		p.warnOfLimits(os.Geteuid(), auditd.ReadLoginUID)
		p.warnOfProgram()
	}
	if p.dataDir, err = openDataDir(p.settings.DataDir); err != nil {
		return nil, trace.Wrap(err)
	}
	if p.hostUUID, err = p.dataDir.hostUUID(); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := p.openAudit(cfg.Emitter); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := p.initRoles(ctx, listeners); err != nil {
		return nil, trace.Wrap(err)
	}
	if p.settings.PIDFile != "" {
		if p.pidFile, err = writePIDFile(p.settings.PIDFile); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	return p, nil
}

func (p *Process) initRoles(ctx context.Context, listeners *listeners) error {
	p.authAddrs = p.settings.AuthServers
	if p.settings.ProxyServer != "" {
		p.authAddrs = []string{p.settings.ProxyServer}
	}
	var ready []string
	if p.settings.Auth.Enabled {
		if err := p.initAuth(ctx, listeners); err != nil {
			return trace.Wrap(err)
		}
		ready = append(ready, AuthTLSReady)
	}
	if p.settings.Proxy.Enabled {
		if err := p.initProxy(ctx, listeners); err != nil {
			return trace.Wrap(err)
		}
		ready = append(ready, ProxyReverseTunnelReady, ProxyWebReady, ProxySSHReady)
	}
	if p.settings.SSH.Enabled {
		if err := p.initNode(ctx, listeners.node); err != nil {
			return trace.Wrap(err)
		}
		ready = append(ready, NodeSSHReady)
	}
	p.mapEvents(TeleportReadyEvent, ready...)
	return nil
}

// openAudit makes the one way to the kernel that node and proxy share, with a
// queue before it: a stuck auditd must not delay a handshake.
func (p *Process) openAudit(emitter auditd.Emitter) error {
	log := p.log.WithField("component", "auditd")
	if emitter == nil {
		var err error
		emitter, err = auditd.New(auditd.Config{
			Mode:  p.settings.AuditMode,
			Poll:  auditPoll,
			Log:   log,
			Clock: p.clock,
		})
		if err != nil {
			return trace.Wrap(err)
		}
		if os.Geteuid() == 0 {
			emitter = books.Emitter{Emitter: emitter, Books: books.Host(), PID: os.Getpid(), Trouble: p.sayOnce("node")}
		}
	}
	queue, err := auditd.NewQueue(auditd.QueueConfig{
		Emitter:      emitter,
		CloseTimeout: auditCloseTimeout,
		Log:          log,
		Clock:        p.clock,
	})
	if err != nil {
		return together(err, emitter.Close())
	}
	p.emitter = queue
	return nil
}

// sayOnce returns what logs a trouble that comes with every login once, until
// there is another.
func (p *Process) sayOnce(component string) func(error) {
	last := ""
	return func(err error) {
		if text := err.Error(); text != last {
			last = text
			p.log.WithField("component", component).Warnf("The host's books of logins are not complete: %v", err)
		}
	}
}

// Start starts every service. It returns at once: WaitForEvent says when they
// are ready, and Wait when one of them has ended.
func (p *Process) Start() {
	p.start()
}

// Drain stops listening and waits until the sessions have ended by themselves.
// ctx bounds the wait. Close must still be called.
func (p *Process) Drain(ctx context.Context) error {
	return trace.Wrap(p.drain(ctx))
}

// Close ends every session and service, within 10 s, and gives back what New
// has opened. It must be called once, and also after Drain.
func (p *Process) Close() error {
	errs := []error{p.close(closeTimeout)}
	if p.emitter != nil {
		errs = append(errs, p.emitter.Close())
	}
	if p.auth != nil {
		errs = append(errs, p.auth.Close())
	}
	if p.pidFile != nil {
		errs = append(errs, p.pidFile.remove())
	}
	if p.dataDir != nil {
		errs = append(errs, p.dataDir.close())
	}
	return together(errs...)
}

// sshServer is what node and proxy have in common.
type sshServer interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// sshRole is an SSH server as a service.
type sshRole struct {
	name, ready string
	server      sshServer
	listener    net.Listener
	// begin waits until there is something to serve by, and returns false where
	// ctx has ended. Nil has nothing to wait for.
	begin func(ctx context.Context) bool
	// settle waits, while it serves already, until it may be called ready.
	settle func(ctx context.Context)
}

// serveSSH registers an SSH server, with the event that it is ready.
func (p *Process) serveSSH(role sshRole) {
	p.register(service{
		name: role.name,
		serve: func(ctx context.Context) error {
			if role.begin != nil && !role.begin(ctx) {
				return nil
			}
			p.log.WithField("component", role.name).Infof("The %s listens on %s.", role.name, role.listener.Addr())
			go func() {
				if role.settle != nil {
					role.settle(ctx)
				}
				if ctx.Err() == nil {
					p.BroadcastEvent(Event{Name: role.ready, Payload: role.listener.Addr()})
				}
			}()
			return role.server.Serve(role.listener)
		},
		drain: role.server.Shutdown,
		// Serve has closed its listener, if it was ever called.
		close: func() error { return together(role.server.Close(), closeListener(role.listener)) },
	})
}

// executable is the running program's path, which names what stands beside it.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", trace.Errorf("the path of the running program cannot be found (%v): is /proc mounted?", err)
	}
	return path, nil
}
