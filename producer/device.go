package producer

import (
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Device is the JSON form of pb.Device.
type Device struct {
	ID         string         `json:"id,omitempty" doc:"1 to 128 bytes without / and #. In bulk it may be left out: it is then made from the target" example:"d-000001"`
	User       string         `json:"user,omitempty" doc:"Whom the device belongs to" example:"ada"`
	Platform   string         `json:"platform,omitempty" doc:"apns, fcm or webpush: what the target says, if left out"`
	Locale     string         `json:"locale,omitempty" doc:"BCP 47" example:"fr-CA"`
	AppVersion string         `json:"app_version,omitempty" example:"3.2.1"`
	TimeZone   string         `json:"time_zone,omitempty" doc:"IANA name" example:"Europe/Paris"`
	Tags       []string       `json:"tags,omitempty" doc:"At most 100, of at most 128 bytes"`
	Attributes map[string]any `json:"attributes,omitempty" doc:"At most 100 strings (of at most 1,024 bytes), numbers or booleans"`
	APNs       *APNsTarget    `json:"apns,omitempty"`
	FCM        *FCMTarget     `json:"fcm,omitempty"`
	WebPush    *WebPushTarget `json:"webpush,omitempty"`
}

// ShownDevice is a device as answers show it: its target is masked.
type ShownDevice struct {
	Device
	RegisteredAt time.Time `json:"registered_at" doc:"When it was last registered"`
}

const (
	maxTags       = 100
	maxAttributes = 100
	maxText       = 1024
	maxVersion    = 64
	maxLocale     = 35
)

// faults collects what is wrong.
type faults struct{ found message.Problems }

// add keeps a fault; an empty text is none.
func (f *faults) add(field, text string) {
	if text != "" {
		f.found = append(f.found, message.Problem{Field: field, Text: text})
	}
}

// proto checks every field and makes the record.
func (d *Device) proto(app string, allowed []string, now time.Time) (*pb.Device, message.Problems) {
	var f faults
	target, platform, problems := d.target(allowed)
	f.found = problems
	if stated, ok := schemas.ParsePlatform(d.Platform); d.Platform != "" && (!ok || target != nil && stated != platform) {
		f.add("platform", "must be apns, fcm or webpush, as the target is; or leave it out")
	}
	if d.ID == "" && len(f.found) == 0 {
		d.ID = targetID(app, target)
	} else if d.ID != "" {
		f.add("id", events.IdentityFault(d.ID))
	}
	if d.User != "" {
		f.add("user", events.IdentityFault(d.User))
	}
	d.checkTraits(&f)
	attributes, problems := events.Values("attributes", d.Attributes)
	f.found = append(f.found, problems...)
	f.checkAttributes(attributes)
	if len(f.found) > 0 {
		return nil, f.found
	}
	return &pb.Device{
		App: app, Id: d.ID, User: d.User, Platform: platform, Locale: d.Locale, AppVersion: d.AppVersion,
		TimeZone: d.TimeZone, Tags: d.Tags, Attributes: attributes, Target: target, RegisteredAt: now.UnixMilli(),
	}, nil
}

// checkTraits checks what audiences choose by.
func (d *Device) checkTraits(f *faults) {
	if d.Locale != "" && !localeForm(d.Locale) {
		f.add("locale", "must be a BCP 47 language tag like fr or fr-CA")
	}
	if len(d.AppVersion) > maxVersion || d.AppVersion != "" && events.NameFault(d.AppVersion) != "" {
		f.add("app_version", fmt.Sprintf("must be printable UTF-8 of at most %d bytes", maxVersion))
	}
	if d.TimeZone != "" && !zoneKnown(d.TimeZone) {
		f.add("time_zone", "must be an IANA time zone like Europe/Paris")
	}
	if len(d.Tags) > maxTags {
		f.add("tags", fmt.Sprintf("has %d entries; at most %d are allowed", len(d.Tags), maxTags))
	}
	for i, tag := range d.Tags {
		if fault := events.NameFault(tag); fault != "" {
			f.add(fmt.Sprintf("tags[%d]", i), fault)
		}
	}
}

func (f *faults) checkAttributes(attributes map[string]*pb.Value) {
	if len(attributes) > maxAttributes {
		f.add("attributes", fmt.Sprintf("has %d entries; at most %d are allowed", len(attributes), maxAttributes))
	}
	for name, v := range attributes {
		if n := len(v.GetText()); n > maxText {
			f.add("attributes."+name, fmt.Sprintf("has %d bytes; at most %d are allowed", n, maxText))
		}
	}
}

// localeForm tells whether s has the form of a language tag: 2 to 8 letters, then parts of 1 to 8 letters and digits.
func localeForm[T string | []byte](s T) bool {
	if len(s) > maxLocale {
		return false
	}
	first, length := true, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '-' {
			if length < 1 || length > 8 || first && length < 2 {
				return false
			}
			first, length = false, 0
			continue
		}
		letter := s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z'
		if !letter && (first || s[i] < '0' || s[i] > '9') {
			return false
		}
		length++
	}
	return true
}

