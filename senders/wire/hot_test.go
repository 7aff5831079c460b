package wire

import (
	"slices"
	"testing"
)

// TestAllocations holds the path of a request to what it allocates: nothing, once the client has been under load.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	// hpack makes a string of each literal of an answer: of apns-id's name and value.
	for want, answer := range map[float64][]byte{0: ok, 2: append(slices.Clone(ok), literals("apns-id", push(nil, 1).Fields[5].Value)...)} {
		c := New(Options{Addr: quick(t, answer), TLS: clientTLS(), MaxConns: 1})
		p := &pump{client: c}
		requests := pushes(p, 500)
		p.run(requests, 20000)
		const each = 10000
		// crypto/tls makes a few for each write, of which there is one for many requests.
		if n := testing.AllocsPerRun(10, func() { p.run(requests, each) }) / each; n > want+0.02 {
			t.Errorf("%.3f allocations for each request, of which %v are recorded", n, want)
		}
		if text := p.failed.Load(); text != nil {
			t.Error(*text)
		}
		c.Close()
	}
}

// BenchmarkBlock is the header block of a request such as a lane's.
func BenchmarkBlock(b *testing.B) {
	blk := newBlock("api.push.apple.com")
	r := push(nil, 1)
	b.ReportAllocs()
	for b.Loop() {
		code, err := blk.encode(r)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(code)))
	}
}

// BenchmarkFields is the header block of an answer such as APNs gives, with an id of its own.
func BenchmarkFields(b *testing.B) {
	var f fields
	f.init()
	answer := &answer{}
	block := append([]byte{0x88}, literals("apns-id", push(nil, 1).Fields[5].Value)...)
	b.ReportAllocs()
	for b.Loop() {
		answer.fields = answer.fields[:0]
		if err := f.decode(block, answer); err != nil {
			b.Fatal(err)
		}
	}
}
