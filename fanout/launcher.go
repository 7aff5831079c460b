package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// launcher answers commands, and is the only writer of belfry.campaigns. A campaign's commands lie on one partition, so
// one instance decides them, in order. Its answer, and at a launch all chunks, go out in one transaction.
type launcher struct {
	consumer  *stream.Consumer
	campaigns *campaigns
	registry  *registry.Registry
	patience  *patience
	log       *slog.Logger
	now       func() time.Time

	mu       sync.Mutex
	overlays map[int32]*overlay
}

// overlay holds what one assignment of one partition has decided and the view may not show yet. Only that assignment's
// handler touches it.
type overlay struct {
	assignment uint64
	campaigns  map[string]*pb.Campaign
}

func newLauncher(f *Fanout) *launcher {
	log := f.o.Kafka.Log.With("role", "fanout.launcher")
	l := &launcher{
		campaigns: f.campaigns, registry: f.o.Registry, log: log, now: f.o.Now,
		patience: &patience{kafka: f.o.Kafka, log: log}, overlays: map[int32]*overlay{},
	}
	l.consumer = stream.NewConsumer(f.o.Kafka, stream.Options{
		Name:   "fanout.launcher",
		Topics: []string{schemas.TopicCommands},
		Handle: l.handle,
		After:  f.ready(),
	})
	return l
}

func (l *launcher) handle(ctx context.Context, tasks []*stream.Task) {
	own, err := l.overlay(ctx, tasks[0])
	for _, t := range tasks {
		if err == nil {
			err = l.answer(ctx, own, t)
		}
		if err != nil {
			t.Release() // the assignment is over
		}
	}
}

// overlay returns the assignment's overlay, without what the view shows by now. A new assignment begins by reading all
// that the partition's last owner decided.
func (l *launcher) overlay(ctx context.Context, t *stream.Task) (*overlay, error) {
	l.mu.Lock()
	own := l.overlays[t.Partition]
	l.mu.Unlock()
	if own != nil && own.assignment == t.Assignment() {
		for key, c := range own.campaigns {
			if seen := l.campaigns.get(key); seen != nil && proto.Equal(seen.Campaign, c) {
				delete(own.campaigns, key)
			}
		}
		return own, nil
	}
	err := l.patience.try(ctx, "read the campaigns to their end", func() error { return l.campaigns.catchUp(ctx) })
	if err != nil {
		return nil, err
	}
	own = &overlay{assignment: t.Assignment(), campaigns: map[string]*pb.Campaign{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.overlays[t.Partition] = own
	return own, nil
}

// answer decides one command. Its only error is that ctx is over.
func (l *launcher) answer(ctx context.Context, own *overlay, t *stream.Task) error {
	cmd := &pb.Command{}
	err := proto.Unmarshal(t.Value, cmd)
	if err == nil && string(t.Key) != string(schemas.Key(cmd.App, cmd.Campaign)) {
		// Decided here it might be decided beside another instance's decision.
		err = errors.New("the record's key is not app/campaign of its command")
	}
	if err == nil && cmd.Id == "" {
		err = errors.New("the command has no id")
	}
	if err != nil {
		t.Done(t.DeadLetter(schemas.TopicDeadOf(schemas.TopicCommands), "undecodable", err.Error()))
		return nil
	}
	key := string(t.Key)
	current := own.campaigns[key]
	if current == nil {
		if seen := l.campaigns.get(key); seen != nil {
			current = seen.Campaign
		}
	}
	next, refused := Decide(current, cmd, l.now())
	if refused != nil {
		l.log.Info("command refused", "campaign", key, "command", cmd.Id, "err", refused)
	}
	switch {
	case next == nil:
		// There is no campaign to keep the answer in.
		t.Done(t.DeadLetter(schemas.TopicDeadOf(schemas.TopicCommands), "refused", refused.Error()))
		return nil
	case next == current:
		t.Done()
		return nil
	}
	outs, err := l.outputs(ctx, current, next)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		t.Done(t.DeadLetter(schemas.TopicDeadOf(schemas.TopicCommands), "unencodable", err.Error()))
		return nil
	}
	own.campaigns[key] = next
	t.Done(outs...)
	return nil
}

// outputs are the campaign's record and, when this starts it, its chunks.
func (l *launcher) outputs(ctx context.Context, current, next *pb.Campaign) ([]stream.Output, error) {
	var outs []stream.Output
	if current.GetLaunchedAt() == 0 && next.LaunchedAt != 0 {
		err := l.patience.try(ctx, "look up the audience of a campaign", func() error {
			chunks, err := cutChunks(ctx, l.registry, next)
			if err != nil {
				return fmt.Errorf("campaign %s/%s: %w", next.App, next.Id, err)
			}
			outs, err = chunkOutputs(chunks)
			begin(next, chunks, l.now())
			return err
		})
		if err != nil {
			return nil, err
		}
		l.log.Info("campaign launched", "campaign", next.App+"/"+next.Id, "chunks", next.Chunks)
	}
	value, err := proto.Marshal(next)
	if err != nil {
		return nil, fmt.Errorf("encode campaign %s: %w", next.Id, err)
	}
	return append(outs, stream.Output{Topic: schemas.TopicCampaigns, Key: schemas.Key(next.App, next.Id), Value: value}), nil
}

// begin writes into a campaign that has just started what its audience came to.
func begin(c *pb.Campaign, chunks map[pb.Platform][]*pb.Chunk, now time.Time) {
	c.Chunks, c.Settled = map[string]uint32{}, nil
	for _, p := range schemas.Platforms {
		if n := len(chunks[p]); n > 0 {
			c.Chunks[schemas.PlatformName(p)] = uint32(n)
		} else {
			c.Settled = append(c.Settled, p)
		}
	}
	if len(c.Chunks) == 0 {
		end(c, pb.CampaignState_CAMPAIGN_STATE_FINISHED, "no device of its audience is registered", now)
	}
}
