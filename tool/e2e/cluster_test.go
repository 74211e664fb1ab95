// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

const clusterPassword = "correct horse battery"

// cluster is several hosts: one of the auth service and a proxy, and nodes.
type cluster struct {
	t       *testing.T
	network *harness.Network
	// hub is the host of the auth service and the proxy, and runs main.
	hub  *harness.Host
	main *harness.Teleport
	// bob and carol are system users, which all hosts share.
	bob, carol harness.User
	audit      *harness.Audit
	wrap       []string
}

type clusterConfig struct {
	// audit starts an auditd of the test's own.
	audit bool
	// otp asks for a second factor.
	otp bool
	// auth and proxy hold further lines of auth_service and proxy_service, and
	// teleport those of teleport.
	auth, proxy, teleport []string
	// node has the hub run a node as well.
	node bool
}

func newCluster(t *testing.T, c clusterConfig) *cluster {
	t.Helper()
	harness.NeedRoot(t)
	built(t)
	w := &cluster{t: t, wrap: harness.NeedUnsetLoginUID(t)}
	if c.audit {
		w.audit = harness.StartAudit(t, harness.AuditConfig{})
	}
	w.bob, w.carol = harness.NewUser(t, harness.UserConfig{}), harness.NewUser(t, harness.UserConfig{})
	w.network = harness.NewNetwork(t)
	w.hub = w.network.Host()
	w.main = w.teleport(w.hub, w.hubYAML(w.hub, c))
	w.main.Start()
	return w
}

func (w *cluster) hubYAML(host *harness.Host, c clusterConfig) string {
	factor := "off"
	if c.otp {
		factor = "otp"
	}
	node := "no"
	if c.node {
		node = "yes"
	}
	return fmt.Sprintf(`teleport:
  nodename: hub
  data_dir: $DIR/data
  log:
    severity: DEBUG
%sauth_service:
  enabled: yes
  cluster_name: e2e.example.com
  listen_addr: 0.0.0.0:3025
  public_addr: %[2]s:3025
  authentication:
    second_factor: "%[3]s"
%[4]sproxy_service:
  enabled: yes
  public_addr: %[2]s:3080
  ssh_public_addr: %[2]s:3023
  tunnel_public_addr: %[2]s:3024
%[5]sssh_service:
  enabled: %[6]s
  public_addr: %[2]s:3022
`, lines(c.teleport), host.IP, factor, lines(c.auth), lines(c.proxy), node)
}

func lines(all []string) string {
	var b strings.Builder
	for _, line := range all {
		b.WriteString("  " + line + "\n")
	}
	return b.String()
}

func (w *cluster) teleport(host *harness.Host, yaml string, args ...string) *harness.Teleport {
	w.t.Helper()
	return harness.NewTeleport(w.t, harness.TeleportConfig{
		Programs: programs.Programs, Host: host, YAML: yaml, Args: args, Wrap: w.wrap,
	})
}

var (
	tokenLine = regexp.MustCompile(`--token=(\S+)`)
	pinLine   = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
)

// token makes a token, and returns it with the pins, of which there are two during
// a rotation.
func (w *cluster) token(kind string) (token, pin string) {
	w.t.Helper()
	text := w.main.Tctl("tokens", "add", "--type="+kind)
	found := tokenLine.FindStringSubmatch(text)
	require.NotNil(w.t, found, text)
	pins := pinLine.FindAllString(text, -1)
	require.NotEmpty(w.t, pins, text)
	return found[1], strings.Join(pins, ", ")
}

// nodeYAML is the configuration of a node that joins with a token. at is where:
// "auth_server: HOST:PORT" or "proxy_server: HOST:PORT".
func nodeYAML(name, at, token, pin, listen string, ssh ...string) string {
	return fmt.Sprintf(`teleport:
  nodename: %s
  data_dir: $DIR/data
  log:
    severity: DEBUG
  auth_token: %s
  ca_pin: [%s]
  %s
auth_service:
  enabled: no
proxy_service:
  enabled: no
ssh_service:
  enabled: yes
  listen_addr: %s
%s`, name, token, pin, at, listen, lines(ssh))
}

// join starts a node on a new host that the proxy reaches, or, where it dials out,
// that listens for nobody but itself.
func (w *cluster) join(name string, dialsOut bool, ssh ...string) (*harness.Host, *harness.Teleport) {
	w.t.Helper()
	host := w.network.Host()
	token, pin := w.token("node")
	at, listen := "auth_server: "+w.hub.IP+":3025", "0.0.0.0:3022"
	if dialsOut {
		at, listen = "proxy_server: "+w.hub.IP+":3080", "127.0.0.1:3022"
	} else {
		ssh = append(ssh, "public_addr: "+host.IP+":3022")
	}
	d := w.teleport(host, nodeYAML(name, at, token, pin, listen, ssh...))
	d.Start()
	return host, d
}

