// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/teleport/api/utils/grpc/interceptors"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/pquerna/otp/totp"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/auditd/auditdtest"
	"teleport-auditd/lib/auth"
	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/backend/sqlite"
	"teleport-auditd/lib/web"
)

const (
	goodPassword = "correct horse battery"
	proxyAddr    = "proxy.example.com:3080"
	otpPeriod    = 30 * time.Second
)

// cluster is an auth server of one user, odd'name, but for the wires.
type cluster struct {
	*auth.Credentials
	conn *grpc.ClientConn

	mu           sync.Mutex
	users        map[string]bool
	secondFactor constants.SecondFactorType
	locked       bool
	// away is what every call of the proxy fails with.
	away error
}

func (c *cluster) ClusterName() string { return "example.com" }

func (c *cluster) GetUser(_ context.Context, name string, _ bool) (types.User, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.users[name] {
		return nil, trace.NotFound("user %q is not there", name)
	}
	return types.NewUser(name)
}

func (c *cluster) GetAuthPreference(context.Context) (types.AuthPreference, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return nil, c.away
	}
	return types.NewAuthPreference(types.AuthPreferenceSpecV2{SecondFactor: c.secondFactor})
}

func (c *cluster) GetCertAuthorities(context.Context, types.CertAuthType, bool) ([]types.CertAuthority, error) {
	authority, err := types.NewCertAuthority(types.CertAuthoritySpecV2{
		Type:        types.HostCA,
		ClusterName: "example.com",
		ActiveKeys: types.CAKeySet{
			SSH: []*types.SSHKeyPair{{PublicKey: []byte("ssh-host-ca")}},
			TLS: []*types.TLSKeyPair{{Cert: []byte("tls-host-ca")}},
		},
	})
	return []types.CertAuthority{authority}, err
}

func (c *cluster) GenerateUserCerts(_ context.Context, req proto.UserCertsRequest) (*proto.Certs, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked {
		return nil, trace.AccessDenied(login.LockedPrefix)
	}
	return &proto.Certs{SSH: append([]byte("cert of "), req.SSHPublicKey...), TLS: append([]byte("cert of "), req.TLSPublicKey...)}, nil
}

func (c *cluster) EmitAuditEvent(context.Context, apievents.AuditEvent) error { return nil }

func (c *cluster) EmitStrangersEvent(context.Context, apievents.AuditEvent) error { return nil }

// What the official client has.

func (c *cluster) GetConnection() *grpc.ClientConn { return c.conn }

func (c *cluster) GetResetPasswordToken(ctx context.Context, id string) (types.UserToken, error) {
	c.mu.Lock()
	away := c.away
	c.mu.Unlock()
	if away != nil {
		return nil, away
	}
	return c.Credentials.GetResetPasswordToken(ctx, id)
}

func (c *cluster) CreateRegisterChallenge(ctx context.Context, req *proto.CreateRegisterChallengeRequest) (*proto.MFARegisterChallenge, error) {
	return c.Credentials.CreateRegisterChallenge(ctx, req.TokenID)
}

// site is a proxy's HTTPS, and what it told the kernel.
type site struct {
	*httptest.Server
	cluster *cluster
	audit   *auditdtest.Recorder
	clock   *clockwork.FakeClock
	seen    int // of the events
}

func newSite(t *testing.T, limits web.Limits) *site {
	s := &site{
		cluster: &cluster{users: map[string]bool{"alice": true, "odd 'name <b>": true}, secondFactor: constants.SecondFactorOTP},
		audit:   &auditdtest.Recorder{},
		clock:   clockwork.NewFakeClockAt(time.Now()),
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	store, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(t.TempDir(), "data"), Clock: s.clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	s.cluster.Credentials, err = auth.NewCredentials(auth.CredentialsConfig{
		Backend: store, Sealer: plainSealer{}, Cluster: s.cluster, Clock: s.clock, Log: log,
	})
	require.NoError(t, err)

	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.UnaryInterceptor(interceptors.GRPCServerUnaryErrorInterceptor))
	login.Register(server, s.cluster)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	s.cluster.conn, err = grpc.NewClient("passthrough:///auth",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(interceptors.GRPCClientUnaryErrorInterceptor),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.cluster.conn.Close()) })

	handler, err := web.New(web.Config{
		Auth:        func() web.AuthClient { return s.cluster },
		ClusterName: "example.com",
		Proxy: func() webclient.ProxySettings {
			return webclient.ProxySettings{SSH: webclient.SSHProxySettings{ListenAddr: "0.0.0.0:3023", PublicAddr: proxyAddr}}
		},
		Emitter: s.audit,
		Limits:  limits,
		Clock:   s.clock,
		Log:     log,
	})
	require.NoError(t, err)
	s.Server = httptest.NewUnstartedServer(nil)
	s.Config = web.Server(handler, log)
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

