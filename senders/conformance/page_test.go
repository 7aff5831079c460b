package conformance

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/simulator"
)

// row is a line of docs/providers.md. That the simulator answers so is its own test (simulator/providers_test.go).
type row struct{ platform, service, note, suspects, does string }

func (r row) String() string { return r.platform + " " + r.service + r.note }

// page reads the tables of the three platforms, with "as above" filled in.
func page(t *testing.T) (rows []row) {
	b, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	platforms := map[string]string{"APNs": "apns", "FCM": "fcm", "Web Push": "webpush"}
	platform, does := "", ""
	for line := range strings.Lines(string(b)) {
		if section, ok := strings.CutPrefix(line, "## "); ok {
			platform = platforms[strings.TrimSpace(section)]
		}
		if platform == "" || !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		answer, note, _ := strings.Cut(strings.Trim(cells[0], " `"), "`")
		r := row{platform, answer, note, strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])}
		if strings.HasPrefix(r.does, "as above") {
			r.does = does
		}
		does = r.does
		rows = append(rows, r)
	}
	return rows
}

// answer is the row's in the provider's words.
func (r row) answer(t *testing.T) *wire.Result {
	words := strings.Fields(r.service)
	vendor := ""
	if r.platform == "webpush" {
		vendor, words = words[0], words[1:]
	}
	status, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatalf("%v has no status", r)
	}
	word := strings.Join(words[1:], " ")
	res := &wire.Result{Status: status, Sent: true}
	switch {
	case status < 300:
	case r.platform == "apns", vendor == "apple":
		res.Body = fmt.Appendf(nil, `{"reason":%q}`, word)
	case r.platform == "fcm":
		res.Body = r.google(status, word)
	case vendor == "mozilla":
		res.Body = fmt.Appendf(nil, `{"code":%d,"errno":%s}`, status, word)
	case vendor == "ntfy":
		res.Body = fmt.Appendf(nil, `{"code":%s,"http":%d}`, word, status)
	case vendor == "windows":
		res.Header = wire.NewHeader(http.Header{"X-Wns-Status": {word}})
	}
	return res
}

func (r row) google(status int, word string) []byte {
	detail := fmt.Sprintf(`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":%q}`, word)
	switch {
	case word == "NOT_FOUND" || word == "UNAUTHENTICATED" || word == "PERMISSION_DENIED":
		detail = "" // Google's own words
	case strings.Contains(r.note, "fieldViolations"):
		detail += `,{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.android.ttl"}]}`
	case strings.Contains(r.note, "device's quota"):
		detail += `,{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"subject":"token:x","description":"Device message rate exceeded"}]}`
	case strings.Contains(r.note, "project's quota"):
		detail += `,{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"subject":"project:1","description":"messages a minute"}]}`
	}
	return fmt.Appendf(nil, `{"error":{"code":%d,"status":%q,"details":[%s]}}`, status, word, detail)
}

// verdict is what the page says becomes of a delivery.
func (r row) verdict(t *testing.T) senders.Verdict {
	end := func(o pb.Outcome) senders.Verdict { return senders.Verdict{Next: senders.End, Outcome: o} }
	does := strings.TrimPrefix(strings.TrimPrefix(r.does, "held; "), "the device's: ")
	does = strings.TrimPrefix(does, "the message's: ")
	switch {
	case strings.HasPrefix(does, "accepted"):
		return end(pb.Outcome_OUTCOME_ACCEPTED)
	case strings.HasPrefix(does, "unregistered"):
		return end(pb.Outcome_OUTCOME_UNREGISTERED)
	case strings.HasPrefix(does, "rejected"):
		return end(pb.Outcome_OUTCOME_REJECTED)
	case strings.HasPrefix(does, "stopped"):
		return senders.Verdict{Next: senders.Stop}
	case strings.HasPrefix(does, "token renewed"):
		return senders.Verdict{Next: senders.Refresh}
	case strings.HasPrefix(does, "sent again at once"):
		return senders.Verdict{Next: senders.Again}
	case strings.HasPrefix(does, "put off"), strings.HasPrefix(does, "a rate"), strings.HasPrefix(does, "asked again once"):
		return senders.Verdict{Next: senders.Later, Limited: strings.Contains(does, "rate")}
	}
	t.Errorf("%v: nobody knows what %q means", r, r.does)
	return senders.Verdict{}
}

// of are the page's suspects.
func (r row) of() (of senders.Suspects) {
	if strings.HasPrefix(r.suspects, "message, with this device's") {
		return senders.OfDevice
	}
	for word, s := range map[string]senders.Suspects{
		"device": senders.OfDevice, "message": senders.OfMessage, "credential": senders.OfCredential, "service": senders.OfService,
	} {
		if strings.Contains(r.suspects, word) {
			of |= s
		}
	}
	return of
}

// Every row of the page goes through its platform's own code. Whose topic a refused one is, TestConformance of senders/apns has.
func TestThePageIsWhatIsDone(t *testing.T) {
	w := start(t, simulator.Population{Seed: 3, Devices: 60}, false)
	m := campaign(t)
	rows := page(t)
	for _, r := range rows {
		d := proto.CloneOf(w.devices[r.platform][0])
		d.Run = r.service // what FCM has taken of another campaign says nothing of this one
		p := w.platforms[r.platform]
		req := &senders.Request{}
		if err := p.Encode(req, d, m, time.Now()); err != nil {
			t.Fatal(err)
		}
		got, want := p.Classify(req, r.answer(t)), r.verdict(t)
		if strings.Contains(r.suspects, "topic's owner") { // here it is the configuration's
			want = senders.Verdict{Next: senders.Stop}
			if strings.Contains(r.suspects, "device") {
				want = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED}
			}
		} else if got.Of != r.of() && !strings.Contains(r.does, "put off; the token") && !strings.Contains(r.suspects, "for its Apple") && r.suspects != "service" {
			t.Errorf("%v: of %b, where the page has %q", r, got.Of, r.suspects)
		}
		if got.Next != want.Next || got.Outcome != want.Outcome || got.Limited != want.Limited {
			t.Errorf("%v: %+v, where the page has %q", r, got, r.does)
		}
	}
	if len(rows) < 100 {
		t.Errorf("there are %d rows", len(rows))
	}
}
