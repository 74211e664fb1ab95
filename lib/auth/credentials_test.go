// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/pquerna/otp/totp"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/backend/sqlite"
)

const goodPassword = "correct horse battery"

// fakeCluster is the auth server around Credentials.
type fakeCluster struct {
	mu           sync.Mutex
	users        map[string][]string // roles by name
	secondFactor constants.SecondFactorType
	events       []apievents.AuditEvent
	strangers    int // of the events, about names that nobody knows
	emitError    error
	certsError   error
	certs        []proto.UserCertsRequest
	// onGetUser runs before each look-up.
	onGetUser func()
}

func (f *fakeCluster) ClusterName() string { return "example.com" }

func (f *fakeCluster) GetUser(_ context.Context, name string, _ bool) (types.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onGetUser != nil {
		f.onGetUser()
	}
	roles, found := f.users[name]
	if !found {
		return nil, trace.NotFound("user %q is not there", name)
	}
	user, err := types.NewUser(name)
	if err != nil {
		return nil, err
	}
	user.SetRoles(roles)
	return user, nil
}

func (f *fakeCluster) GetAuthPreference(context.Context) (types.AuthPreference, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return types.NewAuthPreference(types.AuthPreferenceSpecV2{SecondFactor: f.secondFactor})
}

func (f *fakeCluster) GetCertAuthorities(_ context.Context, kind types.CertAuthType, loadKeys bool) ([]types.CertAuthority, error) {
	if kind != types.HostCA || loadKeys {
		return nil, trace.BadParameter("asked for %v, with keys %v", kind, loadKeys)
	}
	authority, err := types.NewCertAuthority(types.CertAuthoritySpecV2{
		Type:        kind,
		ClusterName: "example.com",
		ActiveKeys: types.CAKeySet{
			SSH: []*types.SSHKeyPair{{PublicKey: []byte("ssh-host-ca")}},
			TLS: []*types.TLSKeyPair{{Cert: []byte("tls-host-ca")}},
		},
		AdditionalTrustedKeys: types.CAKeySet{SSH: []*types.SSHKeyPair{{PublicKey: []byte("ssh-host-ca-2")}}},
	})
	return []types.CertAuthority{authority}, err
}

func (f *fakeCluster) GenerateUserCerts(_ context.Context, req proto.UserCertsRequest) (*proto.Certs, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.certs = append(f.certs, req)
	return &proto.Certs{SSH: []byte("ssh-cert"), TLS: []byte("tls-cert")}, f.certsError
}

func (f *fakeCluster) EmitAuditEvent(_ context.Context, event apievents.AuditEvent) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, event)
	return f.emitError
}

func (f *fakeCluster) EmitStrangersEvent(ctx context.Context, event apievents.AuditEvent) error {
	err := f.EmitAuditEvent(ctx, event)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strangers++
	return err
}

// logins returns the reasons of the failed logins so far, and "ok" for others.
func (f *fakeCluster) logins() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var logins []string
	for _, event := range f.events {
		if event, ok := event.(*apievents.UserLogin); ok {
			if event.Success {
				logins = append(logins, "ok")
			} else {
				logins = append(logins, event.Error)
			}
		}
	}
	return logins
}

// plainSealer notices what is opened elsewhere than it was sealed.
type plainSealer struct{}

func (plainSealer) Seal(plaintext []byte, associated string) ([]byte, error) {
	return fmt.Appendf(nil, "sealed for %s: %x", associated, plaintext), nil
}

func (plainSealer) Open(sealed []byte, associated string) ([]byte, error) {
	text, found := bytes.CutPrefix(sealed, fmt.Appendf(nil, "sealed for %s: ", associated))
	if !found {
		return nil, trace.BadParameter("%q was not sealed for %q", sealed, associated)
	}
	var plaintext []byte
	_, err := fmt.Sscanf(string(text), "%x", &plaintext)
	return plaintext, err
}

// people are two auth servers on one store, with the user alice.
type people struct {
	*Credentials
	other   *Credentials
	cluster *fakeCluster
	store   backend.Backend
	clock   *clockwork.FakeClock
}

