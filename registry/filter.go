package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// What an expression may cost, so that nobody's audience slows a scan: the language has no loops, so a match is bounded
// by the nodes and by what its regular expressions compile to.
const (
	maxFilterBytes   = 4096
	maxFilterNodes   = 1000
	maxPatternInsts  = 2000
	filterErrorShown = 60
)

// Filter is an audience's expression, compiled. Safe for concurrent use.
type Filter struct {
	match  condition
	wanted Wanted
}

// condition is a part of an expression that is true or false of a device.
type condition func(*pb.Device) bool

// CompileFilter reads an expression over a device, in the syntax of expr-lang and the words of docs/audience.md. Its
// errors name the place and are for whoever wrote it.
//
// Only expr's parser is used. Its virtual machine boxes every value it touches and fails at run time on an attribute that
// is missing or of another kind, and a scan matches a million devices a second.
func CompileFilter(source string) (*Filter, error) {
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("the expression is empty")
	}
	if len(source) > maxFilterBytes {
		return nil, fmt.Errorf("the expression has %d bytes; at most %d are taken", len(source), maxFilterBytes)
	}
	tree, err := parser.ParseWithConfig(source, grammar())
	if err != nil {
		return nil, placed(err)
	}
	c := &filterCompiler{}
	match, err := c.condition(tree.Node)
	if err != nil {
		var at *file.Error
		if errors.As(err, &at) {
			at.Bind(tree.Source)
		}
		return nil, placed(err)
	}
	return &Filter{match: match, wanted: c.wanted}, nil
}

// Match tells whether the expression is true of d.
func (f *Filter) Match(d *pb.Device) (bool, error) { return f.match(d), nil }

// Wanted is what Match looks at.
func (f *Filter) Wanted() Wanted { return f.wanted }

// grammar is expr's, without the functions it brings.
func grammar() *conf.Config {
	c := conf.CreateNew()
	c.MaxNodes = maxFilterNodes
	for name := range c.Builtins {
		c.Disabled[name] = true
	}
	clear(c.Builtins)
	return c
}

// placed puts expr's error, which draws the place on three lines, on one.
func placed(err error) error {
	var e *file.Error
	if !errors.As(err, &e) || e.Line == 0 {
		return err
	}
	if e.Line == 1 {
		return fmt.Errorf("%s (at column %d)", e.Message, e.Column+1)
	}
	return fmt.Errorf("%s (at line %d, column %d)", e.Message, e.Line, e.Column+1)
}

// faultf is an error at a node.
func faultf(n ast.Node, format string, args ...any) error {
	return &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...)}
}

// show is a node's source, shortened for an error.
func show(n ast.Node) string {
	s := n.String()
	if len(s) > filterErrorShown {
		s = strings.ToValidUTF8(s[:filterErrorShown], "") + "…"
	}
	return s
}

type filterCompiler struct {
	// patternInsts is what the regular expressions so far compile to.
	patternInsts int
	// wanted is what the conditions so far look at.
	wanted Wanted
}

func (c *filterCompiler) attribute(name string) {
	if !slices.Contains(c.wanted.Attributes, name) {
		c.wanted.Attributes = append(c.wanted.Attributes, name)
	}
}

func (c *filterCompiler) condition(n ast.Node) (condition, error) {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator != "not" && n.Operator != "!" {
			break
		}
		inner, err := c.condition(n.Node)
		return func(d *pb.Device) bool { return !inner(d) }, err
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			return c.logic(n)
		case "==", "!=", "<", "<=", ">", ">=":
			return c.comparison(n)
		case "in":
			return c.membership(n)
		case "contains", "startsWith", "endsWith":
			return c.part(n)
		case "matches":
			return c.pattern(n)
		}
	}
	o, err := c.operand(n)
	if err != nil {
		return nil, err
	}
	if o.kind != flag && o.kind != anyKind {
		return nil, faultf(n, "%s is %s, not a condition; compare it with something", show(n), o.kind)
	}
	return func(d *pb.Device) bool { return o.get(d) == flagValue(true) }, nil
}

func (c *filterCompiler) logic(n *ast.BinaryNode) (condition, error) {
	l, err := c.condition(n.Left)
	if err != nil {
		return nil, err
	}
	r, err := c.condition(n.Right)
	if err != nil {
		return nil, err
	}
	if n.Operator == "and" || n.Operator == "&&" {
		return func(d *pb.Device) bool { return l(d) && r(d) }, nil
	}
	return func(d *pb.Device) bool { return l(d) || r(d) }, nil
}
