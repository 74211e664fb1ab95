// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Logging in: a password and a code against certificates.

package auth

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	apievents "github.com/gravitational/teleport/api/types/events"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth/login"
)

const (
	eventUserLogin      = "user.login"
	codeUserLogin       = "T1000I"
	codeUserLoginFailed = "T1000W"

	// loginMethod is how Teleport names logins with a password.
	loginMethod = "local"

	reasonMalformed = "request-is-malformed"

	// eventTimeout bounds the writing of an event whose client may be gone.
	eventTimeout = 10 * time.Second
)

var _ login.Service = (*Credentials)(nil)

// wrong is a refusal for all that was typed wrongly. Whichever it was, the
// client is told the same.
func wrong(reason string) error {
	return refuse(reason, trace.AccessDenied(login.WrongCredentials))
}

// Authenticate checks the password and, where the cluster asks for one, the
// code, and signs the keys. Both outcomes become a user.login event; a login
// whose event cannot be written fails.
//
// The error is trace.AccessDenied with the text login.WrongCredentials for all
// that was typed wrongly, trace.AccessDenied that begins with
// login.LockedPrefix for a user who is locked, trace.LimitExceeded after too
// many failures and where too many log in at once, what Cluster's GenerateUserCerts says against the request, and
// trace.ConnectionProblem where the login could not be looked into.
func (c *Credentials) Authenticate(ctx context.Context, req login.Request) (*login.Response, error) {
	event := &apievents.UserLogin{
		UserMetadata:       apievents.UserMetadata{User: eventName(req.User)},
		Method:             loginMethod,
		ConnectionMetadata: apievents.ConnectionMetadata{RemoteAddr: eventAddr(req.ClientAddr)},
	}
	response, device, err := c.authenticate(ctx, req)
	if err == nil {
		event.Metadata = c.eventMetadata(eventUserLogin, codeUserLogin)
		event.Status = apievents.Status{Success: true}
		if device != nil {
			metadata := device.metadata()
			event.MFADevice = &metadata
		}
		if err := c.cluster.EmitAuditEvent(ctx, event); err != nil {
			return nil, c.answer(trace.Wrap(err, "writing the login to the audit log"))
		}
		return response, nil
	}

	event.Metadata = c.eventMetadata(eventUserLogin, codeUserLoginFailed)
	event.Status = apievents.Status{Error: trace.UserMessage(err)}
	var refused *refusal
	if errors.As(err, &refused) {
		event.Status = apievents.Status{Error: refused.reason, UserMessage: trace.UserMessage(refused.err)}
	}
	emit, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	write := c.cluster.EmitAuditEvent
	if !refused.counted() || c.isStranger(emit, req.User) {
		write = c.cluster.EmitStrangersEvent
	}
	if failed := write(emit, event); failed != nil {
		c.log.WithError(failed).Warnf("A failed login as %q could not be written to the audit log.", req.User)
	}
	return nil, c.answer(err)
}

// counted tells whether the password was looked at, of which the lockout bounds how
// often it may be. All else is refused as often as anybody likes, also to somebody
// whose name is known, and says little.
func (r *refusal) counted() bool {
	return r != nil && !trace.IsLimitExceeded(r.err) && r.reason != reasonMalformed
}

// isStranger tells whether no user has the name: whoever likes can make up as many
// as there are.
func (c *Credentials) isStranger(ctx context.Context, name string) bool {
	if checkUser(name) != nil {
		return true
	}
	_, err := c.cluster.GetUser(ctx, name, false)
	return trace.IsNotFound(err)
}

// authenticate counts the attempt, and makes it.
func (c *Credentials) authenticate(ctx context.Context, req login.Request) (*login.Response, *otpDevice, error) {
	if req.TTL < 0 {
		return nil, nil, refuse(reasonMalformed, trace.BadParameter("certificates cannot be valid for %v: ask for a positive time", req.TTL))
	}
	if len(req.SSHPublicKey) == 0 && len(req.TLSPublicKey) == 0 {
		return nil, nil, refuse(reasonMalformed, trace.BadParameter("there is no public key to sign"))
	}
	if err := checkUser(req.User); err != nil {
		// No user has such a name, and none is locked out of it. It costs what
		// others cost.
		if err := c.hashing(ctx, req.ClientAddr, func() { nobodysHash().matches(passwordBytes(req.Password)) }); err != nil {
			return nil, nil, trace.Wrap(err)
		}
		return nil, nil, wrong("user-name-is-not-valid")
	}
	attempt, err := c.beginAttempt(ctx, req.User)
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	device, err := c.checkCredentials(ctx, req)
	how := attemptSucceeded
	if err != nil {
		how = attemptUndecided
		// Who was not looked at for want of room has not failed.
		if refused := new(refusal); errors.As(err, &refused) && !trace.IsLimitExceeded(refused.err) {
			how = attemptFailed
		}
	}
	if failed := c.endAttempt(ctx, req.User, attempt, how); failed != nil {
		c.log.WithError(failed).Warnf("The end of a login as %q could not be written down, and it counts as failed for the lockout.", req.User)
	}
	if err != nil {
		return nil, nil, trace.Wrap(err)
	}
	response, err := c.certificates(ctx, req)
	return response, device, trace.Wrap(err)
}