func newPeople(t *testing.T) *people {
	clock := clockwork.NewFakeClockAt(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	store, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(t.TempDir(), "data"), Clock: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	p := &people{
		cluster: &fakeCluster{users: map[string][]string{"alice": {"access"}}, secondFactor: constants.SecondFactorOTP},
		store:   store,
		clock:   clock,
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	for _, server := range []**Credentials{&p.Credentials, &p.other} {
		*server, err = NewCredentials(CredentialsConfig{
			Backend:   store,
			Sealer:    plainSealer{},
			Cluster:   p.cluster,
			ProxyAddr: func(context.Context) string { return "proxy.example.com:3080" },
			Clock:     clock,
			Log:       log,
		})
		require.NoError(t, err)
	}
	return p
}

func (p *people) invite(t *testing.T, user string) types.UserToken {
	token, err := p.CreateResetPasswordToken(t.Context(), user, login.InviteToken, 0, "admin")
	require.NoError(t, err)
	return token
}

func (p *people) secret(t *testing.T, tokenID string) string {
	challenge, err := p.CreateRegisterChallenge(t.Context(), tokenID)
	require.NoError(t, err)
	return challenge.GetTOTP().GetSecret()
}

func (p *people) code(t *testing.T, secret string) string {
	code, err := totp.GenerateCode(secret, p.clock.Now())
	require.NoError(t, err)
	return code
}

func change(tokenID, password, code string) *proto.ChangeUserAuthenticationRequest {
	return &proto.ChangeUserAuthenticationRequest{
		TokenID:     tokenID,
		NewPassword: []byte(password),
		NewMFARegisterResponse: &proto.MFARegisterResponse{
			Response: &proto.MFARegisterResponse_TOTP{TOTP: &proto.TOTPRegisterResponse{Code: code}},
		},
		LoginIP: "192.0.2.7",
	}
}

// register takes the invitation, and returns the secret when its first code is
// over.
func (p *people) register(t *testing.T, user string) string {
	token := p.invite(t, user)
	secret := p.secret(t, token.GetName())
	_, err := p.ChangeUserAuthentication(t.Context(), change(token.GetName(), goodPassword, p.code(t, secret)))
	require.NoError(t, err)
	p.clock.Advance(otpPeriod)
	return secret
}

func loginRequest(user, password, code string) login.Request {
	return login.Request{
		User: user, Password: password, OTP: code,
		SSHPublicKey: []byte("ssh key"), TLSPublicKey: []byte("tls key"),
		TTL: time.Hour, ClientAddr: "192.0.2.7:50122",
	}
}

func TestLogin(t *testing.T) {
	p := newPeople(t)
	secret := p.register(t, "alice")
	response, err := p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.NoError(t, err)
	require.Equal(t, &login.Response{
		User: "alice", SSH: []byte("ssh-cert"), TLS: []byte("tls-cert"), Cluster: "example.com",
		SSHHostCAs: [][]byte{[]byte("ssh-host-ca"), []byte("ssh-host-ca-2")},
		TLSHostCAs: [][]byte{[]byte("tls-host-ca")},
	}, response)
	require.Equal(t, proto.UserCertsRequest{
		Username: "alice", SSHPublicKey: []byte("ssh key"), TLSPublicKey: []byte("tls key"),
		Expires: p.clock.Now().Add(time.Hour),
	}, p.cluster.certs[0])

	var kinds []string
	for _, event := range p.cluster.events {
		kinds = append(kinds, event.GetType()+" "+event.GetCode())
		require.NotEmpty(t, event.GetID())
		require.Equal(t, "example.com", event.GetClusterName())
	}
	require.Equal(t, []string{"reset_password_token.create T6000I", "user.password_change T1005I", "mfa.add T1006I", "user.login T1000I"}, kinds)
	event := p.cluster.events[3].(*apievents.UserLogin)
	require.Equal(t, "alice", event.User)
	require.Equal(t, "192.0.2.7:50122", event.RemoteAddr)
	require.Equal(t, "authenticator", event.MFADevice.DeviceName)

	// What lies in the store opens nothing.
	items, err := p.store.Range(t.Context(), "/", "", 0)
	require.NoError(t, err)
	for _, item := range items {
		require.NotContains(t, string(item.Value), secret, "%s", item.Key)
		require.NotContains(t, string(item.Value), goodPassword, "%s", item.Key)
	}
}

func TestLoginRefused(t *testing.T) {
	locked := func(p *people) { p.cluster.certsError = trace.AccessDenied(login.LockedPrefix + ": stolen laptop") }
	for name, tc := range map[string]struct {
		change func(*login.Request)
		setup  func(*people)
		reason string
		text   string
	}{
		"wrong password":       {change: func(r *login.Request) { r.Password = "correct horse batterz" }, reason: "wrong-password"},
		"no password":          {change: func(r *login.Request) { r.Password = "" }, reason: "wrong-password"},
		"more than the most":   {change: func(r *login.Request) { r.Password += strings.Repeat("x", login.MaxPasswordLength) }, reason: "wrong-password"},
		"wrong code":           {change: func(r *login.Request) { r.OTP = "000000" }, reason: "wrong-code"},
		"no code":              {change: func(r *login.Request) { r.OTP = "" }, reason: "code-is-missing"},
		"unknown user":         {change: func(r *login.Request) { r.User = "mallory" }, reason: "no-such-user"},
		"another's name":       {change: func(r *login.Request) { r.User = "Alice" }, reason: "no-such-user"},
		"path in the name":     {change: func(r *login.Request) { r.User = "../alice" }, reason: "user-name-is-not-valid"},
		"control character":    {change: func(r *login.Request) { r.User = "alice\n" }, reason: "user-name-is-not-valid"},
		"name of a megabyte":   {change: func(r *login.Request) { r.User = strings.Repeat("a", 1<<20) }, reason: "user-name-is-not-valid"},
		"locked":               {setup: locked, reason: "user-is-locked", text: login.LockedPrefix + ": stolen laptop"},
		"locked, but a thief":  {change: func(r *login.Request) { r.OTP = "000000" }, setup: locked, reason: "wrong-code"},
		"no device":            {setup: func(p *people) { _ = p.store.Delete(context.Background(), otpPrefix+"alice") }, reason: "user-has-no-second-factor"},
		"no password set":      {setup: func(p *people) { _ = p.store.Delete(context.Background(), passwordsPrefix+"alice") }, reason: "user-has-no-password"},
		"roles allow nothing":  {setup: func(p *people) { p.cluster.certsError = trace.AccessDenied("no logins") }, reason: "certificates-are-not-allowed", text: "no logins"},
		"key is missing":       {change: func(r *login.Request) { r.SSHPublicKey, r.TLSPublicKey = nil, nil }, reason: "request-is-malformed", text: "there is no public key to sign"},
		"negative time":        {change: func(r *login.Request) { r.TTL = -1 }, reason: "request-is-malformed", text: "certificates cannot be valid for -1ns: ask for a positive time"},
		"code of two ago":      {change: func(r *login.Request) {}, setup: func(p *people) { p.clock.Advance(2 * otpPeriod) }, reason: "wrong-code"},
		"code of two from now": {change: func(r *login.Request) {}, setup: func(p *people) { p.clock.Advance(-2 * otpPeriod) }, reason: "wrong-code"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeople(t)
			secret := p.register(t, "alice")
			p.clock.Advance(time.Hour)
			req := loginRequest("alice", goodPassword, p.code(t, secret))
			if tc.change != nil {
				tc.change(&req)
			}
			if tc.setup != nil {
				tc.setup(p)
			}
			response, err := p.Authenticate(t.Context(), req)
			require.Nil(t, response)
			if tc.text == "" {
				require.True(t, trace.IsAccessDenied(err), "%v", err)
				tc.text = login.WrongCredentials
			}
			require.EqualError(t, err, tc.text)
			require.Equal(t, []string{tc.reason}, p.cluster.logins())
			event := p.cluster.events[len(p.cluster.events)-1].(*apievents.UserLogin)
			require.Equal(t, "T1000W", event.Code)
			require.Equal(t, "192.0.2.7:50122", event.RemoteAddr)
			require.LessOrEqual(t, len(event.User), MaxNameLength)
		})
	}
}

func TestSecondFactorOff(t *testing.T) {
	p := newPeople(t)
	p.cluster.secondFactor = constants.SecondFactorOff
	token := p.invite(t, "alice")
	_, err := p.CreateRegisterChallenge(t.Context(), token.GetName())
	require.True(t, trace.IsBadParameter(err), "%v", err)
	_, err = p.ChangeUserAuthentication(t.Context(), &proto.ChangeUserAuthenticationRequest{TokenID: token.GetName(), NewPassword: []byte(goodPassword)})
	require.NoError(t, err)
	for range 2 {
		_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, ""))
		require.NoError(t, err)
	}
	// Switched on later, a user without a device does not get in without one.
	p.cluster.secondFactor = constants.SecondFactorOTP
	_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, ""))
	require.EqualError(t, err, login.WrongCredentials)
}