// joinProxy starts another proxy on a new host.
func (w *cluster) joinProxy(name string) (*harness.Host, *harness.Teleport) {
	w.t.Helper()
	host := w.network.Host()
	token, pin := w.token("proxy")
	d := w.teleport(host, fmt.Sprintf(`teleport:
  nodename: %s
  data_dir: $DIR/data
  log:
    severity: DEBUG
  auth_token: %s
  ca_pin: [%s]
  auth_server: %s:3025
auth_service:
  enabled: no
proxy_service:
  enabled: yes
  public_addr: %[5]s:3080
  ssh_public_addr: %[5]s:3023
  tunnel_public_addr: %[5]s:3024
ssh_service:
  enabled: no
`, name, token, pin, w.hub.IP, host.IP))
	d.Start()
	return host, d
}

// invite adds a user who has chosen a password, and returns the app with the second
// factor.
func (w *cluster) invite(user string, flags ...string) *harness.Authenticator {
	w.t.Helper()
	text := w.main.Tctl(append([]string{"users", "add", user}, flags...)...)
	invite := harness.OpenInvite(w.t, w.hub, harness.FindURL(w.t, text))
	invite.Accept(clusterPassword)
	return invite.App
}

// person logs in with tsh at a host of their own.
func (w *cluster) person(user string) *harness.Tsh {
	w.t.Helper()
	p := harness.NewTsh(w.t, programs.Programs, w.network.Host())
	r := p.Login(clusterPassword, nil, "--proxy="+w.hub.IP+":3080", "--user="+user, "--insecure")
	require.Zero(w.t, r.Code, r.Stdout)
	return p
}

// sees waits until tsh and tctl list all of the nodes.
func (w *cluster) sees(p *harness.Tsh, names ...string) {
	w.t.Helper()
	var last string
	ok := harness.Eventually(waitLimit, func() bool {
		last = w.main.Tctl("nodes", "ls") + p.Run("ls").Stdout
		for _, name := range names {
			if strings.Count(last, name) < 2 {
				return false
			}
		}
		return true
	})
	require.True(w.t, ok, last)
}

// events are lines of tctl events ls.
func (w *cluster) events(flags ...string) []string {
	w.t.Helper()
	text := w.main.Tctl(append([]string{"events", "ls"}, flags...)...)
	var found []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "20") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// awaitEvents waits for n events.
func (w *cluster) awaitEvents(n int, flags ...string) []string {
	w.t.Helper()
	var found []string
	// Who has tried in vain for a while does so no more often than a few times a
	// minute.
	harness.Eventually(3*waitLimit, func() bool {
		found = w.events(flags...)
		return len(found) >= n
	})
	require.Len(w.t, found, n, "%v:\n%s\nall:\n%s", flags, strings.Join(found, "\n"), strings.Join(w.events(), "\n"))
	return found
}

