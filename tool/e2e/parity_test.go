// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"teleport-auditd/tool/e2e/harness"
)

// TestParity drives the host's own sshd and the node, beside each other on one
// host, by the same client with the same certificates, and compares what the
// audit system was told. Where the two differ, the difference has a name and a
// reason (differences); what it makes of sshd's records is what ours must be,
// and one that makes nothing of them is a claim that is not true.
//
// docs/openssh.md shows what was recorded here: E2E_UPDATE=1 writes it.
func TestParity(t *testing.T) {
	harness.NeedRoot(t)
	harness.NeedPrograms(t, "sshd")
	doc := openDocument(t)
	doc.check(t, "host", hostLine(t))
	for _, mode := range parityModes() {
		t.Run(mode.name, func(t *testing.T) {
			p := newPair(t, mode)
			for _, s := range mode.scenarios {
				t.Run(s.name, func(t *testing.T) { p.compare(t, doc, s) })
			}
		})
	}
	doc.close(t)
}

// parityMode is one configuration of both servers.
type parityMode struct {
	name string
	// service is the PAM service of both, and fixture says that it is one of
	// fixtures/pam.d. Without a service, PAM is off.
	service string
	fixture bool
	// scenarios are what is done.
	scenarios []scenario
}

// scenario is one thing that people do. It returns what the commands that ran
// found to be their login uid and session.
type scenario struct {
	name string
	do   func(t *testing.T, p *pair, c side) (logins [][2]string)
	// differences turn sshd's records into ours, one after the other.
	differences []difference
}

// part is the scenario's name in the document.
func (m parityMode) part(s scenario) string { return s.name + " " + m.name }

func parityModes() []parityMode {
	// The failed record of a client that offers the bare key before the
	// certificate, which "ssh -i" does, comes with each of these.
	return []parityMode{
		{name: "pam-on", service: "sshd", scenarios: []scenario{
			{"exec", in(), []difference{keyFailed, oneSetcred, successTold, endTold}},
			{"terminal", in("-tt"), []difference{keyFailed, oneSetcred, pamTerminal, successNamed, endTold}},
			{"two-commands", twoCommands, []difference{keyFailed, oneSetcred, successTold, endTold}},
			{"certificate-first", certificateFirst, []difference{oneSetcred, successTold, endTold}},
			{"forward-only", forwardOnly, []difference{keyFailed, oneSetcred, successTold, endTold}},
			{"nothing", nothing, []difference{keyFailed, nothingTold}},
			{"no-such-user", out(toGhost, alice), []difference{once, unhidden("ghost"), told("", "teleportUser=alice reason=no-such-user-on-this-host"), userErr}},
			{"wrong-principal", out(toCarol, alice), []difference{once, told("carol", "teleportUser=alice reason=login-is-not-among-the-principals"), userErr}},
			{"expired", out(toBob, expired), []difference{once, told("bob", "teleportUser=alice reason=certificate-has-expired"), userErr}},
			{"untrusted", out(toBob, mallory), []difference{once, told("bob", "reason=certificate-authority-is-not-trusted"), userErr}},
			{"locked", locked, []difference{keyFailed, oneSetcred, successTold, endTold}},
		}},
		{name: "pam-off", scenarios: []scenario{
			{"exec", in(), []difference{keyFailed, loginUID, successTold, endTold}},
			{"terminal", in("-tt"), []difference{keyFailed, loginUID, successNamed, endTold}},
			{"two-commands", twoCommands, []difference{keyFailed, loginUID, successTold, endTold}},
			{"certificate-first", certificateFirst, []difference{loginUID, successTold, endTold}},
			{"forward-only", forwardOnly, []difference{keyFailed, loginUID, successTold, endTold}},
			{"nothing", nothing, []difference{keyFailed}},
			{"no-such-user", out(toGhost, alice), []difference{once, unhidden("ghost"), told("", "teleportUser=alice reason=no-such-user-on-this-host"), userErr}},
			{"wrong-principal", out(toCarol, alice), []difference{unhidden("carol"), told("carol", "teleportUser=alice reason=login-is-not-among-the-principals"), userErr}},
			{"expired", out(toBob, expired), []difference{once, told("bob", "teleportUser=alice reason=certificate-has-expired"), userErr}},
			{"untrusted", out(toBob, mallory), []difference{once, told("bob", "reason=certificate-authority-is-not-trusted"), userErr}},
			{"locked", locked, []difference{lockedLetIn}},
		}},
		{name: "deny-account", service: "deny-account", fixture: true, scenarios: []scenario{
			{"pam-refuses", out(toBob, alice), []difference{keyFailed, told("bob", "teleportUser=alice reason=pam-account"), userErr}},
		}},
		{name: "deny-session", service: "deny-session", fixture: true, scenarios: []scenario{
			{"pam-refuses", out(toBob, alice), []difference{keyFailed, oneSetcred, sessionRefused}},
		}},
	}
}

