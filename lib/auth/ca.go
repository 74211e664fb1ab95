// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The authorities: how they are made and kept, and whom they say to trust.
//
// Each has SSH and TLS key pairs. Of both kinds there is one that signs, and
// while the authority is rotated a second one that is trusted beside it. In the
// store the private keys are sealed, each by itself, so that who watches the
// store or has a copy of it learns the public ones only.

package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth/seal"
	"teleport-auditd/lib/backend"
	"teleport-auditd/lib/tlsca"
)

// maxRaces is how often something is read and written anew because another
// process was faster.
const maxRaces = 16

// authorityKinds are the authorities that a cluster has.
func authorityKinds() []types.CertAuthType {
	return []types.CertAuthType{types.UserCA, types.HostCA}
}

func checkAuthorityKind(kind types.CertAuthType) error {
	switch kind {
	case types.UserCA, types.HostCA:
		return nil
	}
	return trace.BadParameter("there is no authority of the type %q: the types are %s and %s", cutTo(string(kind), 32), types.UserCA, types.HostCA)
}

func authorityKey(kind types.CertAuthType, clusterName string) string {
	return authoritiesPrefix + string(kind) + "/" + clusterName
}

// newKeySet makes one key pair of each kind, the SSH key in OpenSSH's format and
// the TLS key in PKCS #8.
func newKeySet(kind types.CertAuthType, clusterName string, now time.Time) (types.CAKeySet, error) {
	sshPair, err := newSSHPair(kind, clusterName)
	if err != nil {
		return types.CAKeySet{}, trace.Wrap(err)
	}
	tlsPair, err := newTLSPair(clusterName, now)
	if err != nil {
		return types.CAKeySet{}, trace.Wrap(err)
	}
	return types.CAKeySet{SSH: []*types.SSHKeyPair{sshPair}, TLS: []*types.TLSKeyPair{tlsPair}}, nil
}

func newSSHPair(kind types.CertAuthType, clusterName string) (*types.SSHKeyPair, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	block, err := ssh.MarshalPrivateKey(private, string(kind)+" authority of "+clusterName)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return &types.SSHKeyPair{
		PublicKey:      ssh.MarshalAuthorizedKey(sshPublic),
		PrivateKey:     pem.EncodeToMemory(block),
		PrivateKeyType: types.PrivateKeyType_RAW,
	}, nil
}

func newAuthority(kind types.CertAuthType, clusterName string, now time.Time) (*types.CertAuthorityV2, error) {
	keys, err := newKeySet(kind, clusterName, now)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	authority := &types.CertAuthorityV2{Spec: types.CertAuthoritySpecV2{
		Type:        kind,
		ClusterName: clusterName,
		ActiveKeys:  keys,
		Rotation:    &types.Rotation{State: types.RotationStateStandby, Phase: types.RotationPhaseStandby},
	}}
	if err := authority.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	return authority, nil
}

// eachPrivate replaces the private keys of the authority by what replace makes
// of them.
func eachPrivate(authority *types.CertAuthorityV2, replace func([]byte) ([]byte, error)) error {
	for _, set := range []*types.CAKeySet{&authority.Spec.ActiveKeys, &authority.Spec.AdditionalTrustedKeys} {
		for _, pair := range set.SSH {
			if len(pair.PrivateKey) == 0 {
				continue
			}
			key, err := replace(pair.PrivateKey)
			if err != nil {
				return trace.Wrap(err)
			}
			pair.PrivateKey = key
		}
		for _, pair := range set.TLS {
			if len(pair.Key) == 0 {
				continue
			}
			key, err := replace(pair.Key)
			if err != nil {
				return trace.Wrap(err)
			}
			pair.Key = key
		}
	}
	return nil
}

