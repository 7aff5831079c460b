package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// nowhere is a response that costs nothing.
type nowhere struct {
	header http.Header
	status int
}

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(status int)      { n.status = status }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }

// request is what pusher sends, with the body in hand.
func (p *pusher) request(n int) (*http.Request, []byte) {
	id := deliveryID(n).String()
	text := strings.Repeat("Personal words for Ada. ", 10)
	var body []byte
	var r *http.Request
	switch d := p.device; d.service.platform() {
	case "apns":
		body = fmt.Appendf(nil, `{"aps":{"alert":{"title":"Hello Ada","body":%q},"sound":"default"}}`, text)
		h := apnsHeader(p.t, p.app)
		h["apns-id"], h["Authorization"] = id, p.auth
		r = post(p.t, p.sim.URL(d.service)+"/3/device/"+p.sim.world.apnsToken(d.target), h, body)
	case "fcm":
		name, value := "token", p.sim.world.fcmToken(d.target)
		if d.fid {
			name, value = "fid", p.sim.world.fid(d.target)
		}
		body = fmt.Appendf(nil, `{"message":{%q:%q,"notification":{"title":"Hello Ada","body":%q},"data":{"belfry_id":%q},"android":{"priority":"HIGH","ttl":"3600s","notification":{"tag":"x"}}}}`,
			name, value, text, id)
		r = post(p.t, p.sim.URL(FCM)+"/v1/projects/"+p.app.Project+"/messages:send",
			map[string]string{"Authorization": p.auth, "Content-Type": "application/json"}, body)
	default:
		body = sealed{plain: fmt.Appendf(nil, `{"id":%q,"title":"Hello Ada","body":%q}`+"\x02", id, text)}.bytes(p.t, p.sim, d)
		r = post(p.t, endpointOf(p.sim, d), map[string]string{"Authorization": p.auth, "TTL": "60", "Content-Encoding": "aes128gcm"}, body)
	}
	return r, body
}

// BenchmarkHandler is what a push costs the simulator itself, HTTP aside.
func BenchmarkHandler(b *testing.B) {
	s := start(b, nil)
	for _, svc := range []Service{APNs, FCM, Mozilla} {
		b.Run(svc.String(), func(b *testing.B) {
			p := newPusher(b, s, "demo", svc)
			r, body := p.request(1)
			r = r.WithContext(context.WithValue(r.Context(), connKey{}, &conn{}))
			r.RequestURI = r.URL.RequestURI()
			reader := bytes.NewReader(body)
			r.Body = io.NopCloser(reader)
			w := &nowhere{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				s.endpoints[svc].ServeHTTP(w, r)
			}
			if w.status/100 != 2 {
				b.Fatal(w.status)
			}
		})
	}
}

// BenchmarkEndToEnd is the same with net/http's server and TLS, and net/http's client, which is the dearer half.
func BenchmarkEndToEnd(b *testing.B) {
	s := start(b, nil)
	for _, svc := range []Service{APNs, FCM, Mozilla} {
		b.Run(svc.String(), func(b *testing.B) {
			p := newPusher(b, s, "demo", svc)
			config := p.client.Transport.(*http.Transport).TLSClientConfig
			tr := &http.Transport{
				TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true,
				HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true},
			}
			tr.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			defer tr.CloseIdleConnections()
			proto, body := p.request(1)
			var failed atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(50)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r := proto.Clone(context.Background())
					r.Body, r.GetBody = io.NopCloser(bytes.NewReader(body)), nil
					res, err := tr.RoundTrip(r)
					if err != nil || res.StatusCode/100 != 2 {
						failed.Add(1)
						continue
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
			if n := failed.Load(); n > 0 {
				b.Errorf("%d failed", n)
			}
		})
	}
}

func BenchmarkWriteDevices(b *testing.B) {
	s := start(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.WriteDevices(io.Discard, "demo"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/device")
}
