// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// tctl get, create and rm: the objects of the cluster, as YAML or JSON.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
	"github.com/google/uuid"
	apidefaults "github.com/gravitational/teleport/api/defaults"
	"github.com/gravitational/teleport/api/types"
	"github.com/gravitational/trace"

	"teleport-auditd/lib/access"
	"teleport-auditd/lib/cause"
	"teleport-auditd/lib/cli"
)

// maxResourceFile bounds what create reads.
const maxResourceFile = 4 << 20

// everyKind is the objects of all kinds.
const everyKind = "all"

// standardInput is the file of who names none.
const standardInput = "-"

// kind is one kind of object.
type kind struct {
	// name is the kind as objects have it, words what else the user may call it.
	name  string
	words []string
	// list returns all of them, get the one of a name. Secrets come only where
	// they are asked for.
	list func(ctx context.Context, c *cluster, secrets bool) ([]types.Resource, error)
	get  func(ctx context.Context, c *cluster, name string, secrets bool) (types.Resource, error)
	// decode reads one in JSON. create writes it, and replaces one that is there
	// where force says so. Nil where that is not to be done.
	decode func(text []byte) (types.Resource, error)
	create func(ctx context.Context, c *cluster, resource types.Resource, force bool) error
	rm     func(ctx context.Context, c *cluster, name string) error
}