// pair is both servers on one host.
type pair struct {
	*world
	mode parityMode
	sshd *harness.SSHD
	ca   harness.CA
	// names are how the users stand in the document, by name and by uid.
	names map[string]string
}

// side is one server as the client sees it.
type side struct {
	// host is the client's word for it.
	host   string
	client func(t *testing.T, identity string) *harness.Client
	// pick chooses its records; idle says that it has nobody left to serve.
	pick func([]harness.Record) []harness.Record
	idle func() bool
}

func newPair(t *testing.T, mode parityMode) *pair {
	service := mode.service
	if mode.fixture {
		service = harness.PAMService(t, mode.service, "")
	}
	p := &pair{mode: mode, ca: harness.NewCA(t)}
	p.world = newWorld(t, worldConfig{ca: &p.ca, daemon: harness.DaemonConfig{PAMService: service}})
	// carol stays as useradd leaves her: with a password that is locked.
	harness.SSHDLogin(t, p.bob)
	p.sshd = harness.StartSSHD(t, harness.SSHDConfig{
		Trust: p.ca.WriteTrust(t, harness.OpenDir(t)), PAM: service != "", Service: service, Wrap: harness.NeedUnsetLoginUID(t),
		// At this level it says which processes are its own.
		Extra: "LogLevel DEBUG1",
	})
	p.names = map[string]string{
		p.bob.Name: "bob", p.bob.ID(): "bob", p.carol.Name: "carol", p.carol.ID(): "carol",
		ghost: "ghost", harness.Unset: "unset",
	}
	return p
}

func (p *pair) sides() (sshd, ours side) {
	sshd = side{
		host:   "sshd",
		client: func(t *testing.T, identity string) *harness.Client { return harness.NewSSHDClient(t, p.sshd, identity) },
		pick:   p.ofSSHD,
		idle: func() bool {
			return !slices.ContainsFunc(harness.Processes(), func(q harness.Process) bool { return q.Parent == p.sshd.Pid })
		},
	}
	ours = side{
		host:   "node",
		client: func(t *testing.T, identity string) *harness.Client { return harness.NewClient(t, p.daemon, identity) },
		pick:   p.ours,
		idle:   func() bool { return len(p.daemon.Sessions()) == 0 },
	}
	return sshd, ours
}

var forked = regexp.MustCompile(`Forked child (\d+)`)

// ofSSHD picks the records of this test's sshd: another test may run one too,
// and where it hides the login name its process alone tells them apart.
func (p *pair) ofSSHD(records []harness.Record) []harness.Record {
	own := map[string]bool{}
	for _, match := range forked.FindAllStringSubmatch(p.sshd.Log(), -1) {
		own[match[1]] = true
	}
	events := map[uint64]bool{}
	for _, r := range records {
		if r.Type != "LOGIN" && !strings.HasPrefix(filepath.Base(r.Get("exe")), "sshd") {
			continue
		}
		user := p.names[r.Kernel["auid"]]
		events[r.Serial] = events[r.Serial] || own[r.Kernel["pid"]] || user == "bob" || user == "carol"
	}
	return slices.DeleteFunc(slices.Clone(records), func(r harness.Record) bool { return !events[r.Serial] })
}

