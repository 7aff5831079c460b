package wire

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/belfry/belfry/senders/wire/wiretest"
)

// ok is the header block of a bare 200.
var ok = wiretest.OK

// quick is the cheapest server that there is, for what knows clientTLS.
func quick(tb testing.TB, answer []byte) (addr string) {
	tb.Helper()
	return wiretest.Quick(tb, serverTLS("h2"), answer)
}

// pump keeps requests in flight: each result sends its request again, until n have been answered.
type pump struct {
	client *Client
	left   atomic.Int64
	ended  atomic.Int64
	n      int64
	failed atomic.Pointer[string]
	done   chan struct{}
	again  []*Request
}

func (p *pump) Answered(results []Result) {
	p.again = p.again[:0]
	for i := range results {
		if r := &results[i]; r.Status != 200 {
			text := fmt.Sprintf("status %d, error %v", r.Status, r.Err)
			p.failed.Store(&text)
		}
		if p.left.Add(-1) >= 0 {
			p.again = append(p.again, results[i].Request)
		}
	}
	if len(p.again) > 0 {
		p.client.Send(p.again)
	}
	if p.ended.Add(int64(len(results))) == p.n {
		close(p.done)
	}
}

// run sends n requests, with at most flying at a time.
func (p *pump) run(requests []*Request, n int) {
	p.n = int64(n)
	p.done = make(chan struct{})
	p.ended.Store(0)
	first := min(n, len(requests))
	p.left.Store(int64(n - first))
	p.client.Send(requests[:first])
	<-p.done
}

// push is a request such as a lane sends to APNs: 160 bytes of fields of its own, and a body of 256.
func push(h Handler, i int) *Request {
	id := fmt.Sprintf("8f1b7a3e-%04x-8%03x-9a0b-1c2d3e4f5a6b", i, i&0xfff)
	return &Request{
		Path: "/3/device/abc", Body: make([]byte, 256), Handler: h, Timeout: time.Hour,
		Fields: []Field{
			{Name: "authorization", Value: "bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQ0RFRkdISUoifQ.eyJpc3MiOiJURUFNSUQifQ.c2lnbmF0dXJl", Kind: Shared},
			{Name: "apns-topic", Value: "com.example.app", Kind: Shared},
			{Name: "apns-push-type", Value: "alert", Kind: Shared},
			{Name: "apns-priority", Value: "10", Kind: Shared},
			{Name: "apns-expiration", Value: "1795651200", Kind: Shared},
			{Name: "apns-id", Value: id},
			{Name: "apns-collapse-id", Value: id},
		},
	}
}

func pushes(h Handler, n int) []*Request {
	requests := make([]*Request, n)
	for i := range requests {
		requests[i] = push(h, i)
	}
	return requests
}

func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func benchmark(b *testing.B, addr string) {
	c := New(Options{Addr: addr, TLS: clientTLS(), MaxConns: 1})
	defer c.Close()
	p := &pump{client: c}
	requests := pushes(p, 900)
	p.run(requests, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	p.run(requests, b.N)
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.StopTimer()
	if text := p.failed.Load(); text != nil {
		b.Fatal(*text)
	}
}

// BenchmarkFramer has client and server in one process: its CPU is of both.
func BenchmarkFramer(b *testing.B) { benchmark(b, quick(b, ok)) }

// BenchmarkNghttpd has the server in a process of its own: the CPU is the client's.
func BenchmarkNghttpd(b *testing.B) { benchmark(b, nghttpd(b, "-m", "1000", "-w", "20", "-W", "30")) }
