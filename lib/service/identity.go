// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package service

// Who a host says it is: a key that is made at first start, and a certificate
// over it that is signed anew before it ends.

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
)

const (
	// hostCertTTL is short, as nothing takes a certificate back.
	hostCertTTL = 24 * time.Hour
	// renewBefore is how long before its end a certificate is signed anew.
	renewBefore = hostCertTTL / 2
)

// hostSigner signs host certificates: auth.Server.
type hostSigner interface {
	SignHost(context.Context, auth.HostCertRequest) (*ssh.Certificate, error)
}

// identity is what one role shows to clients.
type identity struct {
	key   ssh.Signer
	clock clockwork.Clock
	// signers is what is shown now. It is never changed, only replaced.
	signers atomic.Pointer[[]ssh.Signer]

	// The rest is for refresh, which only one goroutine calls.
	signer  hostSigner
	request auth.HostCertRequest
	// addresses are asked for each time: they come and go.
	addresses func() []string
	expires   time.Time
}

// newIdentity reads or makes the role's key in the data directory. Without a
// signer the key is shown as it is.
func newIdentity(dir string, role types.SystemRole, clock clockwork.Clock) (*identity, error) {
	key, err := hostKey(filepath.Join(dir, "host_key_"+strings.ToLower(string(role))))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	i := &identity{key: key, clock: clock}
	i.signers.Store(&[]ssh.Signer{key})
	return i, nil
}

// Signers returns what to show to the next client.
func (i *identity) Signers() []ssh.Signer {
	return *i.signers.Load()
}

// certify has certificates signed from here on. request's TTL, PublicKey and
// Principals are set here.
func (i *identity) certify(ctx context.Context, signer hostSigner, request auth.HostCertRequest, addresses func() []string) error {
	i.signer, i.request, i.addresses = signer, request, addresses
	return trace.Wrap(i.refresh(ctx))
}

// refresh signs a new certificate if the one there is ends soon, or if the host
// has got other addresses. Clients that know the bare key still find it.
func (i *identity) refresh(ctx context.Context) error {
	if i.signer == nil {
		return nil
	}
	principals := slices.Concat([]string{"localhost", "127.0.0.1", "::1"}, i.addresses())
	slices.Sort(principals)
	principals = slices.Compact(principals)
	now := i.clock.Now()
	if i.expires.Sub(now) > renewBefore && slices.Equal(principals, i.request.Principals) {
		return nil
	}
	request := i.request
	request.PublicKey = i.key.PublicKey()
	request.Principals = principals
	request.TTL = hostCertTTL
	cert, err := i.signer.SignHost(ctx, request)
	if err != nil {
		return trace.Wrap(err, "signing the certificate of the host")
	}
	certSigner, err := ssh.NewCertSigner(cert, i.key)
	if err != nil {
		return trace.Wrap(err, "using the certificate of the host")
	}
	i.request.Principals = principals
	i.expires = now.Add(hostCertTTL)
	i.signers.Store(&[]ssh.Signer{certSigner, i.key})
	return nil
}

// hostKey reads an Ed25519 key, or makes one where there is no file.
func hostKey(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeHostKey(path)
	}
	if err != nil {
		return nil, trace.AccessDenied("the host key %s cannot be read (%v): make it readable for teleport alone", path, reason(err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, trace.ConvertSystemError(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, trace.AccessDenied("the host key %s is open to other users (mode %#o): if nobody can have read it close it with chmod 600 %s, and else take it away, and the next start makes a new one", path, info.Mode().Perm(), path)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, trace.BadParameter("the host key %s cannot be used (%v): put it back from a backup, or take it away, and the next start makes a new one", path, err)
	}
	return key, nil
}

func makeHostKey(path string) (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, trace.Wrap(err, "making a host key")
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, trace.Wrap(err, "making a host key")
	}
	if err := replaceFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, trace.AccessDenied("the host key %s cannot be written (%v): make the data directory writable", path, reason(err))
	}
	key, err := ssh.NewSignerFromKey(private)
	return key, trace.Wrap(err)
}
