package registry_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func compile(t testing.TB, source string) *registry.Filter {
	t.Helper()
	f, err := registry.CompileFilter(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return f
}

func matches(t testing.TB, source string, d *pb.Device) bool {
	t.Helper()
	return match(t, compile(t, source), d)
}

// match asks the filter twice: of the device, and of a row that has only what the filter says that it looks at.
func match(t testing.TB, f *registry.Filter, d *pb.Device) bool {
	t.Helper()
	ok, err := f.Match(d)
	if err != nil {
		t.Fatal(err)
	}
	record, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	row, err := registry.DecodeRow(f.Wanted(), record)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.Match(&row.Device); err != nil || again != ok {
		t.Errorf("the device: %v; what is decoded of it: %v, %v", ok, again, err)
	}
	return ok
}

func textAttribute(s string) *pb.Value { return &pb.Value{Kind: &pb.Value_Text{Text: s}} }

func TestFilter(t *testing.T) {
	d := &pb.Device{
		App: "shop", Id: "d", User: "user-12", Platform: apns, Locale: "fr-CA", AppVersion: "3.10.0", TimeZone: "Europe/Paris",
		Tags: []string{"beta", "news"},
		Attributes: map[string]*pb.Value{
			"level":     {Kind: &pb.Value_Number{Number: 12}},
			"debt":      {Kind: &pb.Value_Number{Number: -0.5}},
			"plan":      textAttribute("pro"),
			"favourite": textAttribute("news"),
			"os":        textAttribute("17.4.1"),
			"digits":    textAttribute("12"),
			"vip":       {Kind: &pb.Value_Flag{Flag: true}},
			"muted":     {Kind: &pb.Value_Flag{}},
			"in":        textAttribute("a keyword"),
			"empty":     {},
		},
		RegisteredAt: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).UnixMilli(),
	}
	for source, want := range map[string]bool{
		`true`:                               true,
		`not true`:                           false,
		`platform == "apns"`:                 true,
		`platform == "fcm"`:                  false,
		`"fcm" != platform`:                  true,
		`platform in ["fcm", "webpush"]`:     false,
		`platform not in ["fcm", "webpush"]`: true,
		`user == "user-12" && locale == "fr-CA" && time_zone == "Europe/Paris"`: true,
		`language == "fr"`: true,
		`language < "g"`:   true,
		`platform == "fcm" or platform == "apns" and language == "de"`:   false,
		`(platform == "fcm" or platform == "apns") and language == "fr"`: true,

		`attributes.level > 10`:              true,
		`attributes.level >= 12.5`:           false,
		`10 < attributes.level`:              true,
		`attributes.level == 12`:             true,
		`attributes.level in [1, 12]`:        true,
		`attributes["level"] != 12`:          false,
		`attributes.debt < -0.25`:            true,
		`attributes.debt in [-0.5]`:          true,
		`attributes.plan == "pro"`:           true,
		`attributes.plan == attributes.plan`: true,
		`attributes.in == "a keyword"`:       true,
		`attributes.vip`:                     true,
		`!attributes.vip`:                    false,
		`attributes.muted`:                   false,
		`attributes.muted == false`:          true,
		`attributes.vip and attributes.vip`:  true,
		`attributes.vip in [true]`:           true,

		// What is missing, or of another kind, equals nothing.
		`attributes.none > 10`:                     false,
		`attributes.none <= 10`:                    false,
		`not (attributes.none > 10)`:               true,
		`attributes.none == ""`:                    false,
		`attributes.none != ""`:                    true,
		`attributes.none == attributes.none`:       false,
		`attributes.none in [1, 2]`:                false,
		`attributes.none`:                          false,
		`not attributes.none`:                      true,
		`attributes.none contains ""`:              false,
		`attributes.none matches ""`:               false,
		`attributes.digits > 10`:                   false,
		`attributes.digits == 12`:                  false,
		`attributes.level == "12"`:                 false,
		`attributes.plan`:                          false,
		`attributes.level matches "1"`:             false,
		`attributes.empty == ""`:                   false,
		`"empty" in attributes`:                    false,
		`"level" in attributes`:                    true,
		`"none" in attributes`:                     false,
		`"none" not in attributes`:                 true,
		`version(attributes.none) < version("1")`:  false,
		`version(attributes.none) != version("1")`: true,

		`"beta" in tags`:               true,
		`"alpha" in tags`:              false,
		`not ("alpha" in tags)`:        true,
		`attributes.favourite in tags`: true,
		`attributes.level in tags`:     false,
		`language in tags`:             false,

		`locale startsWith "fr-"`:    true,
		`locale endsWith "-CA"`:      true,
		`time_zone contains "/"`:     true,
		`user matches "^user-[0-9]"`: true,
		"user matches `\\d{3}`":      false,

		`version(app_version) > version("3.9")`:                                 true,
		`version(app_version) == version("v3.10")`:                              true,
		`version(app_version) < version("3.10.0-beta")`:                         false,
		`version("1.0") < version(app_version)`:                                 true,
		`version(attributes.os) >= version("17.4") and attributes.os != "17.4"`: true,
		`version(locale) != version("1")`:                                       true,

		`registered_at >= date("2026-10-01")`:                true,
		`registered_at > date("2026-10-01")`:                 false,
		`registered_at < date("2026-10-01T00:00:00-01:00")`:  true,
		`registered_at in [date("2026-10-01")]`:              true,
		"// everyone\nplatform == \"apns\" /* on Apple's */": true,
	} {
		if got := matches(t, source, d); got != want {
			t.Errorf("%s: %v", source, got)
		}
	}
	if matches(t, `platform == "apns" or user != "" or "x" in tags or attributes.x == 1`, &pb.Device{}) {
		t.Error("an empty device matched")
	}
}

