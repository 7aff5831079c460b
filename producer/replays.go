package producer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	defaultRate = 500
	// maxOpen bounds an app's replays that have not ended.
	maxOpen = 32
	// maxReplay bounds a request's body, in bytes.
	maxReplay = 64 << 10
	// seenTimeout is how long a call waits to see its own word on Kafka.
	seenTimeout = 2 * time.Second
)

// ReplayRequest asks for deliveries to be sent again.
type ReplayRequest struct {
	Source string `json:"source,omitempty" enum:"dead,send" default:"dead" doc:"dead: dead letters, under their own ids. send: what a provider has rejected or, with include_accepted, accepted, as new deliveries"`
	Selector
	IncludeAccepted bool    `json:"include_accepted,omitempty" doc:"Of source send: also what was accepted, which may reach people a second time"`
	Rate            float64 `json:"rate,omitempty" minimum:"0.1" maximum:"8000" default:"500" doc:"Deliveries per second on each platform"`
	DryRun          bool    `json:"dry_run,omitempty" doc:"Count, and do and write nothing"`
}

// Replay is one and where it stands.
type Replay struct {
	ID     string `json:"id"`
	State  string `json:"state" enum:"planned,running,paused,finished,cancelled,failed"`
	Detail string `json:"detail,omitempty" doc:"Why it failed"`
	Source string `json:"source"`
	Selector
	IncludeAccepted bool      `json:"include_accepted,omitempty"`
	Rate            float64   `json:"rate"`
	CreatedBy       string    `json:"created_by" doc:"The name of the API key that asked for it"`
	CreatedAt       time.Time `json:"created_at"`
	ChangedBy       string    `json:"changed_by,omitempty" doc:"Who paused, resumed or cancelled it last"`
	ChangedAt       time.Time `json:"changed_at,omitzero"`
	ReplayCounts
	Progress map[string]ReplayProgress `json:"progress" doc:"By platform"`
}

// ReplayCounts are what has become of what was read: matched = sent + expired + replayed + unreadable.
type ReplayCounts struct {
	Read       uint64 `json:"read" doc:"Records looked at"`
	Left       uint64 `json:"left" doc:"Records to look at, about"`
	Matched    uint64 `json:"matched" doc:"Those that are meant"`
	Sent       uint64 `json:"sent"`
	Expired    uint64 `json:"expired" doc:"What has expired stays so"`
	Replayed   uint64 `json:"replayed" doc:"Sent again before, and so not now"`
	Unreadable uint64 `json:"unreadable" doc:"Hold no whole delivery"`
}

// ReplayProgress is how far a replay is on one platform.
type ReplayProgress struct {
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
	ReplayCounts
	StartedAt time.Time `json:"started_at,omitzero"`
	At        time.Time `json:"at,omitzero" doc:"When its last step was written"`
}

type replayInput struct{ Body ReplayRequest }

type replayCreated struct {
	Status int
	Body   ReplayCreated
}

// ReplayCreated is the replay, or of a dry run what it would do.
type ReplayCreated struct {
	Replay *Replay    `json:"replay,omitempty"`
	DryRun *Histogram `json:"dry_run,omitempty"`
}

// ReplayPath is the id in a path. It is exported because huma fills no others.
type ReplayPath struct {
	ID string `path:"id" doc:"The replay's id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"`
}

type replayOutput struct{ Body Replay }

type replayList struct {
	Body struct {
		Replays []Replay `json:"replays" doc:"Newest first, at most 200"`
	}
}

func (s *Server) replayRoutes(api huma.API) {
	create := operation(http.MethodPost, "/replays", "create-replay", ScopeManage, "Send again",
		"Sends dead letters again, or past deliveries. 202: it is on Kafka, and runs by itself. With dry_run it is 200, and nothing is written.",
		http.StatusAccepted, http.StatusTooManyRequests, http.StatusUnprocessableEntity, http.StatusConflict)
	create.MaxBodyBytes = maxReplay
	huma.Register(api, create, s.createReplay)
	huma.Register(api, operation(http.MethodGet, "/replays", "list-replays", ScopeRead, "List replays",
		"Lists the app's replays, newest first: who asked for what, and what became of it.", http.StatusOK), s.listReplays)
	huma.Register(api, operation(http.MethodGet, "/replays/{id}", "get-replay", ScopeRead, "Show a replay",
		"Shows a replay and how far it is.", http.StatusOK, http.StatusNotFound), s.getReplay)
	for _, a := range []struct {
		name, summary, description string
		wish                       pb.ReplayWish
	}{
		{"pause", "Pause a replay", "Sends no more of it until it is resumed.", pb.ReplayWish_REPLAY_WISH_PAUSE},
		{"resume", "Resume a replay", "Goes on where it was.", pb.ReplayWish_REPLAY_WISH_RUN},
		{"cancel", "Cancel a replay", "Ends it for good. What was sent again stays so.", pb.ReplayWish_REPLAY_WISH_CANCEL},
	} {
		op := operation(http.MethodPost, "/replays/{id}/"+a.name, a.name+"-replay", ScopeManage, a.summary,
			a.description+" It acts within two seconds.",
			http.StatusOK, http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests)
		op.MaxBodyBytes = maxReason
		huma.Register(api, op, func(ctx context.Context, in *ReplayPath) (*replayOutput, error) {
			return s.wishReplay(ctx, in.ID, a.wish)
		})
	}
}

