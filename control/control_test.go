package control

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestNamesAreReadAsTheyAreWritten(t *testing.T) {
	for text, app := range map[string]string{
		"lane/apns/bulk":                  "",
		"lane/webpush/urgent":             "",
		"app/shop":                        "shop",
		"destination/fcm/shop/my-project": "shop",
		"destination/webpush/shop/https://push.example": "shop",
		"hygiene/apns/shop":                             "shop",
	} {
		n, err := Parse(text)
		if err != nil || string(n) != text || n.App() != app {
			t.Errorf("%s: got %q of app %q, %v", text, n, n.App(), err)
		}
	}
	for _, text := range []string{
		"", "lane", "lane/apns", "lane/apns/slow", "lane/sms/bulk", "app", "app/", "app/a/b", "destination/fcm/shop",
		"destination/fcm/shop/", "destination/fcm//x", "hygiene/apns", "hygiene/apns/", "hygiene/apns/shop/x", "cluster", "replay/1",
	} {
		if n, err := Parse(text); err == nil {
			t.Errorf("%q was read as %q", text, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("destination/webpush/shop/https://push.example")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := Parse(text); err == nil && string(n) != text {
			t.Errorf("%q was read as %q", text, n)
		}
	})
}

func TestViewHoldsWhatIsInForce(t *testing.T) {
	k := streamtest.Kafka(t)
	put := func(key string, r *pb.Restraint) {
		t.Helper()
		record := &kgo.Record{Topic: schemas.TopicControl, Key: []byte(key)}
		if r != nil {
			record.Value, _ = Record(r)
		}
		streamtest.Produce(t, k, record)
	}
	put("app/shop", &pb.Restraint{Paused: true, Reason: "why"})
	put("app/news", &pb.Restraint{PerSecond: 5})
	put("cluster", &pb.Restraint{Paused: true}) // not a restraint's name
	put("app/news", nil)
	v := NewView(k)
	streamtest.Run(t, v.Run)
	<-v.Ready()
	if !v.Get(App("shop")).GetPaused() || v.Get(App("news")) != nil || len(v.All()) != 1 {
		t.Errorf("in force: %v", v.All())
	}
	before := v.All()
	put("app/shop", &pb.Restraint{PerSecond: 7})
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicControl, Key: []byte("app/shop"), Value: []byte("\xff nonsense")})
	if err := v.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := v.Get(App("shop")); r.GetPaused() || r.GetPerSecond() != 7 {
		t.Errorf("in force: %v", r)
	}
	if !before[App("shop")].Paused {
		t.Error("what was asked for before has changed under who asked")
	}
}
