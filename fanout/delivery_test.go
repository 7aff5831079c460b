package fanout

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzDelivery: what is written by hand is, to the byte, what protobuf's own encoder writes.
func FuzzDelivery(f *testing.F) {
	f.Add("shop", "c1", "d1", "u1", "fr-CA", "3.2.1", "level", 7.0, []byte("token"), int64(1_760_000_000_000), int64(1))
	f.Add("shop", "c1", "", "", "", "", "", 0.0, []byte{}, int64(0), int64(0))
	f.Add("shop", "c1", "d/2", strings.Repeat("ü", 3000), "de", "", "vip", math.Inf(-1), make([]byte, 5000), int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, app, run, id, user, locale, version, attribute string, level float64, token []byte, registered, expires int64) {
		all := []*string{&app, &run, &id, &user, &locale, &version, &attribute}
		for _, s := range all {
			*s = strings.ToValidUTF8(*s, "?") // the producer and the registry take nothing else
		}
		c := &pb.Campaign{App: app, Id: run, ExpiresAt: expires}
		d := &pb.Device{
			App: app, Id: id, User: user, Platform: apns, Locale: locale, AppVersion: version, RegisteredAt: registered,
			Attributes: map[string]*pb.Value{attribute: {Kind: &pb.Value_Number{Number: level}}},
			Target:     &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: token}}},
		}
		names := []string{"app_version", message.Attributes + attribute, message.Attributes + "none\u00e9", "user"}
		r := &recipe{}
		for _, n := range names {
			r.variables = append(r.variables, newVariable(n))
		}
		x := newExpansion(c, r, apns, epoch)
		if err := x.add(d, encoded(t, d.Target)); err != nil {
			t.Fatal(err)
		}
		if err := x.add(d, encoded(t, d.Target)); err != nil { // beside the first, which must stay as it is
			t.Fatal(err)
		}
		delivery := schemas.DeliveryID(app, run, id, 0)
		want := encoded(t, &pb.Delivery{
			Id: delivery[:], App: app, Run: run, Device: id, Class: pb.Class_CLASS_BULK, Target: d.Target, Locale: locale,
			Variables: message.Variables(names, d, nil), CreatedAt: epoch.UnixMilli(), ExpiresAt: expires, RegisteredAt: registered,
		})
		for _, o := range x.outs {
			if string(o.Value) != string(want) || string(o.Key) != string(schemas.Key(app, id)) {
				t.Errorf("%s: got\n%x, want\n%x", o.Key, o.Value, want)
			}
		}
	})
}

func TestDevicesThatGetNothing(t *testing.T) {
	c := definition()
	c.Audience = &pb.Audience{Filter: `locale == "fr-CA"`}
	r, err := compile(c)
	if err != nil {
		t.Fatal(err)
	}
	x := newExpansion(c, r, apns, epoch)
	for name, change := range map[string]func(*pb.Device){
		"another platform's": func(d *pb.Device) { d.Platform = fcm },
		"not meant":          func(d *pb.Device) { d.Locale = "de" },
		"without a target":   func(d *pb.Device) { d.Target = nil },
	} {
		d := phone(1)
		change(d)
		var target []byte
		if d.Target != nil {
			target = encoded(t, d.Target)
		}
		if err := x.add(d, target); err != nil || len(x.outs) > 0 {
			t.Errorf("a device %s: %d deliveries, %v", name, len(x.outs), err)
		}
	}
}
