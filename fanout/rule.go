package fanout

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Rule answers an event with an urgent message to the devices of the event's user, once for an event id.
type Rule struct {
	App string
	// Name is unique within the app: it names the account that the deliveries are counted under.
	Name string
	// Event is the name of the events meant.
	Event string
	// When is a condition on the event, in the expr language: name, user, at and fields.KEY. Empty means always.
	When    string
	Message *pb.Message
	// Platforms are all when empty.
	Platforms []pb.Platform
}

// ruleKey finds the rules that an event may fire.
type ruleKey struct{ app, event string }

// rule is a Rule, compiled.
type rule struct {
	Rule
	when      *vm.Program // nil: always
	compiled  *message.Compiled
	platforms []pb.Platform
	failed    sync.Once // it was said that the condition cannot be told
}

// condition is what a rule's When speaks of.
type condition struct {
	Name   string         `expr:"name"`
	User   string         `expr:"user"`
	At     time.Time      `expr:"at"`
	Fields map[string]any `expr:"fields"`
}

// compileRules returns all rules by what they listen to, or every fault of them.
func compileRules(rules []Rule) (map[ruleKey][]*rule, error) {
	byKey := map[ruleKey][]*rule{}
	names := map[string]bool{}
	var faults []error
	for _, r := range rules {
		compiled, err := r.compile()
		if err == nil && names[r.App+"/"+r.Name] {
			err = errors.New("there are two rules of this name: rename one")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("app %s, rule %q: %w", r.App, r.Name, err))
			continue
		}
		names[r.App+"/"+r.Name] = true
		key := ruleKey{r.App, r.Event}
		byKey[key] = append(byKey[key], compiled)
	}
	return byKey, errors.Join(faults...)
}

func (r Rule) compile() (*rule, error) {
	out := &rule{Rule: r, platforms: r.Platforms}
	if len(r.Platforms) == 0 {
		out.platforms = schemas.Platforms
	}
	if r.Name == "" || r.Event == "" {
		return nil, errors.New("name and event must be set")
	}
	var err error
	if out.compiled, err = message.Compile(r.Message, message.Rule); err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	if r.When == "" {
		return out, nil
	}
	if out.when, err = expr.Compile(r.When, expr.Env(condition{}), expr.AsBool()); err != nil {
		return nil, fmt.Errorf("when: %w", err)
	}
	return out, nil
}

// matches says whether an event of the rule's name meets its condition. A condition that cannot be told, because it
// compares a field with a number, say, that is missing or a text, is not met.
func (r *rule) matches(e *pb.Event, log *slog.Logger) bool {
	if r.when == nil {
		return true
	}
	fields := make(map[string]any, len(e.Fields))
	for name, v := range e.Fields {
		switch k := v.Kind.(type) {
		case *pb.Value_Text:
			fields[name] = k.Text
		case *pb.Value_Number:
			fields[name] = k.Number
		case *pb.Value_Flag:
			fields[name] = k.Flag
		}
	}
	met, err := expr.Run(r.when, condition{Name: e.Name, User: e.User, At: time.UnixMilli(e.At).UTC(), Fields: fields})
	if err != nil {
		r.failed.Do(func() {
			log.Warn("a rule's condition could not be told of an event, so it did not fire; this is said once. "+
				`A field that may be missing is written (fields.amount ?? 0) > 10`, "app", r.App, "rule", r.Name, "err", err)
		})
		return false
	}
	return met.(bool)
}
