// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/stretchr/testify/require"
)

// What auth servers show during a rotation is everybody's to keep: none of it may
// make the old key trusted after the end, when it may be a thief's.
func TestOldKeyEndsWithTheRotation(t *testing.T) {
	ctx := t.Context()
	s := open(t, Config{})
	id := types.CertAuthID{Type: types.HostCA, DomainName: s.ClusterName()}
	before, err := s.GetCertAuthority(ctx, id, true)
	require.NoError(t, err)
	old, oldKey, err := openTLSPair(before.GetActiveKeys().TLS[0])
	require.NoError(t, err)

	kept := x509.NewCertPool()
	for _, phase := range []string{types.RotationPhaseInit, types.RotationPhaseUpdateClients, types.RotationPhaseUpdateServers, types.RotationPhaseStandby} {
		require.NoError(t, s.RotateCertAuthority(ctx, types.RotateRequest{Type: types.HostCA, TargetPhase: phase, Mode: types.RotationModeManual}))
		shown, err := s.AuthServerTLS(ctx, nil)
		require.NoError(t, err)
		for _, raw := range shown.Certificate[1:] {
			cert, err := x509.ParseCertificate(raw)
			require.NoError(t, err)
			kept.AddCert(cert)
		}
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	now := s.clock.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-ClockSkew), NotAfter: now.Add(HostCertTTL),
		DNSNames: []string{constants.APIDomain}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, old, key.Public(), oldKey)
	require.NoError(t, err)
	forged, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	trusted, err := s.trustedTLS(ctx, types.HostCA)
	require.NoError(t, err)
	_, err = forged.Verify(x509.VerifyOptions{Roots: poolOf(trusted), Intermediates: kept, DNSName: constants.APIDomain, CurrentTime: now})
	require.Error(t, err, "a certificate of the old key is believed after the rotation")
}