// zones are the time zones met so far: reading one takes a file. There are some 600. It is replaced, never changed.
var (
	zones    atomic.Pointer[map[string]bool]
	zoneLock sync.Mutex // of those who replace it
)

// zoneKnown tells whether there is such a time zone.
func zoneKnown[T string | []byte](name T) bool {
	if known := zones.Load(); known != nil && (*known)[string(name)] {
		return true
	}
	if _, err := time.LoadLocation(string(name)); err != nil || string(name) == "Local" {
		return false
	}
	zoneLock.Lock()
	defer zoneLock.Unlock()
	more := map[string]bool{string(name): true}
	if known := zones.Load(); known != nil {
		maps.Copy(more, *known)
	}
	zones.Store(&more)
	return true
}

// targetID makes a device's id from where it is reached, so that registering the same target again is the same device.
func targetID(app string, t *pb.Target) string {
	switch k := t.Kind.(type) {
	case *pb.Target_Apns:
		return hashID("apns", app, string(k.Apns.Token))
	case *pb.Target_Fcm:
		return hashID("fcm", app, k.Fcm.Token, k.Fcm.Fid)
	case *pb.Target_Webpush:
		return hashID("webpush", app, k.Webpush.Endpoint)
	}
	panic("producer: a target of no kind")
}

// deviceForm shows a device. Who may read devices need not learn how to reach them.
func deviceForm(p *pb.Device) ShownDevice {
	d := ShownDevice{RegisteredAt: time.UnixMilli(p.RegisteredAt).UTC(), Device: Device{
		ID: p.Id, User: p.User, Platform: schemas.PlatformName(p.Platform), Locale: p.Locale, AppVersion: p.AppVersion,
		TimeZone: p.TimeZone, Tags: p.Tags,
	}}
	if len(p.Attributes) > 0 {
		d.Attributes = make(map[string]any, len(p.Attributes))
	}
	for name, v := range p.Attributes {
		switch k := v.GetKind().(type) {
		case *pb.Value_Text:
			d.Attributes[name] = k.Text
		case *pb.Value_Number:
			d.Attributes[name] = k.Number
		case *pb.Value_Flag:
			d.Attributes[name] = k.Flag
		}
	}
	switch k := p.Target.GetKind().(type) {
	case *pb.Target_Apns:
		d.APNs = &APNsTarget{Token: masked(hex.EncodeToString(k.Apns.Token)), Environment: "production", Topic: k.Apns.Topic}
		if k.Apns.Environment == pb.Environment_ENVIRONMENT_SANDBOX {
			d.APNs.Environment = "sandbox"
		}
	case *pb.Target_Fcm:
		d.FCM = &FCMTarget{Token: masked(k.Fcm.Token), FID: masked(k.Fcm.Fid)}
	case *pb.Target_Webpush:
		d.WebPush = &WebPushTarget{Endpoint: origin(k.Webpush.Endpoint)}
	}
	return d
}

// masked leaves enough of a token to compare by.
func masked(token string) string {
	if len(token) <= 12 {
		return strings.Repeat("…", min(1, len(token)))
	}
	return "…" + token[len(token)-6:]
}

// origin is an endpoint's beginning, without the path that is its secret.
func origin(endpoint string) string {
	scheme, rest, _ := strings.Cut(endpoint, "://")
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host + "/…"
}

// deviceRecord is the value of a registration on belfry.devices.
func deviceRecord(d *pb.Device) ([]byte, error) {
	return proto.Marshal(&pb.DeviceRecord{Kind: &pb.DeviceRecord_Device{Device: d}})
}