// userRecords leaves out what the kernel writes beside its LOGIN.
func userRecords(records []harness.Record) []harness.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r harness.Record) bool { return r.Type == "SYSCALL" || r.Type == "PROCTITLE" })
}

// told does what the scenario does on one side and returns the records, of which
// there must be so many at least.
func (p *pair) told(t *testing.T, s scenario, c side, least int) []line {
	t.Helper()
	require.True(t, harness.Eventually(waitLimit, c.idle), "%s serves somebody already", c.host)
	mark := p.audit.Fence()
	logins := s.do(t, p, c)
	require.True(t, harness.Eventually(waitLimit, c.idle), "%s still serves somebody", c.host)
	records := p.audit.Collect(mark, c.pick, func(records []harness.Record) bool {
		return len(userRecords(records))+len(logins) >= least
	})
	lines := p.lines(records, logins)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the records of %s:\n%s", c.host, harness.Show(records))
		}
	})
	for _, r := range records {
		if r.Type == "LOGIN" || r.Type == "SYSCALL" || r.Type == "PROCTITLE" {
			continue
		}
		assert.Equal(t, "127.0.0.1", r.Get("addr"), r.String())
		want := p.sshd.Programs
		if c.host == "node" {
			want = []string{programs.Session, programs.Teleport}
		}
		assert.Contains(t, want, r.Get("exe"), r.String())
	}
	return lines
}

// compare does one scenario on both sides.
func (p *pair) compare(t *testing.T, doc *document, s scenario) {
	sshd, ours := p.sides()
	theirs := p.told(t, s, sshd, 0)
	if doc.foreign {
		theirs = doc.lines(t, p.mode.part(s))[theirName]
	}
	want := apply(t, s.differences, theirs)
	got := p.told(t, s, ours, len(want))
	assert.Equal(t, recordTable(ourName, want), recordTable(ourName, got), "our records, beside what the differences make of sshd's:\n%s", recordTable(theirName, theirs))
	doc.check(t, p.mode.part(s), scenarioText(s, theirs, got))
}

// who is the command of a login that is let in.
const who = "echo $(cat /proc/self/loginuid) $(cat /proc/self/sessionid)"

// ran reads what who printed; on a terminal a message of PAM's stands before it.
func ran(t *testing.T, result harness.Result) [2]string {
	t.Helper()
	words := strings.Fields(result.Stdout)
	require.Zero(t, result.Code, "%s%s", result.Stdout, result.Stderr)
	require.GreaterOrEqual(t, len(words), 2, result.Stdout)
	return [2]string(words[len(words)-2:])
}

// keyFirst makes the client as "ssh -i KEY" is: the certificate is found beside
// the key, and offered after it.
func keyFirst(t *testing.T, client *harness.Client) *harness.Client {
	t.Helper()
	text, err := os.ReadFile(client.Config)
	require.NoError(t, err)
	text = regexp.MustCompile(`(?m)^  CertificateFile .*\n`).ReplaceAll(text, nil)
	require.NoError(t, os.WriteFile(client.Config, text, 0o644))
	return client
}

// in runs a command that must work.
func in(args ...string) func(*testing.T, *pair, side) [][2]string {
	return func(t *testing.T, p *pair, c side) [][2]string {
		client := keyFirst(t, c.client(t, alice(t, p)))
		return [][2]string{ran(t, client.Run(append(args, p.bob.Name+"@"+c.host, who)...))}
	}
}

// certificateFirst is a client that was told of the certificate by name, and so
// offers that first.
func certificateFirst(t *testing.T, p *pair, c side) [][2]string {
	return [][2]string{ran(t, c.client(t, alice(t, p)).Run(p.bob.Name+"@"+c.host, who))}
}

// out tries to log in, and must not be let in.
func out(login func(*pair) string, identity func(*testing.T, *pair) string) func(*testing.T, *pair, side) [][2]string {
	return func(t *testing.T, p *pair, c side) [][2]string {
		result := keyFirst(t, c.client(t, identity(t, p))).Run(login(p)+"@"+c.host, "echo it ran")
		assert.NotZero(t, result.Code)
		assert.NotContains(t, result.Stdout, "it ran")
		return nil
	}
}