type plainSealer struct{}

func (plainSealer) Seal(secret []byte, associatedData string) ([]byte, error) {
	return append([]byte(associatedData), secret...), nil
}

func (plainSealer) Open(sealed []byte, associatedData string) ([]byte, error) {
	secret, found := bytes.CutPrefix(sealed, []byte(associatedData))
	if !found {
		return nil, trace.BadParameter("not sealed for %s", associatedData)
	}
	return secret, nil
}

func (s *site) token(t *testing.T, user, kind string) types.UserToken {
	token, err := s.cluster.CreateResetPasswordToken(t.Context(), user, kind, 0, "admin")
	require.NoError(t, err)
	return token
}

func (s *site) secret(t *testing.T, tokenID string) string {
	challenge, err := s.cluster.Credentials.CreateRegisterChallenge(t.Context(), tokenID)
	require.NoError(t, err)
	return challenge.GetTOTP().GetSecret()
}

func (s *site) code(t *testing.T, secret string) string {
	code, err := totp.GenerateCode(secret, s.clock.Now())
	require.NoError(t, err)
	return code
}

// do sends one request, and returns the answer with its body.
func (s *site) do(t *testing.T, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	response, err := s.Client().Do(req)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(text)
}

func (s *site) post(t *testing.T, path string, form url.Values) (*http.Response, string) {
	return s.do(t, http.MethodPost, path, strings.NewReader(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
}

func (s *site) login(t *testing.T, request map[string]any) (int, map[string]any) {
	body, err := json.Marshal(request)
	require.NoError(t, err)
	response, text := s.do(t, http.MethodPost, "/webapi/ssh/certs", bytes.NewReader(body), "Content-Type", "application/json")
	require.Equal(t, "application/json", response.Header.Get("Content-Type"))
	var answer map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &answer), "%s", text)
	return response.StatusCode, answer
}

// events returns what was told to the kernel since the last call, as user and
// reason, after checking what holds for all of them.
func (s *site) events(t *testing.T) (told []string) {
	all := s.audit.Events()
	fresh := all[s.seen:]
	s.seen = len(all)
	for _, event := range fresh {
		require.Equal(t, auditd.AuditUserErr, event.Type)
		require.Equal(t, auditd.Failed, event.Result)
		require.Empty(t, event.TeleportUser, "nothing was proven")
		require.Nil(t, event.UID)
		require.Regexp(t, regexp.MustCompile(`^127\.0\.0\.1:\d+$`), event.ConnAddress)
		told = append(told, event.SystemUser+" "+event.Reason)
	}
	return told
}

func TestHeaders(t *testing.T) {
	s := newSite(t, web.Limits{})
	token := s.token(t, "alice", login.InviteToken)
	for _, tc := range []struct {
		method, path string
		status       int
		contentType  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/web/invite/" + token.GetName(), 200, "text/html; charset=utf-8"},
		{"GET", "/web/reset/" + token.GetName(), 404, "text/html; charset=utf-8"},
		{"GET", "/web/invite/0000", 404, "text/html; charset=utf-8"},
		{"GET", "/web/invite/" + strings.Repeat("a", 4000), 404, "text/html; charset=utf-8"},
		{"GET", "/web/invite/", 404, "text/html; charset=utf-8"},
		{"GET", "/favicon.ico", 404, "text/html; charset=utf-8"},
		{"PUT", "/web/invite/" + token.GetName(), 405, "text/html; charset=utf-8"},
		{"POST", "/", 405, "text/html; charset=utf-8"},
		{"GET", "/webapi/find", 200, "application/json"},
		{"GET", "/webapi/ping", 200, "application/json"},
		{"POST", "/webapi/ping", 405, "application/json"},
		{"GET", "/webapi/ssh/certs", 405, "application/json"},
		{"GET", "/webapi/sites", 404, "application/json"},
		{"POST", "/webapi/ssh/certs", 400, "application/json"},
	} {
		t.Run(tc.method+" "+tc.path[:min(len(tc.path), 40)], func(t *testing.T) {
			response, body := s.do(t, tc.method, tc.path, nil)
			require.Equal(t, tc.status, response.StatusCode, "%s", body)
			header := response.Header
			require.Equal(t, tc.contentType, header.Get("Content-Type"))
			require.Regexp(t, regexp.MustCompile(`^default-src 'none'; img-src data:; style-src 'sha256-[A-Za-z0-9+/=]{44}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'$`),
				header.Get("Content-Security-Policy"))
			require.Equal(t, "DENY", header.Get("X-Frame-Options"))
			require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
			require.Equal(t, "no-referrer", header.Get("Referrer-Policy"))
			require.Equal(t, "no-store", header.Get("Cache-Control"))
			require.Equal(t, "max-age=31536000", header.Get("Strict-Transport-Security"))
			require.Empty(t, header.Values("Set-Cookie"))
			require.Equal(t, tc.status == 405, header.Get("Allow") != "")
			require.NotContains(t, body, "<script")
			require.NotContains(t, body, "ZgotmplZ")
		})
	}
	require.Empty(t, s.events(t), "probes are no failed logins")
}

