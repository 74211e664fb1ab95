// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package config

// How the file's text becomes a Config: YAML to a tree, the tree against the
// schema, and every mistake to one line with its place.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/gravitational/trace"
)

const (
	// maxFileSize is far above what every key with every label needs.
	maxFileSize = 64 << 10
	// maxFlowDepth bounds brackets in brackets: the schema needs three, and
	// the YAML parser takes quadratic time over them.
	maxFlowDepth = 16
)

// place is where in a file something stands, both counted from 1.
type place struct{ line, column int }

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// placeOfNode is where a node starts, which for keys is the first of them: the
// parser has its colon.
func placeOfNode(node ast.Node) place {
	if mapping, ok := node.(*ast.MappingNode); ok && !mapping.IsFlowStyle && len(mapping.Values) > 0 {
		return placeOf(mapping.Values[0].Key.GetToken())
	}
	return placeOf(node.GetToken())
}

func (p place) in(file string) string {
	return fmt.Sprintf("%s:%d:%d", file, p.line, p.column)
}

// ReadFile reads a file over the defaults. A service that the file does not
// mention is enabled, as in Teleport.
//
// The error is one line: trace.NotFound and trace.AccessDenied for a file that
// cannot be opened, trace.BadParameter with file, line, column and key for what
// it says.
func ReadFile(path string) (*Config, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	cfg, err := parse(path, text)
	return cfg, trace.Wrap(err)
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, trace.NotFound("the configuration file %s does not exist: name another with --config, or make one with: teleport configure > %s", path, path)
	case errors.Is(err, fs.ErrPermission):
		return nil, trace.AccessDenied("the configuration file %s cannot be opened: permission denied. Run as root, or let this user read it", path)
	case err != nil:
		return nil, trace.ConvertSystemError(fmt.Errorf("the configuration file cannot be opened: %w", err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, trace.ConvertSystemError(fmt.Errorf("the configuration file cannot be read: %w", err))
	}
	if info.IsDir() {
		return nil, trace.BadParameter("%s is a folder: name the configuration file in it", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, trace.ConvertSystemError(fmt.Errorf("the configuration file %s cannot be read: %w", path, err))
	}
	if len(text) > maxFileSize {
		return nil, trace.BadParameter("%s is larger than the %d KiB that a configuration may have: is it the right file?", path, maxFileSize>>10)
	}
	return text, nil
}

// parse reads text that came from the file named.
func parse(file string, text []byte) (*Config, error) {
	cfg := Default()
	cfg.file = file
	cfg.places = map[string]place{}
	p := reader{file: file, places: cfg.places}

	root, err := p.tree(text)
	if err != nil {
		return nil, trace.Wrap(err)
	}
	if err := p.section(root, "", schema(cfg)); err != nil {
		return nil, trace.Wrap(err)
	}
	return cfg, nil
}

// reader holds what error lines need while a file is read.
type reader struct {
	file   string
	places map[string]place
}

func (p *reader) errorf(at place, format string, args ...any) error {
	return trace.BadParameter("%s: %s", at.in(p.file), fmt.Sprintf(format, args...))
}

// tree returns the file's top mapping.
func (p *reader) tree(text []byte) (root *ast.MappingNode, err error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if at, ok := firstUnreadable(text); ok {
		return nil, p.errorf(at, "this is no plain UTF-8 text: is it the right file?")
	}
	// The parser is a large piece of foreign code; a panic of its must not
	// take the place of an error line.
	defer func() {
		if recover() != nil {
			root, err = nil, trace.BadParameter("%s: the YAML cannot be parsed: compare it with what teleport configure prints", p.file)
		}
	}()
	tokens := lexer.Tokenize(string(text))
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		}
		if depth > maxFlowDepth {
			return nil, p.errorf(placeOf(t), "brackets are nested more than %d deep: no key needs that", maxFlowDepth)
		}
	}
	// Duplicate keys are found below, with our words.
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, p.syntaxError(err)
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.NullType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		return nil, trace.BadParameter("%s is empty: teleport configure prints a file to start from, or start without --config to run on the defaults", p.file)
	}
	root, ok := bodies[0].(*ast.MappingNode)
	if !ok {
		return nil, p.errorf(placeOfNode(bodies[0]), "expects sections such as \"ssh_service:\", and has %s", describe(bodies[0]))
	}
	if len(bodies) > 1 {
		return nil, p.errorf(placeOfNode(bodies[1]), "a second document (after ---) is not read: put everything into the first")
	}
	return root, nil
}

