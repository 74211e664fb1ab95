// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/backend/etcd/etcdtest"
	"teleport-auditd/tool/e2e/harness"
)

// awayEnv is how long the auth service stays away in TestAuthAway; make test-long
// sets ten minutes.
const awayEnv = "E2E_AWAY"

// TestAuthAway kills the auth service, which has a host of its own: what is open
// lives, who has a certificate logs in, and the cluster's audit log has it all
// when it returns.
func TestAuthAway(t *testing.T) {
	away := 15 * time.Second
	if text := os.Getenv(awayEnv); text != "" {
		var err error
		away, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	w := newCluster(t, clusterConfig{})
	// The proxy of the hub goes with it: another host has one as well.
	edge, _ := w.joinProxy("edge")
	w.join("direct", false)
	inner := w.network.Host()
	token, pin := w.token("node")
	innerDaemon := w.teleport(inner, nodeYAML("inner", "proxy_server: "+edge.IP+":3080", token, pin, "127.0.0.1:3022"))
	innerDaemon.Start()
	w.invite("alice", "--logins="+w.bob.Name)
	p := harness.NewTsh(t, programs.Programs, w.network.Host())
	r := p.Login(clusterPassword, nil, "--proxy="+edge.IP+":3080", "--user=alice", "--insecure")
	require.Zero(t, r.Code, r.Stdout)
	w.sees(p, "direct", "inner")

	target := w.bob.Name + "@direct"
	open := p.Command("ssh", target, "echo open; read line; echo got $line")
	input, err := open.StdinPipe()
	require.NoError(t, err)
	output, err := open.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, open.Start())
	t.Cleanup(held{t, open}.end)
	awaitOpen(t, output)
	before := len(w.events("--type=session.start"))

	w.main.Kill()
	killed := time.Now()
	logins := 0
	for time.Since(killed) < away {
		for _, node := range []string{"direct", "inner"} {
			r := p.Run("ssh", w.bob.Name+"@"+node, "echo in")
			require.Zero(t, r.Code, "after %v, %s: %s", time.Since(killed), node, r.Stderr)
			logins++
		}
		// A node that starts again meanwhile has what it needs on its disk, and so
		// has what it has recorded.
		if logins == 4 {
			// A client has its answer before the login has its end.
			harness.WaitFor(t, waitLimit, "the end of the logins on inner's disk", func() bool {
				return recorded(t, innerDaemon, "session.end") == 2
			})
			innerDaemon.Kill()
			innerDaemon.Start()
			require.True(t, harness.Eventually(waitLimit, func() bool { return p.Run("ssh", w.bob.Name+"@inner", "true").Code == 0 }))
			logins++
		}
		if pause := away / 20; pause > time.Second {
			time.Sleep(pause)
		}
	}
	w.main.Start()
	_, err = fmt.Fprintln(input, "it")
	require.NoError(t, err)
	line := make([]byte, 64)
	n, _ := output.Read(line)
	assert.Equal(t, "got it\n", string(line[:n]), "the session that was open has lived")
	require.NoError(t, open.Wait())
	since := "--since=" + (away + 10*time.Minute).String()
	w.awaitEvents(before+logins, "--type=session.start", since)
	w.awaitEvents(before+logins, "--type=session.end", since)
	w.sees(p, "direct", "inner")
	t.Logf("%d logins while the auth service was away for %v", logins, away.Round(time.Second))
}

// recorded counts the events of a type that a node keeps for the auth service.
func recorded(t *testing.T, d *harness.Teleport, kind string) (count int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.DataDir, "events_node", "*"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		count += strings.Count(string(text), kind)
	}
	return count
}

