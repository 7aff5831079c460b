package simulator

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The schema of messages:send, as its reference page and its discovery document list the fields. Names are those of
// the protobuf; JSON may also have them in lowerCamelCase.

type fieldKind uint8

const (
	aString fieldKind = iota
	aBool
	anInt
	aNumber
	aDuration
	aTimestamp
	anEnum
	aMessage
	aStringMap
	aStruct // any JSON object
	aList
)

// schema is a field's type.
type schema struct {
	kind   fieldKind
	fields map[string]*schema // aMessage
	values []string           // anEnum
	elem   *schema            // aList
}

func of(kind fieldKind) *schema                 { return &schema{kind: kind} }
func message(fields map[string]*schema) *schema { return &schema{kind: aMessage, fields: fields} }
func enum(values ...string) *schema             { return &schema{kind: anEnum, values: values} }
func listOf(kind fieldKind) *schema             { return &schema{kind: aList, elem: of(kind)} }
func all(kind fieldKind, names string, and map[string]*schema) map[string]*schema {
	m := map[string]*schema{}
	for n := range strings.FieldsSeq(names) {
		m[n] = of(kind)
	}
	for n, s := range and {
		m[n] = s
	}
	return m
}

var (
	fcmOptions = message(all(aString, "analytics_label", nil))

	fcmNotification = message(all(aString, "title body image", nil))

	lightSettings = message(all(aDuration, "light_on_duration light_off_duration", map[string]*schema{
		"color": message(all(aNumber, "red green blue alpha", nil)),
	}))

	androidNotification = message(all(aString,
		"title body icon color sound tag click_action body_loc_key title_loc_key channel_id ticker image",
		all(aBool, "sticky local_only default_sound default_vibrate_timings default_light_settings bypass_proxy_notification", map[string]*schema{
			"body_loc_args": listOf(aString), "title_loc_args": listOf(aString), "vibrate_timings": listOf(aDuration),
			"event_time": of(aTimestamp), "notification_count": of(anInt), "light_settings": lightSettings,
			"notification_priority": enum("PRIORITY_UNSPECIFIED", "PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH", "PRIORITY_MAX"),
			"visibility":            enum("VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"),
			"proxy":                 enum("PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
		})))

	androidConfig = message(all(aString, "collapse_key restricted_package_name",
		all(aBool, "direct_boot_ok bandwidth_constrained_ok restricted_satellite_ok", map[string]*schema{
			// The Admin SDKs write the priority in lower case, and Google takes it.
			"priority": enum("NORMAL", "HIGH", "normal", "high"), "ttl": of(aDuration), "data": of(aStringMap),
			"notification": androidNotification, "fcm_options": fcmOptions,
		})))

	webpushConfig = message(map[string]*schema{
		"headers": of(aStringMap), "data": of(aStringMap), "notification": of(aStruct),
		"fcm_options": message(all(aString, "link analytics_label", nil)),
	})

	apnsConfig = message(map[string]*schema{
		"headers": of(aStringMap), "payload": of(aStruct), "live_activity_token": of(aString),
		"fcm_options": message(all(aString, "analytics_label image", nil)),
	})

	sendRequest = message(map[string]*schema{
		"validate_only": of(aBool),
		"message": message(all(aString, "name token fid topic condition", map[string]*schema{
			"data": of(aStringMap), "notification": fcmNotification, "android": androidConfig,
			"webpush": webpushConfig, "apns": apnsConfig, "fcm_options": fcmOptions,
		})),
	})
)

// violation is one of google.rpc.BadRequest's.
type violation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

// checker collects what a JSON value has against a schema.
type checker struct{ violations []violation }

func (c *checker) wrong(path, kind string, v any) {
	c.violations = append(c.violations, violation{path, fmt.Sprintf("Invalid value at '%s' (%s), %v", path, kind, v)})
}

func (c *checker) object(path string, v any, s *schema) {
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(path, "TYPE_MESSAGE", v)
		return
	}
	for name, v := range m {
		f := s.fields[name]
		if f == nil {
			f = s.fields[snake(name)]
		}
		if f == nil {
			at := ""
			if path != "" {
				at = " at '" + path + "'"
			}
			c.violations = append(c.violations, violation{
				path, fmt.Sprintf("Invalid JSON payload received. Unknown name %q%s: Cannot find field.", name, at),
			})
			continue
		}
		if v != nil { // null is a field left out
			c.value(join(path, name), v, f)
		}
	}
}

var seconds = regexp.MustCompile(`^-?\d+(\.\d{1,9})?s$`)

