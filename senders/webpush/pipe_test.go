package webpush

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/senders/wire"
)

// counted waits for as many results as were asked for.
type counted struct {
	p    *Provider
	left sync.WaitGroup

	mu    sync.Mutex
	codes map[string]int // how many ended so
}

func (c *counted) Answered(results []wire.Result) {
	c.mu.Lock()
	for i := range results {
		r := results[i].Request.Tag.(*senders.Request)
		v := c.p.Classify(r, &results[i])
		c.codes[fmt.Sprint(v.Outcome, " ", v.Code)]++
	}
	c.mu.Unlock()
	c.left.Add(-len(results))
}

// A batch of both transports' kind: many requests, over as few connections as carry them, each answered once.
func TestABatchByWire(t *testing.T) {
	var mu sync.Mutex
	read := map[string]int{}
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if _, err := alice().decrypt(b); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		read[r.URL.Path+" "+r.Header.Get("Urgency")]++
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	c := config()
	c.Wire = true
	p := serving(t, c, s)
	done := &counted{p: p, codes: map[string]int{}}
	m := compile(t, &pb.Message{Content: &pb.Content{Title: "Hi {{ attributes.name }}"}})
	batch := func(class pb.Class, n int, path string) (out []*senders.Request) {
		for range n {
			d, r := delivery(s.URL+path), &senders.Request{}
			d.Class = class
			r.Handler, r.Tag, r.Timeout = done, r, time.Minute
			if err := p.Encode(r, d, m, now); err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return out
	}
	bulk, urgent := append(batch(pb.Class_CLASS_BULK, 200, "/x"), batch(pb.Class_CLASS_BULK, 3, "/gone")...), batch(pb.Class_CLASS_URGENT, 5, "/x")
	done.left.Add(len(bulk) + len(urgent))
	p.Send(bulk)
	p.Send(urgent)
	done.left.Wait()
	if done.codes["OUTCOME_ACCEPTED "] != 205 || done.codes["OUTCOME_UNREGISTERED 410"] != 3 {
		t.Errorf("ended %v", done.codes)
	}
	if read["/x normal"] != 200 || read["/x high"] != 5 || read["/gone normal"] != 3 {
		t.Errorf("the server read %v", read)
	}
	// The test's server takes 250 streams on a connection.
	if n := s.Connections.Load(); n < 2 || n > 4 {
		t.Errorf("%d connections; a campaign and an urgent message share none", n)
	}
	// As it is, a request may be sent again; it is encrypted anew.
	before := string(bulk[0].Body)
	done.left.Add(1)
	p.Send(bulk[:1])
	done.left.Wait()
	if string(bulk[0].Body) == before {
		t.Error("the same key and nonce were used twice")
	}
}

func TestWhatIsInFlightEndsWithTheProvider(t *testing.T) {
	reached := make(chan struct{}, 10)
	s := exchangetest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-r.Context().Done()
	})
	c := config()
	c.Wire = true
	p := serving(t, c, s)
	done := &counted{p: p, codes: map[string]int{}}
	r := &senders.Request{}
	r.Handler, r.Tag = done, r
	if err := p.Encode(r, delivery(s.URL), compile(t, &pb.Message{}), now); err != nil {
		t.Fatal(err)
	}
	send := func() {
		done.left.Add(1)
		p.Send([]*senders.Request{r})
	}
	send()
	<-reached
	a := p.apps["demo"]
	p.sealers.close()
	a.clients.close()
	done.left.Wait()
	send() // and so does what comes too late
	a.client.Close()
	done.left.Wait()
	if done.codes["OUTCOME_UNSPECIFIED interrupted"] != 2 {
		t.Errorf("ended %v", done.codes)
	}
}

// Whoever registers devices may name any origin; what that opens is bounded.
func TestClientsAreBounded(t *testing.T) {
	c := newClients(nil, nil)
	defer c.close()
	begin := time.Now()
	origin := func(i int) string { return fmt.Sprintf("https://%d.example", i) }
	for i := range maxClients {
		if c.of(origin(i), false, begin.Add(time.Duration(i))) == nil {
			t.Fatalf("no client for origin %d", i)
		}
	}
	if c.of(origin(maxClients), false, begin) != nil || c.of(origin(0), true, begin) != nil {
		t.Error("one too many has a client")
	}
	if first := c.of(origin(0), false, begin.Add(clientIdle)); first == nil || first != c.of(origin(0), false, begin.Add(clientIdle)) {
		t.Error("one that was there has none, or two")
	}
	later := begin.Add(clientIdle + time.Second)
	if c.of(origin(maxClients), false, later) == nil || len(c.open) != maxClients {
		t.Errorf("no room was made for a new origin; there are %d", len(c.open))
	}
	if c.open[place{origin(0), false}] == nil {
		t.Error("room was made where a client was in use")
	}
	if c.of("http://push.example", false, later) != nil {
		t.Error("plain http goes by wire")
	}
}
