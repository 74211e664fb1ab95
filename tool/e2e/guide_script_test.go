// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// TestGuideFromItsFirstLine is the guide as one script: see testdata/guide.txtar.
// The host is a namespace that knows itself as teleport.example.com.
func TestGuideFromItsFirstLine(t *testing.T) {
	harness.NeedRoot(t)
	harness.NeedPrograms(t, "unshare", "mount")
	built(t)
	wrap := harness.NeedUnsetLoginUID(t)
	audit := harness.StartAudit(t, harness.AuditConfig{})
	bob := harness.NewUser(t, harness.UserConfig{})
	host := harness.NewNetwork(t).Host()
	g := &guide{t: t, audit: audit, host: host, bob: bob, wrap: wrap}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup:               g.setup,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// teleport ARG...: starts the daemon, which runs until the script ends.
			"teleport": g.teleport,
			// accept: the link that was printed last is followed.
			"accept": g.accept,
			// login PROGRAM ARG...: as exec, at a terminal.
			"login": g.login,
			// find-session: SES becomes the session of the newest login.
			"find-session": g.findSession,
			// expand FILE: $NAME becomes the value of the script's variable.
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
			},
		},
	})
}

type guide struct {
	t     *testing.T
	audit *harness.Audit
	host  *harness.Host
	bob   harness.User
	wrap  []string
	mark  harness.Mark
	apps  map[string]*harness.Authenticator
}

// setup puts the programs into PATH, each on the host, and makes the proxy's
// certificate.
func (g *guide) setup(env *testscript.Env) error {
	g.apps = map[string]*harness.Authenticator{}
	pidof, err := exec.LookPath("pidof")
	if err != nil {
		return err
	}
	bin := filepath.Join(env.WorkDir, "bin")
	hosts := filepath.Join(env.WorkDir, "hosts")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"+g.host.IP+" teleport.example.com\n"), 0o644); err != nil {
		return err
	}
	on := fmt.Sprintf(`exec unshare --mount nsenter --net=/run/netns/%s -- sh -c 'mount --bind %s /etc/hosts && exec "$@"' sh`, g.host.Name, hosts)
	for name, command := range map[string]string{
		"tctl":     on + " " + programs.Tctl,
		"tsh":      on + " " + programs.Tsh,
		"teleport": on + " " + strings.Join(quoteAll(g.wrap), " ") + " " + programs.Teleport,
		// The log is the test's own.
		"ausearch": "exec /sbin/ausearch -if " + g.audit.Log,
		// All namespaces share their processes: these are the host's own.
		"pidof": fmt.Sprintf(`on() { for pid in $(%s "$@"); do [ /proc/$pid/ns/net -ef /run/netns/%s ] && echo $pid; done; }; on`, pidof, g.host.Name),
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+command+` "$@"`+"\n"), 0o755); err != nil {
			return err
		}
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("PATH", bin+":"+os.Getenv("PATH")+":/sbin:/usr/sbin")
	env.Setenv("BOB", g.bob.Name)
	env.Setenv("LOGUID", g.bob.ID())
	env.Setenv("SSL_CERT_FILE", filepath.Join(env.WorkDir, "web.crt"))
	return writeWebCertificate(env.WorkDir)
}

func writeWebCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "teleport.example.com"},
		DNSNames: []string{"teleport.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "web.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "web.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

func (g *guide) teleport(ts *testscript.TestScript, _ bool, args []string) {
	log, err := os.Create(ts.MkAbs("teleport.log"))
	ts.Check(err)
	cmd := exec.Command(ts.MkAbs("bin/teleport"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), log, log
	ts.Check(cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
		}
		if g.t.Failed() {
			ts.Logf("teleport said:\n%s", ts.ReadFile("teleport.log"))
		}
	})
	if !harness.Eventually(40*time.Second, func() bool {
		return strings.Contains(ts.ReadFile("teleport.log"), "Teleport is ready")
	}) {
		ts.Fatalf("teleport did not come up:\n%s", ts.ReadFile("teleport.log"))
	}
	g.mark = g.audit.Fence()
}

func (g *guide) accept(ts *testscript.TestScript, _ bool, _ []string) {
	text := ts.ReadFile("stdout")
	link := harness.FindURL(g.t, text)
	user := strings.Split(text, `"`)[1]
	// The test's own process is not on the host, and knows no such name.
	invite := harness.OpenInvite(g.t, g.host, strings.Replace(link, "teleport.example.com", g.host.IP, 1))
	invite.Accept(clusterPassword)
	g.apps[user] = invite.App
}

func (g *guide) login(ts *testscript.TestScript, _ bool, args []string) {
	var app *harness.Authenticator
	for user, a := range g.apps {
		if strings.Contains(strings.Join(args, " ")+" ", "--user="+user+" ") {
			app = a
		}
	}
	require.NotNil(g.t, app, "the second factor is the default")
	p := harness.NewTsh(g.t, programs.Programs, nil)
	cmd := p.Other(ts.MkAbs("bin/"+args[0]), args[1:]...)
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "SSL_CERT_FILE=" + ts.Getenv("SSL_CERT_FILE"), "TERM=xterm"}
	r := p.LoginWith(cmd, clusterPassword, func() string { return app.Code(g.t) })
	ts.Logf("%s", r.Stdout)
	if r.Code != 0 {
		ts.Fatalf("ended with status %d", r.Code)
	}
	ts.Check(os.WriteFile(ts.MkAbs("login.out"), []byte(strings.ReplaceAll(r.Stdout, "\r", "")), 0o600))
	ts.Check(ts.Exec("cat", ts.MkAbs("login.out")))
}

func (g *guide) findSession(ts *testscript.TestScript, _ bool, _ []string) {
	ours := func(records []harness.Record) []harness.Record {
		return harness.Ours(records, programs.Dir, g.bob.UID)
	}
	records := own(g.audit.Collect(g.mark, ours, func(records []harness.Record) bool { return len(own(records)) >= 2 }))
	if len(records) == 0 {
		ts.Fatalf("there are no records of a login")
	}
	ts.Setenv("SES", records[len(records)-1].Kernel["ses"])
	g.audit.Fence()
}
