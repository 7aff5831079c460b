package message

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/belfry/belfry/message/nearest"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// DefaultTTL is how long a message is worth delivering when it does not say.
const DefaultTTL = 24 * time.Hour

// Scope says which variables a message may name besides the device's own.
type Scope uint8

const (
	// Campaign messages name the device's variables only.
	Campaign Scope = iota
	// Transactional messages also name data.KEY: what the call hands over.
	Transactional
	// Rule messages also name event.name and event.KEY: the event that triggered them.
	Rule
)

// deviceNames are the variables of every scope; attributes. and the like stand for any name with that beginning.
var deviceNames = []string{"device.id", "device.platform", "user", "locale", "app_version", "attributes."}

func (s Scope) names() []string {
	names := slices.Clone(deviceNames)
	switch s {
	case Transactional:
		names = append(names, "data.")
	case Rule:
		names = append(names, "event.name", "event.")
	}
	return names
}

// check says what is wrong with a variable's name, or "".
func (s Scope) check(name string) string {
	known := s.names()
	candidates := make([]string, 0, len(known))
	for _, k := range known {
		family := strings.HasSuffix(k, ".")
		if name == k && !family || family && strings.HasPrefix(name, k) && len(name) > len(k) {
			return ""
		}
		if family {
			// A slip in the first part is a near miss whatever follows it.
			_, key, _ := strings.Cut(name, ".")
			k += key
		}
		candidates = append(candidates, k)
	}
	hint := ""
	if near := nearest.Word(name, candidates); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", keyed(near))
	}
	for i, k := range known {
		known[i] = keyed(k)
	}
	return fmt.Sprintf("unknown variable %q%s Known here: %s", name, cmp.Or(hint, "."), strings.Join(known, ", "))
}

// keyed shows what a family of variables looks like.
func keyed(name string) string {
	if strings.HasSuffix(name, ".") {
		return name + "KEY"
	}
	return name
}

// Compiled is a message ready to be rendered. It is safe for concurrent use.
type Compiled struct {
	message *pb.Message
	content content
	// localized is by folded locale. What a locale leaves empty has been filled from the next nearest.
	localized map[string]content
	data      map[string]template
	// plainData says that no value of data holds a variable.
	plainData bool
	names     []string
}

// content is a pb.Content whose texts are parsed.
type content struct{ title, body, image, link template }

// Compile parses the message's templates. The error is a Problems that names the field of each that does not parse or
// names a variable that its scope does not have.
func Compile(m *pb.Message, s Scope) (*Compiled, error) {
	c := &compiler{scope: s, names: make(map[string]bool)}
	out := &Compiled{
		message:   m,
		content:   c.content("", m.GetContent()),
		localized: make(map[string]content, len(m.GetLocalized())),
		data:      make(map[string]template, len(m.GetData())),
		plainData: true,
	}
	// Shorter tags first: "fr" is complete when "fr-CA" is filled from it.
	tags := slices.SortedFunc(maps.Keys(m.GetLocalized()), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	for _, tag := range tags {
		l := c.content("localized."+tag+".", m.Localized[tag])
		out.localized[foldLocale(tag)] = l.filledFrom(out.nearest(tag))
	}
	for _, key := range slices.Sorted(maps.Keys(m.GetData())) {
		out.data[key] = c.text("data."+key, m.Data[key])
		out.plainData = out.plainData && !strings.Contains(m.Data[key], "{{")
	}
	out.names = slices.Sorted(maps.Keys(c.names))
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return out, nil
}

// compiler gathers what all fields have in common.
type compiler struct {
	scope    Scope
	names    map[string]bool
	problems Problems
}

func (c *compiler) content(path string, m *pb.Content) content {
	return content{
		title: c.text(path+"title", m.GetTitle()),
		body:  c.text(path+"body", m.GetBody()),
		image: c.text(path+"image", m.GetImage()),
		link:  c.text(path+"link", m.GetLink()),
	}
}

func (c *compiler) text(field, text string) template {
	t, err := parse(text)
	if err != nil {
		c.problems.add(field, "%s", err)
		return nil
	}
	for _, s := range t {
		if s.name == "" || c.names[s.name] {
			continue
		}
		if wrong := c.scope.check(s.name); wrong != "" {
			c.problems.add(field, "%s", wrong)
			continue
		}
		c.names[s.name] = true
	}
	return t
}

func (c content) filledFrom(next content) content {
	fill := func(own, other template) template {
		if own == nil {
			return other
		}
		return own
	}
	return content{
		title: fill(c.title, next.title),
		body:  fill(c.body, next.body),
		image: fill(c.image, next.image),
		link:  fill(c.link, next.link),
	}
}

// Names are the variables that the message's templates name, sorted: what belongs into a delivery.
func (c *Compiled) Names() []string { return c.names }

// Message is the message as it was written. It must not be changed.
func (c *Compiled) Message() *pb.Message { return c.message }

// TTL is how long the message is worth delivering.
func (c *Compiled) TTL() time.Duration {
	if s := c.message.GetTtlSeconds(); s > 0 {
		return time.Duration(s) * time.Second
	}
	return DefaultTTL
}

// Content renders the text for a locale: the nearest there is, fr-CA then fr then the message's own. It allocates the
// texts that hold more than a literal or one variable. An image that renders to anything but an https URL is left out.
func (c *Compiled) Content(locale string, vars map[string]string) Content {
	n := c.nearest(locale)
	out := Content{
		Title: n.title.render(vars),
		Body:  n.body.render(vars),
		Image: n.image.render(vars),
		Link:  n.link.render(vars),
	}
	if !strings.HasPrefix(out.Image, "https://") {
		out.Image = ""
	}
	return out
}

// Data renders the values of data. The map must not be changed: where there is nothing to render it is the message's own.
func (c *Compiled) Data(vars map[string]string) map[string]string {
	if c.plainData {
		return c.message.GetData()
	}
	out := make(map[string]string, len(c.data))
	for key, t := range c.data {
		out[key] = t.render(vars)
	}
	return out
}
