// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The pages behind the links of tctl users add and tctl users reset.

package web

import (
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/auth/login"
)

// linkKind is one of the two kinds of links, which differ in words.
type linkKind struct {
	path string
	// subKind is that of the token.
	subKind string
	title   string
	// advice is for a link that is not good.
	advice string
	// reason is for records.
	reason string
}

func linkKinds() []linkKind {
	const advice = "Ask your administrator for a new one (tctl users reset)."
	return []linkKind{{
		path:    login.InvitePath,
		subKind: login.InviteToken,
		title:   "Welcome",
		advice:  advice,
		reason:  "invite-is-not-valid",
	}, {
		path:    login.ResetPath,
		subKind: login.ResetToken,
		title:   "Choose a new password",
		advice:  advice,
		reason:  "reset-is-not-valid",
	}}
}

const (
	// maxUserName bounds the name in the form, which is only for records.
	maxUserName = 255
	// maxTokenID is more than any token's id has.
	maxTokenID = 128
	// qrSize is the size at which a QR code is shown, in pixels: that which it
	// has.
	qrSize = 256
)

// link returns the token of the request's address.
func (h *handler) link(r *http.Request, kind linkKind) (types.UserToken, error) {
	id := r.PathValue("token")
	if len(id) > maxTokenID {
		return nil, trace.NotFound("the link is not valid")
	}
	token, err := h.Auth().GetResetPasswordToken(r.Context(), id)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if token.GetSubKind() != kind.subKind {
		return nil, trace.NotFound("the link is not valid")
	}
	return token, nil
}

func (h *handler) showLink(w http.ResponseWriter, r *http.Request, kind linkKind) {
	token, err := h.link(r, kind)
	if err != nil {
		h.linkError(w, r, kind, err)
		return
	}
	h.showForm(w, r, kind, token, nil)
}

// showForm shows the form, again where mistake says what was wrong with it.
func (h *handler) showForm(w http.ResponseWriter, r *http.Request, kind linkKind, token types.UserToken, mistake error) {
	preference, err := h.Auth().GetAuthPreference(r.Context())
	if err != nil {
		h.pageError(w, r, unavailable(err))
		return
	}
	p := page{
		Kind:        "form",
		Title:       kind.title + ", " + token.GetUser(),
		User:        token.GetUser(),
		Action:      kind.path + token.GetName(),
		Expires:     token.Expiry().UTC().Format("15:04 MST"),
		MinPassword: login.MinPasswordLength,
		MaxPassword: login.MaxPasswordLength,
	}
	if token.Expiry().Sub(h.Clock.Now()) > 12*time.Hour {
		p.Expires = token.Expiry().UTC().Format("2 January 15:04 MST")
	}
	if preference.IsSecondFactorEnabled() {
		challenge, err := h.Auth().CreateRegisterChallenge(r.Context(), &proto.CreateRegisterChallengeRequest{
			TokenID:    token.GetName(),
			DeviceType: proto.DeviceType_DEVICE_TYPE_TOTP,
		})
		if err != nil {
			h.linkError(w, r, kind, err)
			return
		}
		secret := challenge.GetTOTP()
		p.OTP = &otpPart{
			QRCode: template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(secret.GetQRCode())),
			Size:   qrSize,
			Secret: grouped(secret.GetSecret()),
			Digits: secret.GetDigits(),
			Period: secret.GetPeriodSeconds(),
		}
	}
	status := http.StatusOK
	if mistake != nil {
		status = http.StatusUnprocessableEntity
		p.Error = sentence(h.message(r, mistake))
		p.CodeIsWrong = trace.IsAccessDenied(mistake)
	}
	h.show(w, status, p)
}

// useLink takes the form. A code that is wrong and a link that is not good are
// failed logins; a password that is not taken is a mistake of its owner.
func (h *handler) useLink(w http.ResponseWriter, r *http.Request, kind linkKind) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if !errors.As(err, &tooLarge) {
			err = trace.BadParameter("the form cannot be read")
		}
		h.pageError(w, r, err)
		return
	}
	token, err := h.link(r, kind)
	if err != nil {
		// The form names the user whose link it was.
		h.refused(r, typedName(r), linkReason(kind, err))
		h.linkError(w, r, kind, err)
		return
	}
	password := r.PostForm.Get("password")
	if password != r.PostForm.Get("again") {
		h.showForm(w, r, kind, token, trace.BadParameter("the two passwords are not the same"))
		return
	}
	_, err = h.Auth().ChangeUserAuthentication(r.Context(), &proto.ChangeUserAuthenticationRequest{
		TokenID:     token.GetName(),
		NewPassword: []byte(password),
		NewMFARegisterResponse: &proto.MFARegisterResponse{
			Response: &proto.MFARegisterResponse_TOTP{TOTP: &proto.TOTPRegisterResponse{Code: r.PostForm.Get("code")}},
		},
		LoginIP: clientIP(r.RemoteAddr),
	})
	switch {
	case err == nil:
	case trace.IsBadParameter(err):
		h.showForm(w, r, kind, token, err)
		return
	case trace.IsAccessDenied(err):
		h.refused(r, token.GetUser(), "wrong-code")
		h.showForm(w, r, kind, token, err)
		return
	default:
		h.refused(r, token.GetUser(), linkReason(kind, err))
		h.linkError(w, r, kind, err)
		return
	}
	p := page{
		Kind:    "done",
		Title:   "Done",
		User:    token.GetUser(),
		Command: h.loginCommand(r, token.GetUser()),
	}
	if r.PostForm.Get("code") != "" {
		p.OTP = &otpPart{}
	}
	h.show(w, http.StatusOK, p)
}

// linkError is for a link that leads to no form.
func (h *handler) linkError(w http.ResponseWriter, r *http.Request, kind linkKind, err error) {
	if !trace.IsNotFound(err) {
		h.pageError(w, r, err)
		return
	}
	h.show(w, http.StatusNotFound, page{Title: "This link is not valid", Error: sentence(h.message(r, err)), Advice: kind.advice})
}

func linkReason(kind linkKind, err error) string {
	if trace.IsNotFound(err) {
		return kind.reason
	}
	return "auth-service-did-not-answer"
}

// typedName is the user name that came with the form.
func typedName(r *http.Request) string {
	name := r.PostForm.Get("user")
	return name[:min(len(name), maxUserName)]
}

// grouped is a secret in fours, as people read them out.
func grouped(secret string) string {
	var groups []byte
	for i := range len(secret) {
		if i > 0 && i%4 == 0 {
			groups = append(groups, ' ')
		}
		groups = append(groups, secret[i])
	}
	return string(groups)
}