func TestLoginWithoutItsEventFails(t *testing.T) {
	p := newPeople(t)
	secret := p.register(t, "alice")
	p.cluster.emitError = trace.ConnectionProblem(nil, "the store is away")
	_, err := p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.True(t, trace.IsConnectionProblem(err), "%v", err)
}

func TestCodesAreUsedOnce(t *testing.T) {
	p := newPeople(t)
	token := p.invite(t, "alice")
	secret := p.secret(t, token.GetName())
	code := p.code(t, secret)
	_, err := p.ChangeUserAuthentication(t.Context(), change(token.GetName(), goodPassword, code))
	require.NoError(t, err)
	_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, code))
	require.EqualError(t, err, login.WrongCredentials, "the code of the registration was taken again")

	p.clock.Advance(otpPeriod)
	code = p.code(t, secret)
	// Of many at once, on two auth servers, one wins.
	const tries = 4
	var group sync.WaitGroup
	errs := make([]error, tries)
	for i := range tries {
		group.Go(func() {
			server := []*Credentials{p.Credentials, p.other}[i%2]
			_, errs[i] = server.Authenticate(t.Context(), loginRequest("alice", goodPassword, code))
		})
	}
	group.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			require.EqualError(t, err, login.WrongCredentials)
		}
	}
	require.Equal(t, 1, won)
	// Where it is still the next server's current one, too.
	p.clock.Advance(otpPeriod)
	_, err = p.other.Authenticate(t.Context(), loginRequest("alice", goodPassword, code))
	require.EqualError(t, err, login.WrongCredentials)
	reasons := p.cluster.logins()
	require.Equal(t, "code-was-used-already", reasons[len(reasons)-1])
}