func (s *Server) createReplay(ctx context.Context, in *replayInput) (*replayCreated, error) {
	r, problems := in.Body.proto(s.now())
	if len(problems) > 0 {
		return nil, invalid("", problems)
	}
	who := ctx.Value(callerKey{}).(caller)
	r.App, r.CreatedBy, r.CreatedAt = who.app, who.key, s.now().UnixMilli()
	if in.Body.DryRun {
		done, err := s.scanning(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		h, err := s.count(ctx, r)
		if err != nil {
			return nil, err
		}
		return &replayCreated{http.StatusOK, ReplayCreated{DryRun: h}}, nil
	}
	r.Id = derive(ctx, "replay")
	if before, _ := s.replays.asked.Get(r.App, r.Id); before != nil {
		r = before // the same request once more
	} else if s.replays.open(r.App) >= maxOpen {
		return nil, problem(http.StatusConflict, "refused", fmt.Sprintf("%d replays of the app have not ended. Wait for one, or cancel one.", maxOpen))
	}
	if err := s.writeReplay(ctx, r, letters.Platforms(r)); err != nil {
		return nil, err
	}
	form := s.replays.form(r)
	return &replayCreated{http.StatusAccepted, ReplayCreated{Replay: &form}}, nil
}

// proto is the replay that is asked for, without its identity.
func (q *ReplayRequest) proto(now time.Time) (*pb.Replay, message.Problems) {
	filter, problems := q.Selector.proto()
	r := &pb.Replay{
		Source: pb.ReplaySource_REPLAY_SOURCE_DEAD, Filter: filter, IncludeAccepted: q.IncludeAccepted,
		Rate: cmp.Or(q.Rate, defaultRate), Wish: pb.ReplayWish_REPLAY_WISH_RUN,
	}
	fault := func(field, text string) {
		problems = append(problems, message.Problem{Field: field, Text: text})
	}
	if q.Source == "send" {
		r.Source = pb.ReplaySource_REPLAY_SOURCE_SEND
		if q.Since.IsZero() || q.Since.Before(now.Add(-schemas.MaxTTL)) {
			fault("since", "is needed for source send, within the last 7 days: results are kept for so long")
		}
		for _, reason := range q.Reasons {
			if reason == "accepted" && !q.IncludeAccepted {
				fault("include_accepted", "is needed to send again what was accepted")
			}
		}
	} else if q.IncludeAccepted {
		fault("include_accepted", "goes with source send: no dead letter was accepted")
	}
	return r, problems
}

// writeReplay writes the word first, and then the first step of each platform, which begins it there. Steps that come
// twice are ended by the role without a trace, so a call that is tried again finishes what the first one left.
func (s *Server) writeReplay(ctx context.Context, r *pb.Replay, begin []pb.Platform) error {
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Replay{Replay: r}})
	if err != nil {
		return invalid("", err)
	}
	k := s.options.Kafka
	err = s.write(ctx, &kgo.Record{Topic: k.Topic(schemas.TopicControl), Key: schemas.ReplayKey(r.App, r.Id), Value: value})
	if err != nil {
		return err
	}
	step, err := proto.Marshal(&pb.ReplayStep{App: r.App, Id: r.Id})
	if err != nil {
		return invalid("", err)
	}
	records := make([]*kgo.Record, len(begin))
	for i, p := range begin {
		records[i] = &kgo.Record{Topic: k.Topic(schemas.TopicReplays(p)), Key: schemas.Key(r.App, r.Id), Value: step}
	}
	if len(records) > 0 {
		if err := s.write(ctx, records...); err != nil {
			return err
		}
	}
	seen, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	_ = s.replays.asked.CatchUp(seen) // late is as good: it is written
	return nil
}

func (s *Server) wishReplay(ctx context.Context, id string, wish pb.ReplayWish) (*replayOutput, error) {
	who := ctx.Value(callerKey{}).(caller)
	before, err := s.knownReplay(ctx, id)
	if err != nil {
		return nil, err
	}
	form := s.replays.form(before)
	if slices.Contains([]string{"finished", "cancelled", "failed"}, form.State) || before.Wish == pb.ReplayWish_REPLAY_WISH_CANCEL {
		return nil, problem(http.StatusConflict, "refused", "The replay is "+form.State+": it has ended, or is about to. Ask for a new one; it sends what this one left.")
	}
	r := proto.CloneOf(before)
	r.Wish, r.WishedBy, r.WishedAt = wish, who.key, s.now().UnixMilli()
	if err := s.writeReplay(ctx, r, s.replays.unbegun(r)); err != nil {
		return nil, err
	}
	return &replayOutput{s.replays.form(r)}, nil
}

// knownReplay finds a replay, or says that there is none. Another instance may have written it just now.
func (s *Server) knownReplay(ctx context.Context, id string) (*pb.Replay, error) {
	app := appOf(ctx)
	if r, _ := s.replays.asked.Get(app, id); r != nil {
		return r, nil
	}
	seen, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	if err := s.replays.asked.CatchUp(seen); err != nil {
		return nil, s.readProblem(err)
	}
	if r, _ := s.replays.asked.Get(app, id); r != nil {
		return r, nil
	}
	return nil, problem(http.StatusNotFound, "not-found", "The app has no replay with this id.")
}

func (s *Server) getReplay(ctx context.Context, in *ReplayPath) (*replayOutput, error) {
	r, err := s.knownReplay(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &replayOutput{s.replays.form(r)}, nil
}

func (s *Server) listReplays(ctx context.Context, _ *struct{}) (*replayList, error) {
	seen, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	if err := s.replays.asked.CatchUp(seen); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, s.readProblem(err)
	}
	all := s.replays.asked.All(appOf(ctx))
	slices.SortFunc(all, func(a, b *pb.Replay) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), cmp.Compare(a.Id, b.Id))
	})
	out := &replayList{}
	out.Body.Replays = []Replay{}
	for _, r := range all[:min(len(all), 200)] {
		out.Body.Replays = append(out.Body.Replays, s.replays.form(r))
	}
	return out, nil
}
