// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Invitations and password resets: a link that is good once, and for an hour,
// behind which a user chooses a password and registers a second factor.

package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/url"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/backend"
)

const (
	// DefaultUserTokenTTL is how long a link is good where nothing was said,
	// and MaxUserTokenTTL the most that can be said.
	DefaultUserTokenTTL = time.Hour
	MaxUserTokenTTL     = 48 * time.Hour

	// PlaceholderProxy stands in a link for a proxy that is not known.
	PlaceholderProxy = "proxyhost"

	// The web page's port where no proxy is known.
	defaultWebPort = "3080"

	userTokensPrefix = "/user_tokens/"
	// userTokenOf leads to a user's latest token, the only one that is good.
	userTokenOf = userTokensPrefix + "of/"
	// userTokenSecretSuffix follows a token's key for its TOTP secret.
	userTokenSecretSuffix = "/otp"

	userTokenSize = 16

	maxDeviceName = 64
)

const (
	eventUserTokenCreated    = "reset_password_token.create"
	codeUserTokenCreated     = "T6000I"
	eventUserPasswordChanged = "user.password_change"
	codeUserPasswordChanged  = "T1005I"
	eventMFAAdded            = "mfa.add"
	codeMFAAdded             = "T1006I"
)

// userTokenKey is where a token is kept. The id itself is not in the store: who
// reads it there could not use it.
func userTokenKey(id string) string {
	sum := sha256.Sum256([]byte(id))
	return userTokensPrefix + hex.EncodeToString(sum[:])
}

func invalidUserToken() error {
	return refuse("link-is-not-valid", trace.NotFound("the link is not valid: it was used already, has expired, or was replaced by a newer one"))
}