func TestLockout(t *testing.T) {
	p := newPeople(t)
	secret := p.register(t, "alice")
	fail := func(user, password, code string) error {
		_, err := p.Authenticate(t.Context(), loginRequest(user, password, code))
		require.Error(t, err)
		return err
	}
	// Two servers count together; wrong codes and used ones count, too.
	used := p.code(t, secret)
	_, err := p.Authenticate(t.Context(), loginRequest("alice", goodPassword, used))
	require.NoError(t, err)
	_, err = p.other.Authenticate(t.Context(), loginRequest("alice", "wrong", used))
	require.EqualError(t, err, login.WrongCredentials)
	for range 2 {
		require.EqualError(t, fail("alice", goodPassword, "000000"), login.WrongCredentials)
	}
	for range 2 {
		require.EqualError(t, fail("alice", goodPassword, used), login.WrongCredentials)
	}
	p.clock.Advance(otpPeriod)
	err = fail("alice", goodPassword, p.code(t, secret))
	require.True(t, trace.IsLimitExceeded(err), "%v", err)
	require.ErrorContains(t, err, "try again in 20 min")
	_, err = p.other.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.True(t, trace.IsLimitExceeded(err), "%v", err)
	require.Equal(t, []string{"ok", "wrong-password", "wrong-code", "wrong-code", "code-was-used-already", "code-was-used-already", "user-is-locked-out", "user-is-locked-out"}, p.cluster.logins())

	// Trying on does not make it longer.
	p.clock.Advance(LockoutPeriod - otpPeriod)
	_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.NoError(t, err)
	_, err = p.store.Get(t.Context(), loginAttemptsPrefix+"alice")
	require.True(t, trace.IsNotFound(err), "a success left %v", err)

	// Failures that are further apart do not add up.
	for range 2 * MaxLoginFailures {
		require.EqualError(t, fail("alice", "wrong", ""), login.WrongCredentials)
		p.clock.Advance(LoginFailureWindow / (MaxLoginFailures - 1))
	}

	// Who does not exist is locked out alike.
	for range MaxLoginFailures {
		require.EqualError(t, fail("nobody", "wrong", ""), login.WrongCredentials)
	}
	err = fail("nobody", "wrong", "")
	require.ErrorContains(t, err, "try again in 20 min")
}

