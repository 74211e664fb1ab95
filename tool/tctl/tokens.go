// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl tokens: what hosts show to join the cluster.

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"
)

const (
	defaultTokenTTL = "30m"
	tokenBytes      = 16
	// minTokenLength is what keeps a token of the operator's own choice from
	// being guessed.
	minTokenLength = 16
	authPort       = "3025"
)

func (t *tctl) addTokens(app *kingpin.Application, register register) {
	tokens := app.Command("tokens", "What hosts show to join the cluster.")

	add := tokens.Command("add", "Make a token with which one host joins, and print the command to run there.")
	var kinds []string
	var value, ttlText, addFormatName string
	add.Flag("type", "What the host may be: node, proxy, auth; with commas between several.").PlaceHolder("TYPE,...").Required().StringsVar(&kinds)
	add.Flag("ttl", "How long the token is valid, such as 30m.").Default(defaultTokenTTL).StringVar(&ttlText)
	add.Flag("value", "A token of your own choice, for hosts that are set up before it is made.").PlaceHolder("TOKEN").StringVar(&value)
	addFormat(add, &addFormatName)
	register(add, func(ctx context.Context) error { return t.addToken(ctx, kinds, value, ttlText, addFormatName) })

	ls := tokens.Command("ls", "List the tokens that hosts can still join with.")
	var format string
	addFormat(ls, &format)
	register(ls, func(ctx context.Context) error {
		c, err := t.connect(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		defer c.Close()
		found, err := c.GetTokens(ctx)
		if err != nil {
			return trace.Wrap(err)
		}
		slices.SortFunc(found, func(a, b types.ProvisionToken) int { return a.Expiry().Compare(b.Expiry()) })
		return t.show(format, found, func() string {
			if len(found) == 0 {
				return "There are no tokens. Make one: tctl tokens add --type=node\n"
			}
			rows := make([][]string, 0, len(found))
			for _, token := range found {
				rows = append(rows, []string{token.GetName(), token.GetRoles().String(), when(token.Expiry())})
			}
			return table([]string{"Token", "Type", "Expires"}, rows)
		})
	})

	rm := tokens.Command("rm", "Remove tokens: no host can join with them any more.").Alias("del")
	var names []string
	rm.Arg("token", "The tokens.").Required().StringsVar(&names)
	register(rm, func(ctx context.Context) error {
		return t.remove(ctx, names, "Token %s was removed.\n", (*cluster).DeleteToken)
	})
}

func (t *tctl) addToken(ctx context.Context, kinds []string, value, ttlText, format string) error {
	ttl, err := parseTTL("ttl", ttlText)
	if err != nil {
		return trace.Wrap(err)
	}
	roles, words, err := tokenRoles(kinds)
	if err != nil {
		return trace.Wrap(err)
	}
	if value == "" {
		random := make([]byte, tokenBytes)
		if _, err := rand.Read(random); err != nil {
			return trace.Wrap(err)
		}
		value = hex.EncodeToString(random)
	} else if len(value) < minTokenLength {
		return usageError{trace.BadParameter("--value has %s, and could be guessed: give %d or more", plural(len(value), "character", "characters"), minTokenLength)}
	}
	token, err := types.NewProvisionToken(value, roles, time.Now().Add(ttl).UTC())
	if err != nil {
		return usageError{trace.BadParameter("--value: %s", trace.UserMessage(err))}
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	if err := c.CreateToken(ctx, token); err != nil {
		return trace.Wrap(err)
	}
	ping, err := c.Ping(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	pins, err := caPins(ctx, c, ping.ClusterName)
	if err != nil {
		return trace.Wrap(err)
	}
	proxy := ""
	if len(roles) == 1 && roles[0] == types.RoleNode {
		proxy = ping.ProxyPublicAddr
		if c.proxyAddr != "" {
			proxy = c.proxyAddr
		}
	}
	flag := c.joinAddress(proxy)
	made := struct {
		Token   string    `json:"token"`
		Roles   []string  `json:"roles"`
		Expires time.Time `json:"expires"`
		CAPins  []string  `json:"ca_pins"`
		Join    string    `json:"join"`
	}{value, words, token.Expiry().UTC(), pins, flag}
	return t.show(format, made, func() string {
		var b strings.Builder
		fmt.Fprintf(&b, "The invite token: %s\nThis token will expire in %s, and is good for one host.\n\nRun this on the new host to join the cluster:\n\n> teleport start \\\n   --roles=%s \\\n   --token=%s \\\n",
			value, spoken(ttl), strings.Join(words, ","), value)
		for _, pin := range pins {
			fmt.Fprintf(&b, "   --ca-pin=%s \\\n", pin)
		}
		fmt.Fprintf(&b, "   %s\n", flag)
		return b.String()
	})
}

// tokenRoles reads --type.
func tokenRoles(kinds []string) (types.SystemRoles, []string, error) {
	known := map[string]types.SystemRole{"node": types.RoleNode, "proxy": types.RoleProxy, "auth": types.RoleAuth}
	var roles types.SystemRoles
	var words []string
	for _, word := range splitList(kinds) {
		role, ok := known[strings.ToLower(word)]
		if !ok {
			return nil, nil, usageError{trace.BadParameter("there is no type %q: give node, proxy or auth, with commas between several", word)}
		}
		if !slices.Contains(words, strings.ToLower(word)) {
			roles, words = append(roles, role), append(words, strings.ToLower(word))
		}
	}
	if len(roles) == 0 {
		return nil, nil, usageError{trace.BadParameter("--type is empty: give node, proxy or auth")}
	}
	return roles, words, nil
}

// joinAddress is the flag with the address that a new host joins at: on the host
// of the auth service that is the auth service's own, and else the proxy's that is
// given. Only nodes can join through a proxy; for others none is given.
func (c *cluster) joinAddress(proxy string) string {
	if c.settings == nil {
		if proxy != "" {
			return "--proxy-server=" + proxy
		}
		return "--auth-server=<authhost>:" + authPort
	}
	if c.settings.Auth.PublicAddr != "" {
		return "--auth-server=" + c.settings.Auth.PublicAddr
	}
	host, port, err := net.SplitHostPort(c.settings.Auth.ListenAddr)
	if err != nil {
		return "--auth-server=<authhost>:" + authPort
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = outwardAddress()
	}
	return "--auth-server=" + net.JoinHostPort(host, port)
}

// outwardAddress is the first address of this host that others can reach, or a
// placeholder.
func outwardAddress() string {
	addrs, _ := net.InterfaceAddrs() // none found is as good as an error
	for _, addr := range addrs {
		if ipNet, ok := addr.(*net.IPNet); ok && ipNet.IP.IsGlobalUnicast() {
			return ipNet.IP.String()
		}
	}
	return "<authhost>"
}
