package message

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func compile(t testing.TB, m *pb.Message, s Scope) *Compiled {
	t.Helper()
	c, err := Compile(m, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRender(t *testing.T) {
	vars := map[string]string{"attributes.first_name": "Ana", "user": "{{ locale }}"}
	for text, want := range map[string]string{
		`plain`:                                        `plain`,
		`Hello {{ attributes.first_name }}!`:           `Hello Ana!`,
		`{{attributes.first_name}}`:                    `Ana`,
		`Hello {{ attributes.last_name | "there" }}!`:  `Hello there!`,
		`Hello {{ attributes.last_name | 'there' }}!`:  `Hello there!`,
		`Hello {{ attributes.first_name | "there" }}!`: `Hello Ana!`,
		`Hello {{ attributes.last_name }}!`:            `Hello !`,
		`{{ attributes.x | "a \"b\" \\ 'c' }}" }}`:     `a "b" \ 'c' }}`,
		`{{ "{{" }} name }}`:                           `{{ name }}`,
		`{{ '{{' }}`:                                   `{{`,
		`a } b }} { c`:                                 `a } b }} { c`,
		`{{ user }}`:                                   `{{ locale }}`, // a value is no template
		`{{ attributes.prénom-2 | "ü" }}`:              `ü`,
	} {
		c := compile(t, &pb.Message{Content: &pb.Content{Title: text}}, Campaign)
		if got := c.Content("", vars).Title; got != want {
			t.Errorf("%s rendered as %q, want %q", text, got, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := []struct {
		scope      Scope
		text, want string
	}{
		{Campaign, `{{ attribute.first_name }}`, `unknown variable "attribute.first_name"; did you mean "attributes.first_name"? Known here: device.id, device.platform, user, locale, app_version, attributes.KEY`},
		{Campaign, `{{ data.code }}`, `unknown variable "data.code". Known here`},
		{Campaign, `{{ attributes }}`, `did you mean "attributes.KEY"?`},
		{Campaign, `{{ device.plattform }}`, `did you mean "device.platform"?`},
		{Transactional, `{{ event.total }}`, `attributes.KEY, data.KEY`},
		{Rule, `{{ data.code }}`, `event.name, event.KEY`},
		{Campaign, `Hi {{ user`, `{{ user: expected "}}"`},
		{Campaign, `Hi {{ }}`, `expected a variable's name`},
		{Campaign, `{{ user | there }}`, `expected a default in quotes`},
		{Campaign, `{{ user | "there }}`, `does not end`},
		{Campaign, `{{ user "there" }}`, `expected "}}"`},
		{Campaign, `{{ "a" | "b" }}`, `expected "}}"`},
		{Campaign, `{{ if user }}x{{ end }}`, `expected "}}"`},
	}
	for _, test := range tests {
		_, err := Compile(&pb.Message{Content: &pb.Content{Body: test.text}}, test.scope)
		if err == nil || !strings.HasPrefix(err.Error(), "body: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want body: … %s", test.text, err, test.want)
		}
	}
}

func TestCompileNamesEveryFieldAtFault(t *testing.T) {
	_, err := Compile(&pb.Message{
		Content:   &pb.Content{Title: "{{ nope }}", Body: "{{ user }}", Image: "https://x/{{", Link: "{{ nope }}"},
		Localized: map[string]*pb.Content{"fr": {Body: "{{ nope }}"}},
		Data:      map[string]string{"k": "{{ nope }}"},
	}, Campaign)
	want := []string{"title", "image", "link", "localized.fr.body", "data.k"}
	if diff := cmp.Diff(want, fieldsOf(nil, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestScopes(t *testing.T) {
	for scope, text := range map[Scope]string{
		Campaign:      "{{ device.id }}{{ device.platform }}{{ user }}{{ locale }}{{ app_version }}{{ attributes.a.b }}",
		Transactional: "{{ data.code }}{{ user }}",
		Rule:          "{{ event.name }}{{ event.total }}{{ user }}",
	} {
		compile(t, &pb.Message{Content: &pb.Content{Title: text}}, scope)
	}
}

func TestLocaleFallsBack(t *testing.T) {
	c := compile(t, &pb.Message{
		Content: &pb.Content{Title: "Hello", Body: "body", Image: "https://x/en.png", Link: "app://x"},
		Localized: map[string]*pb.Content{
			"fr":      {Title: "Bonjour", Image: "https://x/fr.png"},
			"fr-CA":   {Title: "Allô"},
			"zh-Hant": {Title: "你好"},
		},
	}, Campaign)
	fr := Content{Title: "Bonjour", Body: "body", Image: "https://x/fr.png", Link: "app://x"}
	own := Content{Title: "Hello", Body: "body", Image: "https://x/en.png", Link: "app://x"}
	for locale, want := range map[string]Content{
		"":           own,
		"de":         own,
		"frr":        own,
		"fr":         fr,
		"fr-FR":      fr,
		"fr-CA":      {Title: "Allô", Body: "body", Image: "https://x/fr.png", Link: "app://x"},
		"FR_ca":      {Title: "Allô", Body: "body", Image: "https://x/fr.png", Link: "app://x"},
		"zh-Hant-TW": {Title: "你好", Body: "body", Image: "https://x/en.png", Link: "app://x"},
		"zh":         own,
	} {
		if diff := cmp.Diff(want, c.Content(locale, nil)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", locale, diff)
		}
	}
}

func TestImageThatIsNoHTTPSIsLeftOut(t *testing.T) {
	c := compile(t, &pb.Message{Content: &pb.Content{Title: "t", Image: "{{ attributes.photo }}"}}, Campaign)
	for value, want := range map[string]string{"https://x/p.png": "https://x/p.png", "http://x/p.png": "", "": ""} {
		if got := c.Content("", map[string]string{"attributes.photo": value}).Image; got != want {
			t.Errorf("%q became %q, want %q", value, got, want)
		}
	}
}

func TestDataIsRendered(t *testing.T) {
	c := compile(t, &pb.Message{Data: map[string]string{"a": "plain", "b": "{{ user | 'nobody' }}", "c": `{{ "{{" }}`}}, Campaign)
	want := map[string]string{"a": "plain", "b": "nobody", "c": "{{"}
	if diff := cmp.Diff(want, c.Data(nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c = compile(t, &pb.Message{Data: map[string]string{"c": `{{ "{{" }}`}}, Campaign)
	if got := c.Data(nil)["c"]; got != "{{" {
		t.Errorf("an escape alone rendered as %q", got)
	}
}

func TestVariablesAndNames(t *testing.T) {
	c := compile(t, &pb.Message{
		Content:   &pb.Content{Title: "{{ user }} {{ attributes.points }} {{ user }}", Body: "{{ device.platform }} {{ attributes.gone }}"},
		Localized: map[string]*pb.Content{"fr": {Title: "{{ attributes.vip }}"}},
		Data:      map[string]string{"k": "{{ data.code }} {{ attributes.score }}"},
	}, Transactional)
	names := []string{"attributes.gone", "attributes.points", "attributes.score", "attributes.vip", "data.code", "device.platform", "user"}
	if diff := cmp.Diff(names, c.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	d := &pb.Device{
		Id: "d1", User: "u1", Platform: pb.Platform_PLATFORM_WEBPUSH,
		Attributes: map[string]*pb.Value{
			"points": {Kind: &pb.Value_Number{Number: 12345678901}},
			"score":  {Kind: &pb.Value_Number{Number: 2.5}},
			"vip":    {Kind: &pb.Value_Flag{Flag: true}},
			"unused": {Kind: &pb.Value_Text{Text: "x"}},
		},
	}
	want := map[string]string{
		"attributes.points": "12345678901", "attributes.score": "2.5", "attributes.vip": "true",
		"data.code": "1234", "device.platform": "webpush", "user": "u1",
	}
	// What the device has itself wins.
	extra := map[string]string{"data.code": "1234", "user": "somebody else", "data.unused": "y"}
	if diff := cmp.Diff(want, Variables(c.Names(), d, extra)); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	if got := Variables(nil, d, extra); got != nil {
		t.Errorf("no names gave %v", got)
	}
}

func TestTTL(t *testing.T) {
	if got := compile(t, &pb.Message{TtlSeconds: 90}, Campaign).TTL(); got != 90*time.Second {
		t.Error(got)
	}
	if got := compile(t, &pb.Message{}, Campaign).TTL(); got != 24*time.Hour {
		t.Error(got)
	}
}

// FuzzParse: no text panics the parser, and any text written as a quoted string renders as itself.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "a {{ user }} b", `{{ x | "d" }}`, `{{ "{{" }}`, "{{", "{{ é | '\\", `{{"\`, "}}{{ a.b-c:d }}"} {
		f.Add(seed)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, text string) {
		if parsed, err := parse(text); err == nil {
			for _, s := range parsed {
				if s.Name == "" && s.Literal == "" {
					t.Errorf("%q has an empty segment", text)
				}
			}
			if !strings.Contains(text, "{{") && parsed.render(nil) != text {
				t.Errorf("%q rendered as %q", text, parsed.render(nil))
			}
		}
		quoted := `<{{ "` + quote.Replace(text) + `" }}>`
		parsed, err := parse(quoted)
		if err != nil {
			t.Fatalf("%q: %v", quoted, err)
		}
		if got := parsed.render(nil); got != "<"+text+">" {
			t.Errorf("%q rendered as %q", quoted, got)
		}
	})
}

func benchmarkMessage(b *testing.B) (*Compiled, map[string]string) {
	c := compile(b, &pb.Message{
		Content:   &pb.Content{Title: "Hello {{ attributes.first_name | 'there' }}", Body: "You have {{ attributes.points }} points", Link: "app://offers"},
		Localized: map[string]*pb.Content{"fr": {Title: "Bonjour {{ attributes.first_name }}"}},
	}, Campaign)
	return c, map[string]string{"attributes.first_name": "Ana", "attributes.points": "120"}
}

func BenchmarkContent(b *testing.B) {
	c, vars := benchmarkMessage(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Content("fr-CA", vars)
	}
}

func BenchmarkContentPlain(b *testing.B) {
	c := compile(b, &pb.Message{Content: &pb.Content{Title: "Hello", Body: "there"}}, Campaign)
	b.ReportAllocs()
	for b.Loop() {
		c.Content("fr-CA", nil)
	}
}

// BenchmarkCompile is what a transactional message costs a lane, for it carries its own.
func BenchmarkCompile(b *testing.B) {
	c, _ := benchmarkMessage(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(c.Message(), Campaign); err != nil {
			b.Fatal(err)
		}
	}
}
