package message

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
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

// platforms is how many values pb.Platform has.
const platforms = int(pb.Platform_PLATFORM_WEBPUSH) + 1

// Compiled is a message ready to be rendered. It is safe for concurrent use.
type Compiled struct {
	message *pb.Message
	// texts begins with the message's own; the locales' follow. What a locale leaves empty has been filled from the next
	// nearest.
	texts []Texts
	// locales are places in texts, by folded locale.
	locales map[string]int
	data    []datum
	// plainData says that no value of data holds a variable.
	plainData bool
	names     []string
	// derived has what each platform's encoder made of the message, by pb.Platform.
	derived [platforms]atomic.Value
}

// datum is one entry of data.
type datum struct {
	key  string
	text Template
}

// Compile parses the message's templates. The error is a Problems that names the field of each that does not parse or
// names a variable that its scope does not have.
func Compile(m *pb.Message, s Scope) (*Compiled, error) {
	c := &compiler{scope: s, names: make(map[string]bool)}
	out := &Compiled{
		message:   m,
		texts:     make([]Texts, 1, 1+len(m.GetLocalized())),
		locales:   make(map[string]int, len(m.GetLocalized())),
		plainData: true,
	}
	out.texts[0] = c.texts("", m.GetContent())
	// Shorter tags first: "fr" is complete when "fr-CA" is filled from it.
	tags := slices.SortedFunc(maps.Keys(m.GetLocalized()), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	for _, tag := range tags {
		t := c.texts("localized."+tag+".", m.Localized[tag])
		out.texts = append(out.texts, t.filledFrom(out.texts[out.Locale(tag)]))
		out.locales[foldLocale(tag)] = len(out.texts) - 1
	}
	for i := range out.texts {
		out.texts[i].settle()
	}
	for _, key := range slices.Sorted(maps.Keys(m.GetData())) {
		out.data = append(out.data, datum{key, c.text("data."+key, m.Data[key])})
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

func (c *compiler) texts(path string, m *pb.Content) Texts {
	return Texts{
		Title: c.text(path+"title", m.GetTitle()),
		Body:  c.text(path+"body", m.GetBody()),
		Image: c.text(path+"image", m.GetImage()),
		Link:  c.text(path+"link", m.GetLink()),
	}
}

func (c *compiler) text(field, text string) Template {
	t, err := parse(text)
	if err != nil {
		c.problems.add(field, "%s", err)
		return nil
	}
	for _, s := range t {
		if s.Name == "" || c.names[s.Name] {
			continue
		}
		if wrong := c.scope.check(s.Name); wrong != "" {
			c.problems.add(field, "%s", wrong)
			continue
		}
		c.names[s.Name] = true
	}
	return t
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

// Locale finds the texts for a device's locale: the nearest there are, fr-CA then fr then the message's own, which are at
// place 0. Places are below Locales.
func (c *Compiled) Locale(locale string) int {
	if len(c.locales) == 0 || locale == "" {
		return 0
	}
	var stack [64]byte
	folded := appendFolded(stack[:0], locale)
	for len(folded) > 0 {
		if place, ok := c.locales[string(folded)]; ok {
			return place
		}
		folded = folded[:max(0, strings.LastIndexByte(string(folded), '-'))]
	}
	return 0
}

// Locales is how many texts there are, the message's own among them.
func (c *Compiled) Locales() int { return len(c.texts) }

// Texts are those at a place that Locale found. They must not be changed.
func (c *Compiled) Texts(place int) *Texts { return &c.texts[place] }

// Content renders the texts for a locale. It allocates those that hold more than a literal or one variable. An image that
// renders to anything but an https URL is left out.
func (c *Compiled) Content(locale string, vars map[string]string) Content {
	t := c.Texts(c.Locale(locale))
	out := Content{
		Title: t.Title.render(vars),
		Body:  t.Body.render(vars),
		Image: t.Image.render(vars),
		Link:  t.Link.render(vars),
	}
	if !strings.HasPrefix(out.Image, imagePrefix) {
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
	for _, d := range c.data {
		out[d.key] = d.text.render(vars)
	}
	return out
}

// DataTexts are the values of data before they are rendered, in the order of their keys.
func (c *Compiled) DataTexts() iter.Seq2[string, Template] {
	return func(yield func(string, Template) bool) {
		for _, d := range c.data {
			if !yield(d.key, d.text) {
				return
			}
		}
	}
}

// Derived is what a platform's encoder makes of a message once, so that it is not made for every delivery: make is called
// when there is none yet, perhaps by several goroutines at once, of which one's is kept. T is always the same for a
// platform. It lives as long as c.
func Derived[T any](c *Compiled, p pb.Platform, make func(*Compiled) *T) *T {
	if d, ok := c.derived[p].Load().(*T); ok {
		return d
	}
	c.derived[p].CompareAndSwap(nil, make(c))
	return c.derived[p].Load().(*T)
}
