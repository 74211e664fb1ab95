// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Certificates that are older than their cluster's authorities.

package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	apiclient "github.com/gravitational/teleport/api/client"
	"github.com/gravitational/trace"
)

// checkTimeout is how long the auth service may take to say that it knows somebody.
const checkTimeout = 5 * time.Second

// What Handshake finds where the two sides do not believe the same authorities.
var (
	// ErrStranger is a server of an authority that the client does not know.
	ErrStranger = errors.New("the server is of an unknown authority")
	// ErrRefused is a client of an authority that the server does not know, and
	// whom the client knows.
	ErrRefused = errors.New("the server knows the client's authority no more")
)

// Handshake shakes hands in TLS with the auth service, at addr itself or behind the
// web port of a proxy, and waits for its first words. The error is ErrStranger or
// ErrRefused; anything else that may go wrong is none.
//
// It is for when a call has failed: then the reason may be lost, since what the
// client has sent meanwhile makes the system forget what it has received. This
// sends nothing.
func Handshake(ctx context.Context, addr, cluster string, credentials apiclient.Credentials) error {
	config, err := credentials.TLSConfig()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := apiclient.NewDialer(ctx, checkTimeout, checkTimeout).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	defer conn.Close()
	secure := tls.Client(conn, apiclient.ConfigureALPN(config, cluster))
	if err = secure.HandshakeContext(ctx); err == nil {
		// In TLS 1.3 the server looks at the client's certificate only now.
		_ = conn.SetReadDeadline(time.Now().Add(checkTimeout))
		_, err = secure.Read(make([]byte, 1))
	}
	var (
		unknown x509.UnknownAuthorityError
		remote  *net.OpError
	)
	switch {
	case errors.As(err, &unknown):
		return ErrStranger
	case errors.As(err, &remote) && remote.Op == "remote error" && remote.Err.Error() == "tls: unknown certificate authority":
		return ErrRefused
	}
	return nil
}

// OutdatedError says that a login and its cluster do not know each other any more,
// and what to do: the cluster has replaced its authorities since the login, or
// somebody else answers in its place.
type OutdatedError struct {
	message string
}

func (e *OutdatedError) Error() string { return e.message }

// CheckLogin asks the cluster whether it and the login p still know each other.
// The error is an OutdatedError where they do not. That the cluster cannot be
// asked says nothing of that, and is none.
func CheckLogin(ctx context.Context, p *Profile) error {
	proxy, cluster := Clean(p.WebProxyAddr), Clean(p.SiteName)
	err := Handshake(ctx, p.WebProxyAddr, p.SiteName, apiclient.LoadProfile(p.Dir, p.Name()))
	switch {
	case errors.Is(err, ErrStranger):
		// A rotation looks like this, and so does a man in the middle.
		return &OutdatedError{fmt.Sprintf("what answers at %s does not prove to be the cluster %q: its authority is not one that this login knows. "+
			"Either the cluster's authorities were replaced since the login, or somebody stands in between: ask who runs the cluster which it is, and if they were replaced, log in again: tsh login --proxy=%s", proxy, cluster, proxy)}
	case errors.Is(err, ErrRefused):
		return &OutdatedError{fmt.Sprintf("the cluster %q takes this login no more, as its authority was replaced since: log in again: tsh login --proxy=%s", cluster, proxy)}
	}
	return nil
}

// wrapUnlessOutdated puts words before an error, but not before one that is a
// whole sentence.
func wrapUnlessOutdated(err error, format string, args ...any) error {
	var outdated *OutdatedError
	if errors.As(err, &outdated) {
		return trace.Wrap(outdated)
	}
	return trace.Wrap(err, append([]any{format}, args...)...)
}
