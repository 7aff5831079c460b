package replay

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// step is one task under way.
type step struct {
	*worker
	term *term
	job  *job
	task *stream.Task
	// record is the step as it lay on the topic.
	record *pb.ReplayStep
	replay *pb.Replay
}

// step ends one task: with the next deliveries and the step after it, or by giving it back when ctx ends.
func (w *worker) step(ctx context.Context, t *term, task *stream.Task) {
	s := &step{worker: w, term: t, task: task, record: &pb.ReplayStep{}}
	if err := proto.Unmarshal(task.Value, s.record); err != nil || s.record.Id == "" {
		task.Done(task.DeadLetter(schemas.TopicDead(w.platform), "undecodable", "not a belfry.v1.ReplayStep"))
		return
	}
	s.job = t.job(s.record.App, s.record.Id)
	s.job.mu.Lock()
	defer s.job.mu.Unlock()
	if s.idle() {
		task.Done()
		return
	}
	for !s.once(ctx) {
	}
}

// idle tells that nothing follows: it is a replay's last step, or a first one that came twice.
func (s *step) idle() bool {
	if s.record.Progress == nil {
		return s.term.history.Progress(s.record.App, s.record.Id) != nil
	}
	return s.record.Progress.State != pb.ReplayState_REPLAY_STATE_RUNNING
}

// once looks what is wanted and does it. It is false if nothing came of it yet.
func (s *step) once(ctx context.Context) (ended bool) {
	err := s.wish(ctx)
	switch {
	case ctx.Err() != nil:
		s.job.close()
		s.task.Release()
	case err != nil:
		s.task.Done(s.task.DeadLetter(schemas.TopicDead(s.platform), "unknown-replay", err.Error()))
	case s.replay.Wish == pb.ReplayWish_REPLAY_WISH_CANCEL:
		s.leave(s.progress(), pb.ReplayState_REPLAY_STATE_CANCELLED, "", nil)
	case s.replay.Wish == pb.ReplayWish_REPLAY_WISH_PAUSE:
		s.task.Done(stream.Output{Topic: s.task.Topic, Key: s.task.Key, Value: s.task.Value})
	case s.record.Progress == nil:
		s.start(ctx)
	default:
		return s.advance(ctx)
	}
	return true
}

var errUnknown = errors.New("belfry.control has no replay of this id")

// wish finds the replay, and waits while it is paused, for a minute at most.
func (s *step) wish(ctx context.Context) error {
	hold := time.NewTimer(holdFor)
	defer hold.Stop()
	for caughtUp := false; ; {
		r, changed := s.asked.Get(s.record.App, s.record.Id)
		switch {
		case r == nil && caughtUp:
			return errUnknown
		case r == nil:
			if err := s.asked.CatchUp(ctx); err != nil {
				return err
			}
			caughtUp = true
			continue
		}
		if s.replay = r; r.Wish != pb.ReplayWish_REPLAY_WISH_PAUSE {
			return nil
		}
		s.job.close() // a pause may be long
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-hold.C:
			return nil
		}
	}
}

// wanted is a context that ends when the replay is wanted otherwise than it is now.
func (s *step) wanted(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			r, changed := s.asked.Get(s.record.App, s.record.Id)
			if r.GetWish() != s.replay.Wish {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-watched
	}
}

// progress is a copy of where the step stands.
func (s *step) progress() *pb.ReplayProgress {
	if s.record.Progress == nil {
		return &pb.ReplayProgress{StartedAt: time.Now().UnixMilli()}
	}
	return proto.CloneOf(s.record.Progress)
}

// start marks what there is at this moment: nothing that comes later is part of the replay.
func (s *step) start(ctx context.Context) {
	var p *pb.ReplayProgress
	err := s.insist(ctx, "begin a replay", func() (err error) {
		p, err = letters.Begin(ctx, s.k, s.replay, s.platform, time.Now())
		return err
	})
	if err != nil {
		s.task.Release()
		return
	}
	s.leave(p, pb.ReplayState_REPLAY_STATE_RUNNING, "", nil)
}

