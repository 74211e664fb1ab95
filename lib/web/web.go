// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Package web is what the proxy answers over HTTPS: where its other ports are
// (/webapi/ping, /webapi/find), certificates for a password and a code
// (/webapi/ssh/certs), and the pages on which users choose a password and
// register a second factor (/web/invite/, /web/reset/).
//
// New makes the handler, Server the http.Server around it:
//
//	handler, err := web.New(web.Config{Auth: client, ClusterName: "example.com", ...})
//	if err != nil {
//		return trace.Wrap(err)
//	}
//	server := web.Server(handler, log)
//	err = server.Serve(tlsListener)
//
// Pages are plain HTML without a line of JavaScript, and load nothing.
//
// # Who may post
//
// There are no cookies and no sessions: what a request may do is in it, as the
// token in the page's address or the password in the body, and a browser adds
// nothing on its own. A foreign page therefore has nothing to ride on. What it
// could still do is make its visitors' browsers post guesses, so whatever a
// browser marks as coming from elsewhere is refused
// (http.CrossOriginProtection).
package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/client/webclient"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
	"github.com/jonboulle/clockwork"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"teleport-auditd/lib/auditd"
	"teleport-auditd/lib/limits"
)

const (
	// maxLogin and maxForm bound the bodies of requests.
	maxLogin = 64 << 10
	maxForm  = 8 << 10

	// callTimeout bounds what a request waits for the auth service.
	callTimeout = 30 * time.Second
)

// AuthClient is the auth service, as api/client has it.
type AuthClient interface {
	GetAuthPreference(ctx context.Context) (types.AuthPreference, error)
	GetResetPasswordToken(ctx context.Context, tokenID string) (types.UserToken, error)
	CreateRegisterChallenge(ctx context.Context, req *proto.CreateRegisterChallengeRequest) (*proto.MFARegisterChallenge, error)
	ChangeUserAuthentication(ctx context.Context, req *proto.ChangeUserAuthenticationRequest) (*proto.ChangeUserAuthenticationResponse, error)
	// GetConnection is what login.Authenticate goes over.
	GetConnection() *grpc.ClientConn
}

// Config says for whom to answer.
type Config struct {
	// Auth returns the client to use for one request. It is asked at each, so
	// that a client may be replaced when the proxy's certificate is.
	Auth func() AuthClient
	// ClusterName is shown on the pages and told to clients.
	ClusterName string
	// Proxy returns the proxy's addresses, as clients are told them.
	Proxy func() webclient.ProxySettings
	// Emitter is told of each failed login, on this host. It must not hold
	// requests up: put auditd.NewQueue before a real one.
	Emitter auditd.Emitter
	// Limits bounds how often one client may ask.
	Limits Limits
	// Clock is the real one by default.
	Clock clockwork.Clock
	// Log is logrus's standard logger by default.
	Log logrus.FieldLogger
}

// CheckAndSetDefaults refuses a Config without Auth, ClusterName, Proxy or
// Emitter.
func (c *Config) CheckAndSetDefaults() error {
	switch {
	case c.Auth == nil:
		return trace.BadParameter("the web service has no client of the auth service")
	case c.ClusterName == "":
		return trace.BadParameter("the web service has no cluster name")
	case c.Proxy == nil:
		return trace.BadParameter("the web service has no addresses to tell")
	case c.Emitter == nil:
		return trace.BadParameter("the web service has no emitter")
	}
	c.Limits.setDefaults()
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return nil
}

type handler struct {
	Config
	pages  *pages
	reads  *limits.Rate
	writes *limits.Rate
}

