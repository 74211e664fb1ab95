// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"strings"
	"testing"

	"github.com/gravitational/trace"
	"github.com/stretchr/testify/require"
)

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]string{
		"proxy.example.com":     "proxy.example.com:3080",
		"Proxy.Example.com:443": "proxy.example.com:443",
		"10.0.0.1":              "10.0.0.1:3080",
		"::1":                   "[::1]:3080",
		"[::1]":                 "[::1]:3080",
		"[::1]:443":             "[::1]:443",
	} {
		got, err := ParseProxy(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{
		"", ":3080", "proxy:", "proxy:0", "proxy:65536", "proxy:http", "https://proxy", "proxy/path", "../proxy",
		".", "-oProxyCommand=x", "*.example.com", "a,b", "a b", "proxy\n", "\x1b[2J", strings.Repeat("a", 201),
	} {
		_, err := ParseProxy(text)
		require.True(t, trace.IsBadParameter(err), "%q: %v", text, err)
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"web":          "web",
		"b\u00fcro":    "b\u00fcro",
		"\x1b[2J":      `\x1b[2J`,
		"a\nb":         `a\nb`,
		"a\u202eb":     `a\u202eb`,
		"bad\xffutf-8": `bad\xffutf-8`,
		"\u009b2J":     `\u009b2J`,
	} {
		require.Equal(t, want, Clean(text))
	}
	require.Equal(t, "one\ttwo\n\\x1b\n", CleanLines("one\ttwo\r\n\x1b\n"))
}

func TestParseLabels(t *testing.T) {
	labels, err := ParseLabels([]string{"env=prod,os=debian", "note=a=b"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"env": "prod", "os": "debian", "note": "a=b"}, labels)
	for _, text := range []string{"env", "=prod", "", "env=prod,", "env=a,env=b", "env=\x1b"} {
		_, err := ParseLabels([]string{text})
		require.True(t, trace.IsBadParameter(err), "%q", text)
	}
}

func TestParseForward(t *testing.T) {
	for text, want := range map[string]Forward{
		"8080:web:80":             {Port: 8080, Host: "web", HostPort: 80},
		"0:web:80":                {Host: "web", HostPort: 80},
		"127.0.0.1:8080:web:80":   {Bind: "127.0.0.1", Port: 8080, Host: "web", HostPort: 80},
		"*:8080:web:80":           {Bind: "*", Port: 8080, Host: "web", HostPort: 80},
		":8080:web:80":            {Bind: "*", Port: 8080, Host: "web", HostPort: 80},
		"[::1]:8080:[fe80::1]:80": {Bind: "::1", Port: 8080, Host: "fe80::1", HostPort: 80},
	} {
		got, err := ParseForward(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "8080", "8080:web", "web:80", "8080::80", "a:web:80", "8080:web:0", "8080:web:65536", "1:2:3:4:5", "[::1:8080:web:80", "::1:8080:web:80"} {
		_, err := ParseForward(text)
		require.True(t, trace.IsBadParameter(err), "%q: %v", text, err)
	}
	for text, want := range map[string]Forward{
		"1080": {Port: 1080}, "0": {}, "*:1080": {Bind: "*", Port: 1080}, "[::1]:1080": {Bind: "::1", Port: 1080},
	} {
		got, err := ParseDynamic(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "a", "1:2:3", "web:"} {
		_, err := ParseDynamic(text)
		require.True(t, trace.IsBadParameter(err), "%q: %v", text, err)
	}
}

func TestParseLocation(t *testing.T) {
	for text, want := range map[string]Location{
		"file":                 {Path: "file"},
		"./a:b":                {Path: "./a:b"},
		"/a:b":                 {Path: "/a:b"},
		"web:":                 {Host: "web"},
		"web:a:b":              {Host: "web", Path: "a:b"},
		"bob@web:/srv":         {Login: "bob", Host: "web", Path: "/srv"},
		"bob@corp@web:/srv":    {Login: "bob@corp", Host: "web", Path: "/srv"},
		"bob@[fe80::1]:x":      {Login: "bob", Host: "fe80::1", Path: "x"},
		"[fe80::1]:x":          {Host: "fe80::1", Path: "x"},
		"file@home":            {Path: "file@home"},
		"with space/and:colon": {Path: "with space/and:colon"},
	} {
		got, err := ParseLocation(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", ":x", "bob@:x", "[::1:x"} {
		_, err := ParseLocation(text)
		require.True(t, trace.IsBadParameter(err), "%q: %v", text, err)
	}
}

func TestQuote(t *testing.T) {
	got, err := shellQuote("/opt/it's 100%/tsh")
	require.NoError(t, err)
	require.Equal(t, `'/opt/it'\''s 100%%/tsh'`, got)
	got, err = sshQuote("/home/a b/100%")
	require.NoError(t, err)
	require.Equal(t, `"/home/a b/100%%"`, got)
	for _, path := range []string{`/a"b`, "/a\nb", "/${HOME}", `/a\b`} {
		_, err := sshQuote(path)
		require.True(t, trace.IsBadParameter(err), "%q", path)
	}
}
