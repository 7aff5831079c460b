package webpush

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
)

// ends gathers how requests ended that did not go on to the wire.
type ends struct {
	mu      sync.Mutex
	results []wire.Result
}

func (e *ends) Answered(results []wire.Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.results = append(e.results, results...)
}

// plain is n requests for alice, whose texts name them.
func plain(name string, n int, h wire.Handler) []*senders.Request {
	batch := make([]*senders.Request, n)
	for i := range batch {
		batch[i] = &senders.Request{Delivery: delivery("https://push.example/x"), Plain: fmt.Appendf(nil, "%s %d", name, i)}
		batch[i].Handler = h
	}
	return batch
}

// wireless is a client that keeps what it gets, and reads it as alice's browser does.
type wireless struct {
	mu   sync.Mutex
	read []string
	// gate, when set, is taken from before each part is kept; waiting counts those that have come to it.
	gate    chan struct{}
	waiting chan int
	busy    atomic.Int32
	most    atomic.Int32
}

func (w *wireless) Send(batch []*wire.Request) {
	n := w.busy.Add(1)
	for most := w.most.Load(); n > most && !w.most.CompareAndSwap(most, n); most = w.most.Load() {
	}
	if w.gate != nil {
		w.waiting <- len(batch)
		<-w.gate
	}
	w.mu.Lock()
	for _, r := range batch {
		text, err := alice().decrypt(r.Body)
		if err != nil {
			text = []byte(err.Error())
		}
		w.read = append(w.read, string(text))
	}
	w.mu.Unlock()
	w.busy.Add(-1)
}

func TestSealedOnceEach(t *testing.T) {
	s := newSealers()
	var got wireless
	var want []string
	var sending sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		for i := range 50 {
			want = append(want, fmt.Sprintf("%s %d", name, i))
		}
		sending.Go(func() {
			batch := plain(name, 50, nil)
			s.seal(batch, name == "b", 256, got.Send)
			clear(batch) // the slice is the caller's again at once
		})
	}
	sending.Wait()
	s.close()
	slices.Sort(want)
	slices.Sort(got.read)
	if !slices.Equal(want, got.read) {
		t.Errorf("%d of %d messages were read: %q", len(got.read), len(want), got.read)
	}
}

func TestUrgentPassesBulk(t *testing.T) {
	s := &sealers{limit: 1}
	got := &wireless{gate: make(chan struct{}), waiting: make(chan int)}
	s.seal(plain("bulk", 5*chunkSize, nil), false, 256, got.Send)
	if n := <-got.waiting; n != chunkSize {
		t.Fatalf("a campaign's first part has %d", n)
	}
	s.seal(plain("urgent", 1, nil), true, 256, got.Send)
	got.gate <- struct{}{}
	if n := <-got.waiting; n != 1 {
		t.Errorf("after the campaign's first part came one of %d, not the urgent message", n)
	}
	got.gate <- struct{}{}
	for range 4 {
		<-got.waiting
		got.gate <- struct{}{}
	}
	s.close()
	if len(got.read) != 5*chunkSize+1 || got.read[chunkSize] != "urgent 0" {
		t.Errorf("read %q", got.read)
	}
}

func TestSealersAreBounded(t *testing.T) {
	s := &sealers{limit: 3}
	got := &wireless{gate: make(chan struct{}), waiting: make(chan int, 100)}
	for range 10 {
		s.seal(plain("x", 2*chunkSize, nil), false, 256, got.Send)
	}
	for range 3 { // all of them are at it
		<-got.waiting
	}
	close(got.gate)
	s.close()
	if n := got.most.Load(); n != 3 || s.running != 0 || len(got.read) != 20*chunkSize {
		t.Errorf("%d at once, %d left over, %d messages", n, s.running, len(got.read))
	}
}

func TestWhatCannotBeSealedEnds(t *testing.T) {
	s := newSealers()
	var got wireless
	ended := &ends{}
	batch := plain("x", 4, ended)
	batch[1].Delivery.Target.GetWebpush().P256Dh = make([]byte, 65)
	batch[2].Plain = bytes.Repeat([]byte("x"), 4000)
	s.seal(batch, false, 256, got.Send)
	s.close()
	s.seal(plain("late", 1, ended), false, 256, got.Send)
	slices.Sort(got.read)
	if !slices.Equal(got.read, []string{"x 0", "x 3"}) || len(ended.results) != 3 {
		t.Fatalf("sent %q, %d ended", got.read, len(ended.results))
	}
	for i, want := range []string{"bad-subscription", "payload-too-large"} {
		var refusal *senders.Refusal
		if res := ended.results[i]; res.Request != &batch[i+1].Request || !errors.As(res.Err, &refusal) || refusal.Code != want || refusal.Outcome != pb.Outcome_OUTCOME_REJECTED {
			t.Errorf("ended with %v, want %s", res.Err, want)
		}
	}
	if err := ended.results[2].Err; !errors.Is(err, wire.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// BenchmarkSeal is a campaign's messages, on all cores but one.
func BenchmarkSeal(b *testing.B) {
	s := newSealers()
	const size = 64
	batch := plain("x", size, nil)
	for _, r := range batch {
		r.Plain = make([]byte, 300)
	}
	done := make(chan struct{})
	var n atomic.Int64
	send := func(part []*wire.Request) {
		if n.Add(int64(len(part)))%size == 0 {
			done <- struct{}{}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s.seal(batch, false, 256, send)
		<-done
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/message")
	s.close()
}
