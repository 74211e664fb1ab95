// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Whom a login trusts, brought up to date: the cluster's authorities get new keys
// from time to time, and a login outlives that.

package client

import (
	"bytes"
	"context"

	"github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

// Refresh asks the auth service for the keys of the host authority, keeps them
// with the login, and returns those of SSH. The auth service proves itself by a
// key that the login knows, or by one that such a key has signed.
func (s *Store) Refresh(ctx context.Context, p *Profile) ([]ssh.PublicKey, error) {
	client, err := OpenAPI(ctx, p)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, defaults.DefaultIOTimeout)
	defer cancel()
	authority, err := client.GetCertAuthority(ctx, types.CertAuthID{Type: types.HostCA, DomainName: p.SiteName}, false)
	if trace.IsConnectionProblem(err) {
		if err := CheckLogin(ctx, p); err != nil {
			return nil, trace.Wrap(err)
		}
		return nil, trace.ConnectionProblem(nil, "no answer through %s: %s", p.WebProxyAddr, Clean(lastReason(trace.UserMessage(err))))
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var keys []ssh.PublicKey
	for _, pair := range authority.GetTrustedSSHKeyPairs() {
		key, _, _, _, err := ssh.ParseAuthorizedKey(pair.PublicKey)
		if err != nil {
			return nil, trace.BadParameter("the cluster names a host authority that cannot be read")
		}
		keys = append(keys, key)
	}
	var certificates [][]byte
	for _, pair := range authority.GetTrustedTLSKeyPairs() {
		certificates = append(certificates, append(bytes.TrimSpace(pair.Cert), '\n'))
	}
	if len(keys) == 0 || len(certificates) == 0 {
		return nil, trace.BadParameter("the cluster names no host authority")
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	defer unlock()
	if err := writeFile(p.TLSCAPathCluster(p.SiteName), bytes.Join(certificates, nil)); err != nil {
		return nil, trace.Wrap(err)
	}
	return keys, trace.Wrap(s.trust(p.Name(), p.SiteName, keys))
}
