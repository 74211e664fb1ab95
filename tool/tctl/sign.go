// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl auth sign: a key and a certificate for a user.

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"

	"teleport-auditd/lib/auth"
)

const (
	formatOpenSSH = "openssh"
	defaultTTL    = "12h"
)

type signCommand struct {
	clause    *kingpin.CmdClause
	user      string
	logins    []string
	ttl       string
	format    string
	out       string
	overwrite bool
}

func newSignCommand(parent *kingpin.CmdClause) *signCommand {
	c := &signCommand{clause: parent.Command("sign", "Make a key and a certificate with which a user logs in.")}
	c.clause.Flag("user", "The person: what audit records call teleportUser.").
		PlaceHolder("NAME").Required().StringVar(&c.user)
	c.clause.Flag("logins", "The system users that the person may be, with commas between them.").
		PlaceHolder("LOGIN,...").Required().StringsVar(&c.logins)
	c.clause.Flag("ttl", fmt.Sprintf("How long the certificate is valid, such as 90m or 12h; %.0fh at most.", auth.MaxTTL.Hours())).
		Default(defaultTTL).StringVar(&c.ttl)
	c.clause.Flag("format", "How the files are written: "+formatOpenSSH+".").
		Default(formatOpenSSH).StringVar(&c.format)
	c.clause.Flag("out", "Name of the private key's file; OUT.pub and OUT-cert.pub stand beside it.").
		Short('o').PlaceHolder("OUT").Required().StringVar(&c.out)
	c.clause.Flag("overwrite", "Replace the files where they are there already.").
		BoolVar(&c.overwrite)
	return c
}

func (c *signCommand) run(ctx context.Context, t *tctl) error {
	if c.format != formatOpenSSH {
		return usageError{trace.BadParameter("there is no format %q: the formats are: %s", c.format, formatOpenSSH)}
	}
	if c.out == "" {
		return usageError{trace.BadParameter("--out is empty: give the name of a file")}
	}
	ttl, err := time.ParseDuration(c.ttl)
	if err != nil {
		return usageError{trace.BadParameter("--ttl=%q is no duration: give one such as 90m or 12h", c.ttl)}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return trace.Wrap(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return trace.Wrap(err)
	}
	req := auth.UserCertRequest{PublicKey: key, User: c.user, Logins: c.splitLogins(), TTL: ttl}
	if err := req.CheckAndSetDefaults(); err != nil {
		return usageError{err}
	}

	out := newOutput(c.out, c.overwrite)
	// Better no certificate than one that finds no place.
	if err := out.check(); err != nil {
		return trace.Wrap(err)
	}
	server, err := t.open(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer server.Close() //nolint:errcheck // all that was to be read has been read
	cert, err := server.SignUser(ctx, req)
	if err != nil {
		return trace.Wrap(err)
	}
	block, err := ssh.MarshalPrivateKey(private, c.user)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := out.write(pem.EncodeToMemory(block), publicLine(key, c.user), publicLine(cert, c.user)); err != nil {
		return trace.Wrap(err)
	}
	until := time.Unix(int64(cert.ValidBefore), 0).UTC()
	return t.print(fmt.Sprintf("Wrote %s, valid until %s.\n", strings.Join(out.names(), ", "), until.Format(time.RFC3339)))
}

// splitLogins takes --logins=a,b as well as --logins=a --logins=b. What is empty
// stays, to be refused.
func (c *signCommand) splitLogins() []string {
	var logins []string
	for _, list := range c.logins {
		logins = append(logins, strings.Split(list, ",")...)
	}
	return logins
}

// publicLine is a key or certificate as it stands in a .pub file. The comment
// has no line breaks: auth refuses them in names.
func publicLine(key ssh.PublicKey, comment string) []byte {
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
	return []byte(line + " " + comment + "\n")
}
