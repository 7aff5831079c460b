package producer

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// noon is the time of these tests' servers.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func reader() *Server {
	return &Server{
		options: Options{Kafka: &stream.Kafka{}, AllowHosts: map[string][]string{"shop": {"127.0.0.1:8443"}}},
		now:     func() time.Time { return noon },
	}
}

func noonBatch() *batch {
	b := newBatch("shop")
	b.now = noon
	return b
}

// usual lines are what bulk streams are made of: they must go the quick way.
var usual = map[string]string{
	"apns":     `{"id":"d-1","user":"u-1","platform":"apns","locale":"en-GB","app_version":"3.2.1","time_zone":"Europe/Paris","tags":["beta","news"],"attributes":{"first_name":"Ada","level":12,"paying":true,"x":-1.5},"apns":{"token":"a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90","environment":"production","topic":"com.example.shop"}}`,
	"sandbox":  `{"op":"put","id":"d-2","apns":{"token":"A1B2C3D4E5F60718","environment":"sandbox"}}`,
	"fcm":      ` { "id" : "d-3" , "user" : "Zoë" , "tags" : [ ] , "attributes" : { } , "fcm" : { "token" : "fcm:registration-token_1" } } `,
	"fid":      `{"id":"d-4","platform":"fcm","fcm":{"fid":"cIvtfX5MTzu1"},"attributes":{"empty":"","none":0,"no":false}}`,
	"webpush":  `{"id":"d-5","user":"","webpush":{"endpoint":"https://updates.push.services.mozilla.com/wpush/v2/gAAAA"` + subscription,
	"delete":   `{"op":"delete","id":"d-6"}`,
	"surplus":  `{"op":"delete","id":"d-7","locale":"?","fcm":{}}`,
	"repeated": `{"id":"","attributes":{"a":1.25,"b":1000000}, "id2":1}`,
}

const subscription = `,"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}`

// odd lines are for the slow way, or for none.
var odd = []string{
	`{"id":"a","id":"b"}`, `{"id":null}`, `{"id":"\u0041","fcm":{"token":"t"}}`, `{"ID":"x","fcm":{"token":"t"}}`, `{"tags":["",""]}`,
	`{"attributes":{"a":01,"b":-1,"c":1e5,"d":.5,"e":1.}}`, `{"id":"n","fcm":{"token":"t"},"attributes":{"a":1e5,"z":-0,"y":1.5e-7}}`,
	`{"fcm":{"token":"a"},"fcm":{"fid":"b"}}`, `{"attributes":{"a":1},"attributes":{"b":2}}`, `{"tags":["a"],"tags":["b"]}`,
	`{"id":"x","fcm":{"token":"t"},"attributes":{"a":1,"a":"b"}}`, `{"id":"x","fcm":{"token":"t"}}}`, `{"id":"x",}`, `{,}`, `{}`, `[]`, `7`, ``,
	`{"id":"x/y","fcm":{"token":"t"}}`, `{"id":"x","platform":"apns","fcm":{"token":"t"}}`, `{"id":"x","fcm":{"token":"t","fid":"f"}}`,
	`{"id":"x","fcm":{"token":"t"},"apns":{"token":"a1b2c3d4e5f60718"}}`, `{"id":"x","apns":{"token":"a1b2c3d4e5f6071"}}`,
	`{"id":"x","apns":{"token":"a1b2c3d4e5f60718","environment":"test"}}`, `{"id":"x","apns":{"token":"a1b2c3d4e5f60718","topic":"a b"}}`,
	`{"id":"x","locale":"fr_CA","time_zone":"Mars/Base","fcm":{"token":"t"}}`, `{"id":"x","webpush":{"endpoint":"http://10.0.0.1/"}}`,
	`{"id":"x","webpush":{"endpoint":"https://10.0.0.12/a"` + subscription, `{"id":"x","webpush":{"endpoint":"https://a.b"` + subscription,
	`{"id":"x","webpush":{"endpoint":"https://127.0.0.1:8443/a?b"` + subscription, `{"id":"x","webpush":{"endpoint":"https://a_.b-/c:d"` + subscription,
	`{"id":"x","webpush":{"endpoint":"https://localhost/a"` + subscription, `{"id":"x","webpush":{"endpoint":"https://a.b/c%zz"` + subscription,
	"{\"id\":\"x\",\t\"fcm\":{\"token\":\"t\"}}", "{\"id\":\"x\x7f\",\"fcm\":{\"token\":\"t\"}}", `{"id":"é","fcm":{"token":"é"}}`, "{\"id\":\"\u00a0\",\"fcm\":{\"token\":\"t\"}}",
	`{"fcm":{"token":"made-from-the-target"}}`, `{"op":"purge","id":"x"}`, `{"op":"delete","id":""}`, "{\"id\":\"\xff\",\"fcm\":{\"token\":\"t\"}}",
	`{"id":"x","fcm":{"token":"t"},"tags":["a",7]}`, `{"id":"x","fcm":{"token":"t"},"tags":null,"attributes":{"a":null}}`,
}

