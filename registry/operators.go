package registry

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func (c *filterCompiler) comparison(n *ast.BinaryNode) (condition, error) {
	l, r, err := c.pair(n)
	if err != nil {
		return nil, err
	}
	if err := checkPair(n, n.Operator, l, r); err != nil {
		return nil, err
	}
	var holds func(order int) bool
	switch n.Operator {
	case "==":
		holds = func(o int) bool { return o == 0 }
	case "!=":
		return func(d *pb.Device) bool {
			order, ok := compare(l.get(d), r.get(d))
			return !ok || order != 0
		}, nil
	case "<":
		holds = func(o int) bool { return o < 0 }
	case "<=":
		holds = func(o int) bool { return o <= 0 }
	case ">":
		holds = func(o int) bool { return o > 0 }
	case ">=":
		holds = func(o int) bool { return o >= 0 }
	}
	return func(d *pb.Device) bool {
		order, ok := compare(l.get(d), r.get(d))
		return ok && holds(order)
	}, nil
}

func (c *filterCompiler) pair(n *ast.BinaryNode) (l, r operand, err error) {
	if l, err = c.operand(n.Left); err != nil {
		return l, r, err
	}
	r, err = c.operand(n.Right)
	return l, r, err
}

// checkPair refuses what would be false of every device.
func checkPair(at ast.Node, operator string, l, r operand) error {
	if l.kind != r.kind && l.kind != anyKind && r.kind != anyKind {
		return faultf(at, "%s is %s and %s is %s: they cannot be compared", show(l.node), l.kind, show(r.node), r.kind)
	}
	for _, o := range []operand{l, r} {
		if (o.kind == moment || o.kind == version) && l.kind != r.kind {
			return faultf(at, "%s is %s, and an attribute holds a text, a number, or true or false: they cannot be compared", show(o.node), o.kind)
		}
		if o.kind == flag && operator != "==" && operator != "!=" {
			return faultf(at, "%s is %s, which has no order; use == or !=", show(o.node), o.kind)
		}
	}
	if err := checkWord(l, r); err != nil {
		return err
	}
	return checkWord(r, l)
}

// checkWord refuses a word that a field never holds.
func checkWord(field, word operand) error {
	if field.words == nil || word.constant == nil || slices.Contains(field.words, word.constant.text) {
		return nil
	}
	return faultf(word.node, "%s is not one of %s", show(word.node), strings.Join(field.words, ", "))
}

func platformNames() []string {
	var names []string
	for _, p := range schemas.Platforms {
		names = append(names, schemas.PlatformName(p))
	}
	return names
}

// membership is "in": a list of constants, the tags, or the names of the attributes.
func (c *filterCompiler) membership(n *ast.BinaryNode) (condition, error) {
	l, err := c.operand(n.Left)
	if err != nil {
		return nil, err
	}
	if list, ok := n.Right.(*ast.ArrayNode); ok {
		return c.oneOf(n, l, list)
	}
	name, ok := n.Right.(*ast.IdentifierNode)
	switch {
	case ok && name.Value == "tags" && (l.kind == text || l.kind == anyKind):
		c.wanted.Tags = true
		return func(d *pb.Device) bool {
			v := l.get(d)
			return v.kind == text && slices.Contains(d.Tags, v.text)
		}, nil
	case ok && name.Value == "attributes" && l.constant != nil && l.kind == text:
		key := l.constant.text
		c.attribute(key)
		return func(d *pb.Device) bool { return attribute(d, key).kind != missing }, nil
	}
	return nil, faultf(n, `"in" takes a list of constants, as in locale in ["fr", "de"]; tags, as in "beta" in tags; or attributes, as in "level" in attributes`)
}

func (c *filterCompiler) oneOf(n *ast.BinaryNode, l operand, list *ast.ArrayNode) (condition, error) {
	set := make(map[value]struct{}, len(list.Nodes))
	for _, e := range list.Nodes {
		o, err := c.operand(e)
		if err != nil {
			return nil, err
		}
		if o.constant == nil || o.kind == version {
			return nil, faultf(e, "%s: a list holds texts, numbers, times, true and false", show(e))
		}
		if err := checkPair(e, "==", l, o); err != nil {
			return nil, err
		}
		set[*o.constant] = struct{}{}
	}
	return func(d *pb.Device) bool {
		_, ok := set[l.get(d)]
		return ok
	}, nil
}

// part is contains, startsWith and endsWith.
func (c *filterCompiler) part(n *ast.BinaryNode) (condition, error) {
	l, r, err := c.pair(n)
	if err != nil {
		return nil, err
	}
	for _, o := range []operand{l, r} {
		if o.kind != text && o.kind != anyKind {
			return nil, faultf(o.node, "%s is %s; %s takes two texts", show(o.node), o.kind, n.Operator)
		}
	}
	holds := map[string]func(s, part string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	}[n.Operator]
	return func(d *pb.Device) bool {
		a, b := l.get(d), r.get(d)
		return a.kind == text && b.kind == text && holds(a.text, b.text)
	}, nil
}

// pattern is matches. Go's regular expressions take time in proportion to their program and the text (RE2).
func (c *filterCompiler) pattern(n *ast.BinaryNode) (condition, error) {
	l, err := c.operand(n.Left)
	if err != nil {
		return nil, err
	}
	if l.kind != text && l.kind != anyKind {
		return nil, faultf(n.Left, "%s is %s; matches takes a text", show(n.Left), l.kind)
	}
	source, ok := n.Right.(*ast.StringNode)
	if !ok {
		return nil, faultf(n.Right, "matches takes a regular expression between quotes")
	}
	re, insts, err := compilePattern(source.Value)
	if err != nil {
		return nil, faultf(n.Right, "not a regular expression: %v", err)
	}
	if c.patternInsts += insts; c.patternInsts > maxPatternInsts {
		return nil, faultf(n.Right, "the regular expressions are too large; shorten them, or their {n} counts")
	}
	return func(d *pb.Device) bool {
		v := l.get(d)
		return v.kind == text && re.MatchString(v.text)
	}, nil
}

// compilePattern also counts the instructions that the pattern becomes: what a match costs per byte, at most.
func compilePattern(pattern string) (re *regexp.Regexp, insts int, err error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	var fault *syntax.Error
	if errors.As(err, &fault) {
		return nil, 0, fmt.Errorf("%s: %q", fault.Code, fault.Expr)
	}
	if err != nil {
		return nil, 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, 0, err
	}
	re, err = regexp.Compile(pattern)
	return re, len(program.Inst), err
}
