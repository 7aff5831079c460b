package webpush

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/senders/wire"
)

// TestConformance has one case for each row of provider-semantics 2.3 and what it says of single vendors, answered by a
// server over HTTP/2.
func TestConformance(t *testing.T) { eachTransport(t, testConformance) }

func testConformance(t *testing.T, c Config) {
	drop := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED}
	gone := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED}
	accepted := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	stop := senders.Verdict{Next: senders.Stop, Scope: senders.ScopeDestination}
	slow := senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination, Slow: true}
	ill := senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination}
	later := senders.Verdict{Next: senders.Later}
	again := senders.Verdict{Next: senders.Again}

	type before int
	const (
		nothing before = iota
		success        // the origin accepted something just now
		twice          // and this delivery met the same answer before
		burst          // the same answer came 19 times in a row
	)
	tests := []struct {
		status int
		body   string
		before before
		code   string
		want   senders.Verdict
	}{
		{201, "", nothing, "", accepted},
		{200, "", nothing, "", accepted},
		{202, "", nothing, "", accepted},
		{301, "", nothing, "301", drop},
		{307, "", nothing, "307", drop},
		{308, "", nothing, "308", drop},
		{400, "", success, "400", drop},
		{400, "", burst, "400", stop},
		{400, `{"code":400,"errno":111}`, success, "400-111", drop},
		{401, `{"code":401,"errno":109}`, nothing, "401-109", later},
		{401, `{"code":401,"errno":109}`, success, "401-109", later},
		{401, `{"code":401,"errno":109}`, twice, "401-109", drop},
		{401, `{"code":401,"errno":109}`, burst, "401-109", stop},
		{403, "", success, "403", later},
		{403, "", twice, "403", drop},
		{403, "", burst, "403", stop},
		{403, `{"reason":"BadJwtToken"}`, success, "BadJwtToken", stop},
		{403, `{"reason":"VapidPkHashMismatch"}`, twice, "VapidPkHashMismatch", drop},
		{400, `{"reason":"BadVapidPublicKey"}`, success, "BadVapidPublicKey", stop},
		{400, `{"reason":"BadWebPushTopic"}`, success, "BadWebPushTopic", drop},
		{404, `{"code":404,"errno":102}`, nothing, "404-102", gone},
		{406, "", nothing, "406", slow},
		{410, `{"code":410,"errno":106}`, nothing, "410-106", gone},
		{413, `{"code":413,"errno":104}`, nothing, "413-104", drop},
		{429, "", nothing, "429", slow},
		{500, "", nothing, "500", ill},
		{502, `{"code":502,"errno":901}`, nothing, "502-901", later},
		{503, `{"code":503,"errno":201}`, nothing, "503-201", slow},
		{503, `{"code":503,"errno":202}`, nothing, "503-202", again},
		{504, "<html>", nothing, "504", ill},
		{418, "", nothing, "418", drop},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.status, tt.body, tt.before), func(t *testing.T) {
			s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/good":
					w.WriteHeader(http.StatusCreated)
				case "/bad":
					w.Header().Set("Retry-After", "9")
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(tt.status)
					_, _ = w.Write([]byte(tt.body))
				default:
					t.Errorf("a redirect to %s was followed", r.URL.Path)
				}
			})
			p, m := serving(t, c, s), compile(t, &pb.Message{})
			switch tt.before {
			case success, twice:
				send(t, p, delivery(s.URL+"/good"), m)
			case burst:
				for range 19 {
					send(t, p, delivery(s.URL+"/bad"), m)
				}
			}
			tt.want.Code = tt.code
			if tt.want != accepted {
				tt.want.After = 9 * time.Second
			}
			d := delivery(s.URL + "/bad")
			if tt.before == twice {
				d.LastCode = tt.code
			}
			if diff := cmp.Diff(tt.want, send(t, p, d, m)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzClassify(f *testing.F) {
	p := provider(f, config())
	request := &senders.Request{Destination: senders.Destination{App: "demo", Name: "other"}, Delivery: delivery("")}
	f.Add(503, `{"errno":202}`)
	f.Add(403, `{"reason":"BadJwtToken"}`)
	f.Add(410, `{"errno":"x"}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		v := p.Classify(request, &wire.Result{Status: status, Body: []byte(body)})
		if v.Outcome == pb.Outcome_OUTCOME_ACCEPTED && (status < 200 || status > 299) {
			t.Errorf("%d was taken for a success", status)
		}
		if v.Outcome == pb.Outcome_OUTCOME_UNREGISTERED && status != 404 && status != 410 {
			t.Errorf("%d ended a device", status)
		}
		if v.Next == senders.End && v.Outcome == pb.Outcome_OUTCOME_UNSPECIFIED || len(v.Code) > 64 {
			t.Errorf("%d %q: %+v", status, body, v)
		}
	})
}
