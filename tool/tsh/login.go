// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tsh login, logout and status.

package main

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/cli"
	"teleport-auditd/lib/client"
)

// defaultTTL is how long a login lasts where neither the user nor the proxy says
// otherwise. The user's roles may make it shorter.
const defaultTTL = 12 * time.Hour

type loginCommand struct {
	clause         *kingpin.CmdClause
	user, ttl      string
	insecure       bool
	agent          bool
	userSet, asked bool
}

func newLoginCommand(app *kingpin.Application) *loginCommand {
	c := &loginCommand{clause: app.Command("login", "Log in at a proxy, or say how long the login lasts.")}
	c.clause.Flag("user", "Name in the cluster. Without it, TELEPORT_USER, the name of the last login at this proxy, or the name on this host.").
		PlaceHolder("NAME").IsSetByUser(&c.userSet).StringVar(&c.user)
	c.clause.Flag("ttl", "How long the login is to last, such as 12h, or a number of minutes. The cluster may make it shorter.").
		PlaceHolder("12h").IsSetByUser(&c.asked).StringVar(&c.ttl)
	c.clause.Flag("insecure", "Do not check the proxy's certificate.").BoolVar(&c.insecure)
	c.clause.Flag("agent", "Put the key into the ssh-agent, where there is one. Also off with TELEPORT_USE_LOCAL_SSH_AGENT=false.").
		Default("true").BoolVar(&c.agent)
	return c
}

func (c *loginCommand) clauseName() string { return c.clause.FullCommand() }

func (c *loginCommand) run(ctx context.Context, t *tsh) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	ttl, err := c.parseTTL()
	if err != nil {
		return usageError{err}
	}
	if c.userSet && c.user == "" {
		return usageError{trace.BadParameter("--user is empty: give a name")}
	}
	store, err := t.store()
	if err != nil {
		return trace.Wrap(err)
	}
	earlier, err := store.Load(t.proxy)
	if err != nil && !trace.IsNotFound(err) {
		// A login that cannot be read is one to replace.
		t.say("WARNING: %s", oneLine(trace.UserMessage(err)))
	}
	if c.user == "" {
		c.user = t.getenv("TELEPORT_USER")
	}
	web := client.WebClient{Insecure: c.insecure}
	switch {
	case t.proxy != "":
		if web.Addr, err = client.ParseProxy(t.proxy); err != nil {
			return usageError{err}
		}
		if earlier != nil && earlier.WebProxyAddr != web.Addr {
			if _, _, err := net.SplitHostPort(t.proxy); err == nil {
				earlier = nil // the user names another port
			} else {
				web.Addr = earlier.WebProxyAddr
			}
		}
	case earlier != nil:
		web.Addr = earlier.WebProxyAddr
	default:
		return usageError{trace.BadParameter("no proxy is known yet: tsh login --proxy=HOST")}
	}
	if earlier != nil && !c.asked && (c.user == "" || c.user == earlier.Username) && t.clock.Now().Before(earlier.ValidUntil()) {
		outdated := client.CheckLogin(ctx, earlier)
		if outdated == nil {
			if err := store.Select(earlier); err != nil {
				return trace.Wrap(err)
			}
			return t.print(describe(earlier, true, t.clock.Now()))
		}
		// Other commands send the user here. What this one trusts is the proxy's web
		// certificate, as at the first login.
		t.say("WARNING: %s", oneLine(trace.UserMessage(outdated)))
	}
	if c.user == "" {
		if c.user, err = defaultUser(earlier); err != nil {
			return trace.Wrap(err)
		}
	}
	login, err := c.login(ctx, t, web, ttl)
	if err != nil {
		return trace.Wrap(err)
	}
	p, err := store.Save(login)
	if err != nil {
		return trace.Wrap(err, "the login cannot be kept in %s", store.Dir())
	}
	c.keepInAgent(t, p)
	return t.print(describe(p, true, t.clock.Now()))
}

// parseTTL takes a number alone as minutes, as Teleport's tsh does. Zero is not
// given.
func (c *loginCommand) parseTTL() (time.Duration, error) {
	if !c.asked {
		return 0, nil
	}
	ttl, err := time.ParseDuration(c.ttl)
	if minutes, numberErr := strconv.ParseUint(c.ttl, 10, 31); numberErr == nil {
		ttl, err = time.Duration(minutes)*time.Minute, nil
	}
	if err != nil || ttl < time.Second {
		return 0, trace.BadParameter("--ttl=%s is no time to live: give one such as 12h or 30m", c.ttl)
	}
	return ttl, nil
}

