// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/client"
	"teleport-auditd/lib/client/clienttest"
)

// TestLoginOlderThanAuthorities: what a rotation leaves behind is one line that
// names the remedy, and never that all is well: a man in the middle looks alike.
func TestLoginOlderThanAuthorities(t *testing.T) {
	before, after := newCluster(t, clienttest.Config{}), newCluster(t, clienttest.Config{})
	fresh := login(t, after)
	for _, tt := range []struct {
		name   string
		change func(*client.Login)
		want   string
	}{
		{
			name:   "both authorities were replaced",
			change: func(*client.Login) {},
			want: "what answers at PROXY does not prove to be the cluster \"example.com\": its authority is not one that this login knows. " +
				"Either the cluster's authorities were replaced since the login, or somebody stands in between: ask who runs the cluster which it is, and if they were replaced, log in again: tsh login --proxy=PROXY",
		},
		{
			name: "the login has learnt of the hosts' new keys",
			change: func(old *client.Login) {
				old.SSHHostCAs, old.TLSHostCAs = fresh.SSHHostCAs, fresh.TLSHostCAs
			},
			want: "the cluster \"example.com\" takes this login no more, as its authority was replaced since: log in again: tsh login --proxy=PROXY",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := login(t, before)
			old.WebAddr, old.SSHAddr = after.WebAddr, after.SSHAddr
			tt.change(old)
			clock := clockwork.NewRealClock()
			store := newStore(t, clock)
			p, err := store.Save(old)
			require.NoError(t, err)
			want := strings.ReplaceAll(tt.want, "PROXY", after.WebAddr)

			require.EqualError(t, client.CheckLogin(context.Background(), p), want)
			_, err = client.ListNodes(context.Background(), p, client.NodeFilter{})
			var outdated *client.OutdatedError
			require.ErrorAs(t, err, &outdated)
			require.EqualError(t, outdated, want)
			_, err = client.Dial(context.Background(), client.DialConfig{Profile: p, Login: "bob", Clock: clock, Refresh: func(ctx context.Context) ([]ssh.PublicKey, error) {
				return store.Refresh(ctx, p)
			}})
			outdated = nil
			require.ErrorAs(t, err, &outdated)
			require.EqualError(t, outdated, want)
		})
	}

	store := newStore(t, clockwork.NewRealClock())
	p, err := store.Save(fresh)
	require.NoError(t, err)
	require.NoError(t, client.CheckLogin(context.Background(), p))
	after.Close()
	require.NoError(t, client.CheckLogin(context.Background(), p), "a cluster that is away has refused nobody")
}
