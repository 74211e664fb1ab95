// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/gravitational/trace"
)

// tlsConfig reads the files. A certificate that is replaced while the store is
// open is used for the next connection.
func tlsConfig(cfg Config) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLSCAFile != "" {
		text, err := os.ReadFile(cfg.TLSCAFile)
		if err != nil {
			return nil, trace.BadParameter("storage.tls_ca_file cannot be read (%v): name a file with the certificates in PEM that etcd's are from", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, trace.BadParameter("storage.tls_ca_file %s has no certificate in PEM", cfg.TLSCAFile)
		}
	}
	if cfg.TLSCertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.TLSCertFile, cfg.TLSKeyFile)
			if err != nil {
				return nil, trace.BadParameter("storage.tls_cert_file and storage.tls_key_file cannot be used (%v): name a certificate and its key in PEM", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, trace.Wrap(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}
