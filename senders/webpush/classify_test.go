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

// TestConformance has one case for each row of docs/providers.md, "Web Push", answered by a server over HTTP/2.
func TestConformance(t *testing.T) { eachTransport(t, testConformance) }

func testConformance(t *testing.T, c Config) {
	const (
		device = senders.OfDevice
		key    = senders.OfDevice | senders.OfCredential
		target = senders.OfDevice | senders.OfService
	)
	drop := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: device}
	gone := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: device}
	wrong := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfMessage}
	malformed := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: key | senders.OfMessage}
	stale := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: key}
	refused := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: key}
	once := senders.Verdict{Next: senders.Later, Of: key}
	accepted := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	stop := senders.Verdict{Next: senders.Stop, Of: senders.OfCredential}
	ill := senders.Verdict{Next: senders.Later, Of: target}
	slow := senders.Verdict{Next: senders.Later, Of: target, Slow: true}
	limited := senders.Verdict{Next: senders.Later, Of: target, Slow: true, Limited: true}
	again := senders.Verdict{Next: senders.Again}

	tests := []struct {
		status int
		body   string
		// twice says that the delivery met the same answer before.
		twice bool
		code  string
		want  senders.Verdict
	}{
		{201, "", false, "", accepted},
		{200, "", false, "", accepted},
		{202, "", false, "", accepted},
		{301, "", false, "301", drop},
		{307, "", false, "307", drop},
		{308, "", false, "308", drop},
		{400, "", false, "400", malformed},
		{400, `{"code":400,"errno":111}`, false, "400-111", wrong},
		{400, `{"code":400,"errno":110}`, false, "400-110", malformed},
		{405, "", false, "405", stop},
		{401, `{"code":401,"errno":109}`, false, "401-109", once},
		{401, `{"code":401,"errno":109}`, true, "401-109", refused},
		{403, "", false, "403", once},
		{403, "", true, "403", refused},
		{403, `{"reason":"BadJwtToken"}`, false, "BadJwtToken", stop},
		{403, `{"reason":"VapidPkHashMismatch"}`, false, "VapidPkHashMismatch", stale},
		{400, `{"reason":"VapidPkHashMismatch"}`, false, "VapidPkHashMismatch", stale},
		{400, `{"reason":"BadVapidPublicKey"}`, false, "BadVapidPublicKey", stop},
		{400, `{"reason":"BadWebPushTopic"}`, false, "BadWebPushTopic", wrong},
		{400, `{"reason":"BadTtl"}`, false, "BadTtl", wrong},
		{400, `{"reason":"BadUrgency"}`, false, "BadUrgency", wrong},
		{404, `{"code":404,"errno":102}`, false, "404-102", gone},
		{406, "", false, "406", limited},
		{410, `{"code":410,"errno":106}`, false, "410-106", gone},
		{413, `{"code":413,"errno":104}`, false, "413-104", drop},
		{429, "", false, "429", limited},
		{500, "", false, "500", ill},
		{502, `{"code":502,"errno":901}`, false, "502-901", ill},
		{503, `{"code":503,"errno":201}`, false, "503-201", slow},
		{503, `{"code":503,"errno":202}`, false, "503-202", again},
		{504, "<html>", false, "504", ill},
		{507, `{"code":50701}`, false, "507", ill},
		{418, "", false, "418", drop},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.status, tt.body, tt.twice), func(t *testing.T) {
			s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/bad" {
					t.Errorf("a redirect to %s was followed", r.URL.Path)
				}
				w.Header().Set("Retry-After", "9")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			})
			p, m := serving(t, c, s), compile(t, &pb.Message{})
			tt.want.Code = tt.code
			if tt.want.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
				tt.want.After = 9 * time.Second
			}
			d := delivery(s.URL + "/bad")
			if tt.twice {
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
		if v.Outcome == pb.Outcome_OUTCOME_UNREGISTERED && status != 404 && status != 410 && v.Of&senders.OfCredential == 0 {
			t.Errorf("%d ended a device", status)
		}
		if v.Next == senders.End && v.Outcome == pb.Outcome_OUTCOME_UNSPECIFIED || len(v.Code) > 64 {
			t.Errorf("%d %q: %+v", status, body, v)
		}
	})
}
