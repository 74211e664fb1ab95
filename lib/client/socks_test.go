// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSocksRequest(t *testing.T) {
	hello := "\x05\x01\x00"
	for _, test := range []struct {
		name, sent, want, answer string
	}{
		{"a name", hello + "\x05\x01\x00\x03\x03web\x00\x50", "web:80", "\x05\x00"},
		{"IPv4", hello + "\x05\x01\x00\x01\x0a\x00\x00\x01\x1f\x90", "10.0.0.1:8080", "\x05\x00"},
		{"IPv6", hello + "\x05\x01\x00\x04" + string(net.IPv6loopback) + "\x00\x16", "[::1]:22", "\x05\x00"},
		{"several methods", "\x05\x02\x02\x00\x05\x01\x00\x03\x01a\x00\x01", "a:1", "\x05\x00"},
		{"only with a password", "\x05\x01\x02", "", "\x05\xff"},
		{"SOCKS 4", "\x04\x01\x00\x50", "", ""},
		{"bind", hello + "\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50", "", "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"an address of no kind", hello + "\x05\x01\x00\x02", "", "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"no name", hello + "\x05\x01\x00\x03\x00\x00\x50", "", "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"nothing", "", "", ""},
		{"half", hello + "\x05\x01\x00\x03\x09we", "", "\x05\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := net.Pipe()
			answer := make(chan string)
			go func() {
				go func() {
					_, _ = client.Write([]byte(test.sent))
					// An end of input, as far as a pipe has one.
					_ = client.SetWriteDeadline(time.Now())
				}()
				text, _ := io.ReadAll(client)
				answer <- string(text)
			}()
			if test.want == "" {
				// What is not there yet may still come.
				time.AfterFunc(200*time.Millisecond, func() { _ = client.Close() })
			}
			got, err := socksRequest(server)
			_ = server.Close()
			require.Equal(t, test.want, got)
			require.Equal(t, test.want == "", err != nil, "%v", err)
			require.Equal(t, test.answer, <-answer)
		})
	}
}