func defaultUser(earlier *client.Profile) (string, error) {
	if earlier != nil {
		return earlier.Username, nil
	}
	current, err := user.Current()
	if err != nil {
		return "", trace.BadParameter("the name of this user cannot be found: give the one in the cluster with --user")
	}
	return current.Username, nil
}

func (c *loginCommand) login(ctx context.Context, t *tsh, web client.WebClient, ttl time.Duration) (*client.Login, error) {
	if c.insecure {
		t.say("WARNING: the certificate of the proxy %s is not checked (--insecure): whoever answers there gets the password.", web.Addr)
	}
	info, err := web.Ping(ctx)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if ttl == 0 {
		if ttl = info.DefaultTTL; ttl <= 0 {
			ttl = defaultTTL
		}
	}
	request := client.Request{User: c.user, TTL: ttl}
	terminal := &client.Terminal{Stdin: t.stdin, Output: t.stderr}
	request.Password, err = terminal.AskSecret(ctx, "a password", fmt.Sprintf("Enter password for Teleport user %s:\n", client.Clean(c.user)))
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if info.AsksOTP {
		if request.OTP, err = terminal.AskSecret(ctx, "a one-time code", "Enter your OTP token:\n"); err != nil {
			return nil, trace.Wrap(err)
		}
	}
	login, err := web.Login(ctx, info, request)
	return login, trace.Wrap(err)
}

// keepInAgent puts the key into the agent. A login is good without one.
func (c *loginCommand) keepInAgent(t *tsh, p *client.Profile) {
	if !c.agent || !t.usesAgent() {
		return
	}
	agent, err := client.OpenAgent(t.getenv("SSH_AUTH_SOCK"))
	if err == nil {
		defer agent.Close()
		err = agent.Keep(p, t.clock.Now())
	}
	if err != nil {
		t.say("WARNING: the key is not in the ssh-agent, and ssh finds it with tsh config alone: %s", oneLine(trace.UserMessage(err)))
	}
}

// usesAgent tells whether there is an agent, and the user wants it.
func (t *tsh) usesAgent() bool {
	if wanted, err := strconv.ParseBool(t.getenv("TELEPORT_USE_LOCAL_SSH_AGENT")); err == nil && !wanted {
		return false
	}
	return t.getenv("SSH_AUTH_SOCK") != ""
}

type logoutCommand struct {
	clause *kingpin.CmdClause
}

func newLogoutCommand(app *kingpin.Application) *logoutCommand {
	return &logoutCommand{clause: app.Command("logout", "Remove the keys and certificates of a proxy (--proxy), or of all.")}
}

func (c *logoutCommand) clauseName() string { return c.clause.FullCommand() }