func TestFindAndPing(t *testing.T) {
	s := newSite(t, web.Limits{})
	cfg := &webclient.Config{Context: t.Context(), ProxyAddr: s.Listener.Addr().String(), Insecure: true}
	found, err := webclient.Find(cfg)
	require.NoError(t, err)
	require.Equal(t, "example.com", found.ClusterName)
	require.Equal(t, proxyAddr, found.Proxy.SSH.PublicAddr)
	require.False(t, found.Proxy.TLSRoutingEnabled)

	for _, factor := range []constants.SecondFactorType{constants.SecondFactorOTP, constants.SecondFactorOff} {
		s.cluster.secondFactor = factor
		pinged, err := webclient.Ping(cfg)
		require.NoError(t, err)
		require.Equal(t, "local", pinged.Auth.Type)
		require.Equal(t, factor, pinged.Auth.SecondFactor)
	}
	s.cluster.away = trace.ConnectionProblem(nil, "secret details")
	_, err = webclient.Ping(cfg)
	require.ErrorContains(t, err, "the proxy cannot reach the cluster's auth service")
	require.NotContains(t, err.Error(), "secret details")
	_, err = webclient.Find(cfg)
	require.NoError(t, err, "addresses need no auth service")
}

func TestLogin(t *testing.T) {
	s := newSite(t, web.Limits{})
	token := s.token(t, "alice", login.InviteToken)
	secret := s.secret(t, token.GetName())
	_, err := s.cluster.ChangeUserAuthentication(t.Context(), &proto.ChangeUserAuthenticationRequest{
		TokenID: token.GetName(), NewPassword: []byte(goodPassword),
		NewMFARegisterResponse: &proto.MFARegisterResponse{Response: &proto.MFARegisterResponse_TOTP{TOTP: &proto.TOTPRegisterResponse{Code: s.code(t, secret)}}},
	})
	require.NoError(t, err)
	request := func(change ...any) map[string]any {
		s.clock.Advance(otpPeriod)
		r := map[string]any{
			"user": "alice", "password": goodPassword, "otp_token": s.code(t, secret),
			"ssh_pub_key": []byte("ssh key"), "tls_pub_key": []byte("tls key"), "ttl": time.Hour,
		}
		for i := 0; i < len(change); i += 2 {
			r[change[i].(string)] = change[i+1]
		}
		return r
	}
	good := request()
	status, answer := s.login(t, good)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, map[string]any{
		"username": "alice", "cert": "Y2VydCBvZiBzc2gga2V5", "tls_cert": "Y2VydCBvZiB0bHMga2V5",
		"host_signers": []any{map[string]any{"domain_name": "example.com", "checking_keys": []any{"c3NoLWhvc3QtY2E="}, "tls_certs": []any{"dGxzLWhvc3QtY2E="}}},
	}, answer)
	require.Empty(t, s.events(t))

	for _, tc := range []struct {
		name    string
		request map[string]any
		setup   func()
		status  int
		message string
		events  []string
	}{
		{name: "wrong password", request: request("password", "wrong"), status: 403, message: login.WrongCredentials, events: []string{"alice wrong-password-or-code"}},
		{name: "wrong code", request: request("otp_token", "000000"), status: 403, message: login.WrongCredentials, events: []string{"alice wrong-password-or-code"}},
		{name: "reused code", request: good, status: 403, message: login.WrongCredentials, events: []string{"alice wrong-password-or-code"}},
		{name: "unknown user", request: request("user", "mallory"), status: 403, message: login.WrongCredentials, events: []string{"mallory wrong-password-or-code"}},
		{name: "malformed", request: request("ttl", -1), status: 400, message: "certificates cannot be valid for -1ns: ask for a positive time", events: []string{"alice login-request-is-malformed"}},
		{name: "no user", request: request("user", ""), status: 400, message: "no user name was given"},
		{name: "not JSON for a login", request: map[string]any{"user": 7}, status: 400, message: "the body of the request is not the JSON of a login"},
		{name: "too large", request: request("password", strings.Repeat("x", 1<<20)), status: 413, message: "the request is too large"},
		{name: "locked", setup: func() { s.cluster.locked = true }, status: 403, message: login.LockedPrefix, events: []string{"alice user-is-locked"}},
		{name: "locked out", setup: func() {
			s.cluster.locked = false
			for range auth.MaxLoginFailures {
				s.login(t, request("password", "wrong"))
			}
			s.events(t)
		}, status: 429, message: "too many failed logins: try again in 20 min, or ask an administrator for a reset", events: []string{"alice user-is-locked-out"}},
		{name: "auth service is away", setup: func() { require.NoError(t, s.cluster.conn.Close()) }, status: 503,
			message: "the proxy cannot reach the cluster's auth service: try again in a moment", events: []string{"alice auth-service-did-not-answer"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.setup != nil {
				tc.setup()
			}
			if tc.request == nil {
				tc.request = request()
				s.clock.Advance(-otpPeriod) // as fresh as the lockout's clock
				tc.request["otp_token"] = s.code(t, secret)
			}
			status, answer := s.login(t, tc.request)
			require.Equal(t, tc.status, status)
			require.Equal(t, map[string]any{"error": map[string]any{"message": tc.message}}, answer)
			require.Equal(t, tc.events, s.events(t))
		})
	}
	// The connection was closed for the last case, and closes again at the end.
	s.cluster.conn, err = grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
}

