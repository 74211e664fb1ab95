// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The certificates that HTTPS shows.

package mux

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"

	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/disk"
)

const (
	// lookInterval is how often handshakes look whether the files have changed.
	lookInterval = 5 * time.Second
	// selfSignedTTL is what browsers and Apple's systems take at most.
	selfSignedTTL = 825 * 24 * time.Hour
	// selfSignedRenew is how long before its end a certificate is made anew.
	selfSignedRenew = 30 * 24 * time.Hour
	// maxKeypairFile is far more than a chain of certificates needs.
	maxKeypairFile = 1 << 20
)

// KeypairFiles are a certificate with its chain and its key, in PEM.
type KeypairFiles struct {
	Key, Cert string
}

// Keypairs are certificates that are read again when their files change.
type Keypairs struct {
	files []KeypairFiles
	clock clockwork.Clock
	log   logrus.FieldLogger

	mu     sync.Mutex
	looked time.Time
	stamps []stamp
	certs  []*tls.Certificate
}

// stamp tells one version of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// NewKeypairs reads all files. The error says which one is wrong and how: what is
// not there, not PEM, or not the key of its certificate.
func NewKeypairs(files []KeypairFiles, clock clockwork.Clock, log logrus.FieldLogger) (*Keypairs, error) {
	if len(files) == 0 {
		return nil, trace.BadParameter("there is no certificate for HTTPS")
	}
	k := &Keypairs{files: slices.Clone(files), clock: clock, log: log}
	if err := k.Reload(); err != nil {
		return nil, trace.Wrap(err)
	}
	return k, nil
}

// Reload reads all files now, as SIGHUP asks for. Where one is wrong, those that
// were read last stay, and the error says what is wrong.
func (k *Keypairs) Reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reload()
}

func (k *Keypairs) reload() error {
	// The stamps come first: a file that changes meanwhile is read again.
	stamps := k.stampsNow()
	certs := make([]*tls.Certificate, 0, len(k.files))
	for _, pair := range k.files {
		cert, err := readKeypair(pair)
		if err != nil {
			return err
		}
		if now := k.clock.Now(); now.After(cert.Leaf.NotAfter) {
			k.log.Warnf("The HTTPS certificate %s has expired at %v: renew it.", pair.Cert, cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		certs = append(certs, cert)
	}
	k.certs, k.stamps, k.looked = certs, stamps, k.clock.Now()
	return nil
}

func (k *Keypairs) stampsNow() []stamp {
	var stamps []stamp
	for _, pair := range k.files {
		for _, path := range []string{pair.Cert, pair.Key} {
			var s stamp
			if info, err := os.Stat(path); err == nil {
				s = stamp{info.ModTime(), info.Size()}
			}
			stamps = append(stamps, s)
		}
	}
	return stamps
}

// GetCertificate is for tls.Config: the first certificate that fits what the
// client asks for, or the first of all. Files that have changed are read again; if
// they are wrong, the log says so once for each change, and what was read last is
// shown.
func (k *Keypairs) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	if now := k.clock.Now(); now.Sub(k.looked) >= lookInterval {
		k.looked = now
		if stamps := k.stampsNow(); !slices.Equal(stamps, k.stamps) {
			if err := k.reload(); err != nil {
				// Certificate and key are seldom replaced at the same instant.
				k.log.Errorf("The HTTPS certificates have changed and cannot be used, so that the ones from before are shown: %v", err)
				k.stamps = stamps
			} else {
				k.log.Info("The HTTPS certificates have changed, and the new ones are shown from now on.")
			}
		}
	}
	certs := k.certs
	k.mu.Unlock()
	for _, cert := range certs {
		if hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return certs[0], nil
}

// readKeypair reads one certificate and its key.
func readKeypair(pair KeypairFiles) (*tls.Certificate, error) {
	chain, err := readPEM(pair.Cert)
	if err != nil {
		return nil, trace.BadParameter("the HTTPS certificate %s cannot be read: %v", pair.Cert, err)
	}
	key, err := readPEM(pair.Key)
	if err != nil {
		return nil, trace.BadParameter("the HTTPS key %s cannot be read: %v", pair.Key, err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, trace.BadParameter("the HTTPS certificate %s and the key %s cannot be used: %v", pair.Cert, pair.Key, err)
	}
	return &cert, nil
}

// readPEM reads a file that may be an administrator's mistake.
func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause.System(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	if info.Size() > maxKeypairFile {
		return nil, errors.New("it is longer than 1 MiB")
	}
	text, err := os.ReadFile(path)
	return text, cause.System(err)
}

// SelfSigned returns the files of a certificate for these names and IP addresses,
// but for those that no certificate can hold, in dir, web_cert.pem and web_key.pem (mode 0600), which it makes where they are
// missing, end within a month, or lack one of the names. Nobody trusts it before
// being told to.
func SelfSigned(dir string, names []string, clock clockwork.Clock) (KeypairFiles, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isHostName(name) })
	if len(names) == 0 {
		return KeypairFiles{}, trace.BadParameter("a certificate for HTTPS needs a name that DNS knows, or an IP address")
	}
	pair := KeypairFiles{Key: filepath.Join(dir, "web_key.pem"), Cert: filepath.Join(dir, "web_cert.pem")}
	if kept, err := readKeypair(pair); err == nil && isGood(kept.Leaf, names, clock.Now()) {
		return pair, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeypairFiles{}, trace.Wrap(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeypairFiles{}, trace.Wrap(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return KeypairFiles{}, trace.Wrap(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: names[0], Organization: []string{"teleport self-signed"}},
		// Clocks differ.
		NotBefore:   clock.Now().Add(-time.Hour),
		NotAfter:    clock.Now().Add(selfSignedTTL - time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// Whoever adds it to the trusted ones trusts it for itself alone.
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certDER, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return KeypairFiles{}, trace.Wrap(err)
	}
	// The key goes first: a certificate without its key is made anew.
	for _, file := range []struct {
		path, kind string
		der        []byte
	}{
		{pair.Key, "PRIVATE KEY", keyDER},
		{pair.Cert, "CERTIFICATE", certDER},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der})
		if err := disk.Replace(file.path, text, 0o600); err != nil {
			return KeypairFiles{}, trace.AccessDenied("the HTTPS certificate %s cannot be written (%v): make the data directory writable", file.path, cause.System(err))
		}
	}
	return pair, nil
}

// isHostName tells whether a name can stand in a certificate.
func isHostName(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
	})
}

// isGood tells whether a certificate that was kept still does.
func isGood(cert *x509.Certificate, names []string, now time.Time) bool {
	if now.Before(cert.NotBefore) || now.Add(selfSignedRenew).After(cert.NotAfter) {
		return false
	}
	return !slices.ContainsFunc(names, func(name string) bool { return cert.VerifyHostname(name) != nil })
}
