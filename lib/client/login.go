// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The login at the proxy, over HTTPS.

package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/utils/keys"
	"github.com/gravitational/teleport/api/utils/sshutils"
	"github.com/gravitational/trace"
	"golang.org/x/crypto/ssh"
)

const (
	// pingTimeout and loginTimeout are how long a proxy may take to answer. It
	// hashes a password for the second, and asks another host.
	pingTimeout  = 15 * time.Second
	loginTimeout = 30 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
)

// WebClient talks to a proxy that is not known yet.
type WebClient struct {
	// Addr is host:port of the proxy, as ParseProxy returns it.
	Addr string
	// Insecure takes any certificate.
	Insecure bool
}

// ProxyInfo is what a proxy says of itself.
type ProxyInfo struct {
	// Cluster is the cluster's name.
	Cluster string
	// SSHAddr is host:port where the proxy speaks SSH.
	SSHAddr string
	// AsksOTP tells whether a code is asked for beside the password.
	AsksOTP bool
	// DefaultTTL is how long a login lasts where nobody asks otherwise; zero
	// where the proxy does not say.
	DefaultTTL time.Duration
}

// Ping asks the proxy what it is. The error is one line that says what to do.
func (w WebClient) Ping(ctx context.Context) (*ProxyInfo, error) {
	answer, err := webclient.Ping(&webclient.Config{
		Context:   ctx,
		ProxyAddr: w.Addr,
		Insecure:  w.Insecure,
		Timeout:   pingTimeout,
	})
	if err != nil {
		return nil, w.explain(ctx, err)
	}
	if err := checkHost("name of the cluster", answer.ClusterName); err != nil {
		return nil, trace.Wrap(err, "the proxy %s is not one of this kind", w.Addr)
	}
	host, port, err := answer.Proxy.SSHProxyHostPort()
	if err != nil {
		return nil, trace.BadParameter("the proxy %s does not say where it speaks SSH: %v", w.Addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		// It listens on every address of its host, and knows no name of its own.
		if host, _, err = net.SplitHostPort(w.Addr); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	if err := checkHost("name of the proxy for SSH", host); err != nil {
		return nil, trace.Wrap(err)
	}
	info := &ProxyInfo{
		Cluster:    answer.ClusterName,
		SSHAddr:    net.JoinHostPort(host, port),
		DefaultTTL: time.Duration(answer.Auth.DefaultSessionTTL),
	}
	switch factor := answer.Auth.SecondFactor; factor {
	case constants.SecondFactorOff, "":
	case constants.SecondFactorOTP, constants.SecondFactorOn, constants.SecondFactorOptional:
		info.AsksOTP = true
	default:
		return nil, trace.NotImplemented("the proxy %s asks for the second factor %q, and tsh knows %q and %q", w.Addr, factor, constants.SecondFactorOTP, constants.SecondFactorOff)
	}
	return info, nil
}

// Request is what a user logs in with.
type Request struct {
	User, Password, OTP string
	// TTL is how long the login is to last. The cluster may make it shorter.
	TTL time.Duration
}

// Login is what a proxy gave for a password: keys that never left this host, and
// what is signed for them.
type Login struct {
	// WebAddr and SSHAddr are host:port of the proxy.
	WebAddr, SSHAddr string
	User, Cluster    string
	SSHKey, TLSKey   *keys.PrivateKey
	// SSHCert is a line of authorized_keys, TLSCert is PEM.
	SSHCert, TLSCert []byte
	// SSHHostCAs and TLSHostCAs (PEM) are whom to believe as hosts.
	SSHHostCAs []ssh.PublicKey
	TLSHostCAs [][]byte
}

// certsRequest and certsAnswer are /webapi/ssh/certs. []byte is base64 in JSON.
type certsRequest struct {
	User     string        `json:"user"`
	Password string        `json:"password"`
	OTP      string        `json:"otp_token"`
	SSHKey   []byte        `json:"ssh_pub_key"`
	TLSKey   []byte        `json:"tls_pub_key"`
	TTL      time.Duration `json:"ttl"`
}

type certsAnswer struct {
	Username    string       `json:"username"`
	SSHCert     []byte       `json:"cert"`
	TLSCert     []byte       `json:"tls_cert"`
	HostSigners []hostSigner `json:"host_signers"`
}

type hostSigner struct {
	Cluster  string   `json:"domain_name"`
	SSHKeys  [][]byte `json:"checking_keys"`
	TLSCerts [][]byte `json:"tls_certs"`
}

// Login makes keys, and has the proxy sign them. The error is the proxy's where
// it refuses: trace.AccessDenied for a wrong password or code, and
// trace.LimitExceeded for a user who is locked out.
func (w WebClient) Login(ctx context.Context, info *ProxyInfo, request Request) (*Login, error) {
	login := &Login{WebAddr: w.Addr, SSHAddr: info.SSHAddr, Cluster: info.Cluster}
	if err := login.makeKeys(); err != nil {
		return nil, trace.Wrap(err)
	}
	tlsPublic, err := login.TLSKey.MarshalTLSPublicKey()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	body, err := json.Marshal(certsRequest{
		User:     request.User,
		Password: request.Password,
		OTP:      request.OTP,
		SSHKey:   login.SSHKey.MarshalSSHPublicKey(),
		TLSKey:   tlsPublic,
		TTL:      request.TTL,
	})
	if err != nil {
		return nil, trace.Wrap(err)
	}
	var answer certsAnswer
	if err := w.post(ctx, "/webapi/ssh/certs", body, &answer); err != nil {
		return nil, trace.Wrap(err)
	}
	if err := login.take(answer); err != nil {
		return nil, trace.Wrap(err, "the proxy %s gave no usable login", w.Addr)
	}
	return login, nil
}

func (l *Login) makeKeys() error {
	_, sshPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return trace.Wrap(err)
	}
	if l.SSHKey, err = keys.NewSoftwarePrivateKey(sshPrivate); err != nil {
		return trace.Wrap(err)
	}
	tlsPrivate, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return trace.Wrap(err)
	}
	l.TLSKey, err = keys.NewSoftwarePrivateKey(tlsPrivate)
	return trace.Wrap(err)
}