// twoCommands runs two commands on one connection.
func twoCommands(t *testing.T, p *pair, c side) [][2]string {
	client, target, socket := keyFirst(t, c.client(t, alice(t, p))), p.bob.Name+"@"+c.host, filepath.Join(harness.OpenDir(t), "master")
	end := master(t, client, socket, target)
	var logins [][2]string
	for range 2 {
		logins = append(logins, ran(t, client.Run("-S", socket, target, who)))
	}
	end()
	return logins
}

// master opens a connection that runs nothing, and returns what ends it.
func master(t *testing.T, client *harness.Client, socket, target string, options ...string) (end func()) {
	t.Helper()
	cmd := client.Command(append([]string{"-M", "-S", socket, "-N", target}, options...)...)
	require.NoError(t, cmd.Start())
	t.Cleanup(held{t, cmd}.end)
	harness.WaitFor(t, waitLimit, "the ControlMaster", func() bool {
		return client.Run("-S", socket, "-O", "check", target).Code == 0
	})
	return func() { require.Zero(t, client.Run("-S", socket, "-O", "exit", target).Code) }
}

// forwardOnly runs no command, and sends one connection through.
func forwardOnly(t *testing.T, p *pair, c side) [][2]string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	}()
	client, socket, entrance := keyFirst(t, c.client(t, alice(t, p))), filepath.Join(harness.OpenDir(t), "master"), harness.FreeAddr(t)
	end := master(t, client, socket, p.bob.Name+"@"+c.host, "-L", entrance+":"+l.Addr().String())
	conn, err := net.Dial("tcp", entrance)
	require.NoError(t, err)
	defer conn.Close()
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "hello", string(said))
	end()
	return nil
}

// nothing authenticates, asks for nothing and goes away.
func nothing(t *testing.T, p *pair, c side) [][2]string {
	client, socket := keyFirst(t, c.client(t, alice(t, p))), filepath.Join(harness.OpenDir(t), "master")
	master(t, client, socket, p.bob.Name+"@"+c.host)()
	return nil
}

// locked logs in to an account whose password is locked, with a certificate
// that names it.
func locked(t *testing.T, p *pair, c side) [][2]string {
	identity := sign(t, p.ca, harness.Cert{KeyID: "alice", Logins: []string{p.carol.Name}})
	client := keyFirst(t, c.client(t, identity))
	result := client.Run(p.carol.Name+"@"+c.host, who)
	if c.host == "sshd" && p.mode.service == "" {
		assert.Contains(t, result.Stderr, "Permission denied")
		assert.Contains(t, p.sshd.Log(), "account is locked")
		return nil
	}
	return [][2]string{ran(t, result)}
}

func toBob(p *pair) string   { return p.bob.Name }
func toCarol(p *pair) string { return p.carol.Name }
func toGhost(*pair) string   { return ghost }

// sign makes an identity and returns its private key's path.
func sign(t *testing.T, ca harness.CA, c harness.Cert) string {
	return ca.Sign(t, c).Write(t, filepath.Join(harness.OpenDir(t), "id"))
}

// alice may log in as bob, and as somebody whom the host does not have.
func alice(t *testing.T, p *pair) string {
	return sign(t, p.ca, harness.Cert{KeyID: "alice", Logins: []string{p.bob.Name, ghost}})
}

// expired was alice's until an hour ago.
func expired(t *testing.T, p *pair) string {
	return sign(t, p.ca, harness.Cert{
		KeyID: "alice", Logins: []string{p.bob.Name}, From: time.Now().Add(-2 * time.Hour), To: time.Now().Add(-time.Hour),
	})
}

// mallory has a certificate of another authority's.
func mallory(t *testing.T, p *pair) string {
	return sign(t, harness.NewCA(t), harness.Cert{KeyID: "mallory", Logins: []string{p.bob.Name}})
}
