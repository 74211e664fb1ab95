// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"strings"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auth/login"
)

// A user's way through an open cluster: invited, registered, logged in, locked,
// removed.
func TestPeopleOfACluster(t *testing.T) {
	ctx := t.Context()
	clock := clockwork.NewFakeClockAt(time.Now())
	s := openCluster(t, clock)
	newAlice := func() {
		user, err := types.NewUser("alice")
		require.NoError(t, err)
		user.SetRoles([]string{"access"})
		user.SetLogins([]string{"bob"})
		_, err = s.CreateUser(ctx, user)
		require.NoError(t, err)
	}
	newAlice()
	token, err := s.CreateResetPasswordToken(ctx, "alice", login.InviteToken, 0, "admin")
	require.NoError(t, err)
	require.Equal(t, "https://"+PlaceholderProxy+":3080/web/invite/"+token.GetName(), token.GetURL())
	challenge, err := s.CreateRegisterChallenge(ctx, token.GetName())
	require.NoError(t, err)
	secret := challenge.GetTOTP().GetSecret()
	code := func() string {
		code, err := totp.GenerateCode(secret, clock.Now())
		require.NoError(t, err)
		return code
	}
	_, err = s.ChangeUserAuthentication(ctx, change(token.GetName(), goodPassword, code()))
	require.NoError(t, err)

	key := newKeyPair(t)
	try := func() (*login.Response, error) {
		clock.Advance(otpPeriod)
		return s.Authenticate(ctx, login.Request{
			User: "alice", Password: goodPassword, OTP: code(), ClientAddr: "192.0.2.7:50122",
			SSHPublicKey: key.ssh, TLSPublicKey: key.tls, TTL: time.Hour,
		})
	}
	response, err := try()
	require.NoError(t, err)
	cert := parseSSHCert(t, response.SSH)
	require.Equal(t, "alice", cert.KeyId)
	require.Equal(t, []string{"bob"}, cert.ValidPrincipals)
	require.WithinDuration(t, clock.Now().Add(time.Hour), time.Unix(int64(cert.ValidBefore), 0), time.Second)
	require.Equal(t, "alice", parseTLSCert(t, response.TLS).Subject.CommonName)
	require.Len(t, response.SSHHostCAs, 1)
	require.True(t, strings.HasPrefix(string(response.SSHHostCAs[0]), "ssh-"), "%s", response.SSHHostCAs[0])
	require.Len(t, response.TLSHostCAs, 1)
	require.True(t, strings.HasPrefix(string(response.TLSHostCAs[0]), "-----BEGIN CERTIFICATE"), "%s", response.TLSHostCAs[0])

	lock, err := types.NewLock("l", types.LockSpecV2{Target: types.LockTarget{User: "alice"}, Message: "on leave"})
	require.NoError(t, err)
	require.NoError(t, s.UpsertLock(ctx, lock))
	_, err = try()
	require.True(t, trace.IsAccessDenied(err), "%v", err)
	require.EqualError(t, err, login.LockedPrefix+": on leave")
	require.NoError(t, s.DeleteLock(ctx, "l"))

	// The next user of the name has nothing of the first.
	require.NoError(t, s.DeleteUser(ctx, "alice"))
	newAlice()
	_, err = try()
	require.EqualError(t, err, login.WrongCredentials)

	events, _, err := s.SearchEvents(ctx, time.Time{}, clock.Now(), []string{eventUserLogin, eventUserTokenCreated, eventUserPasswordChanged, eventMFAAdded}, 0, types.EventOrderAscending, "")
	require.NoError(t, err)
	var codes []string
	for _, event := range events {
		codes = append(codes, event.GetCode())
	}
	require.ElementsMatch(t, []string{"T6000I", "T1005I", "T1006I", "T1000I", "T1000W", "T1000W"}, codes)
}
