// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// What tsh asks: JSON in the shapes of Teleport's proxy.

package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/version"
)

// The names by which clients know logins with a password.
const (
	localAuth      = "local"
	localConnector = "local"
)

// find answers without asking the auth service.
func (h *handler) find(w http.ResponseWriter, _ *http.Request) {
	h.reply(w, http.StatusOK, h.pingResponse())
}

func (h *handler) pingResponse() webclient.PingResponse {
	return webclient.PingResponse{
		Proxy:            h.Proxy(),
		ServerVersion:    version.Version,
		MinClientVersion: version.Version,
		ClusterName:      h.ClusterName,
		Edition:          "oss",
	}
}

func (h *handler) ping(w http.ResponseWriter, r *http.Request) {
	preference, err := h.Auth().GetAuthPreference(r.Context())
	if err != nil {
		h.apiError(w, r, unavailable(err))
		return
	}
	response := h.pingResponse()
	response.Auth = webclient.AuthenticationSettings{
		Type:         localAuth,
		SecondFactor: constants.SecondFactorOff,
		Local:        &webclient.LocalSettings{Name: localConnector},
	}
	if preference.IsSecondFactorEnabled() {
		response.Auth.SecondFactor = constants.SecondFactorOTP
		response.Auth.PreferredLocalMFA = constants.SecondFactorOTP
	}
	h.reply(w, http.StatusOK, response)
}

// unavailable is for errors of calls that only fail through us: whatever they
// are, the client can do nothing but wait.
func unavailable(err error) error {
	return trace.Errorf("asking the auth service: %v", err)
}

// certsRequest and certsResponse are Teleport's. []byte is base64 in JSON.
type certsRequest struct {
	User         string        `json:"user"`
	Password     string        `json:"password"`
	OTPToken     string        `json:"otp_token"`
	SSHPublicKey []byte        `json:"ssh_pub_key"`
	TLSPublicKey []byte        `json:"tls_pub_key"`
	TTL          time.Duration `json:"ttl"`
}

type certsResponse struct {
	Username    string           `json:"username"`
	Cert        []byte           `json:"cert,omitempty"`
	TLSCert     []byte           `json:"tls_cert,omitempty"`
	HostSigners []trustedCluster `json:"host_signers"`
}

type trustedCluster struct {
	ClusterName     string   `json:"domain_name"`
	AuthorizedKeys  [][]byte `json:"checking_keys"`
	TLSCertificates [][]byte `json:"tls_certs"`
}

// sshCerts changes a password and a code into certificates. Each attempt that
// fails, and named a user, is one event.
func (h *handler) sshCerts(w http.ResponseWriter, r *http.Request) {
	var req certsRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin)).Decode(&req); err != nil {
		var tooLarge *http.MaxBytesError
		if !errors.As(err, &tooLarge) {
			err = trace.BadParameter("the body of the request is not the JSON of a login")
		}
		h.apiError(w, r, err)
		return
	}
	if req.User == "" {
		h.apiError(w, r, trace.BadParameter("no user name was given"))
		return
	}
	response, err := login.Authenticate(r.Context(), h.Auth().GetConnection(), login.Request{
		User:         req.User,
		Password:     req.Password,
		OTP:          req.OTPToken,
		SSHPublicKey: req.SSHPublicKey,
		TLSPublicKey: req.TLSPublicKey,
		TTL:          req.TTL,
		ClientAddr:   r.RemoteAddr,
	})
	if err != nil {
		h.refused(r, req.User, loginReason(err))
		h.apiError(w, r, err)
		return
	}
	h.reply(w, http.StatusOK, certsResponse{
		Username: response.User,
		Cert:     response.SSH,
		TLSCert:  response.TLS,
		HostSigners: []trustedCluster{{
			ClusterName:     response.Cluster,
			AuthorizedKeys:  response.SSHHostCAs,
			TLSCertificates: response.TLSHostCAs,
		}},
	})
}

// loginReason is a failed login in the words of records.
func loginReason(err error) string {
	switch text := trace.UserMessage(err); {
	case text == login.WrongCredentials:
		return "wrong-password-or-code"
	case strings.HasPrefix(text, login.LockedPrefix):
		return "user-is-locked"
	case text == login.TooManyAtOnce, text == login.TooBusy:
		return "too-many-logins-at-once"
	case trace.IsLimitExceeded(err):
		return "user-is-locked-out"
	case trace.IsAccessDenied(err):
		return "login-is-not-allowed"
	case trace.IsBadParameter(err):
		return "login-request-is-malformed"
	}
	return "auth-service-did-not-answer"
}
