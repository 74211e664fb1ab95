// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// The pages in a real browser: headless Chromium, with a profile of its own, that
// can resolve no name.

package web_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	_ "image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/gravitational/teleport/api/constants"
	"github.com/stretchr/testify/require"

	"teleport-auditd/lib/auth/login"
	"teleport-auditd/lib/testhost"
	"teleport-auditd/lib/web"
)

// patience is how long a test waits for a page.
const patience = 60 * time.Second

// browser is a tab, and what it complained about and asked for.
type browser struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	requests   []string
}

func newBrowser(t *testing.T) *browser {
	program, err := exec.LookPath("chromium")
	if err != nil {
		testhost.Skip(t, "this host has no chromium: %v", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop) // waits for the browser
	tab, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{ctx: tab}
	require.NoError(t, chromedp.Listen(tab, b.hear))
	b.do(t, func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, audits.Enable, cdp.Empty{})
		return chromedp.Void{}, err
	})
	return b
}

func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, event.Request.URL)
	case *cdplog.EventEntryAdded:
		// A page that says what was wrong with a form has the status for it.
		if event.Entry.Source == cdplog.EntrySourceNetwork && strings.Contains(event.Entry.Text, "422") {
			return
		}
		b.complaints = append(b.complaints, event.Entry.Text)
	case *runtime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, "console: "+string(event.Type))
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, event.ExceptionDetails.Text)
	case *audits.EventIssueAdded:
		b.complaints = append(b.complaints, string(event.Issue.Code))
	}
}

func (b *browser) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(t, chromedp.Do(ctx, steps...))
}

func get[T any](t *testing.T, b *browser, action chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	require.NoError(t, err)
	return value
}

// fill types into the form and sends it. The answer is another page.
func (b *browser) fill(t *testing.T, fields map[string]string) {
	t.Helper()
	for id, text := range fields {
		b.do(t, chromedp.SendKeys("#"+id, text))
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	_, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS("button")))
	require.NoError(t, err)
}

// picture takes a screenshot of the whole page, and keeps it where PICTURES
// names a folder.
func (b *browser) picture(t *testing.T, name string, width int64) {
	t.Helper()
	b.do(t, chromedp.EmulateViewport(width, 900))
	shot := get(t, b, chromedp.FullScreenshot(100))
	if dir := os.Getenv("PICTURES"); dir != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), shot, 0o644))
	}
	picture, _, err := image.Decode(bytes.NewReader(shot))
	require.NoError(t, err)
	require.EqualValues(t, width, picture.Bounds().Dx(), "the page is wider than the window")
	colours := make(map[any]bool)
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			colours[picture.At(x, y)] = true
		}
	}
	require.Greater(t, len(colours), 20, "the page is empty")
}

// checkQuiet asserts that nothing was complained about, and nothing was asked
// of anybody but the site.
func (b *browser) checkQuiet(t *testing.T, site string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.complaints)
	require.NotEmpty(t, b.requests)
	for _, request := range b.requests {
		require.True(t, strings.HasPrefix(request, site+"/") || strings.HasPrefix(request, "data:"), "the page asked for %s", request)
	}
}