// New checks cfg and returns the handler. It expects RemoteAddr to be the
// client's address, and to be served over TLS.
func New(cfg Config) (http.Handler, error) {
	if err := cfg.CheckAndSetDefaults(); err != nil {
		return nil, trace.Wrap(err)
	}
	pages, err := newPages()
	if err != nil {
		return nil, trace.Wrap(err)
	}
	h := &handler{
		Config: cfg,
		pages:  pages,
		reads:  limits.NewRate(cfg.Limits.Reads, cfg.Limits.ReadsBurst, cfg.Limits.Clients, cfg.Clock),
		writes: limits.NewRate(cfg.Limits.Writes, cfg.Limits.WritesBurst, cfg.Limits.Clients, cfg.Clock),
	}
	mux := http.NewServeMux()
	api := func(path string, by methods) { mux.Handle(path, by.handler(h.apiError)) }
	api("/webapi/ping", methods{http.MethodGet: h.ping})
	api("/webapi/find", methods{http.MethodGet: h.find})
	api("/webapi/ssh/certs", methods{http.MethodPost: h.sshCerts})
	mux.HandleFunc("/webapi/", func(w http.ResponseWriter, r *http.Request) {
		h.apiError(w, r, trace.NotFound("the proxy has no such call"))
	})
	page := func(path string, by methods) { mux.Handle(path, by.handler(h.pageError)) }
	page("/{$}", methods{http.MethodGet: h.home})
	for _, kind := range linkKinds() {
		page(kind.path+"{token}", methods{
			http.MethodGet:  func(w http.ResponseWriter, r *http.Request) { h.showLink(w, r, kind) },
			http.MethodPost: func(w http.ResponseWriter, r *http.Request) { h.useLink(w, r, kind) },
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.pageError(w, r, trace.NotFound("there is no such page"))
	})
	return h.protect(mux), nil
}

// protect is what holds for all requests, before any of them is looked into.
func (h *handler) protect(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", h.pages.policy)
		header.Set("X-Frame-Options", "DENY")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		header.Set("Strict-Transport-Security", "max-age=31536000")
		fail := h.pageError
		if isAPI(r) {
			fail = h.apiError
		}
		limiter := h.reads
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			limiter = h.writes
		}
		if !limiter.Allow(r.RemoteAddr) {
			header.Set("Retry-After", "10")
			fail(w, r, trace.LimitExceeded("too many requests from your address: try again in a few seconds"))
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			fail(w, r, trace.AccessDenied("the request comes from another site's page: open the link itself"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func isAPI(r *http.Request) bool {
	return len(r.URL.Path) >= len("/webapi/") && r.URL.Path[:len("/webapi/")] == "/webapi/"
}

// methods are a path's handlers by method. HEAD is answered as GET.
type methods map[string]http.HandlerFunc

func (m methods) handler(fail func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if serve, found := m[method]; found {
			serve(w, r)
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			if m[method] != nil || method == http.MethodHead && m[http.MethodGet] != nil {
				w.Header().Add("Allow", method)
			}
		}
		fail(w, r, &statusError{status: http.StatusMethodNotAllowed, error: trace.BadParameter("this address does not take %s", methodName(r.Method))})
	})
}

// methodName is for a text: the method is the client's.
func methodName(method string) string {
	const enough = 16
	return method[:min(len(method), enough)]
}

// statusError is an error with an HTTP status that trace has none for.
type statusError struct {
	error
	status int
}

// statusOf is the status of an answer that says err.
func statusOf(err error) int {
	var status *statusError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &status):
		return status.status
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case isExpected(err):
		return trace.ErrorToCode(err)
	}
	return http.StatusServiceUnavailable
}

// isExpected tells whether err is an answer of the auth service, whose text is
// for the client. All else is a failure on our side.
func isExpected(err error) bool {
	return trace.IsAccessDenied(err) || trace.IsLimitExceeded(err) || trace.IsBadParameter(err) || trace.IsNotFound(err)
}

// message is what a client may read about err.
func (h *handler) message(r *http.Request, err error) string {
	var status *statusError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return "the request is too large"
	case errors.As(err, &status), isExpected(err):
		return trace.UserMessage(err)
	}
	h.Log.WithError(err).Warnf("A request to %s could not be answered.", r.Pattern)
	return "the proxy cannot reach the cluster's auth service: try again in a moment"
}

func (h *handler) apiError(w http.ResponseWriter, r *http.Request, err error) {
	var body webclient.PingErrorResponse
	body.Error.Message = h.message(r, err)
	h.reply(w, statusOf(err), body)
}

func (h *handler) reply(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		h.Log.WithError(err).Error("An answer could not be encoded.")
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that is gone
}

// refused tells this host's audit system of one failed login. Nothing was
// proven, so the name is what was tried, and no TeleportUser.
func (h *handler) refused(r *http.Request, user, reason string) {
	if user == "" {
		return
	}
	err := h.Emitter.Emit(context.WithoutCancel(r.Context()), auditd.Event{
		Type:   auditd.AuditUserErr,
		Result: auditd.Failed,
		// Many of these may wait for the kernel.
		SystemUser:  user[:min(len(user), maxUserName)],
		ConnAddress: r.RemoteAddr,
		Reason:      reason,
	})
	if err != nil {
		h.Log.WithError(err).Warn("A failed login could not be written to this host's audit log.")
	}
}

// clientIP is the address of RemoteAddr without its port, or empty.
func clientIP(remote string) string {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	return addr.Addr().Unmap().String()
}
