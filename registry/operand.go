package registry

import (
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// operand is a part of an expression that has a value for a device.
type operand struct {
	node ast.Node
	kind kind
	get  func(*pb.Device) value
	// constant is set where the value is the same for all devices.
	constant *value
	// words are all that a field can hold, where that is known.
	words []string
}

func constantOperand(v value) operand {
	return operand{kind: v.kind, get: func(*pb.Device) value { return v }, constant: &v}
}

func textField(get func(*pb.Device) string) operand {
	return operand{kind: text, get: func(d *pb.Device) value { return textValue(get(d)) }}
}

// fields are the names of an expression that stand for one value.
var fields = map[string]operand{
	"platform": {
		kind:  text,
		get:   func(d *pb.Device) value { return textValue(schemas.PlatformName(d.Platform)) },
		words: platformNames(),
	},
	"user":          textField((*pb.Device).GetUser),
	"locale":        textField((*pb.Device).GetLocale),
	"language":      textField(func(d *pb.Device) string { return language(d.GetLocale()) }),
	"app_version":   textField((*pb.Device).GetAppVersion),
	"time_zone":     textField((*pb.Device).GetTimeZone),
	"registered_at": {kind: moment, get: func(d *pb.Device) value { return momentValue(d.RegisteredAt) }},
}

const fieldNames = "platform, user, locale, language, app_version, time_zone, registered_at, tags and attributes.NAME"

func (c *filterCompiler) operand(n ast.Node) (operand, error) {
	o, err := c.value(n)
	o.node = n
	return o, err
}

func (c *filterCompiler) value(n ast.Node) (operand, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return constantOperand(textValue(n.Value)), nil
	case *ast.IntegerNode:
		return constantOperand(numberValue(float64(n.Value))), nil
	case *ast.FloatNode:
		return constantOperand(numberValue(n.Value)), nil
	case *ast.BoolNode:
		return constantOperand(flagValue(n.Value)), nil
	case *ast.UnaryNode:
		if o, err := c.operand(n.Node); err == nil && n.Operator == "-" && o.constant != nil && o.kind == number {
			return constantOperand(numberValue(-o.constant.number)), nil
		}
	case *ast.IdentifierNode:
		return field(n)
	case *ast.MemberNode:
		return c.member(n)
	case *ast.CallNode:
		return c.call(n)
	case *ast.BuiltinNode:
		return operand{}, unknownFunction(n, n.Name)
	}
	return operand{}, faultf(n, "%s cannot stand here; an expression compares fields (%s) with constants", show(n), fieldNames)
}

func field(n *ast.IdentifierNode) (operand, error) {
	if o, ok := fields[n.Value]; ok {
		return o, nil
	}
	switch n.Value {
	case "tags":
		return operand{}, faultf(n, `tags is a list; ask for one with "beta" in tags`)
	case "attributes":
		return operand{}, faultf(n, `attributes are many; name one with attributes.NAME, or ask for one with "NAME" in attributes`)
	}
	return operand{}, faultf(n, "%s is unknown; known are %s", show(n), fieldNames)
}

func (c *filterCompiler) member(n *ast.MemberNode) (operand, error) {
	base, ok := n.Node.(*ast.IdentifierNode)
	key, constant := n.Property.(*ast.StringNode)
	if !ok || base.Value != "attributes" || !constant {
		return operand{}, faultf(n, `%s cannot stand here; only attributes have parts, as attributes.level or attributes["level"]`, show(n))
	}
	name := key.Value
	c.attribute(name)
	return operand{kind: anyKind, get: func(d *pb.Device) value { return attribute(d, name) }}, nil
}

// call compiles the two functions there are: version(TEXT) and date("2026-10-01").
func (c *filterCompiler) call(n *ast.CallNode) (operand, error) {
	name, ok := n.Callee.(*ast.IdentifierNode)
	if !ok || (name.Value != "version" && name.Value != "date") {
		return operand{}, unknownFunction(n, show(n.Callee))
	}
	if len(n.Arguments) != 1 {
		return operand{}, faultf(n, "%s takes one argument, not %d", name.Value, len(n.Arguments))
	}
	arg, err := c.operand(n.Arguments[0])
	if err != nil {
		return operand{}, err
	}
	if name.Value == "date" {
		return date(n, arg)
	}
	if arg.kind != text && arg.kind != anyKind {
		return operand{}, faultf(n, "%s is %s; version takes a text", show(n.Arguments[0]), arg.kind)
	}
	if arg.constant != nil {
		if !isVersion(arg.constant.text) {
			return operand{}, faultf(n.Arguments[0], "%s is not a version; write numbers and dots, as in 3.2 or 3.2.1-beta.1", show(n.Arguments[0]))
		}
		return constantOperand(value{kind: version, text: arg.constant.text}), nil
	}
	return operand{kind: version, get: func(d *pb.Device) value {
		v := arg.get(d)
		if v.kind != text {
			return value{}
		}
		return value{kind: version, text: v.text}
	}}, nil
}

func unknownFunction(n ast.Node, name string) error {
	return faultf(n, "%s is not a function; there are version and date", name)
}

func date(n *ast.CallNode, arg operand) (operand, error) {
	if arg.constant != nil && arg.kind == text {
		for _, layout := range []string{time.DateOnly, time.RFC3339} {
			if t, err := time.Parse(layout, strings.TrimSpace(arg.constant.text)); err == nil {
				return constantOperand(momentValue(t.UnixMilli())), nil
			}
		}
	}
	return operand{}, faultf(n.Arguments[0], `%s is not a date; write date("2026-10-01") for midnight UTC, or date("2026-10-01T09:00:00+02:00")`, show(n.Arguments[0]))
}