// TestThreeHosts: a hub, a node that the proxy reaches, and one that only dials
// out. Each host's trail has its own logins, with the person's own address.
func TestThreeHosts(t *testing.T) {
	w := newCluster(t, clusterConfig{audit: true})
	w.join("direct", false, "labels:", "  env: prod")
	_, inner := w.join("inner", true, "labels:", "  env: test")
	w.invite("alice", "--logins="+w.bob.Name)
	p := w.person("alice")
	w.sees(p, "direct", "inner")
	assert.Contains(t, w.main.Tctl("nodes", "ls"), "(dials out)")

	for _, target := range []string{"direct", "inner", "env=test"} {
		t.Run(target, func(t *testing.T) {
			mark := w.audit.Fence()
			r := p.Run("ssh", w.bob.Name+"@"+target, "cat /proc/self/sessionid; echo; cat /proc/self/loginuid; echo; exit 7")
			require.Equal(t, 7, r.Code, r.Stderr)
			words := strings.Fields(r.Stdout)
			require.Len(t, words, 2, r.Stdout)
			assert.Equal(t, w.bob.ID(), words[1])
			records := w.collect(mark, 2)
			require.Len(t, own(records), 2, harness.Show(records))
			for _, record := range own(records) {
				assert.Equal(t, p.Host.IP, record.Get("addr"), "the person's own address: %s", record)
				assert.Equal(t, "alice", record.Get("teleportUser"))
				assert.Equal(t, words[0], record.Kernel["ses"])
				assert.Equal(t, programs.Session, record.Get("exe"))
			}
			for _, kind := range []string{"session.start", "session.end"} {
				events := w.awaitEvents(1, "--session="+words[0], "--type="+kind)
				assert.Contains(t, events[0], "ses="+words[0]+" auid="+w.bob.ID())
			}
		})
	}
	t.Run("plain ssh, scp and rsync", func(t *testing.T) {
		config := harness.OpenDir(t) + "/ssh_config"
		r := p.Run("config")
		require.Zero(t, r.Code, r.Stderr)
		require.NoError(t, writeFile(config, r.Stdout))
		for _, node := range []string{"direct", "inner"} {
			ssh := harness.RunCommand(t, p.Other("ssh", "-F", config, "-o", "BatchMode=yes", w.bob.Name+"@"+node+".e2e.example.com", "echo here"), "")
			require.Equal(t, "here\n", ssh.Stdout, ssh.Stderr)
			file := harness.OpenDir(t) + "/file"
			require.NoError(t, writeFile(file, "content"))
			copied := w.bob.Home + "/copied-" + node
			scp := harness.RunCommand(t, p.Other("scp", "-F", config, file, w.bob.Name+"@"+node+".e2e.example.com:"+copied), "")
			require.Zero(t, scp.Code, scp.Stderr)
			back := harness.OpenDir(t) + "/back"
			rsync := harness.RunCommand(t, p.Other("rsync", "-e", "ssh -F "+config, w.bob.Name+"@"+node+".e2e.example.com:"+copied, back), "")
			require.Zero(t, rsync.Code, rsync.Stderr)
			assert.Equal(t, "content", readFile(t, back))
			tsh := p.Run("scp", w.bob.Name+"@"+node+":"+copied, back+"2")
			require.Zero(t, tsh.Code, tsh.Stderr)
			assert.Equal(t, "content", readFile(t, back+"2"))
		}
	})
	t.Run("a node whose tunnel is cut comes back", func(t *testing.T) {
		inner.Kill()
		inner.Start()
		ok := harness.Eventually(waitLimit, func() bool { return p.Run("ssh", w.bob.Name+"@inner", "true").Code == 0 })
		require.True(t, ok, "the node that only dials out is not reached again")
	})
}

// collect waits for n records of our programs' own, on any of the hosts.
func (w *cluster) collect(mark harness.Mark, n int) []harness.Record {
	w.t.Helper()
	ours := func(records []harness.Record) []harness.Record {
		return harness.Ours(records, programs.Dir, w.bob.UID, w.carol.UID)
	}
	return w.audit.Collect(mark, ours, func(records []harness.Record) bool { return len(own(records)) >= n })
}

// TestJoinRefused: each mistake in joining is one line, and ends the start.
func TestJoinRefused(t *testing.T) {
	w := newCluster(t, clusterConfig{})
	at := "auth_server: " + w.hub.IP + ":3025"
	token, pin := w.token("node")
	refused := func(name, yaml, want string) {
		t.Run(name, func(t *testing.T) {
			d := w.teleport(w.network.Host(), yaml)
			said := d.Begin()
			require.True(t, d.HasEnded(30*time.Second), "it goes on:\n%s", d.Log())
			assert.Error(t, d.Failure())
			var errors []string
			for line := range strings.Lines(d.Log()[said:]) {
				if strings.HasPrefix(line, "ERROR: ") {
					errors = append(errors, line)
				}
			}
			require.Len(t, errors, 1, d.Log()[said:])
			assert.Regexp(t, want, errors[0])
		})
	}
	refused("wrong pin", nodeYAML("n", at, token, "sha256:"+strings.Repeat("0", 64), "0.0.0.0:3022"), `(?i)pin`)
	refused("unknown token", nodeYAML("n", at, strings.Repeat("ab", 16), pin, "0.0.0.0:3022"), `(?i)token`)
	proxyToken, _ := w.token("proxy")
	refused("token of another type", nodeYAML("n", at, proxyToken, pin, "0.0.0.0:3022"), `(?i)token.*(proxy|node)`)
	d := w.teleport(w.network.Host(), nodeYAML("n", at, token, pin, "0.0.0.0:3022"))
	d.Start()
	refused("reused token", nodeYAML("n", at, token, pin, "0.0.0.0:3022"), `(?i)token.*used`)
	short := w.main.Tctl("tokens", "add", "--type=node", "--ttl=1s")
	expired := tokenLine.FindStringSubmatch(short)[1]
	harness.WaitFor(t, waitLimit, "the end of the token", func() bool { return !strings.Contains(w.main.Tctl("tokens", "ls"), expired) })
	refused("expired token", nodeYAML("n", at, expired, pin, "0.0.0.0:3022"), `(?i)token.*expired`)
	assert.GreaterOrEqual(t, len(w.awaitEvents(5, "--type=instance.join")), 5)

	t.Run("restart without token", func(t *testing.T) {
		d.End()
		d.Start()
	})
}
