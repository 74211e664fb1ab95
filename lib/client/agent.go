// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The user's ssh-agent.

package client

import (
	"net"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh/agent"
)

// agentTimeout is how long an agent may take, which may have to ask its user.
const agentTimeout = 10 * time.Second

// Agent is a connection to an ssh-agent.
type Agent struct {
	agent.ExtendedAgent
	conn net.Conn
}

// OpenAgent connects to the agent at socket, which is the value of
// SSH_AUTH_SOCK.
func OpenAgent(socket string) (*Agent, error) {
	conn, err := net.DialTimeout("unix", socket, agentTimeout)
	if err != nil {
		return nil, trace.ConnectionProblem(err, "the ssh-agent at %s does not answer", Clean(socket))
	}
	return &Agent{ExtendedAgent: agent.NewClient(conn), conn: conn}, nil
}

// Close closes the connection.
func (a *Agent) Close() error { return a.conn.Close() }

// limit gives the agent its time for what follows. Without it an agent that
// hangs would hang the login.
func (a *Agent) limit() { _ = a.conn.SetDeadline(time.Now().Add(agentTimeout)) }

func agentPrefix(proxy string) string { return "teleport:" + proxy + ":" }

// agentComment says whose key it is, to who lists them and to Forget.
func agentComment(proxy, cluster, user string) string {
	return agentPrefix(proxy) + cluster + ":" + user
}

// Keep puts the key and the certificate of p into the agent until they expire,
// in place of those of an earlier login at the same proxy.
func (a *Agent) Keep(p *Profile, now time.Time) error {
	key, err := keys.LoadPrivateKey(p.UserSSHKeyPath())
	if err != nil {
		return trace.Wrap(err)
	}
	left := p.ValidUntil().Sub(now) / time.Second
	if left <= 0 {
		return trace.BadParameter("the login has expired")
	}
	if err := a.Forget(p.Name()); err != nil {
		return trace.Wrap(err)
	}
	a.limit()
	err = a.Add(agent.AddedKey{
		PrivateKey:   key.Signer,
		Certificate:  p.SSH,
		Comment:      agentComment(p.Name(), p.SiteName, p.Username),
		LifetimeSecs: uint32(min(left, time.Duration(^uint32(0)))),
	})
	return trace.Wrap(err, "the ssh-agent does not take the key")
}

// Forget takes away what Keep put there for logins at a proxy, which is a
// profile's name.
func (a *Agent) Forget(proxy string) error {
	a.limit()
	held, err := a.List()
	if err != nil {
		return trace.Wrap(err, "the ssh-agent does not list its keys")
	}
	for _, key := range held {
		if !strings.HasPrefix(key.Comment, agentPrefix(proxy)) {
			continue
		}
		if err := a.Remove(key); err != nil {
			return trace.Wrap(err, "the ssh-agent does not remove a key")
		}
	}
	return nil
}

// keyring is an agent of this process that holds the login's key alone.
func (p *Profile) keyring() (agent.Agent, error) {
	key, err := keys.LoadPrivateKey(p.UserSSHKeyPath())
	if err != nil {
		return nil, trace.Wrap(err)
	}
	ring := agent.NewKeyring()
	err = ring.Add(agent.AddedKey{PrivateKey: key.Signer, Certificate: p.SSH, Comment: agentComment(p.Name(), p.SiteName, p.Username)})
	return ring, trace.Wrap(err)
}
