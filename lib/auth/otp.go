// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// One-time codes (TOTP, RFC 6238): their secrets are sealed in the store, and
// each code is taken once, whichever auth server it comes to.

package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"image/png"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/trace"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"teleport-auditd/lib/backend"
)

const (
	// What every authenticator app takes, and the only thing that some do.
	otpPeriod     = 30 * time.Second
	otpDigits     = otp.DigitsSix
	otpAlgorithm  = otp.AlgorithmSHA1
	otpSecretSize = 20
	// otpSkew is how many codes before and after the current one are taken.
	otpSkew = 1

	// otpDeviceName is a device's name where the user gave none.
	otpDeviceName = "authenticator"
	otpDeviceType = "TOTP"

	otpPrefix     = "/otp/"
	otpUsedPrefix = "/otp_used/"

	// qrSize is the code's width and height in pixels, quiet zone included.
	qrSize = 256
)

// Sealer encrypts what only auth servers may read (see package seal). The
// associated data is the key of the item that holds it, so that it opens
// nowhere else.
type Sealer interface {
	Seal(secret []byte, associatedData string) ([]byte, error)
	Open(sealed []byte, associatedData string) ([]byte, error)
}

// storedOTP is the item under /otp/<user>.
type storedOTP struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Secret []byte    `json:"secret"` // sealed
	Added  time.Time `json:"added"`
}

// otpDevice is a user's device, open.
type otpDevice struct {
	id, name, secret string
}

// otpOf returns the user's device, or nil where the user has none.
func (c *Credentials) otpOf(ctx context.Context, user string) (*otpDevice, error) {
	key := otpPrefix + escapeKey(user)
	item, err := c.backend.Get(ctx, key)
	if trace.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var stored storedOTP
	if err := json.Unmarshal(item.Value, &stored); err != nil {
		return nil, trace.Wrap(err, "reading the second factor of %q", user)
	}
	secret, err := c.sealer.Open(stored.Secret, key)
	if err != nil {
		return nil, trace.Wrap(err, "opening the second factor of %q", user)
	}
	return &otpDevice{id: stored.ID, name: stored.Name, secret: string(secret)}, nil
}

// otpItem is what to store of a new device.
func (c *Credentials) otpItem(user, name, secret string) (backend.Item, *otpDevice, error) {
	key := otpPrefix + escapeKey(user)
	sealed, err := c.sealer.Seal([]byte(secret), key)
	if err != nil {
		return backend.Item{}, nil, trace.Wrap(err)
	}
	device := &otpDevice{id: uuid.NewString(), name: name, secret: secret}
	value, err := json.Marshal(storedOTP{ID: device.id, Name: device.name, Secret: sealed, Added: c.clock.Now().UTC()})
	if err != nil {
		return backend.Item{}, nil, trace.Wrap(err)
	}
	return backend.Item{Key: key, Value: value}, device, nil
}

func newOTPSecret() string {
	secret := make([]byte, otpSecretSize)
	_, _ = rand.Read(secret) // never fails
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// matchOTP returns the counter for which code is right at now. Spaces, which
// apps show between the digits, do not count.
func matchOTP(secret, code string, now time.Time) (counter uint64, ok bool) {
	code = strings.ReplaceAll(code, " ", "")
	current := now.Unix() / int64(otpPeriod/time.Second)
	for at := current - otpSkew; at <= current+otpSkew; at++ {
		want, err := hotp.GenerateCodeCustom(secret, uint64(at), hotp.ValidateOpts{Digits: otpDigits, Algorithm: otpAlgorithm})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			counter, ok = uint64(at), true
		}
	}
	return counter, ok
}

// useOTP takes the code of counter for the user. The error is
// trace.AlreadyExists where it was taken before, by any auth server.
func (c *Credentials) useOTP(ctx context.Context, user string, counter uint64) error {
	// Codes of the next period are taken already, and the clocks of auth
	// servers may differ: kept for as long as any of them could take it.
	const keep = 10 * otpPeriod
	return trace.Wrap(c.backend.Create(ctx, backend.Item{
		Key:     otpUsedPrefix + escapeKey(user) + "/" + strconv.FormatUint(counter, 10),
		Expires: time.Unix(int64(counter)*int64(otpPeriod/time.Second), 0).Add(keep),
	}))
}

// registerChallenge shows the secret as an app wants it.
func registerChallenge(cluster, user, secret string) (*proto.MFARegisterChallenge, error) {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer:      cluster,
		AccountName: user,
		Secret:      raw,
		Period:      uint(otpPeriod / time.Second),
		Digits:      otpDigits,
		Algorithm:   otpAlgorithm,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	image, err := key.Image(qrSize, qrSize)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var code bytes.Buffer
	if err := png.Encode(&code, image); err != nil {
		return nil, trace.Wrap(err)
	}
	return &proto.MFARegisterChallenge{Request: &proto.MFARegisterChallenge_TOTP{TOTP: &proto.TOTPRegisterChallenge{
		Secret:        secret,
		Issuer:        cluster,
		PeriodSeconds: uint32(otpPeriod / time.Second),
		Algorithm:     otpAlgorithm.String(),
		Digits:        uint32(otpDigits.Length()),
		Account:       user,
		QRCode:        code.Bytes(),
	}}}, nil
}