// kinds are those that tctl knows: what others name comes before them, so that a
// file of all can be created from its beginning to its end.
func kinds() []kind {
	return []kind{
		{
			name: types.KindRole, words: []string{"roles"},
			list: func(ctx context.Context, c *cluster, _ bool) ([]types.Resource, error) {
				roles, err := c.GetRoles(ctx)
				return resources(roles), trace.Wrap(err)
			},
			get: func(ctx context.Context, c *cluster, name string, _ bool) (types.Resource, error) {
				return c.GetRole(ctx, name)
			},
			decode: func(text []byte) (types.Resource, error) { return access.Parse(text) },
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) (err error) {
				if force {
					_, err = c.UpsertRole(ctx, r.(types.Role))
				} else {
					_, err = c.CreateRole(ctx, r.(types.Role))
				}
				return trace.Wrap(err)
			},
			rm: func(ctx context.Context, c *cluster, name string) error { return c.DeleteRole(ctx, name) },
		},
		{
			name: types.KindUser, words: []string{"users"},
			list: func(ctx context.Context, c *cluster, _ bool) ([]types.Resource, error) {
				users, err := c.GetUsers(ctx, false)
				return resources(users), trace.Wrap(err)
			},
			get: func(ctx context.Context, c *cluster, name string, _ bool) (types.Resource, error) {
				return c.GetUser(ctx, name, false)
			},
			decode: decodeInto(func() types.Resource { return &types.UserV2{} }),
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) (err error) {
				if force {
					_, err = c.UpsertUser(ctx, r.(types.User))
				} else {
					_, err = c.CreateUser(ctx, r.(types.User))
				}
				return trace.Wrap(err)
			},
			rm: func(ctx context.Context, c *cluster, name string) error { return c.DeleteUser(ctx, name) },
		},
		{
			name: types.KindToken, words: []string{"tokens"},
			list: func(ctx context.Context, c *cluster, _ bool) ([]types.Resource, error) {
				tokens, err := c.GetTokens(ctx)
				return resources(tokens), trace.Wrap(err)
			},
			get: func(ctx context.Context, c *cluster, name string, _ bool) (types.Resource, error) {
				return c.GetToken(ctx, name)
			},
			decode: decodeInto(func() types.Resource { return &types.ProvisionTokenV2{} }),
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) error {
				if force {
					return c.UpsertToken(ctx, r.(types.ProvisionToken))
				}
				return c.CreateToken(ctx, r.(types.ProvisionToken))
			},
			rm: func(ctx context.Context, c *cluster, name string) error { return c.DeleteToken(ctx, name) },
		},
		{
			name: types.KindNode, words: []string{"nodes"},
			list: func(ctx context.Context, c *cluster, _ bool) ([]types.Resource, error) {
				nodes, err := c.GetNodes(ctx, apidefaults.Namespace)
				return resources(nodes), trace.Wrap(err)
			},
			get: func(ctx context.Context, c *cluster, name string, _ bool) (types.Resource, error) {
				return c.findNode(ctx, name)
			},
			decode: decodeInto(func() types.Resource { return &types.ServerV2{} }),
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) error {
				if !force {
					if _, err := c.GetNode(ctx, apidefaults.Namespace, r.GetName()); err == nil {
						return trace.AlreadyExists("the node %q is registered already: give --force to replace it", r.GetName())
					}
				}
				_, err := c.UpsertNode(ctx, r.(types.Server))
				return trace.Wrap(err)
			},
			rm: func(ctx context.Context, c *cluster, name string) error {
				// A host that is heard of no more has a UUID all the same: it may have
				// joined, and has to be forgotten.
				if _, err := uuid.Parse(name); err != nil {
					node, err := c.findNode(ctx, name)
					if err != nil {
						return trace.Wrap(err)
					}
					name = node.GetName()
				}
				return c.DeleteNode(ctx, apidefaults.Namespace, name)
			},
		},
		{
			name: types.KindCertAuthority, words: []string{"cert_authorities", "ca", "cas"},
			list: func(ctx context.Context, c *cluster, secrets bool) ([]types.Resource, error) {
				var all []types.Resource
				for _, authority := range authorityTypes() {
					found, err := c.GetCertAuthorities(ctx, authority, secrets)
					if err != nil {
						return nil, trace.Wrap(err)
					}
					all = append(all, resources(found)...)
				}
				return all, nil
			},
			get: func(ctx context.Context, c *cluster, name string, secrets bool) (types.Resource, error) {
				id, err := authorityID(ctx, c, name)
				if err != nil {
					return nil, trace.Wrap(err)
				}
				return c.GetCertAuthority(ctx, id, secrets)
			},
			decode: decodeInto(func() types.Resource { return &types.CertAuthorityV2{} }),
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) error {
				authority := r.(types.CertAuthority)
				if !force {
					if _, err := c.GetCertAuthority(ctx, authority.GetID(), false); err == nil {
						return trace.AlreadyExists("the %s authority of %q is there already: give --force to replace it", authority.GetType(), authority.GetClusterName())
					}
				}
				_, err := c.UpsertCertAuthority(ctx, authority)
				return trace.Wrap(err)
			},
			rm: func(ctx context.Context, c *cluster, name string) error {
				id, err := authorityID(ctx, c, name)
				if err != nil {
					return trace.Wrap(err)
				}
				return c.DeleteCertAuthority(ctx, id)
			},
		},
		{
			name: types.KindLock, words: []string{"locks"},
			list: func(ctx context.Context, c *cluster, _ bool) ([]types.Resource, error) {
				locks, err := c.GetLocks(ctx, false)
				return resources(locks), trace.Wrap(err)
			},
			get: func(ctx context.Context, c *cluster, name string, _ bool) (types.Resource, error) {
				return c.GetLock(ctx, name)
			},
			decode: decodeInto(func() types.Resource { return &types.LockV2{} }),
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) error {
				if !force {
					if _, err := c.GetLock(ctx, r.GetName()); err == nil {
						return trace.AlreadyExists("the lock %q is there already: give --force to replace it", r.GetName())
					}
				}
				return c.UpsertLock(ctx, r.(types.Lock))
			},
			rm: func(ctx context.Context, c *cluster, name string) error { return c.DeleteLock(ctx, name) },
		},
		{
			name: types.KindClusterAuthPreference, words: []string{"cap"},
			list: func(ctx context.Context, c *cluster, _ bool) ([]types.Resource, error) {
				preference, err := c.GetAuthPreference(ctx)
				return []types.Resource{preference}, trace.Wrap(err)
			},
			get: func(ctx context.Context, c *cluster, _ string, _ bool) (types.Resource, error) {
				return c.GetAuthPreference(ctx)
			},
			decode: decodeInto(func() types.Resource { return &types.AuthPreferenceV2{} }),
			create: func(ctx context.Context, c *cluster, r types.Resource, force bool) error {
				if !force {
					return trace.AlreadyExists("the cluster always has a %s: give --force to replace it", types.KindClusterAuthPreference)
				}
				_, err := c.UpsertAuthPreference(ctx, r.(types.AuthPreference))
				return trace.Wrap(err)
			},
		},
	}
}

// shownName is the name by which get and rm find an object. The authorities all
// have the cluster's.
func shownName(resource types.Resource) string {
	if resource.GetKind() == types.KindCertAuthority {
		return resource.GetSubKind() + "/" + resource.GetName()
	}
	return resource.GetName()
}

func authorityTypes() []types.CertAuthType {
	return []types.CertAuthType{types.UserCA, types.HostCA}
}

