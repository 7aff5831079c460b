package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// MaxSize is the largest message, encoded: with all its languages it must fit well into one Kafka record (1 MB).
const MaxSize = 256 << 10

// Problem is one fault of a message.
type Problem struct {
	// Field is where it is, as written in JSON: "apns.priority". Empty when it concerns the whole.
	Field string
	Text  string
}

func (p Problem) String() string {
	if p.Field == "" {
		return p.Text
	}
	return p.Field + ": " + p.Text
}

// Problems is every fault found, in the order of their fields.
type Problems []Problem

func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, problem := range p {
		texts[i] = problem.String()
	}
	return strings.Join(texts, "; ")
}

func (p *Problems) add(field, format string, args ...any) {
	*p = append(*p, Problem{field, fmt.Sprintf(format, args...)})
}

// oneOf refuses a value that is neither empty nor in the list.
func (p *Problems) oneOf(field, value string, list ...string) {
	if value != "" && !slices.Contains(list, value) {
		p.add(field, "is %q; must be one of %s", value, strings.Join(list, ", "))
	}
}

// header refuses what cannot stand in an HTTP header.
func (p *Problems) header(field, value string) {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		p.add(field, "must be printable ASCII, for it goes into an HTTP header")
	}
}

func (p *Problems) object(field string, raw json.RawMessage) {
	if len(raw) == 0 {
		return
	}
	if !json.Valid(raw) || bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		p.add(field, "must be a JSON object")
	}
}

// check finds every fault of m, which became out.
func (m *Message) check(out *pb.Message) Problems {
	var p Problems
	if m.Title == "" && m.Body == "" && !m.silent() {
		p.add("title", `is missing, and so is body: give one, or make the message silent with apns.push_type "background" or fcm.data_only`)
	}
	m.content().check(&p, "")
	checkLocalized(&p, m.Localized)
	checkData(&p, m.Data)
	m.APNs.check(&p)
	m.FCM.check(&p)
	m.WebPush.check(&p)
	checkTTL(&p, m.TTL)
	p.oneOf("on_unknown", m.OnUnknown, "resend", "drop")
	p.header("collapse", m.Collapse)
	if len(m.Collapse) > 64 {
		p.add("collapse", "has %d bytes; APNs takes at most 64", len(m.Collapse))
	}
	if b, err := proto.Marshal(out); err != nil {
		p.add("", "holds text that is not UTF-8")
	} else if len(b) > MaxSize {
		p.add("", "the message has %d bytes; at most %d are taken", len(b), MaxSize)
	}
	slices.SortStableFunc(p, func(a, b Problem) int { return strings.Compare(a.Field, b.Field) })
	return p
}

// silent says that the message needs no text: it shows nothing, or brings what it shows in a raw payload.
func (m *Message) silent() bool {
	a, f, w := m.APNs, m.FCM, m.WebPush
	return a != nil && (a.PushType != "" && a.PushType != "alert" || len(a.Raw) > 0) ||
		f != nil && (f.DataOnly || len(f.Raw) > 0) ||
		w != nil && len(w.Raw) > 0
}

func (c Content) check(p *Problems, path string) {
	// A template cannot be parsed as a URL, but its beginning must be one's. An image that is a variable from its
	// beginning is checked when it is rendered.
	if fixed, _, templated := strings.Cut(c.Image, "{{"); fixed != "" {
		u, err := url.Parse(fixed)
		if err != nil || !strings.HasPrefix(fixed, "https://") || u.Host == "" && !templated {
			p.add(path+"image", "must be an https URL: the providers fetch no other")
		}
	}
	if !strings.Contains(c.Link, "{{") {
		if _, err := url.Parse(c.Link); err != nil {
			p.add(path+"link", "is not a URL")
		}
	}
}

