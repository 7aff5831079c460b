package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	watchEvery   = 2 * time.Second
	watchTimeout = 5 * time.Second
)

// Watch says, once each, that Kafka does not answer and that it answers again, until ctx is done. Every client of a
// process meets an outage, waits for its end and says nothing of it: one voice is enough. When Kafka answers, at first and
// after an outage, Watch also looks for transactions that nobody ends, and from time to time whether keyed topics still have
// the partitions that they had.
func (k *Kafka) Watch(ctx context.Context) error {
	client, err := k.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	process := k.process()
	defer process.went(false, time.Time{})
	mender := mender{k: k}
	mender.begin()
	recount := recount{k: k, said: map[string]int32{}}
	for {
		answers, again := k.ping(ctx, client)
		if ctx.Err() != nil {
			return nil
		}
		if again {
			mender.begin()
		}
		if answers {
			mender.look(ctx, client)
			recount.look(ctx, client)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ping asks whether Kafka answers, and says when that has changed. again tells that it does after it did not.
func (k *Kafka) ping(ctx context.Context, client *kgo.Client) (answers, again bool) {
	limited, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	err := Ping(limited, client)
	if ctx.Err() != nil {
		return false, false
	}
	changed, since := k.process().went(err != nil, time.Now())
	switch {
	case changed && err != nil:
		k.Log.Warn("Kafka does not answer: nothing is lost, and everything goes on when it does", "brokers", k.Brokers, "err", err)
	case changed:
		k.Log.Info("Kafka answers again", "after", time.Since(since).Round(time.Second))
	}
	return err == nil, changed && err == nil
}

// await waits until Kafka answers, for a process that has not begun to Watch.
func (k *Kafka) await(ctx context.Context) error {
	client, err := k.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		if answers, _ := k.ping(ctx, client); answers {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for Kafka at %v: %w", k.Brokers, context.Cause(ctx))
		case <-time.After(watchEvery):
		}
	}
}