// firstUnreadable finds bytes that are not UTF-8, and control characters.
func firstUnreadable(text []byte) (place, bool) {
	at := place{1, 1}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 || unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) {
			return at, true
		}
		at.column++
		if r == '\n' {
			at = place{at.line + 1, 1}
		}
		text = text[size:]
	}
	return place{}, false
}

func (p *reader) syntaxError(err error) error {
	const remedy = "check the indentation, and put quotes around values that start with or hold : [ ] { } # & * ! | > ' \" % @"
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) || syntax.Token == nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return trace.BadParameter("%s: this is no YAML (%s): %s", p.file, first, remedy)
	}
	return p.errorf(placeOf(syntax.Token), "this is no YAML (%s): %s", printable(syntax.Message), remedy)
}

// printable keeps an error on one line, whatever the parser quotes in it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// section reads a mapping by the keys that it may have. path is its own, such
// as "ssh_service.pam", and empty at the top.
func (p *reader) section(node *ast.MappingNode, path string, known []key) error {
	for _, pair := range node.Values {
		name, at, err := p.key(pair, path, nil)
		if err != nil {
			return trace.Wrap(err)
		}
		found := findKey(known, name)
		if found == nil {
			return p.unknown(at, path, name, known)
		}
		keyPath := join(path, name)
		if err := p.value(pair.Value, keyPath, found); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// key reads a pair's key, and refuses one that came before.
func (p *reader) key(pair *ast.MappingValueNode, path string, own *names) (string, place, error) {
	at := placeOf(pair.Key.GetToken())
	text, ok := pair.Key.(*ast.StringNode)
	if !ok {
		if _, merge := pair.Key.(*ast.MergeKeyNode); merge {
			return "", at, p.errorf(at, "merging with << is not supported: write the keys out")
		}
		if own != nil {
			return "", at, p.errorf(at, "%s: %s's name must be text: put it in quotes", path, own.one)
		}
		return "", at, p.errorf(at, "%sa key must be a plain word", inSection(path, ": "))
	}
	keyPath := join(path, text.Value)
	if before, ok := p.places[keyPath]; ok {
		return "", at, p.errorf(at, "%s is set twice, first in line %d: take one of them out", printable(keyPath), before.line)
	}
	p.places[keyPath] = at
	return text.Value, at, nil
}

func (p *reader) value(node ast.Node, path string, known *key) error {
	at := placeOfNode(node)
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		return p.errorf(at, "%s: anchors and aliases (& and *) are not supported: write the value out, in quotes where it starts with one of these", path)
	case *ast.TagNode:
		return p.errorf(at, "%s: tags (!) are not supported: write the value without it, in quotes where it starts with one", path)
	}
	if known.each != nil {
		return trace.Wrap(p.list(node, path, known.each))
	}
	if known.section == nil && known.names == nil {
		if _, null := node.(*ast.NullNode); null {
			return p.errorf(p.places[path], "%s has no value: write one, or take the key out", path)
		}
		if err := known.set(node); err != nil {
			return p.errorf(at, "%s: %v", path, err)
		}
		return nil
	}
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		// A section whose every key is commented out.
		if _, null := node.(*ast.NullNode); null {
			return nil
		}
		return p.errorf(at, "%s: expects keys below it, indented, and has %s", path, describe(node))
	}
	if known.names != nil {
		return trace.Wrap(p.names(mapping, path, known.names))
	}
	return trace.Wrap(p.section(mapping, path, known.section))
}

