package producer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Counts are books: planned = accepted + unregistered + rejected + expired + cancelled + dead + pending, at every moment.
type Counts struct {
	Planned      uint64 `json:"planned" doc:"Deliveries made of the audience so far: all there will be once all chunks are expanded"`
	Accepted     uint64 `json:"accepted"`
	Unregistered uint64 `json:"unregistered" doc:"The provider knows the device no more"`
	Rejected     uint64 `json:"rejected"`
	Expired      uint64 `json:"expired"`
	Cancelled    uint64 `json:"cancelled"`
	Dead         uint64 `json:"dead" doc:"Given up after all attempts, or unreadable: kept in the dead letters"`
	Pending      uint64 `json:"pending"`
	Deferred     uint64 `json:"deferred" doc:"Not an end: how many times a delivery was put off"`
	Chunks       uint32 `json:"chunks" doc:"Slices of the audience"`
	Expanded     uint32 `json:"expanded" doc:"How many of them have become deliveries"`
}

// PlatformProgress is the progress on one platform.
type PlatformProgress struct {
	Counts
	Codes map[string]uint64 `json:"codes,omitempty" doc:"How often each code other than accepted was met"`
}

// Progress is how far a campaign is.
type Progress struct {
	Campaign string `json:"campaign"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Counts
	Rate      float64                     `json:"rate" doc:"Outcomes per second, over the last ten seconds"`
	Platforms map[string]PlatformProgress `json:"platforms"`
}

type progressInput struct {
	CampaignPath
	Accept string `header:"Accept" doc:"text/event-stream for an event a second until the campaign has ended"`
}

const (
	progressEvery = time.Second
	// keepAlive is how often an unchanged progress is sent, so that no proxy takes the stream for dead.
	keepAlive = 15 * time.Second
)

func (s *Server) progressRoute(api huma.API) {
	op := operation(http.MethodGet, "/campaigns/{id}/progress", "campaign-progress", ScopeRead, "Follow a campaign",
		"Counts what has become of the campaign's deliveries. With Accept: text/event-stream it is sent as events named progress, when it changes and at most once a second, until the campaign has ended and nothing is pending; then comes one named end.",
		http.StatusOK, http.StatusNotFound)
	op.Responses = map[string]*huma.Response{"200": {Description: "The progress", Content: map[string]*huma.MediaType{
		"application/json":  {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Progress](), true, "Progress")},
		"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	huma.Register(api, op, func(ctx context.Context, in *progressInput) (*huma.StreamResponse, error) {
		app := appOf(ctx)
		if _, err := s.known(ctx, app, in.ID); err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			r, w := humago.Unwrap(ctx)
			if strings.Contains(in.Accept, "text/event-stream") {
				s.streamProgress(r.Context(), w, app, in.ID)
				return
			}
			p, _, err := s.follower.progress(app, in.ID, s.now())
			if err != nil {
				s.refuse(ctx, problem(http.StatusInternalServerError, "internal", "The campaign's record cannot be read."))
				return
			}
			ctx.SetHeader("Content-Type", "application/json")
			_ = huma.DefaultJSONFormat.Marshal(w, p) // a client that is gone cannot be told
		}}, nil
	})
}

// streamProgress sends server-sent events until the campaign is over, the client goes, or this process stops.
func (s *Server) streamProgress(ctx context.Context, w http.ResponseWriter, app, id string) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // a body's deadline would end the stream
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var last string
	for quiet := time.Duration(0); ; quiet += progressEvery {
		p, over, err := s.follower.progress(app, id, s.now())
		if err != nil {
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			return
		}
		if string(text) != last || quiet >= keepAlive || over {
			last, quiet = string(text), 0
			event := fmt.Sprintf("event: progress\ndata: %s\n\n", text)
			if over {
				event += "event: end\ndata: {}\n\n"
			}
			_ = control.SetWriteDeadline(time.Now().Add(streamStall))
			if _, err := w.Write([]byte(event)); err != nil || control.Flush() != nil || over {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-s.stopping.Done():
			return
		}
	}
}

// progress counts a campaign. over says that nothing of it will change any more.
func (f *follower) progress(app, id string, now time.Time) (p Progress, over bool, err error) {
	c, err := f.held(app, id)
	if err != nil {
		return p, false, err
	}
	p = Progress{Campaign: id, State: stateNames[c.GetState()], Reason: c.GetReason(), Platforms: map[string]PlatformProgress{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.books[string(schemas.Key(app, id))]
	for _, platform := range schemas.Platforms {
		name := schemas.PlatformName(platform)
		chunks := c.GetChunks()[name]
		account := b.account(platform)
		if chunks == 0 && account == nil {
			continue
		}
		counts := countsOf(account, chunks)
		p.Platforms[name] = PlatformProgress{counts, account.GetCodes()}
		p.add(counts)
	}
	p.Rate = b.rate(now)
	return p, ended(c.GetState()) && p.Pending == 0 && p.Expanded == p.Chunks, nil
}

func (b *books) account(p pb.Platform) *pb.Account {
	if b == nil {
		return nil
	}
	return b.accounts[p]
}

// rate is how many outcomes came per second, from the oldest sample to now.
func (b *books) rate(now time.Time) float64 {
	if b == nil || len(b.samples) < 2 {
		return 0
	}
	first, last := b.samples[0], b.samples[len(b.samples)-1]
	if now.Sub(last.at) > rateWindow {
		return 0
	}
	return float64(last.ends-first.ends) / last.at.Sub(first.at).Seconds()
}

func countsOf(a *pb.Account, chunks uint32) Counts {
	return Counts{
		Planned: a.GetPlanned(), Accepted: a.GetAccepted(), Unregistered: a.GetUnregistered(), Rejected: a.GetRejected(),
		Expired: a.GetExpired(), Cancelled: a.GetCancelled(), Dead: a.GetDead(), Deferred: a.GetDeferred(),
		// A result may overtake the count of its chunk, which come in different commits: nothing is pending then.
		Pending: a.GetPlanned() - min(a.GetPlanned(), endsOf(a)),
		Chunks:  max(chunks, a.GetChunksTotal()), Expanded: a.GetChunksExpanded(),
	}
}

func (c *Counts) add(o Counts) {
	c.Planned += o.Planned
	c.Accepted += o.Accepted
	c.Unregistered += o.Unregistered
	c.Rejected += o.Rejected
	c.Expired += o.Expired
	c.Cancelled += o.Cancelled
	c.Dead += o.Dead
	c.Pending += o.Pending
	c.Deferred += o.Deferred
	c.Chunks += o.Chunks
	c.Expanded += o.Expanded
}
