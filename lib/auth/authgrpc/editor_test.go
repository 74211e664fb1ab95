// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gravitational/teleport/api/client"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/access"
)

// Whose keys are an authority's can sign a certificate for Admin.
func TestEditorsChooseNoKeys(t *testing.T) {
	ctx := t.Context()
	f := newFixture(t)
	editor := f.connect(t, user(t, f.auth, "eve", time.Hour, access.PresetEditor))
	id := types.CertAuthID{Type: types.HostCA, DomainName: testCluster}

	own := (&fixture{dir: filepath.Join(t.TempDir(), "own")}).open(t, clockwork.NewRealClock())
	authority, err := own.GetCertAuthority(ctx, id, true)
	require.NoError(t, err)
	public, err := editor.GetCertAuthority(ctx, id, false)
	require.NoError(t, err)
	require.NoError(t, authority.SetAdditionalTrustedKeys(public.GetActiveKeys()))
	authority.SetRevision("")
	_, err = editor.UpsertCertAuthority(ctx, authority)
	require.True(t, trace.IsAccessDenied(err), "%v", err)

	time.Sleep(1500 * time.Millisecond) // the server remembers whom it trusts
	config, err := own.AdminTLS(ctx)
	require.NoError(t, err)
	config.InsecureSkipVerify = true
	admin, err := f.dial(t, client.LoadTLS(config))
	if err == nil {
		_, err = admin.GetCertAuthority(ctx, types.CertAuthID{Type: types.UserCA, DomainName: testCluster}, true)
	}
	require.Error(t, err, "an editor has read private keys")
}
