package webpush

import (
	"net/http"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
)

// BenchmarkSend is one push at a time, to a server that does not decrypt.
func BenchmarkSend(b *testing.B) {
	s := exchangetest.Serve(b, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	p := serving(b, config(), s)
	m := compile(b, &pb.Message{Content: &pb.Content{Title: "Hi {{ attributes.name }}"}})
	d := delivery(s.URL + "/x")
	b.ReportAllocs()
	for b.Loop() {
		if v := send(b, p, d, m); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
			b.Fatal(v)
		}
	}
}