func TestInvitePageInABrowser(t *testing.T) {
	s := newSite(t, web.Limits{})
	b := newBrowser(t)
	link := s.URL + "/web/invite/" + s.token(t, "alice", login.InviteToken).GetName()
	b.do(t, chromedp.Navigate(link))
	require.Equal(t, "Welcome, alice", get(t, b, chromedp.Title()))
	require.Equal(t, "alice", get(t, b, chromedp.Value("#user")))
	b.picture(t, "invite", 1000)
	b.picture(t, "invite-phone", 360)
	// The style was applied, or a policy kept it out.
	require.Equal(t, "544px", get(t, b, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("main")).maxWidth`)))
	// The picture was drawn, too.
	require.Equal(t, 256, get(t, b, chromedp.Evaluate[int](`document.querySelector("img").naturalWidth`)))
	// Every field has a label.
	require.Equal(t, 0, get(t, b, chromedp.Evaluate[int](`[...document.querySelectorAll("input")].filter(i => i.labels.length != 1).length`)))
	require.Equal(t, "en", get(t, b, chromedp.Evaluate[string](`document.documentElement.lang`)))

	secret := func() string {
		return strings.ReplaceAll(get(t, b, chromedp.Text("#secret")), " ", "")
	}
	first := secret()
	for _, mistake := range []struct {
		fields map[string]string
		text   string
	}{
		{map[string]string{"password": goodPassword, "again": goodPassword, "code": "000000"}, "The code is not right"},
		{map[string]string{"password": goodPassword, "again": goodPassword + "!", "code": s.code(t, first)}, "The two passwords are not the same."},
	} {
		b.fill(t, mistake.fields)
		require.Contains(t, get(t, b, chromedp.Text("#error")), mistake.text)
		require.Equal(t, first, secret())
		require.Empty(t, get(t, b, chromedp.Value("#password")))
	}
	require.Equal(t, []string{"alice wrong-code"}, s.events(t))
	b.picture(t, "mistake", 1000)

	b.fill(t, map[string]string{"password": goodPassword, "again": goodPassword, "code": s.code(t, first)})
	require.Equal(t, "Done", get(t, b, chromedp.Title()))
	require.Equal(t, "tsh login --proxy=proxy.example.com:3080 --user=alice", get(t, b, chromedp.Text("#command")))
	b.picture(t, "done", 1000)
	b.checkQuiet(t, s.URL)
	require.Empty(t, s.events(t))

	s.clock.Advance(otpPeriod)
	status, _ := s.login(t, map[string]any{"user": "alice", "password": goodPassword, "otp_token": s.code(t, first), "ssh_pub_key": []byte("key")})
	require.Equal(t, http.StatusOK, status)
}

func TestOtherPagesInABrowser(t *testing.T) {
	s := newSite(t, web.Limits{})
	s.cluster.secondFactor = constants.SecondFactorOff
	b := newBrowser(t)
	b.do(t, chromedp.Navigate(s.URL+"/"))
	require.Equal(t, "tsh login --proxy=proxy.example.com:3080", get(t, b, chromedp.Text("#command")))
	b.picture(t, "home", 1000)

	b.do(t, chromedp.Navigate(s.URL+"/web/reset/"+s.token(t, "odd 'name <b>", login.ResetToken).GetName()))
	require.Equal(t, "odd 'name <b>", get(t, b, chromedp.Value("#user")))
	b.picture(t, "reset-phone", 360)
	b.fill(t, map[string]string{"password": goodPassword, "again": goodPassword})
	require.Equal(t, `tsh login --proxy=proxy.example.com:3080 --user='odd '\''name <b>'`, get(t, b, chromedp.Text("#command")))
	b.checkQuiet(t, s.URL)
}

// A page elsewhere that frames ours, or posts to it, gets nowhere.
func TestForeignPageInABrowser(t *testing.T) {
	s := newSite(t, web.Limits{})
	s.cluster.secondFactor = constants.SecondFactorOff
	link := s.URL + "/web/invite/" + s.token(t, "alice", login.InviteToken).GetName()
	b := newBrowser(t)
	foreign := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><iframe src="%[1]s"></iframe>
<form method="post" action="%[1]s"><input name="password" value="%[2]s"><input name="again" value="%[2]s"><button>win</button></form>`, link, goodPassword)
	}))
	t.Cleanup(foreign.Close)
	b.do(t, chromedp.Navigate(foreign.URL))
	b.mu.Lock()
	require.Contains(t, strings.Join(b.complaints, "\n"), "frame", "the page was framed")
	b.mu.Unlock()
	b.fill(t, nil)
	require.Contains(t, get(t, b, chromedp.Text("#error")), "another site")
	_, err := s.cluster.Credentials.GetResetPasswordToken(t.Context(), link[strings.LastIndex(link, "/")+1:])
	require.NoError(t, err, "the link was used by a foreign page")
}
