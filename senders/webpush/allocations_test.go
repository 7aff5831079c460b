//go:build !race

package webpush

import (
	"testing"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

// TestAllocationsEncode fails when a request costs more than was recorded.
func TestAllocationsEncode(t *testing.T) {
	const recorded = 5 // of crypto/ecdh, which checks that the subscription's key is a point (Go 1.26)
	p := provider(t, config())
	m := compile(t, &pb.Message{
		Content: &pb.Content{Title: "Hi {{ attributes.name }}", Body: "{{ attributes.name }}, your order is on its way"},
		Data:    map[string]string{"order": "12"},
		Webpush: &pb.WebPushOptions{Icon: "https://i.example/i", Raw: []byte(`{"actions":[1]}`)},
	})
	d, r := delivery("https://fcm.googleapis.com/fcm/send/abc:DEF"), &senders.Request{}
	got := testing.AllocsPerRun(100, func() {
		if err := p.Encode(r, d, m, now); err != nil {
			t.Fatal(err)
		}
	})
	if got > recorded {
		t.Errorf("%v allocations a request, %d recorded", got, recorded)
	}
}

// TestAllocationsAuthorization: a header that was signed is only looked up.
func TestAllocationsAuthorization(t *testing.T) {
	v, err := newVapid(config())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	got := testing.AllocsPerRun(100, func() {
		if _, err := v.authorization("https://fcm.googleapis.com", at); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations a header", got)
	}
}
