// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Passwords: which are taken, and how they are kept and compared.

package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gravitational/trace"
	"golang.org/x/crypto/argon2"

	"teleport-auditd/lib/auth/login"
)

const passwordsPrefix = "/passwords/"

// What a new password's hash costs: 32 MiB and some 60 ms of one core. Each
// hash carries its own parameters, so these may be raised at any time.
const (
	argonMemory  = 32 << 10 // in KiB
	argonTime    = 3
	argonThreads = 1
	argonSalt    = 16
	argonSum     = 32
)

// What is taken from the store: a hash that somebody wrote there must not make
// a login cost all memory.
const (
	argonMaxMemory = 1 << 20 // in KiB
	argonMaxTime   = 64
)

const (
	// maxHashQueue is how many may wait for others' hashes, and maxHashWait for
	// how long. It is some seconds' work.
	maxHashQueue = 64
	maxHashWait  = 10 * time.Second
)

// storedPassword is the item under /passwords/<user>.
type storedPassword struct {
	Hash    string    `json:"hash"`
	Changed time.Time `json:"changed"`
}

// CheckPassword refuses, with a trace.BadParameter that may be shown to the
// user, a password that is too short, too long, not UTF-8, or the user's name.
func CheckPassword(user string, password []byte) error {
	switch {
	case len(password) > login.MaxPasswordLength:
		return trace.BadParameter("the password is longer than %d bytes: choose a shorter one", login.MaxPasswordLength)
	case !utf8.Valid(password):
		return trace.BadParameter("the password is not UTF-8 text: choose another one")
	case utf8.RuneCount(password) < login.MinPasswordLength:
		return trace.BadParameter("the password is too short: choose one of at least %d characters", login.MinPasswordLength)
	case strings.EqualFold(string(password), user):
		return trace.BadParameter("the password is the user name: choose another one")
	}
	return nil
}

// passwordHash is argon2id's output and what it was computed with.
type passwordHash struct {
	memory, time uint32
	threads      uint8
	salt, sum    []byte
}

func newPasswordHash(password []byte) passwordHash {
	h := passwordHash{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, argonSalt)}
	_, _ = rand.Read(h.salt) // never fails
	h.sum = argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, argonSum)
	return h
}

// nobodysHash is what the password of a user who does not exist is compared
// with. It costs what a new user's costs and equals no password's.
func nobodysHash() passwordHash {
	h := passwordHash{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, argonSalt), sum: make([]byte, argonSum)}
	_, _ = rand.Read(h.salt)
	_, _ = rand.Read(h.sum)
	return h
}

func (h passwordHash) matches(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// String is the hash in the PHC string format.
func (h passwordHash) String() string {
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads, encode(h.salt), encode(h.sum))
}

func parsePasswordHash(text string) (passwordHash, error) {
	var h passwordHash
	bad := func() (passwordHash, error) {
		return passwordHash{}, trace.BadParameter("a stored password cannot be read: reset it with tctl users reset")
	}
	fields := strings.Split(text, "$")
	if len(fields) != 6 {
		return bad()
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return bad()
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.DecodeString(fields[4]); err != nil {
		return bad()
	}
	if h.sum, err = base64.RawStdEncoding.DecodeString(fields[5]); err != nil {
		return bad()
	}
	// What does not come out as it went in has another kind, version or
	// something after its numbers.
	if h.String() != text || len(h.sum) < argonSum || len(h.sum) > 2*argonSum ||
		h.threads == 0 || h.time == 0 || h.time > argonMaxTime || h.memory > argonMaxMemory {
		return bad()
	}
	return h, nil
}

// hashing runs work when few enough others are hashing: each needs megabytes. The
// client's address decides who goes where too many wait, as limits.Crowd does:
// who comes alone is not starved by those who come in numbers. The error is a
// refusal for who has to go, or has waited for maxHashWait.
func (c *Credentials) hashing(ctx context.Context, client string, work func()) error {
	evicted := make(chan struct{})
	leave := c.hashQueue.Enter(client, func() { close(evicted) })
	defer leave()
	busy := func() error {
		return refuse("too-many-logins-at-once", trace.LimitExceeded(login.TooBusy))
	}
	timer := c.clock.NewTimer(maxHashWait)
	defer timer.Stop()
	select {
	case c.hashers <- struct{}{}:
	case <-evicted:
		return busy()
	case <-timer.Chan():
		return busy()
	case <-ctx.Done():
		return trace.Wrap(ctx.Err())
	}
	leave()
	defer func() { <-c.hashers }()
	work()
	return nil
}

// passwordOf returns the user's hash, and one that nothing matches where the
// user has no password.
func (c *Credentials) passwordOf(ctx context.Context, user string) (hash passwordHash, found bool, err error) {
	item, err := c.backend.Get(ctx, passwordsPrefix+escapeKey(user))
	if trace.IsNotFound(err) {
		return nobodysHash(), false, nil
	}
	if err != nil {
		return passwordHash{}, false, trace.Wrap(err)
	}
	var stored storedPassword
	if err := json.Unmarshal(item.Value, &stored); err != nil {
		return passwordHash{}, false, trace.Wrap(err, "reading the password of %q", user)
	}
	hash, err = parsePasswordHash(stored.Hash)
	return hash, err == nil, trace.Wrap(err)
}
