package senders

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// full is a delivery with something in every field but its message.
func full(target *pb.Target) *pb.Delivery {
	return &pb.Delivery{
		Id: make([]byte, 16), App: "shop", Run: "spring", Device: "d", Class: bulk, Target: target, Locale: "fr-CA",
		Variables: map[string]string{"attributes.name": "Ada", "": "", "é": "漢"},
		CreatedAt: 1, ExpiresAt: 2, RegisteredAt: 3, Attempt: 4, DueAt: 5, LastCode: "503", FirstAttemptAt: 6, Replay: "r", Parked: true,
	}
}

func records() [][]byte {
	targets := []*pb.Target{
		nil,
		{},
		{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: []byte("t"), Environment: 2, Topic: "x"}}},
		{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "t"}}},
		{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Fid: "f"}}},
		{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: "https://e", P256Dh: []byte("p"), Auth: []byte("a")}}},
	}
	var all [][]byte
	for _, t := range targets {
		all = append(all, encode(full(t)))
	}
	some := all[3]
	with := func(extra ...byte) []byte { return append(some[:len(some):len(some)], extra...) }
	return append(
		all, nil, encode(inlineDelivery(schemas.RunMessages, "one")), []byte("\xff\xff"),
		with(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)...), // an unknown field
		with(encode(full(targets[2]))...), // every part twice, of another kind
		with(encode(inlineDelivery("a", "one"))...),
		with(0x12, 1, 0xff),                         // not UTF-8
		with(0x42, 2, 0x0a, 0),                      // a variable without a value
		with(0x42, 4, 0x0a, 0, 0x18, 1),             // and with one too many
		with(0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 1), // a class out of range
		with(0x0d, 1, 2, 3, 4),                      // a number where bytes should be
	)
}

// FuzzParcel holds the hand-written decoder against proto's, in a parcel that another delivery was in before.
func FuzzParcel(f *testing.F) {
	for _, r := range records() {
		f.Add(r)
	}
	used := records()[5]
	f.Fuzz(func(t *testing.T, value []byte) {
		want := &pb.Delivery{}
		wrong := proto.Unmarshal(value, want)
		var p parcel
		if _, err := p.decode(used); err != nil {
			t.Fatal(err)
		}
		p.empty()
		got, err := p.decode(value)
		if err == nil && p.inline != nil { // whoever uses it compiles it, or takes what was compiled of the same bytes
			got.Message = &pb.Message{}
			err = proto.Unmarshal(p.inline, got.Message)
		}
		if (err == nil) != (wrong == nil) {
			t.Fatalf("got %v, proto says %v", err, wrong)
		}
		if err == nil && !proto.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

// What is on every topic today must not go the slow way.
func TestDeliveriesAreReadWithoutProto(t *testing.T) {
	for _, value := range records()[2:6] {
		var p parcel
		if d, err := p.decode(value); err != nil || d != &p.content {
			t.Errorf("%x: %v", value, err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	value := encode(full(&pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "token"}}}))
	b.Run("parcel", func(b *testing.B) {
		b.ReportAllocs()
		var p parcel
		for b.Loop() {
			if _, bad := p.look(value, fcm, bulk); bad != nil {
				b.Fatal(bad)
			}
			p.empty()
		}
	})
	b.Run("proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := &pb.Delivery{}
			if err := proto.Unmarshal(value, d); err != nil {
				b.Fatal(err)
			}
		}
	})
}
