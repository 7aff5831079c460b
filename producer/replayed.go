package producer

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// replays holds the replays that were asked for, and what they have done, as Kafka has them.
type replays struct {
	asked     *letters.Asked
	histories map[pb.Platform]*letters.History
	views     []*stream.View
}

func newReplays(k *stream.Kafka, log *slog.Logger) *replays {
	s := &replays{asked: letters.NewAsked(k), histories: map[pb.Platform]*letters.History{}}
	for _, p := range schemas.Platforms {
		h := letters.NewHistory()
		s.histories[p] = h
		topic := schemas.TopicReplays(p)
		s.views = append(s.views, stream.NewView(k, topic, func(r stream.ViewRecord) {
			if err := h.Apply(r.Value); err != nil {
				log.Warn("a replay's step cannot be read; it is passed over", "topic", topic, "offset", r.Offset, "err", err)
			}
		}))
	}
	return s
}

func (s *replays) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.asked.Run(ctx) })
	for _, v := range s.views {
		g.Go(func() error { return v.Run(ctx) })
	}
	return g.Wait()
}

// progress is how far a replay is on a platform, or nil.
func (s *replays) progress(r *pb.Replay, p pb.Platform) *pb.ReplayProgress {
	if ended := s.asked.Ended(r.App, r.Id, p); ended != nil {
		return ended
	}
	return s.histories[p].Progress(r.App, r.Id)
}

// unbegun are the platforms on which a replay has not begun.
func (s *replays) unbegun(r *pb.Replay) []pb.Platform {
	var platforms []pb.Platform
	for _, p := range letters.Platforms(r) {
		if s.progress(r, p) == nil {
			platforms = append(platforms, p)
		}
	}
	return platforms
}

// open counts an app's replays that have not ended.
func (s *replays) open(app string) (n int) {
	for _, r := range s.asked.All(app) {
		switch s.form(r).State {
		case "planned", "running", "paused":
			n++
		}
	}
	return n
}

var replayStates = map[pb.ReplayState]string{
	pb.ReplayState_REPLAY_STATE_RUNNING:   "running",
	pb.ReplayState_REPLAY_STATE_FINISHED:  "finished",
	pb.ReplayState_REPLAY_STATE_CANCELLED: "cancelled",
	pb.ReplayState_REPLAY_STATE_FAILED:    "failed",
}

var sources = map[pb.ReplaySource]string{
	pb.ReplaySource_REPLAY_SOURCE_DEAD: "dead", pb.ReplaySource_REPLAY_SOURCE_SEND: "send",
}

func (s *replays) form(r *pb.Replay) Replay {
	f := Replay{
		ID: r.Id, Source: sources[r.Source], Selector: selectorOf(r.Filter), IncludeAccepted: r.IncludeAccepted, Rate: r.Rate,
		CreatedBy: r.CreatedBy, CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), ChangedBy: r.WishedBy,
		Progress: map[string]ReplayProgress{},
	}
	if r.WishedAt != 0 {
		f.ChangedAt = time.UnixMilli(r.WishedAt).UTC()
	}
	var states []string
	for _, p := range letters.Platforms(r) {
		one := progressForm(s.progress(r, p), r.Wish)
		states = append(states, one.State)
		f.Progress[schemas.PlatformName(p)] = one
		f.add(one.ReplayCounts)
		if one.Detail != "" {
			f.Detail = schemas.PlatformName(p) + ": " + one.Detail
		}
	}
	f.State = together(states)
	return f
}

func progressForm(p *pb.ReplayProgress, wish pb.ReplayWish) ReplayProgress {
	f := ReplayProgress{State: "planned"}
	if p != nil {
		f.State, f.Detail = replayStates[p.State], p.Detail
		f.StartedAt, f.At = time.UnixMilli(p.StartedAt).UTC(), time.UnixMilli(p.At).UTC()
		f.ReplayCounts = ReplayCounts{
			Read: p.Read, Matched: p.Matched, Sent: p.Sent, Expired: p.Expired, Replayed: p.Replayed, Unreadable: p.Unreadable,
		}
		for _, r := range p.Ranges {
			f.Left += uint64(r.End - r.Next)
		}
	}
	if wish == pb.ReplayWish_REPLAY_WISH_PAUSE && (f.State == "planned" || f.State == "running") {
		f.State = "paused"
	}
	return f
}

// together is the state of a whole whose parts have these: what still moves comes first, and of the ends the worst.
func together(states []string) string {
	for _, state := range []string{"running", "paused", "planned", "failed", "cancelled"} {
		for _, one := range states {
			if one == state {
				return state
			}
		}
	}
	return "finished"
}

func (c *ReplayCounts) add(o ReplayCounts) {
	c.Read += o.Read
	c.Left += o.Left
	c.Matched += o.Matched
	c.Sent += o.Sent
	c.Expired += o.Expired
	c.Replayed += o.Replayed
	c.Unreadable += o.Unreadable
}