func TestFilterErrors(t *testing.T) {
	for source, want := range map[string]string{
		``:                                    "empty",
		" \n":                                 "empty",
		`platform ==`:                         "unexpected token EOF (at column 11)",
		`platform = "apns"`:                   "(at column 10)",
		"true and\nplatfrom == \"apns\"":      "platfrom is unknown; known are platform, user, locale, language, app_version, time_zone, registered_at, tags and attributes.NAME (at line 2, column 1)",
		`platform`:                            "platform is a text, not a condition; compare it with something (at column 1)",
		`42`:                                  "42 is a number, not a condition",
		`user == 42`:                          "user is a text and 42 is a number: they cannot be compared",
		`app_version > 3.2`:                   "app_version is a text and 3.2 is a number",
		`version(app_version) > "3.2"`:        "is a version and",
		`version(app_version) > attributes.v`: "an attribute holds",
		`version("new") > version("3")`:       `"new" is not a version`,
		`version(3.2) > version("3")`:         "3.2 is a number; version takes a text",
		`version() == version("1")`:           "version takes one argument, not 0",
		`registered_at > "2026-10-01"`:        "they cannot be compared",
		`registered_at > date("yesterday")`:   `"yesterday" is not a date`,
		`registered_at > date(user)`:          "user is not a date",
		`registered_at > attributes.since`:    "an attribute holds",
		`platform == "ios"`:                   `"ios" is not one of apns, fcm, webpush (at column 13)`,
		`"android" == platform`:               `"android" is not one of`,
		`platform in ["apns", "web"]`:         `"web" is not one of apns, fcm, webpush (at column 22)`,
		`tags == "beta"`:                      `ask for one with "beta" in tags`,
		`tags contains "beta"`:                `ask for one with "beta" in tags`,
		`attributes == 1`:                     "attributes.NAME",
		`attributes.a.b == 1`:                 "only attributes have parts",
		`attributes[user] == 1`:               "only attributes have parts",
		`user.name == "x"`:                    "only attributes have parts",
		`user in attributes`:                  `"in" takes`,
		`user in "beta"`:                      `"in" takes`,
		`5 in tags`:                           `"in" takes`,
		`user in [1]`:                         "they cannot be compared",
		`user in [locale]`:                    "a list holds",
		`attributes.vip > true`:               "has no order",
		`attributes.level contains 5`:         "contains takes two texts",
		`user matches locale`:                 "between quotes",
		`user matches "("`:                    "not a regular expression",
		`user matches "(a{100}){100}"`:        "not a regular expression",
		`user matches "a{1000}" or user matches "b{1000}" or user matches "c{1000}"`: "too large",
		`attributes.level + 1 > 2`:                         "cannot stand here",
		`1..1000000 == user`:                               "cannot stand here",
		`len(user) > 3`:                                    "len is not a function; there are version and date",
		`repeat("a", 1000000000) == user`:                  "repeat is not a function; there are version and date",
		`all(tags, true)`:                                  "all is not a function; there are version and date",
		`now() > registered_at`:                            "now is not a function; there are version and date",
		`let x = 1; x == 1`:                                "cannot stand here",
		`user == nil`:                                      "cannot stand here",
		`(user ?? "x") == "y"`:                             "cannot stand here",
		`user == "a" ? true : false`:                       "cannot stand here",
		`$env == 1`:                                        "",
		`-user == 1`:                                       "cannot stand here",
		strings.Repeat("(", 4000) + "true":                 "",
		`user == "` + strings.Repeat("x", 5000) + `"`:      "at most 4096",
		"true" + strings.Repeat(" or true", 500):           "",
		`true or ` + strings.Repeat("not ", 1000) + `true`: "",
		`user in [` + strings.Repeat(`1,`, 1000) + `1]`:    "",
	} {
		_, err := registry.CompileFilter(source)
		if err == nil {
			t.Errorf("%s was taken", source)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q", source, err, want)
		}
	}
}

// The expressions in the manual compile, and those in its tables are the names there are.
func TestManualCompiles(t *testing.T) {
	manual, err := os.ReadFile("../docs/audience.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, block := range strings.Split(string(manual), "```expr\n") {
		if i == 0 {
			continue
		}
		block, _, _ = strings.Cut(block, "```")
		for source := range strings.Lines(block) {
			compile(t, source)
			n++
		}
	}
	if n < 30 {
		t.Errorf("only %d expressions found in the manual", n)
	}
	for _, row := range strings.Split(string(manual), "\n| `")[1:] {
		name, _, _ := strings.Cut(row, "`")
		if strings.Contains(name, "tags") || strings.Contains(name, "attributes") {
			continue
		}
		if _, err := registry.CompileFilter(name); err == nil || strings.Contains(err.Error(), "unknown") {
			t.Errorf("%s is in the manual's table: %v", name, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	manual, err := os.ReadFile("../docs/audience.md")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(manual)) {
		f.Add(strings.TrimSpace(line))
	}
	d := phone(12)
	f.Fuzz(func(t *testing.T, source string) {
		filter, err := registry.CompileFilter(source)
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(source, "\n") {
				t.Errorf("an error of several lines: %v", err)
			}
			return
		}
		first := match(t, filter, d)
		if second, _ := filter.Match(d); second != first {
			t.Error("it matched once and once not")
		}
		if _, err := filter.Match(&pb.Device{}); err != nil {
			t.Error(err)
		}
	})
}
