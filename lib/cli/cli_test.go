// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/cli"
)

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		format string
		port   int
		tty    bool
		err    string
	}{
		{args: nil, format: "text"},
		{args: []string{"--format=json", "-p", "22"}, format: "json", port: 22},
		{args: []string{"-f", "yaml", "--port=0"}, format: "yaml"},
		{args: []string{"-t"}, format: "text", tty: true},
		{args: []string{"-ttp22"}, format: "text", tty: true, port: 22},
		{args: []string{"--tty", "--no-tty"}, format: "text"},
		{args: []string{"--format=xml"}, err: `--format takes no "xml": give text, json or yaml`},
		{args: []string{"-f", "JSON"}, err: `--format takes no "JSON": give text, json or yaml`},
		{args: []string{"--format="}, err: `--format takes no "": give text, json or yaml`},
		{args: []string{"-p", "ssh"}, err: `--port takes no "ssh": give a port from 0 to 65535`},
		{args: []string{"--port=-1"}, err: `--port takes no "-1": give a port from 0 to 65535`},
		{args: []string{"--port=65536"}, err: `--port takes no "65536": give a port from 0 to 65535`},
		{args: []string{"--port=1e3"}, err: `--port takes no "1e3": give a port from 0 to 65535`},
	} {
		app := kingpin.New("app", "")
		var format string
		var port int
		var tty bool
		cli.OneOf(app.Flag("format", "").Short('f').Default("text"), &format, "text", "json", "yaml")
		cli.Number(app.Flag("port", "").Short('p'), &port, "a port", 0, 65535)
		cli.Repeatable(app.Flag("tty", "").Short('t'), &tty)
		_, err := app.Parse(tt.args)
		if tt.err != "" {
			require.EqualError(t, err, tt.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tt.format, format)
		require.Equal(t, tt.port, port)
		require.Equal(t, tt.tty, tty, "%q", tt.args)
	}
}