func checkLocalized(p *Problems, localized map[string]Content) {
	tags := make(map[string]string, len(localized))
	for _, tag := range slices.Sorted(maps.Keys(localized)) {
		path := "localized." + tag
		if _, err := language.Parse(tag); err != nil {
			p.add(path, `is not a BCP 47 locale, such as "fr" or "fr-CA"`)
		}
		if other, ok := tags[foldLocale(tag)]; ok {
			p.add(path, "is the same locale as %q: keep one", other)
		}
		tags[foldLocale(tag)] = tag
		if localized[tag] == (Content{}) {
			p.add(path, "is empty: give a title or a body, or leave the locale out")
		}
		localized[tag].check(p, path+".")
	}
}

// reservedData are the keys of data that the providers or Belfry use themselves.
var reservedData = []string{"from", "message_type", "aps", "belfry_id"}

func checkData(p *Problems, data map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(data)) {
		switch {
		case key == "":
			p.add("data", "has an empty key")
		case slices.Contains(reservedData, key), strings.HasPrefix(key, "google"), strings.HasPrefix(key, "gcm"):
			p.add("data."+key, `is reserved: not "from", "message_type", "aps", "belfry_id", nor a key that begins with "google" or "gcm"`)
		}
	}
}

var pushTypes = []string{
	"alert", "background", "controls", "fileprovider", "liveactivity", "location", "mdm", "pushtotalk", "voip",
	"widgets", "complication",
}

func (a *APNs) check(p *Problems) {
	if a == nil {
		return
	}
	p.oneOf("apns.push_type", a.PushType, pushTypes...)
	p.header("apns.topic", a.Topic)
	switch {
	case a.Priority != 0 && a.Priority != 10 && a.Priority != 5 && a.Priority != 1:
		p.add("apns.priority", "is %d; must be 10, 5 or 1", a.Priority)
	case a.PushType == "background" && a.Priority != 0 && a.Priority != 5:
		p.add("apns.priority", "is %d; Apple takes only 5 for a background push", a.Priority)
	}
	p.oneOf("apns.interruption_level", a.InterruptionLevel, "passive", "active", "time-sensitive", "critical")
	switch s := a.RelevanceScore; {
	case math.IsNaN(s) || math.IsInf(s, 0):
		p.add("apns.relevance_score", "must be a number")
	case a.PushType != "liveactivity" && (s < 0 || s > 1):
		p.add("apns.relevance_score", "is %v; must be 0 to 1", s)
	}
	p.object("apns.raw", a.Raw)
}

var (
	color          = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	analyticsLabel = regexp.MustCompile(`^[a-zA-Z0-9\-_.~%]{1,50}$`)
)

func (f *FCM) check(p *Problems) {
	if f == nil {
		return
	}
	p.oneOf("fcm.priority", f.Priority, "normal", "high")
	if f.Color != "" && !color.MatchString(f.Color) {
		p.add("fcm.color", "is %q; must be like #0a84ff", f.Color)
	}
	if f.AnalyticsLabel != "" && !analyticsLabel.MatchString(f.AnalyticsLabel) {
		p.add("fcm.analytics_label", "must be 1 to 50 of letters, digits and -_.~%%")
	}
	p.object("fcm.raw", f.Raw)
}

func (w *WebPush) check(p *Problems) {
	if w == nil {
		return
	}
	p.oneOf("webpush.urgency", w.Urgency, "very-low", "low", "normal", "high")
	p.object("webpush.raw", w.Raw)
}

func checkTTL(p *Problems, ttl string) {
	if ttl == "" {
		return
	}
	switch d, err := time.ParseDuration(ttl); {
	case err != nil:
		p.add("ttl", `is %q; must be a duration such as "90s", "30m" or "48h"`, ttl)
	case d < time.Second || d%time.Second != 0:
		p.add("ttl", "is %s; must be whole seconds, at least one", ttl)
	case d > schemas.MaxTTL:
		p.add("ttl", "is %s; at most %s are kept", ttl, "167h")
	}
}