func TestLinks(t *testing.T) {
	for _, kind := range []struct{ subKind, path, title, bad string }{
		{login.InviteToken, "/web/invite/", "Welcome, alice", "invite-is-not-valid"},
		{login.ResetToken, "/web/reset/", "Choose a new password, alice", "reset-is-not-valid"},
	} {
		t.Run(kind.subKind, func(t *testing.T) {
			s := newSite(t, web.Limits{})
			token := s.token(t, "alice", kind.subKind)
			path := kind.path + token.GetName()
			response, page := s.do(t, "GET", path, nil)
			require.Equal(t, http.StatusOK, response.StatusCode)
			require.Contains(t, page, kind.title)
			secret := s.secret(t, token.GetName())
			require.Contains(t, strings.ReplaceAll(page, " ", ""), secret)
			require.Contains(t, page, `src="data:image/png;base64,`)

			form := func(password, again, code string) url.Values {
				return url.Values{"user": {"alice"}, "password": {password}, "again": {again}, "code": {code}}
			}
			for _, tc := range []struct {
				name   string
				form   url.Values
				text   string
				events []string
			}{
				{"two passwords", form(goodPassword, "another password", s.code(t, secret)), "The two passwords are not the same.", nil},
				{"short password", form("short", "short", s.code(t, secret)), "The password is too short: choose one of at least 12 characters.", nil},
				{"wrong code", form(goodPassword, goodPassword, "000000"), "The code is not right", []string{"alice wrong-code"}},
				{"no code", form(goodPassword, goodPassword, ""), "The code is not right", []string{"alice wrong-code"}},
				{"empty", url.Values{}, "The password is too short", nil},
			} {
				t.Run(tc.name, func(t *testing.T) {
					response, page := s.post(t, path, tc.form)
					require.Equal(t, http.StatusUnprocessableEntity, response.StatusCode)
					require.Contains(t, page, tc.text)
					require.Contains(t, page, `role="alert"`)
					require.Contains(t, strings.ReplaceAll(page, " ", ""), secret, "the secret has changed under the user's hands")
					require.NotContains(t, page, goodPassword)
					require.Equal(t, tc.events, s.events(t))
				})
			}

			response, page = s.post(t, path, url.Values{"user": {strings.Repeat("x", 9<<10)}})
			require.Equal(t, http.StatusRequestEntityTooLarge, response.StatusCode)
			require.Contains(t, page, "The request is too large.")

			s.cluster.away = trace.ConnectionProblem(nil, "secret details")
			response, page = s.post(t, path, form(goodPassword, goodPassword, s.code(t, secret)))
			require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
			require.NotContains(t, page, "secret details")
			require.Equal(t, []string{"alice auth-service-did-not-answer"}, s.events(t))
			s.cluster.away = nil

			response, page = s.post(t, path, form(goodPassword, goodPassword, s.code(t, secret)))
			require.Equal(t, http.StatusOK, response.StatusCode)
			require.Contains(t, page, "tsh login --proxy=proxy.example.com:3080 --user=alice")
			require.Empty(t, s.events(t))

			// Good once.
			response, page = s.do(t, "GET", path, nil)
			require.Equal(t, http.StatusNotFound, response.StatusCode)
			require.Contains(t, page, "This link is not valid")
			require.Empty(t, s.events(t))
			response, _ = s.post(t, path, form(goodPassword, goodPassword, s.code(t, secret)))
			require.Equal(t, http.StatusNotFound, response.StatusCode)
			require.Equal(t, []string{"alice " + kind.bad}, s.events(t))
			response, _ = s.post(t, path, url.Values{})
			require.Equal(t, http.StatusNotFound, response.StatusCode)
			require.Empty(t, s.events(t), "nobody was named")
		})
	}
}

