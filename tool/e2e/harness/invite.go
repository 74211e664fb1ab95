// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// Invite is the page of a link that tctl has printed.
type Invite struct {
	URL string
	// App has the TOTP secret that the page shows; none where it asks for no code.
	App    *Authenticator
	t      testing.TB
	client *http.Client
	fields url.Values
}

// FindURL returns the link in what tctl has printed.
func FindURL(t testing.TB, text string) string {
	t.Helper()
	found := regexp.MustCompile(`https://\S+/web/(invite|reset)/\S+`).FindString(text)
	if found == "" {
		t.Fatalf("there is no link in:\n%s", text)
	}
	return found
}

// OpenInvite opens the page from a host of a network, as a browser would that
// takes any certificate.
func OpenInvite(t testing.TB, host *Host, link string) *Invite {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	i := &Invite{URL: link, t: t, client: &http.Client{
		Jar: jar, Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext:     func(_ context.Context, _, addr string) (net.Conn, error) { return dialFrom(host, addr) },
		},
	}}
	status, page := i.do(http.MethodGet, nil)
	if status != http.StatusOK {
		t.Fatalf("%s answers %d:\n%s", link, status, page)
	}
	i.fields = url.Values{}
	for _, input := range regexp.MustCompile(`<input[^>]*>`).FindAllString(page, -1) {
		i.fields.Set(attribute(input, "name"), attribute(input, "value"))
	}
	// Groups of four, as such secrets are shown.
	if found := regexp.MustCompile(`<code[^>]*>([A-Z2-7 ]{16,})</code>`).FindStringSubmatch(page); found != nil {
		i.App = &Authenticator{Secret: strings.ReplaceAll(found[1], " ", "")}
	}
	return i
}

func attribute(tag, name string) string {
	found := regexp.MustCompile(`\b` + name + `="([^"]*)"`).FindStringSubmatch(tag)
	if found == nil {
		return ""
	}
	return found[1]
}

// Accept chooses the password, with the code of now where the page asks for one.
func (i *Invite) Accept(password string) {
	i.t.Helper()
	for name := range i.fields {
		if strings.Contains(name, "password") || strings.Contains(name, "again") {
			i.fields.Set(name, password)
		}
		if name == "otp" || name == "code" {
			i.fields.Set(name, i.App.Code(i.t))
		}
	}
	status, page := i.do(http.MethodPost, i.fields)
	if status != http.StatusOK || !strings.Contains(page, "tsh login") {
		i.t.Fatalf("choosing a password: %d\n%s", status, page)
	}
}

func (i *Invite) do(method string, form url.Values) (int, string) {
	i.t.Helper()
	request, err := http.NewRequestWithContext(i.t.Context(), method, i.URL, strings.NewReader(form.Encode()))
	if err != nil {
		i.t.Fatal(err)
	}
	if form != nil {
		base, _ := url.Parse(i.URL)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", base.Scheme+"://"+base.Host)
		request.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	response, err := i.client.Do(request)
	if err != nil {
		i.t.Fatalf("%s %s: %v", method, i.URL, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// Authenticator is the app with a TOTP secret. It gives no code twice: a code is
// good once.
type Authenticator struct {
	Secret string
	used   map[string]bool
}

// Code is one that was not given yet. A server takes the codes of the half minutes
// around now, so there are three before one has to be waited for.
func (a *Authenticator) Code(t testing.TB) string {
	t.Helper()
	if a.used == nil {
		a.used = map[string]bool{}
	}
	var fresh string
	WaitFor(t, 40*time.Second, "a code that was not used", func() bool {
		now := time.Now()
		// One that ends soon may have ended when it arrives.
		offsets := []time.Duration{0, 30 * time.Second}
		if now.Second()%30 < 20 {
			offsets = append([]time.Duration{-30 * time.Second}, offsets...)
		}
		for _, offset := range offsets {
			code, err := totp.GenerateCode(a.Secret, now.Add(offset))
			if err != nil {
				t.Fatal(err)
			}
			if !a.used[code] {
				a.used[code] = true
				fresh = code
				return true
			}
		}
		return false
	})
	return fresh
}

// dialFrom connects from a host of a network: a process there carries the bytes.
func dialFrom(host *Host, addr string) (net.Conn, error) {
	if host == nil {
		return net.DialTimeout("tcp", addr, 10*time.Second)
	}
	here, there := net.Pipe()
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cmd := host.Command("/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%s; cat <&3 & cat >&3; wait", name, port))
	cmd.Stdout = there
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(stdin, there)
		_ = stdin.Close()
		_ = cmd.Process.Kill()
	}()
	go func() {
		_ = cmd.Wait()
		_ = there.Close()
	}()
	return here, nil
}
