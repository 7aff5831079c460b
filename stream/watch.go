package stream

import (
	"context"
	"time"
)

const (
	watchEvery   = 2 * time.Second
	watchTimeout = 5 * time.Second
)

// Watch says, once each, that Kafka does not answer and that it answers again, until ctx is done. Every client of a
// process meets an outage, waits for its end and says nothing of it: one voice is enough. When Kafka answers, at first and
// after an outage, Watch also looks for transactions that nobody ends.
func (k *Kafka) Watch(ctx context.Context) error {
	client, err := k.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var since time.Time
	mender := mender{k: k}
	mender.begin()
	for {
		ping, cancel := context.WithTimeout(ctx, watchTimeout)
		err := client.Ping(ping)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && since.IsZero():
			since = time.Now()
			k.Log.Warn("Kafka does not answer: nothing is lost, and everything goes on when it does", "brokers", k.Brokers, "err", err)
		case err == nil && !since.IsZero():
			k.Log.Info("Kafka answers again", "after", time.Since(since).Round(time.Second))
			since = time.Time{}
			mender.begin()
		}
		if err == nil {
			mender.look(ctx, client)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
