package producer

import (
	"strconv"
	"unicode/utf8"
)

// quick reads the JSON that bulk streams are made of without reflection: they would spend most of their time in
// encoding/json otherwise. It knows plain texts, plain numbers, true and false, and gives up on all else: escapes,
// exponents, null, unknown or repeated fields, and whatever is malformed. decodeLine then reads the line and says what is
// wrong with it, so that there is one judge; a fuzz test compares the two.
type quick struct {
	in string
	at int
	// bad says that it gave up.
	bad bool
}

// quickDevice fills d from a line. If it returns false, d holds rubbish.
func quickDevice(line []byte, d *BulkDevice) bool {
	q := quick{in: string(line)}
	if !utf8.ValidString(q.in) {
		return false
	}
	q.object(func(name string) {
		switch name {
		case "op":
			q.text(&d.Op)
		case "id":
			q.text(&d.ID)
		case "user":
			q.text(&d.User)
		case "platform":
			q.text(&d.Platform)
		case "locale":
			q.text(&d.Locale)
		case "app_version":
			q.text(&d.AppVersion)
		case "time_zone":
			q.text(&d.TimeZone)
		case "tags":
			q.once(d.Tags == nil)
			d.Tags = []string{}
			q.list(func() {
				var tag string
				q.text(&tag)
				d.Tags = append(d.Tags, tag)
			})
		case "attributes":
			q.once(d.Attributes == nil)
			d.Attributes = make(map[string]any, 4)
			q.object(func(name string) { d.Attributes[name] = q.value() })
		default:
			q.target(name, &d.Device)
		}
	})
	q.space()
	return !q.bad && q.at == len(q.in)
}

// target reads where a device is reached.
func (q *quick) target(kind string, d *Device) {
	var fields map[string]*string
	switch kind {
	case "apns":
		q.once(d.APNs == nil)
		d.APNs = &APNsTarget{}
		fields = map[string]*string{"token": &d.APNs.Token, "environment": &d.APNs.Environment, "topic": &d.APNs.Topic}
	case "fcm":
		q.once(d.FCM == nil)
		d.FCM = &FCMTarget{}
		fields = map[string]*string{"token": &d.FCM.Token, "fid": &d.FCM.FID}
	case "webpush":
		q.once(d.WebPush == nil)
		d.WebPush = &WebPushTarget{}
		fields = map[string]*string{"endpoint": &d.WebPush.Endpoint, "p256dh": &d.WebPush.P256dh, "auth": &d.WebPush.Auth}
	}
	q.object(func(name string) {
		if to := fields[name]; to != nil {
			q.text(to)
		} else {
			q.bad = true
		}
	})
	q.bad = q.bad || fields == nil
}

// once gives up on a field that is there again.
func (q *quick) once(first bool) { q.bad = q.bad || !first }

func (q *quick) space() {
	for q.at < len(q.in) && (q.in[q.at] == ' ' || q.in[q.at] == '\t' || q.in[q.at] == '\r' || q.in[q.at] == '\n') {
		q.at++
	}
}

// eat takes c, if it is next after space.
func (q *quick) eat(c byte) bool {
	q.space()
	if q.at < len(q.in) && q.in[q.at] == c {
		q.at++
		return true
	}
	return false
}

// must takes c, or gives up.
func (q *quick) must(c byte) { q.bad = !q.eat(c) || q.bad }

// object calls field for each field, which reads its value.
func (q *quick) object(field func(name string)) {
	q.must('{')
	for first := true; !q.bad && !q.eat('}'); first = false {
		if !first {
			q.must(',')
		}
		var name string
		q.text(&name)
		q.must(':')
		if !q.bad {
			field(name)
		}
	}
}

func (q *quick) list(item func()) {
	q.must('[')
	for first := true; !q.bad && !q.eat(']'); first = false {
		if !first {
			q.must(',')
		}
		item()
	}
}

// text reads a string without escapes into an empty place: a second one for the same field is odd enough to give up.
func (q *quick) text(to *string) {
	q.must('"')
	for begin := q.at; !q.bad && *to == "" && q.at < len(q.in); q.at++ {
		switch c := q.in[q.at]; {
		case c == '"':
			*to = q.in[begin:q.at]
			q.at++
			return
		case c == '\\' || c < ' ':
			q.bad = true
		}
	}
	q.bad = true
}

// value reads a text, a number or a boolean.
func (q *quick) value() any {
	q.space()
	rest := q.in[q.at:]
	switch {
	case rest == "":
	case rest[0] == '"':
		var s string
		q.text(&s)
		return s
	case len(rest) >= 4 && rest[:4] == "true":
		q.at += 4
		return true
	case len(rest) >= 5 && rest[:5] == "false":
		q.at += 5
		return false
	default:
		return q.number()
	}
	q.bad = true
	return nil
}

// number reads digits with perhaps a point between them, and no leading zero.
func (q *quick) number() any {
	begin, point := q.at, false
	for ; q.at < len(q.in); q.at++ {
		c := q.in[q.at]
		if c == '.' && !point && q.at > begin {
			point = true
		} else if c < '0' || c > '9' {
			break
		}
	}
	digits := q.in[begin:q.at]
	q.bad = q.bad || digits == "" || digits[len(digits)-1] == '.' || digits[0] == '0' && len(digits) > 1 && digits[1] != '.'
	f, err := strconv.ParseFloat(digits, 64)
	q.bad = q.bad || err != nil
	return f
}