func TestResetEndsALockout(t *testing.T) {
	p := newPeople(t)
	secret := p.register(t, "alice")
	for range MaxLoginFailures {
		_, err := p.Authenticate(t.Context(), loginRequest("alice", "wrong", ""))
		require.EqualError(t, err, login.WrongCredentials)
	}
	token, err := p.CreateResetPasswordToken(t.Context(), "alice", login.ResetToken, time.Hour, "admin")
	require.NoError(t, err)
	require.Equal(t, "https://proxy.example.com:3080/web/reset/"+token.GetName(), token.GetURL())
	// What was known before is worth nothing from here on.
	_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.EqualError(t, err, login.WrongCredentials)

	fresh := p.secret(t, token.GetName())
	require.NotEqual(t, secret, fresh)
	_, err = p.ChangeUserAuthentication(t.Context(), change(token.GetName(), "another horse battery", p.code(t, fresh)))
	require.NoError(t, err)
	p.clock.Advance(otpPeriod)
	_, err = p.Authenticate(t.Context(), loginRequest("alice", "another horse battery", p.code(t, fresh)))
	require.NoError(t, err)
}

// Who tries many passwords at once has no more of them looked at.
func TestLockoutHoldsAgainstManyAtOnce(t *testing.T) {
	p := newPeople(t)
	const tries = 40
	var group sync.WaitGroup
	errs := make([]error, tries)
	for i := range tries {
		group.Go(func() {
			server := []*Credentials{p.Credentials, p.other}[i%2]
			_, errs[i] = server.Authenticate(t.Context(), loginRequest("alice", fmt.Sprintf("guess number %d", i), ""))
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(10 * time.Millisecond):
			p.clock.Advance(attemptRetry) // those who wait look again
		}
	}
	looked := 0
	for _, err := range errs {
		if trace.IsAccessDenied(err) {
			looked++
		} else {
			require.True(t, trace.IsLimitExceeded(err), "%v", err)
		}
	}
	require.Equal(t, MaxLoginFailures, looked)
}

// An attempt whose auth server died in it counts as failed.
func TestAttemptsWithoutAnEnd(t *testing.T) {
	p := newPeople(t)
	for range MaxLoginFailures {
		_, err := p.beginAttempt(t.Context(), "alice")
		require.NoError(t, err)
	}
	p.clock.Advance(attemptTimeout)
	_, err := p.beginAttempt(t.Context(), "alice")
	require.True(t, trace.IsLimitExceeded(err), "%v", err)
	require.ErrorContains(t, err, "in 20 min")
}

// An auth server that cannot read its store counts nothing against the user.
func TestAttemptsThatCouldNotBeMade(t *testing.T) {
	p := newPeople(t)
	secret := p.register(t, "alice")
	key := passwordsPrefix + "alice"
	item, err := p.store.Get(t.Context(), key)
	require.NoError(t, err)
	_, err = p.store.Put(t.Context(), backend.Item{Key: key, Value: []byte(`{"hash":"$argon2id$v=19$m=4294967295,t=3,p=1$AAAA$AAAA"}`)})
	require.NoError(t, err)
	for range 2 * MaxLoginFailures {
		_, err := p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
		require.True(t, trace.IsConnectionProblem(err), "%v", err)
		require.NotContains(t, err.Error(), "password")
	}
	require.Contains(t, p.cluster.logins()[0], "tctl users reset")
	_, err = p.store.Put(t.Context(), item)
	require.NoError(t, err)
	_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.NoError(t, err)
}

func TestUserTokens(t *testing.T) {
	ctx := t.Context()
	p := newPeople(t)
	token := p.invite(t, "alice")
	require.Len(t, token.GetName(), 32)
	require.Equal(t, "https://proxy.example.com:3080/web/invite/"+token.GetName(), token.GetURL())
	require.Equal(t, p.clock.Now().Add(time.Hour), token.Expiry())
	items, err := p.store.Range(ctx, "/", "", 0)
	require.NoError(t, err)
	for _, item := range items {
		require.NotContains(t, item.Key+string(item.Value), token.GetName(), "who reads the store could use the link")
	}

	read, err := p.other.GetResetPasswordToken(ctx, token.GetName())
	require.NoError(t, err)
	require.Equal(t, "alice", read.GetUser())
	require.Equal(t, login.InviteToken, read.GetSubKind())
	require.Equal(t, token.GetName(), read.GetName())

	// The challenge is the same at every call and server.
	challenge, err := p.CreateRegisterChallenge(ctx, token.GetName())
	require.NoError(t, err)
	again, err := p.other.CreateRegisterChallenge(ctx, token.GetName())
	require.NoError(t, err)
	require.Equal(t, challenge, again)
	require.Equal(t, "example.com", challenge.GetTOTP().GetIssuer())
	require.Equal(t, "alice", challenge.GetTOTP().GetAccount())
	_, err = png.Decode(bytes.NewReader(challenge.GetTOTP().GetQRCode()))
	require.NoError(t, err)

	// A mistake leaves the link good.
	secret := challenge.GetTOTP().GetSecret()
	for _, tc := range []struct {
		password, code, text string
	}{
		{"too short", p.code(t, secret), "at least 12 characters"},
		{strings.Repeat("long", 100), p.code(t, secret), "longer than 256 bytes"},
		{"\xff\xfe not text at all", p.code(t, secret), "not UTF-8"},
		{goodPassword, "000000", "code is not right"},
		{goodPassword, "", "code is not right"},
	} {
		_, err = p.ChangeUserAuthentication(ctx, change(token.GetName(), tc.password, tc.code))
		require.ErrorContains(t, err, tc.text)
	}
	code := p.code(t, secret)
	_, err = p.ChangeUserAuthentication(ctx, change(token.GetName(), goodPassword, code[:3]+" "+code[3:]))
	require.NoError(t, err)

	for name, use := range map[string]func(id string) error{
		"get":       func(id string) error { _, err := p.GetResetPasswordToken(ctx, id); return err },
		"challenge": func(id string) error { _, err := p.CreateRegisterChallenge(ctx, id); return err },
		"change": func(id string) error {
			_, err := p.ChangeUserAuthentication(ctx, change(id, goodPassword, code))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			replaced, latest := p.invite(t, "alice"), p.invite(t, "alice")
			p.cluster.users["bob"] = nil
			gone := p.invite(t, "bob")
			delete(p.cluster.users, "bob")
			for what, id := range map[string]string{
				"used": token.GetName(), "replaced": replaced.GetName(), "of a user who is gone": gone.GetName(),
				"of no one": strings.Repeat("0", 32), "empty": "", "a path": "../of/alice",
			} {
				err := use(id)
				require.True(t, trace.IsNotFound(err), "%s: %v", what, err)
				require.ErrorContains(t, err, "the link is not valid", what)
			}
			p.clock.Advance(time.Hour)
			err := use(latest.GetName())
			require.True(t, trace.IsNotFound(err), "expired: %v", err)
		})
	}

	for name, tc := range map[string]struct {
		user, kind string
		ttl        time.Duration
		is         func(error) bool
	}{
		"unknown user": {"nobody", login.InviteToken, 0, trace.IsNotFound},
		"odd name":     {"a\nb", login.InviteToken, 0, trace.IsBadParameter},
		"kind":         {"alice", "recovery", 0, trace.IsBadParameter},
		"too long":     {"alice", login.ResetToken, MaxUserTokenTTL + 1, trace.IsBadParameter},
		"negative":     {"alice", login.ResetToken, -time.Hour, trace.IsBadParameter},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.CreateResetPasswordToken(ctx, tc.user, tc.kind, tc.ttl, "admin")
			require.True(t, tc.is(err), "%v", err)
		})
	}
}