// authorityID takes TYPE, of this cluster, and TYPE/CLUSTER.
func authorityID(ctx context.Context, c *cluster, name string) (types.CertAuthID, error) {
	kind, domain, _ := strings.Cut(name, "/")
	if !slices.Contains(authorityTypes(), types.CertAuthType(kind)) {
		return types.CertAuthID{}, trace.NotFound("there is no authority %q: they are cert_authority/user and cert_authority/host", name)
	}
	if domain == "" {
		ping, err := c.Ping(ctx)
		if err != nil {
			return types.CertAuthID{}, trace.Wrap(err)
		}
		domain = ping.ClusterName
	}
	return types.CertAuthID{Type: types.CertAuthType(kind), DomainName: domain}, nil
}

func resources[T types.Resource](all []T) []types.Resource {
	out := make([]types.Resource, 0, len(all))
	for _, one := range all {
		out = append(out, one)
	}
	return out
}

// decodeInto reads JSON strictly: a word that is spelt wrongly would else be an
// order that nobody follows.
func decodeInto(empty func() types.Resource) func([]byte) (types.Resource, error) {
	return func(text []byte) (types.Resource, error) {
		resource := empty()
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(resource); err != nil {
			return nil, trace.BadParameter("%s", strings.TrimPrefix(err.Error(), "json: "))
		}
		if checked, ok := resource.(interface{ CheckAndSetDefaults() error }); ok {
			if err := checked.CheckAndSetDefaults(); err != nil {
				return nil, trace.Wrap(err)
			}
		}
		return resource, nil
	}
}

// findKind returns the kind of a word such as "user", "users" or "User".
func findKind(word string) (kind, error) {
	word = strings.ToLower(word)
	var names []string
	for _, k := range kinds() {
		if k.name == word || slices.Contains(k.words, word) {
			return k, nil
		}
		names = append(names, k.name)
	}
	return kind{}, usageError{trace.BadParameter("there is no kind %q: the kinds are %s", word, strings.Join(names, ", "))}
}

func (t *tctl) addResources(app *kingpin.Application, register register) {
	get := app.Command("get", "Print objects: KIND for all of a kind, KIND/NAME for one, all for those of every kind. Kinds: role, user, token, node, cert_authority, lock, cluster_auth_preference.")
	var wanted []string
	var format string
	var secrets bool
	get.Arg("kind", "KIND or KIND/NAME, with commas between several.").Required().StringsVar(&wanted)
	cli.OneOf(get.Flag("format", "How it is printed: yaml, json or text, which is the names.").Default(formatYAML), &format, formatYAML, formatJSON, formatText)
	get.Flag("with-secrets", "Print private keys of authorities too.").BoolVar(&secrets)
	register(get, func(ctx context.Context) error { return t.getResources(ctx, splitList(wanted), format, secrets) })

	create := app.Command("create", "Make objects from a file of YAML or JSON; - is standard input.")
	var file string
	var force bool
	create.Arg("file", "The file. Without it, standard input.").StringVar(&file)
	create.Flag("force", "Replace what is there.").Short('f').BoolVar(&force)
	register(create, func(ctx context.Context) error {
		// It is also what kingpin makes of a lone dash.
		if file == "" {
			file = standardInput
		}
		return t.createResources(ctx, file, force)
	})

	rm := app.Command("rm", "Remove objects: KIND/NAME.")
	var names []string
	rm.Arg("object", "KIND/NAME, with commas between several.").Required().StringsVar(&names)
	register(rm, func(ctx context.Context) error { return t.removeResources(ctx, splitList(names)) })
}

