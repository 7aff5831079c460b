package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/belfry/belfry/message/nearest"
)

// tree knows the line of every key in a file, and finds those that do not exist.
type tree struct {
	lines map[string]int
	// values are the paths of what begins at a place.
	values   map[place]string
	problems Problems
}

type place struct{ line, column int }

func newTree(body ast.Node) *tree {
	t := &tree{lines: make(map[string]int), values: make(map[place]string)}
	t.node(body, reflect.TypeFor[Config](), "")
	return t
}

// line returns where the key stands, or the nearest key above it that does.
func (t *tree) line(path string) int {
	for path != "" {
		if n, ok := t.lines[path]; ok {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

// at returns the path of the value that the token begins.
func (t *tree) at(token *token.Token) string {
	return t.values[place{token.Position.Line, token.Position.Column}]
}

// node goes through n, which is to be decoded into typ; typ is nil where anything may stand.
func (t *tree) node(n ast.Node, typ reflect.Type, path string) {
	for typ != nil && typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	position := n.GetToken().Position
	if at := (place{position.Line, position.Column}); t.values[at] == "" {
		// The outermost: a mapping may share its token with its first key.
		t.values[at] = path
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		t.node(n.Value, typ, path)
	case *ast.TagNode:
		t.node(n.Value, typ, path)
	case *ast.MappingNode:
		for _, pair := range n.Values {
			t.pair(pair, typ, path)
		}
	case *ast.MappingValueNode:
		t.pair(n, typ, path)
	case *ast.SequenceNode:
		for i, v := range n.Values {
			at := fmt.Sprintf("%s[%d]", path, i)
			t.lines[at] = v.GetToken().Position.Line
			t.node(v, elem(typ, reflect.Slice), at)
		}
	}
}

func (t *tree) pair(pair *ast.MappingValueNode, typ reflect.Type, path string) {
	name := pair.Key.GetToken().Value
	if pair.Key.IsMergeKey() {
		t.node(pair.Value, typ, path)
		return
	}
	at := join(path, name)
	t.lines[at] = pair.Key.GetToken().Position.Line
	if typ == nil || typ.Kind() != reflect.Struct {
		t.node(pair.Value, elem(typ, reflect.Map), at)
		return
	}
	var known []string
	for i := range typ.NumField() {
		if key(typ.Field(i)) == name {
			t.node(pair.Value, typ.Field(i).Type, at)
			return
		}
		known = append(known, key(typ.Field(i)))
	}
	t.problems = append(t.problems, Problem{Line: t.lines[at], Path: at, Text: unknown("key", name, known)})
}

func elem(typ reflect.Type, kind reflect.Kind) reflect.Type {
	if typ != nil && typ.Kind() == kind {
		return typ.Elem()
	}
	return nil
}

// unknown says that there is no such key or variable, and which one may have been meant.
func unknown(what, name string, known []string) string {
	if near := nearest.Word(name, known); near != "" {
		return fmt.Sprintf("unknown %s; did you mean %q?", what, near)
	}
	return fmt.Sprintf("unknown %s; known here: %s", what, strings.Join(known, ", "))
}
