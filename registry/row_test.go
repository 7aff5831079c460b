package registry

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func packed(t testing.TB, d *pb.Device) []byte {
	t.Helper()
	b, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// full has every field there is.
func full() *pb.Device {
	return &pb.Device{
		App: "shop", Id: "d1", User: "u1", Platform: pb.Platform_PLATFORM_APNS, Locale: "fr-CA", AppVersion: "3.2.1",
		TimeZone: "America/Toronto", Tags: []string{"beta", ""}, RegisteredAt: 1_760_000_000_000,
		Attributes: map[string]*pb.Value{
			"level": {Kind: &pb.Value_Number{Number: 7}}, "plan": {Kind: &pb.Value_Text{Text: "pro"}},
			"vip": {Kind: &pb.Value_Flag{Flag: true}}, "other": {Kind: &pb.Value_Text{Text: strings.Repeat("x", 300)}}, "none": {},
		},
		Target: &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: make([]byte, 32), Topic: "com.shop", Environment: 1}}},
	}
}

// FuzzRow: a row says what protobuf's own decoder says, of whatever bytes, and whatever the row held before.
func FuzzRow(f *testing.F) {
	fcm, webpush, bare := full(), full(), &pb.Device{Id: "d", Target: &pb.Target{}}
	fcm.Target = &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "token", Fid: "fid"}}}
	webpush.Target = &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: "https://push.example/1", P256Dh: make([]byte, 65), Auth: make([]byte, 16)}}}
	for _, d := range []*pb.Device{full(), fcm, webpush, bare, {}} {
		b := packed(f, d)
		f.Add(b)
		f.Add(slices.Concat(b, b))                               // all twice
		f.Add(slices.Concat(b, []byte{0x7a, 1, 'x'}))            // a field of a newer version
		f.Add(slices.Concat(b, []byte{0x0a, 2, 0xff, 0xfe}))     // not UTF-8
		f.Add(slices.Concat(b, []byte{0x4a, 2, 0x12, 0}))        // an attribute without a name
		f.Add(slices.Concat(b, []byte{0x52, 4, 0x0a, 2, 8, 1}))  // a token that is a number
		f.Add(slices.Concat(b, []byte{0x20, 0x80, 0x80, 0x00}))  // a longer varint than it takes
		f.Add(append(bytes.Clone(b), 0x4a, 6, 0x0a, 1, 'v', 18)) // cut off
	}
	row := newRow(Wanted{Tags: true, Attributes: []string{"level", "plan", "vip", "none"}})
	f.Fuzz(func(t *testing.T, record []byte) {
		row.reset()
		if !row.walk(packed(t, full())) {
			t.Fatal("the quick way does not take what we write")
		}
		d := new(pb.Device)
		want, got := proto.Unmarshal(record, d), row.decode(record)
		if want == nil && got != nil {
			t.Fatalf("refused: %v", got)
		}
		target := new(pb.Target)
		if err := proto.Unmarshal(row.Target, target); got == nil && err != nil {
			t.Fatalf("a target that nobody can read: %v", err)
		}
		if want != nil {
			return // what is wrong may lie in what was not wanted
		}
		if (row.Target == nil) != (d.Target == nil) || d.Target != nil && !proto.Equal(target, d.Target) {
			t.Errorf("target %v, want %v", target, d.Target)
		}
		for name := range d.Attributes {
			if !slices.Contains(row.wanted.Attributes, name) {
				delete(d.Attributes, name)
				delete(row.Device.Attributes, name)
			}
		}
		d.Target = nil
		d.ProtoReflect().SetUnknown(nil)
		row.Device.ProtoReflect().SetUnknown(nil)
		if !proto.Equal(&row.Device, d) {
			t.Errorf("got  %v\nwant %v", &row.Device, d)
		}
	})
}

func TestRowLeavesOutWhatIsNotWanted(t *testing.T) {
	row := newRow(Wanted{})
	if err := row.decode(packed(t, full())); err != nil {
		t.Fatal(err)
	}
	if len(row.Device.Tags) > 0 || len(row.Device.Attributes) > 0 {
		t.Errorf("decoded all the same: %v", &row.Device)
	}
}

func TestReplyThatIsNoArray(t *testing.T) {
	for _, lines := range [][]string{nil, {"-MOVED 7 host:1", "\r\n"}, {"*1", "\r\n"}, {"*x", "\r\n"}, {"_", "\r\n"}} {
		r := new(reply)
		for _, line := range lines {
			if _, err := r.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if !r.refused() {
			t.Errorf("%q was taken", lines)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	record := packed(b, full())
	for name, w := range map[string]Wanted{"nothing": {}, "all": {Tags: true, Attributes: []string{"level", "plan"}}} {
		b.Run(name, func(b *testing.B) {
			row := newRow(w)
			b.ReportAllocs()
			for b.Loop() {
				if err := row.decode(record); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
