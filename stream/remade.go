package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A topic that is deleted and made again has another id, and a client never adopts it: whoever reads it waits for ever, and
// what is written to it is refused. Readers therefore look at the ids of their topics, and begin anew with new clients; a client
// that writes forgets the topic.

// lookForTopics is how often a reader looks whether its topics are still the same.
const lookForTopics = 2 * time.Second

// errRemade says that a topic is another than the one that was read.
var errRemade = errors.New("was deleted and made again: it is read from its start")

type topicIDs map[string]kadm.TopicID // by full name

// changed looks at topics. It fills in the ids that are not known, and is errRemade when one is another, or why one
// is not to be seen: it is missing, or this user may not. Of a Kafka that does not answer it tells nothing.
func (ids topicIDs) changed(ctx context.Context, client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := kadm.NewClient(client).ListTopics(ctx, slices.Sorted(maps.Keys(ids))...)
	if err != nil {
		return nil // Kafka is away
	}
	var none kadm.TopicID
	for name, was := range ids {
		switch now := found[name]; {
		case errors.Is(now.Err, kerr.UnknownTopicOrPartition):
			err = fmt.Errorf("topic %s: %w", name, Explain(now.Err))
		case now.Err != nil && !kerr.IsRetriable(now.Err):
			err = fmt.Errorf("topic %s: %w", name, Explain(now.Err))
		case now.ID == none:
		case was == none:
			ids[name] = now.ID
		case now.ID != was:
			return fmt.Errorf("topic %s %w", name, errRemade)
		}
	}
	return err
}

// stay looks after a reader's topics until ctx ends, and returns nil then, or errRemade when one is another. It says, once each time,
// that one is missing; and ends what is noted of reads that fail when that has not been for a while, for nothing tells of a success.
func (ids topicIDs) stay(ctx context.Context, k *Kafka, log *slog.Logger, client *kgo.Client, missing, reading *trouble) error {
	tick := time.NewTicker(lookForTopics)
	defer tick.Stop()
	for {
		err := ids.changed(ctx, client)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errRemade):
			return err
		case err != nil:
			missing.note(k, log, err)
		default:
			missing.over(log)
		}
		reading.fades(log)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// forgets has a client that writes forget topics that were deleted and made again: it asks for them anew with the next record.
// Not one with transactions, of which one may be under way: its consumer opens another.
type forgets struct {
	mu     sync.Mutex
	client *kgo.Client
	going  map[string]bool
}

// OnProduceRecordUnbuffered is a hook of the client: it hears of each record's end.
func (f *forgets) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	if err == nil || !errors.Is(err, kerr.UnknownTopicID) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client == nil || f.going[r.Topic] || f.client.OptValue(kgo.TransactionalID) != "" {
		return
	}
	f.going[r.Topic] = true
	// Not from here: the client waits for its hooks in what this waits for. It ends with the client at the latest.
	go func() {
		f.client.PurgeTopicsFromProducing(r.Topic)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.going, r.Topic)
	}()
}