// encodeAuthority returns the item of an authority whose private keys are in the
// clear, with its revision: in the item they are sealed.
func (s *Server) encodeAuthority(authority *types.CertAuthorityV2) (backend.Item, error) {
	key := authorityKey(authority.GetType(), authority.GetClusterName())
	sealed := authority.Clone().(*types.CertAuthorityV2)
	sealed.SetRevision("")
	if err := eachPrivate(sealed, func(private []byte) ([]byte, error) {
		return s.seal.Seal(private, key)
	}); err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	value, err := json.Marshal(sealed)
	if err != nil {
		return backend.Item{}, trace.Wrap(err)
	}
	return backend.Item{Key: key, Value: value, Revision: authority.GetRevision()}, nil
}

// sealedAuthority returns the authority as it is kept, with its revision.
func (s *Server) sealedAuthority(ctx context.Context, kind types.CertAuthType) (*types.CertAuthorityV2, error) {
	item, err := s.store.Get(ctx, authorityKey(kind, s.clusterName))
	if trace.IsNotFound(err) {
		return nil, s.lost(kind)
	}
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var authority types.CertAuthorityV2
	if err := json.Unmarshal(item.Value, &authority); err != nil {
		return nil, s.unreadable(kind, err)
	}
	if len(authority.Spec.ActiveKeys.SSH) == 0 {
		return nil, s.lost(kind)
	}
	authority.SetRevision(item.Revision)
	return &authority, nil
}

// authority returns the authority with its private keys in the clear.
func (s *Server) authority(ctx context.Context, kind types.CertAuthType) (*types.CertAuthorityV2, error) {
	authority, err := s.sealedAuthority(ctx, kind)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := s.openKeys(authority); err != nil {
		return nil, trace.Wrap(err)
	}
	return authority, nil
}

// hasSealed and hasClear tell how the private keys are kept.
func hasSealed(authority *types.CertAuthorityV2) bool {
	return anyPrivate(authority, seal.IsSealed)
}

func hasClear(authority *types.CertAuthorityV2) bool {
	return anyPrivate(authority, func(private []byte) bool { return !seal.IsSealed(private) })
}

func anyPrivate(authority *types.CertAuthorityV2, is func([]byte) bool) bool {
	found := false
	_ = eachPrivate(authority, func(private []byte) ([]byte, error) {
		found = found || is(private)
		return private, nil
	})
	return found
}

// openKeys opens the private keys that are sealed. Those that an earlier version
// has written in the clear stay as they are.
func (s *Server) openKeys(authority *types.CertAuthorityV2) error {
	key := authorityKey(authority.GetType(), s.clusterName)
	return eachPrivate(authority, func(private []byte) ([]byte, error) {
		if !seal.IsSealed(private) {
			return private, nil
		}
		return s.seal.Open(private, key)
	})
}

// completeAuthority brings an authority that an earlier version has written up
// to this one: with TLS keys, and with its private keys sealed.
func (s *Server) completeAuthority(ctx context.Context, kind types.CertAuthType) error {
	for range maxRaces {
		authority, err := s.sealedAuthority(ctx, kind)
		if err != nil {
			return trace.Wrap(err)
		}
		complete, inClear := len(authority.Spec.ActiveKeys.TLS) > 0, hasClear(authority)
		if err := s.openKeys(authority); err != nil {
			return trace.Wrap(err)
		}
		if complete && !inClear {
			return nil
		}
		if !complete {
			pair, err := newTLSPair(s.clusterName, s.clock.Now())
			if err != nil {
				return trace.Wrap(err)
			}
			authority.Spec.ActiveKeys.TLS = []*types.TLSKeyPair{pair}
		}
		if authority.Spec.Rotation == nil {
			authority.SetRotation(types.Rotation{State: types.RotationStateStandby, Phase: types.RotationPhaseStandby})
		}
		item, err := s.encodeAuthority(authority)
		if err != nil {
			return trace.Wrap(err)
		}
		_, err = s.store.CompareAndSwap(ctx, item)
		if err == nil {
			s.log.Infof("The %s authority now has TLS keys, and its private keys are sealed with the key %s.", kind, s.seal.ID())
			return nil
		}
		if !trace.IsCompareFailed(err) {
			return trace.Wrap(err)
		}
	}
	return trace.CompareFailed("the %s authority is written by others all the time: stop the other auth servers and start again", kind)
}