func TestLinkWithoutSecondFactor(t *testing.T) {
	s := newSite(t, web.Limits{})
	s.cluster.secondFactor = constants.SecondFactorOff
	path := "/web/invite/" + s.token(t, "odd 'name <b>", login.InviteToken).GetName()
	_, page := s.do(t, "GET", path, nil)
	require.NotContains(t, page, "<img")
	require.NotContains(t, page, `name="code"`)
	require.NotContains(t, page, "<b>")
	response, page := s.post(t, path, url.Values{"password": {goodPassword}, "again": {goodPassword}})
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Contains(t, page, "--user=&#39;odd &#39;\\&#39;&#39;name &lt;b&gt;&#39;")
}

// What another site's page makes a browser send is refused before it is looked
// into.
func TestCrossOrigin(t *testing.T) {
	s := newSite(t, web.Limits{})
	path := "/web/invite/" + s.token(t, "alice", login.InviteToken).GetName()
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://elsewhere.example"},
		{"Origin", "null"},
	} {
		for _, path := range []string{path, "/webapi/ssh/certs"} {
			response, body := s.do(t, "POST", path, strings.NewReader(`{"user":"alice"}`), header...)
			require.Equal(t, http.StatusForbidden, response.StatusCode, "%v %s", header, body)
			require.Contains(t, body, "another site")
		}
		response, _ := s.do(t, "GET", path, nil, header...)
		require.Equal(t, http.StatusOK, response.StatusCode, "a link in a mail was refused")
	}
	require.Empty(t, s.events(t))
	response, _ := s.do(t, "POST", path, nil, "Sec-Fetch-Site", "same-origin", "Origin", "null")
	require.Equal(t, http.StatusUnprocessableEntity, response.StatusCode, "what browsers send for this page's own form was refused")
}

func TestLimits(t *testing.T) {
	s := newSite(t, web.Limits{Reads: 1, ReadsBurst: 3, Writes: 1, WritesBurst: 2})
	for range 2 {
		status, _ := s.login(t, map[string]any{"user": "alice"})
		require.Equal(t, http.StatusBadRequest, status)
	}
	s.events(t)
	status, answer := s.login(t, map[string]any{"user": "alice"})
	require.Equal(t, http.StatusTooManyRequests, status)
	require.Contains(t, fmt.Sprint(answer), "too many requests")
	require.Empty(t, s.events(t))
	for range 3 {
		response, _ := s.do(t, "GET", "/", nil)
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	response, page := s.do(t, "GET", "/", nil)
	require.Equal(t, http.StatusTooManyRequests, response.StatusCode)
	require.NotEmpty(t, response.Header.Get("Retry-After"))
	require.Contains(t, page, "Too many requests")
	s.clock.Advance(time.Second)
	response, _ = s.do(t, "GET", "/", nil)
	require.Equal(t, http.StatusOK, response.StatusCode)
}

func TestConfig(t *testing.T) {
	good := func() web.Config {
		return web.Config{
			Auth: func() web.AuthClient { return nil }, ClusterName: "c",
			Proxy: func() webclient.ProxySettings { return webclient.ProxySettings{} }, Emitter: &auditdtest.Recorder{},
		}
	}
	_, err := web.New(good())
	require.NoError(t, err)
	for name, change := range map[string]func(*web.Config){
		"auth":    func(c *web.Config) { c.Auth = nil },
		"cluster": func(c *web.Config) { c.ClusterName = "" },
		"proxy":   func(c *web.Config) { c.Proxy = nil },
		"emitter": func(c *web.Config) { c.Emitter = nil },
	} {
		cfg := good()
		change(&cfg)
		_, err := web.New(cfg)
		require.True(t, trace.IsBadParameter(err), "%s: %v", name, err)
	}
}
