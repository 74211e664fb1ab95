// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl status: which cluster this is, and by what a host that joins knows it.

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/tlsca"
)

// rotation is an authority whose keys are being replaced.
type rotation struct {
	Authority string `json:"authority"`
	Phase     string `json:"phase"`
	Started   string `json:"started"`
}

func (t *tctl) addStatus(app *kingpin.Application, register register) {
	clause := app.Command("status", "Show the cluster's name, the version of its auth service and the pins of its host authority.")
	var format string
	addFormat(clause, &format)
	register(clause, func(ctx context.Context) error { return t.status(ctx, format) })
}

func (t *tctl) status(ctx context.Context, format string) error {
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	ping, err := c.Ping(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	pins, err := caPins(ctx, c, ping.ClusterName)
	if err != nil {
		return trace.Wrap(err)
	}
	var rotations []rotation
	for _, kind := range []types.CertAuthType{types.UserCA, types.HostCA} {
		authority, err := c.GetCertAuthority(ctx, types.CertAuthID{Type: kind, DomainName: ping.ClusterName}, false)
		if err != nil {
			return trace.Wrap(err)
		}
		if state := authority.GetRotation(); state.State == types.RotationStateInProgress {
			rotations = append(rotations, rotation{Authority: string(kind), Phase: state.Phase, Started: when(state.Started)})
		}
	}
	value := struct {
		Cluster   string     `json:"cluster"`
		Version   string     `json:"version"`
		CAPins    []string   `json:"ca_pins"`
		Rotations []rotation `json:"rotations,omitempty"`
	}{ping.ClusterName, ping.ServerVersion, pins, rotations}
	return t.show(format, value, func() string {
		var b strings.Builder
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintf(w, "Cluster\t%s\nVersion\t%s\n", printable(ping.ClusterName), printable(ping.ServerVersion))
		for _, r := range rotations {
			_, _ = fmt.Fprintf(w, "Rotation\t%s authority, phase %s, begun %s\n", r.Authority, printable(r.Phase), r.Started)
		}
		for _, pin := range pins {
			_, _ = fmt.Fprintf(w, "CA pin\t%s\n", pin)
		}
		_ = w.Flush() // into memory
		return b.String()
	})
}

// caPins are those of the host authority, one for each key that is trusted.
func caPins(ctx context.Context, c *cluster, name string) ([]string, error) {
	authority, err := c.GetCertAuthority(ctx, types.CertAuthID{Type: types.HostCA, DomainName: name}, false)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var pins []string
	for _, pair := range authority.GetTrustedTLSKeyPairs() {
		certificate, err := parseCertificate(pair.Cert)
		if err != nil {
			return nil, trace.Wrap(err)
		}
		pins = append(pins, tlsca.Pin(certificate))
	}
	return pins, nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, trace.BadParameter("the certificate is not in PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	return certificate, trace.Wrap(err, "reading the certificate")
}
