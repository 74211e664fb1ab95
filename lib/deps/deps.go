// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

//go:build deps

// Package deps holds the modules of this change until the code imports them.
package deps

import (
	_ "github.com/chromedp/chromedp"
	_ "github.com/gravitational/teleport/api/client"
	_ "github.com/gravitational/teleport/api/client/webclient"
	_ "github.com/gravitational/teleport/api/identityfile"
	_ "github.com/gravitational/teleport/api/profile"
	_ "github.com/pires/go-proxyproto"
	_ "github.com/pquerna/otp/totp"
	_ "go.etcd.io/etcd/client/v3"
	_ "golang.org/x/net/proxy"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "google.golang.org/grpc"
	_ "google.golang.org/grpc/test/bufconn"
)