// FuzzQuickDevice compares the quick way with the slow one: what it takes at all, the slow one takes for the same.
func FuzzQuickDevice(f *testing.F) {
	for _, line := range usual {
		f.Add([]byte(line))
	}
	for _, line := range odd {
		f.Add([]byte(line))
	}
	s := reader()
	f.Fuzz(func(t *testing.T, text []byte) {
		b := noonBatch()
		if !b.quick.readDevice(text, s.options.AllowHosts["shop"]) {
			return
		}
		var l line
		s.deviceLine(b, &l, text)
		var d BulkDevice
		if problems := decodeLine(text, &d); len(problems) > 0 {
			t.Fatalf("%q: taken quickly, but %v", text, problems)
		}
		want, problems := s.changed("shop", &d)
		if len(problems) > 0 {
			t.Fatalf("%q: taken quickly, but %v", text, problems)
		}
		if string(l.id) != d.ID || string(l.record.Key) != string(want.Key) || (l.record.Value == nil) != (want.Value == nil) {
			t.Fatalf("%q: got %q %q, want %q %q", text, l.id, l.record.Key, d.ID, want.Key)
		}
		sameMessage(t, text, l.record.Value, want.Value, func() proto.Message { return &pb.DeviceRecord{} })
	})
}

// FuzzQuickEvent does the same for events.
func FuzzQuickEvent(f *testing.F) {
	for _, line := range []string{
		usualEvent, `{"app":"shop","id":"e","name":"n","user":"ada"}`, `{"app":"news","id":"e","name":"n","user":"ada"}`,
		`{"id":"e","name":"n","user":"a/b"}`, `{"id":"e","name":"n","user":"u","at":"yesterday"}`, `{"id":"e","name":"n","user":"u","at":""}`,
		`{"id":"e","name":"n","user":"u","at":"0001-01-01T00:00:00Z"}`, `{"id":"e","name":"n","user":"u","at":"1969-12-31T00:00:00Z"}`,
		`{"id":"e","name":"n","user":"u","at":"2026-11-24T9:30:00Z"}`, `{"id":"e","name":"n","user":"u","fields":{"":1}}`,
		`{"id":"e","name":"n","user":"u","fields":{"a":[1]}}`, `{"id":"e","name":"n","user":"u","at":null,"fields":null}`,
	} {
		f.Add([]byte(line))
	}
	s := reader()
	f.Fuzz(func(t *testing.T, text []byte) {
		b := noonBatch()
		if !b.quick.readEvent(text, "shop", noon) {
			return
		}
		var l line
		s.eventLine(b, &l, text)
		var e events.Event
		if problems := decodeLine(text, &e); len(problems) > 0 {
			t.Fatalf("%q: taken quickly, but %v", text, problems)
		}
		want, problems := s.event("shop", &e)
		if len(problems) > 0 {
			t.Fatalf("%q: taken quickly, but %v", text, problems)
		}
		if string(l.id) != e.ID || string(l.record.Key) != "shop/"+e.User {
			t.Fatalf("%q: got %q %q", text, l.id, l.record.Key)
		}
		sameMessage(t, text, l.record.Value, want, func() proto.Message { return &pb.Event{} })
	})
}

func sameMessage(t *testing.T, text, got, want []byte, empty func() proto.Message) {
	t.Helper()
	g, w := empty(), empty()
	if err := proto.Unmarshal(got, g); err != nil {
		t.Fatalf("%q: what was written is none: %v", text, err)
	}
	if err := proto.Unmarshal(want, w); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(g, w) || len(got) != len(want) {
		t.Fatalf("%q:\ngot  %v\nwant %v", text, g, w)
	}
}

const usualEvent = `{"id":"order-17-shipped","name":"order.shipped","user":"ada","at":"2026-11-24T09:30:00Z","fields":{"carrier":"Poste","parcels":2,"express":true}}`

// TestTheUsualGoesTheQuickWay: were it to give up on what streams are made of, nothing but their pace would show it.
func TestTheUsualGoesTheQuickWay(t *testing.T) {
	var q quick
	for name, line := range usual {
		if got := q.readDevice([]byte(line), nil); got != (name != "repeated") {
			t.Errorf("%s: read quickly: %v", name, got)
		}
	}
	if !q.readEvent([]byte(usualEvent), "shop", noon) {
		t.Error("an event was not read quickly")
	}
}

// TestAllocationsOfLines records what reading, judging and encoding one line may allocate. A subscription's key is
// checked by crypto/ecdh.
func TestAllocationsOfLines(t *testing.T) {
	s := reader()
	for name, most := range map[string]float64{"apns": 0, "fcm": 0, "fid": 0, "delete": 0, "webpush": 5} {
		if got := allocations(s.deviceLine, usual[name]); got > most {
			t.Errorf("%s: %v allocations a line, want at most %v", name, got, most)
		}
	}
	if got := allocations(s.eventLine, usualEvent); got > 0 {
		t.Errorf("event: %v allocations a line, want none", got)
	}
}

func allocations(parse parseLine, text string) float64 {
	b, l, bytes := noonBatch(), &line{}, []byte(text)
	return testing.AllocsPerRun(100, func() {
		b.room, *l = b.room[:0], line{}
		parse(b, l, bytes)
	})
}

// BenchmarkLine reads, judges and encodes one line.
func BenchmarkLine(b *testing.B) {
	s := reader()
	for _, one := range []struct {
		name, text string
		parse      parseLine
	}{
		{"apns", usual["apns"], s.deviceLine},
		{"fcm", usual["fcm"], s.deviceLine},
		{"webpush", usual["webpush"], s.deviceLine},
		{"event", usualEvent, s.eventLine},
		{"slow", strings.Replace(usual["apns"], "Ada", `\u0041da`, 1), s.deviceLine},
	} {
		b.Run(one.name, func(b *testing.B) {
			text, batch, l := []byte(one.text), noonBatch(), &line{}
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				batch.room, *l = batch.room[:0], line{}
				one.parse(batch, l, text)
				if len(l.problems) > 0 {
					b.Fatal(l.problems)
				}
			}
		})
	}
}
