// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/client"
	"teleport-auditd/lib/client/clienttest"
)

// TestHostileProxies: what a proxy answers is checked before any of it is kept.
func TestHostileProxies(t *testing.T) {
	good := newCluster(t, clienttest.Config{})
	another := login(t, good)
	authority := map[string]any{
		"domain_name":   "example.com",
		"checking_keys": [][]byte{another.SSHKey.MarshalSSHPublicKey()},
		"tls_certs":     [][]byte{another.TLSCert},
	}
	for _, test := range []struct {
		name string
		// ping and certs are the answers; change gets the good one for this login.
		ping   map[string]any
		change func(map[string]any)
		status int
		want   string
	}{
		{name: "good"},
		{name: "a cluster that is a pattern", ping: map[string]any{"cluster_name": "*"}, want: `name of the cluster "*"`},
		{name: "a cluster that is a path", ping: map[string]any{"cluster_name": "../../x"}, want: "name of the cluster"},
		{name: "a factor that is not known", ping: map[string]any{"cluster_name": "example.com", "proxy": map[string]any{"ssh": map[string]any{"listen_addr": "0.0.0.0:3023"}}, "auth": map[string]any{"second_factor": "webauthn"}}, want: `asks for the second factor "webauthn"`},
		{name: "an address that is an option", ping: map[string]any{"cluster_name": "example.com", "proxy": map[string]any{"ssh": map[string]any{"ssh_public_addr": "-oProxyCommand=x:22"}}}, want: "SSH"},
		{name: "a user that is a path", change: func(a map[string]any) { a["username"] = "../x" }, want: "user name"},
		{name: "another's SSH certificate", change: func(a map[string]any) { a["cert"] = another.SSHCert }, want: "SSH certificate is not for this user's key"},
		{name: "a plain key", change: func(a map[string]any) { a["cert"] = another.SSHKey.MarshalSSHPublicKey() }, want: "SSH certificate cannot be read"},
		{name: "another's TLS certificate", change: func(a map[string]any) { a["tls_cert"] = another.TLSCert }, want: "TLS certificate is not for this user's key"},
		{name: "no certificate", change: func(a map[string]any) { delete(a, "cert") }, want: "SSH certificate cannot be read"},
		{name: "no authority", change: func(a map[string]any) { a["host_signers"] = []any{} }, want: "names no authority"},
		{name: "another cluster's authority", change: func(a map[string]any) {
			other := map[string]any{"domain_name": "other.com", "checking_keys": authority["checking_keys"], "tls_certs": authority["tls_certs"]}
			a["host_signers"] = []any{other}
		}, want: "names no authority"},
		{name: "an authority that is none", change: func(a map[string]any) {
			a["host_signers"] = []any{map[string]any{"domain_name": "example.com", "checking_keys": [][]byte{[]byte("x")}}}
		}, want: "authority for hosts cannot be read"},
		{name: "elsewhere", status: http.StatusTemporaryRedirect, want: "answered Temporary Redirect"},
		{name: "an error without words", status: http.StatusBadGateway, want: "answered Bad Gateway"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/webapi/ping" {
					ping := map[string]any{"cluster_name": "example.com", "proxy": map[string]any{"ssh": map[string]any{"listen_addr": "0.0.0.0:3023"}}}
					if test.ping != nil {
						ping = test.ping
					}
					_ = json.NewEncoder(w).Encode(ping)
					return
				}
				if test.status != 0 {
					w.Header().Set("Location", "https://"+good.WebAddr+r.URL.Path)
					w.WriteHeader(test.status)
					return
				}
				var request struct {
					SSHKey []byte `json:"ssh_pub_key"`
					TLSKey []byte `json:"tls_pub_key"`
				}
				_ = json.NewDecoder(r.Body).Decode(&request)
				sshCert, tlsCert, err := good.SignUser("alice", request.SSHKey, request.TLSKey, time.Now().Add(time.Hour))
				if err != nil {
					t.Error(err)
				}
				answer := map[string]any{"username": "alice", "cert": sshCert, "tls_cert": tlsCert, "host_signers": []any{authority}}
				if test.change != nil {
					test.change(answer)
				}
				_ = json.NewEncoder(w).Encode(answer)
			}))
			t.Cleanup(server.Close)
			web := client.WebClient{Addr: server.Listener.Addr().String(), Insecure: true}
			info, err := web.Ping(context.Background())
			if err == nil {
				require.Equal(t, "127.0.0.1:3023", info.SSHAddr, "a proxy that listens everywhere is where it answered")
				_, err = web.Login(context.Background(), info, client.Request{User: "alice", Password: "x", TTL: time.Hour})
			}
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}

// TestUnknownProxies: each reason has its own line, and says what to do.
func TestUnknownProxies(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	other := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	for _, test := range []struct {
		name, addr, want string
		insecure         bool
	}{
		{"an authority that nobody knows", other.Listener.Addr().String(), "is from an unknown authority: if you know that this is the proxy, use --insecure", false},
		{"not HTTPS", plain.Listener.Addr().String(), "does not speak HTTPS: give the web port of the proxy, which is 3080 by default", false},
		{"not HTTPS, and nobody minds the certificate", plain.Listener.Addr().String(), "does not answer as a proxy does", true},
		{"another web server", other.Listener.Addr().String(), "does not answer as a proxy does", true},
		{"nobody", "127.0.0.1:1", "cannot reach the proxy 127.0.0.1:1: connection refused", false},
		{"a name that is none", "proxy.invalid:3080", "its name cannot be looked up", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := client.WebClient{Addr: test.addr, Insecure: test.insecure}.Ping(context.Background())
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, strings.TrimSpace(trace.UserMessage(err)), "\n")
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := client.WebClient{Addr: silent.Addr().String()}.Ping(ctx)
		require.ErrorContains(t, err, "did not answer in time")
	})
}

// TestDeadAgents: none of them holds a login up.
func TestDeadAgents(t *testing.T) {
	_, err := client.OpenAgent(t.TempDir() + "/nobody")
	require.True(t, trace.IsConnectionProblem(err), "%v", err)
}