// list reads a list of mappings that all have the same keys.
func (p *reader) list(node ast.Node, path string, each func() []key) error {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		if _, null := node.(*ast.NullNode); null {
			return nil
		}
		return p.errorf(placeOfNode(node), "%s: expects a list, each with a dash before it, and has %s", path, describe(node))
	}
	if len(list.Values) > maxList {
		return p.errorf(placeOfNode(node), "%s: has more than the %d elements that it may have", path, maxList)
	}
	for i, element := range list.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		mapping, ok := element.(*ast.MappingNode)
		if !ok {
			return p.errorf(placeOfNode(element), "%s: expects keys, and has %s", at, describe(element))
		}
		p.places[at] = placeOfNode(element)
		if err := p.section(mapping, at, each()); err != nil {
			return trace.Wrap(err)
		}
	}
	return nil
}

// names reads a mapping whose keys are the operator's own.
func (p *reader) names(node *ast.MappingNode, path string, own *names) error {
	read := map[string]string{}
	for _, pair := range node.Values {
		name, at, err := p.key(pair, path, own)
		if err != nil {
			return trace.Wrap(err)
		}
		if err := own.checkName(name); err != nil {
			return p.errorf(at, "%s: %v", path, err)
		}
		at = placeOfNode(pair.Value)
		value, err := textOf(pair.Value)
		if err == nil {
			err = own.checkValue(value)
		}
		if err != nil {
			return p.errorf(at, "%s: %v", join(path, name), err)
		}
		read[name] = value
		if len(read) > own.most {
			return p.errorf(at, "%s: a node may have at most %d %s", path, own.most, own.many)
		}
	}
	*own.into = read
	return nil
}

// unknown says where a key belongs, or which known one is nearest to it.
func (p *reader) unknown(at place, path, name string, known []key) error {
	where := "at the top level"
	if path != "" {
		where = "in " + path
	}
	var names []string
	for _, k := range known {
		names = append(names, k.name)
	}
	near := nearest(name, names)
	if elsewhere := pathsOf(name, schema(&Config{}), ""); len(elsewhere) > 0 && distance(name, near) > 2 {
		return p.errorf(at, "there is no key %s %s: the known one is %s, so move it there (nearest here: %q)", shorten(name), where, strings.Join(elsewhere, " or "), near)
	}
	return p.errorf(at, "there is no key %s %s: the nearest known key is %q, so write that or take the line out", shorten(name), where, near)
}

// pathsOf finds a key's name anywhere in the schema.
func pathsOf(name string, known []key, path string) []string {
	var paths []string
	for _, k := range known {
		if k.name == name {
			paths = append(paths, join(path, name))
		}
		paths = append(paths, pathsOf(name, k.section, join(path, k.name))...)
	}
	return paths
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func inSection(path, after string) string {
	if path == "" {
		return ""
	}
	return path + after
}

// describe names what a node is, for "expects this, and has that".
func describe(node ast.Node) string {
	switch n := node.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return "the word " + n.GetToken().Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + shorten(n.GetToken().Value)
	case *ast.StringNode:
		return "the text " + shorten(n.Value)
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode:
		return "keys below it"
	}
	return "something else"
}

// textOf takes text, quoted or not. A number is refused rather than taken as it
// is written, as YAML has several ways to write one.
func textOf(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return "", fmt.Errorf("expects text, and has %s: put it in quotes", describe(n))
	}
	return "", fmt.Errorf("expects text, and has %s", describe(node))
}

func boolOf(node ast.Node) (bool, error) {
	switch n := node.(type) {
	case *ast.BoolNode:
		return n.Value, nil
	case *ast.StringNode, *ast.IntegerNode:
		return parseBool(n.GetToken().Value)
	}
	return false, fmt.Errorf("expects yes or no, and has %s", describe(node))
}

func countOf(node ast.Node) (int, error) {
	number, ok := node.(*ast.IntegerNode)
	if !ok {
		return 0, fmt.Errorf("expects a number from 1 to %d, and has %s", maxCount, describe(node))
	}
	count, err := strconv.Atoi(number.GetToken().Value)
	if err != nil {
		return 0, fmt.Errorf("expects a number from 1 to %d, in decimal digits, and has %s", maxCount, shorten(number.GetToken().Value))
	}
	return count, checkCount(count)
}