func (c *logoutCommand) run(_ context.Context, t *tsh) error {
	store, err := t.store()
	if err != nil {
		return trace.Wrap(err)
	}
	profiles, _, err := store.List()
	if err != nil {
		return trace.Wrap(err)
	}
	broken, err := store.Broken()
	if err != nil {
		return trace.Wrap(err)
	}
	profiles = append(profiles, broken...)
	if t.proxy != "" {
		addr, err := client.ParseProxy(t.proxy)
		if err != nil {
			return usageError{err}
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return trace.Wrap(err)
		}
		profiles = slices.DeleteFunc(profiles, func(p *client.Profile) bool { return p.Name() != host })
		if len(profiles) == 0 {
			return trace.NotFound("not logged in at %s: see tsh status", host)
		}
	}
	if len(profiles) == 0 {
		return t.print("Not logged in.\n")
	}
	for _, p := range profiles {
		t.forgetInAgent(p)
		if err := store.Remove(p); err != nil {
			return trace.Wrap(err, "the login at %s cannot be removed", p.WebProxyAddr)
		}
		if err := t.print(fmt.Sprintf("Logged out %s from %s.\n", client.Clean(p.Username), p.WebProxyAddr)); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

func (t *tsh) forgetInAgent(p *client.Profile) {
	if !t.usesAgent() {
		return
	}
	agent, err := client.OpenAgent(t.getenv("SSH_AUTH_SOCK"))
	if err == nil {
		defer agent.Close()
		err = agent.Forget(p.Name())
	}
	if err != nil {
		t.say("WARNING: the key may still be in the ssh-agent: %s", oneLine(trace.UserMessage(err)))
	}
}

type statusCommand struct {
	clause *kingpin.CmdClause
	format string
}

func newStatusCommand(app *kingpin.Application) *statusCommand {
	c := &statusCommand{clause: app.Command("status", "Say who is logged in where, and until when.")}
	cli.OneOf(c.clause.Flag("format", "text, json or yaml.").Short('f').Default("text"), &c.format, "text", "json", "yaml")
	return c
}

func (c *statusCommand) clauseName() string { return c.clause.FullCommand() }

func (c *statusCommand) run(_ context.Context, t *tsh) error {
	store, err := t.store()
	if err != nil {
		return trace.Wrap(err)
	}
	profiles, hasCurrent, err := store.List()
	if err != nil {
		return trace.Wrap(err)
	}
	if t.proxy != "" {
		p, err := store.Load(t.proxy)
		if err != nil {
			return trace.Wrap(err)
		}
		profiles, hasCurrent = []*client.Profile{p}, true
	}
	now := t.clock.Now()
	text, err := formatLogins(profiles, hasCurrent, c.format, now)
	if err != nil {
		return trace.Wrap(err)
	}
	if err := t.print(text); err != nil {
		return trace.Wrap(err)
	}
	switch {
	case len(profiles) == 0:
		return trace.NotFound("not logged in: tsh login --proxy=HOST")
	case !hasCurrent:
		return trace.NotFound("not logged in: tsh login --proxy=%s", profiles[0].WebProxyAddr)
	case !now.Before(profiles[0].ValidUntil()):
		return trace.NotFound("not logged in: tsh login --proxy=%s (the login has expired)", profiles[0].WebProxyAddr)
	}
	return nil
}

// loginInfo is a login for programs, with the names that Teleport's tsh status
// gives them.
type loginInfo struct {
	ProfileURL string              `json:"profile_url"`
	Username   string              `json:"username"`
	Cluster    string              `json:"cluster"`
	Roles      []string            `json:"roles"`
	Traits     map[string][]string `json:"traits"`
	Logins     []string            `json:"logins"`
	ValidUntil time.Time           `json:"valid_until"`
	Extensions []string            `json:"extensions"`
}

// formatLogins is what tsh status prints. Where nobody is logged in programs get
// an object as well: they read it before they look at the exit status.
func formatLogins(profiles []*client.Profile, hasCurrent bool, format string, now time.Time) (string, error) {
	if format == "text" {
		var texts []string
		for i, p := range profiles {
			texts = append(texts, describe(p, hasCurrent && i == 0, now))
		}
		return strings.Join(texts, "\n"), nil
	}
	// None is an empty list, which programs can go through, and not null.
	all := struct {
		Active   *loginInfo  `json:"active,omitempty"`
		Profiles []loginInfo `json:"profiles"`
	}{Profiles: []loginInfo{}}
	for i, p := range profiles {
		info := loginInfo{
			ProfileURL: "https://" + p.WebProxyAddr,
			Username:   p.Username,
			Cluster:    p.SiteName,
			Roles:      append([]string{}, p.Identity.Groups...),
			Traits:     p.Identity.Traits,
			Logins:     append([]string{}, p.Logins()...),
			ValidUntil: p.ValidUntil().UTC(),
			Extensions: append([]string{}, p.Permits()...),
		}
		if hasCurrent && i == 0 {
			all.Active = &info
		} else {
			all.Profiles = append(all.Profiles, info)
		}
	}
	return formatValue(all, format)
}

// describe is a login in the form that users of Teleport know.
func describe(p *client.Profile, current bool, now time.Time) string {
	mark := " "
	if current {
		mark = ">"
	}
	until := p.ValidUntil()
	left := "EXPIRED"
	if now.Before(until) {
		left = "valid for " + until.Sub(now).Round(time.Minute).String()
		if until.Sub(now) < time.Minute {
			left = "valid for " + until.Sub(now).Round(time.Second).String()
		}
	}
	var b strings.Builder
	line := func(title, value string) { fmt.Fprintf(&b, "%-20s%s\n", title, client.Clean(value)) }
	line(mark+" Profile URL:", "https://"+p.WebProxyAddr)
	line("  Logged in as:", p.Username)
	line("  Cluster:", p.SiteName)
	line("  Roles:", strings.Join(p.Identity.Groups, ", "))
	line("  Logins:", strings.Join(p.Logins(), ", "))
	line("  Valid until:", until.Local().Format("2006-01-02 15:04:05 -0700 MST")+" ["+left+"]")
	line("  Extensions:", strings.Join(p.Permits(), ", "))
	return b.String()
}