func (c *checker) value(path string, v any, s *schema) {
	text, isText := v.(string)
	switch s.kind {
	case aString:
		if !isText {
			c.wrong(path, "TYPE_STRING", v)
		}
	case aBool:
		if _, ok := v.(bool); !ok {
			c.wrong(path, "TYPE_BOOL", v)
		}
	case anInt, aNumber:
		if _, ok := v.(float64); !ok {
			c.wrong(path, "TYPE_INT32", v)
		}
	case aDuration:
		if !isText || !seconds.MatchString(text) {
			c.wrong(path, "type.googleapis.com/google.protobuf.Duration", v)
		}
	case aTimestamp:
		if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
			c.wrong(path, "type.googleapis.com/google.protobuf.Timestamp", v)
		}
	case anEnum:
		if !slices.Contains(s.values, text) {
			c.wrong(path, "TYPE_ENUM", v)
		}
	case aStringMap:
		c.stringMap(path, v)
	case aStruct:
		if _, ok := v.(map[string]any); !ok {
			c.wrong(path, "type.googleapis.com/google.protobuf.Struct", v)
		}
	case aMessage:
		c.object(path, v, s)
	case aList:
		list, ok := v.([]any)
		if !ok {
			c.wrong(path, "TYPE_LIST", v)
		}
		for i, e := range list {
			c.value(path+"["+strconv.Itoa(i)+"]", e, s.elem)
		}
	}
}

func (c *checker) stringMap(path string, v any) {
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(path, "TYPE_MESSAGE", v)
	}
	for name, e := range m {
		if _, ok := e.(string); !ok {
			c.wrong(path+"["+name+"].value", "TYPE_STRING", e)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// snake is a lowerCamelCase name as protobuf has it.
func snake(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// child is an object's field under either of its names.
func child(m map[string]any, name string) any {
	if v, ok := m[name]; ok || !strings.Contains(name, "_") {
		return v
	}
	for k, v := range m {
		if snake(k) == name {
			return v
		}
	}
	return nil
}

func object(m map[string]any, name string) map[string]any {
	o, _ := child(m, name).(map[string]any)
	return o
}

var analyticsLabel = regexp.MustCompile(`^[a-zA-Z0-9\-_.~%]{1,50}$`)

const maxTTL = 28 * 24 * 3600 // s

// messageRules are what the reference says beyond types.
func messageRules(m map[string]any) *violation {
	if m == nil {
		return &violation{"message", "Invalid value at 'message': it is required."}
	}
	targets := 0
	for _, name := range []string{"token", "fid", "topic", "condition"} {
		if s, _ := m[name].(string); s != "" {
			targets++
		}
	}
	if targets != 1 {
		return &violation{"message", "Recipient of the message is not set, or set more than once: one of token, fid, topic and condition."}
	}
	android := object(m, "android")
	for path, data := range map[string]map[string]any{"message.data": object(m, "data"), "message.android.data": object(android, "data")} {
		for key := range data {
			if key == "from" || key == "message_type" || key == "" || strings.HasPrefix(key, "google.") || strings.HasPrefix(key, "gcm.") {
				return &violation{path, fmt.Sprintf("Invalid data payload key: %s", key)}
			}
		}
	}
	if ttl, _ := child(android, "ttl").(string); ttl != "" {
		if s, err := strconv.ParseFloat(strings.TrimSuffix(ttl, "s"), 64); err != nil || s < 0 || s > maxTTL {
			return &violation{"message.android.ttl", "Invalid TTL: must be a duration in [0, 2419200] seconds."}
		}
	}
	for _, part := range []map[string]any{m, android, object(m, "apns"), object(m, "webpush")} {
		if l, ok := child(object(part, "fcm_options"), "analytics_label").(string); ok && !analyticsLabel.MatchString(l) {
			return &violation{"message.fcm_options.analytics_label", "Invalid analytics label: " + l}
		}
	}
	return nil
}

// payloadSize is what the device would be sent at most: the common parts, and the largest platform's. Google does not
// say how it counts; this takes keys and texts.
func payloadSize(m map[string]any) int {
	a, i, w := object(m, "android"), object(m, "apns"), object(m, "webpush")
	return size(child(m, "data")) + size(child(m, "notification")) + max(
		size(child(a, "data"))+size(child(a, "notification")),
		size(child(i, "payload")),
		size(child(w, "data"))+size(child(w, "notification")))
}

func size(v any) (n int) {
	switch v := v.(type) {
	case string:
		return len(v)
	case map[string]any:
		for k, e := range v {
			n += len(k) + size(e)
		}
	case []any:
		for _, e := range v {
			n += size(e)
		}
	case nil:
	default:
		return 8 // a number or truth
	}
	return n
}