// take checks that the answer is for the keys, and keeps it.
func (l *Login) take(answer certsAnswer) error {
	if err := checkUser(answer.Username); err != nil {
		return trace.Wrap(err)
	}
	sshCert, err := sshutils.ParseCertificate(answer.SSHCert)
	if err != nil {
		return trace.BadParameter("its SSH certificate cannot be read: %v", err)
	}
	if !bytes.Equal(sshCert.Key.Marshal(), l.SSHKey.SSHPublicKey().Marshal()) || sshCert.CertType != ssh.UserCert {
		return trace.BadParameter("its SSH certificate is not for this user's key")
	}
	if _, err := l.TLSKey.TLSCertificate(answer.TLSCert); err != nil {
		return trace.BadParameter("its TLS certificate is not for this user's key: %v", err)
	}
	for _, signer := range answer.HostSigners {
		if signer.Cluster != l.Cluster {
			continue
		}
		for _, text := range signer.SSHKeys {
			key, _, _, _, err := ssh.ParseAuthorizedKey(text)
			if err != nil {
				return trace.BadParameter("an authority for hosts cannot be read: %v", err)
			}
			l.SSHHostCAs = append(l.SSHHostCAs, key)
		}
		for _, text := range signer.TLSCerts {
			if _, err := parseCertificate(text); err != nil {
				return trace.BadParameter("an authority for hosts cannot be read: %v", err)
			}
			l.TLSHostCAs = append(l.TLSHostCAs, append(bytes.TrimSpace(text), '\n'))
		}
	}
	if len(l.SSHHostCAs) == 0 || len(l.TLSHostCAs) == 0 {
		return trace.BadParameter("it names no authority for the hosts of %q", l.Cluster)
	}
	// A certificate in authorized_keys is one line.
	l.SSHCert = ssh.MarshalAuthorizedKey(sshCert)
	l.User, l.TLSCert = answer.Username, answer.TLSCert
	return nil
}

