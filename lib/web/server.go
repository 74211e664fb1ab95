// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The http.Server around the handler: how long a client may take.

package web

import (
	stdlog "log"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
)

// Server returns a server for handler, with bounds on what a slow or mute
// client can hold. The caller serves it on TLS connections: for HTTP/2 their
// configuration must offer "h2" and "http/1.1" as NextProtos, and they must be
// *tls.Conn.
func Server(handler http.Handler, log logrus.FieldLogger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// What it says is about single clients: bad handshakes, mostly.
		ErrorLog: stdlog.New(debugWriter{log}, "", 0),
	}
}

type debugWriter struct{ log logrus.FieldLogger }

func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debugf("HTTPS: %q", line)
	return len(line), nil
}