// checkCredentials takes the same time for a user who does not exist, has no
// password, or typed a wrong one. The error is a refusal, or what kept the
// check from being made.
func (c *Credentials) checkCredentials(ctx context.Context, req login.Request) (*otpDevice, error) {
	user, err := c.cluster.GetUser(ctx, req.User, false)
	if err != nil && !trace.IsNotFound(err) {
		return nil, trace.Wrap(err)
	}
	needed, err := c.needsOTP(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	hash, hasPassword, err := c.passwordOf(ctx, req.User)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	device, err := c.otpOf(ctx, req.User)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	matches := false
	if err := c.hashing(ctx, req.ClientAddr, func() { matches = hash.matches(passwordBytes(req.Password)) }); err != nil {
		return nil, trace.Wrap(err)
	}
	switch {
	case user == nil:
		return nil, wrong("no-such-user")
	case !hasPassword:
		return nil, wrong("user-has-no-password")
	case !matches || len(req.Password) > login.MaxPasswordLength:
		return nil, wrong("wrong-password")
	case !needed:
		return nil, nil
	case device == nil:
		return nil, wrong("user-has-no-second-factor")
	case req.OTP == "":
		return nil, wrong("code-is-missing")
	}
	counter, ok := matchOTP(device.secret, req.OTP, c.clock.Now())
	if !ok {
		return nil, wrong("wrong-code")
	}
	err = c.useOTP(ctx, req.User, counter)
	if trace.IsAlreadyExists(err) {
		return nil, wrong("code-was-used-already")
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return device, nil
}

// passwordBytes bounds what is hashed. A longer one is no password at all, and
// is refused as wrong.
func passwordBytes(password string) []byte {
	return []byte(password[:min(len(password), login.MaxPasswordLength)])
}

// certificates comes after the password: only the user learns of a lock.
func (c *Credentials) certificates(ctx context.Context, req login.Request) (*login.Response, error) {
	certsRequest := proto.UserCertsRequest{
		Username:     req.User,
		SSHPublicKey: req.SSHPublicKey,
		TLSPublicKey: req.TLSPublicKey,
	}
	if req.TTL > 0 {
		certsRequest.Expires = c.clock.Now().UTC().Add(req.TTL)
	}
	certs, err := c.cluster.GenerateUserCerts(ctx, certsRequest)
	switch {
	case trace.IsAccessDenied(err) && strings.HasPrefix(trace.UserMessage(err), login.LockedPrefix):
		return nil, refuse("user-is-locked", err)
	case trace.IsAccessDenied(err), trace.IsBadParameter(err):
		return nil, refuse("certificates-are-not-allowed", err)
	case err != nil:
		return nil, trace.Wrap(err)
	}
	hosts, err := c.cluster.GetCertAuthorities(ctx, types.HostCA, false)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	response := &login.Response{User: req.User, SSH: certs.SSH, TLS: certs.TLS, Cluster: c.cluster.ClusterName()}
	for _, authority := range hosts {
		for _, pair := range authority.GetTrustedSSHKeyPairs() {
			response.SSHHostCAs = append(response.SSHHostCAs, pair.PublicKey)
		}
		for _, pair := range authority.GetTrustedTLSKeyPairs() {
			response.TLSHostCAs = append(response.TLSHostCAs, pair.Cert)
		}
	}
	return response, nil
}

func (d *otpDevice) metadata() apievents.MFADeviceMetadata {
	return apievents.MFADeviceMetadata{DeviceName: d.name, DeviceID: d.id, DeviceType: otpDeviceType}
}

// eventName is a name as it was typed, as far as one could be one.
func eventName(name string) string {
	if checkName("user name", name) == nil {
		return name
	}
	return ""
}

// eventAddr passes an ip:port or ip on, and nothing else.
func eventAddr(addr string) string {
	if _, err := netip.ParseAddrPort(addr); err == nil {
		return addr
	}
	if _, err := netip.ParseAddr(addr); err == nil {
		return addr
	}
	return ""
}
