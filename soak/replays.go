package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// replayEvery is the pause between two replays of the load.
const replayEvery = 3 * time.Second

// replays asks for one after another until brief ends, and for a last one then, when no more faults make dead letters.
func (l *load) replays(ctx, brief context.Context) {
	// By reason, by the codes of an answer, and whatever there is.
	meant := [][]string{{"unknown"}, {"5xx", "exhausted"}, nil}
	for n := 0; ctx.Err() == nil; n++ {
		over := brief.Err() != nil
		reasons := meant[n%len(meant)]
		if over {
			reasons = nil
		}
		l.replay(ctx, fmt.Sprintf("r-%04d", n), reasons)
		if over {
			return
		}
		select {
		case <-brief.Done():
		case <-time.After(replayEvery):
		}
	}
}

// replay does as people do: it looks what there is with a dry run, asks for it, and waits for its end. The same call is
// made again at once and in the end, as by a client that heard no answer, and must change nothing.
func (l *load) replay(ctx context.Context, key string, reasons []string) {
	body := producer.ReplayRequest{Rate: 100, DryRun: true}
	body.Reasons = reasons
	var dry producer.ReplayCreated
	if !l.answered(ctx, "dry run", http.MethodPost, "/v1/replays", "", body, http.StatusOK, &dry) || dry.DryRun == nil {
		return
	}
	body.DryRun = false
	id := l.askReplay(ctx, key, body)
	if id == "" || l.askReplay(ctx, key, body) == "" {
		return
	}
	for {
		var r producer.Replay
		if !l.answered(ctx, "replay", http.MethodGet, "/v1/replays/"+id, "", nil, http.StatusOK, &r) {
			return
		}
		if r.State == "finished" || r.State == "failed" {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	l.askReplay(ctx, key, body)
}

// askReplay asks for a replay, notes its id, and checks that the same call always gets the same one.
func (l *load) askReplay(ctx context.Context, key string, body producer.ReplayRequest) (id string) {
	var created producer.ReplayCreated
	if !l.answered(ctx, "replay", http.MethodPost, "/v1/replays", key, body, http.StatusAccepted, &created) || created.Replay == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.replayed[key]; before != "" && before != created.Replay.ID {
		l.strange = append(l.strange, fmt.Sprintf("replay %s is %s, and then %s", key, before, created.Replay.ID))
	}
	l.replayed[key] = created.Replay.ID
	return created.Replay.ID
}

// answered makes a call until it has an answer, and decodes the one that is wanted.
func (l *load) answered(ctx context.Context, what, method, path, key string, body any, want int, into any) bool {
	status, answer := l.repeat(ctx, method, path, key, body)
	switch {
	case status == 0:
	case status != want || json.Unmarshal(answer, into) != nil:
		l.unexpected(what, status, answer)
	default:
		return true
	}
	return false
}

// letter is where a dead letter lies.
type letter struct {
	topic     string // without prefix
	partition int32
	offset    int64
}

// replayed is what replays left behind on Kafka.
type replayed struct {
	letters map[letter][16]byte // whose they are
	// last is each replay's last step, by id and platform.
	last   map[string]map[string]*pb.ReplayProgress
	claims map[letter]int // how often a step says that it has sent it again
}

func newReplayed() *replayed {
	return &replayed{letters: map[letter][16]byte{}, last: map[string]map[string]*pb.ReplayProgress{}, claims: map[letter]int{}}
}

// step takes a record of belfry.replays.<platform>.
func (r *replayed) step(platform string, record *kgo.Record) error {
	s := &pb.ReplayStep{}
	if err := proto.Unmarshal(record.Value, s); err != nil {
		return fmt.Errorf("a replay's step: %w", err)
	}
	if r.last[s.Id] == nil {
		r.last[s.Id] = map[string]*pb.ReplayProgress{}
	}
	// A first step that comes twice has no progress, and comes to nothing.
	if s.Progress != nil || r.last[s.Id][platform] == nil {
		r.last[s.Id][platform] = s.Progress
	}
	for _, c := range s.Claims {
		var offset int64
		for _, o := range c.Offsets {
			offset += o
			r.claims[letter{c.Topic, c.Partition, offset}]++
		}
	}
	return nil
}

// again is how often replays have sent each delivery.
func (r *replayed) again() map[[16]byte]int {
	all := map[[16]byte]int{}
	for l, n := range r.claims {
		if id, known := r.letters[l]; known {
			all[id] += n
		}
	}
	return all
}

// faults says where replays did not do what was asked of them, once each, and nothing else. sent is how often each delivery
// lies on the send topics as a new one; exact tells of which that must come out even.
func (r *replayed) faults(asked []string, sent map[[16]byte]int, exact func([16]byte) bool) (wrong []string) {
	for id, platforms := range r.last {
		if !slices.Contains(asked, id) {
			wrong = append(wrong, "a replay that nobody asked for: "+id)
			continue
		}
		for _, p := range schemas.Platforms {
			name := schemas.PlatformName(p)
			if state := platforms[name].GetState(); state != pb.ReplayState_REPLAY_STATE_FINISHED {
				wrong = append(wrong, fmt.Sprintf("replay %s is %v on %s: %s", id, state, name, platforms[name].GetDetail()))
			}
		}
	}
	for _, id := range asked {
		if r.last[id] == nil {
			wrong = append(wrong, "a replay of which there is nothing: "+id)
		}
	}
	for l, n := range r.claims {
		if _, known := r.letters[l]; n > 1 || !known {
			wrong = append(wrong, fmt.Sprintf("letter %v, a delivery's: %v, was sent again %d times", l, known, n))
		}
	}
	again := r.again()
	for id, n := range sent {
		if exact(id) && n != 1+again[id] {
			wrong = append(wrong, fmt.Sprintf("%x was sent out %d times, and %d times by replays", id, n, again[id]))
		}
	}
	return wrong
}