// UserCAs returns the keys that sign users' certificates: whom a node trusts.
func (s *Server) UserCAs(ctx context.Context) ([]ssh.PublicKey, error) {
	return s.trusted(ctx, types.UserCA)
}

// HostCAs returns the keys that sign hosts' certificates: whom a client trusts.
func (s *Server) HostCAs(ctx context.Context) ([]ssh.PublicKey, error) {
	return s.trusted(ctx, types.HostCA)
}

func (s *Server) trusted(ctx context.Context, kind types.CertAuthType) ([]ssh.PublicKey, error) {
	authority, err := s.sealedAuthority(ctx, kind)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var keys []ssh.PublicKey
	for _, pair := range authority.GetTrustedSSHKeyPairs() {
		key, _, _, _, err := ssh.ParseAuthorizedKey(pair.PublicKey)
		if err != nil {
			return nil, s.unreadable(kind, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// CAPins returns what operators give joining hosts to know the cluster by: one
// for each trusted TLS key of the host authority, of which there are two while
// it is rotated.
func (s *Server) CAPins(ctx context.Context) ([]string, error) {
	certs, err := s.trustedTLS(ctx, types.HostCA)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	pins := make([]string, 0, len(certs))
	for _, cert := range certs {
		pins = append(pins, tlsca.Pin(cert))
	}
	return pins, nil
}

// GetCertAuthority returns an authority of the cluster, with its private keys
// only where loadKeys is set. The error is trace.NotFound for one of another
// cluster, and trace.BadParameter for a type that is neither user nor host.
func (s *Server) GetCertAuthority(ctx context.Context, id types.CertAuthID, loadKeys bool) (types.CertAuthority, error) {
	if err := checkAuthorityKind(id.Type); err != nil {
		return nil, trace.Wrap(err)
	}
	if id.DomainName != s.clusterName {
		return nil, s.foreign(id)
	}
	if loadKeys {
		authority, err := s.authority(ctx, id.Type)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		return authority, nil
	}
	authority, err := s.sealedAuthority(ctx, id.Type)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	types.RemoveCASecrets(authority)
	return authority, nil
}

// GetCertAuthorities returns the authorities of the type: the cluster's one. Of
// the types that a cluster here does not have there are none.
func (s *Server) GetCertAuthorities(ctx context.Context, kind types.CertAuthType, loadKeys bool) ([]types.CertAuthority, error) {
	if err := kind.Check(); err != nil {
		return nil, trace.Wrap(err)
	}
	if checkAuthorityKind(kind) != nil {
		return nil, nil
	}
	authority, err := s.GetCertAuthority(ctx, types.CertAuthID{Type: kind, DomainName: s.clusterName}, loadKeys)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	return []types.CertAuthority{authority}, nil
}

// UpsertCertAuthority puts an authority that was exported with its private keys
// in the place of the one that there is. Where it has a revision, that of the
// stored one must be the same.
//
// The error is trace.BadParameter for one that is of another cluster or could
// not sign, and trace.CompareFailed where the stored one has changed.
func (s *Server) UpsertCertAuthority(ctx context.Context, authority types.CertAuthority) error {
	v2, ok := authority.(*types.CertAuthorityV2)
	if !ok || v2 == nil {
		return trace.BadParameter("an authority must be a types.CertAuthorityV2, and this is a %T", authority)
	}
	v2 = v2.Clone().(*types.CertAuthorityV2)
	if err := s.checkAuthority(v2); err != nil {
		return trace.Wrap(err)
	}
	item, err := s.encodeAuthority(v2)
	if err != nil {
		return trace.Wrap(err)
	}
	if item.Revision == "" {
		_, err = s.store.Put(ctx, item)
	} else {
		_, err = s.store.CompareAndSwap(ctx, item)
	}
	if trace.IsCompareFailed(err) {
		return trace.CompareFailed("the %s authority was changed by somebody else meanwhile: read it again and repeat the change", v2.GetType())
	}
	if err != nil {
		return trace.Wrap(err)
	}
	s.emitOwn(ctx, AuthorityReplacedEvent, AuthorityReplacedCode, ownEvent{Name: string(v2.GetType())})
	s.log.Warnf("The %s authority of the cluster was replaced.", v2.GetType())
	return nil
}

func (s *Server) checkAuthority(authority *types.CertAuthorityV2) error {
	kind := authority.GetType()
	if err := checkAuthorityKind(kind); err != nil {
		return trace.Wrap(err)
	}
	if err := authority.CheckAndSetDefaults(); err != nil {
		return trace.Wrap(err)
	}
	if authority.GetClusterName() != s.clusterName {
		return trace.BadParameter("the %s authority is one of the cluster %q, and this cluster is %q, which trusts no other", kind, cutTo(authority.GetClusterName(), MaxNameLength), s.clusterName)
	}
	if !authority.Expiry().IsZero() {
		return trace.BadParameter("the %s authority has an expiry, and the cluster cannot be without it: take metadata.expires out", kind)
	}
	active, additional := authority.Spec.ActiveKeys, authority.Spec.AdditionalTrustedKeys
	if len(active.SSH) == 0 || len(active.TLS) == 0 {
		return trace.BadParameter("the %s authority has %d active SSH keys and %d active TLS keys, and needs one of each at least", kind, len(active.SSH), len(active.TLS))
	}
	if len(active.JWT)+len(additional.JWT) > 0 {
		return trace.BadParameter("the %s authority has JWT keys, and there is no use for them here: take them out", kind)
	}
	for i, set := range []types.CAKeySet{active, additional} {
		if err := checkKeySet(set, i == 0); err != nil {
			return trace.BadParameter("the %s authority cannot be used: %v", kind, err)
		}
	}
	return nil
}

// checkKeySet refuses keys that cannot be read, and private keys of other public
// ones. Those of signing keys must be there.
func checkKeySet(set types.CAKeySet, signing bool) error {
	for _, pair := range set.SSH {
		public, _, _, _, err := ssh.ParseAuthorizedKey(pair.PublicKey)
		if err != nil {
			return trace.BadParameter("an SSH public key cannot be read: %v", err)
		}
		if len(pair.PrivateKey) == 0 {
			if signing {
				return trace.BadParameter("the private key of an active SSH key is missing: export the authority with its secrets")
			}
			continue
		}
		signer, err := ssh.ParsePrivateKey(pair.PrivateKey)
		if err != nil {
			return trace.BadParameter("an SSH private key cannot be read: %v", err)
		}
		if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
			return trace.BadParameter("an SSH private key is not that of its public key")
		}
	}
	for _, pair := range set.TLS {
		if len(pair.Key) == 0 {
			if signing {
				return trace.BadParameter("the private key of an active TLS key is missing: export the authority with its secrets")
			}
			if _, err := parseTLSAuthority(pair.Cert); err != nil {
				return trace.Wrap(err)
			}
			continue
		}
		if _, _, err := openTLSPair(pair); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// DeleteCertAuthority is refused for the authorities of the cluster, with
// trace.BadParameter: without them nobody can log in. There are no others, and
// the error is trace.NotFound for them.
func (s *Server) DeleteCertAuthority(_ context.Context, id types.CertAuthID) error {
	if err := checkAuthorityKind(id.Type); err != nil {
		return trace.Wrap(err)
	}
	if id.DomainName != s.clusterName {
		return s.foreign(id)
	}
	return trace.BadParameter("the %s authority is the cluster's own and cannot be removed: replace its keys with tctl auth rotate --type=%s", id.Type, id.Type)
}

func (s *Server) foreign(id types.CertAuthID) error {
	return trace.NotFound("there is no %s authority of the cluster %q: this cluster is %q", id.Type, cutTo(id.DomainName, MaxNameLength), s.clusterName)
}

func (s *Server) lost(kind types.CertAuthType) error {
	return trace.NotFound("the cluster %q has lost its %s authority: restore %s from a backup", s.clusterName, kind, s.place)
}

func (s *Server) unreadable(kind types.CertAuthType, err error) error {
	return trace.Errorf("the %s authority of the cluster %q cannot be read (%v): restore %s from a backup", kind, s.clusterName, err, s.place)
}
