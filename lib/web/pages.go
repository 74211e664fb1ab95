// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The pages that people see.

package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"

	"github.com/gravitational/trace"
)

//go:embed pages
var pageFiles embed.FS

// pages is the one template, and the policy that fits it.
type pages struct {
	template *template.Template
	style    template.CSS
	policy   string
}

// page is what the template shows. Kind picks the part: form, done, home, or
// an error for any other.
type page struct {
	Kind, Title, Cluster string
	Style                template.CSS
	User, Action         string
	Expires              string
	Error, Advice        string
	CodeIsWrong          bool
	MinPassword          int
	MaxPassword          int
	OTP                  *otpPart
	Command              string
}

type otpPart struct {
	QRCode template.URL
	Size   int
	Secret string
	Digits uint32
	Period uint32
}

func newPages() (*pages, error) {
	style, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		return nil, trace.Wrap(err)
	}
	parsed, err := template.ParseFS(pageFiles, "pages/page.html")
	if err != nil {
		return nil, trace.Wrap(err)
	}
	sum := sha256.Sum256(style)
	return &pages{
		template: parsed,
		style:    template.CSS(style),
		policy: strings.Join([]string{
			"default-src 'none'",
			"img-src data:",
			"style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
			"form-action 'self'",
			"base-uri 'none'",
			"frame-ancestors 'none'",
		}, "; "),
	}, nil
}

func (h *handler) show(w http.ResponseWriter, status int, p page) {
	p.Cluster, p.Style = h.ClusterName, h.pages.style
	var text bytes.Buffer
	if err := h.pages.template.ExecuteTemplate(&text, "page.html", p); err != nil {
		h.Log.WithError(err).Error("A page could not be made.")
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // a client that is gone
}

// pageError is a page that says err and leads nowhere.
func (h *handler) pageError(w http.ResponseWriter, r *http.Request, err error) {
	h.show(w, statusOf(err), page{Title: "This did not work", Error: sentence(h.message(r, err))})
}

func (h *handler) home(w http.ResponseWriter, r *http.Request) {
	h.show(w, http.StatusOK, page{Kind: "home", Title: "SSH proxy of " + h.ClusterName, Command: h.loginCommand(r, "")})
}

// loginCommand is what the user types next.
func (h *handler) loginCommand(r *http.Request, user string) string {
	addr := h.Proxy().SSH.PublicAddr
	if addr == "" {
		addr = r.Host // where the browser has found us
	}
	command := "tsh login --proxy=" + shellWord(addr)
	if user != "" {
		command += " --user=" + shellWord(user)
	}
	return command
}

// shellWord quotes what a shell would take for more than a word.
func shellWord(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@:[]+/", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 && !strings.ContainsAny(word, "[]") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// sentence makes an error's text one.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