func (t *tctl) getResources(ctx context.Context, wanted []string, format string, secrets bool) error {
	type question struct {
		kind kind
		name string
	}
	var questions []question
	for _, word := range wanted {
		if word == everyKind {
			for _, k := range kinds() {
				questions = append(questions, question{kind: k})
			}
			continue
		}
		kindWord, name, _ := strings.Cut(word, "/")
		k, err := findKind(kindWord)
		if err != nil {
			return trace.Wrap(err)
		}
		questions = append(questions, question{k, name})
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	var all []types.Resource
	for _, q := range questions {
		if q.name == "" {
			found, err := q.kind.list(ctx, c, secrets)
			if err != nil {
				return trace.Wrap(err)
			}
			all = append(all, found...)
			continue
		}
		one, err := q.kind.get(ctx, c, q.name, secrets)
		if err != nil {
			return trace.Wrap(err)
		}
		all = append(all, one)
	}
	switch format {
	case formatJSON:
		out, err := toJSON(all)
		if err != nil {
			return trace.Wrap(err)
		}
		return t.print(out)
	case formatText:
		var lines strings.Builder
		for _, one := range all {
			lines.WriteString(one.GetKind() + "/" + printable(shownName(one)) + "\n")
		}
		return t.print(lines.String())
	}
	var documents []string
	for _, one := range all {
		text, err := toYAML(one)
		if err != nil {
			return trace.Wrap(err)
		}
		documents = append(documents, text)
	}
	return t.print(strings.Join(documents, "---\n"))
}

// createResources reads the whole file before it writes anything: a mistake at
// its end must not leave its beginning behind.
func (t *tctl) createResources(ctx context.Context, file string, force bool) error {
	text, err := readFile(file)
	if err != nil {
		return trace.Wrap(err)
	}
	type object struct {
		kind     kind
		resource types.Resource
	}
	documents, err := splitDocuments(file, text)
	if err != nil {
		return trace.Wrap(err)
	}
	var objects []object
	for i, document := range documents {
		at := fmt.Sprintf("%s, object %d", shownFile(file), i+1)
		var head struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(document, &head); err != nil || head.Kind == "" {
			return trace.BadParameter("%s: it has no kind: begin it with a line such as kind: role", at)
		}
		k, err := findKind(head.Kind)
		if err != nil {
			return trace.BadParameter("%s: %s", at, trace.UserMessage(err))
		}
		resource, err := k.decode(document)
		if err != nil {
			return trace.BadParameter("%s (%s): %s", at, k.name, trace.UserMessage(err))
		}
		objects = append(objects, object{k, resource})
	}
	if len(objects) == 0 {
		return trace.BadParameter("%s holds no objects: give one in YAML or JSON, as tctl get prints them", shownFile(file))
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	for _, o := range objects {
		if err := o.kind.create(ctx, c, o.resource, force); err != nil {
			return trace.Wrap(err)
		}
		if err := t.print(fmt.Sprintf("%s %q has been created\n", o.kind.name, printable(shownName(o.resource)))); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

func (t *tctl) removeResources(ctx context.Context, names []string) error {
	type object struct {
		kind kind
		name string
	}
	var objects []object
	for _, word := range names {
		kindWord, name, _ := strings.Cut(word, "/")
		k, err := findKind(kindWord)
		if err != nil {
			return trace.Wrap(err)
		}
		if name == "" {
			return usageError{trace.BadParameter("%q names a kind alone: give the object too, as in %s/NAME", word, k.name)}
		}
		if k.rm == nil {
			return usageError{trace.BadParameter("a %s cannot be removed: change it with tctl create --force", k.name)}
		}
		objects = append(objects, object{k, name})
	}
	c, err := t.connect(ctx)
	if err != nil {
		return trace.Wrap(err)
	}
	defer c.Close()
	for _, o := range objects {
		if err := o.kind.rm(ctx, c, o.name); err != nil {
			return trace.Wrap(err)
		}
		if err := t.print(fmt.Sprintf("%s %q has been deleted\n", o.kind.name, printable(o.name))); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

func shownFile(file string) string {
	if file == standardInput {
		return "standard input"
	}
	return file
}

func readFile(file string) ([]byte, error) {
	in := os.Stdin
	if file != standardInput {
		var err error
		if in, err = os.Open(file); err != nil {
			return nil, trace.BadParameter("%s cannot be read: %v", file, cause.System(err))
		}
		defer in.Close() //nolint:errcheck // it was read only
	}
	text, err := io.ReadAll(io.LimitReader(in, maxResourceFile+1))
	if err != nil {
		return nil, trace.BadParameter("%s cannot be read: %v", shownFile(file), cause.System(err))
	}
	if len(text) > maxResourceFile {
		return nil, trace.BadParameter("%s is larger than %d bytes: give the objects in several files", shownFile(file), maxResourceFile)
	}
	return text, nil
}

// splitDocuments returns each object of a file in JSON. A list, as tctl get
// --format=json prints it, is several.
func splitDocuments(file string, text []byte) ([][]byte, error) {
	bad := func(err error) error {
		line := err.Error()
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			line = fmt.Sprintf("line %d: %s", syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return trace.BadParameter("%s is neither YAML nor JSON: %s", shownFile(file), oneLine(line))
	}
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, bad(err)
	}
	var all [][]byte
	for _, document := range parsed.Docs {
		if document.Body == nil {
			continue
		}
		body, err := yaml.YAMLToJSON([]byte(document.Body.String()))
		if err != nil {
			return nil, bad(err)
		}
		if body = bytes.TrimSpace(body); len(body) == 0 || bytes.Equal(body, []byte("null")) {
			continue
		}
		if body[0] == '[' {
			var list []json.RawMessage
			if err := json.Unmarshal(body, &list); err != nil {
				return nil, bad(err)
			}
			for _, one := range list {
				all = append(all, one)
			}
			continue
		}
		all = append(all, body)
	}
	return all, nil
}