func TestUserTokenIsUsedOnce(t *testing.T) {
	p := newPeople(t)
	token := p.invite(t, "alice")
	secret := p.secret(t, token.GetName())
	const tries = 6
	var group sync.WaitGroup
	errs := make([]error, tries)
	password := func(i int) string { return fmt.Sprintf("password of number %d", i) }
	for i := range tries {
		group.Go(func() {
			server := []*Credentials{p.Credentials, p.other}[i%2]
			_, errs[i] = server.ChangeUserAuthentication(t.Context(), change(token.GetName(), password(i), p.code(t, secret)))
		})
	}
	group.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil {
			require.Equal(t, -1, winner, "two used the token")
			winner = i
		} else {
			require.True(t, trace.IsNotFound(err) || trace.IsBadParameter(err), "%v", err)
		}
	}
	require.NotEqual(t, -1, winner)
	p.clock.Advance(otpPeriod)
	_, err := p.Authenticate(t.Context(), loginRequest("alice", password(winner), p.code(t, secret)))
	require.NoError(t, err)
}

func TestDeleteUserSecrets(t *testing.T) {
	p := newPeople(t)
	p.cluster.users["alice2"] = nil
	p.register(t, "alice2")
	before, err := p.store.Range(t.Context(), "/", "", 0)
	require.NoError(t, err)

	p.register(t, "alice")
	token := p.invite(t, "alice")
	p.secret(t, token.GetName())
	_, err = p.Authenticate(t.Context(), loginRequest("alice", "wrong", ""))
	require.Error(t, err)
	require.NoError(t, p.DeleteUserSecrets(t.Context(), "alice"))
	require.NoError(t, p.DeleteUserSecrets(t.Context(), "alice"), "nothing left to delete")
	after, err := p.store.Range(t.Context(), "/", "", 0)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// A user who is deleted while a link is used leaves no password behind.
func TestUserIsDeletedMeanwhile(t *testing.T) {
	p := newPeople(t)
	token := p.invite(t, "alice")
	secret := p.secret(t, token.GetName())
	looked := 0
	p.cluster.onGetUser = func() {
		if looked++; looked == 2 {
			delete(p.cluster.users, "alice")
		}
	}
	_, err := p.ChangeUserAuthentication(t.Context(), change(token.GetName(), goodPassword, p.code(t, secret)))
	require.True(t, trace.IsNotFound(err), "%v", err)
	items, err := p.store.Range(t.Context(), "/", "", 0)
	require.NoError(t, err)
	require.Empty(t, items)
}

func TestPasswordHash(t *testing.T) {
	hash := newPasswordHash([]byte("secret of some length"))
	read, err := parsePasswordHash(hash.String())
	require.NoError(t, err)
	require.Equal(t, hash, read)
	require.True(t, read.matches([]byte("secret of some length")))
	require.False(t, read.matches([]byte("secret of some lengt")))
	require.NotEqual(t, hash.String(), newPasswordHash([]byte("secret of some length")).String(), "two users' hashes are the same")
	// Older parameters are honoured.
	old, err := parsePasswordHash("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$9I9YzDfHW9ROyPpmnMpgFtRx5JMGTZmP8zv9qCRQsKI")
	require.NoError(t, err)
	require.EqualValues(t, 64, old.memory)

	for _, text := range []string{
		"", "$", "plain",
		strings.Replace(hash.String(), "argon2id", "argon2i", 1),
		strings.Replace(hash.String(), "v=19", "v=16", 1),
		strings.Replace(hash.String(), "t=3", "t=0", 1),
		strings.Replace(hash.String(), "t=3", "t=03", 1),
		strings.Replace(hash.String(), "p=1", "p=0", 1),
		strings.Replace(hash.String(), "m=32768", "m=4294967295", 1),
		hash.String() + "$", hash.String()[:len(hash.String())-8],
	} {
		_, err := parsePasswordHash(text)
		require.Error(t, err, "%q", text)
	}
}

// TestHashingIsBounded: as many as may wait for their passwords to be looked at,
// who comes alone is not kept out by who comes in numbers, and who was kept out has
// not failed.
func TestHashingIsBounded(t *testing.T) {
	p := newPeople(t)
	for range cap(p.hashers) {
		p.hashers <- struct{}{}
	}
	alone := make(chan error, 1)
	go func() { alone <- p.hashing(t.Context(), "198.51.100.1:1", func() {}) }()
	errs := make(chan error, 2*maxHashQueue)
	for range 2 * maxHashQueue {
		go func() { errs <- p.hashing(t.Context(), "192.0.2.7:1", func() {}) }()
	}
	for range maxHashQueue {
		err := <-errs
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
		require.ErrorContains(t, err, login.TooBusy)
	}
	for range cap(p.hashers) {
		<-p.hashers
	}
	require.NoError(t, <-alone)
	for range maxHashQueue {
		if err := <-errs; err != nil {
			require.True(t, trace.IsLimitExceeded(err), "%v", err)
		}
	}

	for range cap(p.hashers) {
		p.hashers <- struct{}{}
	}
	for range MaxLoginFailures + 1 {
		done := make(chan error, 1)
		go func() {
			_, err := p.Authenticate(t.Context(), loginRequest("alice", goodPassword, ""))
			done <- err
		}()
		require.NoError(t, p.clock.BlockUntilContext(t.Context(), 1))
		p.clock.Advance(maxHashWait)
		err := <-done
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
		require.ErrorContains(t, err, login.TooBusy)
	}
}

// TestStrangersEvents: what is said of names that nobody has, and of attempts that
// were not looked at, is for the short while.
func TestStrangersEvents(t *testing.T) {
	p := newPeople(t)
	for _, tc := range []struct {
		name      string
		strangers int
	}{{"alice", 0}, {"nobody", 1}, {"no/name", 2}} {
		_, err := p.Authenticate(t.Context(), loginRequest(tc.name, "wrong", ""))
		require.Error(t, err)
		require.Equal(t, tc.strangers, p.cluster.strangers)
	}
	require.Len(t, p.cluster.logins(), 3)

	// So it is with what no lockout bounds.
	malformed := loginRequest("alice", "wrong", "")
	malformed.TTL = -1
	_, err := p.Authenticate(t.Context(), malformed)
	require.Error(t, err)
	require.Equal(t, 3, p.cluster.strangers)
	for range MaxLoginFailures - 1 {
		_, err := p.Authenticate(t.Context(), loginRequest("alice", "wrong", ""))
		require.EqualError(t, err, login.WrongCredentials)
	}
	require.Equal(t, 3, p.cluster.strangers)
	for i := range 10 {
		_, err := p.Authenticate(t.Context(), loginRequest("alice", "wrong", ""))
		require.True(t, trace.IsLimitExceeded(err), "%v", err)
		require.Equal(t, 4+i, p.cluster.strangers)
	}
}

// meanwhile does something once, before a password is written.
type meanwhile struct {
	backend.Backend
	do func()
}

func (m *meanwhile) Create(ctx context.Context, items ...backend.Item) error {
	if do := m.do; do != nil && strings.HasPrefix(items[len(items)-1].Key, passwordsPrefix) {
		m.do = nil
		do()
	}
	return m.Backend.Create(ctx, items...)
}

// A reset while an older link is being used: what that sets counts for nothing.
func TestResetWhileALinkIsUsed(t *testing.T) {
	p := newPeople(t)
	old := p.invite(t, "alice")
	secret := p.secret(t, old.GetName())
	store := &meanwhile{Backend: p.store}
	p.backend = store
	var newer types.UserToken
	store.do = func() {
		var err error
		newer, err = p.other.CreateResetPasswordToken(t.Context(), "alice", login.ResetToken, time.Hour, "admin")
		require.NoError(t, err)
	}
	_, err := p.ChangeUserAuthentication(t.Context(), change(old.GetName(), goodPassword, p.code(t, secret)))
	require.True(t, trace.IsNotFound(err), "%v", err)
	p.clock.Advance(time.Minute)
	_, err = p.Authenticate(t.Context(), loginRequest("alice", goodPassword, p.code(t, secret)))
	require.EqualError(t, err, login.WrongCredentials)
	// The newer link is good.
	fresh := p.secret(t, newer.GetName())
	_, err = p.ChangeUserAuthentication(t.Context(), change(newer.GetName(), goodPassword, p.code(t, fresh)))
	require.NoError(t, err)
}
