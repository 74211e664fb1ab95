// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl users: the people, with their roles and logins, and the links with which
// they choose a password.

package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/client/proto"
	"github.com/gravitational/teleport/api/constants"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/auth"
)

const (
	// defaultRole is what a user gets where nothing else is asked for.
	defaultRole = "access"
	// The kinds of links, as the auth service names them, and how long they last.
	kindInvite, kindReset = "invite", "password"
	defaultLinkTTL        = "1h"
)

// link is what is printed of a page where somebody chooses a password.
type link struct {
	User    string    `json:"user"`
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

func (t *tctl) addUsers(app *kingpin.Application, register register) {
	users := app.Command("users", "The people of the cluster.")
	t.addUsersAdd(users, register)
	t.addUsersUpdate(users, register)

	ls := users.Command("ls", "List the users.")
	var format string
	addFormat(ls, &format)
	register(ls, func(ctx context.Context) error { return t.listUsers(ctx, format) })

	reset := users.Command("reset", "Print a link with which a user chooses a new password and a new second factor. What the user had until now is good no longer, and a lockout ends.")
	var resetUser, resetTTL, resetFormat string
	reset.Arg("user", "The user's name.").Required().StringVar(&resetUser)
	reset.Flag("ttl", "How long the link is valid, such as 1h.").Default(defaultLinkTTL).StringVar(&resetTTL)
	addFormat(reset, &resetFormat)
	register(reset, func(ctx context.Context) error {
		ttl, err := parseTTL("ttl", resetTTL)
		if err != nil {
			return trace.Wrap(err)
		}
		c, err := t.connect(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		defer c.Close()
		return t.printLink(ctx, c, resetUser, kindReset, ttl, resetFormat)
	})

	rm := users.Command("rm", "Remove users, with their passwords and second factors. Certificates that they have go on until they expire: tctl lock --user=NAME ends those at once.").Alias("del")
	var names []string
	rm.Arg("user", "The users' names.").Required().StringsVar(&names)
	register(rm, func(ctx context.Context) error {
		if err := t.remove(ctx, names, "User %q was removed.\n", (*cluster).DeleteUser); err != nil {
			return trace.Wrap(err)
		}
		return t.print("Certificates that they have go on at hosts until they expire: tctl lock --user=NAME ends them at once.\n")
	})
}

// userFlags are what a user may be given.
type userFlags struct {
	roles, logins, traits []string
	rolesSet, loginsSet   bool
}

func (f *userFlags) add(clause *kingpin.CmdClause) {
	clause.Flag("roles", "The user's roles, with commas between them.").PlaceHolder("ROLE,...").IsSetByUser(&f.rolesSet).StringsVar(&f.roles)
	clause.Flag("logins", "The system users that the person may be, with commas between them: {{internal.logins}} of the roles.").
		PlaceHolder("LOGIN,...").IsSetByUser(&f.loginsSet).StringsVar(&f.logins)
	clause.Flag("trait", "A trait, for {{external.NAME}} of the roles; without a value it is taken away. Several times for several.").
		PlaceHolder("NAME=VALUE,...").StringsVar(&f.traits)
}

// apply changes user to what the flags say.
func (f *userFlags) apply(user types.User) error {
	if f.rolesSet {
		roles := splitList(f.roles)
		if len(roles) == 0 {
			return usageError{trace.BadParameter("--roles is empty: give at least one, such as %s", defaultRole)}
		}
		user.SetRoles(roles)
	}
	if f.loginsSet {
		logins := splitList(f.logins)
		for _, login := range logins {
			if err := access.CheckLogin(login); err != nil {
				return usageError{err}
			}
		}
		user.SetLogins(logins)
	}
	traits := user.GetTraits()
	if traits == nil {
		traits = map[string][]string{}
	}
	for _, trait := range f.traits {
		name, values, ok := strings.Cut(trait, "=")
		if !ok || name == "" {
			return usageError{trace.BadParameter("--trait=%q has no name and value: give NAME=VALUE, with commas between several values", trait)}
		}
		if name == constants.TraitLogins {
			return usageError{trace.BadParameter("--trait=%q are the logins: give them with --logins", trait)}
		}
		if list := splitList([]string{values}); len(list) > 0 {
			traits[name] = list
		} else {
			delete(traits, name)
		}
	}
	user.SetTraits(traits)
	return nil
}

func (t *tctl) addUsersAdd(users *kingpin.CmdClause, register register) {
	clause := users.Command("add", "Add a user, and print a link with which the person chooses a password.")
	var (
		name, ttlText, format string
		flags                 userFlags
	)
	clause.Arg("user", "The person's name: what audit records call teleportUser.").Required().StringVar(&name)
	flags.add(clause)
	clause.Flag("ttl", "How long the link is valid, such as 1h.").Default(defaultLinkTTL).StringVar(&ttlText)
	addFormat(clause, &format)
	register(clause, func(ctx context.Context) error {
		ttl, err := parseTTL("ttl", ttlText)
		if err != nil {
			return trace.Wrap(err)
		}
		user, err := types.NewUser(name)
		if err != nil {
			return usageError{trace.BadParameter("the user name is empty: give one")}
		}
		user.SetRoles([]string{defaultRole})
		if err := flags.apply(user); err != nil {
			return trace.Wrap(err)
		}
		c, err := t.connect(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		defer c.Close()
		if _, err := c.CreateUser(ctx, user); err != nil {
			return trace.Wrap(err)
		}
		return t.printLink(ctx, c, name, kindInvite, ttl, format)
	})
}

func (t *tctl) addUsersUpdate(users *kingpin.CmdClause, register register) {
	clause := users.Command("update", "Change a user's roles, logins or traits. It counts from the next login on.")
	var (
		name  string
		flags userFlags
	)
	clause.Arg("user", "The user's name.").Required().StringVar(&name)
	flags.add(clause)
	// What Teleport's tctl calls them here.
	clause.Flag("set-roles", "As --roles.").Hidden().IsSetByUser(&flags.rolesSet).StringsVar(&flags.roles)
	clause.Flag("set-logins", "As --logins.").Hidden().IsSetByUser(&flags.loginsSet).StringsVar(&flags.logins)
	register(clause, func(ctx context.Context) error {
		if !flags.rolesSet && !flags.loginsSet && len(flags.traits) == 0 {
			return usageError{trace.BadParameter("nothing is to be changed: give --roles, --logins or --trait")}
		}
		c, err := t.connect(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		defer c.Close()
		user, err := c.GetUser(ctx, name, false)
		if err != nil {
			return trace.Wrap(err)
		}
		if err := flags.apply(user); err != nil {
			return trace.Wrap(err)
		}
		if _, err := c.UpdateUser(ctx, user); err != nil {
			return trace.Wrap(err)
		}
		return t.print(fmt.Sprintf("User %q has the roles %s and the logins %s.\n", printable(name), listed(user.GetRoles()), listed(user.GetLogins())))
	})
}

func (t *tctl) listUsers(ctx context.Context, format string) error {
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	users, err := c.GetUsers(ctx, false)
	if err != nil {
		return trace.Wrap(err)
	}
	slices.SortFunc(users, func(a, b types.User) int { return strings.Compare(a.GetName(), b.GetName()) })
	return t.show(format, users, func() string {
		if len(users) == 0 {
			return "There are no users. Add one: tctl users add NAME --logins=LOGIN,...\n"
		}
		rows := make([][]string, 0, len(users))
		for _, user := range users {
			rows = append(rows, []string{user.GetName(), strings.Join(user.GetRoles(), ","), strings.Join(user.GetLogins(), ",")})
		}
		return table([]string{"User", "Roles", "Logins"}, rows)
	})
}

// printLink makes a link for a user and prints it.
func (t *tctl) printLink(ctx context.Context, c *cluster, user, kind string, ttl time.Duration, format string) error {
	token, err := c.CreateResetPasswordToken(ctx, &proto.CreateResetPasswordTokenRequest{Name: user, Type: kind, TTL: proto.Duration(ttl)})
	if err != nil {
		return trace.Wrap(err)
	}
	page, err := url.Parse(token.GetURL())
	if err != nil {
		return trace.Wrap(err, "reading the link")
	}
	if page.Hostname() == auth.PlaceholderProxy && c.proxyAddr != "" {
		page.Host = c.proxyAddr
	}
	what := "has been created but has no password yet"
	if kind == kindReset {
		what = "may choose a new password"
	}
	made := link{User: user, URL: page.String(), Expires: token.Expiry().UTC()}
	return t.show(format, made, func() string {
		return fmt.Sprintf("User %q %s. Share this URL with the user; it is valid for %s and once:\n%s\n\nNOTE: Make sure %s is an address of a proxy that the user can reach.\n",
			printable(user), what, spoken(ttl), made.URL, page.Host)
	})
}

func listed(words []string) string {
	if len(words) == 0 {
		return "(none)"
	}
	return printable(strings.Join(words, ","))
}