func (w WebClient) post(ctx context.Context, path string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+w.Addr+path, bytes.NewReader(body))
	if err != nil {
		return trace.Wrap(err)
	}
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: w.Insecure, //nolint:gosec // the user has said so, and hears of it
		},
	}
	client := &http.Client{
		Transport: transport,
		// A password goes to the proxy that was named, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return w.explain(ctx, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return w.explain(ctx, err)
	}
	if response.StatusCode != http.StatusOK {
		return w.refusal(response.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return trace.BadParameter("the answer of the proxy %s cannot be read: %v", w.Addr, err)
	}
	return nil
}

// refusal is the proxy's error, with its text and its kind.
func (w WebClient) refusal(status int, text []byte) error {
	var answer webclient.PingErrorResponse
	message := ""
	if json.Unmarshal(text, &answer) == nil {
		message = Clean(answer.Error.Message)
	}
	if message == "" {
		message = "the proxy " + w.Addr + " answered " + http.StatusText(status)
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return trace.AccessDenied("%s", message)
	case http.StatusTooManyRequests:
		return trace.LimitExceeded("%s", message)
	case http.StatusBadRequest:
		return trace.BadParameter("%s", message)
	case http.StatusNotFound:
		return trace.NotFound("%s", message)
	}
	return trace.Errorf("%s", message)
}

// explain says in one line why a proxy could not be asked, and what to do.
func (w WebClient) explain(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return trace.Wrap(context.Canceled, "interrupted")
	}
	var (
		unknown  x509.UnknownAuthorityError
		wrong    x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
		dns      *net.DNSError
		timeout  net.Error
		urlError *url.Error
	)
	switch {
	case errors.As(err, &unknown):
		return trace.AccessDenied("the certificate of the proxy %s is from an unknown authority: if you know that this is the proxy, use --insecure", w.Addr)
	case errors.As(err, &wrong):
		return trace.AccessDenied("the certificate of the proxy %s is for another name (%s): use that name, or --insecure if you know that this is the proxy", w.Addr, Clean(firstNames(wrong.Certificate)))
	case errors.As(err, &invalid):
		return trace.AccessDenied("the certificate of the proxy %s is not valid (%s): if you know that this is the proxy, use --insecure", w.Addr, Clean(invalid.Error()))
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"),
		// With --insecure the api module tries HTTP in the end, also where SSH answers,
		// which speaks first: the other is what net/http says when it has not asked yet.
		strings.Contains(err.Error(), "malformed HTTP response"),
		strings.Contains(err.Error(), "readLoopPeekFailLocked"):
		return trace.BadParameter("%s does not speak HTTPS: give the web port of the proxy, which is %d by default", w.Addr, DefaultWebPort)
	case errors.As(err, &dns):
		return trace.ConnectionProblem(nil, "cannot reach the proxy %s: its name cannot be looked up", w.Addr)
	case errors.Is(err, syscall.ECONNREFUSED):
		return trace.ConnectionProblem(nil, "cannot reach the proxy %s: connection refused", w.Addr)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return trace.ConnectionProblem(nil, "cannot reach the proxy %s: it did not answer in time", w.Addr)
	case errors.As(err, &urlError):
		return trace.ConnectionProblem(nil, "cannot reach the proxy %s: %s", w.Addr, Clean(urlError.Err.Error()))
	}
	return trace.BadParameter("%s does not answer as a proxy does: %s", w.Addr, Clean(trace.UserMessage(err)))
}

// firstNames are some of the names that a certificate is for.
func firstNames(cert *x509.Certificate) string {
	const enough = 3
	names := cert.DNSNames
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names[:min(len(names), enough)], ", ")
}
