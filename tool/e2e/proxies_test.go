// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// TestTwoProxies: people come through two proxies to a node that nobody can dial, and
// that was told of one of them. That one is killed and comes back, and who came
// through the other has noticed nothing. Whom the proxies refuse is in the cluster's
// audit log.
func TestTwoProxies(t *testing.T) {
	w := newCluster(t, clusterConfig{})
	edge, proxy := w.joinProxy("edge")
	inner := w.network.Host()
	token, pin := w.token("node")
	node := w.teleport(inner, nodeYAML("inner", "proxy_server: "+edge.IP+":3080", token, pin, "127.0.0.1:3022"))
	node.Start()
	w.invite("alice", "--logins="+w.bob.Name)
	target := w.bob.Name + "@inner"
	at := func(ip string) *harness.Tsh {
		p := harness.NewTsh(t, programs.Programs, w.network.Host())
		r := p.Login(clusterPassword, nil, "--proxy="+ip+":3080", "--user=alice", "--insecure")
		require.Zero(t, r.Code, r.Stdout)
		w.sees(p, "inner")
		return p
	}
	throughHub, throughEdge := at(w.hub.IP), at(edge.IP)
	reaches := func(p *harness.Tsh) {
		t.Helper()
		var r harness.Result
		ok := harness.Eventually(3*waitLimit, func() bool {
			r = p.Run("ssh", target, "echo in")
			return r.Code == 0 && r.Stdout == "in\n"
		})
		require.True(t, ok, "%d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	reaches(throughHub)
	reaches(throughEdge)

	open := launch(t, throughHub.Command("ssh", target, "exec cat"))
	says := func(text string) {
		t.Helper()
		_, err := fmt.Fprintln(open.stdin, text)
		require.NoError(t, err)
		open.said.wait(t, text+"\n")
	}
	says("before")
	proxy.Kill()
	says("without the other proxy")
	r := throughHub.Run("ssh", target, "cat /proc/self/sessionid")
	require.Zero(t, r.Code, r.Stderr)
	// The node has lost the proxy through which it reached the auth service, and
	// finds it through the other: what happens on the node is known.
	w.awaitEvents(1, "--type=session.end", "--session="+strings.TrimSpace(r.Stdout))
	proxy.Start()
	reaches(throughEdge)
	says("after")
	open.end()

	lines := func(text, ip string) int { return strings.Count(node.Log(), text+ip+":3024") }
	assert.Equal(t, 1, lines("There is a tunnel to the proxy at ", w.hub.IP), "the other tunnel was left alone")
	assert.Equal(t, 2, lines("There is a tunnel to the proxy at ", edge.IP))
	assert.Equal(t, 1, lines("The tunnel to the proxy at ", edge.IP))

	// Who is nobody is refused at both ports, and known to have tried.
	stranger := harness.NewTsh(t, programs.Programs, w.network.Host())
	for _, port := range []string{"3023", "3024"} {
		r := harness.RunCommand(t, stranger.Other("ssh", "-p", port, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "knocks-"+port+"@"+edge.IP), "")
		require.NotZero(t, r.Code)
	}
	for i, line := range w.awaitEvents(2, "--type=auth") {
		assert.Contains(t, line, []string{"login=knocks-3023 ", "login=knocks-3024 "}[i])
		assert.Contains(t, line, "addr="+stranger.Host.IP+":")
		assert.Contains(t, line, "success=false error=no-certificate-was-offered")
	}
}