// CreateResetPasswordToken makes the link behind which the user chooses a
// password: login.InviteToken, or login.ResetToken, which also ends the old
// password, the second factor and a lockout at once. It is good once and for
// ttl, DefaultUserTokenTTL where it is zero, and a link that the user had
// before is good no longer. The token's name is its secret id.
//
// The error is trace.NotFound for a user who is not there, and
// trace.BadParameter for another kind or a ttl beyond MaxUserTokenTTL.
func (c *Credentials) CreateResetPasswordToken(ctx context.Context, name, kind string, ttl time.Duration, createdBy string) (types.UserToken, error) {
	var path string
	switch kind {
	case login.InviteToken:
		path = login.InvitePath
	case login.ResetToken:
		path = login.ResetPath
	default:
		return nil, trace.BadParameter("there are no links of the kind %q: use %q or %q", kind, login.InviteToken, login.ResetToken)
	}
	if ttl == 0 {
		ttl = DefaultUserTokenTTL
	}
	if ttl < time.Second || ttl > MaxUserTokenTTL {
		return nil, trace.BadParameter("a link cannot be valid for %v: choose between %v and %v", ttl, time.Second, MaxUserTokenTTL)
	}
	if err := checkUser(name); err != nil {
		return nil, trace.Wrap(err)
	}
	if _, err := c.cluster.GetUser(ctx, name, false); err != nil {
		return nil, trace.Wrap(err)
	}

	random := make([]byte, userTokenSize)
	_, _ = rand.Read(random) // never fails
	id := hex.EncodeToString(random)
	now := c.clock.Now().UTC()
	token := &types.UserTokenV3{
		SubKind: kind,
		Spec:    types.UserTokenSpecV3{User: name, Created: now},
	}
	key := userTokenKey(id)
	// The id goes into the token that is handed out, not into the stored one.
	token.SetName(key[len(userTokensPrefix):])
	token.SetExpiry(now.Add(ttl))
	if err := token.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	value, err := json.Marshal(token)
	if err != nil {
		return nil, trace.Wrap(err)
	}

	if err := c.deleteUserToken(ctx, name); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := c.backend.Create(ctx, backend.Item{Key: key, Value: value, Expires: token.Expiry()}); err != nil {
		return nil, trace.Wrap(err)
	}
	// From here on, and where two make a link at once, this one decides.
	if _, err := c.backend.Put(ctx, backend.Item{Key: userTokenOf + escapeKey(name), Value: []byte(key), Expires: token.Expiry()}); err != nil {
		return nil, trace.Wrap(err)
	}
	// Only now: whoever sets a password with an older link meanwhile looks for a
	// newer one afterwards, and either sees it or has the password deleted here.
	if kind == login.ResetToken {
		if err := c.deleteLogin(ctx, name); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	if err := c.ClearLoginFailures(ctx, name); err != nil {
		return nil, trace.Wrap(err)
	}

	host := c.proxyAddr(ctx)
	if host == "" {
		host = net.JoinHostPort(PlaceholderProxy, defaultWebPort)
	}
	token.SetName(id)
	token.SetURL((&url.URL{Scheme: "https", Host: host, Path: path + id}).String())
	err = c.cluster.EmitAuditEvent(ctx, &apievents.UserTokenCreate{
		Metadata:         c.eventMetadata(eventUserTokenCreated, codeUserTokenCreated),
		ResourceMetadata: apievents.ResourceMetadata{Name: name, TTL: ttl.String(), Expires: token.Expiry()},
		UserMetadata:     apievents.UserMetadata{User: createdBy},
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return token, nil
}

// userToken returns a token that is good, and the item that it was read from.
func (c *Credentials) userToken(ctx context.Context, id string) (*types.UserTokenV3, backend.Item, error) {
	key := userTokenKey(id)
	item, err := c.backend.Get(ctx, key)
	if trace.IsNotFound(err) {
		return nil, backend.Item{}, invalidUserToken()
	}
	if err != nil {
		return nil, backend.Item{}, trace.Wrap(err)
	}
	var token types.UserTokenV3
	if err := json.Unmarshal(item.Value, &token); err != nil {
		return nil, backend.Item{}, trace.Wrap(err, "reading an invitation")
	}
	// A store may be late in forgetting it.
	if !c.clock.Now().Before(token.Expiry()) {
		return nil, backend.Item{}, invalidUserToken()
	}
	latest, err := c.backend.Get(ctx, userTokenOf+escapeKey(token.GetUser()))
	if trace.IsNotFound(err) || err == nil && string(latest.Value) != key {
		return nil, backend.Item{}, invalidUserToken()
	}
	if err != nil {
		return nil, backend.Item{}, trace.Wrap(err)
	}
	if _, err := c.cluster.GetUser(ctx, token.GetUser(), false); trace.IsNotFound(err) {
		return nil, backend.Item{}, invalidUserToken()
	} else if err != nil {
		return nil, backend.Item{}, trace.Wrap(err)
	}
	token.SetName(id)
	return &token, item, nil
}

// deleteUserToken makes the user's open link, if any, a bad one.
func (c *Credentials) deleteUserToken(ctx context.Context, name string) error {
	pointer := userTokenOf + escapeKey(name)
	latest, err := c.backend.Get(ctx, pointer)
	if trace.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return trace.Wrap(err)
	}
	// Its secret has the same prefix.
	if err := c.backend.DeleteRange(ctx, string(latest.Value)); err != nil {
		return trace.Wrap(err)
	}
	if err := c.backend.CompareAndDelete(ctx, pointer, latest.Revision); err != nil && !trace.IsCompareFailed(err) {
		return trace.Wrap(err)
	}
	return nil
}

// endUserToken removes what is left of a link that was just used up. The error is
// that of a bad link where the user has got a newer one, which stays.
func (c *Credentials) endUserToken(ctx context.Context, name, key string) error {
	pointer := userTokenOf + escapeKey(name)
	latest, err := c.backend.Get(ctx, pointer)
	if trace.IsNotFound(err) || err == nil && string(latest.Value) != key {
		return invalidUserToken()
	}
	if err != nil {
		return trace.Wrap(err)
	}
	// Its secret has the same prefix.
	if err := c.backend.DeleteRange(ctx, key); err != nil {
		return trace.Wrap(err)
	}
	err = c.backend.CompareAndDelete(ctx, pointer, latest.Revision)
	if trace.IsCompareFailed(err) {
		return invalidUserToken()
	}
	return trace.Wrap(err)
}

// GetResetPasswordToken returns the token behind a link, or trace.NotFound
// where it is not good or is good no longer.
func (c *Credentials) GetResetPasswordToken(ctx context.Context, id string) (types.UserToken, error) {
	token, _, err := c.userToken(ctx, id)
	if err != nil {
		return nil, c.answer(err)
	}
	return token, nil
}

// CreateRegisterChallenge returns the secret of the second factor that is
// registered with the token: as text, and as a QR code in PNG. It is the same
// at every call, whichever auth server is asked.
//
// The error is trace.NotFound for a token that is not good, and
// trace.BadParameter where the cluster asks for no second factor.
func (c *Credentials) CreateRegisterChallenge(ctx context.Context, tokenID string) (*proto.MFARegisterChallenge, error) {
	challenge, err := c.createRegisterChallenge(ctx, tokenID)
	return challenge, c.answer(err)
}

func (c *Credentials) createRegisterChallenge(ctx context.Context, tokenID string) (*proto.MFARegisterChallenge, error) {
	token, item, err := c.userToken(ctx, tokenID)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	needed, err := c.needsOTP(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if !needed {
		return nil, refuse("no-second-factor", trace.BadParameter("the cluster has second_factor: off, there is none to register"))
	}
	secret, err := c.userTokenSecret(ctx, token, item.Key)
	if trace.IsNotFound(err) {
		secret, err = c.newUserTokenSecret(ctx, token, item.Key)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return registerChallenge(c.cluster.ClusterName(), token.GetUser(), secret)
}

func (c *Credentials) userTokenSecret(ctx context.Context, token *types.UserTokenV3, tokenKey string) (string, error) {
	key := tokenKey + userTokenSecretSuffix
	item, err := c.backend.Get(ctx, key)
	if err != nil {
		return "", trace.Wrap(err)
	}
	secret, err := c.sealer.Open(item.Value, key)
	return string(secret), trace.Wrap(err, "opening the second factor of %q", token.GetUser())
}

func (c *Credentials) newUserTokenSecret(ctx context.Context, token *types.UserTokenV3, tokenKey string) (string, error) {
	key, secret := tokenKey+userTokenSecretSuffix, newOTPSecret()
	sealed, err := c.sealer.Seal([]byte(secret), key)
	if err != nil {
		return "", trace.Wrap(err)
	}
	err = c.backend.Create(ctx, backend.Item{Key: key, Value: sealed, Expires: token.Expiry()})
	if trace.IsAlreadyExists(err) {
		// Another call was faster: the page was opened twice.
		return c.userTokenSecret(ctx, token, tokenKey)
	}
	return secret, trace.Wrap(err)
}

// ChangeUserAuthentication sets the password of the token's user and, where the
// cluster asks for one, the second factor, whose first code must be right: both
// or none. The token is used up by it. What the user had before counts no
// longer.
//
// The error is trace.NotFound for a token that is not good,
// trace.BadParameter for a password that is not taken (its text is for the
// user), and trace.AccessDenied for a wrong code. The token can then be used
// again, except after the first.
func (c *Credentials) ChangeUserAuthentication(ctx context.Context, req *proto.ChangeUserAuthenticationRequest) (*proto.ChangeUserAuthenticationResponse, error) {
	response, err := c.changeUserAuthentication(ctx, req)
	return response, c.answer(err)
}

func (c *Credentials) changeUserAuthentication(ctx context.Context, req *proto.ChangeUserAuthenticationRequest) (*proto.ChangeUserAuthenticationResponse, error) {
	token, item, err := c.userToken(ctx, req.TokenID)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	user := token.GetUser()
	if err := CheckPassword(user, req.NewPassword); err != nil {
		return nil, refuse("password-is-not-taken", err)
	}
	deviceName := req.NewDeviceName
	if deviceName == "" {
		deviceName = otpDeviceName
	} else if err := checkName("device name", deviceName); err != nil {
		return nil, refuse("device-name-is-not-taken", err)
	} else if len(deviceName) > maxDeviceName {
		return nil, refuse("device-name-is-not-taken", trace.BadParameter("the device name is longer than %d bytes: choose a shorter one", maxDeviceName))
	}
	needed, err := c.needsOTP(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	now := c.clock.Now().UTC()
	var items []backend.Item
	var device *otpDevice
	var counter uint64
	if needed {
		secret, err := c.userTokenSecret(ctx, token, item.Key)
		if trace.IsNotFound(err) {
			return nil, refuse("no-second-factor", trace.BadParameter("no second factor was asked for with this link yet: open it anew"))
		}
		if err != nil {
			return nil, trace.Wrap(err)
		}
		var ok bool
		if counter, ok = matchOTP(secret, req.GetNewMFARegisterResponse().GetTOTP().GetCode(), now); !ok {
			return nil, refuse("wrong-code", trace.AccessDenied("the code is not right: enter the one that your app shows now, and see that its clock is right"))
		}
		var otpItem backend.Item
		if otpItem, device, err = c.otpItem(user, deviceName, secret); err != nil {
			return nil, trace.Wrap(err)
		}
		items = append(items, otpItem)
	}

	var hash passwordHash
	if err := c.hashing(ctx, req.GetLoginIP(), func() { hash = newPasswordHash(req.NewPassword) }); err != nil {
		return nil, trace.Wrap(err)
	}
	value, err := json.Marshal(storedPassword{Hash: hash.String(), Changed: now})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	items = append(items, backend.Item{Key: passwordsPrefix + escapeKey(user), Value: value})

	// Of two who use the token at once, one gets past here.
	err = c.backend.CompareAndDelete(ctx, item.Key, item.Revision)
	if trace.IsCompareFailed(err) {
		return nil, invalidUserToken()
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := c.endUserToken(ctx, user, item.Key); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := c.deleteLogin(ctx, user); err != nil {
		return nil, trace.Wrap(err)
	}
	if device != nil {
		// Whoever saw the first code cannot log in with it.
		if err := c.useOTP(ctx, user, counter); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	// All or none: no password is ever there without its second factor.
	if err := c.backend.Create(ctx, items...); err != nil {
		return nil, trace.Wrap(err)
	}
	// A link that was made meanwhile makes this one a bad one.
	if _, err := c.backend.Get(ctx, userTokenOf+escapeKey(user)); !trace.IsNotFound(err) {
		if ended := c.deleteLogin(ctx, user); ended != nil {
			return nil, trace.Wrap(ended)
		}
		if err != nil {
			return nil, trace.Wrap(err)
		}
		return nil, invalidUserToken()
	}
	if err := c.ClearLoginFailures(ctx, user); err != nil {
		return nil, trace.Wrap(err)
	}
	// A user who was deleted meanwhile leaves nothing to the next of that name.
	if _, err := c.cluster.GetUser(ctx, user, false); trace.IsNotFound(err) {
		if err := c.DeleteUserSecrets(ctx, user); err != nil {
			return nil, trace.Wrap(err)
		}
		return nil, invalidUserToken()
	}

	connection := apievents.ConnectionMetadata{RemoteAddr: eventAddr(req.LoginIP)}
	err = c.cluster.EmitAuditEvent(ctx, &apievents.UserPasswordChange{
		Metadata:           c.eventMetadata(eventUserPasswordChanged, codeUserPasswordChanged),
		UserMetadata:       apievents.UserMetadata{User: user},
		ConnectionMetadata: connection,
	})
	if err == nil && device != nil {
		err = c.cluster.EmitAuditEvent(ctx, &apievents.MFADeviceAdd{
			Metadata:           c.eventMetadata(eventMFAAdded, codeMFAAdded),
			UserMetadata:       apievents.UserMetadata{User: user},
			MFADeviceMetadata:  device.metadata(),
			ConnectionMetadata: connection,
		})
	}
	if err != nil {
		// The password is set: an error now would send the user away.
		c.log.WithError(err).Warnf("The change of %q's password could not be written to the audit log.", user)
	}
	return &proto.ChangeUserAuthenticationResponse{}, nil
}
