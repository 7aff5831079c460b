package fanout

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// scheduleEvery is how late a campaign may start.
	scheduleEvery = 250 * time.Millisecond
	// startAgain is how long the launcher has to carry a start out before it is asked again.
	startAgain = 10 * time.Second
)

// scheduler asks the launcher to start campaigns whose time has come, and to end drafts that were forgotten. Every instance does so, and says it with the same
// command id, so it happens once.
type scheduler struct {
	kafka     *stream.Kafka
	campaigns *campaigns
	patience  *patience
	now       func() time.Time
	// asked is when each start was last asked for, by command id.
	asked map[string]time.Time
}

func (s *scheduler) run(ctx context.Context) error {
	client, err := s.kafka.Client(stream.GiveUp()) // a command that is there twice is taken once
	if err != nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	defer client.Close()
	tick := time.NewTicker(scheduleEvery)
	defer tick.Stop()
	select {
	case <-s.campaigns.view.Ready():
	case <-ctx.Done():
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		records := s.records(s.now())
		if len(records) == 0 {
			continue
		}
		err := s.patience.try(ctx, "ask for what is due of campaigns", func() error {
			return stream.Explain(client.ProduceSync(ctx, records...).FirstErr())
		})
		if err != nil {
			return nil // ctx is over
		}
	}
}

// records are what to ask for now.
func (s *scheduler) records(now time.Time) []*kgo.Record {
	for id, at := range s.asked {
		if now.Sub(at) > startAgain {
			delete(s.asked, id)
		}
	}
	var records []*kgo.Record
	for _, c := range s.campaigns.due(now) {
		cmd := &pb.Command{
			Id:  fmt.Sprintf("start/%s/%d", c.Id, c.Epoch),
			App: c.App, Campaign: c.Id, At: now.UnixMilli(),
			Kind: &pb.Command_Start{Start: &pb.Start{}},
		}
		if c.State == pb.CampaignState_CAMPAIGN_STATE_DRAFT {
			cmd.Id = fmt.Sprintf("forget/%s/%d", c.Id, c.Epoch)
			cmd.Kind = &pb.Command_Cancel{Cancel: &pb.Cancel{Reason: "it was a draft for 28 days, and nobody launched it"}}
		}
		key := schemas.Key(c.App, c.Id)
		asked := string(key) + "#" + cmd.Id
		if _, ok := s.asked[asked]; ok {
			continue
		}
		value, err := proto.Marshal(cmd)
		if err != nil {
			panic("fanout: encode start: " + err.Error()) // its strings came out of a decoded record
		}
		s.asked[asked] = now
		records = append(records, &kgo.Record{Topic: s.kafka.Topic(schemas.TopicCommands), Key: key, Value: value})
	}
	return records
}