// advance sends the next few. It is false when it has read nothing: the replay is wanted otherwise, or Kafka is away.
func (s *step) advance(parent context.Context) bool {
	ctx, stop := s.wanted(parent)
	defer stop()
	if !sleepUntil(ctx, s.job.next) {
		return false
	}
	p := s.progress()
	taken, err := s.gather(ctx, p)
	switch {
	case parent.Err() != nil:
		return false // what was taken is forgotten with the term
	case err != nil && ctx.Err() == nil:
		s.leave(p, pb.ReplayState_REPLAY_STATE_FAILED, err.Error(), taken)
	case s.job.selection == nil || p.Read == s.record.Progress.Read && !s.job.selection.Done():
		return false
	case s.job.selection.Done():
		s.leave(p, pb.ReplayState_REPLAY_STATE_FINISHED, "", taken)
	default:
		s.leave(p, pb.ReplayState_REPLAY_STATE_RUNNING, "", taken)
	}
	return true
}

// gather reads on, until it has as many as a step sends, and counts in p what it found.
func (s *step) gather(ctx context.Context, p *pb.ReplayProgress) (taken []*letters.Found, err error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	most := stepSize(s.replay.Rate)
	read, size := 0, 0
	for begun := time.Now(); !s.job.selection.Done() && len(taken) < most && size < maxBytes && read < maxRead && time.Since(begun) < stepTime; {
		found, n, err := s.job.selection.Next(ctx, most-len(taken))
		if err != nil {
			return taken, err
		}
		read += n
		for _, f := range found {
			if s.count(p, f) {
				taken = append(taken, f)
				size += proto.Size(f.Delivery)
			}
		}
		p.Read += uint64(n)
		p.Ranges = s.job.selection.Left()
	}
	return taken, nil
}

// stepSize is what a step of half a second sends, so that a rate is kept by steps and a pause acts soon.
func stepSize(rate float64) int { return max(1, min(maxStep, int(rate/2))) }

// open makes the selection stand where the step does. One that another process began is read from there anew.
func (s *step) open(ctx context.Context) (err error) {
	if s.job.selection != nil && proto.Equal(s.job.left, s.record.Progress) {
		return nil
	}
	s.job.close()
	s.job.selection, err = letters.Select(ctx, s.k, s.replay, s.platform, s.record.Progress, s.term.history, time.Now)
	return err
}

// count enters what was found, and tells whether it is to be sent.
func (s *step) count(p *pb.ReplayProgress, f *letters.Found) bool {
	p.Matched++
	switch {
	case f.Verdict == letters.Unreadable:
		p.Unreadable++
	case f.Verdict == letters.Expired:
		p.Expired++
	case f.Verdict == letters.Replayed || !s.term.history.Take(f):
		p.Replayed++
	default:
		p.Sent++
		return true
	}
	return false
}

// leave ends the task with what is sent, how the accounts change, and the step after it.
func (s *step) leave(p *pb.ReplayProgress, state pb.ReplayState, detail string, taken []*letters.Found) {
	p.State, p.Detail, p.At = state, detail, time.Now().UnixMilli()
	next := &pb.ReplayStep{App: s.record.App, Id: s.record.Id, Progress: p, Claims: letters.Claim(taken)}
	s.job.left = p
	s.job.next = time.Now()
	if n := len(taken); n > 0 {
		s.job.next = s.job.next.Add(time.Duration(float64(n) / s.replay.Rate * float64(time.Second)))
	}
	value := encode(next)
	if err := s.term.history.Apply(value); err != nil {
		panic("replay: its own step: " + err.Error()) // it was encoded a line ago
	}
	outs := append(again(s.platform, taken), stream.Output{Topic: s.task.Topic, Key: s.task.Key, Value: value})
	if state != pb.ReplayState_REPLAY_STATE_RUNNING {
		s.job.close()
		outs = append(outs, ended(s.record, s.platform, p))
	}
	failpoint.Hit(failpoint.ReplayCheckpoint)
	s.task.Done(outs...)
}

// sleepUntil waits until a moment, or says false when ctx ended first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