// TestTwoAuthServers: two auth servers on an etcd of three members. One of each is
// killed in the middle of logins and joins.
func TestTwoAuthServers(t *testing.T) {
	harness.NeedRoot(t)
	members := etcdtest.Start(t, 3)
	key := filepath.Join(harness.OpenDir(t), "ca_key")
	// etcd is on this machine's loopback, so all of this test is.
	ports := func() (auth, web, ssh, tunnel string) {
		return harness.FreeAddr(t), harness.FreeAddr(t), harness.FreeAddr(t), harness.FreeAddr(t)
	}
	built(t)
	wrap := harness.NeedUnsetLoginUID(t)
	bob := harness.NewUser(t, harness.UserConfig{})
	start := func(yaml string) *harness.Teleport {
		d := harness.NewTeleport(t, harness.TeleportConfig{Programs: programs.Programs, YAML: yaml, Wrap: wrap})
		d.Start()
		return d
	}
	var auths [2]*harness.Teleport
	var authAddrs [2]string
	for i := range auths {
		authAddrs[i] = harness.FreeAddr(t)
		auths[i] = start(fmt.Sprintf(`teleport:
  nodename: auth%d
  data_dir: $DIR/data
  storage:
    type: etcd
    peers: [%s]
    prefix: /e2e
    ca_key_file: %s
auth_service:
  enabled: yes
  cluster_name: e2e.example.com
  listen_addr: %s
  authentication:
    second_factor: "off"
proxy_service:
  enabled: no
ssh_service:
  enabled: no
`, i, strings.Join(members.Peers(), ", "), key, authAddrs[i]))
	}
	servers := fmt.Sprintf("auth_servers: [%s]", strings.Join(authAddrs[:], ", "))
	tctl := func(args ...string) string { return auths[1].Tctl(args...) }
	token := func(kind string) (string, string) {
		text := tctl("tokens", "add", "--type="+kind)
		return tokenLine.FindStringSubmatch(text)[1], pinLine.FindString(text)
	}
	tok, pin := token("proxy")
	_, web, ssh, tunnel := ports()
	start(fmt.Sprintf(`teleport:
  nodename: proxy
  data_dir: $DIR/data
  auth_token: %s
  ca_pin: [%s]
  %s
auth_service:
  enabled: no
proxy_service:
  enabled: yes
  web_listen_addr: %s
  listen_addr: %s
  tunnel_listen_addr: %s
  public_addr: %[4]s
  ssh_public_addr: %[5]s
  tunnel_public_addr: %[6]s
ssh_service:
  enabled: no
`, tok, pin, servers, web, ssh, tunnel))
	node := func(name string) *harness.Teleport {
		tok, pin := token("node")
		listen := harness.FreeAddr(t)
		return harness.NewTeleport(t, harness.TeleportConfig{
			Programs: programs.Programs, Wrap: wrap,
			YAML: nodeYAML(name, servers, tok, pin, listen, "public_addr: "+listen),
		})
	}
	node("first").Start()
	w := &cluster{t: t, main: auths[1], bob: bob}
	text := tctl("users", "add", "alice", "--logins="+bob.Name)
	harness.OpenInvite(t, nil, harness.FindURL(t, text)).Accept(clusterPassword)

	const logins, joins, workers = 200, 6, 8
	nodes := make([]*harness.Teleport, joins)
	for i := range nodes {
		nodes[i] = node(fmt.Sprintf("joined%d", i))
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	done, retried := 0, 0
	oneLogin := func(p *harness.Tsh) (trouble string) {
		if r := p.Login(clusterPassword, nil, "--proxy="+web, "--user=alice", "--insecure"); r.Code != 0 {
			return r.Stdout
		}
		if r := p.Run("ssh", bob.Name+"@first", "true"); r.Code != 0 {
			return r.Stderr
		}
		return ""
	}
	for range workers {
		wait.Go(func() {
			p := harness.NewTsh(t, programs.Programs, nil)
			for range logins / workers {
				p.Run("logout")
				began, tries := time.Now(), 0
				for {
					trouble := oneLogin(p)
					if trouble == "" {
						break
					}
					// The proxy takes two logins a second from one address.
					if !strings.Contains(trouble, "too many") {
						tries++
					}
					if time.Since(began) > 2*time.Minute {
						t.Errorf("a login fails however often it is tried: %s", trouble)
						return
					}
					time.Sleep(500 * time.Millisecond)
				}
				mu.Lock()
				done++
				retried += tries
				mu.Unlock()
			}
		})
	}
	reached := func(n int) {
		harness.WaitFor(t, 5*time.Minute, fmt.Sprintf("%d logins", n), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return done >= n || t.Failed()
		})
	}
	reached(40)
	wait.Go(func() { nodes[0].Start() })
	wait.Go(func() { nodes[1].Start() })
	auths[0].Kill()
	reached(90)
	members.Kill(0)
	wait.Go(func() { nodes[2].Start() })
	wait.Go(func() { nodes[3].Start() })
	reached(140)
	wait.Go(func() { nodes[4].Start() })
	wait.Go(func() { nodes[5].Start() })
	wait.Wait()
	require.Equal(t, logins, done)
	t.Logf("%d logins, %d tries more than that", done, retried)

	// Every login is there, also those whose answer was lost.
	var starts []string
	harness.Eventually(waitLimit, func() bool {
		starts = w.events("--type=session.start", "--since=1h")
		return len(starts) >= logins && len(w.events("--type=session.end", "--since=1h")) == len(starts)
	})
	assert.GreaterOrEqual(t, len(starts), logins)
	assert.LessOrEqual(t, len(starts), logins+retried, "an event is there twice")
	sids := map[string]bool{}
	for _, line := range starts {
		sids[sidIn.FindString(line)] = true
	}
	assert.Len(t, sids, len(starts), "an event is there twice")
	list := tctl("nodes", "ls")
	for i := range nodes {
		assert.Equal(t, 1, strings.Count(list, fmt.Sprintf("joined%d ", i)), list)
	}
	assert.Contains(t, tctl("tokens", "ls"), "There are no tokens", "a token that was used is left")
}
